"""Several gateways at one broker: each has its part of the counties."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from gateway_world import (
    START_MS,
    FakePlatform,
    Publisher,
    eventually,
    get,
    letters,
    motor,
    online,
)
from qilu_contract.catalogue.places import COUNTIES
from qilu_contract.errors import ConfigError, Reason
from qilu_contract.wire import partitions, topics
from qilu_contract.wire.partitions import Partition
from qilu_devices.run.config import RunConfig
from qilu_devices.run.runner import run
from qilu_devices.scenario import load_scenario
from qilu_devices.simulation import fleet_of
from qilu_gateway.service import GatewayService
from qilu_gateway.settings import Settings
from qilu_stores import open_store


def test_every_county_is_in_one_partition() -> None:
    for count in (1, 2, 3, 16):
        parts = [Partition(index, count) for index in range(1, count + 1)]
        assert sorted(group for part in parts for group in part.groups) == sorted(COUNTIES)
        for part in parts:
            assert all(partitions.of_group(group, count) == part for group in part.groups)
            assert partitions.of_host(part.host_id()) == part
    assert partitions.parse("2/3").host_id() == "qilu-2-of-3"
    assert partitions.of_host("ignition") is partitions.of_host("qilu-3-of-2") is None
    for wrong in ("0/2", "3/2", "1", "a/b", "1/1000"):
        with pytest.raises(ConfigError, match="--shard"):
            partitions.parse(wrong)


def telemetry(county: str, unit: str, seconds: int) -> tuple[str, bytes]:
    return topics.telemetry(county, f"{county}-e00001", unit), json.dumps(motor(seconds)).encode()


@contextlib.asynccontextmanager
async def two(settings: Settings, folder: Path, store: str) -> AsyncIterator[list[GatewayService]]:
    halves = [
        settings.model_copy(update={"shard": f"{index}/2", "state": folder / f"state{index}", "store": store})
        for index in (1, 2)
    ]
    async with online(halves[0]) as first, online(halves[1]) as second:
        yield [first, second]


async def test_two_gateways_share_the_counties_and_store_each_reading_once(
    settings: Settings, platform: FakePlatform, publisher: Publisher, influxdb: Any, tmp_path: Path
) -> None:
    counties = sorted(COUNTIES)[:6]
    for county in counties:
        platform.register(f"{county}-m1", county=county)
    async with two(settings, tmp_path, influxdb.url) as gateways:
        publisher.send_all([telemetry(county, f"{county}-m1", n) for n in range(100) for county in counties])
        await eventually(lambda: sum(gateway.counters.stored for gateway in gateways) == 600, "stored")
        assert [gateway.counters.accepted for gateway in gateways] == [300, 300]
        # A topic of another's county reaches nobody but its gateway.
        publisher.send(*telemetry(counties[0], f"{counties[1]}-m1", 0))
        await eventually(
            lambda: gateways[0].counters.dead_lettered == 1, "refused by the gateway of the county"
        )
        assert gateways[1].counters.dead_lettered == 0
        assert "qilu_gateway_shared_groups 0.0" in (await get(gateways[0], "/metrics")).text
        states = {state["host"] for state in publisher.states if state["online"]}
        assert {f"{settings.host_id}-{index}-of-2" for index in (1, 2)} <= states
    half = settings.model_copy(update={"state": tmp_path / "state1"})
    assert letters(half) == {Reason.WRONG_OWNER: 1}
    async with open_store(influxdb.url) as store:
        assert await store.count("motor") == 600
        assert await store.count_duplicates("motor") == 0
    assert platform.counted == 6


async def test_edge_nodes_follow_the_gateway_that_has_their_county(
    platform: FakePlatform, mosquitto: Any, influxdb: Any, tmp_path: Path, settings: Settings
) -> None:
    """With the host ids that ship. The second gateway comes later: its edge nodes wait for it alone."""
    mosquitto.start()
    scenario = load_scenario()
    config = RunConfig(
        broker=mosquitto.url,
        scenario=scenario,
        units=150,
        speed=None,
        for_s=40.0,
        gateways=2,
        start_ms=START_MS,
    )
    units = fleet_of(scenario, scenario.seed, 150, config.shard)
    for unit in units:
        platform.register(unit.id, unit.class_name, unit.enterprise.id, unit.enterprise.county)
    settings = settings.model_copy(update={"host_id": topics.HOST_ID, "store": influxdb.url})
    first, second = (
        settings.model_copy(update={"shard": f"{index}/2", "state": tmp_path / f"state{index}"})
        for index in (1, 2)
    )
    async with online(first) as one:
        running = asyncio.create_task(run(config))
        await eventually(lambda: one.counters.stored > 0, "the first half arrives")
        async with online(second) as two:
            report = await asyncio.wait_for(running, 60)
            assert report.dropped == report.pending == 0
            await eventually(
                lambda: one.counters.stored + two.counters.stored >= report.readings_acked, "all stored"
            )
            assert two.counters.stored > 0
            for gateway, part in ((one, Partition(1, 2)), (two, Partition(2, 2))):
                own = {unit.id for unit in units if unit.enterprise.county in part.groups}
                assert 0 < len(own) < len(units)
                assert gateway.counters.first_readings <= len(own)
    async with open_store(influxdb.url) as store:
        counted = sum([await store.count(name) for name in {unit.class_name for unit in units}])
        assert counted == report.readings_acked


async def test_two_gateways_that_claim_one_county_are_noticed(
    settings: Settings, platform: FakePlatform, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    third = settings.model_copy(update={"shard": "1/3", "state": tmp_path / "third"})
    third = third.model_copy(update={"store": f"duckdb:///{tmp_path / 'third.duckdb'}"})
    half = settings.model_copy(update={"shard": "2/2"})
    shared = len(set(Partition(1, 3).groups) & set(Partition(2, 2).groups))
    async with online(half) as gateway:
        async with online(third) as other:
            for each in (gateway, other):

                async def told(each: GatewayService = each) -> bool:
                    return f"qilu_gateway_shared_groups {shared}.0" in (await get(each, "/metrics")).text

                for _ in range(600):
                    if await told():
                        break
                    await asyncio.sleep(0.05)
                assert await told()
        for _ in range(600):
            if "qilu_gateway_shared_groups 0.0" in (await get(gateway, "/metrics")).text:
                break
            await asyncio.sleep(0.05)
        assert "qilu_gateway_shared_groups 0.0" in (await get(gateway, "/metrics")).text
    assert "another gateway has counties of ours" in capsys.readouterr().out


async def test_a_host_that_somebody_else_calls_offline_says_that_it_is_not(
    settings: Settings, platform: FakePlatform, publisher: Publisher
) -> None:
    async with online(settings):
        await eventually(lambda: publisher.states and publisher.states[-1]["online"], "online")
        said = len(publisher.states)
        wrong = json.dumps({"online": False, "timestamp": 1}).encode()
        publisher.send(topics.state(settings.host_id), wrong)
        await eventually(lambda: len(publisher.states) >= said + 2, "published again")
        assert publisher.states[-1]["online"]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """A base that no other test has; a host id may be no longer than its partition's suffix allows."""
    return settings.model_copy(update={"host_id": f"h-{secrets.token_hex(4)}"})
