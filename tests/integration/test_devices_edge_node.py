"""Edge nodes against a real broker, seen by an independent client."""

import asyncio
import contextlib
import json
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import paho_clients
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from qilu_common.broker import BrokerAddress
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.errors import ConfigError
from qilu_contract.wire import clock, marks, sparkplug, topics
from qilu_contract.wire.marks import Mark
from qilu_devices.edge.edge_node import EdgeNode, NodeConfig
from qilu_devices.edge.flow import Flow
from qilu_devices.fleet import Unit
from qilu_devices.run.config import RunConfig, RunReport
from qilu_devices.run.manifest import load_manifest
from qilu_devices.run.runner import run
from qilu_devices.scenario import load_scenario, parse_scenario
from qilu_devices.simulation import Simulation, fleet_of, samples

SCENARIO = load_scenario()
SEED = SCENARIO.seed
START_MS = 1_509_328_800_000
UNITS = 40
PATIENCE_S = 300.0  # the machine may be busy

Readings = dict[tuple[str, int], dict[str, float]]


async def until(condition: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        await asyncio.sleep(0.1)  # conditions go through all messages, in the loop that sends them


class Observer:
    """Sees all of spBv1.0 and the clock, and speaks for the host. Its session outlives a broker's restart."""

    def __init__(self, broker: Any, name: str) -> None:
        self.messages: list[tuple[str, sparkplug.Payload]] = []
        self.clocks: list[clock.RunClock] = []
        self.clock_places: list[int] = []  # how many messages had come before each
        self._client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, name, protocol=mqtt.MQTTv5)
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = self._subscribe
        self._client.on_message = self._take
        lasting = Properties(PacketTypes.CONNECT)
        lasting.SessionExpiryInterval = 600
        self._ready = False
        self.answers = True
        self.marks: list[tuple[topics.SparkplugTopic, Mark]] = []  # those that came
        self._state_ms = int(time.time() * 1000)
        # Mosquitto 2.0 saves only sessions that began with clean_start false.
        self._client.connect(broker.host, broker.port, clean_start=False, properties=lasting)
        self._client.loop_start()

    def _subscribe(self, client: mqtt.Client, *_: Any) -> None:
        client.subscribe(
            [("spBv1.0/#", mqtt.SubscribeOptions(qos=1)), (topics.CLOCK, mqtt.SubscribeOptions(qos=1))]
        )
        self._ready = True

    def _take(self, _client: mqtt.Client, _data: Any, message: mqtt.MQTTMessage) -> None:
        if message.topic == topics.CLOCK:
            self.clocks.append(clock.decode(message.payload))
            self.clock_places.append(len(self.messages))
        elif message.topic != topics.state() and "CMD/" not in message.topic:
            payload = sparkplug.decode(message.payload)
            self.messages.append((message.topic, payload))
            mark = marks.parse(payload) if "/NDATA/" in message.topic else None
            if mark is not None:
                topic = topics.parse(message.topic)
                assert isinstance(topic, topics.SparkplugTopic)
                self.marks.append((topic, mark))
                if self.answers:
                    self.answer()

    def answer(self) -> None:
        """Send the newest mark back."""
        topic, mark = self.marks[-1]
        heard = mark._replace(clock_ms=self.clocks[-1].now if self.clocks else 0)
        payload = sparkplug.Payload(None, None, marks.metrics(heard, 1))
        self._client.publish(topics.sparkplug("NCMD", topic.group, topic.node), sparkplug.encode(payload))

    @property
    def ready(self) -> bool:
        return self._ready

    def say(self, topic: str, payload: bytes, retain: bool = False) -> None:
        self._client.publish(topic, payload, qos=1, retain=retain).wait_for_publish(PATIENCE_S)

    def state(self, *, online: bool) -> bytes:
        return json.dumps({"online": online, "timestamp": self._state_ms}).encode()

    def host(self, online: bool) -> None:
        self._state_ms += 1
        self.say(topics.state(), self.state(online=online), retain=True)

    def command(self, node: Unit, *metrics: sparkplug.Metric) -> None:
        topic = topics.sparkplug("NCMD", node.enterprise.county, node.enterprise.id)
        self.say(topic, sparkplug.encode(sparkplug.Payload(None, None, metrics)))

    def of(self, *types: str) -> list[tuple[topics.SparkplugTopic, sparkplug.Payload]]:
        found = []
        for text, payload in list(self.messages):
            topic = topics.parse(text)
            assert isinstance(topic, topics.SparkplugTopic)
            if topic.type in types:
                found.append((topic, payload))
        return found

    def readings(self) -> Readings:
        """Readings as a host decodes them from births and data. Fails if a repeated value differs."""
        units = {unit.id: unit for unit in fleet_of(SCENARIO, units=4 * UNITS)}
        aliases: dict[tuple[str, int], str] = {}
        found: Readings = {}
        for topic, payload in self.of("DBIRTH", "DDATA"):
            assert topic.device is not None
            equipment = CATALOGUE[units[topic.device].class_name]
            for metric in payload.metrics:
                assert metric.alias is not None
                if topic.type == "DBIRTH":
                    assert metric.name is not None
                    aliases[topic.node, metric.alias] = metric.name
                name = aliases[topic.node, metric.alias]
                ts_ms = metric.ts_ms if metric.ts_ms is not None else payload.ts_ms
                assert ts_ms is not None
                assert isinstance(metric.value, float)
                value = equipment.signal(name).round(metric.value)
                values = found.setdefault((topic.device, ts_ms), {})
                assert values.setdefault(name, value) == value
        return found

    def close(self) -> None:
        paho_clients.close(self._client)


