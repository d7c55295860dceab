"""MQTT 5 packets as bytes: encoding what a client sends, decoding what a broker sends. No I/O.

Packets follow OASIS MQTT 5.0, as far as equipment and gateway need it: QoS 0 and 1, no topic aliases. Topics
that are not UTF-8 are passed on as they came.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from qilu_common.mqtt.errors import FAILURE, ConnectRefused, MqttError
from qilu_common.mqtt.messages import Messages

NEVER = 0xFFFF_FFFF
"""Session expiry: the broker keeps the session forever."""
DISCONNECT_WITH_WILL = 0x04
"""Reason code of a DISCONNECT after which the broker publishes the will."""
PING = b"\xc0\x00"

_CONNECT, _CONNACK, _PUBLISH, _PUBACK, _SUBSCRIBE, _SUBACK = 0x10, 0x20, 0x30, 0x40, 0x82, 0x90
_PINGRESP, _DISCONNECT = 0xD0, 0xE0
_QOS_1, _QOS_2, _RETAIN = 0x02, 0x04, 0x01
_NO_LOCAL = 0x04
_PUBACK_HEAD = 0x4002_0000  # type and length; the packet identifier is in the lower half
_SESSION_EXPIRY, _SERVER_KEEPALIVE, _REASON, _RECEIVE_MAXIMUM, _MAX_PACKET = 0x11, 0x13, 0x1F, 0x21, 0x27
_USER_PROPERTY, _SUBSCRIPTION_ID = 0x26, 0x0B
_PROPERTY_BYTES = {
    **dict.fromkeys((0x01, 0x17, 0x19, 0x24, 0x25, 0x28, 0x29, 0x2A), 1),
    **dict.fromkeys((_SERVER_KEEPALIVE, _RECEIVE_MAXIMUM, 0x22, 0x23), 2),
    **dict.fromkeys((0x02, _SESSION_EXPIRY, 0x18, _MAX_PACKET), 4),
}
_TEXT_PROPERTIES = frozenset({0x03, 0x08, 0x09, 0x12, 0x15, 0x16, 0x1A, 0x1C, _REASON, _USER_PROPERTY})


@dataclass(frozen=True, slots=True)
class Will:
    """The broker publishes it at QoS 1 when the connection ends without a DISCONNECT."""

    topic: str
    payload: bytes
    retain: bool = False


@dataclass(frozen=True, slots=True)
class ConnectOptions:
    """Settings in a client's CONNECT, except user name and password. `receive_maximum`:
    how many messages the broker may deliver before they are acknowledged."""

    client_id: str
    will: Will | None = None
    clean_start: bool = True
    session_expiry_s: int = 0
    keepalive_s: int = 30
    receive_maximum: int = 65_535
    max_packet_bytes: int = 64 * 1024


# -- encoding


def encode_connect(options: ConnectOptions, user: str | None, password: str | None) -> bytes:
    properties = b"".join(
        (
            bytes((_SESSION_EXPIRY,)) + options.session_expiry_s.to_bytes(4, "big"),
            bytes((_RECEIVE_MAXIMUM,)) + options.receive_maximum.to_bytes(2, "big"),
            bytes((_MAX_PACKET,)) + options.max_packet_bytes.to_bytes(4, "big"),
        )
    )
    flags, will = 0x02 if options.clean_start else 0, b""
    if options.will is not None:
        flags |= 0x0C | (0x20 if options.will.retain else 0)
        will = b"\0" + _text(options.will.topic) + _binary(options.will.payload)
    # A password without a user name is allowed in MQTT 5.
    flags |= (0x80 if user is not None else 0) | (0x40 if password is not None else 0)
    credentials = b"".join(_text(value) for value in (user, password) if value is not None)
    head = _text("MQTT") + bytes((5, flags)) + options.keepalive_s.to_bytes(2, "big")
    return _packet(
        _CONNECT, head + varint(len(properties)) + properties + _text(options.client_id) + will + credentials
    )


def encode_publish(
    topic: str, payload: bytes, packet_id: int, retain: bool, max_packet_bytes: int
) -> tuple[bytes, ...]:
    """A PUBLISH in parts, to be written one after the other. QoS 1, or QoS 0 when `packet_id` is 0. Raises
    MqttError when the packet is larger than `max_packet_bytes`."""
    name = topic.encode()
    length = len(name) + 3 + len(payload)
    if packet_id:
        length += 2
    if length > max_packet_bytes - 5:
        raise MqttError(f"{topic}: {len(payload)} bytes are more than the broker takes")
    if packet_id:
        identifier = packet_id.to_bytes(2, "big") + b"\0"
        head = b"\x33" if retain else b"\x32"
    else:
        identifier = b"\0"
        head = b"\x31" if retain else b"\x30"
    return head, varint(length), len(name).to_bytes(2, "big"), name, identifier, payload


def encode_subscribe(packet_id: int, filters: Iterable[str], no_local: bool) -> bytes:
    options = bytes((1 | (_NO_LOCAL if no_local else 0),))  # QoS 1
    body = b"".join(_text(topic) + options for topic in filters)
    return _packet(_SUBSCRIBE, packet_id.to_bytes(2, "big") + b"\0" + body)


def encode_pubacks(packet_ids: Sequence[int]) -> bytes:
    return (np.array(packet_ids, dtype=np.uint32) + _PUBACK_HEAD).astype(">u4").tobytes()


def encode_disconnect(reason: int) -> bytes:
    return _packet(_DISCONNECT, bytes((reason,)) if reason else b"")


# -- decoding


class Connack(NamedTuple):
    """Settings of the broker in its CONNACK; None where it sets nothing."""

    receive_maximum: int | None
    max_packet_bytes: int | None
    keepalive_s: int | None


class Suback(NamedTuple):
    """`reason` is the worst of the filters' reason codes."""

    packet_id: int
    reason: int


