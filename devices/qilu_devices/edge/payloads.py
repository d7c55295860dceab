"""Sparkplug payloads of an edge node: births, deaths and data."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from functools import lru_cache
from hashlib import blake2b

from qilu_common.mqtt.codec import varint
from qilu_contract.catalogue.classes import CATALOGUE, EquipmentClass, Signal
from qilu_contract.readings import Value
from qilu_contract.wire import marks
from qilu_contract.wire.commands import Answer, answer_metrics
from qilu_contract.wire.marks import Mark
from qilu_contract.wire.sparkplug import REBIRTH, DataType, Metric, Payload, encode

from qilu_devices.edge.structures import datatype, definitions, fold
from qilu_devices.simulation import Sample, Shape

BD_SEQ = "bdSeq"


def _typed(signal: Signal, value: Value) -> Value:
    """Convert a value to its signal's type, because the simulation computes in floats."""
    if signal.type == "float" or not isinstance(value, float):
        return value
    return bool(value) if signal.type == "bool" else int(value)


Dated = tuple[int, Value]
"""A signal's last value and its sample time."""


def node_birth(bd_seq: int, ts_ms: int, seq: int, class_names: Iterable[str] = ()) -> bytes:
    """`class_names`: classes of the node's units, whose Templates it defines."""
    metrics = [
        Metric(name=BD_SEQ, ts_ms=ts_ms, datatype=DataType.INT64, value=bd_seq),
        Metric(name=REBIRTH, ts_ms=ts_ms, datatype=DataType.BOOLEAN, value=False),
        *answer_metrics(None, ts_ms),
        *marks.metrics(Mark(0), ts_ms),
        *definitions(class_names, ts_ms),
    ]
    return encode(Payload(ts_ms, seq, metrics))


def mark(sent: Mark, ts_ms: int, seq: int) -> bytes:
    """A mark, as the node's own data."""
    return encode(Payload(ts_ms, seq, marks.metrics(sent, ts_ms)), datatypes=False)


def answer(given: Answer, seq: int) -> bytes:
    """The answer to a command, as the node's own data."""
    return encode(Payload(given.at_ms, seq, answer_metrics(given, given.at_ms)), datatypes=False)


def node_death(bd_seq: int, ts_ms: int) -> bytes:
    """NDEATH, for both the will and a clean stop; it has no sequence number."""
    return encode(Payload(ts_ms, None, [Metric(name=BD_SEQ, datatype=DataType.INT64, value=bd_seq)]))


def device_death(ts_ms: int, seq: int) -> bytes:
    """DDEATH: the node has lost a unit."""
    return encode(Payload(ts_ms, seq, []))


def device_birth(equipment: EquipmentClass, alias: int, last: Sequence[Dated], seq: int) -> bytes:
    """All signals of a unit with their aliases (from `alias` on), types, engineering units and last values,
    each with its own sample time, in the order of these times."""
    signals = [
        Metric(
            signal.name, alias + i, ts_ms, datatype(signal), _typed(signal, value), {"engUnit": signal.unit}
        )
        for i, (signal, (ts_ms, value)) in enumerate(zip(equipment.signals, last, strict=True))
    ]
    metrics = fold(equipment, list(zip(equipment.signals, signals, strict=True)), alias, birth=True)
    metrics.sort(key=lambda metric: metric.ts_ms or 0)
    return encode(Payload(max(ts_ms for ts_ms, _ in last), seq, metrics))


def data(sample: Sample, alias: int, seq: int, is_historical: bool, *, as_text: str | None = None) -> bytes:
    """One reading by aliases; the timestamp of payload and metrics is the sample's. The signal `as_text` is
    sent as text instead of its type."""
    equipment = CATALOGUE[sample.unit.class_name]
    signals = equipment.signals
    metrics = [
        Metric(
            alias=alias + position,
            ts_ms=sample.ts_ms,
            datatype=DataType.DOUBLE if signals[position].is_wide else DataType.UNKNOWN,
            value=_typed(signals[position], value),
            is_historical=is_historical,
        )
        if signals[position].name != as_text
        else Metric(alias=alias + position, ts_ms=sample.ts_ms, datatype=DataType.STRING, value=str(value))
        for position, value in zip(sample.shape.positions, sample.values, strict=True)
    ]
    if equipment.forms:
        named = [(signals[at], each) for at, each in zip(sample.shape.positions, metrics, strict=True)]
        metrics = fold(equipment, named, alias, birth=False)
    return encode(Payload(sample.ts_ms, seq, metrics), datatypes=False)


