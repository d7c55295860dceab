"""The narrow seam to the MQTT client: one persistent MQTT 5 session, messages in, acknowledgements by hand.

Every connection uses a new client object with a clean memory: the broker is the one that knows what is not
acknowledged, and an old client's memory of packet identifiers could only contradict it. So everything that
was not acknowledged when a connection broke is delivered again on the next one.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence

import structlog
from qilu_common.broker import BrokerAddress
from qilu_common.mqtt.codec import DISCONNECT_WITH_WILL, NEVER, ConnectOptions, Will
from qilu_common.mqtt.connection import Connection, connect
from qilu_common.mqtt.errors import SESSION_TAKEN_OVER, MqttError
from qilu_common.mqtt.messages import Messages
from qilu_common.mqtt.reconnecting import keep_connected
from qilu_contract.errors import ConfigError
from qilu_contract.wire import topics
from qilu_contract.wire.clock import wall_ms
from qilu_contract.wire.partitions import Partition

log = structlog.get_logger()

MAX_PACKET_BYTES = 64 * 1024 * 1024
"""A broker silently drops what is larger than a client takes, so this lies far above brokers' own limits."""
MAX_QUEUED_BYTES = 32 * 1024 * 1024
"""What was read and is not taken yet; at the bound nothing more is read from the socket."""
KEEPALIVE_S = 15
HOST, HISTORY = 1, 2
"""Lanes: the host's connection of the strict profile, and the session for history; 0 is that for all else."""
TIMEOUT_S = 10.0
GATHER_S = 0.005
MOST_TOGETHER, MOST_TOGETHER_BYTES = 5_000, 512 * 1024
"""Messages that are taken together: some ten milliseconds of work."""


def filters(partition: Partition) -> tuple[str, ...]:
    """What a gateway subscribes to. One that has everything takes whole trees, so that a message on a wrong
    topic becomes a dead letter instead of vanishing."""
    if partition.whole:
        return "spBv1.0/#", "qilu/v1/#"
    shared = (topics.state("#"), topics.CLOCK)
    own = [f"{root}/{group}/#" for root in (topics.NAMESPACE, "qilu/v1") for group in partition.groups]
    return *shared, *own


def history_filters(partition: Partition) -> tuple[str, ...]:
    """What the session for history subscribes to."""
    if partition.whole:
        return (f"{topics.HISTORY}#",)
    return tuple(f"{topics.HISTORY}{topics.NAMESPACE}/{group}/#" for group in partition.groups)


Take = Callable[[Messages, int], Awaitable[None]]
"""Messages, and the epoch: which connection of ours delivered them. They can be acknowledged on no other."""


