"""100,000 random valid payloads of another project's encoder (Eclipse Tahu's) are stored as they were meant.

The expectation comes from what was meant, never from the bytes: which numbers, of which signals, when. Edge
nodes and devices, births and rebirths, deaths, all datatypes, aliases and names, with and without datatypes,
nulls, own times, quality, compression.
"""

from __future__ import annotations

import gzip
import random
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from empty_state import EmptyState
from qilu_contract.catalogue.classes import CATALOGUE, Signal
from qilu_contract.readings import Reading
from qilu_contract.wire.sparkplug_columns import SparkplugColumns, integers
from qilu_gateway.read import checking
from qilu_gateway.read.births import Births
from qilu_gateway.read.checking import check_all, check_columns
from qilu_gateway.read.decoding import Decoder
from sparkplub_b_packets.core import array_packer as packer
from sparkplub_b_packets.core import sparkplug_b as tahu
from sparkplub_b_packets.core import sparkplug_b_pb2 as tahu_pb

PAYLOADS = 100_000
SEED = 20261127
NODES, DEVICES = 5, 8
NOW = 1_800_000_000_000
BATCH = 500
Type = tahu.MetricDataType
RANGES = {
    Type.Int8: (-(2**7), 2**7 - 1),
    Type.Int16: (-(2**15), 2**15 - 1),
    Type.Int32: (-(2**31), 2**31 - 1),
    Type.Int64: (-(2**63), 2**63 - 1),
    Type.UInt8: (0, 2**8 - 1),
    Type.UInt16: (0, 2**16 - 1),
    Type.UInt32: (0, 2**32 - 1),
    Type.UInt64: (0, 2**63 - 1),
}
FLOATS = (Type.Float, Type.Double)
# Properties of a device in its birth: one of every type that no signal has.
PROPERTIES = {
    Type.String: "Jinan 济南",
    Type.Text: "",
    Type.UUID: "8b3b7c1e-0d7f-4b8a-9b55-2f1d6a1f0c11",
    Type.DateTime: 1_700_000_000_000,
    Type.Bytes: b"\x00\xff",
    Type.File: b"PDF",
}
# The encoder knows how to pack these, but forgot their numbers.
ARRAYS = {
    "Int8Array": (packer.convert_to_packed_int8_array, [-1, 2]),
    "Int16Array": (packer.convert_to_packed_int16_array, [-300, 2]),
    "Int32Array": (packer.convert_to_packed_int32_array, [-70_000, 2]),
    "Int64Array": (packer.convert_to_packed_int64_array, [-(2**40), 2]),
    "UInt8Array": (packer.convert_to_packed_uint8_array, [1, 255]),
    "UInt16Array": (packer.convert_to_packed_uint16_array, [1, 65_535]),
    "UInt32Array": (packer.convert_to_packed_uint32_array, [1, 2**32 - 1]),
    "UInt64Array": (packer.convert_to_packed_uint64_array, [1, 2**63]),
    "FloatArray": (packer.convert_to_packed_float_array, [1.5, -2.5]),
    "DoubleArray": (packer.convert_to_packed_double_array, [1.5, -2.5]),
    "BooleanArray": (packer.convert_to_packed_boolean_array, [True, False, True]),
    "StringArray": (packer.convert_to_packed_string_array, ["a", "b"]),
    "DateTimeArray": (packer.convert_to_packed_datetime_array, [1_700_000_000_000]),
}


@dataclass
class Device:
    name: str
    class_name: str
    signals: dict[str, Signal]
    types: dict[str, int] = field(default_factory=dict)
    aliases: dict[str, int] = field(default_factory=dict)
    """Empty when its birth gives none."""


@dataclass
class Node:
    county: str
    name: str
    devices: list[Device]
    bd_seq: int = -1
    seq: int = 0


def number(chance: random.Random, signal: Signal, datatype: int) -> tuple[Any, float | int | bool]:
    """A value as it is sent, and as it is to be stored."""
    if datatype == Type.Boolean:
        value = chance.random() < 0.5
        return value, value
    if datatype in RANGES:
        low, high = RANGES[datatype]
        meant = chance.choice(
            [low, high, 0, 1, -1, -42, chance.randint(low, high), chance.randint(-100, 100)]
        )
        meant = min(max(meant, low), high)
        return meant, float(meant) if signal.type == "float" else meant
    if signal.type == "int":
        whole = chance.randint(-(2**24), 2**24)
        return float(whole), whole
    digits = len(f"{signal.resolution:.9f}".rstrip("0").partition(".")[2])
    steps = chance.randint(-(2**22), 2**22)
    decimal = float(f"{steps}e-{digits}")  # on the signal's grid, as a person would write it
    return decimal, decimal + 0.0


