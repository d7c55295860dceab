"""Comparing expected with stored points: by column, with the same result as point by point."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from qilu.comparison import Expected
from qilu_contract.columns import Series, of_points
from qilu_contract.storage import BORN, Point
from qilu_contract.store import Chunk

TAGS = ("370200", "370202", "C34", "370202-e00001")
FIELDS = {"motor": ("power_in", "speed", "slip"), "pump": ("flow", "head", "speed")}


def unit(number: int) -> str:
    return f"unit-{number}"


def class_of(number: int) -> str:
    return ("motor", "pump")[number % 2]


def tags_of(number: int) -> tuple[str, ...]:
    return (TAGS[0], ("370202", "370203")[number % 3 == 0], *TAGS[2:], unit(number))


def made(draw: random.Random) -> dict[tuple[str, int], Point]:
    """Points that must be stored, sparse and full."""
    found = {}
    for _ in range(draw.randrange(60)):
        number, ts_ms = draw.randrange(12), 10**12 + draw.randrange(8)
        names = draw.sample(FIELDS[class_of(number)], draw.randint(1, 3))
        fields = {name: round(draw.uniform(-9, 9), 1) for name in names}
        found[unit(number), ts_ms] = Point(class_of(number), tags_of(number), ts_ms, fields)
    return found


def stored(expected: list[Point], draw: random.Random) -> list[Point]:
    """Points that a store might hold: some missing, some altered, some added."""
    found = []
    for point in expected:
        name = next(iter(point.fields))
        missing = {other for other in FIELDS[point.measurement] if other not in point.fields}
        change = draw.randrange(12)
        others = [
            point._replace(fields={**point.fields, name: 99.5}),
            point._replace(fields={**point.fields, BORN: draw.choice([5, 2**53 + 1])}),
            point._replace(fields={**point.fields, **dict.fromkeys(missing, 1.0)}),
            point._replace(tags=("370300", "370302", *point.tags[2:])),
            point._replace(ts_ms=point.ts_ms + draw.choice([-20, 3, 20])),
            point._replace(
                measurement="pump" if point.measurement == "motor" else "motor", fields={"speed": 1.0}
            ),
            point._replace(tags=(*point.tags[:-1], "stranger")),
            point._replace(fields={**point.fields, name: 2**60}),
        ]
        if change < 8:
            found.append(others[change])
        if change > 6:
            found.append(point)
        if change == 11:
            found.append(draw.choice(others))
    draw.shuffle(found)
    return list({(point.measurement, point.tags, point.ts_ms): point for point in found}.values())


def chunks(points: list[Point], draw: random.Random) -> list[tuple[str, Chunk]]:
    """As a store's scans find them, each of one measurement."""
    found = []
    for measurement in FIELDS:
        rest = [point for point in points if point.measurement == measurement]
        while rest:
            size = draw.randint(1, 20)
            some, rest = rest[:size], rest[size:]
            odd = [point for point in some if any(abs(value) >= 2**53 for value in point.fields.values())]
            plain = [point for point in some if point not in odd]
            owners: dict[tuple[str, ...], list[Point]] = {}  # one unit may be listed under several
            for point in plain:
                owners.setdefault(point.tags[:-1], []).append(point)
            columns = [each for those in owners.values() for each in of_points(those, Series(), {})]
            found.append((measurement, Chunk(odd, columns)))
    return found


@pytest.mark.parametrize("marks", [False, True])
@given(seed=st.integers(0, 2**32))
def test_what_is_found_is_counted_as_point_by_point(marks: bool, seed: int) -> None:
    draw = random.Random(seed)
    wanted = made(draw)
    numbers: dict[str, int] = {}
    expected = Expected(of_points(wanted.values(), Series(), numbers))
    told: Counter[str] = Counter()
    counted: Counter[str] = Counter()
    touched: dict[tuple[str, int], int] = Counter()
    good = set()
    for measurement, chunk in chunks(stored(list(wanted.values()), draw), draw):
        for found in expected.find(chunk, marks=marks):
            told["strange"] += int((found.places < 0).sum())
            told["again"] += int(found.again.sum())
            assert len(found.units) == len(found.counties) == len(found.ts_ms) == len(found.places)
        for point in chunk.all():
            assert point.measurement == measurement
            key = point.tags[-1], point.ts_ms
            if key not in wanted:
                counted["strange"] += 1
                continue
            counted["again"] += touched[key] > 0
            touched[key] += 1
            fields = {name: value for name, value in point.fields.items() if not marks or name != BORN}
            if point._replace(fields=fields) == wanted[key]:
                good.add(key)
    for name, which in (
        ("lost", expected.found == 0),
        ("altered", (expected.found > 0) & ~expected.good),
        ("all", expected.found >= 0),
    ):
        places = expected.in_order_of_time(which)
        by_place = expected.by_place(which.nonzero()[0])
        mine = [
            (point.measurement, point.tags[1])
            for key, point in wanted.items()
            if name == "all" or (key not in touched if name == "lost" else key in touched and key not in good)
        ]
        assert by_place == Counter(mine), name
        assert len(set(places)) == len(mine)
    assert told == counted


def test_nothing_expected_makes_all_of_it_strange() -> None:
    expected = Expected([])
    [columns] = of_points([Point("motor", tags_of(2), 5, {"power_in": 1.0})], Series(), {})
    [found] = expected.find(Chunk([], [columns]), marks=True)
    assert found.places.tolist() == [-1]
    assert len(expected) == 0
