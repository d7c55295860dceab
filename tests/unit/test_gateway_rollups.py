"""Roll-ups: exact sums by minute and place, whatever the order and however often readings come."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from qilu_contract.catalogue.classes import CATALOGUE, EquipmentClass, Signal
from qilu_contract.catalogue.key_signals import BIN_FIELDS, KEY_SIGNALS, MINUTE_MS, bin_edges, key_signals
from qilu_contract.catalogue.limits import LIMITS, alarm_limits
from qilu_contract.catalogue.places import PROVINCE
from qilu_contract.columns import Series, of_points
from qilu_contract.storage import Point
from qilu_contract.store import SeriesQuery
from qilu_gateway.metrics import Counters
from qilu_gateway.rollups import class_rollups, rollups
from qilu_gateway.rollups.class_rollups import ClassRollup
from qilu_gateway.rollups.rollups import Rollups
from qilu_gateway.statefile import StateFile
from qilu_gateway.write.store_gate import StoreGate
from qilu_stores import open_store
from qilu_stores.hours import HOUR_MS

START_MS = 28_333_333 * MINUTE_MS
COUNTIES = ("370202", "370203", "370102")


def tags(number: int) -> tuple[str, ...]:
    county = COUNTIES[number % len(COUNTIES)]
    return (county[:4] + "00", county, "C34", f"{county}-e00001", f"{county}-motor-{number:07d}")


def reading(number: int, ts_ms: int, power: float, **more: float) -> Point:
    return Point("motor", tags(number), ts_ms, {"power_in": power, "winding_temp": 80.0, **more})


class Opened:
    """Roll-ups on a state file and a store of the test's own, DuckDB if not another."""

    def __init__(self, folder: Path, store: str | None = None) -> None:
        self.state = StateFile(folder / "state", [rollups.SCHEMA])
        self.store = open_store(store or f"duckdb:///{folder / 'store.duckdb'}")
        gate = StoreGate(self.store, Counters(), list, batch_size=5_000, spooling=False)
        self.rollups = Rollups("g", self.state, gate)
        self._series, self._numbers = Series(), dict[str, int]()

    async def __aenter__(self) -> Opened:
        await self.state.__aenter__()
        await self.store.__aenter__()
        await self.rollups.open()
        return self

    async def __aexit__(self, *_: Any) -> None:
        await self.store.__aexit__(None, None, None)
        await self.state.__aexit__(None, None, None)

    def add(self, points: Sequence[Point], repeats: Sequence[NDArray[np.bool_]] | None = None) -> None:
        self.rollups.add_columns(of_points(points, self._series, self._numbers, exact=False), repeats)

    async def close_all(self) -> None:
        await self.rollups.sweep(time.monotonic() + class_rollups.HEARD_S + 1)

    async def row(self, level: str, place: str, signal: str, minute: int = 0) -> dict[str, Any]:
        at_ms = START_MS + minute * MINUTE_MS
        names = ["units", "n", "sum", "min", "max", "out_of_range", *BIN_FIELDS]
        wanted = {"level": level, "place": place, "class": "motor", "signal": signal}
        rows = await self.store.series(SeriesQuery("fleet", wanted, names, at_ms, at_ms + 1))
        return rows[0].values if rows else {}

    async def hours(self, level: str, place: str) -> float:
        """Number of readings in all hourly rows."""
        wanted = {"level": level, "place": place, "signal": "power_in"}
        rows = await self.store.series(
            SeriesQuery("fleet_hourly", wanted, ["n"], START_MS - HOUR_MS, START_MS + HOUR_MS)
        )
        return sum(float(row.values["n"] or 0) for row in rows)


