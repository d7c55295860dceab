"""Random sequences of messages, as a province of odd and broken equipment might publish them: of all classes,
users' own among them, JSON and Sparkplug, live and historical, with births, deaths, new aliases, skipped,
doubled and retained messages, foreign topics and bytes that mean nothing. Seeded by the caller.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field

import column_fuzz
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.catalogue.equipment import EquipmentClass
from qilu_contract.readings import MIN_TIME_MS
from qilu_contract.wire import marks, sparkplug, topics
from qilu_contract.wire.sparkplug import DataType, Metric, Packed, Payload
from scripted_broker import Delivery

T0 = 1_700_000_000_000
NOW_MS = 1_900_000_000_000
"""Time of the run's clock, which is stopped: the limit for times in the future does not depend on the wall
clock."""
LATEST_MS = NOW_MS + 600_000
COUNTIES = ("370202", "370102", "371702")
PER_NODE = 5
STRANGE_CLASS = "loom_of_nobody"
"""Of a unit whose class this gateway does not have."""
CLASSES = """\
name: fuzz_press
title: Press
title_zh: 压力机
signals:
  - {name: strokes, unit: "1", type: int, range: [0, 1000000000], interval: 10s, value: {constant: 5}}
  - {name: running, unit: "1", type: bool, range: [0, 1], interval: 10s, value: {constant: 1}}
  - {name: level, unit: mm, range: [0, 400], resolution: 0.001, interval: 10s, value: {constant: 80}}
  - {name: load, unit: kN, range: [-50, 900], resolution: 1, interval: 10s, value: {constant: 80}}
  - {name: open, unit: "1", type: bool, range: [0, 1], interval: 60s, value: {constant: 0}}
templates:
  - {metric: Drive, definition: fuzz_drive, members: {Level: level, Motion/Strokes: strokes}}
data_sets:
  - {metric: Log, time: t, columns: {Load: load, Open: open}}
---
name: fuzz_state
title: Switch
title_zh: 开关
signals:
  - {name: closed, unit: "1", type: bool, range: [0, 1], interval: 10s, value: {constant: 1}}
---
name: fuzz_count
title: Counter
title_zh: 计数器
signals:
  - {name: pieces, unit: "1", type: int, range: [0, 1000000000000], interval: 10s, value: {constant: 5}}
"""
"""The user's own, one document for each file."""


@dataclass
class Unit:
    id: str
    class_: EquipmentClass
    node: Node
    device: column_fuzz.Device
    """Of its present birth."""
    speaks: str
    steps: int = 0


@dataclass
class Node:
    county: str
    id: str
    history: bool = False
    bd_seq: int = 0
    seq: int = 0
    born: bool = False
    units: list[Unit] = field(default_factory=list)

    def next_seq(self) -> int:
        self.seq = (self.seq + 1) % 256
        return self.seq

    def topic(self, kind: topics.MessageType, unit: str | None = None) -> str:
        text = topics.sparkplug(kind, self.county, self.id, unit)
        return topics.HISTORY + text if self.history else text


def with_seq(body: bytes, seq: int) -> bytes:
    """A payload as most encoders write it, with another sequence number; any other as it is."""
    if body[-2:-1] == b"\x18" and body[-1] < 0x80:
        body = body[:-2]
    elif body[-3:-2] == b"\x18" and body[-2] >= 0x80 and body[-1] == 1:
        body = body[:-3]
    else:
        return body
    return body + (bytes((0x18, seq)) if seq < 128 else bytes((0x18, seq & 0x7F | 0x80, 1)))


