"""Messages of edge nodes, gateway and platform, field by field, as Sparkplug 3.0 requires them. The ids are
in the docstrings; `docs/sparkplug.md` lists all of them."""

from __future__ import annotations

import pytest
from qilu_contract import sparkplug_b_pb2 as pb
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.errors import BadReading, Reason
from qilu_contract.wire import sparkplug, topics
from qilu_contract.wire.commands import Answer, Command, command_payload
from qilu_contract.wire.marks import Mark
from qilu_contract.wire.sparkplug import DataType
from qilu_devices.edge import payloads

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
