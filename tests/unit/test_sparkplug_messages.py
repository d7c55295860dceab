"""Messages of edge nodes, gateway and platform, field by field, as Sparkplug 3.0 requires them. The ids are
in the docstrings; `docs/sparkplug.md` lists all of them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from qilu_contract import sparkplug_b_pb2 as pb
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.catalogue.own_classes import parse_own_class
from qilu_contract.errors import BadReading, Reason
from qilu_contract.wire import sparkplug, topics
from qilu_contract.wire.commands import Answer, Command, command_payload
from qilu_contract.wire.marks import Mark
from qilu_contract.wire.sparkplug import DataType
from qilu_devices.edge import payloads
from qilu_devices.simulation import Sample, Shape
from sparkplub_b_packets.core import sparkplug_b_pb2 as tahu_pb

NOW_MS = 1_700_000_000_000
STRING = 12  # among the specification's data types


def parsed(body: bytes) -> pb.Payload:
    """By protobuf alone, without our decoder."""
    return pb.Payload.FromString(body)


def test_a_nodes_birth_declares_each_metric_in_full() -> None:
    """topics-nbirth-metrics, operational-behavior-data-publish-nbirth-values,
    payloads-metric-datatype-req."""
    metrics = parsed(payloads.node_birth(3, NOW_MS, 0)).metrics
    assert len(metrics) > 2
    for metric in metrics:
        assert metric.name
        assert DataType(metric.datatype) is not DataType.UNKNOWN
        assert metric.is_null == (metric.WhichOneof("value") is None)


def test_the_rebirth_metric_is_a_boolean_without_an_alias() -> None:
    """operational-behavior-data-commands-rebirth-name, -name-aliases, -datatype, -value."""
    metrics = parsed(payloads.node_birth(3, NOW_MS, 0)).metrics
    [rebirth] = [metric for metric in metrics if metric.name == "Node Control/Rebirth"]
    assert not rebirth.HasField("alias")
    assert rebirth.datatype == DataType.BOOLEAN
    assert (rebirth.WhichOneof("value"), rebirth.boolean_value) == ("boolean_value", False)


def test_a_nodes_data_has_times_and_was_declared_in_its_birth() -> None:
    """topics-nbirth-metric-reqs, topics-ndata-timestamp, payloads-name-birth-data-requirement,
    payloads-metric-datatype-not-req."""
    declared = {metric.name for metric in parsed(payloads.node_birth(3, NOW_MS, 0)).metrics}
    answer = Answer("a1", "370202-motor-0000001", "stop", True, "", NOW_MS)
    for body in (payloads.mark(Mark(1), NOW_MS, 4), payloads.answer(answer, 4)):
        data = parsed(body)
        assert (data.timestamp, data.seq) == (NOW_MS, 4)
        assert {metric.name for metric in data.metrics} <= declared
        for metric in data.metrics:
            assert metric.timestamp == NOW_MS
            assert not metric.HasField("datatype")


@pytest.mark.parametrize("name", sorted(CATALOGUE))
def test_the_properties_of_a_births_metrics_are_paired_and_typed(name: str) -> None:
    """payloads-propertyset-keys-array-size, payloads-propertyset-values-array-size,
    payloads-metric-propertyvalue-type-value, payloads-metric-propertyvalue-type-req."""
    signals = CATALOGUE[name].signals
    last: list[payloads.Dated] = [(NOW_MS, signal.nominal) for signal in signals]
    metrics = parsed(payloads.device_birth(CATALOGUE[name], 0, last, 1)).metrics
    assert len(metrics) == len(signals)
    for metric in metrics:
        properties = metric.properties
        assert list(properties.keys) == ["engUnit"]
        [value] = properties.values
        assert (value.type, value.WhichOneof("value")) == (STRING, "string_value")


@pytest.mark.parametrize(
    "body",
    [
        sparkplug.rebirth_request(NOW_MS),
        sparkplug.encode(command_payload(Command("stop"), "a1", NOW_MS), datatypes=False),
        sparkplug.encode(command_payload(Command("set_point", "load", 60.0), "a1", NOW_MS), datatypes=False),
    ],
    ids=["rebirth", "stop", "set point"],
)
def test_commands_have_a_time_and_neither_sequence_number_nor_datatypes(body: bytes) -> None:
    """payloads-ncmd-timestamp, payloads-ncmd-seq, payloads-dcmd-timestamp, payloads-dcmd-seq,
    payloads-metric-datatype-not-req."""
    command = parsed(body)
    assert command.timestamp == NOW_MS
    assert not command.HasField("seq")
    assert command.metrics
    assert not any(metric.HasField("datatype") for metric in command.metrics)


@pytest.mark.parametrize("name", sorted(CATALOGUE))
def test_no_two_names_of_a_class_differ_only_in_case(name: str) -> None:
    """case-sensitivity-metric-names."""
    names = [signal.name.lower() for signal in CATALOGUE[name].signals]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("place", [1, 3, 4], ids=["group", "edge node", "device"])
@pytest.mark.parametrize("character", ["+", "#", "/", "\0", "A"])
def test_an_id_with_a_reserved_character_is_refused(place: int, character: str) -> None:
    """intro-group-id-chars, intro-edge-node-id-chars, intro-device-id-chars,
    topic-structure-namespace-valid-group-id, -edge-node-id and -device-id;
    case-sensitivity-sparkplug-ids: there are no capital letters, so no two ids differ only in case."""
    levels = topics.sparkplug("DDATA", "370202", "e1", "m1").split("/")
    levels[place] += character
    with pytest.raises(BadReading) as refused:
        topics.parse("/".join(levels))
    assert refused.value.reason is Reason.BAD_TOPIC


KILN = parse_own_class(
    (Path(__file__).parents[2] / "docs" / "examples" / "kiln.yaml").read_text(encoding="utf-8"), "kiln.yaml"
).equipment
LAST: list[payloads.Dated] = [(NOW_MS - 1000 * n, signal.nominal) for n, signal in enumerate(KILN.signals)]
BASIC_TYPES = range(1, 15)
"""Of the specification's datatypes, those that a column may have."""