async def test_a_minute_adds_up_in_every_place_whatever_comes_twice_and_in_whatever_order(
    tmp_path: Path,
) -> None:
    draw = random.Random(1)
    made = [
        reading(number, START_MS + minute * MINUTE_MS + step * 10_000, draw.uniform(5, 20))
        for number in range(9)
        for minute in range(3)
        for step in range(6)
    ]
    sent = made + draw.sample(made, 40)
    draw.shuffle(sent)
    async with Opened(tmp_path) as it:
        for begin in range(0, len(sent), 50):
            it.add(sent[begin : begin + 50])
        await it.close_all()
        want: dict[tuple[str, int], list[float]] = defaultdict(list)
        for point in made:
            minute = (point.ts_ms - START_MS) // MINUTE_MS
            for place in (PROVINCE, point.tags[0], point.tags[1], point.tags[2]):
                want[place, minute].append(float(point.fields["power_in"]))
        levels = {PROVINCE: "province", "370200": "city", "370100": "city", "C34": "industry"}
        for (place, minute), values in want.items():
            row = await it.row(levels.get(place, "county"), place, "power_in", minute)
            assert row["n"] == len(values)
            assert row["units"] == len(values) / 6
            assert row["sum"] == pytest.approx(sum(values))
            assert (row["min"], row["max"]) == (min(values), max(values))
            edges = bin_edges(CATALOGUE["motor"].signal("power_in"))
            counts, _ = np.histogram(values, edges)
            assert [row[name] for name in BIN_FIELDS] == counts.tolist()
        for place in {place for place, _ in want}:
            wanted = sum(len(values) for (at, _), values in want.items() if at == place)
            assert await it.hours(levels.get(place, "county"), place) == wanted


async def test_what_a_birth_repeats_is_not_counted_again(tmp_path: Path) -> None:
    first = [reading(number, START_MS + number, 10.0) for number in range(3)]
    again = [*first, reading(0, START_MS + 50, 11.0), reading(3, START_MS + 50, 12.0)]
    mask = np.array([True, True, False, True, True])
    async with Opened(tmp_path) as it:
        it.add(first)
        it.add(again, [mask])
        assert (
            it.rollups.tally.rolled == 6
        )  # that of unit 2 is not marked: the minute has it once all the same
        await it.close_all()
        assert (await it.row("province", PROVINCE, "power_in"))["n"] == 5
        # Even when its minute is closed: it is not late, but known.
        it.add(again, [np.ones(5, dtype=np.bool_)])
        assert it.rollups.tally.late == 0


async def test_units_are_numbered_by_one_series(tmp_path: Path) -> None:
    async with Opened(tmp_path) as it:
        it.rollups.add_columns(of_points([reading(0, START_MS, 10.0)], Series(), {}))
        with pytest.raises(ValueError, match="two series"):
            it.add([reading(0, START_MS, 10.0)])


async def test_a_late_reading_is_counted_and_changes_nothing(tmp_path: Path) -> None:
    async with Opened(tmp_path) as it:
        it.add([reading(0, START_MS, 10.0)])
        await it.close_all()
        before = await it.row("province", PROVINCE, "power_in")
        it.add([reading(0, START_MS + 1, 99.0)])
        await it.close_all()
        assert await it.row("province", PROVINCE, "power_in") == before
        assert (it.rollups.tally.rolled, it.rollups.tally.late) == (1, 1)


async def test_a_minute_stays_open_until_its_class_is_past_it_and_nothing_more_comes(tmp_path: Path) -> None:
    async with Opened(tmp_path) as it:
        now_s = time.monotonic()
        it.add([reading(0, START_MS, 10.0)])
        await it.rollups.sweep(now_s + class_rollups.HOLD_S + 1)
        assert not await it.row("province", PROVINCE, "power_in")
        it.add([reading(unit, START_MS + 4 * MINUTE_MS, 10.0) for unit in (0, 1)])
        await it.rollups.sweep(now_s + 1)
        assert not await it.row("province", PROVINCE, "power_in")
        await it.rollups.sweep(now_s + class_rollups.HOLD_S + 1)
        assert (await it.row("province", PROVINCE, "power_in"))["n"] == 1
        assert not await it.row("province", PROVINCE, "power_in", 4)


