"""A few lines of HTTP: /metrics for Prometheus, /healthz for whoever keeps the service running."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

TIMEOUT_S = 5.0
MAX_CONNECTIONS = 50
Answer = tuple[int, str, bytes]
"""Status, content type, body."""
_TEXTS = {200: "OK", 400: "Bad Request", 404: "Not Found", 503: "Service Unavailable"}


class Endpoint:
    """Serves GET on fixed paths, one request a connection."""

    def __init__(self, host: str, port: int, paths: dict[str, Callable[[], Answer]]) -> None:
        self._host, self._port, self._paths = host, port, paths
        self._connections = asyncio.Semaphore(MAX_CONNECTIONS)
        self.port = 0
        """The port that is listened on, once `run` has begun."""

    async def run(self) -> None:
        """Serve, until cancelled. Raises OSError when the port is taken."""
        server = await asyncio.start_server(self._serve, self._host, self._port, limit=8192)
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            await server.serve_forever()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with self._connections, asyncio.timeout(TIMEOUT_S):
                head = await reader.readuntil(b"\r\n\r\n")
                status, kind, body = self._answer(head)
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

    def _answer(self, head: bytes) -> Answer:
        match head.split(b"\r\n", 1)[0].split(b" "):
            case [b"GET", target, _]:
                path = target.split(b"?", 1)[0].decode("latin-1")
                answer = self._paths.get(path)
                return answer() if answer is not None else (404, "text/plain", b"not found\n")
        return 400, "text/plain", b"only GET\n"
