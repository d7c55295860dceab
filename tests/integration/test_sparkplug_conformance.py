"""Host application and edge nodes in the profile `strict`, held against the Sparkplug 3.0 specification: each
test has an assertion's id in its name. Witnesses are the broker's own log and a client that hears everything.
One scene is played once; the tests look at what was seen.

Other tests cover a host's handling of others' STATE, wills, sequence numbers and deaths: on both brokers
`test_gateway_host_state.py` (in both profiles) and `test_gateway_ownership.py`, and without a broker
`tests/unit/test_gateway_edge_nodes.py` and `test_gateway_rebirths.py`, with the ids in the docstrings.
`docs/sparkplug.md` lists all ids with their tests, from `tests/sparkplug_ids.csv`.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import paho_clients
import pytest
from conftest import Mosquitto
from gateway_world import FakePlatform, eventually, eventually_async, motor
from qilu_contract.wire import sparkplug, topics
from qilu_contract.wire.sparkplug import DataType, Metric, Payload
from qilu_devices.run.config import RunConfig
from qilu_devices.run.runner import run
from qilu_devices.scenario import load_scenario
from qilu_devices.simulation import fleet_of
from qilu_gateway.service import GatewayService
from qilu_gateway.settings import Settings
from qilu_stores import open_store

HOST = "qilu"
STATE = topics.state(HOST)
HOST_CLIENT = f"qilu-host-{HOST}"
UNITS = 12
OTHERS_S = 77
"""Keep-alive time of the test's own connections under the ids of host and edge nodes."""


@dataclass(frozen=True)
class Heard:
    """A message as a subscriber got it."""

    topic: str
    payload: bytes
    qos: int
    at_ms: int

    @property
    def kind(self) -> str:
        return self.topic.split("/")[1 if "/STATE/" in self.topic else 2]

    @property
    def decoded(self) -> Payload:
        return sparkplug.decode(self.payload)

    def metric(self, name: str) -> Metric:
        return next(metric for metric in self.decoded.metrics if metric.name == name)


@dataclass
class Scene:
    heard: list[Heard] = field(default_factory=list)
    log: list[str] = field(default_factory=list)
    nodes: list[str] = field(default_factory=list)
    """Topics `{group}/{node}` of the edge nodes."""
    before_host: list[Heard] = field(default_factory=list)
    """Messages that edge nodes published before their host was online. Another host was, theirs was called
    offline, and then online with an older timestamp."""
    started_ms: int = 0
    taken_at: int = 0
    """So many messages had been heard when somebody took the connection of the first node."""
    contradicted_at: int = 0
    """So many messages had been heard when somebody called the host offline."""
    rebirth_at: int = 0
    stopped_ms: int = 0
    stored: int = 0
    acknowledged_stored: bool = False
    sessions_kept: dict[str, bool] = field(default_factory=dict)
    """Whether the broker remembers anything of a client's connection."""

    def of(self, kind: str, node: str | None = None) -> list[Heard]:
        return [m for m in self.heard if m.kind == kind and (node is None or node.split("/")[1] in m.topic)]

    def states(self) -> list[dict[str, Any]]:
        return [json.loads(message.payload) for message in self.of("STATE")]

    def events(self, client: str) -> list[str]:
        """The broker's log of a client, in order."""
        return [line for line in self.log if client in line]

    def published(self, client: str, kind: str) -> list[str]:
        """The flags (`d0, q0, r0, …`) of what a client published, from the log."""
        lines = (re.search(rf"Received PUBLISH from {client} \((.*)\)", line) for line in self.log)
        return [found[1] for found in lines if found is not None and f"/{kind}/" in found[1]]

    def connections(self, client: str) -> list[str]:
        return [line for line in self.log if f" as {client} (" in line and f"k{OTHERS_S})" not in line]

    def will(self, client: str) -> list[str]:
        """Flags and topic of the will of each connection."""
        return [
            " ".join(self.log[place + 1 : place + 3])
            for place, line in enumerate(self.log)
            if f" as {client} (" in line and f"k{OTHERS_S})" not in line
        ]


