"""Reading InfluxDB's answers to queries."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from qilu_contract.columns import EXACT, Columns, Series
from qilu_contract.errors import Retryable, StoreError
from qilu_contract.readings import Value
from qilu_contract.storage import Measurement, Point
from qilu_contract.store import Chunk, Row


class NotJson(Retryable):
    """A successful answer that cannot be read: of a proxy, or with a number that JSON does not have."""


class _Series(msgspec.Struct):
    columns: list[str]
    tags: dict[str, str] = {}
    values: list[list[Any]] = []


class Result(msgspec.Struct):
    series: list[_Series] = []
    error: str | None = None


class _Chunk(msgspec.Struct):
    results: list[Result] = []
    error: str | None = None


answers = msgspec.json.Decoder(_Chunk)


def series_of(line: str) -> list[_Series]:
    """Parse one line of a chunked answer."""
    if not line.strip():
        return []
    try:
        chunk = answers.decode(line)
    except msgspec.DecodeError as error:
        raise Retryable(f"InfluxDB answered something else than points: {error}") from error
    for error_text in (chunk.error, *(result.error for result in chunk.results)):
        if error_text is not None:
            raise StoreError(f"InfluxDB refuses a query: {error_text}")
    return [series for result in chunk.results for series in result.series]


def scanned(schema: Measurement, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Chunk:
    by_name = dict(zip(columns, zip(*rows, strict=True), strict=True))
    names = tuple(name for name in columns if name in schema.fields)
    if len(names) + len(schema.tags) + 1 < len(columns):
        return Chunk(_points(schema, columns, rows), [])
    values = np.array([by_name[name] for name in names], dtype=np.float64).T
    if (np.abs(values) >= EXACT).any():  # among them may be integers
        return Chunk(_points(schema, columns, rows), [])
    tags = {tag: np.array([tag_ or "" for tag_ in by_name[tag]], dtype=object) for tag in schema.tags}
    ts_ms = np.array(by_name["time"], dtype=np.int64)
    numbers = np.arange(len(rows), dtype=np.int32)
    return Chunk([], [Columns(schema.name, Series.of(schema.name, tags), numbers, ts_ms, names, values)])


def _points(schema: Measurement, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[Point]:
    # Also fields that are not in the schema, because verification needs them.
    time = columns.index("time")
    tags = [columns.index(tag) if tag in columns else None for tag in schema.tags]
    fields = [
        (place, name, schema.fields.get(name) == "float")
        for place, name in enumerate(columns)
        if name != "time" and name not in schema.tags
    ]
    return [
        Point(
            schema.name,
            tuple("" if place is None else row[place] or "" for place in tags),
            int(row[time]),
            {
                name: float(row[place]) if is_float else row[place]
                for place, name, is_float in fields
                if row[place] is not None
            },
        )
        for row in rows
    ]


def whole_row(schema: Measurement, row: Mapping[str, Any]) -> Row:
    """A row of `SELECT *`, without its tags."""
    values = {name: row[name] for name in row if name in schema.fields}
    return row_of(int(row["time"]), values, schema.fields)


def row_of(ts_ms: int, values: Mapping[str, Any], types: Mapping[str, str]) -> Row:
    # JSON writes 12.0 as 12: give each value the type of its field again.
    found: dict[str, Value] = {}
    for name, value in values.items():
        if value is not None and math.isfinite(value):
            found[name] = float(value) if types.get(name, "float") == "float" else value
    return Row(ts_ms, found)
