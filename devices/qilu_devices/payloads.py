"""Sparkplug payloads of an edge node: births, deaths and data."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b

from qilu_contract.catalogue import CATALOGUE, EquipmentClass, Signal
from qilu_contract.commands import Answer, answer_metrics
from qilu_contract.readings import Value
from qilu_contract.sparkplug import DataType, Metric, Payload, encode

from qilu_devices.simulation import Sample, Shape

REBIRTH = "Node Control/Rebirth"
BD_SEQ = "bdSeq"
_DATATYPES = {"float": DataType.FLOAT, "int": DataType.INT64, "bool": DataType.BOOLEAN}


def _datatype(signal: Signal) -> DataType:
    return DataType.DOUBLE if signal.is_wide else _DATATYPES[signal.type]


def _typed(signal: Signal, value: Value) -> Value:
    """The simulation computes in floats; on the wire a value has its signal's type."""
    if signal.type == "float" or not isinstance(value, float):
        return value
    return bool(value) if signal.type == "bool" else int(value)


Dated = tuple[int, Value]
"""A signal's last value and when it was sampled."""


def node_birth(bd_seq: int, ts_ms: int, seq: int) -> bytes:
    metrics = [
        Metric(name=BD_SEQ, ts_ms=ts_ms, datatype=DataType.INT64, value=bd_seq),
        Metric(name=REBIRTH, ts_ms=ts_ms, datatype=DataType.BOOLEAN, value=False),
        *answer_metrics(None),
    ]
    return encode(Payload(ts_ms, seq, metrics))


def answer(given: Answer, seq: int) -> bytes:
    """The answer to a command, as the node's own data."""
    return encode(Payload(given.at_ms, seq, answer_metrics(given)))


def node_death(bd_seq: int, ts_ms: int) -> bytes:
    """The will as well as the farewell; a death has no sequence number."""
    return encode(Payload(ts_ms, None, [Metric(name=BD_SEQ, datatype=DataType.INT64, value=bd_seq)]))


def device_birth(equipment: EquipmentClass, alias: int, last: Sequence[Dated], seq: int) -> bytes:
    """All signals of a unit with their aliases (from `alias` on), types, engineering units and last values,
    each with its own sample time."""
    metrics = [
        Metric(
            signal.name, alias + i, ts_ms, _datatype(signal), _typed(signal, value), {"engUnit": signal.unit}
        )
        for i, (signal, (ts_ms, value)) in enumerate(zip(equipment.signals, last, strict=True))
    ]
    return encode(Payload(max(ts_ms for ts_ms, _ in last), seq, metrics))


def data(sample: Sample, alias: int, seq: int, is_historical: bool, *, as_text: str | None = None) -> bytes:
    """One reading by aliases; the payload's timestamp is the sample's. Only what travels as 64 bits says its
    type. The signal `as_text` is sent as what it is not."""
    signals = CATALOGUE[sample.unit.class_name].signals
    metrics = [
        Metric(
            alias=alias + position,
            datatype=DataType.DOUBLE if signals[position].is_wide else DataType.UNKNOWN,
            value=_typed(signals[position], value),
            is_historical=is_historical,
        )
        if signals[position].name != as_text
        else Metric(alias=alias + position, datatype=DataType.STRING, value=str(value))
        for position, value in zip(sample.shape.positions, sample.values, strict=True)
    ]
    return encode(Payload(sample.ts_ms, seq, metrics))


def garbage(sample: Sample) -> bytes:
    """Bytes that are no payload, others before each reading: no protobuf message begins with a 7 (field 0,
    of a wire type that there is not)."""
    return b"\x07" + blake2b(f"{sample.unit.id} {sample.ts_ms}".encode(), digest_size=32).digest()


class DataLayout:
    """`data` for one shape and first alias: between two readings only time, sequence number and floats
    change, so the bytes between them are laid out once. A class with signals that are no floats has no such
    layout, and each of its readings is laid out anew."""

    def __init__(self, equipment: EquipmentClass, shape: Shape, alias: int, is_historical: bool) -> None:
        self._alias, self._is_historical = alias, is_historical
        self._fixed = all(signal.type == "float" for signal in equipment.signals)
        wide = [equipment.signals[position].is_wide for position in shape.positions]
        between = [
            self._before_value(alias + position, is_historical, is_wide)
            for position, is_wide in zip(shape.positions, wide, strict=True)
        ]
        codes = (
            f"{len(text)}s{'d' if is_wide else 'f'}" for text, is_wide in zip(between, wide, strict=True)
        )
        self._pack = struct.Struct("<" + "".join(codes)).pack
        self._parts: list[bytes | float] = [b""] * (2 * len(between))
        self._parts[0::2] = between

    @staticmethod
    def _before_value(alias: int, is_historical: bool, is_wide: bool) -> bytes:
        # Fields of Metric: alias 2, datatype 4, is_historical 5, float_value 12 (four bytes), double_value 13
        # (eight bytes); of Payload: metrics 2.
        head = b"\x10" + _varint(alias) + (b"\x20\x0a" if is_wide else b"")
        head += (b"\x28\x01" if is_historical else b"") + (b"\x69" if is_wide else b"\x65")
        return b"\x12" + _varint(len(head) + (8 if is_wide else 4)) + head

    def encode(self, sample: Sample, seq: int) -> bytes:
        if not self._fixed:
            return data(sample, self._alias, seq, self._is_historical)
        parts = self._parts
        parts[1::2] = sample.values
        return _timestamp(sample.ts_ms) + self._pack(*parts) + _SEQUENCE[seq]


@lru_cache(maxsize=20_000)  # units alike at the same place in their nodes share one: about 2 kB each
def layout(class_name: str, shape: Shape, alias: int, is_historical: bool) -> DataLayout:
    return DataLayout(CATALOGUE[class_name], shape, alias, is_historical)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


# Fields of Payload: timestamp 1, seq 3.
@lru_cache(maxsize=256)  # many units are sampled in the same millisecond
def _timestamp(ts_ms: int) -> bytes:
    return b"\x08" + _varint(ts_ms)


_SEQUENCE = [b"\x18" + _varint(seq) for seq in range(256)]
