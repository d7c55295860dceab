"""One MQTT 5 connection on asyncio's own transport: what equipment and gateway need of the protocol, no more.

QoS 0 and 1 out and in, acknowledgements by hand, no client-side session, no reconnecting: a connection
that ended is replaced by a new one, and what was not acknowledged is the business of its owner and of the
broker. What comes in is handed on in batches, what goes out is gathered and written once a turn of the event
loop, so a message costs a few microseconds and an idle connection a few kilobytes.

Packets follow OASIS MQTT 5.0; topics that are not UTF-8 are handed on as they came.
"""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from qilu_contract.errors import QiluError

from qilu_common.mqtt.messages import Acknowledgements, Messages, pubacks

TIMEOUT_S = 20.0
"""For connecting, log-in included, and for each answer that is waited for."""
GOODBYE_S = 1.0
READ_BYTES = 256 * 1024
"""What is read from a socket at once, at most."""
NEVER = 0xFFFF_FFFF
"""The session expiry that means: keep the session."""

NOT_AUTHORISED = frozenset({0x86, 0x87})
"""Reasons of a refusal: bad user name or password, not authorized."""
SESSION_TAKEN_OVER = 0x8E
DISCONNECT_WITH_WILL = 0x04
_NO_SUBSCRIBERS = 0x10  # a success, and nobody has it
_REFUSED = 0x80  # reasons from here on are failures

_CONNECT, _CONNACK, _PUBLISH, _PUBACK, _SUBSCRIBE, _SUBACK = 0x10, 0x20, 0x30, 0x40, 0x82, 0x90
_PINGRESP, _DISCONNECT = 0xD0, 0xE0
_PING = b"\xc0\x00"
_SESSION_EXPIRY, _SERVER_KEEPALIVE, _REASON, _RECEIVE_MAXIMUM, _MAX_PACKET = 0x11, 0x13, 0x1F, 0x21, 0x27
_PROPERTY_BYTES = {
    **dict.fromkeys((0x01, 0x17, 0x19, 0x24, 0x25, 0x28, 0x29, 0x2A), 1),
    **dict.fromkeys((_SERVER_KEEPALIVE, _RECEIVE_MAXIMUM, 0x22, 0x23), 2),
    **dict.fromkeys((0x02, _SESSION_EXPIRY, 0x18, _MAX_PACKET), 4),
}
_TEXTS = frozenset({0x03, 0x08, 0x09, 0x12, 0x15, 0x16, 0x1A, 0x1C, _REASON})


class MqttError(QiluError):
    """The connection has ended, or cannot be used as asked. `reason`: the broker's, 0 when it gave none."""

    def __init__(self, text: str, reason: int = 0) -> None:
        super().__init__(text)
        self.reason = reason


class ConnectRefused(MqttError):
    """The broker is there and does not want us."""


class MessageRefused(MqttError):
    """The broker answered that nobody gets a message."""


@dataclass(frozen=True, slots=True)
class Will:
    """Published by the broker, at QoS 1, when the connection ends without a goodbye."""

    topic: str
    payload: bytes
    retain: bool = False


@dataclass(frozen=True, slots=True)
class Login:
    """`receive_maximum`: how many messages the broker may have handed over unacknowledged."""

    client_id: str
    user: str | None = None
    password: str | None = None
    will: Will | None = None
    clean_start: bool = True
    session_expiry_s: int = 0
    keepalive_s: int = 30
    receive_maximum: int = 65_535
    max_packet_bytes: int = 64 * 1024


def _nothing(*_: object) -> None:
    pass


class _Scratch(threading.local):
    """What is read is parsed before the next socket of the thread is read from: all share one buffer."""

    def __init__(self) -> None:
        self.view = memoryview(bytearray(READ_BYTES))


_scratch = _Scratch()


