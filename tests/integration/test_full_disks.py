"""Disks that are full, read-only or damaged: nothing ends, no acknowledged reading is lost, and work
continues by itself once there is room."""

from __future__ import annotations

import asyncio
import os
import resource
import sqlite3
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import structlog
from gateway_world import (
    COUNTY,
    ENTERPRISE,
    FakePlatform,
    Publisher,
    assert_adds_up,
    birth,
    data,
    eventually,
    eventually_async,
    get,
    letters,
    motor,
    online,
    stored,
    telemetry,
)
from pydantic import SecretStr
from qilu.logfile import log_file
from qilu_contract.errors import Retryable
from qilu_contract.storage import Point
from qilu_contract.store import Store
from qilu_gateway.service import GatewayService
from qilu_gateway.settings import Settings
from qilu_platform.audit import audit
from qilu_platform.client import Programme
from qilu_platform.database.engine import open_engine
from qilu_platform.service import PlatformService
from qilu_platform.settings import Settings as PlatformSettings
from qilu_stores import open_store

BATCH = 3000
FILLING_S = 40.0
INGEST_KEY = "ingest-key-of-this-test"
TAGS = ("370200", "370202", "C34", "370202-e00001")


def motors(first_ms: int, count: int) -> list[Point]:
    """Points that do not shrink in the store's file."""
    return [
        Point("motor", (*TAGS, f"u{os.urandom(200).hex()}"), ts_ms, {"power_in": ts_ms + 0.5})
        for ts_ms in range(first_ms, first_ms + count)
    ]


async def write_until_away(store: Store, first_ms: int) -> tuple[int, list[Point]]:
    """The time after the last point that was stored, and the batch that was not."""
    while True:
        batch = motors(first_ms, BATCH)
        try:
            await store.write(batch)
        except Retryable as error:
            assert "No space left" in str(error) or "File too large" in str(error), error
            return first_ms, batch
        first_ms += len(batch)


# The first disk is full for the log beside the file, the second one for the checkpoint, after which DuckDB
# requires the file to be opened again.
@pytest.mark.parametrize("megabytes", [4, 22])
async def test_a_full_disk_is_a_duckdb_store_that_is_away_until_there_is_room(
    small_disk: Any, megabytes: int
) -> None:
    small_disk.grow(megabytes)
    url = f"duckdb:///{small_disk.folder}/readings.duckdb"
    async with open_store(url) as store:
        stored, batch = await write_until_away(store, 0)
        assert stored > 0
        for _ in range(3):
            with pytest.raises(Retryable):
                await store.write(batch)
            assert await store.count("motor") == stored, "what is there can be read meanwhile"
        small_disk.grow(3 * megabytes)
        await store.write(batch)
        assert await store.count("motor") == stored + BATCH
    async with open_store(url) as store:
        assert await store.count("motor") == stored + BATCH


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_a_file_at_its_quota_is_a_duckdb_store_that_is_away(tmp_path: Path) -> None:
    async with open_store(f"duckdb:///{tmp_path}/readings.duckdb") as store:
        with files_no_larger_than(4 * 1024 * 1024):
            stored, batch = await write_until_away(store, 0)
            assert stored > 0
        await store.write(batch)
        assert await store.count("motor") == stored + BATCH


async def test_a_duckdb_file_that_cannot_be_opened_yet_is_opened_later(small_disk: Any) -> None:
    url = f"duckdb:///{small_disk.folder}/readings.duckdb"
    async with open_store(url) as store:
        await store.write(motors(0, 10))
    small_disk.make_read_only()
    async with open_store(url) as store:
        with pytest.raises(Retryable, match="Read-only"):
            await store.write(motors(10, 10))
        with pytest.raises(Retryable, match="Read-only"):
            await store.count("motor")
        small_disk.grow(4)
        await store.write(motors(10, 10))
        assert await store.count("motor") == 20


@pytest.mark.parametrize("left", [0, 4096, 12_288, 40_960, 100_000])
async def test_a_duckdb_file_that_a_full_disk_could_not_hold_is_made_when_there_is_room(
    small_disk: Any, left: int
) -> None:
    (small_disk.folder / "spare").write_bytes(bytes(left))
    small_disk.fill()
    (small_disk.folder / "spare").unlink()
    async with open_store(f"duckdb:///{small_disk.folder}/readings.duckdb") as store:
        with pytest.raises(Retryable, match="No space left"):
            await store.write(motors(0, 5000))
        small_disk.clear()
        await store.write(motors(0, 10))
        assert await store.count("motor") == 10