@pytest.fixture
async def observer(mosquitto: Any, request: pytest.FixtureRequest) -> AsyncIterator[Observer]:
    mosquitto.start()
    seen = Observer(mosquitto, f"observer-{request.node.name}")
    try:
        await until(lambda: seen.ready, "the observer's subscription")
        yield seen
    finally:
        mosquitto.start()
        seen.host(online=False)
        seen.close()


def config(mosquitto: Any, **changes: Any) -> RunConfig:
    base = RunConfig(broker=mosquitto.url, scenario=SCENARIO, units=UNITS, start_ms=START_MS, speed=None)
    return replace(base, **changes)


def expected(until_ms: int, units: int = UNITS) -> Readings:
    found = samples(SCENARIO, SEED, START_MS, units, None, until_ms)
    return {(unit, ts_ms): dict(values) for unit, all_ in found.items() for ts_ms, values in all_}


@contextlib.asynccontextmanager
async def running(settings: RunConfig) -> AsyncIterator[tuple[asyncio.Event, "asyncio.Task[RunReport]"]]:
    """A run in the background, which the test ends by its event; a run that fails fails the test."""
    stop = asyncio.Event()
    task = asyncio.create_task(run(settings, stop=stop))
    try:
        yield stop, task
    finally:
        stop.set()
        await asyncio.wait_for(task, PATIENCE_S)


async def test_every_reading_is_published_and_counted_once(mosquitto: Any, observer: Observer) -> None:
    observer.host(online=True)
    report = await run(config(mosquitto, for_s=60.0))
    wanted = expected(START_MS + 60_000)
    await until(lambda: len(observer.of("NDEATH")) == report.enterprises, "every NDEATH")
    assert observer.readings() == wanted
    assert report.readings_made == report.readings_acked == len(wanted)
    assert (report.pending, report.dropped, report.units) == (0, 0, UNITS)
    # Nothing was sent twice: births carry sample 0 and data the others.
    assert len(observer.of("DBIRTH")) == report.births == UNITS
    assert len(observer.of("DDATA")) == len(wanted) - UNITS


async def test_births_come_before_data_and_seq_counts_every_message(
    mosquitto: Any, observer: Observer
) -> None:
    observer.host(online=True)
    report = await run(config(mosquitto, for_s=120.0))
    await until(lambda: len(observer.of("NDEATH")) == report.enterprises, "every NDEATH")
    nodes = {unit.enterprise.id for unit in fleet_of(SCENARIO, units=UNITS)}
    assert {topic.node for topic, _ in observer.of("NBIRTH")} == nodes
    for node in nodes:
        mine = [
            (t, p) for t, p in observer.of("NBIRTH", "DBIRTH", "DDATA", "NDATA", "NDEATH") if t.node == node
        ]
        (first, birth), (last, death) = mine[0], mine[-1]
        assert (first.type, last.type) == ("NBIRTH", "NDEATH")
        bd_seq = {metric.name: metric.value for metric in birth.metrics}["bdSeq"]
        assert bd_seq == 0
        assert [(metric.name, metric.value) for metric in death.metrics] == [("bdSeq", bd_seq)]
        assert [payload.seq for _, payload in mine[:-1]] == [i % 256 for i in range(len(mine) - 1)]
        born: set[str | None] = set()
        aliases: set[int | None] = set()
        for topic, payload in mine:
            if topic.type == "DBIRTH":
                born.add(topic.device)
                fresh = {metric.alias for metric in payload.metrics}
                assert not fresh & aliases  # unique in the node
                aliases |= fresh
            elif topic.type == "DDATA":
                assert topic.device in born


