"""The Sparkplug B payload codec, over the protobuf runtime (`sparkplug_b.proto` holds the schema).

Values of signed types travel as two's complement in unsigned fields; the datatype tells. A metric of a data
message may leave its datatype out: then its integers come back unsigned, and `as_signed` mends them once the
birth's datatype is known.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum
from types import MappingProxyType
from typing import NamedTuple

from google.protobuf.message import DecodeError

from qilu_contract import sparkplug_b_pb2 as pb
from qilu_contract.errors import BadReading, Reason


class DataType(IntEnum):
    """Datatypes of specification 3.0.0 whose values are read here; others decode with value None."""

    UNKNOWN = 0
    INT8 = 1
    INT16 = 2
    INT32 = 3
    INT64 = 4
    UINT8 = 5
    UINT16 = 6
    UINT32 = 7
    UINT64 = 8
    FLOAT = 9
    DOUBLE = 10
    BOOLEAN = 11
    STRING = 12
    DATETIME = 13
    TEXT = 14
    UUID = 15
    BYTES = 17


MetricValue = float | int | bool | str | bytes | None

# How each datatype is carried: the field of the value, and for signed types the width in bits of that field.
_FIELD: dict[DataType, str] = {
    DataType.INT8: "int_value",
    DataType.INT16: "int_value",
    DataType.INT32: "int_value",
    DataType.INT64: "long_value",
    DataType.UINT8: "int_value",
    DataType.UINT16: "int_value",
    DataType.UINT32: "int_value",
    DataType.UINT64: "long_value",
    DataType.FLOAT: "float_value",
    DataType.DOUBLE: "double_value",
    DataType.BOOLEAN: "boolean_value",
    DataType.STRING: "string_value",
    DataType.DATETIME: "long_value",
    DataType.TEXT: "string_value",
    DataType.UUID: "string_value",
    DataType.BYTES: "bytes_value",
}
_SIGNED_BITS: dict[int, int] = {DataType.INT8: 32, DataType.INT16: 32, DataType.INT32: 32, DataType.INT64: 64}
_NO_PROPERTIES: Mapping[str, str] = MappingProxyType({})


class Metric(NamedTuple):
    """One metric. Births give name, alias, datatype and value; data gives alias and value. `ts_ms` None: the
    payload's.
    """

    name: str | None = None
    alias: int | None = None
    ts_ms: int | None = None
    datatype: int = DataType.UNKNOWN
    value: MetricValue = None
    properties: Mapping[str, str] = _NO_PROPERTIES
    is_historical: bool = False


class Payload(NamedTuple):
    ts_ms: int | None
    seq: int | None
    metrics: Sequence[Metric]


def as_signed(value: int, datatype: int) -> int:
    """An integer as it was meant, from how it travelled."""
    bits = _SIGNED_BITS.get(datatype)
    if bits is not None and value >= 1 << (bits - 1):
        return value - (1 << bits)
    return value


def encode(payload: Payload, *, datatypes: bool = True) -> bytes:
    """Births say their metrics' `datatypes`; data and commands leave them out, though values travel as what
    they say. Raises ValueError for a metric whose value does not fit its datatype.
    """
    message = pb.Payload()
    if payload.ts_ms is not None:
        message.timestamp = payload.ts_ms
    if payload.seq is not None:
        message.seq = payload.seq
    for metric in payload.metrics:
        out = message.metrics.add()
        if metric.name is not None:
            out.name = metric.name
        if metric.alias is not None:
            out.alias = metric.alias
        if metric.ts_ms is not None:
            out.timestamp = metric.ts_ms
        if metric.is_historical:
            out.is_historical = True
        for key, text in metric.properties.items():
            out.properties.keys.append(key)
            out.properties.values.add(type=DataType.STRING, string_value=text)
        if datatypes and metric.datatype:
            out.datatype = metric.datatype
        _set_value(out, metric)
    return message.SerializeToString()


def _set_value(out: pb.Metric, metric: Metric) -> None:
    datatype = metric.datatype or _natural_type(metric.value)
    if metric.value is None:
        out.is_null = True
        return
    value = metric.value
    bits = _SIGNED_BITS.get(datatype)
    if bits is not None and isinstance(value, int) and value < 0:
        value += 1 << bits
    try:
        setattr(out, _FIELD[DataType(datatype)], value)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"metric {metric.name or metric.alias}: {value!r} does not fit type {datatype}"
        ) from error


def _natural_type(value: MetricValue) -> DataType:
    """The type of a data metric, which leaves it to the birth: what our signals use on the wire."""
    match value:
        case bool():
            return DataType.BOOLEAN
        case int():
            return DataType.INT64
        case float():
            return DataType.FLOAT
        case _:
            return DataType.STRING


def decode(body: bytes) -> Payload:
    """Raises BadReading(bad_payload) when `body` is not a Sparkplug B payload."""
    message = pb.Payload()
    try:
        message.ParseFromString(body)
        metrics = [_decode_metric(metric) for metric in message.metrics]
    except DecodeError as error:
        raise BadReading(Reason.BAD_PAYLOAD, f"{len(body)} bytes are not a Sparkplug B payload") from error
    return Payload(
        message.timestamp if message.HasField("timestamp") else None,
        message.seq if message.HasField("seq") else None,
        metrics,
    )


def _decode_metric(metric: pb.Metric) -> Metric:
    # Asking which fields are present costs as much as reading them: it is asked only of those that read as
    # nothing. Of a oneof at most one member reads as something.
    datatype = metric.datatype
    value: MetricValue = metric.float_value
    if not value or metric.is_null:
        field = metric.WhichOneof("value")
        value = None
        if field is not None and not metric.is_null:
            value = getattr(metric, field)
            if datatype and isinstance(value, int) and not isinstance(value, bool):
                value = as_signed(value, datatype)
    name = metric.name
    if isinstance(name, bytes):  # the runtime hands out text that is not UTF-8 as bytes
        raise BadReading(Reason.BAD_PAYLOAD, "a metric's name is not UTF-8")
    return Metric(
        name if name or metric.HasField("name") else None,
        metric.alias or (0 if metric.HasField("alias") else None),
        metric.timestamp or (0 if metric.HasField("timestamp") else None),
        datatype,
        value,
        _decode_properties(metric) if metric.HasField("properties") else _NO_PROPERTIES,
        metric.is_historical,
    )


def _decode_properties(metric: pb.Metric) -> Mapping[str, str]:
    pairs = zip(metric.properties.keys, metric.properties.values, strict=False)
    return {key: value.string_value for key, value in pairs if value.WhichOneof("value") == "string_value"}
