"""Hourly rows: their content is the same whichever process starts them."""

from __future__ import annotations

from collections import defaultdict

import pytest
from qilu_contract.catalogue.key_signals import MINUTE_MS
from qilu_contract.storage import HOURLY, MEASUREMENTS, Point
from qilu_stores import hours
from qilu_stores.hours import HOUR_MS, Hours

START_MS = 500_000 * HOUR_MS


def fleet(minute: int, **fields: float) -> Point:
    tags = ("province", "370000", "370000", "motor", "power_in", "g")
    return Point("fleet", tags, START_MS + minute * MINUTE_MS, fields)


def pipeline(second: int, **fields: float) -> Point:
    return Point("pipeline", ("g",), START_MS + second * 1000, fields)


def stored(written: list[Point]) -> dict[tuple[str, tuple[str, ...], int], Point]:
    """Points in a store: one with the same name, tags and time replaces the earlier one."""
    return {(point.measurement, point.tags, point.ts_ms): point for point in written}


def test_each_field_is_folded_as_the_schema_says() -> None:
    folded = Hours()
    folded.fold([fleet(0, units=3, n=18, sum=30.0, min=1.0, max=2.5, bin_0=4)])
    [row] = folded.fold([fleet(5, units=2, n=12, sum=20.0, min=0.5, max=2.0, bin_0=1)])
    assert (row.measurement, row.tags) == ("fleet_hourly", fleet(0).tags)
    assert START_MS <= row.ts_ms < START_MS + 1000
    assert row.fields == {"units": 3, "n": 30, "sum": 50.0, "min": 0.5, "max": 2.5, "bin_0": 5}
    folded = Hours()
    [row] = folded.fold(
        pipeline(2 * n, accepted=100 * n, accepted_per_s=10.0 * n, lag_ms=float(7 - n)) for n in range(5)
    )
    assert row.fields == {"accepted": 400, "accepted_per_s": pytest.approx(20.0), "lag_ms": 7.0}


def test_hours_stay_apart_and_points_may_come_in_any_order() -> None:
    folded = Hours()
    rows = folded.fold([fleet(61, n=1), fleet(0, n=2), fleet(60, n=4), fleet(59, n=8)])
    found = {row.ts_ms // HOUR_MS: row.fields["n"] for row in rows}
    assert found == {START_MS // HOUR_MS: 10, START_MS // HOUR_MS + 1: 5}


def test_minutes_of_many_hours_add_up_whoever_writes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two writers one after the other, and one that comes back to an hour it has forgotten."""
    written: list[Point] = []
    folded = Hours()
    for minute in range(400):
        written += folded.fold([fleet(minute, n=1)])
    written += folded.fold([fleet(30_000, n=1), fleet(3, n=1)])
    written += folded.fold([fleet(4, n=1)])
    monkeypatch.setattr(hours, "wall_ms", lambda: 17)
    other = Hours()
    monkeypatch.setattr(hours, "wall_ms", lambda: 18)
    third = Hours()
    for who in (other, third):
        for minute in range(360, 420):
            written += who.fold([fleet(minute, n=1)])
    found: dict[int, float] = defaultdict(int)
    for point in stored(written).values():
        found[(point.ts_ms - START_MS) // HOUR_MS] += point.fields["n"]
    expected = {**dict.fromkeys(range(6), 60), 6: 40 + 120, 500: 1}
    expected[0] += 2
    assert dict(found) == expected


def test_a_stop_shows_what_is_open_and_the_next_start_counts_it_once() -> None:
    first = Hours()
    written = first.fold([fleet(0, n=6)])
    written += first.fold([fleet(1, n=2), fleet(60, n=1)], remember=False)
    assert sum(point.fields["n"] for point in stored(written).values()) == 9
    second = Hours()
    second.load(first.dump())
    written += second.fold([fleet(1, n=6), fleet(60, n=6)])
    assert sum(point.fields["n"] for point in stored(written).values()) == 18


def test_a_minute_before_the_open_ones_closes_after_the_start() -> None:
    first = Hours()
    written = first.fold([fleet(2, n=5)], remember=False)
    second = Hours()
    second.load(first.dump())
    written += second.fold([fleet(1, n=1), fleet(2, n=5)])
    assert sum(point.fields["n"] for point in stored(written).values()) == 6


def test_time_that_goes_back_has_whole_hours_too() -> None:
    folded = Hours()
    folded.fold([fleet(60 * 1000, n=1), fleet(60 * 1001, n=1)])
    written = [row for minute in range(120) for row in folded.fold([fleet(minute, n=1)])]
    assert [point.fields["n"] for point in stored(written).values()] == [60, 60]


def test_writers_who_all_write_the_same_share_a_row() -> None:
    tags = ("province", "370000")
    written = []
    for units in (1, 2):  # another replica, or the next start
        point = Point("programme", tags, START_MS + units * MINUTE_MS, {"units_on_cloud": units})
        written += Hours(shared=True).fold([point])
    assert [(row.ts_ms, row.fields) for row in stored(written).values()] == [
        (START_MS, {"units_on_cloud": 2})
    ]


def test_rows_by_the_hour_are_of_a_measurement_beside_the_other() -> None:
    assert {name for name in MEASUREMENTS if name.endswith(HOURLY)} == {
        name + HOURLY
        for name in (
            *("fleet", "effectiveness", "pipeline", "programme", "dead_letter", "rollup", "platform"),
            "security",
        )
    }
    for name, schema in MEASUREMENTS.items():
        if schema.hourly is not None:
            hourly = MEASUREMENTS[name + HOURLY]
            assert (hourly.tags, hourly.fields) == (schema.tags, schema.fields)
            assert schema.hourly.keys() <= schema.fields.keys()