@pytest.mark.parametrize(
    ("units", "ahead_s", "speed"), [(2, 480, 1), (5, 480, 30), (5, 480, 1), (5, 100, 1), (5, -600, 1)]
)
async def test_no_units_clock_closes_the_others_minutes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, units: int, ahead_s: int, speed: int
) -> None:
    """The last unit's clock goes wrong; the others report every 50 s, which is longer than HOLD_S."""
    now_s = [time.monotonic()]
    monkeypatch.setattr(rollups.time, "monotonic", lambda: now_s[0])
    began_s = now_s[0]
    late = 0
    async with Opened(tmp_path) as it:
        for second in range(0, 1200, 5):
            at_ms = START_MS + second * 1000
            it.add([reading(units - 1, at_ms + ahead_s * 1000, 1.0)])
            late = it.rollups.tally.late
            it.add([reading(unit, at_ms, 1.0) for unit in range(units - 1) if (second + 15 * unit) % 50 == 0])
            assert it.rollups.tally.late == late  # the punctual are rolled up
            now_s[0] = began_s + second / speed
            if second % 20 == 0:
                await it.rollups.sweep(now_s[0])
        # And nobody waits for the one that is wrong, nor is everything held.
        await it.rollups.sweep(now_s[0])
        row = await it.row("province", PROVINCE, "power_in", {1: 15, 30: 1}[speed])
        assert row["n"] >= units - 1
        held = sum(rollup.rows for rollup in it.rollups._by_class.values())
        assert held < 15 * 60


async def test_a_clean_stop_writes_what_there_is_and_the_next_start_goes_on(tmp_path: Path) -> None:
    async with Opened(tmp_path) as it:
        it.add([reading(0, START_MS, 10.0)])
        await it.rollups.finish()
        assert (await it.row("province", PROVINCE, "power_in"))["sum"] == 10.0
        assert await it.hours("province", PROVINCE) == 1
    async with Opened(tmp_path) as it:
        it.add([reading(0, START_MS + 10_000, 20.0)])
        await it.close_all()
        row = await it.row("province", PROVINCE, "power_in")
        assert (row["n"], row["sum"], row["units"]) == (2, 30.0, 1)
        assert await it.hours("province", PROVINCE) == 2