class Sender:
    """Makes messages, each with what is to be stored of it: values by signal, by time."""

    def __init__(self) -> None:
        self.chance = random.Random(SEED)
        self.now_ms = 1_700_000_000_000
        classes = ["trial", *list(CATALOGUE)[:3]]
        self.nodes = [
            Node(
                "370202",
                f"works-{n}",
                [
                    Device(
                        f"unit-{n}-{d}",
                        classes[d % len(classes)],
                        dict(checking.SIGNALS[classes[d % len(classes)]]),
                    )
                    for d in range(DEVICES)
                ],
            )
            for n in range(NODES)
        ]

    def messages(self) -> Iterator[tuple[str, bytes, Device | None, dict[int, dict[str, Any]]]]:
        for node in self.nodes:
            yield from self.start(node)
        while True:
            node = self.chance.choice(self.nodes)
            device = self.chance.choice(node.devices)
            dice = self.chance.random()
            if dice < 0.001:
                yield from self.start(node)
            elif dice < 0.02:
                yield self.message(node, device, "DBIRTH", *self.birth(device))
            else:
                yield self.message(node, device, "DDATA", *self.data(device))

    def start(self, node: Node) -> Iterator[tuple[str, bytes, Device | None, dict[int, dict[str, Any]]]]:
        """An edge node connects: the death of the connection before, its birth, its devices'."""
        if node.bd_seq >= 0:
            will = tahu_pb.Payload()
            tahu.addMetric(will, "bdSeq", None, Type.Int64, node.bd_seq)
            yield f"spBv1.0/{node.county}/NDEATH/{node.name}", will.SerializeToString(), None, {}
        node.bd_seq, node.seq = node.bd_seq + 1, 255
        birth = tahu_pb.Payload(timestamp=self.now_ms)
        tahu.addMetric(birth, "bdSeq", None, Type.Int64, node.bd_seq, self.now_ms)
        tahu.addMetric(birth, "Node Control/Rebirth", None, Type.Boolean, False, self.now_ms)
        definition = tahu.initTemplateMetric(birth, "_types_/Motor", None, None)
        tahu.addMetric(definition, "power", None, Type.Float, 0.0)
        yield self.message(node, None, "NBIRTH", birth, {})
        for device in node.devices:
            yield self.message(node, device, "DBIRTH", *self.birth(device))

    def message(
        self, node: Node, device: Device | None, kind: str, payload: Any, stored: dict[int, dict[str, Any]]
    ) -> tuple[str, bytes, Device | None, dict[int, dict[str, Any]]]:
        node.seq = (node.seq + 1) % 256
        payload.seq = node.seq
        body = payload.SerializeToString()
        if self.chance.random() < 0.03:
            algorithm = self.chance.choice(["GZIP", "DEFLATE", None])
            outer = tahu_pb.Payload(uuid="SPBV1.0_COMPRESSED")
            outer.body = gzip.compress(body, 1) if algorithm == "GZIP" else zlib.compress(body, 1)
            if algorithm is not None:
                tahu.addMetric(outer, "algorithm", None, Type.String, algorithm)
            body = outer.SerializeToString()
        topic = f"spBv1.0/{node.county}/{kind}/{node.name}" + (f"/{device.name}" if device else "")
        return topic, body, device, stored

    def birth(self, device: Device) -> tuple[Any, dict[int, dict[str, Any]]]:
        chance = self.chance
        self.now_ms += chance.randint(1, 50)
        payload = tahu_pb.Payload(timestamp=self.now_ms)
        for name, signal in device.signals.items():
            kinds = {"bool": [Type.Boolean], "int": [*RANGES, *FLOATS], "float": [*RANGES, *FLOATS, *FLOATS]}
            device.types[name] = chance.choice(kinds[signal.type])
        numbers = chance.sample(range(chance.choice([100, 2**40])), len(device.signals) + 1)
        device.aliases = dict(zip(device.signals, numbers, strict=False)) if chance.random() < 0.7 else {}
        stored: dict[int, dict[str, Any]] = {}
        for name in chance.sample(list(device.signals), len(device.signals)):
            self.add(payload, device, name, device.aliases.get(name), stored, typed=True)
        kind = chance.choice([*PROPERTIES, *ARRAYS])
        if isinstance(kind, int):
            tahu.addMetric(payload, "Properties/Maker", numbers[-1], kind, PROPERTIES[kind], self.now_ms)
        else:
            pack, content = ARRAYS[kind]
            number_ = tahu_pb.DataType.Value(kind)
            payload.metrics.add(name="Properties/Curve", datatype=number_, bytes_value=pack(content))
        return payload, stored

    def data(self, device: Device) -> tuple[Any, dict[int, dict[str, Any]]]:
        chance = self.chance
        self.now_ms += chance.randint(1, 50)
        payload = tahu_pb.Payload(timestamp=self.now_ms)
        stored: dict[int, dict[str, Any]] = {}
        way = chance.choice(["name", "alias", "alias", "both"]) if device.aliases else "name"
        typed = chance.random() < 0.5
        for name in chance.sample(list(device.signals), chance.randint(1, min(4, len(device.signals)))):
            alias = device.aliases[name] if way != "name" else None
            self.add(
                payload, device, None if way == "alias" else name, alias, stored, typed=typed, signal=name
            )
        return payload, stored

    def add(
        self,
        payload: Any,
        device: Device,
        name: str | None,
        alias: int | None,
        stored: dict[int, dict[str, Any]],
        *,
        typed: bool,
        signal: str = "",
    ) -> None:
        chance = self.chance
        signal = signal or name or ""
        kind = device.types[signal]
        if chance.random() < 0.05:
            tahu.addNullMetric(payload, name, alias, kind)
            return
        sent, meant = number(chance, device.signals[signal], kind)
        ts_ms = self.now_ms
        own_time = chance.random() < 0.4
        if own_time:
            ts_ms -= chance.choice([0, 1000, chance.randint(0, 10_000)])
        metric = tahu.addMetric(payload, name, alias, kind, sent, ts_ms)
        if kind in (Type.Int8, Type.Int16) and chance.random() < 0.3:
            metric.int_value = sent % 2**32  # as encoders of other languages extend the sign
        if not own_time:
            metric.ClearField("timestamp")
        if not typed:
            metric.ClearField("datatype")
        if chance.random() < 0.05:
            metric.is_historical = True
        if chance.random() < 0.05:
            metric.properties.keys.append("Quality")
            metric.properties.values.add(type=Type.Int32, int_value=192)
        if chance.random() < 0.02:
            metric.is_transient = True
            return
        stored.setdefault(ts_ms, {})[signal] = meant


