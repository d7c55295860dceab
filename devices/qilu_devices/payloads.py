"""Sparkplug payloads of an edge node: births, deaths and data."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from qilu_contract.catalogue import CATALOGUE, EquipmentClass, Signal
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
    ]
    return encode(Payload(ts_ms, seq, metrics))


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


def data(sample: Sample, alias: int, seq: int, is_historical: bool) -> bytes:
    """One reading by aliases; the payload's timestamp is the sample's. Only what travels as 64 bits says its
    type."""
    signals = CATALOGUE[sample.unit.class_name].signals
    metrics = [
        Metric(
            alias=alias + position,
            datatype=DataType.DOUBLE if signals[position].is_wide else DataType.UNKNOWN,
            value=_typed(signals[position], value),
            is_historical=is_historical,
        )
        for position, value in zip(sample.shape.positions, sample.values, strict=True)
    ]
    return encode(Payload(sample.ts_ms, seq, metrics))


class DataLayout:
    """`data` for one unit and one shape, eight times as fast: between two readings only time, sequence number
    and floats change, so the bytes between them are laid out once. For classes whose signals are all floats.
    """

    def __init__(self, equipment: EquipmentClass, shape: Shape, alias: int, is_historical: bool) -> None:
        wide = [equipment.signals[position].is_wide for position in shape.positions]
        self._between = [
            self._before_value(alias + position, is_historical, is_wide)
            for position, is_wide in zip(shape.positions, wide, strict=True)
        ]
        codes = (
            f"{len(text)}s{'d' if is_wide else 'f'}"
            for text, is_wide in zip(self._between, wide, strict=True)
        )
        self._pack = struct.Struct("<" + "".join(codes)).pack

    @staticmethod
    def _before_value(alias: int, is_historical: bool, is_wide: bool) -> bytes:
        # Fields of Metric: alias 2, datatype 4, is_historical 5, float_value 12 (four bytes), double_value 13
        # (eight bytes); of Payload: metrics 2.
        head = b"\x10" + _varint(alias) + (b"\x20\x0a" if is_wide else b"")
        head += (b"\x28\x01" if is_historical else b"") + (b"\x69" if is_wide else b"\x65")
        return b"\x12" + _varint(len(head) + (8 if is_wide else 4)) + head

    def encode(self, sample: Sample, seq: int) -> bytes:
        parts: list[bytes | float] = [b""] * (2 * len(self._between))
        parts[0::2] = self._between
        parts[1::2] = sample.values
        # Fields of Payload: timestamp 1, seq 3.
        return b"\x08" + _varint(sample.ts_ms) + self._pack(*parts) + b"\x18" + _varint(seq)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