class Received:
    """The packets of one read. `error` is what ends the connection after them: a DISCONNECT, a rejected
    connection, or a packet that breaks the protocol."""

    __slots__ = ("error", "messages", "pubacks", "replies")

    def __init__(self) -> None:
        self.messages = Messages()
        self.pubacks: list[tuple[int, int]] = []
        """Packet identifiers and reason codes."""
        self.replies: list[Connack | Suback] = []
        self.error: MqttError | None = None


class Decoder:
    """Cuts a broker's stream of bytes into packets. Keeps what is left of an incomplete packet."""

    __slots__ = ("_max_packet_bytes", "_needed", "_rest")

    def __init__(self, max_packet_bytes: int) -> None:
        self._max_packet_bytes = max_packet_bytes
        self._rest = bytearray()
        self._needed = 2

    def feed(self, data: bytes | memoryview) -> Received:
        """The packets that are complete with `data`. Must not be called again once it returned an error."""
        received, rest = Received(), self._rest
        if rest:
            rest += data
            if len(rest) < self._needed:
                return received
        data = bytes(rest or data)
        try:
            used = self._decode(data, received)
        except MqttError as error:
            received.error = error
        except (IndexError, ValueError):
            received.error = MqttError("the broker sent a malformed packet")
        else:
            rest[:] = data[used:]
        return received

    def _decode(self, data: bytes, received: Received) -> int:
        """Returns how many bytes of `data` were complete packets."""
        place, size = 0, len(data)
        messages, pubacks = received.messages, received.pubacks.append
        topics, payloads = messages.topics.append, messages.payloads.append
        packet_ids, flags = messages.mids.append, messages.flags.append
        while size - place >= 2:
            head, length, start = data[place], data[place + 1], place + 2
            if length > 0x7F:
                if start < size and data[start] < 0x80:  # two bytes, as in most packets
                    length, start = length & 0x7F | data[start] << 7, start + 1
                else:
                    length, start = _remaining_length(data, place + 1)
                    if not start:
                        self._needed = size - place + 1
                        return place
                if length > self._max_packet_bytes:
                    raise MqttError(f"the broker sent a packet of {length} bytes, more than we agreed to")
            end = start + length
            if end > size:
                self._needed = end - place
                return place
            kind = head & 0xF0
            if kind == _PUBLISH:
                name = start + 2 + (data[start] << 8 | data[start + 1])
                body, packet_id = name, 0
                if head & 0x06:
                    if head & _QOS_2:
                        raise MqttError("the broker sent QoS 2, which nobody subscribed to")
                    packet_id = data[name] << 8 | data[name + 1]
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
                packet_ids(packet_id)
                flags(head)
            elif kind == _PUBACK:
                pubacks((data[start] << 8 | data[start + 1], data[start + 2] if length > 2 else 0))
            elif kind != _PINGRESP:
                received.replies.append(_reply(kind, data[start:end]))
            place = end
        self._needed = 2
        return place


