"""An MQTT 5 broker that delivers exactly what a test tells it to, with the flags that the test chooses, and
takes note of what is acknowledged. It keeps nothing, and knows nothing of subscriptions: each message goes to
the session whose client id ends as the test says.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

PATIENCE_S = 60.0
_CONNECT, _PUBLISH, _PUBACK, _SUBSCRIBE, _PING = 0x10, 0x30, 0x40, 0x80, 0xC0
_DUP, _QOS_1, _RETAIN = 0x08, 0x02, 0x01


class Delivery(NamedTuple):
    topic: bytes
    payload: bytes
    qos: int = 1
    dup: bool = False
    retain: bool = False
    session: str = ""
    """How the client id of its session ends; the main session's does not end like any other's."""


class _Client:
    def __init__(self, name: str, writer: asyncio.StreamWriter) -> None:
        self.name, self.writer = name, writer
        self.subscribed = False


class ScriptedBroker:
    """Used by `async with`."""

    def __init__(self, sessions: Sequence[str]) -> None:
        """`sessions`: the endings of client ids that are not the main session's."""
        self._sessions = sessions
        self._clients: dict[str, _Client] = {}
        self._mid = 0
        self._owed: set[int] = set()
        self._moved = asyncio.Condition()
        self.acknowledged = 0
        self.published: list[tuple[str, bytes]] = []
        """Messages that clients have published."""
        self.port = 0

    async def __aenter__(self) -> ScriptedBroker:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=2**26)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()

    async def deliver(self, messages: Sequence[Delivery], mids: Sequence[int] = ()) -> list[int]:
        """Hand messages over, all at once, as soon as their sessions are there; returns their packet
        identifiers (0 at QoS 0). `mids`: those under which they came before."""
        given = list(mids)
        if not given:
            for message in messages:
                self._mid = self._mid % 65_535 + 1
                given.append(self._mid if message.qos else 0)
        parts: dict[str, list[bytes]] = {}
        for message, mid in zip(messages, given, strict=True):
            parts.setdefault(message.session, []).append(_frame(message, mid))
        for session, frames in parts.items():
            async with asyncio.timeout(PATIENCE_S), self._moved:
                await self._moved.wait_for(lambda session=session: self._is_up(session))
            self._owed.update(
                mid
                for mid, message in zip(given, messages, strict=True)
                if mid and message.session == session
            )
            self._clients[session].writer.write(b"".join(frames))
        return given

    async def settled(self) -> None:
        """Until all that was delivered at QoS 1 is acknowledged."""
        async with asyncio.timeout(PATIENCE_S), self._moved:
            await self._moved.wait_for(lambda: not self._owed)

    def cut(self) -> None:
        """Break all connections off. Nobody is owed anything then."""
        self._owed.clear()
        for client in self._clients.values():
            client.writer.transport.abort()
        self._clients.clear()

    def _is_up(self, session: str) -> bool:
        client = self._clients.get(session)
        return client is not None and client.subscribed

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client: _Client | None = None
        try:
            while True:
                kind, body = await _packet(reader)
                if kind & 0xF0 == _CONNECT:
                    client = _Client(_client_id(body), writer)
                    self._clients[self._ending(client.name)] = client
                    writer.write(b"\x20\x03\x01\x00\x00")
                elif kind & 0xF0 == _SUBSCRIBE and client is not None:
                    writer.write(b"\x90\x04" + body[:2] + b"\x00\x01")
                    client.subscribed = True
                    async with self._moved:
                        self._moved.notify_all()
                elif kind & 0xF0 == _PUBACK:
                    await self._note_puback(int.from_bytes(body[:2], "big"), client)
                elif kind & 0xF0 == _PUBLISH:
                    self._note_publish(kind, body, writer)
                elif kind & 0xF0 == _PING:
                    writer.write(b"\xd0\x00")
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.close()
            if client is not None and self._clients.get(self._ending(client.name)) is client:
                del self._clients[self._ending(client.name)]

    def _ending(self, name: str) -> str:
        return next((ending for ending in self._sessions if name.endswith(ending)), "")

    async def _note_puback(self, mid: int, client: _Client | None) -> None:
        if client is None or self._clients.get(self._ending(client.name)) is not client:
            return  # of a connection that was cut
        self.acknowledged += 1
        self._owed.discard(mid)
        if not self._owed:
            async with self._moved:
                self._moved.notify_all()

    def _note_publish(self, kind: int, body: bytes, writer: asyncio.StreamWriter) -> None:
        length = int.from_bytes(body[:2], "big")
        topic, rest = body[2 : 2 + length].decode(), body[2 + length :]
        if kind & _QOS_1:
            writer.write(b"\x40\x02" + rest[:2])
            rest = rest[2:]
        self.published.append((topic, rest[1 + rest[0] :]))


def _frame(message: Delivery, mid: int) -> bytes:
    flags = _DUP * message.dup | _QOS_1 * bool(message.qos) | _RETAIN * message.retain
    body = len(message.topic).to_bytes(2, "big") + message.topic
    body += (mid.to_bytes(2, "big") if message.qos else b"") + b"\0" + message.payload
    length = len(body)
    head = bytearray((_PUBLISH | flags,))
    while length > 0x7F:
        head.append(length & 0x7F | 0x80)
        length >>= 7
    head.append(length)
    return bytes(head) + body


async def _packet(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    kind = (await reader.readexactly(1))[0]
    length = shift = 0
    while True:
        digit = (await reader.readexactly(1))[0]
        length |= (digit & 0x7F) << shift
        shift += 7
        if digit < 0x80:
            return kind, await reader.readexactly(length)


def _client_id(body: bytes) -> str:
    """Of a CONNECT: behind name, version, flags, keepalive and properties."""
    at = 10 + 1 + body[10]
    length = int.from_bytes(body[at : at + 2], "big")
    return body[at + 2 : at + 2 + length].decode()
