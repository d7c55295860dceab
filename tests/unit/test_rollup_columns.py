"""Minutes summed up by column are those that a loop over the readings finds, for every class."""

from __future__ import annotations

import random
from collections import defaultdict
from typing import NamedTuple

import numpy as np
import pytest
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.catalogue.key_signals import BIN_FIELDS, BINS, KEY_SIGNALS, MINUTE_MS, is_cumulative
from qilu_contract.catalogue.places import COUNTIES, PROVINCE, city_of
from qilu_contract.columns import Series, of_points
from qilu_contract.readings import Value
from qilu_contract.storage import Point
from qilu_gateway.rollups.class_rollups import ClassRollup

START_MS = 28_333_333 * MINUTE_MS
MINUTES = 4
PLACES = list(COUNTIES)[:7]


class Group(NamedTuple):
    minute: int
    level: str
    place: str
    signal: str


def tags(class_name: str, number: int) -> tuple[str, ...]:
    county = PLACES[number % len(PLACES)]
    industry = ("C13", "C34")[number % 2]
    return (city_of(county), county, industry, f"{county}-e00001", f"{county}-{class_name}-{number:07d}")


def reading(draw: random.Random, class_name: str, number: int, ts_ms: int) -> Point:
    """Some of the signals, in range and out of it; meters grow, and sometimes restart at 0."""
    fields: dict[str, Value] = {}
    for signal in CATALOGUE[class_name].signals:
        if draw.random() < 0.3:
            continue
        value = signal.low + (signal.high - signal.low) * draw.uniform(-0.05, 1.05)
        if is_cumulative(signal):
            value = ts_ms % 10_000_000 / 1000 if draw.random() < 0.9 else 1.0
        fields[signal.name] = {"float": value, "int": round(value), "bool": draw.random() < 0.5}[signal.type]
    return Point(class_name, tags(class_name, number), ts_ms, fields or {"power_in": 1.0})


def readings(draw: random.Random, class_name: str) -> list[Point]:
    """With times that come twice, in one message or apart, and in no order."""
    made = []
    for _ in range(400):
        ts_ms = START_MS + draw.randrange(MINUTES * 60) * 1000
        made.append(reading(draw, class_name, draw.randrange(20), ts_ms))
    return made + [
        reading(draw, class_name, int(point.tags[4][-7:]), point.ts_ms) for point in draw.sample(made, 60)
    ]


def expected(class_name: str, points: list[Point]) -> dict[Group, dict[str, float]]:
    """One reading after the other: of a unit and time the value that came last counts."""
    merged: dict[tuple[tuple[str, ...], int], dict[str, Value]] = {}
    for point in points:
        merged.setdefault((point.tags, point.ts_ms), {}).update(point.fields)
    values: dict[Group, list[tuple[str, float, float]]] = defaultdict(list)
    registers: dict[tuple[str, str], float] = {}
    for (unit_tags, ts_ms), fields in sorted(merged.items()):
        city, county, industry, _, unit = unit_tags
        for place, signal in enumerate(KEY_SIGNALS[class_name]):
            if signal.name not in fields:
                continue
            value = shown = float(fields[signal.name])
            if is_cumulative(signal):
                before = registers.get((unit, signal.name))
                registers[unit, signal.name] = value
                if before is None or value < before:
                    continue
                value -= before
            levels = [("province", PROVINCE), ("city", city), ("county", county)]
            for level, code in [*levels, *([("industry", industry)] if place == 0 else [])]:
                values[Group(ts_ms // MINUTE_MS, level, code, signal.name)].append((unit, value, shown))
    found: dict[Group, dict[str, float]] = {}
    for group, rows in values.items():
        signal = CATALOGUE[class_name].signal(group.signal)
        figures = [value for _, value, _ in rows]
        found[group] = {
            "units": len({unit for unit, _, _ in rows}),
            "n": len(rows),
            "sum": sum(figures),
            "min": min(figures),
            "max": max(figures),
            "out_of_range": sum(not signal.low <= shown <= signal.high for _, _, shown in rows),
        }
        if not is_cumulative(signal):
            steps = [int((value - signal.low) / (signal.high - signal.low) * BINS) for value in figures]
            found[group] |= {
                name: sum(min(max(step, 0), BINS - 1) == number for step in steps)
                for number, name in enumerate(BIN_FIELDS)
            }
    return found


@pytest.mark.parametrize("class_name", CATALOGUE)
def test_by_column_as_by_the_reading(class_name: str) -> None:
    draw = random.Random(class_name)
    points = readings(draw, class_name)
    rollup, series, numbers = ClassRollup(class_name), Series(), dict[str, int]()
    own = np.zeros(20, dtype=np.int32)
    sent = []
    for begin in range(0, len(points), 50):
        for columns in of_points(points[begin : begin + 50], series, numbers):
            # Points with other fields are in a separate group of the batch, so this is the order of arrival.
            sent += columns.points()
            new = np.unique(columns.rows[own[columns.rows] == 0])
            own[new] = rollup.number(series, new)
            assert not rollup.add(
                own[columns.rows], columns.ts_ms, columns.names, columns.values, float(begin)
            )
        if begin == 200:
            rollup.merge()
        if begin == 300:  # a stop and a restart, which numbers the units again
            body = rollup.dump(series, own)
            rollup, series, numbers, own = ClassRollup(class_name), Series(), {}, np.zeros(20, dtype=np.int32)
            rollup.load(body, float(begin))
    found = {}
    for minute in rollup.open_minutes():
        for point in rollup.sum_up(rollup.cut([minute]), "g"):
            if point.measurement != "fleet":
                continue
            level, place, city, _, signal, _ = point.tags
            assert city == (city_of(place) if level in ("city", "county") else PROVINCE)
            found[Group(point.ts_ms // MINUTE_MS, level, place, signal)] = point.fields
    want = expected(class_name, sent)
    assert found.keys() == want.keys()
    for group, fields in want.items():
        assert found[group] == pytest.approx(fields, rel=1e-9, abs=2e-6), group