async def test_a_device_that_its_node_loses_dies_and_is_born_again(
    any_broker: Any, request: pytest.FixtureRequest
) -> None:
    rough = parse_scenario(
        "name: rough\nunits: 20\nseed: 5\nclasses: {motor: 1, pump: 1}\ncities: {'370200': 1}\n"
        "transport: {offline: {every: 2m, for: 40s}, late: {every: 2m, for: 30s}}\n",
        "rough.yaml",
    )
    observer = Observer(any_broker, f"observer-{request.node.name}")
    try:
        await until(lambda: observer.ready, "the observer's subscription")
        observer.host(online=True)
        settings = config(any_broker, scenario=rough, units=None, for_s=300.0)
        async with running(settings) as (_, task):
            await until(lambda: len(observer.of("DDEATH")) > 2, "deaths")
            node, _ = observer.of("DDEATH")[0]
            unit = next(unit for unit in fleet_of(rough) if unit.enterprise.id == node.node)
            observer.command(unit, sparkplug.Metric("Node Control/Rebirth", value=True))
            report = await task
        await until(lambda: len(observer.of("NDEATH")) == report.enterprises, "every NDEATH")
        assert (report.pending, report.dropped) == (0, 0)
        assert len(observer.of("DDEATH")) > 20
        alive: set[str | None] = set()
        seqs: dict[str, int] = {}
        for topic, payload in observer.of("NBIRTH", "DBIRTH", "DDATA", "NDATA", "DDEATH"):
            seq = 0 if topic.type == "NBIRTH" else (seqs[topic.node] + 1) % 256
            assert payload.seq == seq
            seqs[topic.node] = seq
            if topic.type == "DBIRTH":
                alive.add(topic.device)
            elif topic.type == "DDATA":
                assert topic.device in alive
            elif topic.type == "DDEATH":
                assert (topic.device in alive, payload.metrics) == (True, [])
                assert payload.ts_ms is not None
                alive.remove(topic.device)
    finally:
        observer.host(online=False)
        observer.close()


async def test_the_clock_is_announced_and_stands_at_the_end(mosquitto: Any, observer: Observer) -> None:
    observer.host(online=True)
    await run(config(mosquitto, for_s=60.0))
    await until(lambda: observer.clocks, "the clock")
    await until(lambda: observer.clocks[-1] == clock.RunClock(START_MS + 60_000, 0.0), "the clock's end")


async def test_a_run_in_the_future_announces_its_clock_before_its_readings(
    mosquitto: Any, observer: Observer
) -> None:
    observer.host(online=True)
    begin_ms = clock.wall_ms() + 400 * 86_400_000
    report = await run(config(mosquitto, start_ms=begin_ms, for_s=7200.0, units=10))
    assert report.readings_acked == report.readings_made
    await until(lambda: len(observer.of("NDEATH")) == report.enterprises, "every NDEATH")
    announced_ms = 0
    places = dict(zip(observer.clock_places, observer.clocks, strict=True))
    for i, (topic, payload) in enumerate(observer.messages):
        announced_ms = max(announced_ms, places[i].now if i in places else 0)
        if "/DDATA/" in topic:
            assert payload.ts_ms is not None
            assert payload.ts_ms <= announced_ms + clock.MAX_AHEAD_MS
    assert len(observer.clocks) > 3


async def test_a_run_makes_no_more_than_its_host_takes_however_fast_the_broker_is(
    mosquitto: Any, observer: Observer
) -> None:
    """The broker acknowledges all of it at once, and the host comes to it later."""
    observer.host(online=True)
    observer.answers = False
    reports: list[RunReport] = []
    settings = config(mosquitto, for_s=900.0)
    task = asyncio.create_task(run(settings, lambda p: reports.append(p.report) if p.report else None))
    await until(lambda: observer.marks, "a mark")
    observer.answer()
    await until(lambda: len(reports) >= 3 and len({r.readings_made for r in reports[-3:]}) == 1, "a stop")
    held = reports[-1]
    assert held.nodes_online == held.enterprises
    assert held.pending == 0
    everything = len(expected(START_MS + 900_000))
    assert held.readings_made < everything
    observer.answers = True
    observer.answer()
    report = await asyncio.wait_for(task, PATIENCE_S)
    assert report.readings_acked == report.readings_made == everything


