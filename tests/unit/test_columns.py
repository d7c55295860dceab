"""Points by column are the same points."""

from __future__ import annotations

import numpy as np
import pytest
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.columns import EXACT, Columns, Series, of_points
from qilu_contract.storage import BORN, Point, line_protocol

MOTOR = CATALOGUE["motor"]
WHOLE = {signal.name: signal.nominal for signal in MOTOR.signals}


def _tags(number: int) -> tuple[str, ...]:
    return ("3702", "370202", "C34", "370202-e00001", f"370202-motor-{number:07d}")


def _columns(points: list[Point]) -> list[Columns]:
    return of_points(points, Series(), {})


def test_points_by_column_are_the_same_points() -> None:
    points = [Point("motor", _tags(at), 1_700_000_000_000 + at, WHOLE) for at in range(3000)]
    points.append(Point("motor", _tags(7), 1_700_000_001_000, {"power_in": 1.5, BORN: 1_700_000_000_123}))
    found = _columns(points)
    assert [len(each) for each in found] == [3000, 1]
    again = [point for each in found for point in each.points()]
    assert again == points
    assert line_protocol(again) == line_protocol(points)


def test_a_value_that_is_not_there_is_no_field() -> None:
    [columns] = _columns([Point("motor", _tags(1), 1_700_000_000_000, WHOLE)])
    columns.values[0, 1:] = np.nan
    [point] = columns.points()
    assert list(point.fields) == [columns.names[0]]


def test_some_of_the_points_can_be_taken() -> None:
    points = [Point("motor", _tags(at), 1_700_000_000_000 + at, WHOLE) for at in range(10)]
    [columns] = _columns(points)
    assert columns.take(columns.ts_ms % 2 == 1).points() == points[1::2]
    assert columns.take(np.array([3, 1])).points() == [points[3], points[1]]


@pytest.mark.parametrize("id_", ["370202-motor-{}", "a unit, {}=0"], ids=["plain", "escaped"])
def test_a_line_begins_alike_both_ways(id_: str) -> None:
    series = Series()
    units = [(*_tags(at)[:-1], id_.format(at)) for at in range(2000)]
    numbers = np.array([series.add("motor", tags) for tags in units], dtype=np.int32)
    for tags, *start in zip(units, *series.line_starts(numbers), strict=True):
        line = line_protocol([Point("motor", tags, 1_700_000_000_000, {"power_in": 1.0})])
        assert line.decode() == f"{''.join(start)} power_in=1.0 1700000000000"


def test_an_integer_that_a_column_cannot_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="beyond"):
        _columns([Point("motor", _tags(1), 1_700_000_000_000, {BORN: EXACT + 1})])