class Connection(asyncio.BufferedProtocol):
    """Made by `connect`. All callbacks are called from the event loop and must not block:
    `take` with the messages that came, `acked` with the items of `send` that the broker confirmed, `moved`
    when there is room again after the socket was full."""

    def __init__(
        self,
        login: Login,
        take: Callable[[Messages], None] = _nothing,
        acked: Callable[[list[Any]], None] = _nothing,
        moved: Callable[[], None] = _nothing,
    ) -> None:
        self._login, self._take, self._acked, self._moved = login, take, acked, moved
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._accepted: asyncio.Future[None] = self._loop.create_future()
        self.ended: asyncio.Future[MqttError] = self._loop.create_future()
        """Why the connection ended, once it has."""
        self._closed: asyncio.Future[None] = self._loop.create_future()
        self._rest = bytearray()
        """A packet that is not whole yet."""
        self._needed = 2
        self._out: list[bytes] = []
        self._in_flight: dict[int, Any] = {}
        self._acknowledgements = Acknowledgements(login.receive_maximum)
        self._mid = 0
        self._window = 65_535
        self._max_packet_out = 2**28
        self._socket_full = False
        self._reading = True
        self._heard = True
        self._keepalive_s = login.keepalive_s
        self._ticking: asyncio.TimerHandle | None = None

    # -- for the owner

    @property
    def is_open(self) -> bool:
        return not self.ended.done()

    @property
    def in_flight(self) -> int:
        """Messages sent that the broker has not acknowledged."""
        return len(self._in_flight)

    @property
    def unacknowledged(self) -> list[Any]:
        """The items of those messages, in the order of sending; also when the connection has ended."""
        return list(self._in_flight.values())

    @property
    def room(self) -> int:
        """How many messages may be sent now, by the broker's receive maximum and the socket's buffer."""
        return 0 if self._socket_full or not self.is_open else self._window - len(self._in_flight)

    def send(self, topic: str, payload: bytes, item: Any, retain: bool = False) -> None:
        """Publish at QoS 1, when there is room: written by the next `flush`. `item`, which is not None, comes
        back through `acked`. That the broker refuses the message, or has no subscriber for it, ends the
        connection and leaves the item `unacknowledged`. Raises MqttError for a packet that is larger than the
        broker takes."""
        name = topic.encode()
        length = len(name) + 5 + len(payload)
        if length > self._max_packet_out - 5:
            raise MqttError(f"{topic}: {len(payload)} bytes are more than the broker takes")
        mid = self._next_mid(item)
        self._out += (
            b"\x33" if retain else b"\x32",
            _varint(length),
            len(name).to_bytes(2, "big"),
            name,
            mid.to_bytes(2, "big"),
            b"\0",
            payload,
        )

    def post(self, topic: str, payload: bytes) -> None:
        """Publish at QoS 0: written by the next `flush`, and forgotten. Raises MqttError for a packet that is
        larger than the broker takes."""
        name = topic.encode()
        length = len(name) + 3 + len(payload)
        if length > self._max_packet_out - 5:
            raise MqttError(f"{topic}: {len(payload)} bytes are more than the broker takes")
        self._out += (b"\x30", _varint(length), len(name).to_bytes(2, "big"), name, b"\0", payload)

    async def publish(self, topic: str, payload: bytes, *, retain: bool = False) -> bool:
        """Publish one message at QoS 1 and wait until the broker has it; whether anybody subscribed to it, as
        far as the broker tells. Raises MqttError, TimeoutError."""
        self._check_open()
        done: asyncio.Future[bool] = self._loop.create_future()
        self.send(topic, payload, done, retain)
        self.flush()
        async with asyncio.timeout(TIMEOUT_S):
            return await done

    async def subscribe(self, filters: Iterable[str], *, no_local: bool = False) -> None:
        """At QoS 1. Raises MqttError when one is refused, TimeoutError."""
        self._check_open()
        subscribed: asyncio.Future[bool] = self._loop.create_future()
        options = b"\x05" if no_local else b"\x01"
        mid = self._next_mid(subscribed).to_bytes(2, "big")
        self._out.append(
            _packet(_SUBSCRIBE, mid + b"\0" + b"".join(_text(topic) + options for topic in filters))
        )
        self.flush()
        async with asyncio.timeout(TIMEOUT_S):
            await subscribed

    def acknowledge(self, mids: Iterable[int]) -> None:
        """Messages that came may be forgotten by the broker. It is told in the order in which they came."""
        ready = self._acknowledgements.ready(list(mids))
        if ready:
            self._out.append(pubacks(ready))
        self.flush()

    def flush(self) -> None:
        """Write what was gathered."""
        out, self._out = self._out, []
        transport = self._transport
        if out and transport is not None and self.is_open and not transport.is_closing():
            transport.write(b"".join(out))

    def pause(self) -> None:
        """Read nothing more from the socket until `resume`."""
        if self._reading and self._transport is not None and self.is_open:
            self._reading = False
            self._transport.pause_reading()

    def resume(self) -> None:
        if not self._reading and self._transport is not None and self.is_open:
            self._reading = True
            self._transport.resume_reading()

    async def disconnect(self, reason: int = 0) -> None:
        """Say goodbye, or hang up when the broker does not listen: within GOODBYE_S."""
        transport = self._transport
        if transport is None:
            return
        if self.is_open:
            self.flush()
            transport.write(_packet(_DISCONNECT, bytes((reason,)) if reason else b""))
        self._end(MqttError("we have said goodbye"))
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(GOODBYE_S):
                    await asyncio.shield(self._closed)
        finally:
            transport.abort()

    def lose(self) -> None:
        """Break off without a word, so that the broker publishes the will."""
        self._end(MqttError("the connection was broken off"))
        if self._transport is not None:
            self._transport.abort()

    # -- for asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(high=256 * 1024)
        transport.write(_packet(_CONNECT, _connect_body(self._login)))

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
        rest = self._rest
        if rest:
            rest += data
            if len(rest) < self._needed:
                return
        data = bytes(rest or data)
        messages = Messages()
        acked: list[Any] = []
        try:
            used = self._parse(data, messages, acked)
        except MqttError as error:
            self._end(error)
        except (IndexError, ValueError):
            self._end(MqttError("the broker sent a packet that is none"))
        else:
            rest[:] = data[used:]
        if acked:
            self._acked(acked)
        if messages.mids:
            self._acknowledgements.came(messages.mids)
            self._take(messages)

    # -- inside

    def _next_mid(self, item: Any) -> int:
        """A packet identifier that nothing in flight has, which from now on is the item's."""
        mid, in_flight = self._mid % 65_535 + 1, self._in_flight
        while mid in in_flight:
            mid = mid % 65_535 + 1
        self._mid = mid
        in_flight[mid] = item
        return mid

    def _check_open(self) -> None:
        if not self.is_open:
            raise self.ended.result()

    def _parse(self, data: bytes, messages: Messages, acked: list[Any]) -> int:
        """Takes the whole packets of `data`, whose bytes it counts, and notes what the next one needs."""
        place, size = 0, len(data)
        topics, payloads = messages.topics.append, messages.payloads.append
        mids, flags = messages.mids.append, messages.flags.append
        while size - place >= 2:
            head, length, start = data[place], data[place + 1], place + 2
            if length > 0x7F:
                length, shift = length & 0x7F, 7
                while True:
                    if start == size:  # the length itself is not whole
                        self._needed = size - place + 1
                        return place
                    digit = data[start]
                    start += 1
                    length |= (digit & 0x7F) << shift
                    if digit < 0x80:
                        break
                    shift += 7
                    if shift > 21:
                        raise MqttError("the broker sent a packet length that is none")
                if length > self._login.max_packet_bytes:
                    raise MqttError(f"the broker sent a packet of {length} bytes, more than we agreed to")
            end = start + length
            if end > size:
                self._needed = end - place
                return place
            kind = head & 0xF0
            if kind == _PUBLISH:
                name = start + 2 + (data[start] << 8 | data[start + 1])
                body, mid = name, 0
                if head & 0x06:
                    if head & 0x04:
                        raise MqttError("the broker sent QoS 2, which nobody subscribed to")
                    mid = data[name] << 8 | data[name + 1]
                    body += 2
                properties = data[body]
                if properties > 0x7F:
                    properties, body = _read_varint(data, body)
                else:
                    body += 1
                body += properties
                if body > end:
                    raise IndexError
                topics(data[start + 2 : name])
                payloads(data[body:end])
                mids(mid)
                flags(head)
            elif kind == _PUBACK:
                mid = data[start] << 8 | data[start + 1]
                item = self._in_flight.get(mid)
                reason = data[start + 2] if length > 2 else 0
                if reason or isinstance(item, asyncio.Future):
                    _settle(item, reason)  # raises for a refused item, which stays in flight
                elif item is not None:
                    acked.append(item)
                self._in_flight.pop(mid, None)
            else:
                self._control(kind, data[start:end])
            place = end
        self._needed = 2
        return place

    def _control(self, kind: int, body: bytes) -> None:
        if kind == _CONNACK:
            properties = dict(_properties(body, 2))
            if body[1] >= _REFUSED:
                said = properties.get(_REASON, b"").decode("utf-8", "replace")
                text = f"the broker refuses the connection (reason {body[1]}{', ' + said if said else ''})"
                raise ConnectRefused(text, body[1])
            numbers = {id_: int.from_bytes(value, "big") for id_, value in properties.items()}
            self._window = numbers.get(_RECEIVE_MAXIMUM, self._window)
            self._max_packet_out = numbers.get(_MAX_PACKET, self._max_packet_out)
            self._keepalive_s = numbers.get(_SERVER_KEEPALIVE, self._keepalive_s)
            if not self._accepted.done():
                self._accepted.set_result(None)
            self._tick()
        elif kind == _SUBACK:
            subscribed = self._in_flight.pop(body[0] << 8 | body[1], None)
            length, start = _read_varint(body, 2)
            reason = max(body[start + length :])
            if not isinstance(subscribed, asyncio.Future) or subscribed.done():
                return
            if reason >= _REFUSED:
                error = MqttError(f"the broker refuses a subscription (reason {reason})", reason)
                subscribed.set_exception(error)
            else:
                subscribed.set_result(True)
        elif kind == _DISCONNECT:
            reason = body[0] if body else 0
            raise MqttError(f"the broker ended the connection (reason {reason})", reason)
        elif kind != _PINGRESP:
            raise MqttError(f"the broker sent a packet of type {kind >> 4}")

    def _tick(self) -> None:
        """Twice in the keepalive time: say that we are there, and see that the broker is."""
        if not self._keepalive_s or not self.is_open:
            return
        if not self._heard and self._reading:
            self._end(MqttError("the broker does not answer"))
            return
        self._heard = False
        self._out.append(_PING)
        self.flush()
        self._ticking = self._loop.call_later(self._keepalive_s / 2, self._tick)

    def _end(self, error: MqttError) -> None:
        """The connection is of no use any more: whoever waits hears of it."""
        if self.ended.done():
            return
        self.ended.set_result(error)
        if self._ticking is not None:
            self._ticking.cancel()
        waiting = [item for item in self._in_flight.values() if isinstance(item, asyncio.Future)]
        for future in (self._accepted, *waiting):
            if not future.done():
                future.set_exception(error)
        if not self._accepted.cancelled():
            self._accepted.exception()  # it may be that nobody waits for it
        if self._transport is not None:
            self._transport.close()


