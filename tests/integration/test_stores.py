"""One suite for every store: what `Store` promises, DuckDB and InfluxDB keep alike."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import duckdb
import pytest
from qilu_contract import storage
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.errors import ConfigError, Rejected, Retryable
from qilu_contract.readings import MAX_TIME_MS
from qilu_contract.storage import BORN, MEASUREMENTS, UNIT_TAGS, Measurement, Point
from qilu_contract.store import AGGREGATES, SCAN_ROWS, Aggregate, Row, SeriesQuery, Store
from qilu_stores import open_store
from qilu_stores.checks import CHECKS, ByColumn, Check, Probe
from qilu_stores.duck.store import DuckStore
from qilu_stores.questions import MAX_EVERY_MS

TAGS = ("370200", "370202", "C34", "370202-e00001", "370202-motor-0000001")
OTHER = ("370200", "370202", "C34", "370202-e00001", "370202-motor-0000002")
UNIT = {"unit": TAGS[-1]}


Write = Callable[[list[Point]], Awaitable[None]]


@pytest.fixture(params=["points", "columns"])
def write(request: pytest.FixtureRequest, store: Store) -> Write:
    """Writes points one way or the other."""
    return store.write if request.param == "points" else ByColumn(store)


def motor(ts_ms: int, tags: tuple[str, ...] = TAGS, **fields: Any) -> Point:
    return Point("motor", tags, ts_ms, fields)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("by_column", [False, True])
async def test_the_contract_suite_passes(store: Store, check: Check, by_column: bool) -> None:
    await check(Probe(store, "probe", by_column=by_column))


async def test_a_generic_unit_s_signals_are_stored_as_they_come(store: Store, write: Write) -> None:
    def generic(ts_ms: int, tags: tuple[str, ...] = TAGS, **fields: float | int) -> Point:
        return Point("generic", tags, ts_ms, {**fields, "signal_count": float(len(fields))})

    assert await store.latest("generic", UNIT) is None
    await write([generic(10_000, temperature=21.5), generic(20_000, temperature=22.0, 温度=3.0)])
    await write([generic(20_000, OTHER, select=1.0), generic(30_000, order_by=7.0)])
    await write([Point("generic", TAGS, 30_000, {"temperature": 23.0, "signal_count": 2.0, BORN: 29_000})])
    row = await store.latest("generic", UNIT)
    assert row is not None
    assert (row.ts_ms, row.values) == (
        30_000,
        {"temperature": 23.0, "温度": 3.0, "order_by": 7.0, "signal_count": 2.0, BORN: 29_000},
    )
    rows = await store.series(SeriesQuery("generic", UNIT, ["temperature", "温度", "never_sent"], 0, 40_000))
    assert [(row.ts_ms, row.values) for row in rows] == [
        (10_000, {"temperature": 21.5}),
        (20_000, {"temperature": 22.0, "温度": 3.0}),
        (30_000, {"temperature": 23.0}),
    ]
    assert await store.series(SeriesQuery("generic", UNIT, ["never_sent"], 0, 40_000)) == []
    [bucket] = await store.series(SeriesQuery("generic", UNIT, ["temperature"], 0, 40_000, 60_000, "max"))
    assert bucket.values == {"temperature": 23.0}
    assert await store.count("generic") == 4
    followed = await store.since("generic", {TAGS[-1]: 30_000, OTHER[-1]: 0}, 40_000)
    assert {unit: [row.values.keys() for row in rows] for unit, rows in followed.items()} == {
        TAGS[-1]: [{"temperature", "order_by", "signal_count", BORN}],
        OTHER[-1]: [{"select", "signal_count"}],
    }
    found = [point async for chunk in store.scan("generic", 0, 40_000) for point in chunk.all()]
    assert {(point.tags[-1], point.ts_ms): point.fields.get("select") for point in found}[
        OTHER[-1], 20_000
    ] == 1.0
    with pytest.raises(Rejected):
        await store.write([generic(10_000, Temperature=1.0)])


async def test_what_was_written_last_stands_however_often_and_whenever_it_is_written(
    store: Store, write: Write
) -> None:
    """Each time is a row more in DuckDB's table; thousands of them go from its log into its file."""
    times = range(0, 4_000_000, 1_000)
    for turn in range(4):
        await write([motor(ts, power_in=turn + ts / 7) for ts in times[turn * 500 :]])
        await write([motor(ts, OTHER, speed=float(turn)) for ts in times[: 4000 - turn * 500]])
    await write([motor(0, power_in=-1.0), motor(times[-1], slip=0.5), motor(times[-1], OTHER, slip=0.25)])
    assert await store.count("motor") == len(times)
    assert await store.count_by("motor", "unit", 0, times[-1] + 1) == {TAGS[-1]: len(times)}
    assert await store.count_duplicates("motor") == 0
    expected = [max(0, min(ts // 500_000, 3)) + ts / 7 for ts in times]
    expected[0] = -1.0
    rows = await store.series(SeriesQuery("motor", UNIT, ["power_in"], 0, times[-1] + 1))
    assert [row.values["power_in"] for row in rows] == expected
    assert (
        len(
            await store.series(SeriesQuery("motor", {"unit": OTHER[-1]}, ["speed", "slip"], 0, times[-1] + 1))
        )
        == 4000
    )
    [bucket] = await store.series(SeriesQuery("motor", UNIT, ["power_in"], 0, times[-1] + 1, 10**9, "count"))
    assert bucket.values == {"power_in": len(times)}
    row = await store.latest("motor", UNIT)
    assert row is not None
    assert row.values == {"power_in": expected[-1], "slip": 0.5}
    found = [point async for chunk in store.scan("motor", 0, times[-1] + 1) for point in chunk.all()]
    assert len(found) == 2 * len(times)
    assert {point.ts_ms: point.fields["power_in"] for point in found if point.tags == TAGS} == dict(
        zip(times, expected, strict=True)
    )


async def test_a_unit_is_known_by_whatever_signal_it_sends(store: Store, write: Write) -> None:
    """Not by its class's base signal alone, as the simulated ones."""
    await write([motor(10_000, vibration=1.5), motor(20_000, speed=1470.0)])
    await write([motor(15_000, vibration=2.5)])  # late
    row = await store.latest("motor", UNIT)
    assert row is not None
    assert (row.ts_ms, row.values) == (20_000, {"vibration": 2.5, "speed": 1470.0})
    await write([motor(5_000, power_in=7.0)])  # later still
    row = await store.latest("motor", UNIT)
    assert row is not None
    assert (row.ts_ms, row.values) == (20_000, {"power_in": 7.0, "vibration": 2.5, "speed": 1470.0})
    await write([motor(30_000, power_in=8.0), motor(40_000, **{BORN: 39_000})])
    row = await store.latest("motor", UNIT)
    assert row is not None
    assert (row.ts_ms, row.values[BORN], row.values["power_in"]) == (40_000, 39_000, 8.0)


async def test_signals_that_come_apart_stand_in_the_same_rows_whatever_came_first(
    store: Store, write: Write
) -> None:
    made = [motor(20_000, speed=3.0), motor(80_000, vibration=4.0), motor(10_000, vibration=1.0)]
    for point in (*made, motor(30_000, vibration=2.0), motor(90_000, speed=5.0), motor(10_000, speed=9.0)):
        await write([point])
    names = ["speed", "vibration", "slip"]
    rows = await store.series(SeriesQuery("motor", UNIT, names, 0, 120_000))
    assert [(row.ts_ms, row.values) for row in rows] == [
        (10_000, {"speed": 9.0, "vibration": 1.0}),
        (20_000, {"speed": 3.0}),
        (30_000, {"vibration": 2.0}),
        (80_000, {"vibration": 4.0}),
        (90_000, {"speed": 5.0}),
    ]
    assert await store.series(SeriesQuery("motor", UNIT, ["slip"], 0, 120_000)) == []
    want: dict[Aggregate, list[dict[str, float]]] = {
        "mean": [{"speed": 6.0, "vibration": 1.5}, {"speed": 5.0, "vibration": 4.0}],
        "min": [{"speed": 3.0, "vibration": 1.0}, {"speed": 5.0, "vibration": 4.0}],
        "max": [{"speed": 9.0, "vibration": 2.0}, {"speed": 5.0, "vibration": 4.0}],
        "last": [{"speed": 3.0, "vibration": 2.0}, {"speed": 5.0, "vibration": 4.0}],
        "count": [{"speed": 2, "vibration": 2}, {"speed": 1, "vibration": 1}],
    }
    for aggregate, values in want.items():
        rows = await store.series(SeriesQuery("motor", UNIT, names, 0, 120_000, 60_000, aggregate))
        assert [(row.ts_ms, row.values) for row in rows] == [(0, values[0]), (60_000, values[1])]
    # A bucket that holds one of them has no number for the other, nor a count of 0.
    rows = await store.series(SeriesQuery("motor", UNIT, names, 0, 120_000, 10_000, "count"))
    assert rows[1].values == {"speed": 1}
    with pytest.raises(Rejected):
        await write([motor(10_000)])


async def test_values_at_the_end_of_what_a_float_holds_are_kept_and_their_mean_is_one(
    store: Store, write: Write
) -> None:
    huge = 1.797e308
    await write([motor(ts, power_in=huge, speed=2.0) for ts in (0, 1_000, 2_000)])
    await write([motor(60_000, power_in=-huge), motor(61_000, power_in=huge), motor(62_000, slip=1e-9)])
    rows = await store.series(SeriesQuery("motor", UNIT, ["power_in"], 0, 1_000))
    assert rows[0].values == {"power_in": huge}
    row = await store.latest("motor", UNIT)
    assert row is not None
    assert row.values["power_in"] == huge
    names = ["power_in", "speed", "slip"]
    rows = await store.series(SeriesQuery("motor", UNIT, names, 0, 120_000, 60_000, "mean"))
    assert [row.ts_ms for row in rows] == [0, 60_000]
    assert rows[0].values == {"power_in": pytest.approx(huge), "speed": 2.0}
    assert rows[1].values == {"power_in": pytest.approx(0.0, abs=1e293), "slip": 1e-9}
    rows = await store.series(SeriesQuery("motor", UNIT, names, 0, 60_000, 60_000, "max"))
    assert rows[0].values == {"power_in": huge, "speed": 2.0}
    for value in (float("inf"), float("-inf"), float("nan")):
        with pytest.raises(Rejected):
            await write([motor(70_000, power_in=value)])
        with pytest.raises(Rejected):
            await write([Point("pipeline", ("qilu",), 5_000, {"accepted": 1, "lag_ms": value})])


@pytest.mark.parametrize("seed", range(2))
async def test_both_stores_answer_alike_whatever_was_written(
    influxdb: Any, tmp_path: Path, seed: int
) -> None:
    """Sparse and full readings of two units, late, out of order, corrected, in batches of any size."""
    draw = random.Random(seed)
    signals = [signal.name for signal in CATALOGUE["motor"].signals if signal.type == "float"][:5]
    # None that cancels another one out: sums are added in another order.
    values = [0.0, 1.5, 2.25, 1e-12, 1.797e308, 12_345.678]
    points = []
    for _ in range(300):
        some = draw.sample(signals, draw.choice([1, 1, 2, len(signals)]))
        fields: dict[str, Any] = {name: draw.choice(values) for name in some}
        if draw.random() < 0.1:
            fields[BORN] = draw.randrange(10**12)
        points.append(Point("motor", draw.choice([TAGS, OTHER]), draw.randrange(0, 600_000, 500), fields))
    urls = (f"duckdb:///{tmp_path}/alike.duckdb", f"duckdb:///{tmp_path}/columns.duckdb", influxdb.url)
    answers: list[list[Any]] = []
    for url in urls:
        found: list[Any] = []
        async with open_store(url) as store:
            rest = points
            write = ByColumn(store) if "columns" in url else store.write
            while rest:
                size = random.Random(len(rest)).randrange(1, 60)
                await write(rest[:size])
                rest = rest[size:]
                found.append(await store.latest("motor", UNIT))
            for unit in (TAGS[-1], OTHER[-1], "nobody"):
                found.append(await store.latest("motor", {"unit": unit}))
                asked = {"unit": unit}
                for span in ((0, 600_000), (100_000, 100_500), (599_000, 10**12)):
                    found.append(await store.series(SeriesQuery("motor", asked, signals, *span)))
                    found.append(await store.series(SeriesQuery("motor", asked, signals[1:2], *span)))
                    found += [
                        await store.series(SeriesQuery("motor", asked, signals, *span, 10**9 // 7, aggregate))
                        for aggregate in AGGREGATES
                    ]
                for every_ms in (500, 7_000, 60_000):
                    for aggregate in AGGREGATES:
                        rows = await store.series(
                            SeriesQuery("motor", asked, signals, 0, 600_000, every_ms, aggregate)
                        )
                        found.append(rows)
            found.append(await store.count_by("motor", "unit", 0, 600_000))
            found.append(await store.count("motor"))
        answers.append([_comparable(each) for each in found])
    for mine, by_columns, theirs in zip(*answers, strict=True):
        assert mine == by_columns == theirs


def _comparable(answer: Any) -> Any:
    if isinstance(answer, list):
        return [_comparable(row) for row in answer]
    if isinstance(answer, Row):
        return answer.ts_ms, {name: pytest.approx(value, rel=1e-9) for name, value in answer.values.items()}
    return answer


@pytest.mark.parametrize("every_ms", [7_000, 604_800_000, 11 * 86_400_000, MAX_EVERY_MS])
async def test_buckets_begin_at_multiples_of_their_length_since_1970(
    store: Store, write: Write, every_ms: int
) -> None:
    times = (1, every_ms - 1, 3 * every_ms + 1) if every_ms < 10**10 else (1, 10**12)
    await write([motor(ts, power_in=1.0) for ts in times])
    end_ms = min(4 * every_ms, MAX_TIME_MS)
    rows = await store.series(SeriesQuery("motor", UNIT, ["power_in"], 0, end_ms, every_ms, "count"))
    assert [row.ts_ms for row in rows] == sorted({ts // every_ms * every_ms for ts in times})


@pytest.mark.parametrize("columns", [False, True])
async def test_what_is_on_or_off_has_no_mean(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, columns: bool
) -> None:
    valve = Measurement("valve", UNIT_TAGS, {"flow": "float", "open": "bool"}, "flow")
    monkeypatch.setitem(MEASUREMENTS, "valve", valve)
    monkeypatch.setitem(storage._NAMES, "valve", valve.fields.keys())
    monkeypatch.setitem(storage._INTS, "valve", frozenset())
    for url in (f"duckdb:///{tmp_path}/valves.duckdb", request.getfixturevalue("influxdb").url):
        async with open_store(url) as store:
            fields = [{"flow": 1.0, "open": True}, {"flow": 3.0}, {"open": False}]
            write = ByColumn(store) if columns else store.write
            await write([Point("valve", TAGS, ts, each) for ts, each in enumerate(fields)])
            for aggregate, values in {
                "mean": {"flow": 2.0},
                "last": {"flow": 3.0, "open": False},
                "max": {"flow": 3.0, "open": True},
                "count": {"flow": 2, "open": 2},
            }.items():
                [row] = await store.series(
                    SeriesQuery("valve", UNIT, ["flow", "open"], 0, 1_000, 1_000, cast(Aggregate, aggregate))
                )
                assert row.values == values
            with pytest.raises(ValueError, match="no mean"):
                await store.series(SeriesQuery("valve", UNIT, ["open"], 0, 1_000, 1_000))


async def test_a_point_that_does_not_fit_is_refused_and_named(store: Store, write: Write) -> None:
    with pytest.raises(Rejected, match="warp_factor"):
        await write([motor(10_000, power_in=1.0), motor(20_000, warp_factor=9.0)])
    with pytest.raises(Rejected):
        await write([motor(10_000, ("370200",), power_in=1.0)])
    await write([motor(10_000, power_in=1.0)])
    assert await store.count("motor") == 1


async def test_questions_that_make_no_sense_are_refused(store: Store) -> None:
    for call in (
        store.series(SeriesQuery("motor'; DROP", UNIT, ["power_in"], 0, 1)),
        store.series(SeriesQuery("motor", {'unit" OR 1': "x"}, ["power_in"], 0, 1)),
        store.series(SeriesQuery("motor", UNIT, ["power"], 0, 1)),
        store.series(SeriesQuery("motor", UNIT, ["power_in"], 5, 1)),
        store.series(SeriesQuery("motor", UNIT, ["power_in"], 0, 10**13)),
        store.series(SeriesQuery("motor", UNIT, ["power_in"], 0, 10**12, 1_000)),
        store.series(SeriesQuery("motor", UNIT, ["power_in"], 0, 10**12, 999_999_999 * 86_400_000)),
    ):
        with pytest.raises(ValueError):
            await call
    assert await store.series(SeriesQuery("motor", {"unit": "x' OR 'a'='a"}, ["power_in"], 0, 10**12)) == []


async def test_a_scan_finds_every_point_of_a_time_once_under_its_own_tags(store: Store, write: Write) -> None:
    moved = ("370200", "370202", "C34", "370202-e00009", TAGS[-1])
    inside = [
        *(motor(10_000 + number, power_in=float(number), vibration=0.5) for number in range(60_000)),
        motor(10_000, OTHER, power_in=1.0),
        motor(10_000, moved, speed=2.0),
        motor(11_000, OTHER, **{BORN: 2**53 + 1, "power_in": 1.0}),
    ]
    await write([motor(9_999, power_in=1.0), *inside, motor(100_000, power_in=1.0)])
    chunks = [chunk.all() async for chunk in store.scan("motor", 10_000, 100_000)]
    assert max(map(len, chunks)) <= SCAN_ROWS
    found = sorted((point for chunk in chunks for point in chunk), key=lambda point: point[1:3])
    assert found == sorted(inside, key=lambda point: point[1:3])
    assert [chunk async for chunk in store.scan("boiler", 0, 10**12)] == []


async def test_survives_reopening(store: Store, write: Write, tmp_path: Path) -> None:
    await write([motor(10_000, power_in=1.0)])
    if not (tmp_path / "readings.duckdb").exists():
        pytest.skip("a server stays open")
    await store.__aexit__(None, None, None)
    async with open_store(f"duckdb:///{tmp_path}/readings.duckdb") as again:
        assert await again.count("motor") == 1


async def test_a_file_of_an_older_version_is_gone_on_with(tmp_path: Path) -> None:
    """A file without last births and without separate tables for hourly rows."""
    file = tmp_path / "readings.duckdb"
    async with open_store(f"duckdb:///{file}") as store:
        pipeline = Point("pipeline", ("qilu",), 1_000, {"accepted": 1})
        await store.write([motor(1_000, power_in=1.0), pipeline])
    with duckdb.connect(file) as connection:
        connection.execute(f"ALTER TABLE motor DROP COLUMN {BORN}")
        connection.execute("ALTER TABLE pipeline ADD COLUMN resolution VARCHAR DEFAULT 'minutes'")
        connection.execute(
            "INSERT INTO pipeline BY NAME SELECT * REPLACE ('hour-day-week-year' AS resolution) FROM pipeline"
        )
    async with open_store(f"duckdb:///{file}") as store:
        await store.write([motor(2_000, power_in=2.0, **{BORN: 2_000}), pipeline._replace(ts_ms=2_000)])
        rows = await store.series(SeriesQuery("motor", UNIT, ["power_in", BORN], 0, 10_000))
        assert [row.values for row in rows] == [{"power_in": 1.0}, {"power_in": 2.0, BORN: 2_000}]
        assert await store.count("pipeline") == 2
        newest = await store.latest("pipeline", {})
        assert newest is not None
        assert newest.ts_ms == 2_000
        assert await store.count("pipeline_hourly") == 1


async def test_the_newest_points_come_with_their_tags(store: Store) -> None:
    def alarm(unit: str, ts_ms: int, is_open: int) -> Point:
        tags = ("370000", "370200", "370202", "C34", "works", unit, "motor", "vibration")
        return Point("alarm", tags, ts_ms, {"open": is_open, "worst": 9.5, "duration_s": 0.0})

    points = [alarm("a", 1_000, 1), alarm("b", 2_000, 1), alarm("it's", 3_000, 0), alarm("a", 4_000, 0)]
    await store.write(points)
    await store.write([alarm("b", 2_000, 0)])
    assert [point.ts_ms for point in await store.newest("alarm", {}, 0, 10_000, 3)] == [4_000, 3_000, 2_000]
    assert await store.newest("alarm", {"open": 1}, 0, 10_000, 10) == [points[0]]
    assert await store.newest("alarm", {"unit": "it's", "open": 0}, 0, 10_000, 10) == [points[2]]
    assert await store.newest("alarm", {"unit": "a"}, 1_000, 4_000, 10) == [points[0]]
    assert await store.newest("alarm", {"unit": "nobody"}, 0, 10_000, 10) == []
    for having, limit in (({"nothing": 1}, 10), ({"colour": "red"}, 10), ({}, 0), ({}, 10_001)):
        with pytest.raises(ValueError, match=r"nothing|colour|rows"):
            await store.newest("alarm", having, 0, 10_000, limit)


async def test_a_store_that_is_away_is_to_be_tried_again(influxdb: Any) -> None:
    async with open_store(influxdb.url) as store:
        await store.write([motor(10_000, power_in=1.0)])
        influxdb.stop()
        with pytest.raises(Retryable):
            await store.write([motor(20_000, power_in=1.0)])
        influxdb.start()
        await store.write([motor(20_000, power_in=1.0)])
        assert await store.count("motor") == 2


@pytest.mark.parametrize(
    "url", ["duckdb:", "mysql://x/y", "influxdb://host", "readings.duckdb", "duckdb://host/x"]
)
def test_a_url_that_names_no_store_is_refused_with_what_would(url: str) -> None:
    with pytest.raises(ConfigError, match="duckdb:///path"):
        open_store(url)


async def test_duckdb_holds_a_bounded_part_of_its_file_in_memory(tmp_path: Path) -> None:
    async with DuckStore(f"{tmp_path}/readings.duckdb") as store:
        [(limit,)] = await store._run(
            store._reader, lambda cursor: cursor.execute("SELECT current_setting('memory_limit')").fetchall()
        )
        assert limit == "1.0 GiB"
