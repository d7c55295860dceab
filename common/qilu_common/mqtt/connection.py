"""An MQTT 5 connection on asyncio, limited to the parts of the protocol that equipment and gateway need.

QoS 0 and 1 in both directions, acknowledgements by hand, no client-side session, no reconnecting:
`reconnecting.py` replaces a connection that has ended, and the owner decides what to send again. Messages are
received in batches, and what is sent is gathered and written once a turn of the event loop, so a message
costs a few microseconds and an idle connection a few kilobytes.
"""

from __future__ import annotations

import asyncio
import random
import ssl
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from qilu_common.broker import BrokerAddress, Node
from qilu_common.mqtt import codec
from qilu_common.mqtt.codec import ConnectOptions, Decoder
from qilu_common.mqtt.errors import (
    FAILURE,
    NO_SUBSCRIBERS,
    NOT_AUTHORISED,
    ConnectRefused,
    MessageRefused,
    MqttError,
)
from qilu_common.mqtt.messages import Acknowledgements, Messages

TIMEOUT_S = 20.0
"""To connect (TLS and CONNACK included), and for each reply that is awaited."""
NODE_TIMEOUT_S = 5.0
"""To connect to one node of a cluster: a node that was cut off does not even refuse."""
GOODBYE_S = 1.0
READ_BYTES = 256 * 1024
"""The most that is read from a socket at once."""
_MAX_PACKET_IDS = 65_535


def _nothing(*_: object) -> None:
    pass


class _Scratch(threading.local):
    """The read buffer. All connections of a thread share it: each read is parsed before the next one."""

    def __init__(self) -> None:
        self.view = memoryview(bytearray(READ_BYTES))


_scratch = _Scratch()


