"""What a store does, whatever keeps the points."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, NamedTuple, Protocol, Self, get_args
from urllib.parse import unquote, urlsplit

from qilu_contract.columns import Columns
from qilu_contract.errors import ConfigError
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
    """One point as it is stored (or one bucket of an aggregation, by its start): fields that hold nothing are
    left out.
    """

    ts_ms: int
    values: dict[str, Value]


class Chunk(NamedTuple):
    """Points as `scan` finds them."""

    points: list[Point]
    """What fits no column: fields that the schema does not have, integers from 2^53 on."""
    columns: list[Columns]

    def all(self) -> list[Point]:
        return [*self.points, *(point for each in self.columns for point in each.points())]


class PlatformStore(Protocol):
    """As much of a store as the platform uses. Every call may raise Retryable (away, busy, denied), which
    loses nothing."""

    async def write(self, points: Sequence[Point]) -> None:
        """See `Store.write`."""

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

    async def count_by(self, measurement: str, tag: str, start_ms: int, end_ms: int) -> dict[str, int]:
        """How many points (as `count`) with start_ms <= time < end_ms each value of a tag has, if any. Scans:
        for reports and tests."""


class Store(PlatformStore, Protocol):
    """Opened by `async with`."""

    async def __aenter__(self) -> Self:
        """Connect, and make the database where that is the store's custom (DuckDB, InfluxDB 1.x). A store
        that is away does not fail here.
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
        """How many points stand beside another of the same unit and time under other tags. Scans: for reports
        and tests.
        """

    def scan(self, measurement: str, start_ms: int, end_ms: int) -> AsyncIterator[Chunk]:
        """All points of a measurement of units with start_ms <= time < end_ms, with their tags, in no order,
        in chunks of at most SCAN_ROWS: one pass over the store, in bounded memory. For verification.
        """

    async def ping(self) -> None:
        """Return if the store can take points now, else raise Retryable."""


@dataclass(frozen=True, slots=True)
class InfluxAddress:
    """What `influxdb://user:password@host:8086/database` says (`influxdbs://` for TLS)."""

    url: str
    """Without the log-in: `http://host:8086`."""
    database: str
    user: str | None = None
    password: str | None = None

    @classmethod
    def parse(cls, url: str) -> Self | None:
        """None for any other URL."""
        parts = urlsplit(url)
        database = parts.path.strip("/")
        if parts.scheme not in ("influxdb", "influxdbs") or not parts.hostname or not database:
            return None
        try:
            port = parts.port or 8086
        except ValueError:
            return None
        scheme = "https" if parts.scheme == "influxdbs" else "http"
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        user, password = (
            None if text is None else unquote(text) for text in (parts.username or None, parts.password)
        )
        return cls(f"{scheme}://{host}:{port}", database, user, password)

    def log_in(self, token: str | None) -> tuple[str, str] | None:
        """User and password where the server has users (1.x): from the URL, whose password may also be the
        token, or from a token `user:password`."""
        if self.user is not None:
            return self.user, self.password or token or ""
        if token and ":" in token:  # tokens of 2.x and 3.x hold none
            user, _, password = token.partition(":")
            return user, password
        return None

    def headers(self, token: str | None) -> dict[str, str]:
        """The header that logs in, if anything does."""
        log_in = self.log_in(token)
        if log_in is not None:
            return {"Authorization": f"Basic {b64encode(':'.join(log_in).encode()).decode()}"}
        return {"Authorization": f"Token {token}"} if token else {}

    def caller(self, token: str | None) -> str:
        """The name of what logs in, for messages."""
        log_in = self.log_in(token)
        if log_in is not None:
            return f"the user {log_in[0]!r}"
        return "the token in QILU_INFLUX_TOKEN" if token else "a caller without credentials"


def without_password(url: str) -> str:
    """The URL as it may be shown."""
    parts = urlsplit(url)
    if parts.password is None:
        return url
    return parts._replace(netloc=f"{parts.username}:***@{parts.netloc.rpartition('@')[2]}").geturl()


def open_store(url: str, token: str | None = None) -> Store:
    """The store that `url` names: `duckdb:///path`, `influxdb://host:8086/database` or `influxdbs://…` for
    TLS, the latter two with `user:password@` before the host where InfluxDB 1.x has users.

    Opens nothing. Raises ConfigError for a URL that names no store.
    """
    parts = urlsplit(url)
    if parts.scheme == "duckdb" and not parts.netloc and len(parts.path) > 1:
        try:
            from qilu_contract.stores.duck import DuckStore
        except ModuleNotFoundError as error:
            raise ConfigError(f"{url} needs DuckDB: install clouds-in-qilu[stack].") from error
        if Path(parts.path[1:]).is_dir():
            raise ConfigError(f"--store {url} is a folder: name a file in it.")
        # Like SQLAlchemy's: three slashes for a relative path, four for an absolute one.
        return DuckStore(parts.path[1:])
    address = InfluxAddress.parse(url)
    if address is not None:
        from qilu_contract.stores.influx import InfluxStore

        if token and not (token.isascii() and token.isprintable()) and address.log_in(token) is None:
            raise ConfigError("QILU_INFLUX_TOKEN holds characters that no token has: copy it again.")
        return InfluxStore(address, token)
    raise ConfigError(
        f"--store {without_password(url)} names no store: "
        "use duckdb:///path/to/file.duckdb or influxdb://host:8086/database."
    )
