"""Stored readings of many units, as a file."""

from __future__ import annotations

import asyncio
import csv
import io
import shutil
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse
from numpy.typing import NDArray
from pydantic import StringConstraints
from qilu_contract.catalogue.classes import CATALOGUE, EquipmentClass
from qilu_contract.catalogue.generic import GENERIC
from qilu_contract.columns import Columns, Series, of_points
from qilu_contract.store import Chunk, PlatformStore
from qilu_contract.wire.ids import ID_PATTERN
from qilu_stores.cells import store_of

from qilu_platform.api.common import PROBLEMS, Reader, RuntimeDep
from qilu_platform.api.periods import LongQuestions, period_ms
from qilu_platform.api.problems import Problem
from qilu_platform.models.fields import CityCode, ClassName, CountyCode

router = APIRouter(prefix="/v1/export", tags=["import and export"], responses=PROBLEMS)


CHUNK_TIMEOUT_S = 60.0
MAX_UNITS = 1_000
UnitId = Annotated[str, StringConstraints(pattern=ID_PATTERN)]
MAX_PARQUET_READINGS = 50_000_000
"""A Parquet file is made on disk before it is sent; CSV has no bound."""
_PART = 256 * 1024
_EXPORTS = LongQuestions("exports")

_EXPORT: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "A row for each reading: unit, ts (UTC), and a column for each signal of the class; "
        "empty where it was not sampled. In no order.",
        "content": {
            "text/csv": {"schema": {"type": "string"}},
            "application/vnd.apache.parquet": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}


@dataclass(frozen=True, slots=True)
class Chosen:
    """Filter of readings; None: no restriction."""

    equipment: EquipmentClass
    units: frozenset[str] | None
    city: str | None
    county: str | None
    enterprise: str | None

    def of(self, columns: Columns) -> Columns:
        keep = np.ones(len(columns), dtype=np.bool_)
        for tag in ("city", "county", "enterprise"):
            wanted = getattr(self, tag)
            if wanted is not None:
                keep &= columns.series.tag(tag, columns.rows) == wanted
        if self.units is not None:
            ids = columns.series.tag("unit", columns.rows).tolist()
            keep &= np.fromiter((unit in self.units for unit in ids), np.bool_, len(ids))
        return columns if keep.all() else columns.take(keep)


@router.get("/readings", response_class=StreamingResponse, responses=_EXPORT)
async def export_readings(
    runtime: RuntimeDep,
    caller: Reader,
    class_: Annotated[ClassName, Query(alias="class")],
    from_: Annotated[str, Query(alias="from", description="RFC 3339 or ms.")],
    to: Annotated[str, Query(description="RFC 3339 or ms. Not included itself.")],
    unit: Annotated[
        list[UnitId] | None,
        Query(max_length=MAX_UNITS, description="Once for each; else all that there are."),
    ] = None,
    city: CityCode | None = None,
    county: CountyCode | None = None,
    enterprise: Annotated[str | None, Query(pattern=ID_PATTERN)] = None,
    format: Literal["csv", "parquet"] = "csv",
) -> Response:
    """The stored readings of a class, as a stream. A key of an enterprise gets those of its own units. When
    the store goes away meanwhile, the stream breaks off."""
    start_ms, end_ms = period_ms(from_, to)
    if runtime.store is None:
        raise Problem(503, "The platform runs without a store of readings: start it with --store.")
    if caller.enterprise is not None:
        if enterprise not in (None, caller.enterprise):
            raise Problem(404, f"enterprise {enterprise} does not exist.")
        enterprise = caller.enterprise
    units = None if unit is None else frozenset(unit)
    if class_ == GENERIC:
        raise Problem(
            422, "class: the signals of generic units differ; ask for /v1/units/{id}/readings of each."
        )
    chosen = Chosen(CATALOGUE[class_], units, city, county, enterprise)
    store = runtime.store if county is None else store_of(runtime.store, county)
    rows = _chosen(store, chosen, start_ms, end_ms)
    made = _csv(chosen.equipment, rows) if format == "csv" else _parquet(chosen.equipment, rows)
    # An error in the first part becomes an error response; afterwards it truncates the stream.
    first = await anext(made)
    kind = "text/csv; charset=utf-8" if format == "csv" else "application/vnd.apache.parquet"
    headers = {"Content-Disposition": f'attachment; filename="{class_}.{format}"'}
    return StreamingResponse(_all(first, made), media_type=kind, headers=headers)


async def _all(first: bytes, rest: AsyncGenerator[bytes, None]) -> AsyncIterator[bytes]:
    async with aclosing(rest):
        yield first
        async for part in rest:
            yield part


