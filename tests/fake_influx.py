"""A fake InfluxDB 1.x: it answers writes as a test tells it to. It keeps lines in a set, or has a real one
store them. Not a store itself.
"""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

Answer = tuple[int, dict[str, str], str]
STORED: Answer = (204, {}, "")
_BOTH = ("pipeline", "dead_letter", "rollup", "fleet")
OWN_FIGURES = ("alarm,", *(f"{name}{end}" for name in _BOTH for end in (",", "_hourly,")))
"""Measurements about the gateway itself, which the tests do not look at."""


class FakeInflux:
    """`answer` gets each write's lines and says what comes back; whatever is not an error is kept."""

    def __init__(self, upstream: str | None = None) -> None:
        """`upstream` is the `influxdb://` address that what is not refused here goes to."""
        self.lines: set[str] = set()
        target = urlsplit(upstream or "influxdb://127.0.0.1:1/fake")
        database = target.path.strip("/")
        self.keeps = True
        """Else lines are counted and forgotten."""
        self.writes: list[int] = []
        """Lines of each write, as they came."""
        self.answer: Callable[[list[str]], Answer] = lambda _: STORED
        self.answer_own: Callable[[list[str]], Answer] = lambda _: STORED
        """The same for what holds the gateway's roll-ups alone; those that are stored are in `own_lines`."""
        self.own_lines: set[str] = set()
        self.ping_answer: Answer = (204, {"X-Influxdb-Version": "1.fake"}, "")
        self.query_answer: Answer | None = None
        """Answer to every query; default: success without rows."""
        self.every_write: Callable[[], None] = lambda: None
        """Called for every write, the gateway's own figures and roll-ups included."""
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._send(fake.ping_answer)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                if urlsplit(self.path).path == "/query":
                    if fake.query_answer is not None:
                        return self._send(fake.query_answer)
                    return self._send(
                        (200, {}, '{"results": [{}]}') if upstream is None else self._pass_on(body)
                    )
                fake.every_write()
                lines = [line for line in body.splitlines() if not line.startswith(OWN_FIGURES)]
                if not lines and not body.startswith("pipeline,"):
                    answer = fake.answer_own(body.splitlines())
                    if answer == STORED:
                        fake.own_lines.update(body.splitlines())
                    return self._send(answer)
                answer = fake.answer(lines)
                if upstream is not None:
                    return self._send(self._pass_on(body) if answer == STORED else answer)
                if lines and fake.keeps:
                    fake.writes.append(len(lines))
                    if answer[0] == 204:
                        fake.lines.update(lines)
                return self._send(answer)

            def _pass_on(self, body: str) -> Answer:
                connection = http.client.HTTPConnection(target.hostname or "", target.port, timeout=30)
                try:
                    kind = {"Content-Type": self.headers.get("Content-Type", "text/plain")}
                    connection.request("POST", self.path, body.encode(), kind)
                    answer = connection.getresponse()
                    return answer.status, {}, answer.read().decode()
                except OSError:
                    return 503, {}, "the store is unavailable"
                finally:
                    connection.close()

            def _send(self, answer: Answer) -> None:
                status, headers, text = answer
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                if status != 204:
                    self.send_header("Content-Length", str(len(text.encode())))
                self.end_headers()
                if status != 204:
                    self.wfile.write(text.encode())

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"influxdb://127.0.0.1:{self._server.server_address[1]}/{database}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
