"""A small HTTP server for fakes that answer in JSON."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

Answer = tuple[int, Any]
"""Status and content; nothing is sent for None."""


class Asked(NamedTuple):
    method: str
    path: str
    headers: Message
    body: Any
    """The JSON of a request; the bytes of one that is something else."""


class JsonServer:
    """Answers requests as `answer` says, from its start until `close`."""

    def __init__(
        self, answer: Callable[[Asked], Answer], headers: Mapping[str, str] | None = None, port: int = 0
    ) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body: Any = self.rfile.read(int(self.headers["Content-Length"] or 0))
                if body[:1] in (b"{", b"["):
                    body = json.loads(body)
                status, content = answer(Asked(self.command, self.path, self.headers, body))
                text = b"" if content is None else json.dumps(content).encode()
                self.send_response(status)
                sent = {"Content-Type": "application/json", "Content-Length": str(len(text))}
                for name, value in {**sent, **(headers or {})}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(text)

            do_POST = do_PATCH = do_GET

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port: int = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