async def test_a_future_reading_waits_until_its_host_has_heard_the_clock(
    mosquitto: Any, observer: Observer
) -> None:
    """That the broker has the announcement says nothing of the host."""
    observer.host(online=True)
    observer.answers = False
    begin_ms = clock.wall_ms() + 400 * 86_400_000
    task = asyncio.create_task(run(config(mosquitto, start_ms=begin_ms, for_s=60.0, units=10)))
    await until(lambda: observer.marks and observer.clocks, "announcement and mark")
    assert observer.of("DBIRTH", "DDATA") == []
    observer.answers = True
    observer.answer()
    report = await asyncio.wait_for(task, PATIENCE_S)
    assert report.readings_acked == report.readings_made > 0


async def test_nothing_is_published_while_the_host_is_away_and_all_of_it_later(
    mosquitto: Any, observer: Observer
) -> None:
    reports: list[int] = []
    settings = config(mosquitto, for_s=90.0, speed=300.0)
    task = asyncio.create_task(
        run(settings, lambda p: reports.append(p.report.readings_made if p.report else 0))
    )
    wanted = expected(START_MS + 90_000)
    await until(lambda: reports and reports[-1] == len(wanted), "all readings to be made")
    assert observer.of("NBIRTH", "DBIRTH", "DDATA") == []
    observer.host(online=True)
    report = await asyncio.wait_for(task, PATIENCE_S)
    assert report.readings_acked == len(wanted)
    await until(lambda: observer.readings() == wanted, "all readings")
    assert all(metric.is_historical for _, payload in observer.of("DDATA") for metric in payload.metrics)
    for device in {topic.device for topic, _ in observer.of("DDATA")}:
        times = [payload.ts_ms for topic, payload in observer.of("DDATA") if topic.device == device]
        assert times == sorted(times, key=lambda ts_ms: ts_ms or 0)


async def end_with_every_reading(
    observer: Observer, stop: asyncio.Event, task: asyncio.Task[RunReport]
) -> None:
    """Wait for more data, end the run, and compare what arrived with what was made."""
    behind = len(observer.of("DDATA"))
    await until(lambda: len(observer.of("DDATA")) > behind + UNITS, "more data")
    stop.set()
    report = await asyncio.wait_for(task, PATIENCE_S)
    wanted = expected(report.until_ms)
    await until(lambda: len(observer.readings()) == len(wanted), "all readings")
    assert observer.readings() == wanted
    assert report.readings_acked == report.readings_made == len(wanted)


async def test_the_host_going_away_and_coming_back_loses_and_invents_nothing(
    mosquitto: Any, observer: Observer
) -> None:
    observer.host(online=True)
    async with running(config(mosquitto, speed=100.0)) as (stop, task):
        await until(lambda: len(observer.of("DDATA")) > 2 * UNITS, "data")
        nodes = {unit.enterprise.id for unit in fleet_of(SCENARIO, units=UNITS)}
        observer.say(topics.state(), observer.state(online=False), retain=True)  # of equal timestamp
        await until(lambda: {topic.node for topic, _ in observer.of("NDEATH")} == nodes, "every NDEATH")
        births = len(observer.of("NBIRTH"))
        observer.host(online=True)
        await until(lambda: len(observer.of("NBIRTH")) == births + len(nodes), "births on new connections")
        for node in nodes:
            sessions = [p.metrics[0].value for topic, p in observer.of("NBIRTH") if topic.node == node]
            assert sessions == sorted(set(sessions))
        await end_with_every_reading(observer, stop, task)


