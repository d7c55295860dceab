"""InfluxDB 1.x, 2.x and 3.x in the dialect that they share: `/ping`, `/write` with line protocol, InfluxQL at
`/query`.
"""

from __future__ import annotations

import re
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any, Self

import httpx2
import msgspec
import structlog
from qilu_common.influx_address import InfluxAddress
from qilu_contract.columns import Columns
from qilu_contract.errors import Denied, Rejected, Retryable, StoreError, TooLarge
from qilu_contract.storage import Point, line_protocol
from qilu_contract.store import MAX_ROWS, SCAN_ROWS, Aggregate, Chunk, Row, SeriesQuery

from qilu_stores.influx.answers import NotJson, Result, answers, row_of, scanned, series_of, whole_row
from qilu_stores.influx.column_lines import column_lines
from qilu_stores.questions import check_names, check_newest, check_series

log = structlog.get_logger()

_TIMEOUT = httpx2.Timeout(30, connect=5)
_SCALE = 2**32
"""A power of two, so that scaling changes no digit: a sum of fewer than 2³² values over it stays finite."""
_CHUNK_ROWS = 10_000
_STORE_FULL = ("no space left", "disk quota exceeded", "read-only file system", "engine is closed")
"""In an answer's text, whatever its status: the points are good, and the server cannot keep them now."""


