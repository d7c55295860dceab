"""Working time, stops with reasons and output agree with what the simulated machines really did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray
from qilu_common.effectiveness import GAP_MS, Accounts, UnitAccounts
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.catalogue.effectiveness import EFFECTIVENESS, STOP_FIELDS
from qilu_contract.catalogue.key_signals import MINUTE_MS
from qilu_contract.catalogue.places import PROVINCE, city_of
from qilu_contract.columns import Series, of_points
from qilu_contract.storage import Point
from qilu_devices.classes.cnc import PART_MIN, CncMachines
from qilu_devices.classes.heat_treatment import Pasteurisers
from qilu_devices.classes.loom import Looms
from qilu_devices.kernel import Kernel, severities
from qilu_devices.noise import Streams, keys_of
from qilu_gateway.rollups.class_rollups import ClassRollup

STEP_S = 5
MONDAY_11_H = 1_767_582_000_000  # 5 January 2026, 11:00 in Shanghai
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Played:
    """Signals that a kernel produced (steps × units), and its readings, by unit and time."""

    made: dict[str, Array]
    units: NDArray[np.int32]
    times: NDArray[np.int64]
    values: Array


def streams(units: int) -> tuple[Streams, Streams]:
    unit, enterprise = (
        Streams(keys_of(7, [f"{prefix}{number}" for number in range(units)]))
        for prefix in ("unit", "enterprise")
    )
    return unit, enterprise


def play(class_name: str, kernel: Kernel, units: int, steps: int) -> Played:
    rule, class_ = EFFECTIVENESS[class_name], CATALOGUE[class_name]
    start = np.full(units, MONDAY_11_H, dtype=np.int64)
    produced = [kernel.step(k, start + k * STEP_S * 1000) for k in range(steps)]
    made = {name: np.array([step[name] for step in produced]) for name in rule.signals}
    columns = []
    for name in rule.signals:
        every = max(1, class_.signal(name).interval_s // STEP_S)
        column = np.full((units, steps), np.nan)
        column[:, ::every] = made[name].T[:, ::every]
        columns.append(column.ravel())
    times = start[:, np.newaxis] + np.arange(steps) * STEP_S * 1000
    return Played(
        made,
        np.repeat(np.arange(units, dtype=np.int32), steps),
        times.ravel(),
        np.column_stack(columns),
    )


def counted(played: Played, class_name: str, minutes: bool = False) -> list[Accounts]:
    """The accounts of all rows at once, or minute by minute as the gateway closes them."""
    accounts = UnitAccounts(EFFECTIVENESS[class_name])
    minute = played.times // MINUTE_MS if minutes else np.zeros_like(played.times)
    return [
        accounts.add(played.units[mine], played.times[mine], played.values[mine])
        for number in np.unique(minute)
        for mine in [minute == number]
    ]


def totals(found: Sequence[Accounts]) -> Array:
    return sum(
        np.array(
            [
                each.planned_s.sum(),
                each.run_s.sum(),
                each.ideal_s.sum(),
                each.good_s.sum(),
                *each.stop_s.sum(0),
            ]
        )
        for each in found
    )  # type: ignore[return-value]  # sum of arrays


@pytest.mark.parametrize("minutes", [False, True])
def test_stops_of_looms_have_the_time_and_the_reason_of_the_simulation(minutes: bool) -> None:
    units, steps = 40, 1440
    kernel = Looms(*streams(units), STEP_S)
    played = play("loom", kernel, units, steps)
    stopped = (played.made["speed"][:-1] == 0).T  # the state from each step to the next
    # Counts only rise when a stop begins; the last one that rose is the reason.
    rises = np.array([np.diff(played.made[name], axis=0, prepend=0) for name in EFFECTIVENESS["loom"].stops])
    rises[:, 0] = 0
    kind = np.where(rises.max(axis=0) > 0.5, rises.argmax(axis=0), -1)
    for step in range(1, steps):
        kind[step] = np.where(kind[step] < 0, kind[step - 1], kind[step])
    truth = [(stopped & (number == kind[:-1].T)).sum() * STEP_S for number in range(3)]

    planned, run, ideal, good, *stops = totals(counted(played, "loom", minutes))
    assert planned == units * (steps - 1) * STEP_S
    assert planned - run == stopped.sum() * STEP_S
    picks = np.floor(played.made["picks"])
    last = (steps - 1) // 12 * 12
    assert ideal == good == pytest.approx((picks[last] - picks[0]).sum() * EFFECTIVENESS["loom"].ideal_s[0])
    # A second short stop between two reports of the counts may have another reason than the first, and
    # the reason of those at the end is not reported yet.
    assert stops == pytest.approx(truth, abs=0.02 * sum(truth))
    assert sum(stops) == pytest.approx(sum(truth), rel=0.02)


def test_parts_of_cnc_machines_and_their_pauses_are_those_of_the_simulation() -> None:
    units, steps = 60, 2160  # three hours about noon
    kernel = CncMachines(*streams(units), STEP_S)
    at_work = []

    class Watched:
        def step(self, k: int, t_ms: NDArray[np.int64]) -> dict[str, Array]:
            found = kernel.step(k, t_ms)
            at_work.append(kernel._shifts.running(t_ms))
            return found

    played = play("cnc", Watched(), units, steps)  # type: ignore[arg-type]  # no faults, no commands
    on = np.array(at_work)
    pauses = (np.diff(on, axis=0) < 0).sum()
    planned, run, ideal, good, failed = totals(counted(played, "cnc"))
    assert planned == units * (steps - 1) * STEP_S
    # A pause of the calendar is seen when it is longer than what a change of parts may take.
    over = run - on[:-1].sum() * STEP_S
    assert pauses > 10
    assert -10.0 * units <= over <= pauses * (EFFECTIVENESS["cnc"].hold_s + 2 * STEP_S)
    parts, last = played.made["parts"], (steps - 1) // 12 * 12
    minutes = PART_MIN[played.made["quality"].astype(int)]
    made_min = (np.diff(parts, axis=0) * minutes[:-1])[:last].sum()
    assert ideal == pytest.approx(60 * made_min, rel=0.02)
    # Of the parts, those in which some sample failed are not good.
    bad = 0.0
    for unit in range(units):
        for part in np.unique(parts[: last + 1, unit])[:-1]:
            mine = parts[:, unit] == part
            bad += minutes[mine, unit][0] * (played.made["failure"][mine, unit] > 0).any()
    assert 1 - good / ideal == pytest.approx(bad / made_min, abs=0.03)
    assert 0 <= failed <= planned - run


def test_diverted_product_is_not_good() -> None:
    units, steps = 20, 1440
    kernel = Pasteurisers(*streams(units), STEP_S)

    class Cold:
        """The heaters of half of the units are weak."""

        def step(self, k: int, t_ms: NDArray[np.int64]) -> dict[str, Array]:
            return kernel.step(k, t_ms, severities({"under_temperature": (np.arange(units) % 2) * 1.0}))

    played = play("pasteuriser", Cold(), units, steps)  # type: ignore[arg-type]  # no commands
    flows = np.repeat(played.made["product_flow"][::2] > 0, 2, axis=0)  # it is sampled every 10 s
    diverted = played.made["diversion"] > 0
    planned, run, ideal, good = totals(counted(played, "pasteuriser"))
    assert planned == units * (steps - 1) * STEP_S
    assert run == ideal == flows[:-1].sum() * STEP_S < planned
    assert good == (flows & ~diverted)[:-1].sum() * STEP_S
    assert 0.2 * ideal < good < 0.9 * ideal


def test_time_that_nobody_saw_is_not_planned() -> None:
    accounts = UnitAccounts(EFFECTIVENESS["robot"])
    units = np.zeros(4, dtype=np.int32)
    times = np.array([0, 1000, 1000 + GAP_MS + 1, 2000 + GAP_MS + 1], dtype=np.int64) + MONDAY_11_H
    values = np.array([[40.0, 30.0], [40.0, np.nan], [0.0, np.nan], [0.0, 0.0]])
    found = accounts.add(units, times, values)
    assert found.planned_s.tolist() == [0, 1, 0, 1]
    assert found.run_s.tolist() == [0, 1, 0, 0]
    assert found.ideal_s.tolist() == pytest.approx([0, 16.5 / 30, 0, 0])
    assert accounts.add(units[:1], times[1:2], values[1:2]).planned_s.tolist() == [0]  # again, and late


def test_roll_ups_add_up_over_places_and_go_on_after_a_restart() -> None:
    units, steps = 12, 60
    played = play("loom", Looms(*streams(units), STEP_S), units, steps)
    rollup, series, numbers = ClassRollup("loom"), Series(), dict[str, int]()
    counties = ("370102", "370202", "370211")
    own = np.zeros(units, dtype=np.int32)
    for step in range(0, steps, 12):
        points = []
        for row in range(units * steps):
            if row % steps // 12 * 12 == step:
                number = int(played.units[row])
                county = counties[number % 3]
                tags = (
                    city_of(county),
                    county,
                    "C17",
                    f"{county}-e{number % 4:05d}",
                    f"{county}-loom-{number}",
                )
                fields = {
                    name: float(value)
                    for name, value in zip(EFFECTIVENESS["loom"].signals, played.values[row], strict=True)
                    if value == value
                }
                points.append(Point("loom", tags, int(played.times[row]), fields))
        for columns in of_points(points, series, numbers):
            new = np.unique(columns.rows[own[columns.rows] == 0])
            own[new] = rollup.number(series, new)
            rollup.add(own[columns.rows], columns.ts_ms, columns.names, columns.values, 1.0)
        if step == 24:
            body = rollup.dump(series, own)
            rollup, series, numbers, own = ClassRollup("loom"), Series(), {}, np.zeros(units, dtype=np.int32)
            rollup.load(body, 1.0)
    by_level: dict[str, Array] = {}
    for minute in rollup.open_minutes():
        for point in rollup.sum_up(rollup.cut([minute]), "g"):
            if point.measurement == "effectiveness":
                names = ("planned_s", "run_s", "ideal_s", "good_s", *STOP_FIELDS)
                row_ = np.array([point.fields[name] for name in names], dtype=np.float64)
                by_level[point.tags[0]] = by_level.get(point.tags[0], 0) + row_
                assert point.tags[0] != "province" or point.tags[1:3] == (PROVINCE, PROVINCE)
    assert by_level.keys() == {"province", "city", "county", "enterprise"}
    want = totals(counted(played, "loom", minutes=True))
    for sums in by_level.values():
        assert sums == pytest.approx(want, abs=0.1)
