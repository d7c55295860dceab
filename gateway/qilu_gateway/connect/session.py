"""A persistent MQTT 5 session: passes messages on and acknowledges them by hand.

Every connection uses a new client object without state. The broker knows which messages are unacknowledged,
and the packet identifiers of an old client could only contradict it. So every message that was unacknowledged
when a connection broke is redelivered on the next one.
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
from qilu_contract.wire.doors import DOORS
from qilu_contract.wire.partitions import Partition

log = structlog.get_logger()

MAX_PACKET_BYTES = 64 * 1024 * 1024
"""Maximum packet size. Far above the limits of brokers, because a broker silently drops packets that are
larger than the client accepts."""
MAX_QUEUED_BYTES = 32 * 1024 * 1024
"""Bytes received but not processed yet; at this bound reading from the socket stops (backpressure)."""
KEEPALIVE_S = 15
HOST, HISTORY = 1, 2
"""Lanes: the host session of the strict profile, and the history session. Lane 0 is the main session."""
TIMEOUT_S = 10.0
GATHER_S = 0.005
MOST_TOGETHER, MOST_TOGETHER_BYTES = 5_000, 512 * 1024
"""Maximum number of messages processed together: some ten milliseconds of work."""


_ROOTS = (topics.NAMESPACE, *(door.root for door in DOORS))


def filters(partition: Partition) -> tuple[str, ...]:
    """Topic filters of a gateway. An unpartitioned gateway subscribes to whole trees, so that a message on a
    wrong topic becomes a dead letter instead of disappearing."""
    if partition.whole:
        return tuple(f"{root}/#" for root in _ROOTS)
    shared = (topics.state("#"), topics.CLOCK)
    own = [f"{root}/{group}/#" for root in _ROOTS for group in partition.groups]
    return *shared, *own


def history_filters(partition: Partition) -> tuple[str, ...]:
    """Topic filters of the history session."""
    if partition.whole:
        return (f"{topics.HISTORY}#",)
    return tuple(f"{topics.HISTORY}{topics.NAMESPACE}/{group}/#" for group in partition.groups)


Take = Callable[[Messages, int], Awaitable[None]]
"""Takes messages and the epoch, the number of the connection that delivered them. They can be acknowledged on
that connection only."""


class Session:
    """A persistent MQTT session. `run` keeps the connection; the other methods may be called at any time and
    never wait for a connection."""

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
        """`stamp` gives each connection a timestamp (ms), from which `will` makes its last will. Without
        `persistent` the broker drops the session with the connection, as Sparkplug requires of hosts."""
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
        ConfigError when another gateway takes over the session, because the two would otherwise take it from
        each other forever."""
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
        """Use one connection until it ends. Raises MqttError, OSError, TimeoutError; returns after
        `close`."""
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
        # Unless `close` ends this connection, the broker publishes the will.
        async with await connect(self._broker, options, take=self._arrived) as connection:
            connection.ended.add_done_callback(lambda _: self._some.set())
            self.epoch += 1
            self._connection = connection
            # The backlog arrives before the SUBACK.
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
        """Pass messages on until the connection ends. Messages still queued then can no longer be
        acknowledged; the broker redelivers them."""
        queue, epoch = self._queue, self.epoch
        while connection.is_open:
            if queue:
                messages = self._next()
                if not self._stopping.is_set():  # otherwise the broker redelivers them to the next process
                    await take(messages, epoch)
            if self._queued_bytes <= MAX_QUEUED_BYTES:
                connection.resume()
            if queue:
                await asyncio.sleep(0)
                continue
            # Let some gather: processing many together costs little more than processing one.
            connection.pause()
            await asyncio.sleep(GATHER_S)
            connection.resume()
            if not queue and connection.is_open:
                self._some.clear()
                await self._some.wait()

    def _next(self) -> Messages:
        """The oldest messages, at most as many as are processed together."""
        messages = self._queue.popleft()
        size = messages.payload_bytes
        while self._queue and len(messages) < MOST_TOGETHER and size < MOST_TOGETHER_BYTES:
            more = self._queue.popleft()
            size += more.payload_bytes
            messages.extend(more)
        self._queued_bytes -= size
        return messages

    async def _subscribe(self, connection: Connection) -> None:
        # Subscribing again to an existing filter makes the broker send the clock's retained message again,
        # which a restarted gateway needs.
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
        """Whether the session is connected and subscribed."""
        return self._subscribed and self._connection is not None and self._connection.is_open

    def acknowledge(self, epoch: int, mids: Iterable[int]) -> bool:
        """Send PUBACKs; returns whether they were sent. Messages of an older connection are not acknowledged;
        the broker redelivers them."""
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
        """Publish at QoS 1; returns whether the broker confirmed it in time."""
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
        """Drop the connection, so that the next one has a new timestamp and will."""
        if self._connection is not None:
            self._connection.lose()

    def stop_intake(self) -> None:
        """Stop taking messages; acknowledging and publishing continue."""
        self._stopping.set()

    async def close(self) -> None:
        """Disconnect cleanly: the broker drops the will and keeps the session."""
        self._stopping.set()
        self._closing = True
        if self._connection is not None:
            await self._connection.disconnect()
