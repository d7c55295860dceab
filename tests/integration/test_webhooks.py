"""Notifications of alarms: signed, tried again, each once, and never in the way of anything else."""

from __future__ import annotations

import contextlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from console_world import served
from gateway_world import eventually, eventually_async
from pydantic import SecretStr
from qilu_contract.errors import ConfigError
from qilu_contract.storage import Point
from qilu_contract.wire.clock import wall_ms
from qilu_platform.monitoring import webhooks

SECRET = "a-secret-for-webhooks-of-this-test"
PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")


def documented_check() -> Callable[[str, str, bytes], bool]:
    """The function that the documentation gives to receivers."""
    (block,) = (
        block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "is_genuine" in block
    )
    found: dict[str, Any] = {}
    exec(block, found)
    check: Callable[[str, str, bytes], bool] = found["is_genuine"]
    return check


class Receiver:
    """An HTTP server that answers with the statuses that it is given, then with 200."""

    def __init__(self, *statuses: int) -> None:
        self.taken: list[tuple[dict[str, str], bytes]] = []
        rest = list(statuses)

        class Handler(BaseHTTPRequestHandler):
            def do_POST(inner) -> None:
                body = inner.rfile.read(int(inner.headers["Content-Length"]))
                self.taken.append((dict(inner.headers), body))
                inner.send_response(rest.pop(0) if rest else 200)
                inner.send_header("Location", "http://127.0.0.1:1/elsewhere")
                inner.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook?token=very-secret"

    @contextlib.contextmanager
    def running(self) -> Iterator[Receiver]:
        thread = threading.Thread(target=self._server.serve_forever)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()

    def events(self) -> list[str]:
        return [json.loads(body)["event"] for _, body in self.taken]


def alarm(unit: str, since_ms: int, **fields: float) -> Point:
    tags = ("370000", "370200", "370202", "C34", "works", unit, "pump", "casing_accel")
    return Point("alarm", tags, since_ms, {"open": 1, "value": 9.0, "worst": 9.5, "limit": 7.1, **fields})


async def test_an_alarm_is_notified_once_when_it_begins_and_when_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "FIRST_RETRY_MS", 100)
    genuine = documented_check()
    with Receiver(500, 302).running() as receiver, Receiver().running() as other:
        told: dict[str, Any] = {
            "webhooks": (receiver.url, other.url, "http://127.0.0.1:1/nobody"),
            "webhook_secret": SecretStr(SECRET),
        }
        async with served(tmp_path, **told) as (_url, store, api):
            assert (await api.post("/v1/webhooks/test")).status_code == 204
            await eventually(lambda: receiver.events() == ["test"] * 3, "tried until it is taken")
            assert other.events() == ["test"]
            now_ms = wall_ms()
            await store.write([alarm("pump-1", now_ms)])
            await eventually(lambda: receiver.events()[3:] == ["alarm.opened"], "opened")
            await store.write([alarm("pump-1", now_ms, open=0, duration_s=12.0)])
            await eventually(lambda: receiver.events()[4:] == ["alarm.cleared"], "cleared")
            headers, body = receiver.taken[3]
            assert genuine(SECRET, headers["Qilu-Signature"], body)
            assert not genuine(SECRET, headers["Qilu-Signature"], body + b" ")
            assert not genuine(SECRET + "x", headers["Qilu-Signature"], body)
            old = webhooks.signature(SECRET, now_ms // 1000 - 3600, body)
            assert not genuine(SECRET, old, body)
            event = json.loads(body)
            assert event["id"] == headers["Qilu-Delivery"]
            assert (event["alarm"]["unit"], event["alarm"]["state"]) == ("pump-1", "open")
            assert json.loads(receiver.taken[4][1])["alarm"]["ended_ms"] == now_ms + 12_000

            async def delivered() -> bool:
                items = (await api.get("/v1/webhooks")).json()["items"]
                return [each["state"] for each in items].count("delivered") == 6

            await eventually_async(delivered, "the log says so")
            log = (await api.get("/v1/webhooks")).json()
            assert "very-secret" not in json.dumps(log)
            first = [each for each in log["items"] if each["event"] == "test" and each["attempts"] == 3]
            assert [each["answer"] for each in first] == ["HTTP 200"]
            nobody = [each for each in log["items"] if each["target"] == "http://127.0.0.1:1/nobody"]
            assert len(nobody) == 3
            assert {each["state"] for each in nobody} <= {"waiting", "failed"}
            await store.write([alarm("pump-2", now_ms + 1)])
            await eventually(lambda: other.events()[3:] == ["alarm.opened"], "opened")
        # A platform that starts again tells nobody twice, and what began while it was stopped.
        async with served(tmp_path, **told) as (_url, store, api):
            await store.write([alarm("pump-3", now_ms + 2)])
            await eventually(lambda: other.events()[4:] == ["alarm.opened"], "opened")
        assert len(other.taken) == 5


@pytest.mark.parametrize(
    ("urls", "secret", "word"),
    [
        (("ftp://x/y",), SECRET, "no http or https URL"),
        (("https://user:hidden@",), SECRET, "no http or https URL"),
        (("https://x/y",), None, "QILU_WEBHOOK_SECRET"),
        (("https://x/y",), "short", "QILU_WEBHOOK_SECRET"),
    ],
)
def test_settings_that_cannot_work_are_refused(urls: tuple[str, ...], secret: str | None, word: str) -> None:
    with pytest.raises(ConfigError, match=word) as refused:
        webhooks.check_targets(urls, secret)
    assert "hidden" not in str(refused.value)
    webhooks.check_targets((), None)