class Connection(asyncio.BufferedProtocol):
    """Made by `connect`. As a context manager it disconnects at the end: cleanly, or with the will published
    when an exception ends the block.

    The callbacks are called from the event loop and must not block: `take` with the messages that arrived,
    `acked` with the items of `send_qos1` that the broker acknowledged, `moved` when the socket can be written
    to again.
    """

    def __init__(
        self,
        options: ConnectOptions,
        connect_packet: bytes,
        take: Callable[[Messages], None] = _nothing,
        acked: Callable[[list[Any]], None] = _nothing,
        moved: Callable[[], None] = _nothing,
    ) -> None:
        self._connect_packet = connect_packet
        self._take, self._acked, self._moved = take, acked, moved
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._accepted: asyncio.Future[None] = self._loop.create_future()
        self.ended: asyncio.Future[MqttError] = self._loop.create_future()
        """Why the connection ended, once it has."""
        self._closed: asyncio.Future[None] = self._loop.create_future()
        self._decoder = Decoder(options.max_packet_bytes)
        self._out: list[bytes] = []
        self._in_flight: dict[int, Any] = {}
        self._acknowledgements = Acknowledgements(options.receive_maximum)
        self._packet_id = 0
        self._window = _MAX_PACKET_IDS
        self._max_packet_out = 2**28
        self._socket_full = False
        self._reading = True
        self._heard = True
        self._keepalive_s = options.keepalive_s
        self._keepalive: asyncio.TimerHandle | None = None

    # -- for the owner

    @property
    def is_open(self) -> bool:
        return not self.ended.done()

    @property
    def in_flight(self) -> int:
        """Number of sent messages without a PUBACK."""
        return len(self._in_flight)

    @property
    def unacknowledged(self) -> list[Any]:
        """The items of those messages in the order of sending, also after the connection has ended."""
        return list(self._in_flight.values())

    @property
    def room(self) -> int:
        """Number of messages that may be sent now, by the broker's receive maximum and the socket's
        buffer."""
        return 0 if self._socket_full or not self.is_open else self._window - len(self._in_flight)

    def send_qos1(self, topic: str, payload: bytes, item: Any, retain: bool = False) -> None:
        """Publish at QoS 1 when there is `room`; the next `flush` writes it. `item`, which is not None, comes
        back through `acked`. If the broker rejects the message or has no subscriber for it, the connection
        ends and the item stays in `unacknowledged`. Raises MqttError if the packet is larger than the broker
        takes."""
        packet_id = self._next_packet_id()
        self._out += codec.encode_publish(topic, payload, packet_id, retain, self._max_packet_out)
        self._in_flight[packet_id] = item

    def send_qos0(self, topic: str, payload: bytes) -> None:
        """Publish at QoS 0; the next `flush` writes it. Raises MqttError if the packet is larger than the
        broker takes."""
        self._out += codec.encode_publish(topic, payload, 0, False, self._max_packet_out)

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> bool:
        """Publish one message at QoS 1 and wait for the PUBACK. False if the broker says that nobody
        subscribed. Raises MqttError, TimeoutError."""
        self._check_open()
        done: asyncio.Future[bool] = self._loop.create_future()
        self.send_qos1(topic, payload, done, retain)
        self.flush()
        async with asyncio.timeout(TIMEOUT_S):
            return await done

    async def subscribe(self, filters: Iterable[str], *, no_local: bool = False) -> None:
        """Subscribe at QoS 1. Raises MqttError when the broker rejects a filter, TimeoutError."""
        self._check_open()
        subscribed: asyncio.Future[bool] = self._loop.create_future()
        packet_id = self._next_packet_id()
        self._in_flight[packet_id] = subscribed
        self._out.append(codec.encode_subscribe(packet_id, filters, no_local))
        self.flush()
        async with asyncio.timeout(TIMEOUT_S):
            await subscribed

    def acknowledge(self, packet_ids: Iterable[int]) -> None:
        """The broker may forget these messages. PUBACKs go out in the order in which the messages arrived."""
        ready = self._acknowledgements.ready(list(packet_ids))
        if ready:
            self._out.append(codec.encode_pubacks(ready))
        self.flush()

    def flush(self) -> None:
        """Write what was gathered."""
        out, self._out = self._out, []
        transport = self._transport
        if out and transport is not None and self.is_open and not transport.is_closing():
            transport.write(b"".join(out))

    def pause(self) -> None:
        """Read nothing from the socket until `resume`."""
        if self._reading and self._transport is not None and self.is_open:
            self._reading = False
            self._transport.pause_reading()

    def resume(self) -> None:
        if not self._reading and self._transport is not None and self.is_open:
            self._reading = True
            self._transport.resume_reading()

    async def disconnect(self, reason: int = 0) -> None:
        """Send DISCONNECT and close, within GOODBYE_S."""
        transport = self._transport
        if transport is None:
            return
        if self.is_open:
            self.flush()
            transport.write(codec.encode_disconnect(reason))
        self._end(MqttError("we disconnected"))
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(GOODBYE_S):
                    await asyncio.shield(self._closed)
        finally:
            transport.abort()

    def lose(self) -> None:
        """Close without a DISCONNECT, so that the broker publishes the will."""
        self._end(MqttError("we broke off the connection"))
        if self._transport is not None:
            self._transport.abort()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.disconnect(0 if error is None else codec.DISCONNECT_WITH_WILL)

    # -- for asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(high=256 * 1024)
        transport.write(self._connect_packet)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(MqttError(f"the connection broke: {exc}" if exc else "the broker closed the connection"))
        if not self._closed.done():
            self._closed.set_result(None)

    def pause_writing(self) -> None:
        self._socket_full = True

    def resume_writing(self) -> None:
        self._socket_full = False
        self._moved()

    def get_buffer(self, sizehint: int) -> memoryview:
        return _scratch.view

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(_scratch.view[:nbytes])

    def data_received(self, data: bytes | memoryview) -> None:
        if not self.is_open:
            return
        self._heard = True
        received = self._decoder.feed(data)
        for reply in received.replies:
            if isinstance(reply, codec.Connack):
                self._accept(reply)
            else:
                self._settle_subscription(reply)
        acked = self._settle(received.pubacks) if received.pubacks else []
        if received.error is not None:
            self._end(received.error)
        if acked:
            self._acked(acked)
        messages = received.messages
        if messages.mids:
            self._acknowledgements.came(messages.mids)
            self._take(messages)

    # -- inside

    def _next_packet_id(self) -> int:
        """A packet identifier that nothing in flight uses."""
        packet_id, in_flight = self._packet_id % _MAX_PACKET_IDS + 1, self._in_flight
        while packet_id in in_flight:
            packet_id = packet_id % _MAX_PACKET_IDS + 1
        self._packet_id = packet_id
        return packet_id

    def _check_open(self) -> None:
        if not self.is_open:
            raise self.ended.result()

    def _accept(self, connack: codec.Connack) -> None:
        self._window = connack.receive_maximum or self._window
        self._max_packet_out = connack.max_packet_bytes or self._max_packet_out
        if connack.keepalive_s is not None:
            self._keepalive_s = connack.keepalive_s
        if not self._accepted.done():
            self._accepted.set_result(None)
        self._keep_alive()

    def _settle_subscription(self, suback: codec.Suback) -> None:
        subscribed = self._in_flight.pop(suback.packet_id, None)
        if not isinstance(subscribed, asyncio.Future) or subscribed.done():
            return
        if suback.reason >= FAILURE:
            text = f"the broker rejected a subscription (reason {suback.reason})"
            subscribed.set_exception(MqttError(text, suback.reason))
        else:
            subscribed.set_result(True)

    def _settle(self, pubacks: Sequence[tuple[int, int]]) -> list[Any]:
        """The items that the broker acknowledged. A rejected one stays in flight and ends the connection."""
        in_flight, acked = self._in_flight, []
        for packet_id, reason in pubacks:
            item = in_flight.get(packet_id)
            if item is None:
                continue
            if isinstance(item, asyncio.Future):
                _settle_publish(item, reason)
            elif reason:
                self._end(_refused(reason))
                break
            else:
                acked.append(item)
            del in_flight[packet_id]
        return acked

    def _keep_alive(self) -> None:
        """Twice in the keepalive time: send a PINGREQ, and check that the broker has sent anything."""
        if not self._keepalive_s or not self.is_open:
            return
        if not self._heard and self._reading:
            self._end(MqttError("the broker does not answer"))
            return
        self._heard = False
        self._out.append(codec.PING)
        self.flush()
        self._keepalive = self._loop.call_later(self._keepalive_s / 2, self._keep_alive)

    def _end(self, error: MqttError) -> None:
        """The connection cannot be used any more. Tell everybody who waits."""
        if self.ended.done():
            return
        self.ended.set_result(error)
        if self._keepalive is not None:
            self._keepalive.cancel()
        waiting = [item for item in self._in_flight.values() if isinstance(item, asyncio.Future)]
        for future in (self._accepted, *waiting):
            if not future.done():
                future.set_exception(error)
        if not self._accepted.cancelled():
            self._accepted.exception()  # nobody may be waiting for it
        if self._transport is not None:
            self._transport.close()


