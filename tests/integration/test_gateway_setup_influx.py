"""Preparing InfluxDB: a real 1.x, and a fake 2.x that keeps buckets and tokens in lists."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from qilu_gateway.setup_influx import main


class FakeInflux2:
    """The few paths of the API of 2.x that are asked here."""

    def __init__(self) -> None:
        self.buckets: list[dict[str, Any]] = []
        self.tokens: list[dict[str, Any]] = []
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                target = urlsplit(self.path)
                if target.path == "/ping":
                    self._answer(204, None)
                elif not self._knows_token():
                    self._answer(401, {"code": "unauthorized", "message": "unauthorized access"})
                elif target.path == "/api/v2/orgs":
                    self._answer(200, {"orgs": [{"id": "0000000000000001", "name": "qilu"}]})
                else:
                    [name] = parse_qs(target.query)["name"]
                    found = [bucket for bucket in fake.buckets if bucket["name"] == name]
                    self._answer(200, {"buckets": found})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                kept = fake.buckets if self.path == "/api/v2/buckets" else fake.tokens
                made = body | {"id": f"{len(kept) + 1:016x}", "token": f"token-{len(kept) + 1}"}
                kept.append(made)
                self._answer(201, made)

            def _knows_token(self) -> bool:
                token = self.headers["Authorization"].removeprefix("Token ")
                return token in {"admin", *(known["token"] for known in fake.tokens)}

            def _answer(self, status: int, content: object) -> None:
                body = b"" if content is None else json.dumps(content).encode()
                self.send_response(status)
                self.send_header("X-Influxdb-Version", "v2.7.0")
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()


@pytest.fixture
def influx2() -> Iterator[FakeInflux2]:
    fake = FakeInflux2()
    yield fake
    fake.server.shutdown()
    fake.server.server_close()


def arguments(url: str, database: str, folder: Path, *more: str) -> list[str]:
    files = ["--write-token-file", str(folder / "write"), "--read-token-file", str(folder / "read")]
    return ["--url", url, "--database", database, *files, "--wait", "10", *more]


def test_a_bucket_and_two_tokens_are_made_once(influx2: FakeInflux2, tmp_path: Path) -> None:
    admin = tmp_path / "admin"
    admin.write_text("admin\n")
    given = arguments(influx2.url, "qilu", tmp_path, "--token-file", str(admin), "--retention-days", "7")
    assert main(given) == 0
    [bucket] = influx2.buckets
    assert bucket["name"] == "qilu"
    assert bucket["retentionRules"] == [{"type": "expire", "everySeconds": 7 * 86_400}]
    gateway, reader = influx2.tokens
    may = [[permission["action"] for permission in token["permissions"]] for token in (gateway, reader)]
    assert may == [["read", "write"], ["read"]]
    resources = [permission["resource"] for token in influx2.tokens for permission in token["permissions"]]
    assert all((found["type"], found["id"]) == ("buckets", bucket["id"]) for found in resources)
    assert (tmp_path / "write").read_text() == "token-1\n"
    assert (tmp_path / "read").read_text() == "token-2\n"
    assert (tmp_path / "write").stat().st_mode & 0o077 == 0

    assert main(given) == 0
    assert len(influx2.buckets) == 1
    assert len(influx2.tokens) == 2
    (tmp_path / "read").write_text("forgotten by the server")
    assert main(given) == 0
    assert (tmp_path / "read").read_text() == "token-3\n"


def test_without_an_admin_token_the_user_is_told(
    influx2: FakeInflux2, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(influx2.url, "qilu", tmp_path)) == 2
    assert "--token-file" in capsys.readouterr().err


def test_a_database_is_made_on_1x(influxdb: Any, tmp_path: Path) -> None:
    given = arguments(influxdb.http, influxdb.database, tmp_path)
    assert main(given) == 0
    answer = httpx.get(f"{influxdb.http}/query", params={"q": "SHOW DATABASES"}, trust_env=False).json()
    [series] = answer["results"][0]["series"]
    assert [influxdb.database] in series["values"]
    token = (tmp_path / "write").read_text()
    assert token.strip()
    assert main(given) == 0
    assert (tmp_path / "write").read_text() == token


def test_a_server_that_stays_away_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = arguments("http://127.0.0.1:9", "qilu", tmp_path)
    given[given.index("--wait") + 1] = "0"
    assert main(given) == 1
    assert "no answer" in capsys.readouterr().err
