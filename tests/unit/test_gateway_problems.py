"""Problems reported to owners: bounded, fair, and counted once."""

from __future__ import annotations

from typing import Any

import pytest
from qilu_gateway.read import receipts
from qilu_gateway.read.receipts import Receipts
from qilu_gateway.settle.problems import MAX_EXCERPT, MAX_OF_ENTERPRISE, MAX_TOGETHER, MAX_WAITING, Problems

PLACE = ("works", "370202")


def problems() -> Problems:
    return Problems(None)  # type: ignore[arg-type]  # nothing is delivered here


def drained(found: Problems) -> list[Any]:
    everything = []
    while some := found.drain():
        assert len(some) <= MAX_TOGETHER
        everything += some
    return everything


def test_one_entry_for_a_unit_and_reason_with_the_latest_excerpt() -> None:
    found = problems()
    found.note("m1", *PLACE, "bad_timestamp", "first", 2)
    found.note("m1", *PLACE, "bad_timestamp", "second\x00\ud800" + "x" * 1000)
    found.note("m1", *PLACE, "wrong_type", "other")
    first, second = drained(found)
    assert (first.unit, first.count, first.excerpt[:8]) == ("m1", 3, "second  ")
    assert len(first.excerpt) == MAX_EXCERPT
    assert (second.reason, second.count) == ("wrong_type", 1)
    assert drained(found) == []


def test_what_names_no_owner_is_nobodys() -> None:
    found = problems()
    found.note("m1", "", "370202", "bad_topic", "")
    found.note("M 1", *PLACE, "bad_topic", "")
    found.note("m1", "works", "here", "bad_topic", "")
    assert drained(found) == []


def test_an_enterprise_does_not_crowd_others_out_and_no_reading_goes_uncounted() -> None:
    found = problems()
    for number in range(3 * MAX_OF_ENTERPRISE):
        found.note(f"u{number}", *PLACE, "unknown_unit", "")
    found.note("m1", "others", "370202", "unknown_unit", "")
    everything = drained(found)
    mine = [each for each in everything if each.enterprise == "works"]
    assert len(mine) == MAX_OF_ENTERPRISE + 1
    assert sum(each.count for each in mine) == 3 * MAX_OF_ENTERPRISE
    assert mine[-1].unit == "works"
    assert [each.unit for each in everything if each.enterprise == "others"] == ["m1"]


def test_what_waits_is_bounded() -> None:
    found = problems()
    for number in range(MAX_WAITING + 10):
        found.note("m1", f"works-{number}", "370202", "unknown_unit", "")
    assert len(drained(found)) == MAX_WAITING


def test_times_of_receipt_differ_and_follow_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1_800_000_000_000]
    monkeypatch.setattr(receipts, "wall_ms", lambda: now[0])
    known = Receipts()
    first = [known.receive("a", b"x", packet, dup=False).ts_ms for packet in (1, 2, 0)]
    assert first == [now[0], now[0] + 1, now[0] + 2]
    assert known.receive("b", b"x", 3, dup=False).ts_ms == now[0]
    now[0] -= 7_200_000  # the clock was two hours ahead
    assert known.receive("a", b"x", 4, dup=False).ts_ms == now[0]
    assert known.receive("a", b"x", 1, dup=True).ts_ms == first[0]  # delivered again
    assert known.receive("a", b"y", 2, dup=True).ts_ms == now[0] + 1  # another message under its identifier
    assert known.receive("a", b"x", 1, dup=False).ts_ms == now[0] + 2


def test_a_lasting_gap_is_a_problem_of_the_edge_node() -> None:
    found = problems()
    found.note_gap(("370202", "my-works"))
    [gap] = found.drain()
    assert (gap.unit, gap.enterprise, gap.county, gap.reason, gap.count) == (
        "my-works",
        "my-works",
        "370202",
        "sequence_gap",
        1,
    )