async def connect(
    host: str,
    port: int,
    login: Login,
    *,
    tls: ssl.SSLContext | None = None,
    take: Callable[[Messages], None] = _nothing,
    acked: Callable[[list[Any]], None] = _nothing,
    moved: Callable[[], None] = _nothing,
) -> Connection:
    """A connection that the broker has accepted. Raises ConnectRefused, MqttError, OSError, TimeoutError."""
    connection = Connection(login, take, acked, moved)
    shutdown_s = None if tls is None else GOODBYE_S
    try:
        async with asyncio.timeout(TIMEOUT_S):
            await asyncio.get_running_loop().create_connection(
                lambda: connection, host, port, ssl=tls, ssl_shutdown_timeout=shutdown_s
            )
            await connection._accepted
    except BaseException:
        if connection._transport is not None:
            connection._transport.abort()
        raise
    return connection


def _settle(item: Any, reason: int) -> None:
    """A message that somebody waits for, or that the broker refused."""
    what = "has no subscriber for" if reason == _NO_SUBSCRIBERS else "refused"
    error = MessageRefused(f"the broker {what} a message (reason {reason})", reason)
    if not isinstance(item, asyncio.Future):
        raise error
    if item.done():
        return
    if reason >= _REFUSED:
        item.set_exception(error)
    else:
        item.set_result(reason != _NO_SUBSCRIBERS)


