"""Meaning of InfluxDB's answers: are points kept for later or refused, and the message to the user."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import structlog
from conftest import Influx, InfluxServer
from fake_influx import Answer, FakeInflux
from qilu.cli import main
from qilu_common.influx_address import InfluxAddress, without_password
from qilu_contract.errors import ConfigError, Denied, QiluError, Rejected, Retryable, StoreError, TooLarge
from qilu_contract.storage import Point
from qilu_contract.store import SeriesQuery
from qilu_contract.wire.clock import wall_ms
from qilu_dashboards.asking import ask
from qilu_gateway.metrics import Counters
from qilu_gateway.setup_influx import main as set_up
from qilu_gateway.write.store_gate import StoreGate
from qilu_stores import checks, open_store

TAGS = ("370200", "370202", "C34", "370202-e00001", "370202-motor-0000001")
UNIT = {"unit": TAGS[-1]}
POINTS = [Point("motor", TAGS, 10_000, {"power_in": 1.0})]


def v2(code: str, message: str) -> str:
    return f'{{"code":"{code}","message":"{message}"}}'


ANSWERS: list[tuple[int, str, type[StoreError], str]] = [
    # Can be written later; the text names what has to be fixed.
    (401, v2("unauthorized", "unauthorized access"), Denied, "QILU_INFLUX_TOKEN is not known there"),
    (403, v2("forbidden", "insufficient permissions for write"), Denied, "may not write to 'fake'"),
    (404, v2("not found", "no dbrp mapping found"), Retryable, "no bucket or database 'fake'.*QILU_INFLUX_"),
    (404, '{"error":"database not found: \\"fake\\""}', Retryable, "no bucket or database 'fake'"),
    (408, "", Retryable, "408"),
    (429, v2("too many requests", "rate limit"), Retryable, "rate limit"),
    (500, v2("internal error", "unexpected error writing points to database: timeout"), Retryable, "timeout"),
    (500, '{"error":"write /data/x.wal: no space left on device"}', Retryable, "make room"),
    (
        400,
        '{"error":"partial write: mkdir /data: no space left on device dropped=1"}',
        Retryable,
        "make room",
    ),
    (422, v2("unprocessable entity", "open /data/1: read-only file system"), Retryable, "make room"),
    (502, "<html>Bad Gateway</html>", Retryable, "502"),
    (503, "", Retryable, "503"),
    (504, "", Retryable, "504"),
    (301, "", Retryable, "no InfluxDB"),
    (200, "<html>Welcome</html>", Retryable, "no InfluxDB"),
    (400, "Client sent an HTTP request to an HTTPS server.", Retryable, "TLS"),
    (400, "<html><center>nginx</center></html>", Retryable, "not InfluxDB's own"),
    # Refused permanently, at least in part.
    (400, '{"error":"partial write: field type conflict: input field dropped=1"}', Rejected, "type conflict"),
    (400, '{"error":"partial write: points beyond retention policy dropped=1"}', Rejected, "retention"),
    (
        422,
        v2("unprocessable entity", "failure writing points to database: partial write: field type conflict"),
        Rejected,
        "type conflict",
    ),
    (
        422,
        v2("unprocessable entity", "failure writing points: partial write: points beyond retention policy"),
        Rejected,
        "retention",
    ),
    (413, v2("request too large", "points batch is too large"), TooLarge, "too large"),
]


@pytest.mark.parametrize(("status", "text", "kind", "told"), ANSWERS)
async def test_an_answer_to_a_write_is_kept_for_later_or_refused(
    fake_influx: FakeInflux, status: int, text: str, kind: type[StoreError], told: str
) -> None:
    fake_influx.answer = lambda _: (status, {}, text)
    async with open_store(fake_influx.url, "abc") as store:
        with pytest.raises(StoreError, match=told) as found:
            await store.write(POINTS)
        assert type(found.value) is kind
        assert "abc" not in str(found.value)


async def test_a_server_that_is_none_is_found_out_before_anything_is_written(
    fake_influx: FakeInflux,
) -> None:
    """As a TLS port answers plain text, and a proxy what it does not know."""
    for status in (400, 401, 404, 422, 503):
        fake_influx.ping_answer = (status, {}, "Client sent an HTTP request to an HTTPS server.")
        async with open_store(fake_influx.url) as store:
            with pytest.raises(Retryable, match=str(status)):
                await store.write(POINTS)
    assert fake_influx.writes == []


def test_a_token_that_cannot_be_sent_is_refused_at_once() -> None:
    for token in ("abc\ndef", "ключ"):
        with pytest.raises(ConfigError, match="QILU_INFLUX_TOKEN"):
            open_store("influxdb://127.0.0.1:8086/qilu", token)
    open_store("influxdb://127.0.0.1:8086/qilu", "завод:пароль")  # 1.x has users, and Basic takes any text


async def test_a_store_that_asks_for_time_gets_it(fake_influx: FakeInflux) -> None:
    fake_influx.answer = lambda _: (503, {"Retry-After": "7"}, "")
    async with open_store(fake_influx.url) as store:
        with pytest.raises(Retryable) as found:
            await store.write(POINTS)
    assert found.value.retry_after_s == 7


async def test_points_that_are_all_too_old_are_refused_at_once(influxdb: Any) -> None:
    """And not one by one: a backfill beyond the retention would take as many requests as readings."""
    now_ms = wall_ms()
    counters = Counters()
    async with open_store(influxdb.url) as store:
        await store.ping()
        alter = f'ALTER RETENTION POLICY autogen ON "{influxdb.database}" DURATION 1h SHARD DURATION 1h'
        async with httpx.AsyncClient(trust_env=False) as http:
            answer = await http.post(f"{influxdb.http}/query", data={"q": alter})
        assert "error" not in answer.text
        gate = StoreGate(store, counters, list, batch_size=5_000, spooling=False)
        old = [POINTS[0]._replace(ts_ms=now_ms - 40 * 86_400_000 - place) for place in range(1_000)]
        refused = await gate.write_good(old)
        assert [each.point for each in refused] == old
        assert "retention" in refused[0].detail
        assert counters.store_refused == 1
        new = [POINTS[0]._replace(ts_ms=now_ms - place) for place in range(20)]
        refused = await gate.write_good([*new[:10], *old[:3], *new[10:]])
        assert [each.point for each in refused] == old[:3]
        assert await store.count("motor") == 20


ROWLESS: list[tuple[Answer, type[StoreError]]] = [
    ((200, {}, "{}"), StoreError),  # as 2.x answers DELETE
    ((200, {}, '{"results":[{"statement_id":0,"error":"not implemented: SHOW SERIES"}]}'), StoreError),
    ((200, {}, '{"results":[{},{}]}'), StoreError),
    ((200, {}, "json: unsupported value: +Inf"), Retryable),
    ((200, {}, "<html>Welcome</html>"), Retryable),
    ((404, {}, v2("not found", "no dbrp mapping found")), Retryable),
    ((401, {}, v2("unauthorized", "unauthorized access")), Denied),
    ((403, {}, v2("forbidden", "not allowed")), Denied),
    ((500, {}, "engine trouble"), Retryable),
]


@pytest.mark.parametrize(("answer", "kind"), ROWLESS)
async def test_an_answer_without_rows_is_an_error_of_the_store(
    fake_influx: FakeInflux, answer: Answer, kind: type[StoreError]
) -> None:
    fake_influx.query_answer = answer
    async with open_store(fake_influx.url) as store:
        for ask in (
            store.count("motor"),
            store.series(SeriesQuery("motor", UNIT, ["power_in"], 0, 60_000, 60_000)),
            store.series(SeriesQuery("motor", UNIT, ["power_in"], 0, 60_000, 60_000, "max")),
            store.count_by("motor", "unit", 0, 60_000),
            store.count_duplicates("motor"),
        ):
            with pytest.raises(kind):
                await ask


async def test_a_statement_that_the_server_does_not_have_is_a_warning_where_writes_go_on(
    fake_influx: FakeInflux,
) -> None:
    fake_influx.query_answer = (200, {}, '{"results":[{"statement_id":0,"error":"not implemented"}]}')
    with structlog.testing.capture_logs() as logs:
        async with open_store(fake_influx.url) as store:
            await store.write(POINTS)
    assert [(each["log_level"], each["error"].rpartition(": ")[2]) for each in logs] == [
        ("warning", "not implemented")
    ]


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ((401, {}, v2("unauthorized", "unauthorized access")), "unauthorized access; .*QILU_INFLUX_TOKEN"),
        ((403, {}, '{"error":"requires READ on fake"}'), "requires READ on fake; .* may not read 'fake'"),
        ((404, {}, v2("not found", "no dbrp mapping found")), "no bucket 'fake'"),
        ((502, {}, "<html>Bad Gateway</html>"), "502: Bad Gateway"),
        ((200, {}, "<html>Welcome</html>"), "does not answer like an InfluxDB"),
        ((200, {}, "{}"), "does not answer like an InfluxDB"),
    ],
)
def test_a_dashboards_query_that_is_refused_says_why(
    fake_influx: FakeInflux, answer: Answer, told: str
) -> None:
    fake_influx.query_answer = answer
    address = InfluxAddress.parse(fake_influx.url)
    assert address is not None
    with httpx.Client(base_url=address.url, trust_env=False) as http, pytest.raises(QiluError, match=told):
        ask(http, address.database, 'SELECT last("units") FROM "fleet"')


def grant(server: InfluxServer, *statements: str) -> None:
    for statement in statements:
        answer = httpx.post(
            f"{server.http}/query", data={"q": statement}, auth=("root", "secret"), trust_env=False
        )
        answer.raise_for_status()
        assert "error" not in answer.text


def address(server: InfluxServer, database: str, log_in: str = "") -> str:
    return f"influxdb://{log_in}{server.host}:{server.port}/{database}"


async def test_an_influxdb_1x_with_users_is_written_and_read_by_whom_it_lets(
    influxdb_with_users: InfluxServer,
) -> None:
    server = influxdb_with_users
    grant(server, "CREATE DATABASE plant")
    grant(server, "CREATE USER gateway WITH PASSWORD 'p:w'", "GRANT ALL ON plant TO gateway")
    grant(server, "CREATE USER reader WITH PASSWORD 'pw'", "GRANT READ ON plant TO reader")
    grant(server, "CREATE USER nobody WITH PASSWORD 'pw'")
    ways = [("gateway:p%3Aw@", None), ("", "gateway:p:w"), ("gateway@", "p:w"), ("root:secret@", "ignored")]
    for number, (log_in, token) in enumerate(ways):
        with structlog.testing.capture_logs() as logs:
            async with open_store(address(server, "plant", log_in), token) as store:
                await store.write([POINTS[0]._replace(ts_ms=number)])
                assert await store.count("motor") == number + 1
        # A user that may not create databases gets one warning, and work continues.
        assert [each["log_level"] for each in logs] == ([] if log_in.startswith("root") else ["warning"])
    for log_in, token, told in [
        ("reader:pw@", None, "the user 'reader' may not write to 'plant'"),
        ("nobody:pw@", None, "the user 'nobody' may not write to 'plant'"),
        ("gateway:wrong@", None, "the user 'gateway' is not known there"),
        ("", "abcdef==", "the token in QILU_INFLUX_TOKEN is not known there.*user:password"),
        ("", None, "a caller without credentials is not known"),
    ]:
        async with open_store(address(server, "plant", log_in), token) as store:
            with pytest.raises(Denied, match=told) as found:
                await store.write(POINTS)
            assert not any(secret in str(found.value) for secret in ("wrong", "abcdef"))
    async with open_store(address(server, "missing", "gateway:p%3Aw@")) as store:
        with pytest.raises(Retryable, match="no bucket or database 'missing'"):
            await store.write(POINTS)
        grant(server, "CREATE DATABASE missing", "GRANT ALL ON missing TO gateway")
        await store.write(POINTS)  # as soon as it is there
    async with open_store(address(server, "plant", "reader:pw@")) as store:
        assert await store.latest("motor", UNIT) is not None
    async with open_store(address(server, "plant", "nobody:pw@")) as store:
        with pytest.raises(Denied, match="'nobody' may not read 'plant'"):
            await store.latest("motor", UNIT)


async def test_influxdb_1x_with_users_is_prepared_by_its_administrator(
    influxdb_with_users: InfluxServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ["--write-token-file", str(tmp_path / "write"), "--read-token-file", str(tmp_path / "read")]
    words = ["--url", influxdb_with_users.http, "--database", "prepared", *files]
    assert set_up(words) == 1
    assert "--token-file" in capsys.readouterr().err
    (tmp_path / "admin").write_text("root:secret\n")
    assert set_up([*words, "--token-file", str(tmp_path / "admin")]) == 0
    tokens = [(tmp_path / name).read_text().strip() for name in ("write", "read")]
    async with open_store(address(influxdb_with_users, "prepared"), tokens[0]) as store:
        await store.write(POINTS)
    async with open_store(address(influxdb_with_users, "prepared"), tokens[1]) as store:
        assert await store.count("motor") == 1
        with pytest.raises(Denied):
            await store.write(POINTS)
    (tmp_path / "read").unlink()  # a lost password: the user gets another one, the other user's stays
    assert set_up([*words, "--token-file", str(tmp_path / "admin")]) == 0
    assert (tmp_path / "write").read_text().strip() == tokens[0]
    async with open_store(
        address(influxdb_with_users, "prepared"), (tmp_path / "read").read_text().strip()
    ) as store:
        assert await store.count("motor") == 1


async def test_of_several_servers_the_next_one_is_asked_when_one_is_unavailable(
    fake_influx: FakeInflux,
) -> None:
    port = urlsplit(fake_influx.url).port
    async with open_store(f"influxdb://127.0.0.1:1,127.0.0.1:{port}/fake") as store:
        await store.write(POINTS)
        assert await store.count("motor") == 0
    assert len(fake_influx.lines) == 1
    async with open_store("influxdb://127.0.0.1:1,127.0.0.1:2/fake") as store:
        with pytest.raises(Retryable, match=r"127\.0\.0\.1:1, http://127\.0\.0\.1:2"):
            await store.write(POINTS)


async def test_opengemini_answers_differently_about_what_is_not_there(fake_influx: FakeInflux) -> None:
    """As openGemini 1.5.2 was seen to answer; a real one cannot be had from the package registries."""
    fake_influx.ping_answer = (204, {"X-Geminidb-Version": "1.5.2"}, "")
    async with open_store(fake_influx.url) as store:
        fake_influx.query_answer = (200, {}, '{"results":[{"error":"measurement not found"}]}')
        await store.ping()
        assert await store.count("motor") == 0
        assert [chunk async for chunk in store.scan("motor", 0, 1)] == []
        fake_influx.query_answer = (200, {}, "{}")
        assert await store.count_duplicates("motor") == 0
        fake_influx.query_answer = (200, {}, '{"results":[{"error":"shard not found"}]}')
        with pytest.raises(StoreError, match="shard"):
            await store.count("motor")
    fake_influx.ping_answer = (204, {"X-Influxdb-Version": "1.8.10"}, "")
    async with open_store(fake_influx.url) as store:
        fake_influx.query_answer = (200, {}, '{"results":[{"error":"measurement not found"}]}')
        await store.ping()
        with pytest.raises(StoreError, match="not found"):
            await store.count("motor")


def test_the_command_says_which_checks_a_store_fails(
    fake_influx: FakeInflux,
    influxdb: Influx,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(checks, "WAIT_S", 0.0)
    monkeypatch.setattr(sys, "argv", ["qilu", "store", "check", "--json", fake_influx.url])
    with pytest.raises(SystemExit) as ended:
        main()
    said, wrong = capsys.readouterr()
    assert (ended.value.code, len(wrong.strip().splitlines())) == (1, 1), wrong
    found = json.loads(said)
    assert "the store answered []" in found["reads back"]
    monkeypatch.setattr(sys, "argv", ["qilu", "store", "check", influxdb.url])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    assert capsys.readouterr().out.count("holds") == len(found)


def test_addresses_say_who_logs_in_and_are_shown_without_the_password() -> None:
    parsed = InfluxAddress.parse("influxdbs://a%40b:p%3A%2Fw@[::1]/plant")
    assert parsed == InfluxAddress("https://[::1]:8086", "plant", "a@b", "p:/w")
    assert InfluxAddress.parse("influxdb://host:99999/plant") is None
    several = InfluxAddress.parse("influxdb://u:p@a,b:8087,[::1]/plant")
    assert several is not None
    assert (several.urls, several.user) == (("http://a:8086", "http://b:8087", "http://[::1]:8086"), "u")
    assert InfluxAddress.parse("influxdb://a,,c/plant") is None
    assert without_password("influxdb://a:secret@host:8086/plant") == "influxdb://a:***@host:8086/plant"
    assert without_password("duckdb:///x/y.duckdb") == "duckdb:///x/y.duckdb"
    assert without_password("influxdb://host/plant") == "influxdb://host/plant"
