"""The Sparkplug B payload codec, over the protobuf runtime (`sparkplug_b.proto` holds the schema).

Integers travel in unsigned fields, and only the datatype says which number is meant. A data message may leave
the datatype out: then its integers come back as they travelled, and `integer` gives the number once the
birth's datatype is known. A value that is not understood comes back as `Unreadable`, never as a guess.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from enum import IntEnum
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError

from qilu_contract import sparkplug_b_pb2 as pb
from qilu_contract.errors import BadReading, Reason


class DataType(IntEnum):
    """Datatypes of specification 3.0.0. The values of files and arrays (22 to 34) are not read; those of
    DataSets and Templates come back as `Packed`.
    """

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
    DATASET = 16
    BYTES = 17
    FILE = 18
    TEMPLATE = 19


class Unreadable(NamedTuple):
    """Stands in for a value that is not understood; `detail` says why, as the end of a sentence about it."""

    detail: str


class Packed(NamedTuple):
    """The value of a DataSet or Template, which `sparkplug_structures.unpack` parses."""

    datatype: int
    """DATASET or TEMPLATE."""
    body: bytes


MetricValue = float | int | bool | str | bytes | Packed | Unreadable | None
PropertyValue = float | int | bool | str

QUALITY, GOOD = "Quality", 192
"""The property that says how far a value can be trusted, and the only value that says it can."""
REBIRTH = "Node Control/Rebirth"
"""The metric by which a host asks an edge node for its births."""
UNIT = "engUnit"
"""The property that says in which unit of measurement a value is."""
COMPRESSED = "SPBV1.0_COMPRESSED"
"""The uuid of a payload whose body is another payload, compressed."""
MAX_EXPANDED = 1024 * 1024
"""Bytes to which a compressed payload may expand, unless the caller sets another bound."""

# How each datatype is carried: the field of the value, and for signed types the width in bits of that field.
FIELD: dict[int, str] = {
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
    DataType.DATASET: "dataset_value",
    DataType.TEMPLATE: "template_value",
}
_FIELD_BITS: dict[int, int] = {DataType.INT8: 32, DataType.INT16: 32, DataType.INT32: 32, DataType.INT64: 64}
_SIGNED: dict[int, int] = {DataType.INT8: 8, DataType.INT16: 16, DataType.INT32: 32, DataType.INT64: 64}
_UNSIGNED: dict[int, int] = {DataType.UINT8: 8, DataType.UINT16: 16, DataType.UINT32: 32, DataType.UINT64: 64}
_PACKED = {"dataset_value": DataType.DATASET, "template_value": DataType.TEMPLATE}
_NO_PROPERTIES: Mapping[str, PropertyValue] = MappingProxyType({})


class Metric(NamedTuple):
    """One metric. Births give name, alias, datatype and value; data gives alias and value. `ts_ms` None: the
    payload's.
    """

    name: str | None = None
    alias: int | None = None
    ts_ms: int | None = None
    datatype: int = DataType.UNKNOWN
    value: MetricValue = None
    properties: Mapping[str, PropertyValue] = _NO_PROPERTIES
    is_historical: bool = False
    is_transient: bool = False
    """Its sender wants it shown and not stored."""


class Payload(NamedTuple):
    ts_ms: int | None
    seq: int | None
    metrics: Sequence[Metric]


def integer(value: int, datatype: int) -> int | Unreadable:
    """The number that is meant by `value`, as it travelled in an unsigned field.

    A negative number of a signed type arrives as the type's own low bits (Int16 -42 as 65494), or with its
    sign extended to 32 or 64 bits; under these no number has two meanings.
    """
    bits = _UNSIGNED.get(datatype)
    if bits is not None:
        return value if value < 1 << bits else Unreadable(f"{value}, which does not fit UInt{bits}")
    bits = _SIGNED.get(datatype)
    if not datatype:
        return Unreadable("a whole number whose datatype neither the metric nor its birth gives")
    if bits is None:
        return Unreadable(f"a whole number of datatype {_type_name(datatype)}")
    half = 1 << (bits - 1)
    if value < half:
        return value
    for width in (bits, 32, 64):
        if (1 << width) - half <= value < 1 << width:
            return value - (1 << width)
    return Unreadable(f"{value}, which does not fit Int{bits}")


def _type_name(datatype: int) -> str:
    return DataType(datatype).name if datatype in DataType._value2member_map_ else str(datatype)


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
        write_metric(metric, message.metrics.add(), datatypes=datatypes)
    return message.SerializeToString()


def write_metric(metric: Metric, out: pb.Metric, *, datatypes: bool) -> None:
    """Write the metric into an empty message. `datatypes`, ValueError: see `encode`."""
    name, alias, ts_ms, datatype, value, properties, is_historical, is_transient = metric
    if name is not None:
        out.name = name
    if alias is not None:
        out.alias = alias
    if ts_ms is not None:
        out.timestamp = ts_ms
    if is_historical:
        out.is_historical = True
    if is_transient:
        out.is_transient = True
    for key, content in properties.items():
        out.properties.keys.append(key)
        kind = _natural_type(content)
        out.properties.values.add(**{"type": kind, FIELD[kind]: content})
    if datatypes and datatype:
        out.datatype = datatype
    if type(value) is float and datatype in _AS_FLOAT:  # as nearly all are
        out.float_value = value
    else:
        _set_value(out, metric)


def rebirth_request(ts_ms: int) -> bytes:
    """The NCMD that asks an edge node for its births."""
    metric = Metric(REBIRTH, datatype=DataType.BOOLEAN, value=True)
    return encode(Payload(ts_ms, None, [metric]), datatypes=False)


_AS_FLOAT = (DataType.UNKNOWN, DataType.FLOAT)


def _set_value(out: pb.Metric, metric: Metric) -> None:
    value = metric.value
    if value is None:
        out.is_null = True
        return
    datatype = metric.datatype or _natural_type(value)
    if isinstance(value, int):
        value = carried(value, datatype)
    try:
        setattr(out, FIELD[datatype], value.body if isinstance(value, Packed) else value)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"metric {metric.name or metric.alias}: {value!r} does not fit type {datatype}"
        ) from error


def carried(value: int, datatype: int) -> int:
    """An integer as the unsigned field of its datatype carries it."""
    bits = _FIELD_BITS.get(datatype)
    return value + (1 << bits) if bits is not None and value < 0 else value


def _natural_type(value: MetricValue) -> DataType:
    """The type of a data metric, which leaves it to the birth: what our signals use on the wire."""
    match value:
        case bool():
            return DataType.BOOLEAN
        case int():
            return DataType.INT64
        case float():
            return DataType.FLOAT
        case Packed():
            return DataType(value.datatype)
        case _:
            return DataType.STRING


def decode(body: bytes, max_expanded: int = MAX_EXPANDED) -> Payload:
    """The payload; of a compressed one, the payload in it.

    Raises BadReading: bad_payload when `body` is not a Sparkplug B payload or cannot be decompressed,
    too_large when it expands to more than `max_expanded` bytes.
    """
    message = outer = _parse(body)
    if outer.uuid == COMPRESSED:
        message = _parse(_expand(outer, max_expanded))
        if message.uuid == COMPRESSED:
            raise BadReading(Reason.BAD_PAYLOAD, "a compressed payload in a compressed payload")
    return Payload(
        next((each.timestamp for each in (message, outer) if each.HasField("timestamp")), None),
        next((each.seq for each in (message, outer) if each.HasField("seq")), None),
        [read_metric(metric) for metric in message.metrics],
    )


def _parse(body: bytes) -> pb.Payload:
    message = pb.Payload()
    try:
        message.ParseFromString(body)
    except DecodeError as error:
        raise BadReading(Reason.BAD_PAYLOAD, f"{len(body)} bytes are not a Sparkplug B payload") from error
    return message


def _expand(message: pb.Payload, max_bytes: int) -> bytes:
    """The body of a compressed payload. The metric `algorithm` names GZIP or DEFLATE, which is the default
    and means zlib's format, with or without its header."""
    named = (metric.string_value for metric in message.metrics if metric.name == "algorithm")
    algorithm = next(named, "DEFLATE")
    formats = {"GZIP": (31,), "DEFLATE": (15, -15)}.get(algorithm.upper())
    if formats is None:
        raise BadReading(
            Reason.BAD_PAYLOAD, f"compressed by {algorithm[:40]!r}: only GZIP and DEFLATE are understood"
        )
    for window in formats:
        stream = zlib.decompressobj(window)
        try:
            expanded = stream.decompress(message.body, max_bytes + 1)
        except zlib.error:
            continue
        if len(expanded) > max_bytes:
            raise BadReading(Reason.TOO_LARGE, f"expands to more than {max_bytes} bytes, which is the bound")
        if stream.eof and not stream.unused_data:
            return expanded
    raise BadReading(Reason.BAD_PAYLOAD, f"the compressed body is not {algorithm.upper()}, or not all of it")


