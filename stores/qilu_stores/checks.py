"""The contract suite of a store: what `Store` promises, tried against a real server.

`qilu store check` runs it against a server of the user, the tests against DuckDB and InfluxDB.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from math import isclose
from typing import Any

from qilu_contract.columns import EXACT, Series, of_points
from qilu_contract.errors import QiluError
from qilu_contract.storage import BORN, UNIT_TAGS, Point
from qilu_contract.store import Aggregate, Row, SeriesQuery, Store

WAIT_S = 5.0
"""A store may show a new series a little after it has taken it: openGemini 2.0 to 2.4 s."""
WEEK_MS = 7 * 86_400_000
"""Multiple of every bucket that the checks ask for."""


class Differs(QiluError):
    """A store answered something else than expected."""


class ByColumn:
    """Writes units' points as columns, and all others as points."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._series = Series()
        self._known: dict[tuple[str, ...], dict[str, int]] = {}

    async def __call__(self, points: Sequence[Point]) -> None:
        others: list[Point] = []
        units: dict[tuple[str, ...], list[Point]] = {}
        for point in points:
            fits = len(point.tags) == len(UNIT_TAGS) and point.fields.get(BORN, 0) <= EXACT
            (units.setdefault(point.tags[:-1], []) if fits else others).append(point)
        columns = [
            of_points(some, self._series, self._known.setdefault(of, {})) for of, some in units.items()
        ]
        await self._store.write(others, list(chain.from_iterable(columns)))


@dataclass
class Probe:
    """One check's own units in a store."""

    store: Store
    name: str
    """Makes its units' names unique."""
    base_ms: int = 0
    """All its points are at or after this time, which is a multiple of a week."""
    by_column: bool = False
    wait_s: float = 0.0
    written: int = 0

    def __post_init__(self) -> None:
        self._write = ByColumn(self.store) if self.by_column else self.store.write

    def tags(self, unit: str = "a", enterprise: str = "370202-e00001") -> tuple[str, ...]:
        return ("370200", "370202", "C34", enterprise, f"{self.name}-{unit}")

    def unit(self, unit: str = "a") -> dict[str, str]:
        return {"unit": self.tags(unit)[-1]}

    def motor(self, ts_ms: int, tags: tuple[str, ...] | None = None, **fields: Any) -> Point:
        return Point("motor", tags or self.tags(), self.base_ms + ts_ms, fields)

    async def write(self, *points: Point) -> None:
        self.written += len(points)
        await self._write(points)

    async def rows(
        self,
        fields: Sequence[str],
        start_ms: int,
        end_ms: int,
        every_ms: int | None = None,
        aggregate: Aggregate = "mean",
        unit: str = "a",
    ) -> list[tuple[int, dict[str, Any]]]:
        """`Store.series` of one of its units, with times since `base_ms`."""
        start_ms, end_ms = self.base_ms + start_ms, self.base_ms + end_ms
        found = await self.store.series(
            SeriesQuery("motor", self.unit(unit), fields, start_ms, end_ms, every_ms, aggregate)
        )
        return [(row.ts_ms - self.base_ms, row.values) for row in found]

    async def latest(self, unit: str = "a") -> tuple[int, dict[str, Any]] | None:
        row: Row | None = await self.store.latest("motor", self.unit(unit))
        return None if row is None else (row.ts_ms - self.base_ms, row.values)

    async def expect(
        self, what: str, expected: Any, ask: Callable[..., Awaitable[Any]], *question: Any
    ) -> None:
        """Raise Differs unless the store answers `expected`, at the latest after `wait_s`."""
        until = time.monotonic() + self.wait_s
        while not alike(found := await ask(*question), expected):
            if time.monotonic() >= until:
                raise Differs(f"{what}: expected {expected!r}, the store answered {found!r}")
            await asyncio.sleep(0.1)


def alike(found: Any, expected: Any) -> bool:
    """Equal and of equal types; floats up to the order in which a mean is summed."""
    match expected:
        case float():
            return type(found) is float and isclose(found, expected, rel_tol=1e-12)
        case dict():
            return (
                isinstance(found, dict)
                and found.keys() == expected.keys()
                and all(alike(found[name], value) for name, value in expected.items())
            )
        case list() | tuple():
            return found is not None and len(found) == len(expected) and all(map(alike, found, expected))
    return type(found) is type(expected) and bool(found == expected)


async def reads_back(probe: Probe) -> None:
    """Points are read back with every value and type."""
    await probe.write(
        probe.motor(10_000, power_in=11.25, speed=1470.0), probe.motor(20_000, power_in=1e-9, slip=0.1 + 0.2)
    )
    await probe.expect(
        "two points with other fields",
        [(10_000, {"power_in": 11.25, "speed": 1470.0}), (20_000, {"power_in": 1e-9, "slip": 0.1 + 0.2})],
        probe.rows,
        ["power_in", "speed", "slip"],
        0,
        30_000,
    )