async def test_a_rebirth_repeats_values_with_their_own_times_and_adds_no_reading(
    mosquitto: Any, observer: Observer
) -> None:
    observer.host(online=True)
    node = fleet_of(SCENARIO, units=UNITS)[0]

    def births() -> int:
        return sum(topic.node == node.enterprise.id for topic, _ in observer.of("NBIRTH"))

    async with running(config(mosquitto, speed=60.0)) as (stop, task):
        await until(lambda: len(observer.of("DDATA")) > 3 * UNITS, "data")
        assert births() == 1
        observer.command(node, sparkplug.Metric(name="Node Control/Rebirth", value=True))
        await until(lambda: births() == 2, "the rebirth")
        await end_with_every_reading(observer, stop, task)
    mine = [
        (t, p) for t, p in observer.of("NBIRTH", "DBIRTH", "DDATA", "NDATA") if t.node == node.enterprise.id
    ]
    second = [i for i, (topic, _) in enumerate(mine) if topic.type == "NBIRTH"][1]
    assert [payload.seq for _, payload in mine[second:]] == [i % 256 for i in range(len(mine) - second)]
    assert len([topic for topic, _ in mine[second:] if topic.type == "DBIRTH"]) == sum(
        unit.enterprise == node.enterprise for unit in fleet_of(SCENARIO, units=UNITS)
    )


async def test_hostile_commands_do_not_hurt_a_node(mosquitto: Any, observer: Observer) -> None:
    observer.host(online=True)
    node = fleet_of(SCENARIO, units=UNITS)[0]
    group, name = node.enterprise.county, node.enterprise.id
    ncmd, dcmd = topics.sparkplug("NCMD", group, name), topics.sparkplug("DCMD", group, name, node.id)
    async with running(config(mosquitto, speed=60.0)) as (stop, task):
        await until(lambda: len(observer.of("DDATA")) > UNITS, "data")
        for payload in (b"", b"\xff" * 300, b"\x12\x05hello", b"{}"):
            observer.say(ncmd, payload)
            observer.say(dcmd, payload)
            observer.say(topics.state(), payload or b"[]")
        observer.say(topics.state(), b'{"online": "maybe", "timestamp": "now"}')
        observer.say(topics.state(), b'{"online": false, "timestamp": 1}')  # a will that comes late
        never = (
            b'{"online": false, "timestamp": 9223372036854775807}'  # after which no host could say anything
        )
        observer.say(topics.state(), never)
        observer.command(node, sparkplug.Metric(name="Node Control/Rebirth", value=False))
        observer.command(node, sparkplug.Metric(name="Node Control/Rebirth", value="yes"))
        observer.command(node, sparkplug.Metric(alias=0, value=7.0))
        for _ in range(200):
            observer.command(node, sparkplug.Metric(name="Node Control/Rebirth", value=True))
        await until(lambda: sum(topic.node == name for topic, _ in observer.of("NBIRTH")) > 1, "the rebirth")
        behind = len(observer.of("DDATA"))
        await until(lambda: len(observer.of("DDATA")) > behind + 5 * UNITS, "data after it all")
        # tck-id-operational-behavior-edge-node-termination-host-offline-timestamp: no late STATE is believed.
        assert name not in {topic.node for topic, _ in observer.of("NDEATH")}
        stop.set()
        report = await asyncio.wait_for(task, PATIENCE_S)
    wanted = expected(report.until_ms)
    await until(lambda: len(observer.readings()) == len(wanted), "all readings")
    assert observer.readings() == wanted
    births = sum(topic.node == name for topic, _ in observer.of("NBIRTH"))
    assert 2 <= births <= 2 + report.seconds / 2.0  # two hundred commands, one rebirth in two seconds


async def test_a_full_buffer_drops_the_oldest_and_counts_it(mosquitto: Any, observer: Observer) -> None:
    units = fleet_of(SCENARIO, units=5)
    owner = units[0].enterprise
    mine = [unit for unit in units if unit.enterprise == owner]
    node = EdgeNode(owner, mine, NodeConfig(BrokerAddress.from_url(mosquitto.url), 10), Flow(), lambda: None)
    made = [
        sample
        for moment in Simulation(mine, SEED, START_MS).moments(START_MS + 120_000)
        for sample in moment.samples
    ]
    for sample in made:
        node.offer(sample)
    assert node.backlog.made == len(made)
    assert node.backlog.dropped == len(made) - len(mine) - 10
    assert node.pending == len(mine) + 10
    observer.host(online=True)
    task = asyncio.create_task(node.run())
    await until(lambda: node.pending == 0, "everything to be acknowledged")
    assert node.acked == len(mine) + 10
    assert node.acked_through_ms == made[-1].ts_ms
    node.stop()
    await asyncio.wait_for(task, PATIENCE_S)
    kept = [sample for i, sample in enumerate(made) if i < len(mine) or i >= len(made) - 10]
    await until(lambda: len(observer.readings()) == len(kept), "what was kept")
    assert observer.readings() == {(s.unit.id, s.ts_ms): s.named() for s in kept}