@dataclass
class Sent:
    """A data message, with what its aliases mean and what is to be stored of it."""

    body: bytes
    class_name: str
    names: dict[int, str]
    types: dict[str, int]
    stored: dict[int, dict[str, Any]]


def compare_columns(columns: SparkplugColumns, sent: list[Sent]) -> int:
    """Columns hold what was sent; returns the number of messages decoded by column."""
    decoded = columns.decode([each.body for each in sent])
    found: dict[int, dict[int, dict[str, Any]]] = {}
    odd: set[int] = set()
    for group in decoded.groups:
        for row, of in enumerate(group.of.tolist()):
            each, values = sent[of], group.values[row : row + 1].copy()
            names = tuple([each.names[int(group.first[row]) + step] for step in group.metrics.steps])
            for column, type_ in enumerate(group.metrics.types):
                if type_ not in (*FLOATS, Type.Boolean):
                    numbers, understood = integers(values[:, column], type_ or each.types[names[column]])
                    values[:, column] = numbers
                    odd |= set() if understood.all() else {of}
            bools = tuple([type_ == Type.Boolean for type_ in group.metrics.types])
            ts_ms = group.ts_ms[row : row + 1]
            checked = check_columns(each.class_name, names, ts_ms, values, NOW, bools)
            odd |= set() if checked.good[0] else {of}
            found.setdefault(of, {})[int(ts_ms[0])] = dict(
                zip(names, checked.values[0].tolist(), strict=True)
            )
    for of, readings in found.items():
        if of not in odd:
            assert readings == sent[of].stored, (sent[of], readings)
    return len(found.keys() - odd)


def test_what_another_encoder_sends_is_stored_as_it_was_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    speed = CATALOGUE["motor"].signal("speed")
    trial = {
        "count": replace(speed, name="count", type="int"),
        "running": replace(speed, name="running", type="bool"),
        "level": replace(speed, name="level", resolution=0.001),
        "load": replace(speed, name="load", resolution=1.0),
    }
    monkeypatch.setitem(checking.SIGNALS, "trial", trial)  # type: ignore[arg-type]
    births = Births(EmptyState())  # type: ignore[arg-type]
    decoder = Decoder(births, 256 * 1024)
    readings: dict[str, list[tuple[Reading, dict[str, Any]]]] = {}
    columns, sent = SparkplugColumns(), list[Sent]()
    checked = by_column = 0
    for place, (topic, body, device, stored) in enumerate(Sender().messages()):
        if place == PAYLOADS:
            break
        decoded = decoder.decode(topic, body, dup=False)
        assert not decoded.refused, (topic, decoded.refused[0].detail, body.hex())
        assert not any((decoded.gap, decoded.rebirth, decoded.ignored_death)), topic
        if decoded.birth is not None:
            births.saved(decoded.birth)
        found = {reading.ts_ms: reading for reading in decoded.readings}
        assert (len(found), found.keys()) == (len(decoded.readings), stored.keys()), (topic, body.hex())
        if device is not None:
            assert all(reading.unit == device.name for reading in decoded.readings)
            of_class = readings.setdefault(device.class_name, [])
            of_class += [(reading, stored[ts_ms]) for ts_ms, reading in found.items()]
            if "/DDATA/" in topic:
                names = {alias: name for name, alias in device.aliases.items()}
                sent.append(Sent(body, device.class_name, names, dict(device.types), stored))
        if place % BATCH == BATCH - 1:
            for class_name, pairs in readings.items():
                values = check_all(class_name, [reading for reading, _ in pairs], NOW)
                for got, (reading, meant) in zip(values, pairs, strict=True):
                    assert isinstance(got, dict), (reading, got)
                    assert repr(sorted(got.items())) == repr(sorted(meant.items())), reading
                checked += len(pairs)
            readings.clear()
            by_column += compare_columns(columns, sent)
            sent.clear()
    assert checked > PAYLOADS
    assert by_column > PAYLOADS / 100