def play(broker: Mosquitto, folder: Path, platform: FakePlatform) -> Scene:
    scene = Scene()
    recorder = paho.Client(paho.CallbackAPIVersion.VERSION2, "recorder", protocol=paho.MQTTv5)

    def hear(_client: object, _data: object, message: paho.MQTTMessage) -> None:
        at_ms = time.time_ns() // 1_000_000
        scene.heard.append(Heard(message.topic, message.payload, message.qos, at_ms))

    recorder.on_message = hear
    recorder.connect(broker.host, broker.port)
    recorder.subscribe("spBv1.0/#", 1)
    recorder.loop_start()
    try:
        asyncio.run(_play(scene, broker, folder, platform, recorder))
    finally:
        paho_clients.close(recorder)
    scene.log = (broker.folder / "mosquitto.log").read_text(errors="replace").splitlines()
    return scene


async def _play(
    scene: Scene, broker: Mosquitto, folder: Path, platform: FakePlatform, recorder: paho.Client
) -> None:
    scenario = load_scenario()
    config = RunConfig(broker=broker.url, scenario=scenario, units=UNITS, speed=30.0, strict=True)
    units = fleet_of(scenario, scenario.seed, UNITS, config.shard)
    for unit in units:
        platform.register(unit.id, unit.class_name, unit.enterprise.id, unit.enterprise.county)
    platform.register("m1")
    scene.nodes = sorted({f"{unit.enterprise.county}/{unit.enterprise.id}" for unit in units})
    settings = Settings(
        broker=broker.url,
        store=f"duckdb:///{folder / 'store.duckdb'}",
        platform=platform.url,
        state=folder / "state",
        http_port=0,
        profile="strict",
    )

    def log() -> str:
        return (broker.folder / "mosquitto.log").read_text(errors="replace")

    stop = asyncio.Event()
    running = asyncio.create_task(run(config, stop=stop))
    await eventually(lambda: all(f" as {n.split('/')[1]} (" in log() for n in scene.nodes), "nodes connected")
    subscribed = [f"Sending SUBACK to {n.split('/')[1]}" for n in scene.nodes]
    await eventually(lambda: all(line in log() for line in subscribed), "nodes subscribed")
    for topic, online, at_ms in ((topics.state("other"), True, 2), (STATE, False, 2), (STATE, True, 1)):
        recorder.publish(topic, json.dumps({"online": online, "timestamp": at_ms}), 1)
    await asyncio.sleep(0.5)
    scene.before_host = [message for message in scene.heard if message.kind != "STATE"]
    assert len(scene.heard) >= 3
    scene.heard.clear()
    scene.started_ms = time.time_ns() // 1_000_000
    async with GatewayService(settings, api_key="ingest-key") as gateway:
        await eventually(lambda: gateway.counters.stored > 3 * UNITS, "births and data are stored")
        recorder.publish(topics.telemetry("370202", "370202-e00001", "m1"), json.dumps(motor()).encode(), 1)
        latest = next(state for state in reversed(scene.states()) if state["online"])
        scene.contradicted_at = len(scene.heard)
        recorder.publish(STATE, json.dumps(latest | {"online": False}), qos=1, retain=True)
        deaths = len(scene.of("NDEATH"))
        await eventually(lambda: len(scene.of("NDEATH")) >= deaths + len(scene.nodes), "the nodes leave")
        births = len(scene.of("DBIRTH"))
        await eventually(lambda: len(scene.of("DBIRTH")) >= births + UNITS, "the nodes are back")
        scene.rebirth_at = len(scene.heard)
        group, node = scene.nodes[0].split("/")
        command = Metric(name="Node Control/Rebirth", datatype=DataType.BOOLEAN, value=True)
        recorder.publish(
            topics.sparkplug("NCMD", group, node), sparkplug.encode(Payload(1, None, [command])), 0
        )
        await eventually(
            lambda: any(m.kind == "NBIRTH" and node in m.topic for m in scene.heard[scene.rebirth_at :]),
            "born again",
        )
        before = gateway.counters.stored
        await eventually(lambda: gateway.counters.stored > before + 3 * UNITS, "data continues")
        # Somebody takes the connection of a node: the broker publishes its will, and the node connects again.
        scene.taken_at = len(scene.heard)
        thief = paho.Client(paho.CallbackAPIVersion.VERSION2, node, protocol=paho.MQTTv5)
        thief.connect(broker.host, broker.port, OTHERS_S)

        def since_taken(kind: str) -> bool:
            return any(m.kind == kind and node in m.topic for m in scene.heard[scene.taken_at :])

        await eventually(lambda: since_taken("NDEATH"), "the will")
        await eventually(lambda: since_taken("NBIRTH"), "the node is back")
        paho_clients.close(thief)
        # Data of an edge node that nothing is known of makes the host ask for its birth.
        stranger = Payload(1_700_000_000_000, 1, [Metric(alias=7, value=1.0)])
        recorder.publish(
            topics.sparkplug("DDATA", "370202", "370202-e00001", "m1"), sparkplug.encode(stranger), 0
        )
        await eventually(
            lambda: any(m.kind == "NCMD" and "370202-e00001" in m.topic for m in scene.heard),
            "a rebirth request",
        )
        scene.stopped_ms = time.time_ns() // 1_000_000
        scene.stored = gateway.counters.stored
    await eventually(lambda: not scene.states()[-1]["online"], "STATE is offline")
    stop.set()
    await running
    async with open_store(settings.store) as store:
        row = await store.latest("motor", {"unit": "m1"})
        scene.acknowledged_stored = row is not None

    for client in (HOST_CLIENT, node):
        flags: list[bool] = []
        again = paho.Client(paho.CallbackAPIVersion.VERSION2, client, protocol=paho.MQTTv5)
        again.on_connect = lambda _c, _d, connected, *_, found=flags: found.append(connected.session_present)
        again.connect(broker.host, broker.port, OTHERS_S, clean_start=False)
        again.loop_start()
        await eventually_async(lambda found=flags: _true(lambda: bool(found)), "connected")  # type: ignore[misc]
        scene.sessions_kept[client] = flags[0]
        paho_clients.close(again)