async def test_a_cancelled_run_says_farewell_and_leaves_a_manifest(
    mosquitto: Any, observer: Observer, tmp_path: Path
) -> None:
    observer.host(online=True)
    task = asyncio.create_task(run(config(mosquitto, speed=60.0, state=tmp_path)))
    await until(lambda: len(observer.of("DDATA")) > UNITS, "data")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, PATIENCE_S)
    nodes = {unit.enterprise.id for unit in fleet_of(SCENARIO, units=UNITS)}
    await until(lambda: {topic.node for topic, _ in observer.of("NDEATH")} == nodes, "every NDEATH")
    manifest = load_manifest(tmp_path)
    assert not manifest.finished
    assert set(manifest.nodes) == nodes
    found = observer.readings()
    for reading in manifest.readings():
        assert found[reading.unit, reading.ts_ms] == reading.values


async def test_the_manifest_of_a_finished_run_has_every_reading(
    mosquitto: Any, observer: Observer, tmp_path: Path
) -> None:
    observer.host(online=True)
    report = await run(config(mosquitto, for_s=60.0, state=tmp_path))
    manifest = load_manifest(tmp_path)
    assert manifest.finished
    assert manifest.until_ms == report.until_ms <= START_MS + 60_000
    assert sum(node.readings_acked for node in manifest.nodes.values()) == report.readings_acked
    assert {(r.unit, r.ts_ms): r.values for r in manifest.readings()} == expected(START_MS + 60_000)


@pytest.fixture
def locked_broker(mosquitto_program: str, free_port: Callable[[], int], tmp_path: Path) -> Iterator[int]:
    """A broker that lets nobody in."""
    port = free_port()
    (tmp_path / "mosquitto.conf").write_text(f"listener {port} 127.0.0.1\nallow_anonymous false\nuser root\n")
    process = subprocess.Popen(
        [mosquitto_program, "-c", str(tmp_path / "mosquitto.conf")], stderr=subprocess.DEVNULL
    )
    yield port
    process.terminate()
    process.wait(PATIENCE_S)


async def test_readings_that_the_broker_refuses_are_kept_and_published_once_it_takes_them(
    ruled: Any, tmp_path: Path
) -> None:
    observer = Observer(ruled, "observer-of-rules")
    try:
        await until(lambda: observer.ready, "the observer's subscription")
        observer.host(online=True)
        reports: list[RunReport] = []
        settings = config(ruled, units=3, for_s=600.0, speed=60.0, state=tmp_path / "run")
        task = asyncio.create_task(run(settings, lambda p: reports.append(p.report) if p.report else None))
        await until(lambda: len(observer.of("DDATA")) > 10, "data")
        ruled.allow("NBIRTH", "DBIRTH", "NDEATH")
        ruled.reload()
        await until(lambda: reports and reports[-1].pending > 20, "readings that stay at home")
        # All readings that the manifest counts as acknowledged have arrived, without the refused ones.
        arrived = set(observer.readings())
        manifest = load_manifest(tmp_path / "run")
        assert {(r.unit, r.ts_ms) for r in manifest.readings()} <= arrived
        assert reports[-1].readings_acked <= len(arrived) < reports[-1].readings_made
        ruled.allow("NBIRTH", "DBIRTH", "DDATA", "NDEATH")
        ruled.reload()
        report = await asyncio.wait_for(task, PATIENCE_S)
        wanted = expected(START_MS + 600_000, units=3)
        assert (report.readings_acked, report.pending, report.dropped) == (len(wanted), 0, 0)
        await until(lambda: observer.readings() == wanted, "all readings")
    finally:
        observer.close()


async def test_a_broker_that_refuses_us_ends_the_run_with_one_sentence(locked_broker: int) -> None:
    settings = RunConfig(
        broker=f"mqtt://nobody:wrong@127.0.0.1:{locked_broker}",
        scenario=SCENARIO,
        units=3,
        drain_s=PATIENCE_S,
    )
    with pytest.raises(ConfigError, match="refuses user 'nobody'"):
        await asyncio.wait_for(run(settings), PATIENCE_S)
