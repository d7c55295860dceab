"""Gateways that share the counties, while they come and go: a real platform keeps the leases."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
from cut_wire import Wire
from gateway_world import START_MS, Publisher, eventually, eventually_async, has, motor
from pydantic import SecretStr
from qilu.verify import verify
from qilu_contract.catalogue.places import COUNTIES
from qilu_contract.errors import ConfigError, Reason
from qilu_contract.storage import Point
from qilu_contract.wire import topics
from qilu_devices.run.config import RunConfig
from qilu_devices.run.manifest import load_manifest
from qilu_devices.run.runner import run
from qilu_devices.scenario import load_scenario
from qilu_gateway import sharing
from qilu_gateway.admit.units import Tags
from qilu_gateway.read import unborn
from qilu_gateway.service import STATE_SCHEMAS, GatewayService
from qilu_gateway.settings import Settings
from qilu_gateway.settle import dead_letters
from qilu_gateway.sharing import Sharing, of_partition
from qilu_gateway.statefile import FILE_NAME, StateFile
from qilu_gateway.write.spool import Spool
from qilu_platform.audit import audit
from qilu_platform.database.engine import open_engine
from qilu_platform.database.migrating import migrate
from qilu_platform.models.bodies import ShardsIn
from qilu_platform.registry import sharing as leases
from qilu_platform.service import PlatformService
from qilu_platform.settings import Settings as PlatformSettings
from qilu_stores import open_store
from sqlalchemy import Engine

SHARDS = 4
UNITS = 100
COUNTY = sorted(COUNTIES)[1]


class Pool:
    """Gateways that ask a registry for their shares, without a platform in between."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self.held = engine, dict[str, list[int]]()

    def now_ms(self) -> int:
        with self._engine.begin() as connection:
            return leases.clock_ms(connection)

    def at(self, monkeypatch: pytest.MonkeyPatch, now_ms: int) -> None:
        monkeypatch.setattr(leases, "clock_ms", lambda _: now_ms)

    def ask(self, gateway: str, *, wanted: range | list[int] = range(1, 9), fixed: bool = False) -> list[int]:
        """The gateway hands over at once what it no longer serves."""
        return self.share(gateway, wanted, fixed=fixed).shards

    def share(
        self, gateway: str, wanted: range | list[int] = range(1, 9), *, fixed: bool = False, key: str = "key"
    ) -> leases.Shared:
        asked = ShardsIn(
            pool="qilu/8", gateway=gateway, wanted=list(wanted), held=self.held.get(gateway, []), fixed=fixed
        )
        with self._engine.begin() as connection:
            found = leases.share(connection, asked, key)
        self.held[gateway] = found.shards
        return found


@pytest.fixture(params=["sqlite", "postgresql"])
def pool(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pool]:
    sqlite = f"sqlite:///{tmp_path}/registry.sqlite"
    with opened(sqlite if request.param == "sqlite" else request.getfixturevalue("postgres_url")) as pool:
        yield pool


@contextlib.contextmanager
def opened(url: str) -> Iterator[Pool]:
    engine = open_engine(url, None)
    with engine.begin() as connection:
        migrate(connection)
    yield Pool(engine)
    engine.dispose()


def test_gateways_have_equally_many_shards_and_no_shard_has_two(pool: Pool) -> None:
    assert pool.ask("a") == [*range(1, 9)]
    assert pool.ask("b") == []  # all are taken
    assert len(pool.ask("a")) == 4
    pool.ask("a")  # it has handed four over
    assert len(pool.ask("b")) == 4
    assert sorted(pool.ask("a") + pool.ask("b")) == [*range(1, 9)]
    for _ in range(3):
        for name in "abc":
            pool.ask(name)
    assert sorted(map(len, pool.held.values())) == [2, 3, 3]
    assert sorted(chain.from_iterable(pool.held.values())) == [*range(1, 9)]
    pool.held["a"] = []
    pool.ask("a", wanted=[])  # it leaves
    for _ in range(2):
        pool.ask("b")
        pool.ask("c")
    assert sorted(pool.held["b"] + pool.held["c"]) == [*range(1, 9)]