class Province:
    """`units` are to be registered; `chunks` yields messages, some at a time."""

    def __init__(self, seed: int, units: int) -> None:
        self.chance = random.Random(seed)
        self.units: list[Unit] = []
        self.nodes: list[Node] = []
        classes = list(CATALOGUE.values())
        for number in range(units):
            if number % PER_NODE == 0:
                county = COUNTIES[number // PER_NODE % len(COUNTIES)]
                node = Node(county, f"{county}-e{number // PER_NODE:05d}")
                node.history = self.chance.random() < 0.15
                self.nodes.append(node)
            class_ = classes[number % len(classes)]
            device = column_fuzz.Device(self.chance, class_, f"d{number}")
            speaks = self.chance.choice(["json", "sparkplug", "both", "sparkplug"])
            if node.history:  # it has a separate session: there is no order between the two
                speaks = "sparkplug"
            unit = Unit(f"{node.county}-u{number:05d}", class_, node, device, speaks)
            node.units.append(unit)
            self.units.append(unit)
        self.stranger = Unit(
            f"{COUNTIES[0]}-u-strange", CATALOGUE["motor"], self.nodes[0], self.units[0].device, "json"
        )

    def chunks(self, count: int) -> Iterator[list[Delivery]]:
        """So many messages, or a few more."""
        made: list[Delivery] = list(self.all_births())
        while count > 0:
            size = self.chance.choice([1, 20, 60, 400, 900, 900])
            while len(made) < size:
                made += self._some()
            # Now and then two change places: of one node they are out of order then.
            for _ in range(len(made) // 100):
                at = self.chance.randrange(len(made) - 1)
                made[at], made[at + 1] = made[at + 1], made[at]
            yield made[:900]
            count -= len(made[:900])
            made = made[900:]

    def all_births(self) -> Iterator[Delivery]:
        for node in self.nodes:
            if self.chance.random() < 0.9:
                yield from self._birth(node)

    def _some(self) -> list[Delivery]:
        chance = self.chance
        unit = chance.choice(self.units)
        dice = chance.random()
        if dice < 0.93:
            return [self._flagged(self._data(unit))]
        if dice < 0.95:
            return [self._odd(unit)]
        if dice < 0.959:
            return [self._device_birth(unit)]
        if dice < 0.961:
            return [self._death(unit)]
        if dice < 0.965:
            return list(self._birth(unit.node))
        if dice < 0.966:
            return [self._node_death(unit.node)]
        if dice < 0.98:
            return [self._of_node(unit.node)]
        if dice < 0.985:
            unit.node.next_seq()  # a message that nobody ever sees
            return []
        data = self._data(unit)
        return [data, data] if dice < 0.99 else [data, self._data(unit, same_time=True)]

    def _flagged(self, message: Delivery) -> Delivery:
        dice = self.chance.random()
        if dice < 0.01:
            return message._replace(dup=True)
        if dice < 0.02:
            return message._replace(retain=True)
        return message._replace(qos=0) if dice < 0.03 else message

    def _time(self, unit: Unit) -> int:
        unit.steps += 1
        dice = self.chance.random()
        if dice < 0.002:
            return self.chance.choice([LATEST_MS, LATEST_MS + 1, MIN_TIME_MS, MIN_TIME_MS - 1])
        if dice < 0.01:
            unit.steps = max(0, unit.steps - self.chance.randrange(20))
        return T0 + unit.steps * 10_000

    def _data(self, unit: Unit, *, same_time: bool = False) -> Delivery:
        chance = self.chance
        ts_ms = T0 + unit.steps * 10_000 if same_time else self._time(unit)
        by_json = unit.speaks == "json" or (unit.speaks == "both" and chance.random() < 0.5)
        if by_json:
            body = column_fuzz.json_body(chance, unit.class_, ts_ms)
            topic, session = topics.telemetry(unit.node.county, unit.node.id, unit.id), ""
        else:
            body = with_seq(unit.device.data(chance, ts_ms), unit.node.next_seq())
            topic, session = unit.node.topic("DDATA", unit.id), "-history" if unit.node.history else ""
        if chance.random() < 0.01:
            body = column_fuzz.mutated(chance, body)
        return Delivery(topic.encode(), body, session=session)

    def _odd(self, unit: Unit) -> Delivery:
        """From strangers, in others' names, on malformed topics, too large."""
        chance, data = self.chance, self._data(unit)
        topic = data.topic.decode()
        match chance.randrange(8):
            case 0:
                other = chance.choice(self.nodes)
                topic = topic.replace(unit.node.id, other.id)
            case 1:
                topic = topic.replace(unit.node.county, chance.choice(COUNTIES), 1)
            case 2:
                topic = topic.replace(unit.id, f"nobody-{chance.randrange(3)}")
            case 3:
                at = chance.randrange(len(topic) - 8) + 8
                topic = topic[:at] + chance.choice(["/", "A", "", "é", "-", "_", " "]) + topic[at + 1 :]
            case 4:
                large = [{"ts": T0 + n, "x": 1} for n in range(chance.choice([1, 2000]))]
                return Delivery(data.topic, json.dumps(large).encode().ljust(40_000), session=data.session)
            case 5:
                body = column_fuzz.json_body(chance, self.stranger.class_, self._time(self.stranger))
                node = self.stranger.node
                topic = topics.telemetry(node.county, node.id, self.stranger.id)
                return Delivery(topic.encode(), body)
            case 6:
                kind = chance.choice(["NCMD", "DCMD", "NDATA", "DDATA", "STATE"])
                topic = topic.replace("DDATA", kind)
            case _:
                topic = chance.choice([topics.CLOCK, topics.state(), topics.state("another"), "qilu/v1/x"])
                body = chance.choice([b"", b"[", b"null", b'{"now":-1,"speed":1}', b'{"now":1}'])
                return Delivery(topic.encode(), body)
        return data._replace(topic=topic.encode())

    def _birth(self, node: Node) -> Iterator[Delivery]:
        """Of a node and most of its units, mostly as they were before."""
        chance = self.chance
        if chance.random() < 0.5:
            node.bd_seq = (node.bd_seq + 1) % 256
        node.seq, node.born = 0, True
        metrics = [
            Metric("bdSeq", None, T0, DataType.INT64, node.bd_seq),
            Metric("Node Control/Rebirth", None, T0, DataType.BOOLEAN, False),
            *marks.metrics(marks.Mark(0), T0),
        ]
        if chance.random() < 0.05:
            metrics.append(Metric("temperature", 7, T0, DataType.FLOAT, 1.0))
        session = "-history" if node.history else ""
        body = sparkplug.encode(Payload(T0, 0, metrics))
        yield Delivery(node.topic("NBIRTH").encode(), body, session=session)
        for unit in node.units:
            if unit.speaks != "json" and chance.random() < 0.95:
                yield self._device_birth(unit)

    def _device_birth(self, unit: Unit) -> Delivery:
        chance = self.chance
        if chance.random() < 0.2:
            unit.device = column_fuzz.Device(chance, unit.class_, unit.id)
        ts_ms = T0 + unit.steps * 10_000
        body = unit.device.birth(ts_ms)
        if chance.random() < 0.5:
            body = self._plain_birth(unit, ts_ms)
        elif chance.random() < 0.6:  # with values
            payload = sparkplug.decode(body)
            metrics = [
                metric._replace(value=column_fuzz.value(chance, unit.class_.signal(metric.name)))
                if metric.name in {signal.name for signal in unit.class_.signals}
                and metric.datatype in (DataType.FLOAT, DataType.DOUBLE)
                else metric
                for metric in payload.metrics
            ]
            good = [m for m in metrics if m.value is None or type(m.value) in (int, float, Packed)]
            good = [m if type(m.value) is not int else m._replace(value=1.5) for m in good]
            body = sparkplug.encode(Payload(payload.ts_ms, payload.seq, good))
        if chance.random() < 0.02:
            body = column_fuzz.mutated(chance, body)
        topic = unit.node.topic("DBIRTH", unit.id)
        session = "-history" if unit.node.history else ""
        retain = chance.random() < 0.03
        return Delivery(topic.encode(), with_seq(body, unit.node.next_seq()), retain=retain, session=session)

    def _plain_birth(self, unit: Unit, ts_ms: int) -> bytes:
        """As our own equipment says it, mostly."""
        chance, device = self.chance, unit.device
        plain: dict[int, bool | str] = {DataType.BOOLEAN: True, DataType.STRING: "odd"}
        metrics = []
        for signal in unit.class_.signals:
            datatype = device.types[signal.name]
            value = plain.get(datatype, chance.randint(1, 100))
            if datatype in (DataType.FLOAT, DataType.DOUBLE):
                value = signal.nominal if chance.random() < 0.99 else signal.high * 2 + 1
            at_ms = ts_ms - 10_000 * (chance.random() < 0.2)
            given = {"engUnit": signal.unit if chance.random() < 0.998 else "furlong"}
            metrics.append(Metric(signal.name, device.aliases[signal.name], at_ms, datatype, value, given))
        metrics = device.folded(metrics, birth=True)
        metrics.sort(key=lambda metric: metric.ts_ms or 0)
        said_ms = chance.choice([*[ts_ms] * 7, ts_ms + 5, None, LATEST_MS + 10**7])
        return sparkplug.encode(Payload(said_ms, 0, metrics))

    def _death(self, unit: Unit) -> Delivery:
        node = unit.node
        body = sparkplug.encode(Payload(T0, node.next_seq(), []))
        session = "-history" if node.history else ""
        retain = self.chance.random() < 0.05
        return Delivery(node.topic("DDEATH", unit.id).encode(), body, retain=retain, session=session)

    def _node_death(self, node: Node) -> Delivery:
        bd_seq = self.chance.choice([node.bd_seq, node.bd_seq, (node.bd_seq - 1) % 256])
        metrics = [Metric("bdSeq", None, None, DataType.INT64, bd_seq)]
        body = sparkplug.encode(Payload(T0, None, metrics if self.chance.random() < 0.9 else []))
        session = "-history" if node.history else ""
        return Delivery(node.topic("NDEATH").encode(), body, session=session)

    def _of_node(self, node: Node) -> Delivery:
        """A mark, or signals that a node cannot have."""
        chance = self.chance
        metrics = marks.metrics(marks.Mark(chance.randrange(1000)), T0)
        if chance.random() < 0.3:
            metrics.append(Metric("temperature", None, T0, DataType.FLOAT, 1.0))
        body = sparkplug.encode(Payload(T0, node.next_seq(), metrics), datatypes=chance.random() < 0.5)
        session = "-history" if node.history else ""
        return Delivery(node.topic("NDATA").encode(), body, session=session)
