"""What a store does, whatever keeps the points."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Protocol, Self, get_args
from urllib.parse import urlsplit

from qilu_contract.errors import ConfigError
from qilu_contract.readings import Value
from qilu_contract.storage import Point

Aggregate = Literal["mean", "min", "max", "last", "count"]
AGGREGATES: tuple[Aggregate, ...] = get_args(Aggregate)

MAX_ROWS = 10_000
"""The most rows that one `series` answers: what a chart can show, and memory that no question can exhaust."""

SCAN_ROWS = 10_000
"""The most points that a chunk of `scan` holds: some megabytes."""


@dataclass(frozen=True, slots=True)
class Row:
    """One point as it is stored (or one bucket of an aggregation, by its start): fields that hold nothing are
    left out.
    """

    ts_ms: int
    values: dict[str, Value]


class Store(Protocol):
    """Opened by `async with`. Every call may raise Retryable (away, busy, denied), which loses nothing."""

    async def __aenter__(self) -> Self:
        """Connect, and make the database where that is the store's custom (DuckDB, InfluxDB 1.x). A store
        that is away does not fail here.
        """

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def write(self, points: Sequence[Point]) -> None:
        """Durable on return. Idempotent: same measurement, tags and time is the same point, and its fields
        merge.

        Raises Rejected when at least one point is refused for good, TooLarge when the batch must be split.
        """

    async def latest(self, measurement: str, tags: Mapping[str, str]) -> Row | None:
        """The last point whose tags hold the given values; for units, fields not in that point are filled
        from those before it.
        """

    async def series(
        self,
        measurement: str,
        tags: Mapping[str, str],
        fields: Sequence[str],
        start_ms: int,
        end_ms: int,
        every_ms: int | None = None,
        aggregate: Aggregate = "mean",
    ) -> list[Row]:
        """Points with start_ms <= time < end_ms in order of time, or one row for each bucket of `every_ms`
        that holds something.

        Raises ValueError for an unknown measurement, tag or field, or for more than MAX_ROWS rows.
        """

    async def count(self, measurement: str) -> int:
        """How many points the measurement holds (those with its `counted_by` field). Scans: for reports and
        tests.
        """

    async def count_by(self, measurement: str, tag: str, start_ms: int, end_ms: int) -> dict[str, int]:
        """How many points with start_ms <= time < end_ms each value of a tag has. Scans: for reports and
        tests."""

    async def count_duplicates(self, measurement: str) -> int:
        """How many points stand beside another of the same unit and time under other tags. Scans: for reports
        and tests.
        """

    def scan(self, measurement: str, start_ms: int, end_ms: int) -> AsyncIterator[list[Point]]:
        """All points with start_ms <= time < end_ms, with their tags, in no order, in chunks of at most
        SCAN_ROWS: one pass over the store, in bounded memory. For verification.
        """

    async def ping(self) -> None:
        """Return if the store can take points now, else raise Retryable."""


def influx_address(url: str) -> tuple[str, str] | None:
    """Base URL and database of `influxdb://host:8086/database` (`influxdbs://` for TLS); None for any
    other."""
    parts = urlsplit(url)
    if parts.scheme not in ("influxdb", "influxdbs") or not parts.hostname or not parts.path.strip("/"):
        return None
    scheme = "https" if parts.scheme == "influxdbs" else "http"
    return f"{scheme}://{parts.hostname}:{parts.port or 8086}", parts.path.strip("/")


def open_store(url: str, token: str | None = None) -> Store:
    """The store that `url` names: `duckdb:///path`, `influxdb://host:8086/database` or `influxdbs://…` for
    TLS.

    Does no I/O. Raises ConfigError for a URL that names no store.
    """
    parts = urlsplit(url)
    if parts.scheme == "duckdb" and not parts.netloc and len(parts.path) > 1:
        try:
            from qilu_contract.stores.duck import DuckStore
        except ModuleNotFoundError as error:
            raise ConfigError(f"{url} needs DuckDB: install clouds-in-qilu[stack].") from error
        # Like SQLAlchemy's: three slashes for a relative path, four for an absolute one.
        return DuckStore(parts.path[1:])
    influx = influx_address(url)
    if influx is not None:
        from qilu_contract.stores.influx import InfluxStore

        return InfluxStore(*influx, token)
    raise ConfigError(
        f"--store {url} names no store: use duckdb:///path/to/file.duckdb or influxdb://host:8086/database."
    )