async def _true(ask: Callable[[], bool]) -> bool:
    return ask()


@pytest.fixture(scope="module")
def scene(mosquitto_program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("conformance")
    broker = Mosquitto(mosquitto_program, folder)
    with (folder / "mosquitto.conf").open("a") as config:
        config.write("log_type all\n")
    broker.start()
    platform = FakePlatform()
    try:
        yield play(broker, folder, platform)
    finally:
        platform.stop()
        broker.kill()


# -- the host application


def test_tck_id_message_flow_phid_sparkplug_clean_session_50(scene: Scene) -> None:
    [connection] = scene.connections(HOST_CLIENT)[:1]
    assert "(p5, c1," in connection
    assert not scene.sessions_kept[HOST_CLIENT]


def test_tck_id_host_topic_phid_death_required(scene: Scene) -> None:
    assert "Will message specified" in scene.will(HOST_CLIENT)[0]


def test_tck_id_host_topic_phid_death_topic(scene: Scene) -> None:
    assert STATE in scene.will(HOST_CLIENT)[0]


def test_tck_id_host_topic_phid_death_qos(scene: Scene) -> None:
    assert "q1)" in scene.will(HOST_CLIENT)[0]


def test_tck_id_host_topic_phid_death_retain(scene: Scene) -> None:
    assert "(r1," in scene.will(HOST_CLIENT)[0]


def test_tck_id_host_topic_phid_birth_sub_required(scene: Scene) -> None:
    """Also message-flow-phid-sparkplug-subscription: subscribed before its own STATE is published."""
    events = scene.events(HOST_CLIENT)
    subscribed = next(n for n, line in enumerate(events) if "Received SUBSCRIBE" in line)
    published = next(n for n, line in enumerate(events) if "Received PUBLISH" in line)
    assert subscribed < published
    # The broker logs what was granted; STATE topics are under it.
    assert any(line.endswith(f"{HOST_CLIENT} 1 spBv1.0/#") for line in scene.log), events


def test_tck_id_host_topic_phid_birth_message(scene: Scene) -> None:
    """Also host-topic-phid-birth-topic: the first thing that it publishes."""
    first = next(line for line in scene.log if f"Received PUBLISH from {HOST_CLIENT} " in line)
    assert f"'{STATE}'" in first


def test_tck_id_host_topic_phid_birth_qos_and_retain(scene: Scene) -> None:
    """host-topic-phid-birth-qos, host-topic-phid-birth-retain."""
    said = scene.published(HOST_CLIENT, "STATE")
    assert said
    assert all("q1, r1" in flags for flags in said)


def test_tck_id_host_topic_phid_birth_payload(scene: Scene) -> None:
    first = scene.states()[0]
    assert first["online"] is True
    assert isinstance(first["timestamp"], int)
    assert set(first) == {"online", "timestamp"}


def test_tck_id_host_topic_phid_birth_payload_timestamp(scene: Scene) -> None:
    """The will's: when the connection was asked for. Also host-topic-phid-death-payload-timestamp-connect."""
    first = scene.of("STATE")[0]
    assert scene.started_ms <= json.loads(first.payload)["timestamp"] <= first.at_ms


def test_tck_id_message_flow_hid_sparkplug_state_message_delivered(scene: Scene) -> None:
    after = [json.loads(m.payload) for m in scene.heard[scene.contradicted_at :] if m.kind == "STATE"]
    assert after[0]["online"] is False
    assert {"online": True, "timestamp": after[0]["timestamp"]} in after


def test_tck_id_host_topic_phid_death_payload_timestamp_disconnect_clean(scene: Scene) -> None:
    last = scene.states()[-1]
    assert last["online"] is False
    assert last["timestamp"] >= scene.stopped_ms


def test_tck_id_operational_behavior_host_application_disconnect_intentional(scene: Scene) -> None:
    events = scene.events(HOST_CLIENT)
    death = max(n for n, line in enumerate(events) if f"'{STATE}'" in line and "Received PUBLISH" in line)
    assert any("Received DISCONNECT" in line for line in events[death:])


def test_tck_id_payloads_ncmd_qos_retain_and_seq(scene: Scene) -> None:
    """payloads-ncmd-qos, payloads-ncmd-retain, payloads-ncmd-seq, payloads-ncmd-timestamp; and
    operational-behavior-data-commands-rebirth-name-verb, -value: what a rebirth request looks like."""
    flags = scene.published(HOST_CLIENT, "NCMD")
    assert flags
    assert all("q0, r0" in each for each in flags)
    command = next(m for m in scene.of("NCMD") if "370202-e00001" in m.topic)
    assert command.decoded.seq is None
    assert command.decoded.ts_ms is not None
    assert command.metric("Node Control/Rebirth").value is True


def test_both_ways_are_taken_at_once(scene: Scene) -> None:
    """Messages at QoS 0, and those published at QoS 1 meanwhile."""
    assert scene.stored > 6 * UNITS
    assert scene.acknowledged_stored


# -- the edge nodes


def test_tck_id_message_flow_edge_node_birth_publish_phid_wait(scene: Scene) -> None:
    """Also -phid-wait-id, -phid-wait-online and -phid-wait-timestamp: another host that is online, their host
    offline, and an older STATE that calls it online make no node publish."""
    assert scene.before_host == []


def test_tck_id_message_flow_edge_node_birth_publish_connect(scene: Scene) -> None:
    for node in scene.nodes:
        name = node.split("/")[1]
        connected = next(n for n, line in enumerate(scene.log) if f" as {name} (" in line)
        published = next(n for n, line in enumerate(scene.log) if f"Received PUBLISH from {name} " in line)
        assert connected < published


def test_tck_id_message_flow_device_birth_publish_dbirth_match_edge_node_topic(scene: Scene) -> None:
    born: set[tuple[str, str]] = set()
    for message in scene.heard:
        if message.kind in ("NBIRTH", "DBIRTH"):
            _, group, kind, node, *_ = message.topic.split("/")
            if kind == "NBIRTH":
                born.add((group, node))
            assert (group, node) in born
    assert {f"{group}/{node}" for group, node in born} == set(scene.nodes)


def test_tck_id_topics_nbirth_bdseq_matching(scene: Scene) -> None:
    """Also payloads-nbirth-bdseq-repeat, message-flow-edge-node-birth-publish-nbirth-payload-bdSeq,
    -will-message-payload, -will-message-payload-bdSeq, and
    operational-behavior-data-commands-rebirth-action-3: the will that the broker publishes has the number of
    the births before it, of which the last one was a rebirth."""
    node = scene.nodes[0]
    name = node.split("/")[1]
    assert len(scene.of("NDEATH", node)) == len(scene.published(name, "NDEATH")) + 1  # one is the broker's
    before, after = scene.heard[: scene.taken_at], scene.heard[scene.taken_at :]
    births = [m.metric("bdSeq").value for m in before if m.kind == "NBIRTH" and name in m.topic]
    will = next(m for m in after if m.kind == "NDEATH" and name in m.topic)
    bd_seq = will.metric("bdSeq")
    assert (bd_seq.datatype, bd_seq.value, will.decoded.seq) == (DataType.INT64, births[-1], None)
    assert births[-1] == births[-2]
    again = next(m for m in after if m.kind == "NBIRTH" and name in m.topic)
    assert isinstance(bd_seq.value, int)
    assert again.metric("bdSeq").value == (bd_seq.value + 1) % 256


def test_tck_id_principles_persistence_clean_session_50(scene: Scene) -> None:
    for node in scene.nodes:
        assert all("(p5, c1," in line for line in scene.connections(node.split("/")[1]))
    assert not scene.sessions_kept[scene.nodes[0].split("/")[1]]


def test_tck_id_message_flow_edge_node_birth_publish_will_message(scene: Scene) -> None:
    """Also -will-message-topic, -will-message-qos, -will-message-will-retained."""
    for node in scene.nodes:
        group, name = node.split("/")
        wills = scene.will(name)
        assert wills
        for will in wills:
            assert "(r0, q1)" in will
            assert topics.sparkplug("NDEATH", group, name) in will


def test_tck_id_message_flow_edge_node_ncmd_subscribe(scene: Scene) -> None:
    for node in scene.nodes:
        group, name = node.split("/")
        assert any(f"{topics.sparkplug('NCMD', group, name)} (QoS 1)" in line for line in scene.log)


@pytest.mark.parametrize("kind", ["NBIRTH", "DBIRTH", "NDATA", "DDATA"])
def test_tck_id_payloads_qos_and_retain(scene: Scene, kind: str) -> None:
    """payloads-nbirth-qos, payloads-nbirth-retain, payloads-dbirth-qos, payloads-dbirth-retain,
    payloads-ndata-qos, payloads-ndata-retain, payloads-ddata-qos, payloads-ddata-retain."""
    for node in scene.nodes:
        flags = scene.published(node.split("/")[1], kind)
        assert flags
        assert all("q0, r0" in each for each in flags)


def test_tck_id_payloads_nbirth_seq(scene: Scene) -> None:
    assert scene.of("NBIRTH")
    assert all(message.decoded.seq == 0 for message in scene.of("NBIRTH"))


def test_tck_id_payloads_nbirth_bdseq_and_rebirth_req(scene: Scene) -> None:
    """payloads-nbirth-bdseq, payloads-nbirth-rebirth-req."""
    for message in scene.of("NBIRTH"):
        bd_seq = message.metric("bdSeq")
        assert (bd_seq.datatype, message.metric("Node Control/Rebirth").value) == (DataType.INT64, False)
        assert isinstance(bd_seq.value, int)
        assert 0 <= bd_seq.value <= 255


def test_tck_id_payloads_ndeath_bdseq(scene: Scene) -> None:
    """Also payloads-ndeath-seq, topics-ndeath-payload: the number of its birth, and nothing else."""
    for node in scene.nodes:
        last: Any = None
        for message in scene.heard:
            if node.split("/")[1] not in message.topic:
                continue
            if message.kind == "NBIRTH":
                last = message.metric("bdSeq").value
            elif message.kind == "NDEATH":
                assert [metric.name for metric in message.decoded.metrics] == ["bdSeq"]
                assert message.decoded.seq is None
                assert last is None or message.metric("bdSeq").value == last
                last = None  # the next connection may end before it had a birth


def test_tck_id_payloads_sequence_num_incrementing(scene: Scene) -> None:
    """Also payloads-dbirth-seq-inc, payloads-ddata-seq-inc, and payloads-dbirth-order: births before data."""
    for node in scene.nodes:
        expected: int | None = None
        born: set[str] = set()
        for message in scene.heard:
            counted = ("NBIRTH", "DBIRTH", "DDATA", "NDATA")
            if node.split("/")[1] not in message.topic or message.kind not in counted:
                continue
            if message.kind == "NBIRTH":
                expected, born = 0, set()
            assert message.decoded.seq == expected
            assert expected is not None
            expected = (expected + 1) % 256
            device = message.topic.split("/")[-1]
            if message.kind == "DBIRTH":
                born.add(device)
            elif message.kind == "DDATA":
                assert device in born


def test_tck_id_payloads_timestamps(scene: Scene) -> None:
    """payloads-nbirth-timestamp, payloads-dbirth-timestamp, payloads-ddata-timestamp."""
    for kind in ("NBIRTH", "DBIRTH", "DDATA"):
        assert all(message.decoded.ts_ms is not None for message in scene.of(kind))


def test_tck_id_topics_dbirth_metrics(scene: Scene) -> None:
    for message in scene.of("DBIRTH"):
        for metric in message.decoded.metrics:
            assert metric.name
            assert metric.datatype
            assert metric.value is not None


def test_tck_id_operational_behavior_edge_node_termination_host_offline(scene: Scene) -> None:
    """Also message-flow-edge-node-birth-publish-phid-offline and
    operational-behavior-edge-node-intentional-disconnect-ndeath: it says its death, leaves and comes back."""
    for node in scene.nodes:
        name = node.split("/")[1]
        after = [m.kind for m in scene.heard[scene.contradicted_at :] if name in m.topic]
        assert "NBIRTH" in after[after.index("NDEATH") :]
        assert len(scene.connections(name)) >= 2


def test_tck_id_operational_behavior_data_commands_rebirth_action(scene: Scene) -> None:
    """operational-behavior-data-commands-rebirth-action-1 to -3: it stops sending data, says the birth of the
    node and of every device, with the bdSeq of the connection."""
    name = scene.nodes[0].split("/")[1]
    before = [m for m in scene.heard[: scene.rebirth_at] if m.kind == "NBIRTH" and name in m.topic][-1]
    after = [
        m
        for m in scene.heard[scene.rebirth_at :]
        if name in m.topic and m.kind in ("NBIRTH", "DBIRTH", "DDATA")
    ]
    start = next(n for n, m in enumerate(after) if m.kind == "NBIRTH")
    assert after[start].metric("bdSeq").value == before.metric("bdSeq").value
    devices = {m.topic.split("/")[-1] for m in scene.of("DBIRTH") if name in m.topic}
    reborn = [
        m.topic.split("/")[-1] for m in after[start + 1 : start + 1 + len(devices)] if m.kind == "DBIRTH"
    ]
    assert set(reborn) == devices
