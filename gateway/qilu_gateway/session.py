"""The narrow seam to the MQTT client: one persistent MQTT 5 session, messages in, acknowledgements by hand.

Every connection uses a new client object with a clean memory: the broker is the one that knows what is not
acknowledged, and an old client's memory of packet identifiers could only contradict it. So everything that
was not acknowledged when a connection broke is delivered again on the next one.
"""

from __future__ import annotations

import asyncio
import random
import ssl
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

import structlog
from mqttium import MQTTError, MQTTProtocolVersion, NotConnectedError, ProtocolError, QoS
from mqttium.api import AsyncClient, Message, Properties, PublishMessage, SubscribeOptions
from qilu_contract.broker import BrokerAddress
from qilu_contract.errors import ConfigError

log = structlog.get_logger()

NEVER = 0xFFFF_FFFF
"""MQTT 5's session expiry that means: keep the session."""
MAX_PACKET_BYTES = 64 * 1024 * 1024
"""A broker silently drops what is larger than a client takes, so this lies far above brokers' own limits."""
MAX_QUEUED_BYTES = 2 * MAX_PACKET_BYTES
"""What the client may hold that we did not take yet; at the bound it stops reading from the socket."""
DISCONNECT_WITH_WILL = 0x04
SESSION_TAKEN_OVER = 0x8E
KEEPALIVE_S = 15
TIMEOUT_S = 10.0
GOODBYE_S = 1.0
FILTERS = ("spBv1.0/#", "qilu/v1/#")
"""Whole trees, so that a message on a wrong topic becomes a dead letter instead of vanishing."""


@dataclass(slots=True)
class Delivery:
    """One message as it was delivered once. `mid` is None at QoS 0, which nobody delivers again."""

    topic: str
    payload: bytes
    dup: bool
    mid: int | None
    epoch: int
    """Which connection of ours delivered it: it can be acknowledged on no other."""
    _message: Message


