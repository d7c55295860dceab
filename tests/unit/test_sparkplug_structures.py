"""Templates and DataSets: what another project's encoder writes is read, what ours writes is read by it, and
what is malformed or larger than the bounds is not read, with the reason."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from qilu_contract import sparkplug_b_pb2 as pb
from qilu_contract.wire.sparkplug import DataType, Metric, Packed, Payload, Unreadable, decode, encode
from qilu_contract.wire.sparkplug_structures import (
    MAX_COLUMNS,
    MAX_DEPTH,
    MAX_MEMBERS,
    MAX_ROWS,
    DataSet,
    Template,
    pack_data_set,
    pack_template,
    unpack,
)
from sparkplub_b_packets.core import sparkplug_b as tahu
from sparkplub_b_packets.core import sparkplug_b_pb2 as tahu_pb

T0 = 1_700_000_000_000


def only_value(body: bytes, name: str = "Drive") -> Template | DataSet | Unreadable:
    [metric] = decode(body).metrics
    assert isinstance(metric.value, Packed)
    return unpack(metric.value, name)


def test_a_template_of_another_encoder_is_read_with_the_paths_of_its_members() -> None:
    payload = tahu_pb.Payload()
    drive = tahu.initTemplateMetric(payload, "Drive", 7, "drive_type")
    tahu.addMetric(drive, "Power", None, DataType.FLOAT, 2.5, T0)
    tahu.addMetric(drive, "Steps", 8, DataType.INT16, -42, T0)
    meter = tahu.initTemplateMetric(drive, "Meter", None, "meter_type")
    tahu.addMetric(meter, "Energy", None, DataType.DOUBLE, 1.25, T0 + 1)
    tahu.addNullMetric(drive, "Note", None, DataType.STRING)
    meter.metrics[0].ClearField("timestamp")
    drive.metrics[2].timestamp = T0 + 5
    found = only_value(payload.SerializeToString())
    assert isinstance(found, Template)
    assert (found.is_definition, found.definition) == (False, "drive_type")
    assert [(each.name, each.alias, each.value) for each in found.members] == [
        ("Drive/Power", None, 2.5),
        ("Drive/Steps", 8, -42),
        ("Drive/Meter/Energy", None, 1.25),
        ("Drive/Note", None, None),
    ]
    assert found.members[2].ts_ms == T0 + 5  # its Template's


def test_a_data_set_of_another_encoder_is_read_by_row_and_type() -> None:
    payload = tahu_pb.Payload()
    types = [DataType.DATETIME, DataType.INT8, DataType.DOUBLE, DataType.BOOLEAN, DataType.STRING]
    table = tahu.initDatasetMetric(payload, "Log", 3, ["t", "i", "d", "b", "s"], types)
    for n in range(2):
        row = table.rows.add()
        row.elements.add().long_value = T0 + n
        row.elements.add().int_value = 256 - n if n else 5  # -1 as eight bits
        row.elements.add().double_value = n / 4
        row.elements.add().boolean_value = n == 1
        row.elements.add().string_value = "济南"
    found = only_value(payload.SerializeToString(), "Log")
    assert found == DataSet(
        ["t", "i", "d", "b", "s"], [[T0, 5, 0.0, False, "济南"], [T0 + 1, -1, 0.25, True, "济南"]]
    )


@given(
    st.lists(
        st.tuples(
            st.integers(0, 2**63 - 1),
            st.none() | st.integers(-(2**63), 2**63 - 1),
            st.none() | st.floats(allow_nan=False),
            st.none() | st.booleans(),
            st.none() | st.text(max_size=5),
        ),
        max_size=5,
    )
)
def test_what_is_packed_is_unpacked(rows: list[tuple[Any, ...]]) -> None:
    types = [DataType.DATETIME, DataType.INT64, DataType.DOUBLE, DataType.BOOLEAN, DataType.STRING]
    packed = pack_data_set(["t", "i", "d", "b", "s"], types, rows)
    body = encode(Payload(T0, 1, [Metric("Log", 1, T0, DataType.DATASET, packed)]))
    found = only_value(body, "Log")
    assert isinstance(found, DataSet)
    assert [tuple(row) for row in found.rows if not isinstance(row, Unreadable)] == rows
    theirs = tahu_pb.Payload.FromString(body).metrics[0].dataset_value
    assert (theirs.num_of_columns, len(theirs.columns), list(theirs.types)) == (5, 5, types)


def nested(depth: int) -> Packed:
    packed = pack_template([Metric("x", None, None, DataType.FLOAT, 1.0)], "d")
    for _ in range(depth - 1):
        packed = pack_template([Metric("t", None, None, DataType.TEMPLATE, packed)], "d")
    return packed


def members(count: int) -> Packed:
    return pack_template([Metric(f"m{n}", None, T0, DataType.FLOAT, 1.0) for n in range(count)], "d")


def table(columns: int, rows: int) -> Packed:
    names = [f"c{n}" for n in range(columns)]
    return pack_data_set(names, [DataType.FLOAT] * columns, [[None] * columns] * rows)


def raw(**fields: Any) -> Packed:
    return Packed(DataType.DATASET, pb.DataSet(**fields).SerializeToString())


@pytest.mark.parametrize(
    ("packed", "detail"),
    [
        (nested(MAX_DEPTH + 1), f"a Template nested deeper than {MAX_DEPTH}, which is the bound"),
        (members(MAX_MEMBERS + 1), f"a Template of more than {MAX_MEMBERS} members, which is the bound"),
        (
            table(MAX_COLUMNS + 1, 1),
            f"a DataSet of {MAX_COLUMNS + 1} columns, and {MAX_COLUMNS} is the bound",
        ),
        (table(1, MAX_ROWS + 1), f"a DataSet of {MAX_ROWS + 1} rows, and {MAX_ROWS} is the bound"),
        (raw(num_of_columns=2, columns=["a"], types=[9]), "a DataSet of 2 columns with 1 names and 1 types"),
        (raw(num_of_columns=1, columns=["a"]), "a DataSet of 1 columns with 1 names and 0 types"),
        (raw(num_of_columns=2, columns=["a", "a"], types=[9, 9]), "a DataSet with a column twice"),
        (
            Packed(DataType.DATASET, b"\x08\x01\x12\x01\xff\x18\x09"),
            "a DataSet with a name that is not UTF-8",
        ),
        (Packed(DataType.DATASET, b"\xff"), "a DataSet whose bytes are not one"),
        (Packed(DataType.TEMPLATE, b"\xff"), "a Template whose bytes are not one"),
        (Packed(DataType.TEMPLATE, b"\x22\x01\xff"), "a Template of a definition whose name is not UTF-8"),
        (
            Packed(DataType.TEMPLATE, b"\x12\x03\x0a\x01\xff"),
            "a Template that is malformed: a metric's name is not UTF-8",
        ),
    ],
)
def test_what_is_malformed_or_too_large_is_not_read(packed: Packed, detail: str) -> None:
    assert unpack(packed, "Log") == Unreadable(detail)


def test_the_bounds_themselves_are_read() -> None:
    assert isinstance(unpack(nested(MAX_DEPTH), "Drive"), Template)
    assert isinstance(unpack(members(MAX_MEMBERS), "Drive"), Template)
    assert isinstance(unpack(table(MAX_COLUMNS, 2), "Log"), DataSet)
    assert isinstance(unpack(table(1, MAX_ROWS), "Log"), DataSet)


def test_members_without_a_name_and_rows_of_the_wrong_length_are_marked() -> None:
    inner = pack_data_set(["a"], [DataType.FLOAT], [])
    packed = pack_template(
        [
            Metric("Log", None, T0, DataType.DATASET, inner),
            Metric(None, 4, T0, DataType.TEMPLATE, nested(1)),
        ],
        "d",
    )
    found = unpack(packed, "Drive")
    assert isinstance(found, Template)
    assert [(each.name, each.value) for each in found.members] == [
        ("Drive/Log", Unreadable("a DataSet in a Template, which is not read")),
        (None, Unreadable("a Template without a name, which is not read")),
    ]
    row = pb.DataSet.Row(elements=[pb.DataSet.Value(float_value=1.0)])
    typed = raw(num_of_columns=2, columns=["a", "b"], types=[9, 3], rows=[row])
    assert unpack(typed, "Log") == DataSet(["a", "b"], [Unreadable("a row of 1 elements in 2 columns")])
    wrong = pb.DataSet.Row(elements=[pb.DataSet.Value(string_value="1"), pb.DataSet.Value(int_value=2)])
    found = unpack(raw(num_of_columns=2, columns=["a", "b"], types=[9, 77], rows=[wrong]), "Log")
    assert isinstance(found, DataSet)
    assert found.rows == [
        [Unreadable("'1' in a column of datatype 9"), Unreadable("2 in a column of datatype 77")]
    ]