@pytest.fixture
def kiln(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CATALOGUE, "kiln", KILN)


def kiln_messages() -> dict[str, Any]:
    """The edge node's birth, the unit's birth and its data, by Eclipse Tahu's schema."""
    shape = Shape(0, tuple(range(len(KILN.signals))))
    unit = SimpleNamespace(id="370202-kiln-0000001", class_name="kiln")
    sample = Sample(unit, NOW_MS, shape, [value for _, value in LAST])  # type: ignore[arg-type]
    part = Sample(unit, NOW_MS, Shape(0, (3,)), [60.0])  # type: ignore[arg-type]
    bodies = {
        "NBIRTH": payloads.node_birth(3, NOW_MS, 0, ["kiln", "kiln", "motor"]),
        "DBIRTH": payloads.device_birth(KILN, 32, LAST, 1),
        "DDATA": payloads.DataLayout(KILN, shape, 32, False).encode(sample, 2),
        "part": payloads.data(part, 32, 3, True),
    }
    return {name: tahu_pb.Payload.FromString(body) for name, body in bodies.items()}


def templates(payload: Any) -> list[Any]:
    return [metric for metric in payload.metrics if metric.HasField("template_value")]


@pytest.mark.usefixtures("kiln")
def test_a_template_is_defined_in_the_birth_of_the_edge_node() -> None:
    """topics-nbirth-templates, payloads-template-definition-nbirth-only, -is-definition, -ref, -nbirth,
    -parameters; payloads-template-is-definition, -is-definition-definition, -ref-definition."""
    messages = kiln_messages()
    [definition] = templates(messages["NBIRTH"])  # once, for however many units
    assert (definition.name, definition.datatype) == ("kiln_drive", DataType.TEMPLATE)
    value = definition.template_value
    assert value.HasField("is_definition")
    assert value.is_definition
    assert not value.HasField("template_ref")
    assert not value.HasField("version")
    assert not value.parameters
    for name in ("DBIRTH", "DDATA", "part"):
        found = templates(messages[name])
        assert found
        assert not any(each.template_value.is_definition for each in found)


@pytest.mark.usefixtures("kiln")
def test_an_instance_has_the_members_of_its_definition() -> None:
    """payloads-template-definition-members, payloads-template-instance-is-definition, -ref, -members,
    -members-birth, -members-data, -parameters; payloads-template-is-definition-instance, -ref-instance."""
    messages = kiln_messages()
    [definition] = templates(messages["NBIRTH"])
    defined = {member.name: member.datatype for member in definition.template_value.metrics}
    assert defined == {"Power": DataType.FLOAT, "Meter/Energy": DataType.DOUBLE}
    alias = {templates(messages[name])[0].alias for name in ("DBIRTH", "DDATA", "part")}
    assert alias == {32 + 3}
    for name in ("DBIRTH", "DDATA", "part"):
        [instance] = templates(messages[name])
        value = instance.template_value
        assert value.HasField("is_definition")
        assert (value.is_definition, value.template_ref) == (False, definition.name)
        assert not value.parameters
        assert {member.name for member in value.metrics} <= set(defined)
        assert all(member.timestamp for member in value.metrics)
        born = name == "DBIRTH"
        assert instance.name == ("Drive" if born else "")
        assert [member.HasField("datatype") for member in value.metrics] == [born] * len(value.metrics)
    [born] = templates(messages["DBIRTH"])
    assert {member.name: member.datatype for member in born.template_value.metrics} == defined
    [part] = templates(messages["part"])
    assert ([member.name for member in part.template_value.metrics], part.is_historical) == (["Power"], True)


@pytest.mark.usefixtures("kiln")
def test_a_data_set_has_a_name_and_a_basic_datatype_for_each_column() -> None:
    """payloads-dataset-column-size, -column-num-headers, -types-def, -types-num, -types-type, -types-value,
    -parameter-type-req, payloads-template-dataset-value."""
    messages = kiln_messages()
    for name in ("DBIRTH", "DDATA"):
        [metric] = [metric for metric in messages[name].metrics if metric.HasField("dataset_value")]
        table = metric.dataset_value
        assert (metric.name, metric.alias) == ("Shell scanner" if name == "DBIRTH" else "", 32 + 2)
        assert table.num_of_columns == len(table.columns) == len(table.types) == 3
        assert list(table.columns) == ["scanned", "Temperature", "Bricks lost"]
        assert list(table.types) == [DataType.DATETIME, DataType.FLOAT, DataType.INT64]
        assert set(table.types) <= set(BASIC_TYPES)
        for row in table.rows:
            fields = [element.WhichOneof("value") for element in row.elements]
            allowed = ("long_value", "float_value", "long_value")
            assert all(field in (None, want) for field, want in zip(fields, allowed, strict=True))
        times = [row.elements[0].long_value for row in table.rows]
        assert times == ([NOW_MS - 4000, NOW_MS - 2000] if name == "DBIRTH" else [NOW_MS])
    assert not any(metric.HasField("dataset_value") for metric in messages["part"].metrics)