class InfluxStore:
    """Implements `Store` over HTTP. `database` is 2.x's bucket, which answers by that name on the paths of
    1.x.
    """

    def __init__(self, address: InfluxAddress, token: str | None) -> None:
        self._database = address.database
        self._urls = address.urls
        self._at = f"InfluxDB at {', '.join(address.urls)}"
        self._caller = address.caller(token)
        # Loopback or a private network: ignore proxies from the environment.
        self._http = httpx2.AsyncClient(headers=address.headers(token), timeout=_TIMEOUT, trust_env=False)
        self._created = False
        self._is_gemini = False
        """openGemini: it answers alike but for its version header and questions about what is not there."""
        self._warned = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def ping(self) -> None:
        """Also makes the database on 1.x when it is missing, once."""
        answer = await self._request("GET", "/ping")
        version = answer.headers.get("X-Influxdb-Version", "").removeprefix("v")
        self._is_gemini = "X-Geminidb-Version" in answer.headers
        if not self._created and (self._is_gemini or version.startswith("1.")):
            await self._create_database()
        self._created = True

    async def _create_database(self) -> None:
        """Where it is there already, a user who may only write to it is refused: the write decides."""
        try:
            quoted = self._database.replace("\\", "\\\\").replace('"', '\\"')
            await self._answers(f'CREATE DATABASE "{quoted}"')
        except (Denied, StoreError) as error:
            if isinstance(error, Retryable) and not isinstance(error, Denied):
                raise
            if not self._warned:
                self._warned = True
                log.warning(
                    "the database was not made: it has to be there already",
                    database=self._database,
                    error=str(error),
                )

    async def write(self, points: Sequence[Point], columns: Sequence[Columns] = ()) -> None:
        try:
            parts = [line_protocol(points), *map(column_lines, columns)]
        except (KeyError, ValueError, TypeError, OverflowError) as error:
            raise Rejected(f"a point does not fit the schema: {error!r}") from error
        body = b"\n".join(filter(None, parts))
        if not body:
            return
        if not self._created:
            await self.ping()
        await self._request("POST", "/write", {"db": self._database, "precision": "ms"}, body)

    async def latest(self, measurement: str, tags: Mapping[str, str]) -> Row | None:
        schema = check_names(measurement, tags, ())
        where = _where(tags)
        fields = "*" if schema.open else ", ".join(map(_name, schema.fields))
        times, last = await self._query(
            f"SELECT {fields} FROM {measurement} WHERE {where} ORDER BY time DESC LIMIT 1",  # noqa: S608  # quoted by _where
            f"SELECT last(*) FROM {measurement} WHERE {where}",  # noqa: S608
        )
        if not times:
            return None
        values = {name.removeprefix("last_"): value for name, value in last[0].items() if name != "time"}
        return row_of(int(times[0]["time"]), values, schema.fields)

    async def series(self, query: SeriesQuery) -> list[Row]:
        schema, fields = check_series(query)
        within = f"time >= {query.start_ms:d}ms AND time < {query.end_ms:d}ms"
        source = f"{query.measurement} WHERE {_where(query.tags)} AND {within}"
        if query.every_ms is None:
            columns = ", ".join(_name(field) for field in fields)
            sql = f"SELECT {columns} FROM {source} ORDER BY time LIMIT {MAX_ROWS + 1}"  # noqa: S608
            [rows] = await self._query(sql)
        else:
            rows = await self._buckets(source, within, fields, query.every_ms, query.aggregate)
        if len(rows) > MAX_ROWS:
            raise ValueError(f"more than {MAX_ROWS} rows: ask for a shorter time or a longer interval")
        types = schema.fields
        if query.every_ms is not None and query.aggregate in ("mean", "count"):
            types = dict.fromkeys(fields, "int" if query.aggregate == "count" else "float")
        return [row_of(int(row["time"]), {name: row.get(name) for name in fields}, types) for row in rows]

    async def _buckets(
        self, source: str, within: str, fields: Sequence[str], every_ms: int, aggregate: Aggregate
    ) -> list[dict[str, Any]]:
        columns = ", ".join(f"{aggregate}({_name(field)}) AS {_name(field)}" for field in fields)
        by_time = f"GROUP BY time({every_ms:d}ms) fill(none) ORDER BY time"
        try:
            [rows] = await self._query(f"SELECT {columns} FROM {source} {by_time}")  # noqa: S608
        except NotJson:
            if aggregate != "mean":
                raise
            # The server sums before it divides, and has no way to write the infinite: smaller values then.
            scaled = ", ".join(f"{_name(field)} / {_SCALE} AS {_name(field)}" for field in fields)
            inner = f"SELECT {scaled} FROM {source}"  # noqa: S608
            [rows] = await self._query(f"SELECT {columns} FROM ({inner}) WHERE {within} {by_time}")  # noqa: S608
            for row in rows:
                row.update({name: row[name] * _SCALE for name in fields if row.get(name) is not None})
        return rows

    async def since(self, measurement: str, starts: Mapping[str, int], end_ms: int) -> dict[str, list[Row]]:
        schema = check_names(measurement, ["unit"], (), min(starts.values(), default=end_ms), end_ms)
        if not starts:
            return {}
        answers = await self._query(
            *(
                f"SELECT * FROM {measurement} WHERE {_where({'unit': unit})} "  # noqa: S608  # quoted by _where
                f"AND time >= {start_ms:d}ms AND time < {end_ms:d}ms ORDER BY time LIMIT {MAX_ROWS}"
                for unit, start_ms in starts.items()
            )
        )
        return {
            unit: [whole_row(schema, row) for row in rows]
            for unit, rows in zip(starts, answers, strict=True)
            if rows
        }

    async def newest(
        self, measurement: str, having: Mapping[str, str | int], start_ms: int, end_ms: int, limit: int
    ) -> list[Point]:
        schema = check_newest(measurement, having, start_ms, end_ms, limit)
        tags = {name: value for name, value in having.items() if isinstance(value, str)}
        fields = [
            f"{_name(name)} = {value:d}" for name, value in having.items() if not isinstance(value, str)
        ]
        where = " AND ".join([_where(tags), *fields])
        [rows] = await self._query(
            f"SELECT * FROM {measurement} WHERE {where} "  # noqa: S608  # quoted by _where
            f"AND time >= {start_ms:d}ms AND time < {end_ms:d}ms ORDER BY time DESC LIMIT {limit:d}"
        )
        return [
            Point(
                measurement,
                tuple(str(row.get(tag) or "") for tag in schema.tags),
                int(row["time"]),
                whole_row(schema, row).values,
            )
            for row in rows
        ]

    async def count(self, measurement: str) -> int:
        schema = check_names(measurement, (), ())
        [rows] = await self._query(f"SELECT count({_name(schema.counted_by)}) FROM {measurement}")  # noqa: S608
        return int(rows[0]["count"]) if rows else 0

    async def count_by(self, measurement: str, tag: str, start_ms: int, end_ms: int) -> dict[str, int]:
        schema = check_names(measurement, [tag], (), start_ms, end_ms)
        [series] = await self._series(
            f"SELECT count({_name(schema.counted_by)}) FROM {measurement} "  # noqa: S608  # names from the schema
            f"WHERE time >= {start_ms:d}ms AND time < {end_ms:d}ms GROUP BY {_name(tag)}"
        )
        return {found["tags"][tag]: int(found["rows"][0]["count"]) for found in series}

    async def count_duplicates(self, measurement: str) -> int:
        schema = check_names(measurement, (), ())
        [series] = await self._series(f"SHOW SERIES FROM {measurement}")
        keys = [row["key"] for found in series for row in found["rows"]]
        # Only units that have more than one series can hold a time twice: as a rule none.
        units = [next(tag for tag in key.split(",") if tag.startswith("unit="))[5:] for key in keys]
        suspects = (
            {unit for unit in units if units.count(unit) > 1} if len(set(units)) < len(units) else set()
        )
        fields = ", ".join(map(_name, schema.fields))
        twice = 0
        for unit in sorted(suspects):
            [rows] = await self._query(f"SELECT {fields} FROM {measurement} WHERE {_where({'unit': unit})}")  # noqa: S608
            twice += len(rows) - len({row["time"] for row in rows})
        return twice

    async def scan(self, measurement: str, start_ms: int, end_ms: int) -> AsyncIterator[Chunk]:
        schema = check_names(measurement, (), (), start_ms, end_ms)
        if not self._created:
            await self.ping()
        query = f"SELECT * FROM {measurement} WHERE time >= {start_ms:d}ms AND time < {end_ms:d}ms"  # noqa: S608
        params = {"db": self._database, "epoch": "ms", "chunked": "true", "chunk_size": str(_CHUNK_ROWS)}
        try:
            # Chunks arrive as the server finds them; between two it may have to look for a while.
            path = f"{self._urls[0]}/query"
            async with self._http.stream("POST", path, params=params, data={"q": query}) as answer:
                if not answer.is_success:
                    await answer.aread()
                    raise self._error("/query", answer)
                async for line in answer.aiter_lines():
                    for series in series_of(line):
                        for start in range(0, len(series.values), SCAN_ROWS):
                            rows = series.values[start : start + SCAN_ROWS]
                            yield scanned(schema, series.columns, rows)
        except httpx2.HTTPError as error:
            raise Retryable(f"{self._at}: {error or type(error).__name__}") from error
        except StoreError as error:
            if not self._is_absence(str(error)):
                raise

    async def _query(self, *statements: str) -> list[list[dict[str, Any]]]:
        """The rows of each statement, of all its series together."""
        answers = await self._series(*statements)
        return [[row for found in series for row in found["rows"]] for series in answers]

    async def _series(self, *statements: str) -> list[list[dict[str, Any]]]:
        if not self._created:
            await self.ping()
        return await self._answers(*statements)

    async def _answers(self, *statements: str) -> list[list[dict[str, Any]]]:
        query = "; ".join(statements)
        answer = await self._request(
            "POST", "/query", {"db": self._database, "epoch": "ms"}, data={"q": query}
        )
        try:
            chunk = answers.decode(answer.content)
        except msgspec.DecodeError as error:
            raise NotJson(f"{self._at} answered something else than rows: {answer.text[:200]!r}") from error
        if self._is_gemini and not chunk.results and len(statements) == 1:  # an empty SHOW SERIES
            chunk.results = [Result()]
        for error_text in (chunk.error, *(result.error for result in chunk.results)):
            if error_text is not None and not self._is_absence(error_text):
                raise StoreError(f"{self._at} refuses a query: {error_text}")
        if len(chunk.results) != len(statements):  # some statements 2.x answers with {}
            raise StoreError(f"{self._at} does not answer this query: {query[:200]}")
        return [
            [
                {
                    "tags": series.tags,
                    "rows": [dict(zip(series.columns, row, strict=True)) for row in series.values],
                }
                for series in result.series
            ]
            for result in chunk.results
        ]

    def _is_absence(self, error: str) -> bool:
        """Whether the error of a query means that there are no points; InfluxDB answers with none then."""
        return self._is_gemini and "measurement not found" in error

    async def _request(
        self,
        method: str,
        path: str,
        params: dict[str, str] | None = None,
        content: bytes | None = None,
        data: dict[str, str] | None = None,
    ) -> httpx2.Response:
        headers = {} if content is None else {"Content-Length": str(len(content))}
        for tries_left in reversed(range(len(self._urls))):
            try:
                answer = await self._http.request(
                    method,
                    f"{self._urls[0]}{path}",
                    params=params,
                    content=None if content is None else _once(content),
                    data=data,
                    headers=headers,
                )
                break
            except httpx2.HTTPError as error:
                # Away, hanging or cut off in the middle; a half-written answer counts as no answer, since
                # writing again is safe.
                self._created = False
                self._urls = *self._urls[1:], self._urls[0]
                if not tries_left or not isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout):
                    raise Retryable(f"{self._at}: {error or type(error).__name__}") from error
        # InfluxDB takes points with 204 and nothing else: a 200 is some other server's.
        if answer.status_code == 204 or (answer.is_success and path != "/write"):
            return answer
        if answer.status_code == 404 and path == "/write":  # the database was dropped under us
            self._created = False
        raise self._error(path, answer)

    def _error(self, path: str, answer: httpx2.Response) -> StoreError:
        """Map an unsuccessful answer to an error for the caller."""
        status, text = answer.status_code, answer.text[:300].strip()
        detail = f"{self._at} answered {status}: {text}"
        if any(words in text.lower() for words in _STORE_FULL):
            return Retryable(f"{detail} (the server cannot write to its disk: make room there)")
        match status:
            case 401:
                return Denied(
                    f"{detail} ({self._caller} is not known there: set QILU_INFLUX_TOKEN to the token, "
                    "or to user:password where InfluxDB 1.x has users)"
                )
            case 403:
                may = "write to" if path == "/write" else "read"
                return Denied(
                    f"{detail} ({self._caller} may not {may} {self._database!r}: grant it the right)"
                )
            case 404 if path == "/write":
                return Retryable(
                    f"{detail} (for {self._caller} there is no bucket or database {self._database!r}: "
                    "make it, or set --store to the bucket and QILU_INFLUX_TOKEN to its own token)"
                )
            case 404:
                return Retryable(f"{detail} (is {self._database!r} the right bucket or database?)")
            case 413:
                return TooLarge(detail)
            case 400 | 422 if path != "/ping" and _is_influxdbs(answer):
                dropped = re.search(r"dropped=(\d+)", text)
                return Rejected(detail, int(dropped[1]) if dropped else None)
            case 400 | 422:
                return Retryable(f"{detail} (that is not InfluxDB's own answer: check --store, also for TLS)")
            case _ if answer.is_success or answer.is_redirect:
                return Retryable(f"{detail} (that is no InfluxDB: check --store)")
            case _:
                return Retryable(detail, _retry_after(answer))


async def _once(body: bytes) -> AsyncIterator[bytes]:
    """A request is part of a cycle of references and lives on until garbage is collected, with a body of
    bytes, but not with one that has been iterated over."""
    yield body


def _is_influxdbs(answer: httpx2.Response) -> bool:
    """Whether it refuses points, and not a proxy the request, or a TLS port the plain text."""
    try:
        body = answer.json()
    except ValueError:
        return False
    return isinstance(body, dict) and not body.keys().isdisjoint(("error", "message", "code"))


def _retry_after(answer: httpx2.Response) -> float | None:
    """Seconds, or a date of HTTP's."""
    text = answer.headers.get("Retry-After", "")
    if text.isdecimal():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return None


def _name(identifier: str) -> str:
    return f'"{identifier}"'


def _where(tags: Mapping[str, str]) -> str:
    quoted = {name: value.replace("\\", "\\\\").replace("'", "\\'") for name, value in tags.items()}
    return " AND ".join([f"{_name(name)} = '{value}'" for name, value in quoted.items()] or ["time > 0"])
