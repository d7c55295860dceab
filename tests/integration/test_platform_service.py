"""The platform as a service: starting, stopping, events, keys at start, replicas, and the store beside it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.catalogue.places import PROVINCE
from qilu_contract.errors import ConfigError
from qilu_contract.storage import BORN, Point
from qilu_contract.wire.clock import wall_ms
from qilu_platform.broker.authority import Authority
from qilu_platform.database.backup import back_up
from qilu_platform.hub import MAX_STREAMS_OF_ONE
from qilu_platform.service import PlatformService
from qilu_platform.settings import Settings
from qilu_stores import open_store

ADMIN = "the-admin-key-of-this-test"
HUNG_S = 60
"""Nothing here takes long; what takes this long hangs."""
START_MS = 1_767_225_600_000


def settings(tmp_path: Path, **more: Any) -> Settings:
    given: dict[str, Any] = {
        "db_url": f"sqlite:///{tmp_path}/platform.db",
        "port": 0,
        "api_key": SecretStr(ADMIN),
    }
    return Settings(**(given | more))


def client_of(service: PlatformService, key: str = ADMIN) -> httpx.AsyncClient:
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.AsyncClient(base_url=service.url, headers=headers, timeout=HUNG_S, trust_env=False)


@asynccontextmanager
async def events_of(client: httpx.AsyncClient) -> AsyncIterator[AsyncIterator[tuple[str, dict[str, Any]]]]:
    async with client.stream("GET", "/v1/events") as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")

        async def read() -> AsyncIterator[tuple[str, dict[str, Any]]]:
            topic = ""
            async for line in answer.aiter_lines():
                name, _, value = line.partition(": ")
                if name == "event":
                    topic = value
                elif name == "data":
                    yield topic, json.loads(value)

        yield read()


async def find(
    events: AsyncIterator[tuple[str, dict[str, Any]]], wanted: Callable[[str, dict[str, Any]], bool]
) -> dict[str, Any]:
    async with asyncio.timeout(HUNG_S):
        async for topic, value in events:
            if wanted(topic, value):
                return value
    raise AssertionError("the stream ended")


async def test_events_tell_a_change_and_the_service_stops_while_they_are_listened_to(
    database_url: str,
) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    async with asyncio.timeout(HUNG_S):
        service = PlatformService(Settings(db_url=database_url, port=0, api_key=SecretStr(ADMIN)))
        await service.__aenter__()
        assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
        async with client_of(service) as client, events_of(client) as events:
            first = await find(events, lambda topic, _: topic == "programme")
            assert first["registered"]["enterprises"] == 0
            body = {"name": "E", "county": "370202", "industry": "C31"}
            assert (await client.post("/v1/enterprises", json=body)).status_code == 201
            changed = await find(
                events, lambda topic, value: topic == "programme" and value["registered"]["enterprises"] == 1
            )
            assert changed["by_city"]["370200"]["enterprises_registered"] == 1
            await service.__aexit__(None, None, None)
            # Streams were ended in good order, not torn.
            assert [event async for event in events] == []
        with pytest.raises(httpx.ConnectError):
            async with client_of(service) as client:
                await client.get("/healthz")


async def test_run_serves_until_it_is_cancelled(tmp_path: Path) -> None:
    async with asyncio.timeout(HUNG_S):
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        service = PlatformService(settings(tmp_path, port=port))
        running = asyncio.create_task(service.run())
        async with client_of(service) as client:
            while True:
                try:
                    answer = await client.get("/healthz")
                except httpx.ConnectError:
                    await asyncio.sleep(0.02)
                    continue
                break
        assert answer.json() == {"status": "ok"}
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running


async def test_a_platform_that_cannot_start_says_why_in_a_sentence(
    tmp_path: Path, free_port: Callable[[], int]
) -> None:
    async with asyncio.timeout(HUNG_S):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            with pytest.raises(ConfigError, match=rf"{port}.*--port"):
                await PlatformService(settings(tmp_path, port=port)).__aenter__()
        nobody = f"postgresql://qilu:word@127.0.0.1:{free_port()}/none"
        with pytest.raises(ConfigError, match=r"--db .*cannot be opened") as raised:
            await PlatformService(settings(tmp_path, db_url=nobody)).__aenter__()
        assert "word" not in str(raised.value)
        (tmp_path / "file").write_text("")
        with pytest.raises(ConfigError, match=r"--db .*cannot be opened"):
            await PlatformService(settings(tmp_path, db_url=f"sqlite:///{tmp_path}/file/x.db")).__aenter__()
        with pytest.raises(ConfigError, match="viewer key has 5 characters"):
            await PlatformService(settings(tmp_path, viewer_key=SecretStr("short"))).__aenter__()
        with pytest.raises(ConfigError, match="ingest key is the admin key"):
            await PlatformService(settings(tmp_path, ingest_key=SecretStr(ADMIN))).__aenter__()


def is_kept(text: str, folder: Path) -> bool:
    return any(text.encode() in file.read_bytes() for file in folder.iterdir())


async def test_the_first_admin_key_is_made_once(tmp_path: Path) -> None:
    async with asyncio.timeout(HUNG_S):
        async with PlatformService(settings(tmp_path, api_key=None)) as service:
            made = service.first_admin_key
            assert made is not None
            assert made.startswith("qilu_")
        async with PlatformService(settings(tmp_path, api_key=None)) as service:
            assert service.first_admin_key is None
            async with client_of(service, made) as client:
                assert (await client.get("/v1/keys")).status_code == 200
    assert not is_kept(made, tmp_path)


async def test_keys_given_at_start_are_known_and_stay_revoked(tmp_path: Path) -> None:
    keys = {
        f"{role}_key": SecretStr(f"a-key-for-{role}-that-is-long") for role in ("ingest", "fleet", "viewer")
    }
    async with asyncio.timeout(HUNG_S):
        for _ in range(2):
            async with PlatformService(settings(tmp_path, **keys)) as service:
                assert service.first_admin_key is None
                async with client_of(service) as client:
                    listed = (await client.get("/v1/keys")).json()["items"]
                    assert sorted(key["role"] for key in listed) == ["admin", "fleet", "ingest", "viewer"]
        async with PlatformService(settings(tmp_path, **keys)) as service:
            async with client_of(service, "a-key-for-ingest-that-is-long") as gateway:
                answer = await gateway.post("/v1/ingest/admission", json={"units": ["x"]})
                assert answer.json() == {"units": {}}
            async with client_of(service) as client:
                ingest = next(key["id"] for key in listed if key["role"] == "ingest")
                await client.delete(f"/v1/keys/{ingest}")
        async with (
            PlatformService(settings(tmp_path, **keys)) as service,
            client_of(service, "a-key-for-ingest-that-is-long") as gateway,
        ):
            assert (await gateway.post("/v1/ingest/admission", json={"units": []})).status_code == 401


async def test_replicas_start_together_on_one_empty_database(postgres_url: str) -> None:
    async with asyncio.timeout(HUNG_S):
        replicas = [PlatformService(Settings(db_url=postgres_url, port=0, api_key=None)) for _ in range(3)]
        made: list[str | None] = []
        ready, done = asyncio.Barrier(4), asyncio.Event()

        async def run(replica: PlatformService) -> None:
            async with replica:
                made.append(replica.first_admin_key)
                await ready.wait()
                await done.wait()

        async with asyncio.TaskGroup() as group:
            for replica in replicas:
                group.create_task(run(replica))
            await ready.wait()
            keys = [key for key in made if key is not None]
            assert len(keys) == 1
            body = {"id": "e1", "name": "E", "county": "370202", "industry": "C31"}
            answers = []
            for replica in replicas:
                async with client_of(replica, keys[0]) as client:
                    answers.append((await client.post("/v1/enterprises", json=body)).status_code)
            assert answers == [201, 200, 200]
            done.set()


async def motor(client: httpx.AsyncClient) -> str:
    body = {"id": "e1", "name": "E", "county": "370202", "industry": "C31"}
    assert (await client.post("/v1/enterprises", json=body)).is_success
    answer = await client.post("/v1/units", json={"class": "motor", "enterprise": "e1"})
    return str(answer.json()["id"])


@pytest.mark.parametrize("kind", ["duckdb", "influxdb"])
async def test_readings_of_a_unit_come_from_the_store(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    url = f"duckdb:///{tmp_path}/store.duckdb"
    if kind == "influxdb":
        url = request.getfixturevalue("influxdb").url
    signal_name = CATALOGUE["motor"].base_signal.name
    other = next(each.name for each in CATALOGUE["motor"].signals if each.name != signal_name)
    async with (
        asyncio.timeout(HUNG_S),
        open_store(url) as store,
        PlatformService(settings(tmp_path), store) as service,
        client_of(service) as client,
    ):
        unit = await motor(client)
        assert (await client.get(f"/v1/units/{unit}/latest")).status_code == 404
        tags = ("370200", "370202", "C31", "e1", unit)
        await store.write(
            [
                Point("motor", tags, START_MS + second * 1000, {signal_name: float(second), BORN: START_MS})
                for second in range(120)
            ]
        )
        latest = (await client.get(f"/v1/units/{unit}/latest")).json()
        assert latest == {"unit": unit, "ts_ms": START_MS + 119_000, "values": {signal_name: 119.0}}

        async def rows(**query: Any) -> dict[str, Any]:
            span: dict[str, Any] = {"from": START_MS, "to": START_MS + 120_000}
            answer = await client.get(f"/v1/units/{unit}/readings", params=span | query)
            assert answer.status_code == 200, answer.text
            table: dict[str, Any] = answer.json()
            return table

        single = await rows(signal=[signal_name, other])
        assert single["columns"] == ["ts_ms", signal_name, other]
        assert single["rows"] == [[START_MS + second * 1000, float(second), None] for second in range(120)]
        buckets: list[tuple[str, list[float]]] = [
            ("mean", [29.5, 89.5]),
            ("max", [59, 119]),
            ("count", [60, 60]),
        ]
        for fn, expected in buckets:
            table = await rows(signal=signal_name, every="1m", fn=fn)
            assert table["rows"] == [[START_MS, expected[0]], [START_MS + 60_000, expected[1]]]
        by_text = await rows(**{"from": "2026-01-01T08:01:00+08:00"}, signal=signal_name)
        assert by_text["rows"] == single_rows(single["rows"][60:])
        assert (await rows())["columns"] == ["ts_ms", *(each.name for each in CATALOGUE["motor"].signals)]
        refusals: list[tuple[dict[str, Any], str]] = [
            ({"signal": "colour"}, signal_name),
            ({"every": "1 minute"}, "every"),
            ({"every": "0s"}, "every"),
            ({"every": "999999999d"}, "hundred years"),
            ({"fn": "median"}, "fn"),
            ({"from": "yesterday"}, "from"),
            ({"from": "2026-01-01T08:00:00"}, "from"),
            ({"from": START_MS, "to": START_MS}, "from"),
            ({"from": 0, "to": START_MS, "every": "1s"}, "rows"),
        ]
        for query, word in refusals:
            refused = await client.get(f"/v1/units/{unit}/readings", params=query)
            assert refused.status_code == 422, refused.text
            assert word in refused.json()["detail"]
        assert (await client.get("/v1/units/nothing/readings")).status_code == 404
        # A newer reading of another signal alone, and values whose sum no float holds.
        huge = 1.797e308
        later = [Point("motor", tags, START_MS + 120_000 + n, {other: huge}) for n in range(2)]
        await store.write(later)
        latest = (await client.get(f"/v1/units/{unit}/latest")).json()
        assert latest["ts_ms"] == START_MS + 120_001
        assert latest["values"] == {signal_name: 119.0, other: huge}
        table = await rows(signal=[signal_name, other], every="1m", to=START_MS + 180_000)
        assert table["rows"][2] == [START_MS + 120_000, None, pytest.approx(huge)]


def single_rows(rows: list[list[Any]]) -> list[list[Any]]:
    """Without the second signal."""
    return [row[:2] for row in rows]


async def test_without_a_store_readings_are_unavailable_and_the_rest_works(tmp_path: Path) -> None:
    async with (
        asyncio.timeout(HUNG_S),
        PlatformService(settings(tmp_path)) as service,
        client_of(service) as client,
    ):
        unit = await motor(client)
        for path in ("latest", "readings"):
            answer = await client.get(f"/v1/units/{unit}/{path}")
            assert answer.status_code == 503
            assert "--store" in answer.json()["detail"]


async def test_a_store_that_is_away_harms_nothing_else(tmp_path: Path, free_port: Callable[[], int]) -> None:
    async with (
        asyncio.timeout(HUNG_S),
        PlatformService(settings(tmp_path, store_url=f"influxdb://127.0.0.1:{free_port()}/qilu")) as service,
        client_of(service) as client,
    ):
        unit = await motor(client)
        answer = await client.get(f"/v1/units/{unit}/latest")
        assert answer.status_code == 503
        assert answer.headers["content-type"] == "application/problem+json"
        failures = 'qilu_platform_task_failures_total{task="roll-up"}'
        while failures not in (await client.get("/metrics")).text:
            await asyncio.sleep(0.02)
        assert (await client.get("/healthz")).status_code == 200


async def test_the_pipeline_is_that_of_all_gateways_that_write(tmp_path: Path) -> None:
    def figures(per_s: float, lag_ms: float, dead: int) -> dict[str, float | int]:
        rates = {"accepted_per_s": per_s, "stored_per_s": per_s - 1}
        return {"accepted": 10, "dead_lettered": dead, "lag_ms": lag_ms} | rates

    async with (
        asyncio.timeout(HUNG_S),
        open_store(f"duckdb:///{tmp_path}/store.duckdb") as store,
        PlatformService(settings(tmp_path), store) as service,
        client_of(service) as client,
        events_of(client) as events,
    ):
        now_ms = wall_ms() + 10_000  # a busy machine may take its time to look
        await store.write(
            [
                Point("pipeline", ("qilu-0-of-2",), now_ms - 10, figures(3.0, 50.0, 1)),
                Point("pipeline", ("qilu-0-of-2",), now_ms - 2_000, figures(7.0, 70.0, 0)),
                Point("pipeline", ("qilu-1-of-2",), now_ms, figures(5.0, 2.0, 4)),
                Point("pipeline", ("gone",), now_ms - 3_600_000, figures(900.0, 900.0, 900)),
            ]
        )
        told = await find(events, lambda topic, _: topic == "pipeline")
        rates = {"accepted_per_s": 8.0, "stored_per_s": 6.0}
        unknown = {"in_flight": None, "spooled": None}
        assert told == {"dead_lettered": 5, "lag_ms": 50.0, "as_of_ms": now_ms} | rates | unknown
        asked = {"pool": "qilu/2", "gateway": "gw-b", "wanted": [1, 2], "fixed": True}
        assert (await client.post("/v1/ingest/shards", json=asked)).json()["shards"] == [1, 2]
        listed = (await client.get("/v1/pipeline")).json()["gateways"]
        assert [(each["gateway"], each["held_by"]) for each in listed] == [
            ("qilu-0-of-2", None),
            ("qilu-1-of-2", "gw-b"),
        ]


async def test_the_programme_is_rolled_up_and_the_pipeline_is_told(tmp_path: Path) -> None:
    async with (
        asyncio.timeout(HUNG_S),
        open_store(f"duckdb:///{tmp_path}/store.duckdb") as store,
    ):
        fields = {
            "accepted": 10,
            "accepted_per_s": 5.0,
            "stored_per_s": 4.0,
            "dead_lettered": 1,
            "lag_ms": 2.0,
        }
        await store.write([Point("pipeline", ("qilu",), START_MS, fields)])
        async with PlatformService(settings(tmp_path)) as first, client_of(first) as client:
            await motor(client)
        async with (
            PlatformService(settings(tmp_path), store) as service,
            client_of(service) as client,
            events_of(client) as events,
        ):
            told = await find(events, lambda topic, _: topic == "pipeline")
            assert told == {
                "accepted_per_s": 5.0,
                "stored_per_s": 4.0,
                "dead_lettered": 1,
                "lag_ms": 2.0,
                "in_flight": None,
                "spooled": None,
                "as_of_ms": START_MS,
            }
            province = {"scope": "province", "code": PROVINCE}
            while (row := await store.latest("programme", province)) is None:
                await asyncio.sleep(0.02)
            assert row.values["enterprises_registered"] == 1
            assert row.values["units_registered"] == 1
            assert row.ts_ms % 10_000 == 0
            hour = await store.latest("programme_hourly", province)
            assert hour is not None
            assert hour.values.keys() == row.values.keys()
            of_class = await store.latest("programme", {"scope": "class", "code": "motor"})
            assert of_class is not None
            assert of_class.values["units_registered"] == 1
            of_city = await store.latest("programme", {"scope": "city", "code": "370200"})
            assert of_city is not None
            assert of_city.values["enterprises_registered"] == 1


async def test_commands_go_over_tls_to_a_broker_of_our_own_authority(
    tmp_path: Path, mosquitto_program: str, free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    Authority.open(tmp_path / "ca").ensure_server(tmp_path / "broker", ["127.0.0.1"])
    port, home = free_port(), tmp_path / "broker"
    (home / "mosquitto.conf").write_text(
        f"listener {port} 127.0.0.1\nallow_anonymous true\nuser root\ncafile {home}/ca.crt\n"
        f"certfile {home}/server.crt\nkeyfile {home}/server.key\n"
    )
    broker = subprocess.Popen(  # noqa: ASYNC220
        [mosquitto_program, "-c", str(home / "mosquitto.conf")], stderr=subprocess.DEVNULL
    )
    url = f"mqtts://127.0.0.1:{port}"
    monkeypatch.setenv("QILU_MQTT_CA_FILE", str(home / "ca.crt"))
    try:
        async with asyncio.timeout(HUNG_S), PlatformService(settings(tmp_path, broker=url)) as service:
            assert service._runtime is not None
            (commander,) = service._runtime.commanders.values()
            while not commander.connected:
                await asyncio.sleep(0.05)
    finally:
        broker.terminate()
        broker.wait()
    monkeypatch.setenv("QILU_MQTT_CA_FILE", str(tmp_path / "missing.crt"))
    with pytest.raises(ConfigError, match="QILU_MQTT_CA_FILE"):
        async with PlatformService(settings(tmp_path, broker=url)):
            raise AssertionError("it serves")


async def test_registry_and_readings_are_the_owners_alone_also_where_older_ones_were_not(
    tmp_path: Path,
) -> None:
    before = os.umask(0)
    try:
        (tmp_path / "platform.db").touch(mode=0o644)
        store = f"duckdb:///{tmp_path}/readings.duckdb"
        async with asyncio.timeout(HUNG_S), PlatformService(settings(tmp_path, store_url=store)):
            pass
        back_up(f"sqlite:///{tmp_path}/platform.db", tmp_path / "copy.sqlite")
    finally:
        os.umask(before)
    for name in ("platform.db", "readings.duckdb", "copy.sqlite"):
        assert (tmp_path / name).stat().st_mode & 0o077 == 0, name


async def test_hundreds_of_silent_event_streams_leave_room_for_another(tmp_path: Path) -> None:
    async with asyncio.timeout(HUNG_S), PlatformService(settings(tmp_path)) as service:
        port = int(service.url.rsplit(":", 1)[1])
        silent = []
        for _ in range(300):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n")
            silent.append(writer)
        async with client_of(service) as client, events_of(client) as events:
            assert (await client.get("/")).status_code == 200
            first = await find(events, lambda topic, _: topic == "programme")
            assert first["registered"]["enterprises"] == 0
            metrics = (await client.get("/metrics")).text
        [line] = [line for line in metrics.splitlines() if re.match(r"\w*clients\w* \d", line)]
        assert float(line.split()[1]) <= MAX_STREAMS_OF_ONE
        for writer in silent:
            writer.close()
