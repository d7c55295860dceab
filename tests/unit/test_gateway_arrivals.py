"""Many messages at once: sequence numbers, acknowledgements in order, redeliveries."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from empty_state import EmptyState
from hypothesis import given
from hypothesis import strategies as st
from qilu_common.mqtt.codec import encode_pubacks
from qilu_common.mqtt.messages import DUP, Acknowledgements, Messages
from qilu_gateway.read.arrivals import Arrival, Settling, Window
from qilu_gateway.read.edge_nodes import EdgeNodes, SequenceNumbers


def edge_nodes(count: int) -> EdgeNodes:
    nodes = EdgeNodes(EmptyState())  # type: ignore[arg-type]
    for number in range(count):
        nodes.find("370202", f"e{number}")
    return nodes


steps = st.sampled_from([1, 1, 1, 1, 1, 1, 0, 2, 3, 254, 255])


@given(
    st.lists(st.tuples(st.integers(0, 3), steps), max_size=60),
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 3)), max_size=3),
)
def test_sequence_numbers_by_node_are_followed_as_one_after_the_other(
    came: list[tuple[int, int]], stops: list[tuple[int, int]]
) -> None:
    last = [254, 255, 0, 7]
    seqs = []
    for node, step in came:
        last[node] = (last[node] + step) % 256
        seqs.append(last[node])
    alone, together = edge_nodes(4), edge_nodes(4)
    wanted = []
    for (number, _), seq in zip(came, seqs, strict=True):
        gap, complete = alone[number].follow(seq)
        if gap or complete:
            wanted.append((number, gap, complete))
    numbers = SequenceNumbers(
        together,
        np.arange(len(came)),
        np.array([number for number, _ in came], dtype=np.int32),
        np.array(seqs, dtype=np.int16),
    )
    found = [each for place, node in sorted(stops) for each in numbers.follow_until(together[node], place)]
    found += numbers.follow_all()
    assert sorted((node.number, gap, complete) for node, gap, complete in found) == sorted(wanted)
    for number in range(4):
        assert (alone[number].last_seq, alone[number].missing) == (
            together[number].last_seq,
            together[number].missing,
        )


@given(st.permutations(range(1, 30)), st.lists(st.integers(1, 5), min_size=30, max_size=30))
def test_acknowledgements_go_out_once_and_in_order_as_long_as_few_are_held_back(
    order: list[int], sizes: list[int]
) -> None:
    acknowledgements = Acknowledgements(1000)
    acknowledgements.came([0, *range(1, 20), 0])
    acknowledgements.came(list(range(20, 30)))
    sent: list[int] = []
    for size in sizes:
        some, order = order[:size], order[size:]
        sent += acknowledgements.ready(some)
        assert sent == list(range(1, len(sent) + 1))
    assert sent == list(range(1, 30))


@given(st.permutations(range(1, 30)))
def test_one_message_that_takes_long_does_not_hold_up_all_others(order: list[int]) -> None:
    acknowledgements = Acknowledgements(8)
    acknowledgements.came(list(range(1, 30)))
    sent: list[int] = []
    for number, mid in enumerate(order, 1):
        sent += acknowledgements.ready([mid])
        assert number - 4 <= len(sent) <= number
    assert sorted(sent) == list(range(1, 30))


def test_an_acknowledgement_is_a_packet_of_four_bytes() -> None:
    assert encode_pubacks([1, 0xABCD]) == b"\x40\x02\x00\x01\x40\x02\xab\xcd"


def messages(*mids: int, flags: int = 0x32) -> Messages:
    """Message n has packet identifier n, unless another is wanted."""
    topics = [b"t%d" % (mid % 100) for mid in mids]
    return Messages(topics, [b"p%d" % (mid % 100) for mid in mids], list(mids), [flags] * len(mids))


@pytest.mark.parametrize("dup", [False, True])
def test_a_message_comes_again_on_another_connection_only(dup: bool) -> None:
    window = Window(10)
    first = Arrival(messages(1, 2, 3), 0, 1)
    assert window.again(first.messages, 0, 1) == {}
    window.add(first)
    assert window.again(messages(1), 0, 1) == {}  # the same content, sent twice
    first.settle(np.array([0]))
    first.was_acknowledged(1, np.array([0]))
    again = window.again(messages(101, 102, flags=0x32 | DUP if dup else 0x32), 0, 2)
    # The first was acknowledged: without the mark it is another message of the same content.
    assert {place: known.place for place, known in again.items()} == ({0: 0, 1: 1} if dup else {1: 1})
    assert first.due(2, np.arange(3)) == ([101, 102] if dup else [102])
    assert first.due(1, np.arange(3)) == ([3] if dup else [1, 3])


def test_what_has_left_the_window_is_new() -> None:
    window = Window(2)
    for mid in range(1, 8):
        window.again(messages(mid), 0, 1)
        window.add(arrival := Arrival(messages(mid), 0, 1))
        if mid > 1:  # the first one still waits
            arrival.settle(np.array([0]))
    found = window.again(messages(101, 102, 103, 104, 105, 106, 107, flags=DUP), 0, 2)
    assert sorted(found) == [0, 2, 3, 4, 5, 6]
    window.add(Arrival(messages(8, 9, 10, 11, 12), 0, 2))
    window.add(Arrival(messages(13), 0, 2))
    assert window.again(messages(107, flags=DUP), 0, 2) == {}


def test_arrivals_are_acknowledged_in_their_order_whatever_became_durable_first() -> None:
    first, second = Arrival(messages(1, 2, 3), 0, 1), Arrival(messages(4), 0, 1)
    settling = Settling()
    settling.add(second, np.array([0]))
    settling.add(first, np.array([2]))
    settling.add(first, np.array([0]))
    found: list[Any] = [(arrival, places) for arrival, places in settling.all()]
    assert [(arrival, places.tolist()) for arrival, places in found] == [(first, [0, 2]), (second, [0])]
    assert [arrival.due(1, places) for arrival, places in found] == [[1, 3], [4]]
