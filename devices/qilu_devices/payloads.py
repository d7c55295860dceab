"""Sparkplug payloads of an edge node: births, deaths and data."""

from __future__ import annotations

from collections.abc import Sequence

from qilu_contract.catalogue import EquipmentClass
from qilu_contract.readings import Value
from qilu_contract.sparkplug import DataType, Metric, Payload, encode

from qilu_devices.simulation import Sample

REBIRTH = "Node Control/Rebirth"
BD_SEQ = "bdSeq"
_DATATYPES = {"float": DataType.FLOAT, "int": DataType.INT64, "bool": DataType.BOOLEAN}

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
        Metric(signal.name, alias + i, ts_ms, _DATATYPES[signal.type], value, {"engUnit": signal.unit})
        for i, (signal, (ts_ms, value)) in enumerate(zip(equipment.signals, last, strict=True))
    ]
    return encode(Payload(max(ts_ms for ts_ms, _ in last), seq, metrics))


def data(sample: Sample, alias: int, seq: int, is_historical: bool) -> bytes:
    """One reading by aliases; the payload's timestamp is the sample's."""
    metrics = [
        Metric(alias=alias + position, value=value, is_historical=is_historical)
        for position, value in zip(sample.shape.positions, sample.values, strict=True)
    ]
    return encode(Payload(sample.ts_ms, seq, metrics))