def read_metric(metric: pb.Metric) -> Metric:
    """Raises BadReading(bad_payload) for a name that is not UTF-8."""
    # Asking which fields are present costs as much as reading them: it is asked only of those that read as
    # nothing. Of a oneof at most one member reads as something.
    datatype = metric.datatype
    value: MetricValue = metric.float_value
    if not value or metric.is_null:
        value = None if metric.is_null else _decode_value(metric, datatype)
    name: str | None = metric.name
    if name:
        if isinstance(name, bytes):  # the runtime hands out text that is not UTF-8 as bytes
            raise BadReading(Reason.BAD_PAYLOAD, "a metric's name is not UTF-8")
    elif not metric.HasField("name"):
        name = None
    properties = _decode_properties(metric) if metric.HasField("properties") else _NO_PROPERTIES
    return _metric(
        (
            name,
            metric.alias or (0 if metric.HasField("alias") else None),
            metric.timestamp or (0 if metric.HasField("timestamp") else None),
            datatype,
            value,
            properties,
            metric.is_historical,
            metric.is_transient,
        )
    )


_metric: Callable[[tuple[Any, ...]], Metric] = partial(tuple.__new__, Metric)  # `Metric(…)`, at half the cost


def _decode_value(metric: pb.Metric, datatype: int) -> MetricValue:
    field = metric.WhichOneof("value")
    if field is None:
        return Unreadable("without a value, though not null")
    if field == "extension_value":
        return Unreadable("an extension, which is not read")
    value: float | int | bool | str | bytes = getattr(metric, field)
    if field in _PACKED and isinstance(value, bytes):
        return Packed(_PACKED[field], value)
    if type(value) is int and datatype:
        return integer(value, datatype)
    return value


def _decode_properties(metric: pb.Metric) -> Mapping[str, PropertyValue]:
    found: dict[str, PropertyValue] = {}
    for key, value in zip(metric.properties.keys, metric.properties.values, strict=False):
        field = value.WhichOneof("value")
        if field is not None and not value.is_null:
            found[key] = getattr(value, field)
    return found