async def test_at_the_bound_the_oldest_minutes_close_early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rollups, "MAX_ROWS", 5)
    async with Opened(tmp_path) as it:
        it.add([reading(n, START_MS + (n // 4) * MINUTE_MS, 1.0) for n in range(8)])
        await it.rollups.sweep()
        assert (await it.row("province", PROVINCE, "power_in"))["n"] == 4
        it.add([reading(0, START_MS + 5, 1.0)])
        assert it.rollups.tally.late == 1


async def alarms(it: Opened, signal: str = "vibration", **more: str) -> list[dict[str, Any]]:
    names = ["open", "value", "limit", "worst", "ratio", "duration_s"]
    rows = await it.store.series(
        SeriesQuery("alarm", {"signal": signal, **more}, names, START_MS, START_MS + 10 * MINUTE_MS)
    )
    return [row.values | {"ts_ms": row.ts_ms} for row in rows]


async def test_an_alarm_has_a_begin_a_worst_value_and_an_end(tmp_path: Path) -> None:
    limit = alarm_limits("motor")["vibration"].limit
    course = [1.0, limit, limit + 1, limit + 2, limit - 0.01, limit + 1, 1.0, 1.0]
    made = [reading(0, START_MS + k * 10_000, 10.0, vibration=v) for k, v in enumerate(course)]
    async with Opened(tmp_path) as it:
        it.add(made[:4])
        await it.rollups.sweep()
        [row] = await alarms(it)
        assert (row["open"], row["ts_ms"], row["worst"]) == (1, START_MS + 20_000, limit + 2)
        # Repeated readings begin nothing, and noise at the limit ends nothing.
        it.add([*made[:3], *made[4:6], *made])
        await it.rollups.sweep()
        [row] = await alarms(it)
        assert (row["open"], row["duration_s"], row["value"]) == (0, 40.0, limit + 1)
        assert row["ratio"] == pytest.approx((limit + 2) / limit, abs=1e-4)
        assert it.rollups.open_alarms == 0


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pasteuriser's temperature raises an alarm without delay."""
    limit = replace(alarm_limits("pasteuriser")["hold_temp"], delay_s=0.0)
    monkeypatch.setitem(LIMITS, "pasteuriser", (limit,))


@pytest.mark.usefixtures("at_once")
async def test_one_breach_is_one_alarm_however_often_each_signal_comes(tmp_path: Path) -> None:
    """The temperature every second, the flow without which it means nothing every ten."""
    made = []
    for second in range(300):
        values = {"hold_temp": 71.0 if 60 <= second < 120 or 200 <= second < 240 else 75.0}
        if second % 10 == 0:
            values["product_flow"] = 0.0 if 200 <= second < 250 else 5.0
        made.append(Point("pasteuriser", tags(0), START_MS + second * 1000, values))
    for size in (1, 7, 300):
        (tmp_path / str(size)).mkdir()
        async with Opened(tmp_path / str(size)) as it:
            for start in range(0, len(made), size):
                it.add(made[start : start + size])
            await it.rollups.sweep()
            [row] = await alarms(it, "hold_temp")
            assert (row["ts_ms"] - START_MS, row["duration_s"], row["open"]) == (60_000, 60.0, 0)


@pytest.mark.usefixtures("at_once")
async def test_a_signal_that_others_depend_on_counts_until_it_is_too_old(tmp_path: Path) -> None:
    def unit(second: int, **values: float) -> Point:
        return Point("pasteuriser", tags(0), START_MS + second * 1000, values)

    async with Opened(tmp_path) as it:
        it.add([unit(0, hold_temp=20.0), unit(1, hold_temp=20.0)])
        assert it.rollups.open_alarms == 0  # not known whether it works
        it.add([unit(2, product_flow=5.0), unit(2, hold_temp=20.0)])
        assert it.rollups.open_alarms == 1  # though both were sent apart
        it.add([unit(10, product_flow=0.0)])
        assert it.rollups.open_alarms == 0  # it has stopped
        it.add([unit(20, product_flow=5.0), unit(21, hold_temp=80.0)])
        it.add([unit(21 + 600, hold_temp=20.0)])
        assert it.rollups.open_alarms == 0


async def test_values_outside_a_signals_range_are_counted(tmp_path: Path) -> None:
    signal = CATALOGUE["motor"].signal("power_in")
    low, high = signal.low, signal.high
    values = [low, high, (low + high) / 2, high * 1.01, low - 1.0, 99_999.0]
    async with Opened(tmp_path) as it:
        it.add([reading(0, START_MS + place * 1_000, value) for place, value in enumerate(values)])
        it.add([reading(3, START_MS + MINUTE_MS, high + 1.0)])
        await it.close_all()
        row = await it.row("province", PROVINCE, "power_in")
        assert (row["n"], row["out_of_range"]) == (6, 3)
        assert (await it.row("county", tags(0)[1], "power_in", 1))["out_of_range"] == 1
        assert (await it.row("province", PROVINCE, "winding_temp"))["out_of_range"] == 0
        wanted = {"level": "province", "signal": "power_in"}
        rows = await it.store.series(
            SeriesQuery("fleet_hourly", wanted, ["out_of_range"], 0, START_MS + HOUR_MS)
        )
        assert sum(int(row.values["out_of_range"]) for row in rows) == 4


async def test_a_sum_beyond_what_a_float_holds_is_left_out_and_everything_else_stays(tmp_path: Path) -> None:
    huge = 1.797e308
    async with Opened(tmp_path) as it:
        it.add([reading(number, START_MS, huge, energy_kWh=huge) for number in (0, 3, 6)])
        it.add([reading(1, START_MS, 10.0), reading(1, START_MS + MINUTE_MS, 11.0)])
        it.add([reading(0, START_MS + 1_000, -huge, energy_kWh=-huge)])
        await it.close_all()
        row = await it.row("province", PROVINCE, "power_in")
        assert "sum" not in row
        assert (row["n"], row["min"], row["max"], row["units"]) == (5, -huge, huge, 4)
        assert sum(row[name] for name in BIN_FIELDS) == 5
        # The county of the healthy motor has its own.
        assert (await it.row("county", tags(1)[1], "power_in"))["sum"] == 10.0
        assert (await it.row("province", PROVINCE, "power_in", 1))["sum"] == 11.0
        # An hour with such a minute has no sum either: it would be one of the others alone.
        wanted = {"level": "province", "signal": "power_in"}
        names = ["n", "sum", "max"]
        [hour] = await it.store.series(
            SeriesQuery("fleet_hourly", wanted, names, START_MS - HOUR_MS, START_MS + HOUR_MS)
        )
        assert hour.values == {"n": 6, "max": huge}
        await it.rollups.finish()
    async with Opened(tmp_path) as it:
        it.add([reading(1, START_MS + 2 * MINUTE_MS, 12.0)])
        await it.close_all()
        [hour] = await it.store.series(
            SeriesQuery("fleet_hourly", wanted, names, START_MS - HOUR_MS, START_MS + HOUR_MS)
        )
        assert hour.values == {"n": 7, "max": huge}


async def test_a_stop_waits_for_what_is_being_summed_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sum_up = ClassRollup.sum_up
    at_once: list[int] = [0, 0]
    inside = threading.Event()
    go_on = threading.Event()

    def watched(rollup: ClassRollup, *more: Any) -> list[Point]:
        at_once[0] += 1
        at_once[1] = max(at_once)
        inside.set()
        go_on.wait(0.5)  # the first one gives others the time to come in beside it
        go_on.set()
        try:
            return sum_up(rollup, *more)
        finally:
            at_once[0] -= 1

    monkeypatch.setattr(ClassRollup, "sum_up", watched)
    async with Opened(tmp_path) as it:
        it.add([reading(number % 9, START_MS + number * 5_000, 1.0) for number in range(600)])
        sweep = asyncio.create_task(it.rollups.sweep(time.monotonic() + class_rollups.HEARD_S + 1))
        await asyncio.to_thread(inside.wait)
        await asyncio.gather(it.rollups.finish(), sweep)
        await it.rollups.sweep()  # what comes after changes nothing
        assert at_once[1] == 1
        assert await it.hours("province", PROVINCE) == 600
    async with Opened(tmp_path) as it:
        await it.close_all()
        assert await it.hours("province", PROVINCE) == 600


async def test_what_the_store_did_not_take_before_a_stop_is_written_after_it(
    tmp_path: Path, influxdb: Any
) -> None:
    async with Opened(tmp_path, influxdb.url) as it:
        it.add([reading(0, START_MS + number * 1_000, 1.0) for number in range(60)])
        influxdb.stop()
        await it.close_all()
        await it.rollups.finish()
    influxdb.start()
    async with Opened(tmp_path, influxdb.url) as it:
        await it.rollups.sweep()
        assert (await it.row("province", PROVINCE, "power_in"))["n"] == 60
        assert await it.hours("province", PROVINCE) == 60


@pytest.mark.usefixtures("at_once")
async def test_what_stands_still_raises_no_alarm(tmp_path: Path) -> None:
    course = [(20.0, 0.0), (70.0, 5.0), (71.0, 5.0), (20.0, 0.0), (71.0, 5.0), (72.1, 5.0), (72.2, 5.0)]
    made = [
        Point("pasteuriser", tags(0), START_MS + k * 10_000, {"hold_temp": hold_c, "product_flow": flow})
        for k, (hold_c, flow) in enumerate(course)
    ]
    async with Opened(tmp_path) as it:
        it.add(made[:1])
        assert it.rollups.open_alarms == 0
        it.add(made[1:])
        await it.rollups.sweep()
        rows = await alarms(it, "hold_temp")
        found = [(row["ts_ms"] - START_MS, row["open"], row["worst"]) for row in rows]
        assert found == [(10_000, 0, 70.0), (40_000, 0, 71.0)]


async def test_a_value_that_only_touches_its_limit_rings_once_or_not_at_all(tmp_path: Path) -> None:
    limit = alarm_limits("pump")["casing_accel"]
    assert (limit.limit, limit.delay_s) == (0.8, 10.0)

    def pump(second: int, accel: float) -> Point:
        return Point("pump", tags(0), START_MS + second * 1000, {"casing_accel": accel})

    # One value past the limit, then a breach of 25 s that comes back for a moment, then for good.
    course = {0: 0.9, 5: 0.3, 20: 0.9, 25: 1.1, 30: 1.0, 35: 0.3, 40: 1.2, 45: 0.3, 50: 0.3, 55: 0.3}
    for name, size in (("one", 1), ("batch", 64)):
        (tmp_path / name).mkdir()
        made = [pump(second, accel) for second, accel in course.items()]
        async with Opened(tmp_path / name) as it:
            for start in range(0, len(made), size):
                it.add(made[start : start + size])
            assert it.rollups.open_alarms == 0
            await it.rollups.sweep()
            [row] = await alarms(it, "casing_accel")
            assert (row["ts_ms"], row["duration_s"], row["worst"]) == (START_MS + 20_000, 25.0, 1.2)


@pytest.mark.parametrize("seed", range(5))
async def test_alarms_are_the_same_by_the_batch_and_one_by_one(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    made = []
    for step in range(200):
        # Three units, some of it again, some of it late, some without the signal.
        ts_ms = START_MS + (step - draw.choice([0, 0, 0, 5, 40])) * 1000
        more = {"vibration": draw.choice([1.0, 6.97, 7.05, 7.2, 9.0])} if draw.random() < 0.8 else {}
        made.append(reading(draw.randrange(3), ts_ms, 10.0, **more))
    found = []
    for name, size in (("one", 1), ("batch", 64)):
        (tmp_path / name).mkdir()
        async with Opened(tmp_path / name) as it:
            for start in range(0, len(made), size):
                it.add(made[start : start + size])
            await it.rollups.sweep()
            rows = [await alarms(it, unit=tags(number)[4]) for number in range(3)]
            found.append((rows, it.rollups.open_alarms))
    assert found[0] == found[1]
    assert sum(map(len, found[0][0])) > 5


async def test_an_open_alarm_outlives_a_crash(tmp_path: Path) -> None:
    async with Opened(tmp_path) as it:
        it.add([reading(0, START_MS, 10.0, vibration=9.0)])
        await it.rollups.sweep()
    async with Opened(tmp_path) as it:
        it.add([reading(0, START_MS + 60_000, 10.0, vibration=1.0)])
        await it.rollups.sweep()
        [row] = await alarms(it)
        assert (row["open"], row["duration_s"], row["ts_ms"]) == (0, 60.0, START_MS)


def meter_class() -> EquipmentClass:
    def signal(name: str) -> Signal:
        return Signal(name, "kWh", "float", 0.1, 0.0, 0.0, 1e9, 10, "", "A", "a test's")

    return EquipmentClass("meter", "Meter", "电表", (signal("power"), signal("energy_kWh")), ())


def test_a_meter_counts_what_was_added_and_not_its_beginning_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LIMITS, "meter", ())
    monkeypatch.setitem(KEY_SIGNALS, "meter", key_signals(meter_class()))
    rollup = ClassRollup("meter")
    registers = {0: [100.0, 101.0, 103.5], 1: [104.0, 2.0, 2.5]}
    names = ("power", "energy_kWh")
    points = [
        Point(
            "meter", tags(0), START_MS + minute * MINUTE_MS + step * 10_000, {names[0]: 1.0, names[1]: value}
        )
        for minute, readings in registers.items()
        for step, value in enumerate(readings)
    ]
    series = Series()
    [columns] = of_points(points, series, {})
    units = rollup.number(series, np.array([0], dtype=np.int32))[columns.rows]
    assert rollup.add(units, columns.ts_ms, columns.names, columns.values, 0.0) == 0
    found = {}
    for minute in rollup.open_minutes():
        for point in rollup.sum_up(rollup.cut([minute]), "g"):
            if point.tags[0] == "province" and point.tags[4] == "energy_kWh":
                found[(point.ts_ms - START_MS) // MINUTE_MS] = point.fields
    assert (found[0]["sum"], found[0]["n"]) == (3.5, 2)
    assert (found[1]["sum"], found[1]["n"]) == (1.0, 2)
    assert "bin_0" not in found[0]


def test_limits_of_equipment_that_the_catalogue_lacks_are_left_out() -> None:
    assert LIMITS.keys() == CATALOGUE.keys()
    for name, limits in LIMITS.items():
        for limit in limits:
            signal = CATALOGUE[name].signal(limit.signal)
            assert signal.low <= limit.limit <= signal.high
            assert limit.mark in "SCNA"
