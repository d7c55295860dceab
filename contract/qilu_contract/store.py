"""The interface of a store, for all implementations."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, NamedTuple, Protocol, Self, get_args

from qilu_contract.columns import Columns
from qilu_contract.readings import Value
from qilu_contract.storage import Point

Aggregate = Literal["mean", "min", "max", "last", "count"]
AGGREGATES: tuple[Aggregate, ...] = get_args(Aggregate)

MAX_ROWS = 10_000
"""The most rows that one `series` answers: what a chart can show, and memory that no question can exhaust."""

SCAN_ROWS = 50_000
"""The most points that a chunk of `scan` holds, unless more have the same time: some tens of megabytes."""


@dataclass(frozen=True, slots=True)
class Row:
    """A stored point (or a bucket of an aggregation, by its start), without empty fields."""

    ts_ms: int
    values: dict[str, Value]


class Chunk(NamedTuple):
    """Points as `scan` finds them."""

    points: list[Point]
    """Points that do not fit into columns: with fields that are not in the schema, or integers from 2^53
    on."""
    columns: list[Columns]

    def all(self) -> list[Point]:
        return [*self.points, *(point for each in self.columns for point in each.points())]


class SeriesQuery(NamedTuple):
    """A question for the points with these tags and start_ms <= time < end_ms; with `every_ms` aggregated in
    buckets of this length."""

    measurement: str
    tags: Mapping[str, str]
    fields: Sequence[str]
    start_ms: int
    end_ms: int
    every_ms: int | None = None
    aggregate: Aggregate = "mean"


class PlatformStore(Protocol):
    """The part of a store that the platform uses. Every call may raise Retryable (unavailable, busy, denied),
    which loses nothing."""

    async def write(self, points: Sequence[Point]) -> None:
        """See `Store.write`."""

    async def latest(self, measurement: str, tags: Mapping[str, str]) -> Row | None:
        """The last point whose tags hold the given values; for units, fields not in that point are filled
        from those before it.
        """

    async def series(self, query: SeriesQuery) -> list[Row]:
        """Points in order of time, or one row for each bucket that holds something. Raises ValueError for an
        unknown measurement, tag or field, or for more than MAX_ROWS rows."""

    async def since(self, measurement: str, starts: Mapping[str, int], end_ms: int) -> dict[str, list[Row]]:
        """The points of several units, by id, each from its own start on and before `end_ms`, in order of
        time, with all of their fields; units without points are left out. One query for all, for what is
        followed live: of more than MAX_ROWS points in all some are left out.

        Raises ValueError as `series`.
        """

    async def newest(
        self, measurement: str, having: Mapping[str, str | int], start_ms: int, end_ms: int, limit: int
    ) -> list[Point]:
        """The last points with start_ms <= time < end_ms whose tags (texts) and whole-number fields hold the
        given values, with their tags, the newest first: at most `limit`, which is at most MAX_ROWS. For
        measurements of few points, such as alarms, that are not units' readings.

        Raises ValueError as `series`.
        """

    async def count_by(self, measurement: str, tag: str, start_ms: int, end_ms: int) -> dict[str, int]:
        """How many points (as `count`) with start_ms <= time < end_ms each value of a tag has, if any. Scans:
        for reports and tests."""

    def scan(self, measurement: str, start_ms: int, end_ms: int) -> AsyncIterator[Chunk]:
        """All points of a measurement of units with start_ms <= time < end_ms, with their tags, in no order,
        in chunks of at most SCAN_ROWS: one pass over the store, in bounded memory. For verification
        and exports.
        """


class Store(PlatformStore, Protocol):
    """Opened by `async with`."""

    async def __aenter__(self) -> Self:
        """Connect, and make the database where that is the store's custom (DuckDB, InfluxDB 1.x). A store
        that is unavailable does not fail here.
        """

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def write(self, points: Sequence[Point], columns: Sequence[Columns] = ()) -> None:
        """Points, and more by column. Durable on return, all of them; written at once, as far as the store
        can. Idempotent: same measurement, tags and time is the same point, and its fields merge.

        Raises Rejected when at least one point is refused for good, TooLarge when the batch must be split.
        """

    async def count(self, measurement: str) -> int:
        """How many points the measurement holds (those with its `counted_by` field). Scans: for reports and
        tests.
        """

    async def count_duplicates(self, measurement: str) -> int:
        """Number of points in addition to another of the same unit and time under other tags. Scans: for
        reports and tests.
        """

    async def ping(self) -> None:
        """Return if the store can take points now, else raise Retryable."""