def _varint(number: int) -> bytes:
    if number < 0x80:
        return bytes((number,))
    if number < 0x4000:
        return bytes((number & 0x7F | 0x80, number >> 7))
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _read_varint(data: bytes, place: int) -> tuple[int, int]:
    """The number, and where what follows it begins."""
    number = shift = 0
    while True:
        digit = data[place]
        place += 1
        number |= (digit & 0x7F) << shift
        if digit < 0x80:
            return number, place
        shift += 7


def _text(value: str) -> bytes:
    return _binary(value.encode())


def _binary(value: bytes) -> bytes:
    return len(value).to_bytes(2, "big") + value


def _packet(kind: int, body: bytes) -> bytes:
    return bytes((kind,)) + _varint(len(body)) + body


def _connect_body(login: Login) -> bytes:
    properties = b"".join(
        (
            bytes((_SESSION_EXPIRY,)) + login.session_expiry_s.to_bytes(4, "big"),
            bytes((_RECEIVE_MAXIMUM,)) + login.receive_maximum.to_bytes(2, "big"),
            bytes((_MAX_PACKET,)) + login.max_packet_bytes.to_bytes(4, "big"),
        )
    )
    flags, will = 0x02 if login.clean_start else 0, b""
    if login.will is not None:
        flags |= 0x0C | (0x20 if login.will.retain else 0)
        will = b"\0" + _text(login.will.topic) + _binary(login.will.payload)
    # A password without a user name is allowed in MQTT 5.
    flags |= (0x80 if login.user is not None else 0) | (0x40 if login.password is not None else 0)
    credentials = b"".join(_text(value) for value in (login.user, login.password) if value is not None)
    head = _text("MQTT") + bytes((5, flags)) + login.keepalive_s.to_bytes(2, "big")
    return head + _varint(len(properties)) + properties + _text(login.client_id) + will + credentials


def _properties(body: bytes, place: int) -> Iterator[tuple[int, bytes]]:
    """Properties by their identifiers; of those that may come several times, and in pairs, the last."""
    if place >= len(body):
        return
    length, place = _read_varint(body, place)
    end = place + length
    while place < end:
        id_ = body[place]
        place += 1
        if id_ in _PROPERTY_BYTES:
            size = _PROPERTY_BYTES[id_]
        elif id_ == 0x0B:  # a subscription identifier
            size = _read_varint(body, place)[1] - place
        elif id_ in _TEXTS or id_ == 0x26:  # a user property is two texts
            if id_ == 0x26:
                place += 2 + int.from_bytes(body[place : place + 2], "big")
            size = int.from_bytes(body[place : place + 2], "big")
            place += 2
        else:
            raise MqttError(f"the broker sent a property {id_:#x} that is none")
        yield id_, body[place : place + size]
        place += size
