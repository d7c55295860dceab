"""Transport faults on their real way: equipment, Mosquitto, gateway, InfluxDB, and what is left of each
reading at its end."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import duckdb
import paho.mqtt.client as mqtt
import paho_clients
import pytest
from gateway_world import FakePlatform, eventually, letters, online
from qilu.attack_score import attacked_pairs, detected_pairs, score
from qilu.verify import Verdict, verify
from qilu_contract.catalogue.places import city_of
from qilu_contract.errors import BadReading, Reason
from qilu_contract.wire import sparkplug, topics
from qilu_devices.fleet import Shard
from qilu_devices.run.config import RunConfig, RunReport
from qilu_devices.run.manifest import Manifest, load_manifest
from qilu_devices.run.runner import run
from qilu_devices.scenario import Scenario, parse_scenario
from qilu_devices.simulation import Simulation, fleet_of
from qilu_devices.transport.disturbance import Disturbance, Sending, Treatment
from qilu_devices.transport.episodes import FILE_NAME, Attack, Kind
from qilu_gateway.settings import Settings
from qilu_platform.models.bodies import ProblemIn
from qilu_platform.registry import security
from qilu_stores import open_store

START_MS = 1_509_328_846_046  # on no grid
UNITS, MINUTES = 40, 11  # two windows, and a bit of a third
FAULTS = {
    Kind.OFFLINE: "{every: 5m, for: 1m}",
    Kind.MISSING: "{every: 5m, for: 1m}",
    Kind.LATE: "{every: 5m, for: 90s}",
    Kind.OUT_OF_ORDER: "{every: 5m, for: 1m}",
    Kind.DUPLICATED: "{every: 5m, for: 1m}",
    Kind.CLOCK_SKEW: "{every: 5m, for: 2m, by: 2m, drift_ppm: 5000}",
    Kind.STUCK_SENSOR: "{every: 5m, for: 1m}",
    Kind.WRONG_TYPE: "{every: 5m, for: 30s}",
    Kind.GARBAGE_PAYLOAD: "{every: 5m, for: 30s}",
    Kind.RECONNECT_STORM: "{every: 5m, for: 20s, share: 0.8}",
    Kind.ATTACK: "{every: 5m, for: 30s}",
}


def scenario(*kinds: Kind) -> Scenario:
    lines = "".join(f"  {kind}: {FAULTS[kind]}\n" for kind in kinds)
    mix = "classes: {motor: 1, pump: 1, boiler: 1}\ncities: {'370200': 1, '370700': 1}\n"
    return parse_scenario(f"name: rough\nunits: {UNITS}\nseed: 5\n{mix}transport:\n{lines}", "rough.yaml")


def register(chosen: Scenario, platform: FakePlatform) -> None:
    for unit in fleet_of(chosen):
        county = unit.enterprise.county
        place = {"county": county, "city": city_of(county), "industry": unit.enterprise.industry}
        owned = {"class": unit.class_name, "enterprise": unit.enterprise.id, "on_cloud": False}
        platform.units[unit.id] = owned | place


@pytest.fixture
def influx_settings(settings: Settings, influxdb: Any) -> Settings:
    # Equipment listens to the host of this id alone.
    return settings.model_copy(update={"store": influxdb.url, "host_id": "qilu"})


def config_of(chosen: Scenario, settings: Settings, folder: Path | None) -> RunConfig:
    return RunConfig(
        settings.broker, chosen, start_ms=START_MS, speed=None, for_s=60.0 * MINUTES, state=folder
    )


async def run_all(
    configs: list[RunConfig], settings: Settings, reported: Callable[[], bool] = lambda: True
) -> tuple[list[RunReport], dict[str, int]]:
    """Run them at once and to their end, and until the gateway has `reported`; also what it counted."""
    async with online(settings) as gateway:
        reports = await asyncio.gather(*map(run, configs))
        counters, made = gateway.counters, sum(report.readings_acked for report in reports)
        await eventually(lambda: counters.in_flight == 0 and counters.accepted >= made, "all of it")
        await eventually(reported, "the reports")
        return reports, {"births": counters.births, "stored": counters.stored}


async def verdict_of(folder: Path, settings: Settings) -> Verdict:
    async with open_store(settings.store) as store:
        return await verify(load_manifest(folder), store, window_readings=500)


def truth_of(*folders: Path) -> list[tuple[Any, ...]]:
    files = [str(folder / FILE_NAME) for folder in folders]
    return sorted(duckdb.read_parquet(files).fetchall(), key=repr)


@pytest.mark.parametrize("kinds", [*((kind,) for kind in Kind), tuple(Kind)], ids="+".join)
async def test_what_is_left_of_a_run_is_what_its_faults_leave(
    kinds: tuple[Kind, ...], influx_settings: Settings, platform: FakePlatform, tmp_path: Path
) -> None:
    rough = scenario(*kinds)
    register(rough, platform)

    @cache
    def expected() -> Counter[Reason]:
        refused: Counter[Reason] = Counter()
        for _ in load_manifest(tmp_path).readings(refused):
            pass
        return refused

    def reported() -> bool:
        found: Counter[str] = Counter()
        for each in platform.problems or ():
            found[each["reason"]] += each["count"]
        return {reason: found[reason] for reason in expected()} == expected()

    config = config_of(rough, influx_settings, tmp_path)
    [report], counted = await run_all([config], influx_settings, reported)
    verdict = await verdict_of(tmp_path, influx_settings)
    total = verdict.total
    assert (total.lost, total.duplicated, total.altered, total.unexpected) == (0, 0, 0, 0)
    assert total.expected == total.stored > UNITS
    assert (total.unacknowledged, verdict.others, report.pending, report.dropped) == (0, 0, 0, 0)

    if kinds == (Kind.ATTACK,):
        check_events(load_manifest(tmp_path), platform)
    truth: dict[str, int] = defaultdict(int)
    methods: dict[str, int] = defaultdict(int)
    for kind, _, _, _, _, readings, *_, method in truth_of(tmp_path):
        truth[kind] += readings
        methods[method] += readings
    assert set(truth) == set(kinds)
    wanted = {
        Reason.WRONG_TYPE: truth.get(Kind.WRONG_TYPE),
        Reason.BAD_PAYLOAD: truth.get(Kind.GARBAGE_PAYLOAD, 0) + methods[Attack.FLOOD],
        Reason.WRONG_OWNER: methods[Attack.SPOOF],
    }
    assert letters(influx_settings) == {reason: count for reason, count in wanted.items() if count}
    assert verdict.refused == letters(influx_settings)
    assert report.readings_acked == total.stored + sum(verdict.refused.values())
    assert counted["stored"] >= total.stored + truth.get(Kind.DUPLICATED, 0)
    if kinds == (Kind.OFFLINE,):  # two windows are over: in each, each unit died and was born again
        assert counted["births"] > 2 * UNITS + report.enterprises
    if Kind.RECONNECT_STORM in kinds:  # who comes back is born again
        assert counted["births"] > UNITS + report.enterprises


def check_events(manifest: Manifest, platform: FakePlatform) -> None:
    """The gateway's reports are events of the attackers, and of nobody else. At full speed sequence numbers
    are right again before the gateway reports a gap."""
    problems = [ProblemIn.model_validate(each) for each in platform.problems or ()]
    events = {(each.enterprise, str(each.kind)) for each in security.of_problems(problems)}
    truth = manifest.transport_truth()
    attacked = attacked_pairs(truth)
    found = score(
        attacked, detected_pairs(manifest, lambda kind: {who for who, which in events if which == kind})
    )
    for kind in ("wrong_topic", "dead_letter_burst"):
        assert found[kind].attacked > 0
        assert found[kind].recall == 1.0, kind
    # At full speed a spoofing node also causes a burst of dead letters.
    assert found["wrong_topic"].precision == 1.0
    assert found["unusual_value"].precision in (None, 1.0)
    assert found["all"].attacked == len(attacked)


async def test_two_shards_at_another_speed_have_the_same_faults_and_leave_the_same(
    influx_settings: Settings, platform: FakePlatform, tmp_path: Path
) -> None:
    rough = scenario(*Kind)
    register(rough, platform)
    whole, halves = tmp_path / "whole", [tmp_path / "1", tmp_path / "2"]
    [report], _ = await run_all([config_of(rough, influx_settings, whole)], influx_settings)
    before = await verdict_of(whole, influx_settings)
    shards = [
        replace(config_of(rough, influx_settings, folder), shard=Shard(i, 2), speed=600.0)
        for i, folder in enumerate(halves, 1)
    ]
    reports, _ = await run_all(shards, influx_settings)
    assert sum(part.readings_acked for part in reports) == report.readings_acked
    assert truth_of(*halves) == truth_of(whole)
    # They wrote the same points again, and were refused the same again.
    assert (await verdict_of(whole, influx_settings)).as_dict() == before.as_dict()
    assert letters(influx_settings) == {reason: 2 * count for reason, count in before.refused.items()}


Message = tuple[str | None, int | None, bool]
"""Unit (None: the node's own), timestamp (None: no payload), and whether a value is text."""


class Wire(paho_clients.Subscriber):
    """All data messages at the broker, by edge node, and which readings were marked as historical."""

    def __init__(self, broker: Any) -> None:
        self.messages: dict[str, list[Message]] = defaultdict(list)
        self.historical: dict[tuple[str | None, int | None], bool] = {}
        super().__init__(broker, "wire", [("spBv1.0/+/DDATA/#", 1), ("spBv1.0/+/NDATA/#", 1)])

    def _take(self, _client: object, _data: object, message: mqtt.MQTTMessage) -> None:
        topic = topics.parse(message.topic)
        assert isinstance(topic, topics.SparkplugTopic)
        try:
            payload = sparkplug.decode(message.payload)
        except BadReading:
            self.messages[topic.node].append((topic.device, None, False))
            return
        if topic.device is None:
            return  # a mark, by which the run keeps the gateway's pace
        texts = any(isinstance(metric.value, str) for metric in payload.metrics)
        self.messages[topic.node].append((topic.device, payload.ts_ms, texts))
        said = all(metric.is_historical for metric in payload.metrics)
        self.historical[topic.device, payload.ts_ms] = said


@pytest.fixture
def wire(mosquitto: Any) -> Iterator[Wire]:
    wire = Wire(mosquitto)
    yield wire
    paho_clients.close(wire.client)


async def test_edge_nodes_send_what_the_faults_make_of_their_readings_in_just_that_order(
    wire: Wire, influx_settings: Settings, platform: FakePlatform
) -> None:
    """Without storms, after which messages may come again."""
    rough = scenario(*(kind for kind in Kind if kind is not Kind.RECONNECT_STORM))
    register(rough, platform)
    units = fleet_of(rough)
    disturbance = Disturbance(units, rough.seed, START_MS, rough.transport)
    moments = Simulation(units, rough.seed, START_MS).moments(START_MS + 60_000 * MINUTES)
    wanted: dict[str, list[Message]] = defaultdict(list)
    late: set[tuple[str, int]] = set()
    for item in chain(chain.from_iterable(map(disturbance.through, moments)), disturbance.rest()):
        treatment = item.treatment if isinstance(item, Sending) else None
        if treatment is Treatment.GARBAGE:
            wanted[item.unit.enterprise.id].append((None, None, False))
        elif item.ts_ms != START_MS and treatment is not Treatment.OFFLINE:  # that is the births'
            target = item.target if isinstance(item, Sending) else None
            wanted[item.unit.enterprise.id].append(
                (target or item.unit.id, item.ts_ms, treatment is Treatment.WRONG_TYPE)
            )
        if treatment is Treatment.LATE:
            late.add((item.unit.id, item.ts_ms))

    await eventually(lambda: wire.ready, "the subscription")
    await run_all([replace(config_of(rough, influx_settings, None), speed=600.0)], influx_settings)
    count = sum(map(len, wanted.values()))
    await eventually(lambda: sum(map(len, wire.messages.values())) >= count, "all messages")
    assert wire.messages == wanted
    assert late <= {reading for reading, said in wire.historical.items() if said}