class Session:
    """`run` keeps the connection; the other methods may be called at any time and do what is possible now."""

    def __init__(
        self,
        broker: BrokerAddress,
        client_id: str,
        *,
        window: int,
        will: Callable[[int], Will] | None,
        filters: Sequence[str],
        persistent: bool = True,
        stamp: Callable[[], int] = wall_ms,
    ) -> None:
        """`stamp` gives each connection a timestamp (ms), from which `will` makes its last will. Not
        `persistent`: the broker forgets the session with the connection, as Sparkplug wants it of hosts."""
        self._broker, self._client_id = broker, client_id
        self._window = window
        self._will, self._filters, self._persistent = will, filters, persistent
        self._stamp = stamp
        self._connection: Connection | None = None
        self._queue: deque[Messages] = deque()
        self._queued_bytes = 0
        self._some = asyncio.Event()
        self._stopping = asyncio.Event()
        self._closing = False
        self._subscribed = False
        self.epoch = 0
        self.connected_ms = 0
        """The timestamp of the present connection and its will (ms)."""
        self.up_since = 0.0
        """When the present connection was subscribed, on the monotonic clock."""

    async def run(self, take: Take) -> None:
        """Connect, subscribe and pass all messages to `take` in order, until `stop_intake`. Raises
        ConfigError when another gateway takes over the session: the two would take it from each other for
        ever."""
        await keep_connected(
            self._broker, lambda: self._use_connection(take), self._stopping, failed=self._on_failure
        )

    def _on_failure(self, error: Exception) -> None:
        if isinstance(error, MqttError) and error.reason == SESSION_TAKEN_OVER:
            raise ConfigError(
                f"Another gateway has taken over the session {self._client_id!r} at {self._broker}: "
                "run one gateway for a --shard and host id."
            )

    async def _use_connection(self, take: Take) -> None:
        """One connection, to its end. Raises MqttError, OSError, TimeoutError; returns after `close`."""
        self.connected_ms = self._stamp()
        self._queue.clear()
        self._queued_bytes = 0
        options = ConnectOptions(
            self._client_id,
            self._will(self.connected_ms) if self._will is not None else None,
            clean_start=not self._persistent,
            session_expiry_s=NEVER if self._persistent else 0,
            keepalive_s=KEEPALIVE_S,
            receive_maximum=self._window,
            max_packet_bytes=MAX_PACKET_BYTES,
        )
        # Whatever ends this connection but `close`, the broker is to publish the will.
        async with await connect(self._broker, options, take=self._arrived) as connection:
            connection.ended.add_done_callback(lambda _: self._some.set())
            self.epoch += 1
            self._connection = connection
            # The backlog arrives while the subscription is still being answered.
            subscribing = asyncio.create_task(self._subscribe(connection), name="gateway-subscribe")
            try:
                await self._hand_on(connection, take)
            finally:
                subscribing.cancel()
                await asyncio.wait([subscribing])
                self._connection = None
                self._subscribed = False
            if not self._closing:
                raise connection.ended.result()

    def _arrived(self, messages: Messages) -> None:
        self._queue.append(messages)
        self._queued_bytes += messages.payload_bytes
        if self._queued_bytes > MAX_QUEUED_BYTES and self._connection is not None:
            self._connection.pause()
        self._some.set()

    async def _hand_on(self, connection: Connection, take: Take) -> None:
        """Until the connection's end. What is queued then cannot be acknowledged any more: it comes again."""
        queue, epoch = self._queue, self.epoch
        while connection.is_open:
            if queue:
                messages = self._next()
                if not self._stopping.is_set():  # else the broker delivers them again, to the next process
                    await take(messages, epoch)
            if self._queued_bytes <= MAX_QUEUED_BYTES:
                connection.resume()
            if queue:
                await asyncio.sleep(0)
                continue
            # Let some gather: to take many together costs little more than to take one.
            connection.pause()
            await asyncio.sleep(GATHER_S)
            connection.resume()
            if not queue and connection.is_open:
                self._some.clear()
                await self._some.wait()

    def _next(self) -> Messages:
        """What came first, as much as is taken together."""
        messages = self._queue.popleft()
        size = messages.payload_bytes
        while self._queue and len(messages) < MOST_TOGETHER and size < MOST_TOGETHER_BYTES:
            more = self._queue.popleft()
            size += more.payload_bytes
            messages.extend(more)
        self._queued_bytes -= size
        return messages

    async def _subscribe(self, connection: Connection) -> None:
        # A filter that the session has already is renewed; the clock's retained message comes again, which a
        # restarted gateway needs.
        try:
            await connection.subscribe(self._filters, no_local=True)
        except (MqttError, OSError, TimeoutError) as error:
            log.error("not subscribed", error=str(error) or "timeout")
            await connection.disconnect(DISCONNECT_WITH_WILL)
            return
        self._subscribed = True
        self.up_since = time.monotonic()
        log.info("broker connected", broker=str(self._broker), connection=self.epoch)

    @property
    def subscribed(self) -> bool:
        """Whether messages reach us now."""
        return self._subscribed and self._connection is not None and self._connection.is_open

    def acknowledge(self, epoch: int, mids: Iterable[int]) -> bool:
        """Whether the acknowledgements went out. Those of an older connection do not: the broker delivers
        their messages again."""
        connection = self._connection
        if connection is None or epoch != self.epoch or not connection.is_open:
            return False
        connection.acknowledge(mids)
        return True

    def send_qos0(self, topic: str, payload: bytes) -> bool:
        """Publish at QoS 0, as Sparkplug requires of commands. Returns whether it was sent."""
        connection = self._connection
        if connection is None or not connection.is_open:
            return False
        connection.send_qos0(topic, payload)
        connection.flush()
        return True

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> bool:
        """Whether the broker confirmed it (QoS 1) in time."""
        connection = self._connection
        if connection is None:
            return False
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await connection.publish(topic, payload, retain=retain)
        except (MqttError, OSError, TimeoutError) as error:
            log.warning("not published", topic=topic, error=str(error) or "timeout")
            return False
        return True

    def renew(self) -> None:
        """Break the connection off, so that the next one has a new timestamp and will."""
        if self._connection is not None:
            self._connection.lose()

    def stop_intake(self) -> None:
        """Take no more messages; acknowledging and publishing go on."""
        self._stopping.set()

    async def close(self) -> None:
        """Disconnect cleanly: the broker drops the will and keeps the session."""
        self._stopping.set()
        self._closing = True
        if self._connection is not None:
            await self._connection.disconnect()