@pytest.mark.parametrize("place", [0.0, 0.02, 0.3, 0.6])
async def test_a_damaged_duckdb_file_is_a_store_that_is_away_or_goes_on(tmp_path: Path, place: float) -> None:
    file = tmp_path / "readings.duckdb"
    async with open_store(f"duckdb:///{file}") as store:
        for first in range(0, 12_000, BATCH):
            await store.write(motors(first, BATCH))
    with file.open("r+b") as out:
        out.seek(int(file.stat().st_size * place))
        out.write(os.urandom(12_000))
    async with open_store(f"duckdb:///{file}") as store:
        for first in (100_000, 100_010):
            try:
                await store.write(motors(first, 10))
                await store.latest("motor", {"enterprise": TAGS[-1]})
            except Retryable as error:
                assert place or "damaged" in str(error)


class Sender:
    """A fleet's readings, each with other values and another time."""

    def __init__(self, publisher: Publisher, platform: FakePlatform, units: int) -> None:
        self._publisher, self._units = publisher, units
        self.sent = 0
        for unit in range(units):
            platform.register(f"m{unit}")

    def send(self, readings: int) -> None:
        """Returns when the broker has them."""
        numbers = range(self.sent, self.sent + readings)
        self._publisher.send_all(
            [telemetry(f"m{number % self._units}", motor(number, number * 0.1237)) for number in numbers]
        )
        self.sent += readings


async def health(gateway: GatewayService) -> dict[str, Any]:
    body: dict[str, Any] = (await get(gateway, "/healthz")).json()
    return body


async def test_a_full_store_disk_is_spooled_for_and_drained_when_there_is_room(
    settings: Settings, platform: FakePlatform, publisher: Publisher, small_disk: Any
) -> None:
    update = {"store": f"duckdb:///{small_disk.folder}/store.duckdb", "spool_min_free_bytes": 0}
    settings = settings.model_copy(update=update)
    sender = Sender(publisher, platform, 20)
    async with online(settings) as gateway:
        sender.send(500)
        await eventually(lambda: gateway.counters.stored == 500, "stored")
        small_disk.fill()
        for _ in range(3):
            sender.send(500)
        await eventually(lambda: gateway.counters.spooled > 0, "spooled")
        await eventually(lambda: gateway.counters.in_flight == 0, "all durable")
        assert_adds_up(gateway)
        await eventually(lambda: "No space left" in gateway.store_trouble, "the reason")
        found = await health(gateway)
        assert found["status"] == "ok", "readings are taken"
        assert "store" in found["reasons"]
        small_disk.clear()
        await eventually(lambda: gateway.counters.stored == sender.sent, "all stored")
        sender.send(100)
        await eventually(lambda: gateway.counters.stored == sender.sent, "and continues")
        assert "reasons" not in await health(gateway)
        assert gateway.counters.dead_lettered == 0
    assert await stored(settings) == sender.sent


@pytest.mark.parametrize("disk", ["filled", "full at the start"])
async def test_a_full_state_disk_holds_and_goes_on_when_there_is_room(
    settings: Settings, platform: FakePlatform, publisher: Publisher, small_disk: Any, disk: str
) -> None:
    """Births, first readings and dead letters want it: none of these may be acknowledged meanwhile."""
    settings = settings.model_copy(update={"state": small_disk.folder, "spool_min_free_bytes": 0})
    sender = Sender(publisher, platform, 20)
    platform.register("late")
    platform.register("born")
    publisher.send(*telemetry("m0", motor()))
    async with online(settings) as gateway:
        sender.send(500)
        await eventually(lambda: platform.counted == 20, "reported")
        if disk == "filled":
            await full_and_then_not(gateway, publisher, sender, small_disk)
    if disk == "full at the start":
        small_disk.fill()
        async with GatewayService(settings) as gateway:
            await full_and_then_not(gateway, publisher, sender, small_disk)
    await eventually(lambda: platform.counted == 22, "reported")
    assert await stored(settings) == sender.sent + 3
    assert sum(letters(settings).values()) == 30


