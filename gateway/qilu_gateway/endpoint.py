"""A few lines of HTTP: /metrics for Prometheus, /healthz for whoever keeps the service running, and the dead
letters for whoever mends what refused them, on this machine only.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from urllib.parse import parse_qsl

TIMEOUT_S = 5.0
ANSWER_S = 120.0
"""How long an answer may take: many letters may be taken again."""
MAX_CONNECTIONS = 50
MAX_BODY = 1024 * 1024
Answer = tuple[int, str, bytes]
"""Status, content type, body."""
_TEXTS = {
    200: "OK",
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    503: "Service Unavailable",
}
_LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]")


@dataclass(frozen=True, slots=True)
class Request:
    """`local`: asked from this machine, by its own name and not by some page in a browser."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    local: bool = False


Handler = Callable[[Request], Awaitable[Answer]]


class Endpoint:
    """Serves fixed pairs of method and path, one request a connection."""

    def __init__(self, host: str, port: int, paths: Mapping[tuple[str, str], Handler]) -> None:
        self._host, self._port, self._paths = host, port, paths
        self._connections = asyncio.Semaphore(MAX_CONNECTIONS)
        self.port = 0
        """The port that is listened on, once `run` has begun."""
        self.url = ""
        """Where this machine reaches it, likewise."""

    async def run(self) -> None:
        """Serve, until cancelled. Raises OSError when the port is taken."""
        server = await asyncio.start_server(self._serve, self._host, self._port, limit=8192)
        host, self.port = server.sockets[0].getsockname()[:2]
        address = ip_address(host.partition("%")[0])
        if address.is_unspecified:
            address = ip_address("::1" if address.version == 6 else "127.0.0.1")
        self.url = f"http://{_in_url(address)}:{self.port}"
        async with server:
            await server.serve_forever()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with self._connections:
                async with asyncio.timeout(TIMEOUT_S):
                    request = await _read(reader, writer)
                async with asyncio.timeout(ANSWER_S):
                    status, kind, body = await self._answer(request)
                async with asyncio.timeout(TIMEOUT_S):
                    writer.write(
                        f"HTTP/1.1 {status} {_TEXTS[status]}\r\nContent-Type: {kind}\r\n"
                        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode()
                        + body
                    )
                    await writer.drain()
        except (TimeoutError, OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # whoever asked went away, or did not speak HTTP
        finally:
            writer.close()

    async def _answer(self, request: Request | None) -> Answer:
        if request is None:
            return 400, "text/plain", b"not understood\n"
        handler = self._paths.get((request.method, request.path))
        if handler is not None:
            return await handler(request)
        if any(path == request.path for _, path in self._paths):
            return 405, "text/plain", b"not by this method\n"
        return 404, "text/plain", b"not found\n"


async def _read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Request | None:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.rstrip().split("\r\n")
    headers = {
        name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
    }
    match first.split(" "):
        case [method, target, _]:
            path, _, query = target.partition("?")
        case _:
            return None
    length = headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > MAX_BODY:
        return None
    body = await reader.readexactly(int(length))
    # A page in a browser can post here, too, but not as JSON, and it names the host that it came from.
    meant = method == "GET" or headers.get("content-type", "").startswith("application/json")
    peer, own = (writer.get_extra_info(name) for name in ("peername", "sockname"))
    local = meant and bool(peer) and _is_local(peer[0], own[0], headers.get("host", ""))
    return Request(method, path, dict(parse_qsl(query)), body, local)


def _is_local(peer: str, own: str, host: str) -> bool:
    """Whether a connection from `peer` to our address `own` is this machine's, and names us as `host` by
    that address. Who is on this machine reaches an address of its own from the same address."""
    name = re.sub(r":\d+$", "", host)
    theirs, ours = (ip_address(each.partition("%")[0]) for each in (peer, own))
    return (theirs.is_loopback and name in _LOCAL_NAMES) or (theirs == ours and name == _in_url(ours))


def _in_url(address: IPv4Address | IPv6Address) -> str:
    return f"[{address}]" if address.version == 6 else str(address)