def _reply(kind: int, body: bytes) -> Connack | Suback:
    """Raises MqttError for what ends the connection."""
    if kind == _CONNACK:
        properties = dict(_properties(body, 2))
        if body[1] >= FAILURE:
            text = properties.get(_REASON, b"").decode("utf-8", "replace")
            reason = f"reason {body[1]}{', ' + text if text else ''}"
            raise ConnectRefused(f"the broker rejected the connection ({reason})", body[1])
        numbers = {id_: int.from_bytes(value, "big") for id_, value in properties.items()}
        return Connack(*map(numbers.get, (_RECEIVE_MAXIMUM, _MAX_PACKET, _SERVER_KEEPALIVE)))
    if kind == _SUBACK:
        length, start = _read_varint(body, 2)
        return Suback(body[0] << 8 | body[1], max(body[start + length :]))
    if kind == _DISCONNECT:
        reason_code = body[0] if body else 0
        raise MqttError(f"the broker ended the connection (reason {reason_code})", reason_code)
    raise MqttError(f"the broker sent a packet of type {kind >> 4}")


def _properties(body: bytes, place: int) -> Iterator[tuple[int, bytes]]:
    """Properties by identifier. Of one that occurs several times, and of pairs, the last counts."""
    if place >= len(body):
        return
    length, place = _read_varint(body, place)
    end = place + length
    while place < end:
        id_ = body[place]
        place += 1
        if id_ in _PROPERTY_BYTES:
            size = _PROPERTY_BYTES[id_]
        elif id_ == _SUBSCRIPTION_ID:
            size = _read_varint(body, place)[1] - place
        elif id_ in _TEXT_PROPERTIES:
            if id_ == _USER_PROPERTY:  # two texts
                place += 2 + int.from_bytes(body[place : place + 2], "big")
            size = int.from_bytes(body[place : place + 2], "big")
            place += 2
        else:
            raise MqttError(f"the broker sent an unknown property {id_:#x}")
        yield id_, body[place : place + size]
        place += size


# -- numbers and texts


def _remaining_length(data: bytes, place: int) -> tuple[int, int]:
    """A packet's length, and where its content begins; 0 while the length itself is incomplete."""
    length = 0
    for shift in (0, 7, 14, 21):
        if place == len(data):
            return 0, 0
        digit = data[place]
        place += 1
        length |= (digit & 0x7F) << shift
        if digit < 0x80:
            return length, place
    raise MqttError("the broker sent a malformed packet length")


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


def varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first: MQTT's lengths, and the integers of Protocol Buffers."""
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


def _text(value: str) -> bytes:
    return _binary(value.encode())


def _binary(value: bytes) -> bytes:
    return len(value).to_bytes(2, "big") + value


def _packet(kind: int, body: bytes) -> bytes:
    return bytes((kind,)) + varint(len(body)) + body