async def full_and_then_not(
    gateway: GatewayService, publisher: Publisher, sender: Sender, small_disk: Any
) -> None:
    small_disk.fill()
    publisher.send(*birth("born"))
    publisher.send(*data("born", 5, 12.5))
    publisher.send(*telemetry("late", motor(1)))
    publisher.send_all(
        [telemetry(f"nobody{number}", {**motor(), "note": "x" * 50_000}) for number in range(30)]
    )
    sender.send(500)
    await eventually(lambda: "state file" in gateway.troubles(), "the state file is reported")
    await eventually(lambda: not gateway.online, "offline")
    found = await health(gateway)
    assert found["status"] == "degraded"
    assert "full" in found["reasons"]["state file"]
    assert_adds_up(gateway)
    small_disk.clear()
    small_disk.grow(16)
    await eventually(lambda: gateway.online, "online again")
    await eventually(lambda: gateway.counters.dead_lettered == 30, "the letters are kept")
    await eventually(lambda: gateway.counters.in_flight == 0, "all durable")
    await eventually(lambda: not gateway.troubles(), "nothing is wrong")
    assert_adds_up(gateway)


async def test_a_full_spool_disk_holds_and_goes_on_when_there_is_room(
    settings: Settings, platform: FakePlatform, publisher: Publisher, influxdb: Any, small_disk: Any
) -> None:
    update = {"store": influxdb.url, "state": small_disk.folder, "spool_min_free_bytes": 0, "batch_size": 200}
    settings = settings.model_copy(update=update)
    sender = Sender(publisher, platform, 20)
    async with online(settings) as gateway:
        sender.send(500)
        await eventually(lambda: gateway.counters.stored == 500, "stored")
        influxdb.stop()
        sender.send(200)
        await eventually(lambda: gateway.counters.spooled == 200, "spooled")
        small_disk.fill()
        sender.send(1000)
        await eventually(lambda: "spool" in gateway.troubles(), "the full spool is reported")
        await eventually(lambda: gateway.counters.in_flight > 0, "held")
        found = await health(gateway)
        assert set(found["reasons"]) >= {"store", "spool"}
        influxdb.start()  # with the disk still full, what is spooled goes to the store all the same
        await eventually(lambda: gateway.counters.stored == sender.sent, "all stored")
        small_disk.clear()
        await eventually(lambda: gateway.troubles() == [], "nothing is wrong")
        assert gateway.counters.spooled == 0
    assert await stored(settings) == sender.sent


def platform_on(folder: Path) -> PlatformService:
    given = {"api_key": SecretStr("admin-key-of-this-test"), "ingest_key": SecretStr(INGEST_KEY)}
    return PlatformService(PlatformSettings(db_url=f"sqlite:///{folder}/registry.sqlite", port=0, **given))


def admin(service: PlatformService) -> httpx.AsyncClient:
    headers = {"Authorization": "Bearer admin-key-of-this-test"}
    return httpx.AsyncClient(base_url=service.url, headers=headers, timeout=60, trust_env=False)


async def register(client: httpx.AsyncClient, first: int, count: int) -> int:
    """How many of the units were registered, each by itself, until one was not."""
    for number in range(first, first + count):
        body = {"id": f"u{number}", "class": "motor", "enterprise": ENTERPRISE}
        answer = await client.post("/v1/units", json=body)
        if answer.status_code != 201:
            assert answer.status_code == 503, answer.text
            assert "disk" in answer.json()["detail"]
            assert answer.headers["Retry-After"]
            return number - first
    return count