def named_data(sample: Sample, seq: int) -> bytes:
    """One reading by names and types, which needs no birth."""
    signals = CATALOGUE[sample.unit.class_name].signals
    metrics = [
        Metric(name=signal.name, ts_ms=sample.ts_ms, datatype=datatype(signal), value=_typed(signal, value))
        for signal, value in zip((signals[at] for at in sample.shape.positions), sample.values, strict=True)
    ]
    return encode(Payload(sample.ts_ms, seq, metrics))


def garbage(sample: Sample) -> bytes:
    """Bytes that are not a payload, different for each reading: no protobuf message begins with a 7 (field 0,
    with an invalid wire type)."""
    return b"\x07" + blake2b(f"{sample.unit.id} {sample.ts_ms}".encode(), digest_size=32).digest()


class DataLayout:
    """Precomputed `data` for one shape and first alias: between two readings only time, sequence number and
    floats change, so the other bytes are encoded once. A class with other types than floats, Templates or
    DataSets has no such layout, nor has a time that takes more or fewer bytes: their readings are encoded
    individually."""

    def __init__(self, equipment: EquipmentClass, shape: Shape, alias: int, is_historical: bool) -> None:
        self._alias, self._is_historical = alias, is_historical
        floats = all(signal.type == "float" for signal in equipment.signals)
        self._fixed = floats and not equipment.forms
        wide = [equipment.signals[position].is_wide for position in shape.positions]
        # Fields of Payload: metrics 2; of Metric: alias 2, timestamp 3, is_historical 5, float_value 12 (four
        # bytes), double_value 13 (eight bytes).
        history = b"\x28\x01" if is_historical else b""
        codes: list[str] = []
        self._parts: list[bytes | float] = []  # of each metric: up to its time, the time, the tag, the value
        for position, is_wide in zip(shape.positions, wide, strict=True):
            head = b"\x10" + varint(alias + position) + b"\x18"
            tag = history + (b"\x69" if is_wide else b"\x65")
            head = b"\x12" + varint(len(head) + _TIME_BYTES + len(tag) + (8 if is_wide else 4)) + head
            codes.append(f"{len(head)}s{_TIME_BYTES}s{len(tag)}s{'d' if is_wide else 'f'}")
            self._parts += (head, b"", tag, 0.0)
        self._pack = struct.Struct("<" + "".join(codes)).pack

    def encode(self, sample: Sample, seq: int) -> bytes:
        if not self._fixed or sample.ts_ms not in _FIXED_TIMES:
            return data(sample, self._alias, seq, self._is_historical)
        parts, time = self._parts, _timestamp(sample.ts_ms)
        parts[1::4] = [time] * len(sample.values)
        parts[3::4] = sample.values
        return b"\x08" + time + self._pack(*parts) + _SEQUENCE[seq]


@lru_cache(maxsize=20_000)  # units alike at the same place in their nodes share one: about 2 kB each
def layout(class_name: str, shape: Shape, alias: int, is_historical: bool) -> DataLayout:
    return DataLayout(CATALOGUE[class_name], shape, alias, is_historical)


_TIME_BYTES = 6
_FIXED_TIMES = range(1 << 35, 1 << 42)  # from 1971 to 2109: what takes six bytes


@lru_cache(maxsize=256)  # many units are sampled in the same millisecond
def _timestamp(ts_ms: int) -> bytes:
    return varint(ts_ms)


# Fields of Payload: timestamp 1, seq 3.
_SEQUENCE = [b"\x18" + varint(seq) for seq in range(256)]