async def merges(probe: Probe) -> None:
    """Writing a point again stores nothing twice: fields of one time join, and the last value wins."""
    for _ in range(3):
        await probe.write(
            probe.motor(10_000, power_in=11.0), probe.motor(10_000, power_in=11.0, vibration=1.5)
        )
    await probe.write(probe.motor(10_000, speed=1470.0), probe.motor(10_000, vibration=2.5))
    await probe.expect(
        "one point of three fields",
        [(10_000, {"power_in": 11.0, "vibration": 2.5, "speed": 1470.0})],
        probe.rows,
        ["power_in", "vibration", "speed"],
        0,
        30_000,
    )


async def finds_latest(probe: Probe) -> None:
    """The latest row has the last value of every signal, wherever it was written and in whatever order."""
    await probe.expect("a unit without points", None, probe.latest)
    await probe.write(probe.motor(60_000, power_in=1.0, vibration=2.0), probe.motor(70_000, power_in=3.0))
    await probe.write(
        probe.motor(50_000, power_in=9.0, vibration=9.0), probe.motor(90_000, probe.tags("b"), power_in=7.0)
    )
    await probe.expect("a late point", (70_000, {"power_in": 3.0, "vibration": 2.0}), probe.latest)
    await probe.write(probe.motor(80_000, speed=1470.0))
    await probe.expect(
        "a point without the first signal",
        (80_000, {"power_in": 3.0, "vibration": 2.0, "speed": 1470.0}),
        probe.latest,
    )
    await probe.write(probe.motor(95_000, tags=None, **{BORN: 94_000}))
    await probe.expect(
        "a birth",
        (95_000, {BORN: 94_000, "power_in": 3.0, "vibration": 2.0, "speed": 1470.0}),
        probe.latest,
    )


async def aggregates(probe: Probe) -> None:
    """Buckets have mean, min, max, last and count of each signal, and nothing where there is no value."""
    for point in (
        *(probe.motor(20_000, speed=3.0), probe.motor(80_000, vibration=4.0)),
        *(probe.motor(10_000, vibration=1.0), probe.motor(30_000, vibration=2.0)),
        *(probe.motor(200_000, speed=5.0), probe.motor(10_000, speed=9.0)),
    ):
        await probe.write(point)
    first: dict[Aggregate, dict[str, float]] = {
        "mean": {"speed": 6.0, "vibration": 1.5},
        "min": {"speed": 3.0, "vibration": 1.0},
        "max": {"speed": 9.0, "vibration": 2.0},
        "last": {"speed": 3.0, "vibration": 2.0},
        "count": {"speed": 2, "vibration": 2},
    }
    for aggregate, values in first.items():
        one: float = 1 if aggregate == "count" else 5.0
        await probe.expect(
            f"{aggregate} by minutes",
            [
                (0, values),
                (60_000, {"vibration": 1 if aggregate == "count" else 4.0}),
                (180_000, {"speed": one}),
            ],
            probe.rows,
            ["speed", "vibration", "slip"],
            0,
            240_000,
            60_000,
            aggregate,
        )


async def aligns_buckets(probe: Probe) -> None:
    """Buckets begin at multiples of their length since 1970."""
    await probe.write(*(probe.motor(ts, power_in=1.0) for ts in (1, 6_999, 21_001, WEEK_MS - 1, WEEK_MS)))

    async def starts(end_ms: int, every_ms: int) -> list[int]:
        return [ts_ms for ts_ms, _ in await probe.rows(["power_in"], 0, end_ms, every_ms, "count")]

    await probe.expect("buckets of 7 s", [0, 21_000], starts, 70_000, 7_000)
    await probe.expect("buckets of a week", [0], starts, WEEK_MS, WEEK_MS)


async def keeps_integers(probe: Probe) -> None:
    """Whole numbers beyond 2^53 are kept to the last digit."""
    await probe.write(probe.motor(10_000, tags=None, power_in=1.0, **{BORN: 2**53 + 1}))
    await probe.expect("2^53 + 1", [(10_000, {BORN: 2**53 + 1})], probe.rows, [BORN], 0, 30_000)


async def keeps_extremes(probe: Probe) -> None:
    """Floats near the largest are kept, and a mean of them is finite."""
    huge = 1.797e308
    await probe.write(*(probe.motor(ts, power_in=huge) for ts in (0, 1_000, 2_000)))
    await probe.expect("the value", [(0, {"power_in": huge})], probe.rows, ["power_in"], 0, 1_000)
    await probe.expect(
        "the mean",
        [(0, {"power_in": huge})],
        probe.rows,
        ["power_in"],
        0,
        60_000,
        60_000,
    )


