"""Topics are parsed together: each gives the same result whatever the topics beside it."""

from __future__ import annotations

import pytest
from qilu_gateway.read.unit_topics import BIRTH, HISTORIC, JSON, LIVE, Topic, parse

OWN = ("370202", "370202-e00001", "m1")
TOPICS: list[tuple[bytes, Topic | None]] = [
    (b"qilu/v1/370202/370202-e00001/m1/telemetry", Topic(JSON, *OWN)),
    (b"spBv1.0/370202/DDATA/370202-e00001/m1", Topic(LIVE, *OWN)),
    (b"spBv1.0/370202/DBIRTH/370202-e00001/m1", Topic(LIVE + BIRTH, *OWN)),
    (b"qilu/history/spBv1.0/370202/DDATA/370202-e00001/m1", Topic(HISTORIC, *OWN)),
    (b"qilu/history/spBv1.0/370202/DBIRTH/370202-e00001/m1", Topic(HISTORIC + BIRTH, *OWN)),
    (b"spBv1.0/370202/NDATA/370202-e00001", None),
    (b"qilu/v1/370202/370202-e00001/M1/telemetry", None),
    (b"qilu/v1/370202/370202-e00001/m1/telemetry/", None),
    (b"qilu/v1/370202/\xff/m1/telemetry", None),
    (b"", None),
]
BROKEN = [
    b"qilu/v1/370202/370202-e00001/m1/telemetry\n",
    b"\nqilu/v1/370202/370202-e00001/m1/telemetry",
    b"x\nspBv1.0/370202/DDATA/370202-e00001/m1",
]


def test_topics_of_units_are_found_among_others() -> None:
    assert parse([name for name, _ in TOPICS]) == [topic for _, topic in TOPICS]
    assert parse([]) == []


@pytest.mark.parametrize("broken", BROKEN)
def test_a_topic_with_a_line_break_is_not_a_units_and_moves_no_other(broken: bytes) -> None:
    names = [name for name, _ in TOPICS]
    expected = [topic for _, topic in TOPICS]
    assert parse([*names, broken, *names]) == [*expected, None, *expected]
