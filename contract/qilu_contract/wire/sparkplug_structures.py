"""DataSets and Templates: metrics of Sparkplug B that hold many values.

A Template or DataSet that is larger or nested deeper than the bounds below comes back as `Unreadable`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from google.protobuf.message import DecodeError

from qilu_contract import sparkplug_b_pb2 as pb
from qilu_contract.errors import BadReading
from qilu_contract.wire import sparkplug
from qilu_contract.wire.sparkplug import DataType, Metric, MetricValue, Packed, Unreadable

MAX_DEPTH = 4
"""Templates within each other, the outermost included."""
MAX_MEMBERS = 256
"""Members of a Template, those of Templates in it included."""
MAX_COLUMNS = 256
MAX_ROWS = 10_000
"""Rows of a DataSet: nearly three hours of one row a second. With few columns, the largest payload that a
gateway accepts by default (256 kB) has about as many."""

_INTEGERS = range(DataType.INT8, DataType.UINT64 + 1)
_CARRIERS = {
    "float_value": (DataType.FLOAT, DataType.DOUBLE),
    "double_value": (DataType.FLOAT, DataType.DOUBLE),
    "boolean_value": (DataType.BOOLEAN,),
    "string_value": (DataType.STRING, DataType.TEXT),
    "int_value": (*_INTEGERS, DataType.DATETIME),
    "long_value": (*_INTEGERS, DataType.DATETIME),
}
"""Column types whose elements a field may hold."""


class Template(NamedTuple):
    is_definition: bool
    definition: str
    """Name of the definition that an instance refers to."""
    members: Sequence[Metric]
    """Members, with those of Templates in it. The name of a member is its path, which begins with the name of
    the Template's metric: `Drive/Meter/Energy`. It is None for a member that has only an alias."""


class DataSet(NamedTuple):
    columns: Sequence[str]
    rows: Sequence[Sequence[MetricValue] | Unreadable]
    """Values by column; None for an element without a value. Unreadable: a row whose length is wrong."""


def unpack(packed: Packed, name: str) -> Template | DataSet | Unreadable:
    """Parse the value of the metric `name`."""
    try:
        return _data_set(packed.body) if packed.datatype == DataType.DATASET else _template(packed.body, name)
    except DecodeError:
        return Unreadable(f"a {_kind(packed)} whose bytes are not one")
    except BadReading as error:
        return Unreadable(f"a {_kind(packed)} that is malformed: {error.detail}")
    except ValueError as error:
        return Unreadable(f"a {_kind(packed)} {error}")


def _kind(packed: Packed) -> str:
    return "DataSet" if packed.datatype == DataType.DATASET else "Template"


def _template(body: bytes, name: str) -> Template:
    """Raises ValueError, DecodeError and BadReading."""
    message = pb.Template.FromString(body)
    members: list[Metric] = []
    for member in _members(message, f"{name}/", None, 1):
        if len(members) == MAX_MEMBERS:
            raise ValueError(f"of more than {MAX_MEMBERS} members, which is the bound")
        members.append(member)
    if not isinstance(message.template_ref, str):
        raise ValueError("of a definition whose name is not UTF-8")
    return Template(message.is_definition, message.template_ref, members)


def _members(message: pb.Template, path: str, ts_ms: int | None, depth: int) -> Iterator[Metric]:
    """`ts_ms`: time of the members that have none."""
    if depth > MAX_DEPTH:
        raise ValueError(f"nested deeper than {MAX_DEPTH}, which is the bound")
    for each in message.metrics:
        member = sparkplug.read_metric(each)
        if member.ts_ms is None:
            member = member._replace(ts_ms=ts_ms)
        if member.name is not None:
            member = member._replace(name=path + member.name)
        value = member.value
        if not isinstance(value, Packed):
            yield member
        elif value.datatype == DataType.TEMPLATE and member.name is not None:
            inner = pb.Template.FromString(value.body)
            yield from _members(inner, f"{member.name}/", member.ts_ms, depth + 1)
        else:
            what = (
                "a DataSet in a Template" if member.name is not None else f"a {_kind(value)} without a name"
            )
            yield member._replace(value=Unreadable(f"{what}, which is not read"))


def _data_set(body: bytes) -> DataSet:
    """Raises ValueError and DecodeError."""
    message = pb.DataSet.FromString(body)
    columns, types = list(message.columns), list(message.types)
    if not len(columns) == len(types) == message.num_of_columns:
        raise ValueError(
            f"of {message.num_of_columns} columns with {len(columns)} names and {len(types)} types"
        )
    if not all(isinstance(column, str) for column in columns):  # others come as bytes
        raise ValueError("with a name that is not UTF-8")
    if len(columns) > MAX_COLUMNS:
        raise ValueError(f"of {len(columns)} columns, and {MAX_COLUMNS} is the bound")
    if len(message.rows) > MAX_ROWS:
        raise ValueError(f"of {len(message.rows)} rows, and {MAX_ROWS} is the bound")
    if len(set(columns)) < len(columns):
        raise ValueError("with a column twice")
    return DataSet(columns, [_row(row, types) for row in message.rows])


def _row(row: pb.DataSet.Row, types: Sequence[int]) -> Sequence[MetricValue] | Unreadable:
    if len(row.elements) != len(types):
        return Unreadable(f"a row of {len(row.elements)} elements in {len(types)} columns")
    return [_element(element, type_) for element, type_ in zip(row.elements, types, strict=True)]


def _element(element: pb.DataSet.Value, type_: int) -> MetricValue:
    field = element.WhichOneof("value")
    if field is None:
        return None
    value: float | int | bool | str = getattr(element, field)
    if type_ not in _CARRIERS[field]:
        return Unreadable(f"{value!r:.40} in a column of datatype {type_}")
    if type(value) is int and type_ != DataType.DATETIME:
        return sparkplug.integer(value, type_)
    return value


def pack_template(members: Sequence[Metric], definition: str = "", *, datatypes: bool = True) -> Packed:
    """An instance of `definition`, or a definition if that is empty. `datatypes`: see `sparkplug.encode`."""
    message = pb.Template(is_definition=not definition)
    if definition:
        message.template_ref = definition
    for member in members:
        sparkplug.write_metric(member, message.metrics.add(), datatypes=datatypes)
    return Packed(DataType.TEMPLATE, message.SerializeToString())


def pack_data_set(
    columns: Sequence[str], types: Sequence[int], rows: Sequence[Sequence[MetricValue]]
) -> Packed:
    """Columns are numbers, booleans or texts; None: an element without a value."""
    message = pb.DataSet(num_of_columns=len(columns), columns=columns, types=types)
    for row in rows:
        out = message.rows.add()
        for value, type_ in zip(row, types, strict=True):
            element = out.elements.add()
            if value is not None:
                content = sparkplug.carried(value, type_) if type(value) is int else value
                setattr(element, sparkplug.FIELD[type_], content)
    return Packed(DataType.DATASET, message.SerializeToString())