async def counts(probe: Probe) -> None:
    """Points are counted by tag; a unit's points at one time under two sets of tags are duplicates."""
    before = await probe.store.count("motor"), await probe.store.count_duplicates("motor")
    moved = probe.tags(enterprise="370202-e00009")

    async def more() -> list[int]:
        points, twice = await probe.store.count("motor"), await probe.store.count_duplicates("motor")
        return [points - before[0], twice - before[1]]

    async def duplicates() -> int:
        return await probe.store.count_duplicates("motor") - before[1]

    async def by_unit() -> int:
        start_ms = probe.base_ms + 20_000
        found = await probe.store.count_by("motor", "unit", start_ms, start_ms + 10_000)
        return found.get(probe.tags()[-1], 0)

    await probe.write(probe.motor(10_000, power_in=1.0), probe.motor(20_000, power_in=1.0))
    await probe.expect("points, duplicates", [2, 0], more)
    await probe.write(probe.motor(20_000, moved, power_in=1.0), probe.motor(30_000, moved, power_in=1.0))
    await probe.expect("points, duplicates of a unit that moved", [4, 1], more)
    await probe.expect("points of the unit from 20 s to 30 s", 2, by_unit)
    await probe.write(probe.motor(40_000, vibration=1.0), probe.motor(40_000, moved, speed=1.0))
    await probe.expect("duplicates without the first signal", 2, duplicates)


async def scans(probe: Probe) -> None:
    """A scan finds each point of its time once, under its own tags."""
    moved = probe.tags(enterprise="370202-e00009")
    inside = [
        *(probe.motor(10_000 + number, power_in=float(number), vibration=0.5) for number in range(15_000)),
        probe.motor(10_000, probe.tags("b"), power_in=1.0),
        probe.motor(10_000, moved, speed=2.0),
    ]
    await probe.write(probe.motor(9_999, power_in=1.0), *inside, probe.motor(100_000, power_in=1.0))
    mine = {probe.tags()[-1], probe.tags("b")[-1]}

    async def found() -> list[Point]:
        chunks = [
            chunk.all()
            async for chunk in probe.store.scan("motor", probe.base_ms + 10_000, probe.base_ms + 100_000)
        ]
        return sorted(
            (point for point in chain(*chunks) if point.tags[-1] in mine), key=lambda point: point[1:3]
        )

    await probe.expect("the points", sorted(inside, key=lambda point: point[1:3]), found)


async def finds_newest(probe: Probe) -> None:
    """The newest points of a few, chosen by tags and whole numbers, come with their tags."""

    def alarm(unit: str, ts_ms: int, is_open: int) -> Point:
        tags = ("370000", "370200", "370202", "C34", "works", f"{probe.name}-{unit}", "motor", "vibration")
        return Point("alarm", tags, probe.base_ms + ts_ms, {"open": is_open, "worst": 9.5, "duration_s": 0.0})

    points = [alarm("a", 1_000, 1), alarm("a", 3_000, 0), alarm("it's", 3_000, 0), alarm("a", 4_000, 0)]
    await probe.write(*points)
    for what, having, expected in (
        ("the newest two of a unit", {"unit": f"{probe.name}-a"}, [points[3], points[1]]),
        ("open ones", {"unit": f"{probe.name}-a", "open": 1}, [points[0]]),
        ("a quoted name", {"unit": f"{probe.name}-it's", "open": 0}, [points[2]]),
        ("nobody", {"unit": f"{probe.name}-nobody"}, []),
    ):
        await probe.expect(
            what,
            expected,
            probe.store.newest,
            "alarm",
            having,
            probe.base_ms,
            probe.base_ms + 10_000,
            2,
        )


Check = Callable[[Probe], Awaitable[None]]


async def follows(probe: Probe) -> None:
    """The points of several units are found each from its own time on."""
    other = probe.tags("b")
    await probe.write(
        probe.motor(10_000, power_in=1.0),
        probe.motor(20_000, power_in=2.0, speed=1470.0),
        probe.motor(10_000, other, power_in=3.0),
    )
    await probe.write(probe.motor(20_000, power_in=2.5), probe.motor(30_000, other, speed=1480.0))
    a, b = probe.tags()[-1], other[-1]
    starts = {a: probe.base_ms + 20_000, b: probe.base_ms + 10_000, "nobody": probe.base_ms}

    async def since() -> dict[str, list[tuple[int, dict[str, Any]]]]:
        found = await probe.store.since("motor", starts, probe.base_ms + 30_001)
        return {
            unit: [(row.ts_ms - probe.base_ms, row.values) for row in rows] for unit, rows in found.items()
        }

    wanted = {
        a: [(20_000, {"power_in": 2.5, "speed": 1470.0})],
        b: [(10_000, {"power_in": 3.0}), (30_000, {"speed": 1480.0})],
    }
    await probe.expect("several units", wanted, since)


CHECKS: tuple[Check, ...] = (
    *(reads_back, merges, finds_latest, aggregates, aligns_buckets, keeps_integers, keeps_extremes),
    *(counts, scans, finds_newest, follows),
)