async def test_a_full_registry_disk_refuses_changes_and_counts_right_when_there_is_room(
    settings: Settings, publisher: Publisher, small_disk: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QILU_API_KEY", INGEST_KEY)
    async with platform_on(small_disk.folder) as service, admin(service) as client:
        body = {"id": ENTERPRISE, "name": "E", "county": COUNTY, "industry": "C34"}
        assert (await client.post("/v1/enterprises", json=body)).status_code == 201
        assert await register(client, 0, 60) == 60
        settings = settings.model_copy(update={"platform": service.url})
        async with online(settings) as gateway:
            publisher.send_all([telemetry(f"u{number}", motor()) for number in range(30)])
            await eventually_async(lambda: counts(client, 30), "30 on cloud")
            small_disk.fill()
            assert await register(client, 60, 10_000) < 10_000
            registered = await count_units(small_disk.folder)
            publisher.send_all([telemetry(f"u{number}", motor(1)) for number in range(60)])
            await eventually(lambda: gateway.counters.stored == 90, "the gateway stores all the same")
            assert await gateway.unreported() > 0, "what cannot be counted waits"
            assert (await client.get("/v1/units/u5")).status_code == 200, "reads still work"
            health = (await client.get("/healthz")).json()
            assert "full" in health["reasons"]["registry"]
            small_disk.clear()
            small_disk.grow(32)
            await eventually_async(lambda: counts(client, 60), "all on cloud")
            assert await register(client, 20_000, 5) == 5
            assert (await client.get("/healthz")).json() == {"status": "ok"}
        assert await count_units(small_disk.folder) == registered + 5
    await asyncio.to_thread(check_books, small_disk.folder)


async def test_a_platform_starts_when_its_full_disk_has_room(small_disk: Any) -> None:
    async with platform_on(small_disk.folder) as service, admin(service) as client:
        body = {"id": ENTERPRISE, "name": "E", "county": COUNTY, "industry": "C34"}
        assert (await client.post("/v1/enterprises", json=body)).status_code == 201
    small_disk.fill()
    service = platform_on(small_disk.folder)
    starting = asyncio.create_task(service.__aenter__())
    done, _ = await asyncio.wait([starting], timeout=2)
    assert not done, "it neither ends nor begins"
    small_disk.clear()
    await starting
    async with admin(service) as client:
        assert await register(client, 0, 5) == 5
    await service.__aexit__(None, None, None)


async def counts(client: httpx.AsyncClient, units: int) -> bool:
    programme = msgspec.convert((await client.get("/v1/programme")).json(), Programme)
    return programme.onboarded("units_on_cloud") == units


async def count_units(folder: Path) -> int:
    return await asyncio.to_thread(lambda: len(select(folder, "SELECT id FROM units")))


def select(folder: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(folder / "registry.sqlite")) as connection:
        return connection.execute(query).fetchall()


def check_books(folder: Path) -> None:
    engine = open_engine(f"sqlite:///{folder}/registry.sqlite")
    assert audit(engine) == []
    engine.dispose()


def test_a_log_on_a_full_disk_loses_lines_and_ends_nothing(small_disk: Any) -> None:
    path = small_disk.folder / "log" / "stack.log"
    with log_file(path) as stream:
        log = structlog.PrintLogger(stream)
        log.info("before")
        small_disk.fill()
        for _ in range(1000):
            log.info("in between" * 10)
        small_disk.clear()
        log.info("after")
        small_disk.fill()
        log.info("at the end" * 1000)
    lines = path.read_text().splitlines()
    assert lines[0] == "before"
    assert "after" in lines


@pytest.mark.parametrize("disk", ["full", "read-only"])
async def test_a_gateways_first_start_waits_for_its_disk_and_can_be_stopped_meanwhile(
    settings: Settings, platform: FakePlatform, publisher: Publisher, small_disk: Any, disk: str
) -> None:
    settings = settings.model_copy(update={"state": small_disk.folder / "state", "spool_min_free_bytes": 0})
    if disk == "full":
        small_disk.fill()
    else:
        small_disk.make_read_only()
    async with GatewayService(settings) as gateway:
        await eventually(lambda: gateway.troubles() == ["state file"], "held up")
        answer = await get(gateway, "/healthz")
        assert answer.status_code == 503
        assert str(settings.state) in answer.json()["reasons"]["state file"]
    async with GatewayService(settings) as gateway:
        await eventually(lambda: gateway.troubles() == ["state file"], "held up again")
        if disk == "full":
            small_disk.clear()
        else:
            small_disk.grow(4)
        await eventually(lambda: gateway.online, "online")
        sender = Sender(publisher, platform, 5)
        sender.send(50)
        await eventually(lambda: gateway.counters.stored == 50, "stored")
        assert "reasons" not in (await get(gateway, "/healthz")).json()


async def test_a_damaged_registry_says_so_and_serves_what_can_be_read(tmp_path: Path) -> None:
    async with platform_on(tmp_path) as service, admin(service) as client:
        body = {"id": ENTERPRISE, "name": "E", "county": COUNTY, "industry": "C34"}
        assert (await client.post("/v1/enterprises", json=body)).status_code == 201
        assert await register(client, 0, 5) == 5
    file = tmp_path / "registry.sqlite"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        query = "SELECT rootpage FROM sqlite_master WHERE type = 'table' AND name = 'units'"
        [(page,)] = connection.execute(query).fetchall()
        [(size,)] = connection.execute("PRAGMA page_size").fetchall()
    with file.open("r+b") as out:
        out.seek((page - 1) * size)
        out.write(os.urandom(size))
    async with platform_on(tmp_path) as service, admin(service) as client:
        answer = await client.get("/v1/units/u3")
        assert answer.status_code == 503, answer.text
        assert "damaged" in answer.json()["detail"]
        assert (await client.get(f"/v1/enterprises/{ENTERPRISE}")).json()["name"] == "E"


async def fill_slowly(disk: Any) -> None:
    """Full after some FILLING_S: that disk, beside what others write to it."""
    steps = int(FILLING_S * 2)
    free = os.statvfs(disk.folder)
    share = free.f_bavail * free.f_frsize // steps
    with suppress(OSError), (disk.folder / "filling").open("ab", buffering=0) as out:
        for _ in range(steps):
            out.write(bytes(share))
            await asyncio.sleep(FILLING_S / steps)
    disk.fill()


@pytest.mark.skipif(os.environ.get("QILU_SOAK") != "1", reason="a minute each: in `make soak`")
@pytest.mark.parametrize("file", ["store", "state", "spool", "registry"])
async def test_a_disk_that_fills_up_while_readings_flow_costs_none_of_them(
    file: str,
    settings: Settings,
    platform: FakePlatform,
    publisher: Publisher,
    influxdb: Any,
    small_disk: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small_disk.grow(24)
    url = f"duckdb:///{small_disk.folder}/store.duckdb" if file == "store" else influxdb.url
    update = {"store": url, "spool_min_free_bytes": 0, "batch_size": 200}
    settings = settings.model_copy(update=update)
    if file in ("state", "spool"):
        settings = settings.model_copy(update={"state": small_disk.folder})
    sender = Sender(publisher, platform, 20)
    async with AsyncExitStack() as stack:
        if file == "registry":
            monkeypatch.setenv("QILU_API_KEY", INGEST_KEY)
            service = await stack.enter_async_context(platform_on(small_disk.folder))
            client = await stack.enter_async_context(admin(service))
            body = {"id": ENTERPRISE, "name": "E", "county": COUNTY, "industry": "C34"}
            assert (await client.post("/v1/enterprises", json=body)).status_code == 201
            for number in range(20):
                unit = {"id": f"m{number}", "class": "motor", "enterprise": ENTERPRISE}
                assert (await client.post("/v1/units", json=unit)).status_code == 201
            settings = settings.model_copy(update={"platform": service.url})
        gateway = await stack.enter_async_context(online(settings))
        sender.send(100)
        await eventually(lambda: gateway.counters.stored == 100, "stored")
        if file == "spool":
            influxdb.stop()
        filling = asyncio.create_task(fill_slowly(small_disk))
        until = time.monotonic() + FILLING_S + 10
        while time.monotonic() < until:
            await asyncio.to_thread(sender.send, 50)
            if file == "state":  # that file grows with dead letters
                await asyncio.to_thread(publisher.send_all, [telemetry("nobody", os.urandom(900).hex())])
            await asyncio.sleep(0.2)
        await filling
        influxdb.start()
        small_disk.clear()
        await eventually(lambda: gateway.counters.stored == sender.sent, "all stored")
        await eventually(lambda: not gateway.troubles() and not gateway.counters.in_flight, "all is well")
        assert gateway.counters.spooled == gateway.counters.corrupt == 0
        if file == "registry":
            await eventually_async(lambda: counts(client, 20), "all on cloud")
    assert await stored(settings) == sender.sent
    if file == "registry":
        await asyncio.to_thread(check_books, small_disk.folder)