class Session:
    """`run` keeps the connection; the other methods may be called at any time and do what is possible now."""

    def __init__(
        self,
        broker: BrokerAddress,
        client_id: str,
        *,
        tls: ssl.SSLContext | None,
        window: int,
        will: Callable[[int], PublishMessage],
    ) -> None:
        """`will` makes the last will from the connection's timestamp (ms), new for each connection."""
        self._broker, self._client_id = broker, client_id
        self._tls = tls
        self._window = window
        self._will = will
        self._client: AsyncClient | None = None
        self._stopping = self._closing = False
        self._subscribed = False
        self._goodbye = 0
        """The reason that the broker gave for ending the connection."""
        self.epoch = 0
        self.connected_ms = 0
        """When the present connection was asked for (ms since 1970): the timestamp of its will."""
        self.up_since = 0.0
        """When the present connection was subscribed, on the monotonic clock."""

    async def run(self, take: Callable[[Delivery], Awaitable[None]]) -> None:
        """Connect, subscribe and hand every message to `take`, one after the other, until `stop`. Raises
        ConfigError when another gateway takes the session over: two would take it from each other for ever.
        """
        delay = 0.5
        while not self._stopping:
            started = time.monotonic()
            try:
                await self._connection(take)
            except (MQTTError, OSError) as error:
                log.warning("broker away", broker=str(self._broker), error=str(error))
            if self._stopping:
                return
            if self._goodbye == SESSION_TAKEN_OVER:
                raise ConfigError(
                    f"Another gateway has taken over the session {self._client_id!r} at {self._broker}: "
                    "run one gateway for a host id, or give each its own QILU_HOST_ID."
                )
            delay = 0.5 if time.monotonic() - started > 30 else min(delay * 2, 15.0)
            await asyncio.sleep(delay * random.uniform(0.5, 1))

    async def _connection(self, take: Callable[[Delivery], Awaitable[None]]) -> None:
        self.connected_ms = time.time_ns() // 1_000_000
        client = AsyncClient(
            self._client_id,
            protocol=MQTTProtocolVersion.MQTTv5,
            clean_start=False,
            keepalive=KEEPALIVE_S,
            username=self._broker.user,
            password=self._broker.password,
            connect_properties=Properties({"session_expiry_interval": NEVER}),
            will=self._will(self.connected_ms),
            maximum_packet_size=MAX_PACKET_BYTES,
            max_inbound_inflight=self._window,
            max_iterator_messages=65_535,
            max_iterator_bytes=MAX_QUEUED_BYTES,
            manual_ack=True,
            connect_timeout=TIMEOUT_S,
            subscribe_timeout=TIMEOUT_S,
        )
        self._goodbye = 0
        try:
            await self._connect(client)
            self.epoch += 1
            epoch = self.epoch
            self._client = client
            # The backlog arrives while the subscription is still being answered.
            subscribing = asyncio.create_task(self._subscribe(client), name="gateway-subscribe")
            try:
                async for message in client.messages():
                    if not self._stopping:  # else it stays unacknowledged and is delivered to who comes next
                        await take(
                            Delivery(message.topic, message.payload, message.dup, message.mid, epoch, message)
                        )
            finally:
                subscribing.cancel()
                await asyncio.wait([subscribing])
        finally:
            self._client = None
            self._subscribed = False
            # Whatever ends this connection but `close`, the broker is to publish the will.
            await _disconnect(client, 0 if self._closing else DISCONNECT_WITH_WILL)
            self._goodbye = client.stats().last_disconnect_reason_code or 0
        if not self._closing:
            raise MQTTError("the connection was closed")

    async def _connect(self, client: AsyncClient) -> None:
        connecting = asyncio.create_task(
            client.connect(self._broker.host, self._broker.port, ssl=self._tls), name="gateway-connect"
        )
        try:
            await asyncio.shield(connecting)
        except asyncio.CancelledError:
            # Broken off in the middle it would leave its socket to the garbage collector.
            await asyncio.wait([connecting], timeout=GOODBYE_S)
            connecting.cancel()
            await asyncio.gather(connecting, return_exceptions=True)
            raise

    async def _subscribe(self, client: AsyncClient) -> None:
        # A filter that the session has already is renewed; the clock's retained message comes again, which a
        # restarted gateway needs.
        options = SubscribeOptions(qos=QoS.AT_LEAST_ONCE, no_local=True)
        try:
            await client.subscribe([(topic, options) for topic in FILTERS])
        except (MQTTError, OSError) as error:
            log.error("not subscribed", error=str(error))
            await _disconnect(client, DISCONNECT_WITH_WILL)
            return
        self._subscribed = True
        self.up_since = time.monotonic()
        log.info("broker connected", broker=str(self._broker), connection=self.epoch)

    @property
    def subscribed(self) -> bool:
        """Whether messages reach us now."""
        return self._subscribed and self._client is not None and self._client.is_connected

    async def acknowledge(self, deliveries: Iterable[Delivery]) -> int:
        """How many acknowledgements went out. Those of an older connection do not: the broker delivers their
        messages again.
        """
        done = 0
        for delivery in deliveries:
            client = self._client
            if client is None or delivery.epoch != self.epoch:
                continue
            try:
                await client.ack(delivery._message)
            except (NotConnectedError, ProtocolError):
                continue  # the connection ended under us
            done += 1
        return done

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> bool:
        """Whether the broker confirmed it (QoS 1) in time."""
        client = self._client
        if client is None:
            return False
        try:
            async with asyncio.timeout(TIMEOUT_S):
                receipt = await client.publish(topic, payload, qos=QoS.AT_LEAST_ONCE, retain=retain)
                await receipt.wait()
        except (MQTTError, OSError, TimeoutError) as error:
            log.warning("not published", topic=topic, error=str(error) or "timeout")
            return False
        return True

    def stop_intake(self) -> None:
        """Take no more messages; acknowledging and publishing go on."""
        self._stopping = True

    async def close(self) -> None:
        """Disconnect cleanly: the broker drops the will and keeps the session."""
        self._stopping = self._closing = True
        client = self._client
        if client is not None:
            await _disconnect(client, 0)


async def _disconnect(client: AsyncClient, reason: int) -> None:
    """Say goodbye, or hang up when the broker does not listen."""
    with suppress(TimeoutError):
        async with asyncio.timeout(GOODBYE_S):
            await client.disconnect(reason)
