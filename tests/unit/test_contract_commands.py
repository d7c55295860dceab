"""Commands and answers on the wire."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from qilu_contract.wire import sparkplug
from qilu_contract.wire.commands import (
    Answer,
    Command,
    Refused,
    answer_metrics,
    command_id,
    command_payload,
    parse_answer,
    parse_command,
)
from qilu_contract.wire.sparkplug import DataType, Metric, Payload

NAMES = st.text(st.characters(categories=["Ll", "Nd"], include_characters="_"), min_size=1, max_size=30)
NUMBERS = st.floats(allow_nan=False)
COMMANDS = (
    st.sampled_from([Command("start"), Command("stop"), Command("reset")])
    | st.builds(Command, st.just("set_point"), NAMES, NUMBERS, st.none(), st.none())
    | st.builds(Command, st.just("fault"), NAMES, NUMBERS, st.none() | NUMBERS, st.none() | NUMBERS)
)


@given(COMMANDS, st.text(max_size=40))
def test_a_command_arrives_as_it_was_sent(command: Command, mark: str) -> None:
    arrived = sparkplug.decode(sparkplug.encode(command_payload(command, mark, 1_700_000_000_000)))
    assert parse_command(arrived) == command
    assert command_id(arrived) == mark


@given(st.text(max_size=40), NAMES, st.booleans(), st.text(max_size=100))
def test_an_answer_arrives_as_it_was_given(mark: str, unit: str, accepted: bool, reason: str) -> None:
    answer = Answer(mark, unit, "set_point load", accepted, reason, 1_700_000_000_000)
    payload = Payload(answer.at_ms, 3, answer_metrics(answer, answer.at_ms))
    assert parse_answer(sparkplug.decode(sparkplug.encode(payload))) == answer


def number(name: str, value: float) -> Metric:
    return Metric(name, datatype=DataType.DOUBLE, value=value)


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        ([], "holds 0"),
        ([number("Set Point/load", 1.0), number("Set Point/speed", 1.0)], "holds 2"),
        ([Metric("Device Control/Stop", datatype=DataType.BOOLEAN, value=False)], "takes true"),
        ([Metric("Device Control/Stop", datatype=DataType.BOOLEAN)], "takes true"),
        ([Metric("Set Point/load", datatype=DataType.STRING, value="60")], "takes a number"),
        ([Metric("Set Point/load", datatype=DataType.BOOLEAN, value=True)], "takes a number"),
        ([number("power_in", 3.0)], "'power_in' is no command"),
        ([number("x" * 100_000, 3.0)], "is no command"),
        ([Metric(alias=3, datatype=DataType.DOUBLE, value=1.0)], "is no command"),
        ([number("Fault Duration", 3.0)], "holds 0"),
    ],
)
def test_what_is_not_exactly_one_command_is_refused_in_a_sentence(metrics: list[Metric], said: str) -> None:
    with pytest.raises(Refused, match=said) as refused:
        parse_command(Payload(None, None, metrics))
    assert len(str(refused.value)) < 400


def test_other_data_of_an_edge_node_are_no_answer() -> None:
    assert parse_answer(Payload(1, 1, [])) is None
    assert parse_answer(Payload(1, 1, answer_metrics(None, 1))) is None