async def connect(
    broker: BrokerAddress,
    options: ConnectOptions,
    *,
    take: Callable[[Messages], None] = _nothing,
    acked: Callable[[list[Any]], None] = _nothing,
    moved: Callable[[], None] = _nothing,
) -> Connection:
    """A connection that the broker has accepted, with the address's TLS and log-in. The nodes of a cluster
    are tried in a random order, so that clients spread over them. Raises ConnectRefused, MqttError, OSError,
    TimeoutError; ConfigError when certificates cannot be used."""
    packet, tls = codec.encode_connect(options, broker.user, broker.password), broker.tls_context()
    nodes = random.sample(broker.nodes, len(broker.nodes))
    timeout_s = TIMEOUT_S if len(nodes) == 1 else NODE_TIMEOUT_S
    while True:
        node = nodes.pop()
        connection = Connection(options, packet, take, acked, moved)
        try:
            await _open(connection, node, tls, timeout_s)
        except (MqttError, OSError, TimeoutError) as error:
            if not nodes or (isinstance(error, ConnectRefused) and error.reason in NOT_AUTHORISED):
                raise
        else:
            return connection


async def _open(connection: Connection, node: Node, tls: ssl.SSLContext | None, timeout_s: float) -> None:
    """Connect to one node and wait for its CONNACK. Raises MqttError, OSError, TimeoutError."""
    shutdown_s = None if tls is None else GOODBYE_S
    try:
        async with asyncio.timeout(timeout_s):
            await asyncio.get_running_loop().create_connection(
                lambda: connection, node.host, node.port, ssl=tls, ssl_shutdown_timeout=shutdown_s
            )
            await connection._accepted
    except BaseException:
        if connection._transport is not None:
            connection._transport.abort()
        raise


def _settle_publish(done: asyncio.Future[bool], reason: int) -> None:
    if done.done():
        return
    if reason >= FAILURE:
        done.set_exception(_refused(reason))
    else:
        done.set_result(reason != NO_SUBSCRIBERS)


def _refused(reason: int) -> MessageRefused:
    what = "has no subscriber for" if reason == NO_SUBSCRIBERS else "rejected"
    return MessageRefused(f"the broker {what} a message (reason {reason})", reason)
