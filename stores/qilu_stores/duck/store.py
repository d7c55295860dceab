"""DuckDB: the embedded store, one file, owned by the one process that runs gateway and platform together."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import math
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar

import duckdb
import structlog
from qilu_common.private_files import private_file
from qilu_contract.columns import Columns
from qilu_contract.errors import ConfigError, Retryable
from qilu_contract.readings import Value
from qilu_contract.storage import MEASUREMENTS, Measurement, Point
from qilu_contract.store import MAX_ROWS, SCAN_ROWS, Aggregate, Chunk, Row, SeriesQuery

from qilu_stores.duck.tables import (
    LAST,
    MS,
    all_points_of,
    fields_of,
    make_tables,
    points_of,
    read_chunk,
    write,
)
from qilu_stores.questions import check_names, check_newest, check_series

log = structlog.get_logger()

_T = TypeVar("_T")
LOG_LIMIT = "128MiB"
"""Size of DuckDB's log (`.wal`) at which it moves into the file. Each time, the last, incomplete row group of
every table is compressed and written again. At the default (16 MB) a point costs a sixth more CPU, and the
file is larger by half. After a crash, the log is read in a few seconds."""
MEMORY_LIMIT = "1GiB"
"""Memory limit of DuckDB for cached file content and query results: beyond it, DuckDB drops cached content
and spills the rest beside the file. Its default is 80 % of the machine, and usage grows to that with the
file."""
_BROKEN = (duckdb.FatalException, duckdb.InternalException)
"""Errors after which a connection is unusable, even if the disk recovers: the file must be opened again."""
_OUR_FAULT = (duckdb.ProgrammingError, duckdb.DataError, duckdb.IntegrityError, duckdb.NotSupportedError)
"""Errors that are not caused by disk or memory."""
# A sum of many large values is infinite, and a power of two changes no digit of what it scales.
_AGGREGATES: dict[Aggregate, str] = {
    "mean": "avg({0} * 2.3283064365386963e-10) * 4294967296.0",
    "min": "min({0})",
    "max": "max({0})",
    "last": "arg_max({0}, ts)",  # skips empty values
    "count": "nullif(count({0}), 0)",
}


class DuckStore:
    """Implements `Store`. Writes run in one thread, reads in another; both block only their own callers.

    If the file cannot be opened or written now (the disk is full, read-only or damaged), the store counts as
    unavailable: the next call opens it again.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._log = self._path.with_name(self._path.name + ".wal")
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="duckdb-write")
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="duckdb-read")
        self._connection: duckdb.DuckDBPyConnection | None = None
        self._cursors: set[duckdb.DuckDBPyConnection] = set()
        """All cursors of the connection: the file is not closed while one of them is open."""
        self._threads = threading.local()
        self._broken = False

    async def __aenter__(self) -> Self:
        """Raises ConfigError when the file is open in another process, or its folder cannot be made."""
        try:
            await asyncio.get_running_loop().run_in_executor(self._writer, self._open)
        except Retryable as error:
            log.error("the store's file cannot be opened yet", file=str(self._path), error=str(error))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._reader.shutdown(wait=True)
        self._writer.shutdown(wait=True)
        self._close()

    def _open(self) -> None:
        """Raises ConfigError, or Retryable when it may work later."""
        new = False
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            new = self._is_new()
            connection = duckdb.connect(
                self._path, config={"memory_limit": MEMORY_LIMIT, "checkpoint_threshold": LOG_LIMIT}
            )
            private_file(self._path)
        except duckdb.IOException as error:
            if "lock" in str(error):
                raise ConfigError(
                    f"{self._path} is open in another process: only one can use a DuckDB file, "
                    "so stop that one first."
                ) from error
            if new:  # a full disk: what there is of the file could not be opened later
                self._remove_file()
            raise self._away(error) from error
        except duckdb.Error as error:
            raise self._away(error) from error
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
                raise Retryable(f"{self._path} cannot be made: {error.strerror}") from error
            raise ConfigError(f"{self._path} cannot be made: {error.strerror}.") from error
        try:
            make_tables(connection)
        except duckdb.Error as error:
            connection.close()
            if new:
                self._remove_file()
            raise self._away(error) from error
        self._connection, self._broken = connection, False

    def _is_new(self) -> bool:
        """Nothing was ever in the file. An empty one is removed: DuckDB takes it for damaged."""
        if self._log.exists() or (self._path.exists() and self._path.stat().st_size):
            return False
        self._remove_file()
        return True

    def _remove_file(self) -> None:
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)
            self._log.unlink(missing_ok=True)

    def _away(self, error: duckdb.Error) -> Retryable:
        return Retryable(f"{self._path} cannot be opened: {_reason(error)}")

    def _close(self) -> None:
        for cursor in self._cursors:
            cursor.close()
        self._cursors.clear()
        if self._connection is not None:
            try:
                self._connection.close()
            except duckdb.Error as error:  # the last checkpoint failed: what was written is in the log beside
                log.warning("the store's file was not closed cleanly", error=str(error).splitlines()[0])
            self._connection = None

    def _reopen(self) -> None:
        """Reopen the file, in the writer's thread. The reader has only one thread, so no query runs while the
        file is closed. Raises Retryable."""
        if self._connection is not None and not self._broken:
            return
        self._reader.submit(self._close).result()
        try:
            self._open()
        except ConfigError as error:
            raise Retryable(str(error)) from error

    def _cursor(self) -> duckdb.DuckDBPyConnection:
        """This thread's own."""
        if self._connection is None:
            raise Retryable("the store is closed")
        cursor: duckdb.DuckDBPyConnection | None = getattr(self._threads, "cursor", None)
        if cursor is None or cursor not in self._cursors:
            cursor = self._threads.cursor = self._connection.cursor()
            self._cursors.add(cursor)
        return cursor

    async def _run(self, pool: ThreadPoolExecutor, work: Callable[[duckdb.DuckDBPyConnection], _T]) -> _T:
        def call() -> _T:
            cursor = self._cursor()
            try:
                return work(cursor)
            except duckdb.Error as error:
                if isinstance(error, _OUR_FAULT):
                    raise
                self._broken |= isinstance(error, _BROKEN)
                raise Retryable(f"DuckDB: {_reason(error)}") from error

        loop = asyncio.get_running_loop()
        if self._connection is None or self._broken:
            await loop.run_in_executor(self._writer, self._reopen)
        return await loop.run_in_executor(pool, call)

    async def ping(self) -> None:
        await self._run(self._writer, lambda cursor: cursor.execute("SELECT 1"))

    async def write(self, points: Sequence[Point], columns: Sequence[Columns] = ()) -> None:
        await self._run(self._writer, lambda cursor: write(cursor, points, columns))

    async def latest(self, measurement: str, tags: Mapping[str, str]) -> Row | None:
        schema = check_names(measurement, tags, ())
        where, values = _where(tags)
        there = await self._fields(schema)
        columns = ", ".join(f'arg_max("{name}", {LAST})' for name in there)
        sql = f'SELECT max({MS}), {columns} FROM "{measurement}" WHERE {where}'  # noqa: S608  # names from the schema
        [found] = await self._run(self._reader, lambda cursor: cursor.execute(sql, values).fetchall())
        return None if found[0] is None else _row(found, there)

    async def series(self, query: SeriesQuery) -> list[Row]:
        schema, fields = check_series(query)
        if schema.open:
            there = await self._fields(schema)
            fields = [name for name in fields if name in there]
            if not fields:
                return []
        where, values = _where(query.tags)
        where += " AND ts >= make_timestamp_ms(?) AND ts < make_timestamp_ms(?)"
        any_value = " OR ".join(f'"{name}" IS NOT NULL' for name in fields)
        points = points_of(schema, fields, f"{where} AND ({any_value})")
        if query.every_ms is None:
            columns = ", ".join(f'"{name}"' for name in fields)
            sql = f"SELECT {MS}, {columns} FROM {points} ORDER BY ts"  # noqa: S608
        else:
            columns = ", ".join(_AGGREGATES[query.aggregate].format(f'"{name}"') for name in fields)
            bucket = f"{MS} - {MS} % {query.every_ms:d}"
            sql = (
                f'SELECT {bucket} AS "the bucket", {columns} FROM {points} '  # noqa: S608
                'GROUP BY "the bucket" ORDER BY "the bucket"'
            )
        rows = await self._run(
            self._reader,
            lambda cursor: cursor.execute(
                f"{sql} LIMIT {MAX_ROWS + 1}", [*values, query.start_ms, query.end_ms]
            ).fetchall(),
        )
        if len(rows) > MAX_ROWS:
            raise ValueError(f"more than {MAX_ROWS} rows: ask for a shorter time or a longer interval")
        return [_row(row, tuple(fields)) for row in rows]

    async def since(self, measurement: str, starts: Mapping[str, int], end_ms: int) -> dict[str, list[Row]]:
        first_ms = min(starts.values(), default=end_ms)
        schema = check_names(measurement, ["unit"], (), first_ms, end_ms)
        fields = await self._fields(schema)
        columns = ", ".join(f'"{name}"' for name in fields)
        among = ", ".join("?" * len(starts))
        sql = (
            f'SELECT unit, {MS}, {columns} FROM "{measurement}" '  # noqa: S608  # names from the schema
            f"WHERE {_within(first_ms, end_ms)} AND unit IN ({among}) ORDER BY rowid LIMIT {MAX_ROWS}"
        )
        if not starts:
            return {}
        rows = await self._run(self._reader, lambda cursor: cursor.execute(sql, list(starts)).fetchall())
        found: dict[str, dict[int, Row]] = {}
        for unit, *row in rows:
            if row[0] >= starts[unit]:
                point = _row(row, fields)
                of_unit = found.setdefault(unit, {})
                if point.ts_ms in of_unit:  # written again: the last value of each field
                    point.values.update(of_unit[point.ts_ms].values | point.values)
                of_unit[point.ts_ms] = point
        return {unit: [points[ts_ms] for ts_ms in sorted(points)] for unit, points in found.items()}

    async def newest(
        self, measurement: str, having: Mapping[str, str | int], start_ms: int, end_ms: int, limit: int
    ) -> list[Point]:
        schema = check_newest(measurement, having, start_ms, end_ms, limit)
        where, values = _where(having)
        fields = await self._fields(schema)
        columns = ", ".join(f'"{name}"' for name in (*schema.tags, *fields))
        sql = (
            f'SELECT {MS}, {columns} FROM "{measurement}" '  # noqa: S608  # names from the schema
            f"WHERE {where} AND {_within(start_ms, end_ms)} ORDER BY ts DESC LIMIT {limit:d}"
        )
        rows = await self._run(self._reader, lambda cursor: cursor.execute(sql, values).fetchall())
        first = 1 + len(schema.tags)
        return [
            Point(measurement, row[1:first], int(row[0]), _row((row[0], *row[first:]), fields).values)
            for row in rows
        ]

    async def count(self, measurement: str) -> int:
        schema = MEASUREMENTS[measurement]
        points = all_points_of(schema, (), f'"{schema.counted_by}" IS NOT NULL')
        return await self._number(f"SELECT count(*) FROM {points}")  # noqa: S608

    async def count_by(self, measurement: str, tag: str, start_ms: int, end_ms: int) -> dict[str, int]:
        schema = check_names(measurement, [tag], (), start_ms, end_ms)
        points = all_points_of(
            schema, (), f'"{schema.counted_by}" IS NOT NULL AND {_within(start_ms, end_ms)}'
        )
        sql = f"SELECT {tag}, count(*) FROM {points} GROUP BY {tag}"  # noqa: S608  # names from the schema
        rows = await self._run(self._reader, lambda cursor: cursor.execute(sql).fetchall())
        return {value: int(number) for value, number in rows}

    async def count_duplicates(self, measurement: str) -> int:
        tags = ", ".join(MEASUREMENTS[measurement].tags)
        key = "hash(unit, ts)"
        return await self._number(
            f"SELECT count(DISTINCT (ts, {tags})) - count(DISTINCT (ts, unit)) "  # noqa: S608
            f'FROM "{measurement}" WHERE {key} IN '
            f'(SELECT {key} FROM "{measurement}" GROUP BY ALL HAVING count(*) > 1)'
        )

    async def scan(self, measurement: str, start_ms: int, end_ms: int) -> AsyncIterator[Chunk]:
        schema = check_names(measurement, (), (), start_ms, end_ms)
        spans = [(start_ms, end_ms)]
        while spans:
            start_ms, end_ms = spans.pop()
            within = _within(start_ms, end_ms)
            rows = await self._number(f'SELECT count(*) FROM "{measurement}" WHERE {within}')  # noqa: S608
            if rows > SCAN_ROWS and end_ms - start_ms > 1:
                middle_ms = (start_ms + end_ms) // 2
                spans += [(middle_ms, end_ms), (start_ms, middle_ms)]
            elif rows:
                read = partial(read_chunk, schema=schema, where=within)
                yield await self._run(self._reader, read)

    async def _fields(self, schema: Measurement) -> tuple[str, ...]:
        if not schema.open:
            return tuple(schema.fields)
        return await self._run(self._reader, lambda cursor: fields_of(cursor, schema))

    async def _number(self, sql: str) -> int:
        [[number]] = await self._run(self._reader, lambda cursor: cursor.execute(sql).fetchall())
        return int(number)


def _reason(error: duckdb.Error) -> str:
    first = str(error).splitlines()[0]
    if "not a valid DuckDB" in first or "Corrupt" in first:
        return f"{first}; the file is damaged: restore it from a backup, or move it away"
    return first


def _where(having: Mapping[str, str | int]) -> tuple[str, list[object]]:
    return " AND ".join(["true", *(f'"{name}" = ?' for name in having)]), list(having.values())


def _within(start_ms: int, end_ms: int) -> str:
    return f"ts >= make_timestamp_ms({start_ms:d}) AND ts < make_timestamp_ms({end_ms:d})"


def _row(found: Sequence[Any], fields: Sequence[str]) -> Row:
    values: dict[str, Value] = {
        name: value
        for name, value in zip(fields, found[1:], strict=True)
        if value is not None and math.isfinite(value)
    }
    return Row(int(found[0]), values)