def test_a_gateway_learns_which_of_its_shards_another_one_served_last(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert pool.share("a", [1, 2]).inherited == []
    assert pool.share("a", [1, 2]).inherited == []
    pool.held["a"] = []
    pool.ask("a", wanted=[])
    assert pool.share("a", [1, 2]) == ([1, 2], [], [])  # nobody had them meanwhile
    pool.held["a"] = []
    pool.ask("a", wanted=[])
    assert pool.share("b", [1, 2]) == ([1, 2], [], [1, 2])
    start_ms = pool.now_ms()
    for step in range(1, 7):  # its leases end
        pool.at(monkeypatch, start_ms + step * 3000)
        pool.ask("c", wanted=[4], fixed=True)
    assert pool.share("a", [1, 2]) == ([1, 2], [], [1, 2])
    assert pool.share("a", [1, 2]) == ([1, 2], [], [])


def test_another_key_cannot_take_or_release_the_shards_of_a_gateway(pool: Pool) -> None:
    assert pool.share("a", [1, 2], fixed=True) == ([1, 2], [], [])
    assert pool.share("b").shards == [3, 4, 5, 6, 7, 8]
    for wanted in ([], [1, 2]):  # what would release them, and what would renew them
        for name in "ab":
            held = pool.held[name]
            found = pool.share(name, wanted, fixed=True, key="another")
            assert (found.shards, found.taken) == ([], wanted)
            pool.held[name] = held
    assert pool.share("c", fixed=True).shards == []  # nothing has become free
    assert pool.share("a", [1, 2], fixed=True) == ([1, 2], [], [])
    # The stranger counts as one more gateway, not as the one with that name.
    pool.share("b", key="another")
    assert len(pool.share("b").shards) == 4


def test_the_lease_of_an_older_version_has_no_key_and_stays_with_its_gateway(pool: Pool) -> None:
    assert pool.share("a", [1], fixed=True, key=leases.NO_KEY).shards == [1]
    assert pool.share("a", [1], fixed=True) == ([1], [], [])
    assert pool.share("a", [1], fixed=True, key="another").shards == []


def test_the_gateways_of_two_cells_do_not_share(pool: Pool) -> None:
    for _ in range(2):
        assert pool.ask("a", wanted=[1, 3, 5, 7]) == [1, 3, 5, 7]
        assert pool.ask("b", wanted=[2, 4, 6, 8]) == [2, 4, 6, 8]


def test_the_leases_of_a_gateway_that_no_longer_asks_end(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    pool.ask("a", wanted=[3], fixed=True)
    assert pool.ask("b", wanted=[3], fixed=True) == []
    assert pool.ask("a", wanted=[3], fixed=True) == [3]
    start_ms = pool.now_ms()
    for step in range(1, 7):  # another one asks all the time
        pool.at(monkeypatch, start_ms + step * 3000)
        pool.ask("c", wanted=[4], fixed=True)
    assert pool.ask("b", wanted=[3], fixed=True) == [3]
    assert pool.ask("a", wanted=[3], fixed=True) == []


def test_leases_go_on_while_the_platform_is_unavailable(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abaabb":
        pool.ask(name)
    before = dict(pool.held)
    start_ms = pool.now_ms()
    for away_ms in (60_000, -3_600_000):  # the clock is set back, too
        pool.at(monkeypatch, start_ms + away_ms)
        assert pool.ask("b") == before["b"]
        assert pool.ask("a") == before["a"]
    for step in range(1, 7):
        pool.at(monkeypatch, start_ms - 3_600_000 + step * 3000)
        pool.ask("b")
    assert pool.held["b"] == [*range(1, 9)]  # the other one is really gone


def test_a_gateway_that_leaves_keeps_the_leases_of_what_it_still_hands_over(pool: Pool) -> None:
    assert pool.ask("a") == [*range(1, 9)]
    pool.ask("a", wanted=[])
    assert pool.ask("b") == []
    pool.held["a"] = [7, 8]
    pool.ask("a", wanted=[])
    assert pool.ask("b") == [*range(1, 7)]
    pool.ask("a", wanted=[])
    assert pool.ask("b") == [*range(1, 9)]


def test_replicas_of_the_platform_use_the_clock_of_their_database(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(postgres_url) as pool:
        assert pool.ask("a", wanted=[3], fixed=True) == [3]
        now_ms = leases.wall_ms()
        for ahead_ms in range(0, 60_000, 5000):
            monkeypatch.setattr(leases, "wall_ms", lambda ms=now_ms + ahead_ms: ms)
            assert pool.ask("b", wanted=[3], fixed=True) == []


@contextlib.asynccontextmanager
async def served(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[PlatformService]:
    monkeypatch.setenv("QILU_API_KEY", "the-key-of-this-test")
    settings = PlatformSettings(
        db_url=f"sqlite:///{folder}/registry.sqlite", port=0, api_key=SecretStr("the-key-of-this-test")
    )
    async with PlatformService(settings) as service:
        yield service


async def test_the_platform_knows_gateways_by_their_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served(tmp_path, monkeypatch) as platform, httpx.AsyncClient(base_url=platform.url) as client:
        admin = {"Authorization": "Bearer the-key-of-this-test"}
        keys = []
        for name in ("one", "two"):
            made = await client.post("/v1/keys", json={"name": name, "role": "ingest"}, headers=admin)
            keys.append({"Authorization": f"Bearer {made.json()['key']}"})

        async def ask(number: int, wanted: list[int]) -> list[int]:
            body = {"pool": "qilu/2", "gateway": "gw-1", "wanted": wanted, "fixed": True}
            found = await client.post("/v1/ingest/shards", json=body, headers=keys[number])
            return list(found.json()["shards"])

        assert await ask(0, [1]) == [1]
        assert await ask(1, [1]) == []
        assert await ask(1, []) == []
        assert await ask(1, [1]) == []
        assert await ask(0, [1]) == [1]


async def test_of_two_gateways_with_one_shard_the_second_stops_with_a_sentence(
    mosquitto: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "LEASE_S", 1.0)
    mosquitto.start()
    async with served(tmp_path, monkeypatch) as platform:
        settings = Settings(
            broker=mosquitto.url,
            store=f"duckdb:///{tmp_path}/one.duckdb",
            platform=platform.url,
            state=tmp_path / "one",
            host_id=f"host-{secrets.token_hex(4)}",
            shard="1/2",
            http_port=0,
        )
        first = of_partition(settings)
        serving = asyncio.create_task(first.run())
        await eventually(lambda: first.shards == [1], "the first serves")
        more = {"state": tmp_path / "two", "store": f"duckdb:///{tmp_path}/two.duckdb"}
        second = of_partition(settings.model_copy(update=more))
        with pytest.raises(ConfigError, match="Another gateway has the shard 1/2"):
            await second.run()
        assert not serving.done()
        first.stop()
        await serving
        third = of_partition(settings.model_copy(update=more))  # the first has given its lease back
        serving = asyncio.create_task(third.run())
        await eventually(lambda: third.shards == [1], "the third serves")
        third.stop()
        await serving


def shared(number: int, folder: Path, broker: str, store: str, platform: str) -> Sharing:
    settings = Settings(
        broker=broker, store=store, platform=platform, state=folder / f"gateway{number}", http_port=0
    )
    return Sharing(settings, [1, 2], 2, fixed=False)


async def test_a_gateway_that_stops_keeps_its_shards_until_it_has_handed_them_over(
    mosquitto: Any, influxdb: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "LEASE_MS", 1000)  # a hand-over takes several times as long
    monkeypatch.setattr(sharing, "ASK_S", 0.2)
    mosquitto.start()
    async with served(tmp_path, monkeypatch) as platform:
        first, second = (
            shared(number, tmp_path, mosquitto.url, influxdb.url, platform.url) for number in (1, 2)
        )
        tasks = [asyncio.create_task(first.run())]
        await eventually(lambda: len(services([first])) == 2, "the first has both")
        await eventually(lambda: all(each.online for each in services([first])), "it serves them")
        first.stop()
        tasks.append(asyncio.create_task(second.run()))
        await eventually(lambda: second.shards, "the second has one")
        with structlog.testing.capture_logs() as logs:
            assert not set(first.shards) & set(second.shards)
            await tasks[0]
            await eventually(lambda: len(second.shards) == 2, "the second has both")
            second.stop()
            await tasks[1]
    assert "a shard ended" not in [each["event"] for each in logs]


async def test_readings_left_in_a_spool_are_stored_though_another_gateway_has_the_shard(
    mosquitto: Any, influxdb: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are acknowledged, and the store was unavailable until the gateway was gone."""
    mosquitto.start()
    unit = Tags("3702", "370202", "C34", "370202-e00001", "m1")
    points = [Point("motor", unit, START_MS + second * 1000, {"power_in": 1.0}) for second in range(50)]
    state = tmp_path / "gateway1" / "shard-1-of-2"
    state.mkdir(parents=True)
    async with Spool(state, 2**30, 0, lambda count: None) as spool:
        assert await spool.append(points, [], [])
    async with served(tmp_path, monkeypatch) as platform, open_store(influxdb.url) as store:
        first, second = (
            shared(number, tmp_path, mosquitto.url, influxdb.url, platform.url) for number in (1, 2)
        )
        tasks = [asyncio.create_task(second.run())]
        await eventually(lambda: second.shards == [1, 2], "the second has both")
        tasks.append(asyncio.create_task(first.run()))
        await eventually_async(lambda: has(store, len(points)), "stored")
        assert 1 in second.shards
        for each in (first, second):
            each.stop()
        await asyncio.gather(*tasks)
    async with Spool(state, 2**30, 0, lambda count: None) as spool:
        assert spool.readings == 0


async def test_a_shard_that_cannot_run_is_tried_once_per_interval_and_others_run(
    mosquitto: Any, influxdb: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "ASK_S", 100.0)
    mosquitto.start()
    async with (
        served(tmp_path, monkeypatch) as platform,
        StateFile(tmp_path / "gateway1" / "shard-1-of-2", STATE_SCHEMAS),
    ):
        gateway = shared(1, tmp_path, mosquitto.url, influxdb.url, platform.url)
        with structlog.testing.capture_logs() as logs:
            task = asyncio.create_task(gateway.run())
            await eventually(lambda: gateway.shards == [2] and services([gateway])[-1].online, "2 runs")
            gateway.stop()
            await task
    assert [each["event"] for each in logs].count("a shard ended") == 1


async def test_a_gateway_without_shards_says_that_the_platform_refuses_its_key(
    mosquitto: Any, tmp_path: Path, free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served(tmp_path, monkeypatch) as platform, httpx.AsyncClient() as client:
        monkeypatch.setenv("QILU_API_KEY", "another-key")
        port = free_port()
        settings = Settings(
            broker=mosquitto.url,
            store="influxdb://127.0.0.1:1/qilu",
            platform=platform.url,
            state=tmp_path / "gateway",
            http_port=port,
        )
        gateway = Sharing(settings, [1], 1, fixed=False)
        task = asyncio.create_task(gateway.run())

        async def degraded() -> bool:
            with contextlib.suppress(httpx.TransportError):
                found = await client.get(f"http://127.0.0.1:{port}/healthz")
                return found.status_code == 503 and "QILU_API_KEY" in found.json()["platform"]
            return False

        await eventually_async(degraded, "degraded")
        gateway.stop()
        await task


def test_gateways_that_share_need_a_store_that_several_can_use(tmp_path: Path) -> None:
    settings = Settings(store=f"duckdb:///{tmp_path}/one.duckdb", state=tmp_path / "gateway")
    with pytest.raises(ConfigError, match="need InfluxDB"):
        Sharing(settings, [1, 2], 2, fixed=False)


def services(gateways: list[Sharing]) -> list[GatewayService]:
    return [service for gateway in gateways for service in gateway._services.values()]


async def test_gateways_come_and_go_while_readings_arrive(
    mosquitto: Any, influxdb: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From one to three gateways and back to one. Edge nodes follow STATE, one device does not."""
    mosquitto.start()
    async with served(tmp_path, monkeypatch) as platform:
        scenario = load_scenario()
        ending = asyncio.Event()
        config = RunConfig(
            broker=mosquitto.url,
            scenario=scenario,
            platform=platform.url,
            units=UNITS,
            speed=5.0,
            gateways=SHARDS,
            start_ms=START_MS,
            state=tmp_path / "devices",
        )
        gateways = [
            Sharing(
                Settings(
                    broker=mosquitto.url,
                    store=influxdb.url,
                    platform=platform.url,
                    state=tmp_path / f"gateway{number}",
                    http_port=0,
                ),
                range(1, SHARDS + 1),
                SHARDS,
                fixed=False,
            )
            for number in range(3)
        ]
        tasks = [asyncio.create_task(gateways[0].run())]
        await eventually(
            lambda: len(gateways[0].shards) == SHARDS and all(each.online for each in services(gateways)),
            "one has all",
        )
        running = asyncio.create_task(run(config, stop=ending))
        publisher, sent = Publisher(mosquitto), 0
        pressing = True

        async def press() -> None:
            """Plain JSON of a unit that is not registered, whatever STATE says: a dead letter each."""
            nonlocal sent
            topic = topics.telemetry(COUNTY, f"{COUNTY}-e00001", "stranger")
            while pressing:
                await asyncio.to_thread(publisher.send, topic, json.dumps(motor(sent)).encode())
                sent += 1
                await asyncio.sleep(0.02)

        pressed = asyncio.create_task(press())
        tasks += [asyncio.create_task(gateway.run()) for gateway in gateways[1:]]
        await eventually(
            lambda: sorted(len(each.shards) for each in gateways) == [1, 1, 2],
            "three have their shares",
        )
        for gateway, task in list(zip(gateways, tasks, strict=True))[:2]:
            gateway.stop()
            await task
        await eventually(
            lambda: len(gateways[2].shards) == SHARDS and all(each.online for each in services(gateways[2:])),
            "one has all again",
        )
        ending.set()
        report = await running
        pressing = False
        await pressed
        await eventually(lambda: sum(letters_in(tmp_path)) == sent, "a dead letter for each PUBACK")
        await eventually(
            lambda: all(each.counters.in_flight == 0 for each in services(gateways[2:])), "settled"
        )
        gateways[2].stop()
        await tasks[2]
        publisher.close()
    assert report.readings_acked > UNITS
    async with open_store(influxdb.url) as store:
        total = (await verify(load_manifest(tmp_path / "devices"), store)).total
    assert total.good, total
    assert total.expected > UNITS
    engine = open_engine(f"sqlite:///{tmp_path}/registry.sqlite", None)
    assert audit(engine) == []
    engine.dispose()


async def test_gateways_that_take_shards_from_each_other_lose_and_alter_nothing(
    mosquitto: Any, influxdb: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gateway that the platform does not hear loses its leases while it serves, as on a starved machine.
    The other one takes its sessions over, and knows none of the births. Then the other way round, with births
    of earlier in the state directory."""
    monkeypatch.setattr(leases, "LEASE_MS", 1000)
    monkeypatch.setattr(sharing, "ASK_S", 0.2)
    mosquitto.start()
    async with served(tmp_path, monkeypatch) as platform:
        wires = [Wire(int(platform.url.rpartition(":")[2])) for _ in range(2)]
        gateways = [
            shared(number, tmp_path, mosquitto.url, influxdb.url, f"http://127.0.0.1:{wire.port}")
            for number, wire in enumerate(wires)
        ]
        tasks = [asyncio.create_task(gateway.run()) for gateway in gateways]
        await eventually(
            lambda: (
                sorted(gateways[0].shards + gateways[1].shards) == [1, 2]
                and all(each.online for each in services(gateways))
            ),
            "each has one",
        )
        ending = asyncio.Event()
        config = RunConfig(
            broker=mosquitto.url,
            scenario=load_scenario(),
            platform=platform.url,
            units=UNITS,
            speed=20.0,
            gateways=2,
            start_ms=START_MS,
            state=tmp_path / "devices",
        )
        running = asyncio.create_task(run(config, stop=ending))

        def stored() -> int:
            return sum(each.counters.stored for each in services(gateways))

        await eventually(lambda: stored() > UNITS, "readings of all")
        for wire, other, winner in ((*wires, gateways[1]), (*wires[::-1], gateways[0])):
            wire.cut()
            other.mend()
            await eventually(lambda winner=winner: winner.shards == [1, 2], "taken")
            taken = stored()
            await eventually(lambda taken=taken: stored() > taken + UNITS, "its readings are stored")
        ending.set()
        report = await running
        await eventually(lambda: all(each.counters.in_flight == 0 for each in services(gateways)), "settled")
        for gateway in gateways:
            gateway.stop()
        await asyncio.gather(*tasks)
        for wire in wires:
            wire.close()
    assert report.readings_acked > 3 * UNITS
    # There is one only if STATE went offline, on a slow machine: then edge nodes end their connections.
    found = list(unborn_letters(tmp_path))
    assert {detail for detail, _ in found} <= {unborn.ENDED}
    async with open_store(influxdb.url) as store:
        total = (await verify(load_manifest(tmp_path / "devices"), store)).total
    assert total.lost + total.altered <= sum(readings for _, readings in found), total
    assert (total.duplicated, total.unexpected) == (0, 0)


def unborn_letters(folder: Path) -> Iterator[tuple[str, int]]:
    """Detail and readings of the dead letters without a birth."""
    for file in folder.glob(f"gateway*/shard-*/{FILE_NAME}"):
        with dead_letters.open_for_reading(file) as connection:
            rows = dead_letters.list_rows(connection, reason=Reason.NO_BIRTH, limit=100_000)
        yield from ((row.detail, row.readings) for row in rows)


def letters_in(folder: Path) -> Iterator[int]:
    """Dead letters of units that are not registered, in each shard's state directory."""
    for file in folder.glob(f"gateway*/shard-*/{FILE_NAME}"):
        with dead_letters.open_for_reading(file) as connection:
            yield dead_letters.count_readings(connection).get(Reason.UNKNOWN_UNIT, 0)