async def _chosen(
    store: PlatformStore, chosen: Chosen, start_ms: int, end_ms: int
) -> AsyncGenerator[Columns, None]:
    """A slice of the store at a time."""
    async with _EXPORTS:
        chunks = store.scan(chosen.equipment.name, start_ms, end_ms)
        while True:
            try:
                async with asyncio.timeout(CHUNK_TIMEOUT_S):
                    chunk = await anext(chunks)
            except StopAsyncIteration:
                return
            except TimeoutError as error:
                raise Problem(
                    503, f"The store of readings did not answer in {CHUNK_TIMEOUT_S:.0f} s."
                ) from error
            for columns in _columns(chunk):
                if len(found := chosen.of(columns)):
                    yield found


def _columns(chunk: Chunk) -> Sequence[Columns]:
    # Integers that no column holds exactly become the nearest float.
    return [*chunk.columns, *of_points(chunk.points, Series(), {}, exact=False)]


def _times(columns: Columns) -> NDArray[np.datetime64]:
    return columns.ts_ms.astype("datetime64[ms]")


async def _csv(equipment: EquipmentClass, rows: AsyncGenerator[Columns, None]) -> AsyncGenerator[bytes, None]:
    names = [signal.name for signal in equipment.signals]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["unit", "ts", *names])
    async with aclosing(rows):
        async for columns in rows:
            await asyncio.to_thread(_write_csv, writer, equipment, columns)
            yield text.getvalue().encode()
            text.seek(0)
            text.truncate()
    if text.tell():
        yield text.getvalue().encode()


def _write_csv(writer: Any, equipment: EquipmentClass, columns: Columns) -> None:
    cells = [
        [None if value != value else value if signal.type == "float" else int(value) for value in values]
        for signal, values in ((each, columns.column(each.name).tolist()) for each in equipment.signals)
    ]
    times = [f"{time}Z" for time in np.datetime_as_string(_times(columns)).tolist()]
    writer.writerows(zip(columns.series.tag("unit", columns.rows).tolist(), times, *cells, strict=True))


async def _parquet(
    equipment: EquipmentClass, rows: AsyncGenerator[Columns, None]
) -> AsyncGenerator[bytes, None]:
    try:
        import duckdb
    except ModuleNotFoundError as error:
        raise Problem(503, "Parquet needs DuckDB, which this platform does not have: ask for CSV.") from error
    folder = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="qilu-export-"))
    try:
        whole = folder / "whole"
        with duckdb.connect(":memory:", config={"threads": 1}) as connection:
            # An empty one first: it has the columns, whatever is found.
            none = Columns(equipment.name, Series(), *_NO_ROWS, (), np.empty((0, 0)))
            await asyncio.to_thread(_write_part, connection, folder / "0.parquet", equipment, none)
            readings = 0
            async with aclosing(rows):
                async for columns in rows:
                    readings += len(columns)
                    if readings > MAX_PARQUET_READINGS:
                        raise Problem(
                            413, f"More than {MAX_PARQUET_READINGS:,} readings: ask for less, or for CSV."
                        )
                    part = folder / f"{readings}.parquet"
                    await asyncio.to_thread(_write_part, connection, part, equipment, columns)
            joined = f"COPY (FROM '{folder}/*.parquet') TO '{whole}' (FORMAT parquet)"
            await asyncio.to_thread(connection.execute, joined)
        with whole.open("rb") as file:
            while content := await asyncio.to_thread(file.read, _PART):
                yield content
    except (OSError, duckdb.IOException) as error:
        raise Problem(503, f"The file cannot be made on the platform's disk: {error}.") from error
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


_NO_ROWS = (np.empty(0, dtype=np.int32), np.empty(0, dtype=np.int64))
_SQL_TYPES = {"float": "DOUBLE", "int": "BIGINT", "bool": "BOOLEAN"}


def _write_part(connection: Any, path: Path, equipment: EquipmentClass, columns: Columns) -> None:
    given: dict[str, NDArray[Any]] = {
        "unit": columns.series.tag("unit", columns.rows),
        "ts": _times(columns),
        **{f"s{n}": columns.column(signal.name) for n, signal in enumerate(equipment.signals)},
    }
    chosen = ", ".join(
        f'CASE WHEN isnan(s{n}) THEN NULL ELSE s{n} END::{_SQL_TYPES[signal.type]} AS "{signal.name}"'
        for n, signal in enumerate(equipment.signals)
    )
    connection.register("given", given)
    query = f"SELECT unit::VARCHAR AS unit, ts, {chosen} FROM given"  # noqa: S608
    connection.execute(f"COPY ({query}) TO '{path}' (FORMAT parquet)")
    connection.unregister("given")
