"""DuckDB's tables, one per measurement: writing and reading of points.

A unit's points are appended without a look-up, which would cost more the larger the table is. A point that is
written again adds a row; rows are merged to one point when read: for each field, the value that was written
last. Rows are numbered (`rowid`) in the order in which they were written.

Other measurements are merged on write: they have few rows, many of which are written again every few seconds.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import duckdb
import numpy as np
from qilu_contract.columns import EXACT, NUMPY_TYPES, Columns, Series
from qilu_contract.errors import Rejected
from qilu_contract.readings import Value
from qilu_contract.storage import MEASUREMENTS, UNIT_TAGS, Measurement, Point
from qilu_contract.store import Chunk

from qilu_stores.duck.upgrade import move_hourly_rows

Batch = dict[str, Any]
"""Arrays by column; a masked value is none."""
MS = "epoch_ms(ts::TIMESTAMP)"
"""Time of a row, in milliseconds. Without the cast, DuckDB 2.0.1 fails to apply `epoch_ms` to a filtered
TIMESTAMP_MS."""
LAST = f"{MS}::HUGEINT * {2**40} + rowid"
"""Is greatest for the last point, and in it for what was written last: there are fewer than 2^40 rows."""
_UNFIT = (KeyError, ValueError, TypeError, OverflowError, duckdb.DataError, duckdb.IntegrityError)
_SQL_TYPES = {"float": "DOUBLE", "int": "BIGINT", "bool": "BOOLEAN"}


def make_tables(connection: duckdb.DuckDBPyConnection) -> None:
    for measurement in MEASUREMENTS.values():
        columns = ["ts TIMESTAMP_MS NOT NULL", *(f"{tag} VARCHAR NOT NULL" for tag in measurement.tags)]
        columns += [f'"{name}" {_SQL_TYPES[type_]}' for name, type_ in measurement.fields.items()]
        connection.execute(f'CREATE TABLE IF NOT EXISTS "{measurement.name}" ({", ".join(columns)})')
    # A file of an older version lacks the fields and tags that came since.
    there = set(connection.execute("SELECT table_name, column_name FROM duckdb_columns()").fetchall())
    for measurement in MEASUREMENTS.values():
        types = {name: _SQL_TYPES[type_] for name, type_ in measurement.fields.items()}
        for name, type_ in {**types, **dict.fromkeys(measurement.tags, "VARCHAR DEFAULT ''")}.items():
            if (measurement.name, name) not in there:
                connection.execute(f'ALTER TABLE "{measurement.name}" ADD COLUMN "{name}" {type_}')
    move_hourly_rows(connection)


def fields_of(cursor: duckdb.DuckDBPyConnection, schema: Measurement) -> tuple[str, ...]:
    """The fields of a measurement; of an open one those that the table has by now."""
    if not schema.open:
        return tuple(schema.fields)
    sql = "SELECT column_name FROM duckdb_columns() WHERE table_name = ? ORDER BY column_index"
    names = [name for [name] in cursor.execute(sql, [schema.name]).fetchall()]
    return tuple([name for name in names if name in schema.fields])


def points_of(schema: Measurement, fields: Iterable[str], where: str) -> str:
    """The points in these rows, with `ts`, tags and fields: for questions about few."""
    tags = ", ".join(schema.tags)
    columns = ", ".join(["ts", tags, *(f'arg_max("{name}", rowid) AS "{name}"' for name in fields)])
    return f'(SELECT {columns} FROM "{schema.name}" WHERE {where} GROUP BY ts, {tags})'  # noqa: S608  # names from the schema


def all_points_of(schema: Measurement, fields: Iterable[str], where: str) -> str:
    """Like `points_of`, for queries of many points: only rows with duplicate hashes are merged, usually none.
    `where` holds no parameters."""
    fields = tuple(fields)
    key = _key(schema)
    columns = ", ".join(["ts", *schema.tags, *(f'"{name}"' for name in fields)])
    twice = f'(SELECT {key} FROM "{schema.name}" WHERE {where} GROUP BY ALL HAVING count(*) > 1)'  # noqa: S608
    again = points_of(schema, fields, f"{where} AND {key} IN (FROM twice)")
    return (
        f'(WITH twice AS MATERIALIZED {twice} SELECT {columns} FROM "{schema.name}" '  # noqa: S608
        f"WHERE {where} AND {key} NOT IN (FROM twice) UNION ALL SELECT {columns} FROM {again})"
    )


def _key(schema: Measurement) -> str:
    return f"hash(ts, {', '.join(schema.tags)})"


def read_chunk(cursor: duckdb.DuckDBPyConnection, schema: Measurement, where: str) -> Chunk:
    """Read all points in these rows. `where` has no parameters."""
    # To plan how rows are put together costs more than to read thousands of them, and as a rule none need it.
    sql = f'SELECT *, {_key(schema)} AS "the key" FROM "{schema.name}" WHERE {where}'  # noqa: S608
    found = cursor.execute(sql).fetchnumpy()
    keys = np.sort(found["the key"])
    if (keys[1:] == keys[:-1]).any():
        sql = f"SELECT * FROM {all_points_of(schema, fields_of(cursor, schema), where)}"  # noqa: S608
        found = cursor.execute(sql).fetchnumpy()
    return _chunk(schema, found)


def _chunk(schema: Measurement, found: Mapping[str, Any]) -> Chunk:
    ts_ms = found["ts"].astype(np.int64)
    series = Series.of(schema.name, {tag: found[tag] for tag in schema.tags})
    names = [name for name in found if name in schema.fields and not np.ma.getmaskarray(found[name]).all()]
    values = np.empty((len(ts_ms), len(names)))
    for place, name in enumerate(names):
        values[:, place] = np.ma.filled(found[name].astype(np.float64), np.nan)
    rows = np.arange(len(ts_ms), dtype=np.int32)
    columns = Columns(schema.name, series, rows, ts_ms, tuple(names), values)
    ints = [place for place, name in enumerate(names) if schema.fields[name] == "int"]
    large = np.asarray((np.abs(values[:, ints]) >= EXACT).any(axis=1))
    if not large.any():
        return Chunk([], [columns])
    points = [
        Point(
            schema.name,
            series.tags(row),
            int(ts_ms[row]),
            {name: found[name][row].item() for name in names if found[name][row] is not np.ma.masked},
        )
        for row in np.flatnonzero(large).tolist()
    ]
    return Chunk(points, [columns.take(~large)])


def write(cursor: duckdb.DuckDBPyConnection, points: Sequence[Point], columns: Sequence[Columns]) -> None:
    """Write in one transaction. Raises Rejected for data that does not match the schema, duckdb.Error."""
    try:
        batches = [*_by_points(points), *_by_columns(columns)]
    except _UNFIT as error:
        raise Rejected(f"a point does not fit the schema: {error!r}") from error
    try:
        cursor.execute("BEGIN")
        for schema, batch in batches:
            if schema.open:
                _make_columns(cursor, schema, batch)
        for schema, batch in batches:
            _put(cursor, schema, batch)
        cursor.execute("COMMIT")
    except BaseException as error:
        # An error of the disk has ended the transaction already.
        with contextlib.suppress(duckdb.Error):
            cursor.execute("ROLLBACK")
        if isinstance(error, _UNFIT):
            raise Rejected(f"a point does not fit the schema: {error!r}") from error
        raise


def _make_columns(cursor: duckdb.DuckDBPyConnection, schema: Measurement, batch: Batch) -> None:
    """Signals that have just been learned become columns."""
    for name in [each for each in batch if each in schema.fields]:
        type_ = _SQL_TYPES[schema.fields[name]]
        cursor.execute(f'ALTER TABLE "{schema.name}" ADD COLUMN IF NOT EXISTS "{name}" {type_}')


def _put(cursor: duckdb.DuckDBPyConnection, schema: Measurement, batch: Batch) -> None:
    columns = ", ".join(f'"{name}"' for name in batch)
    cursor.register("new_points", batch)
    try:
        if schema.tags == UNIT_TAGS:
            cursor.execute(f'INSERT INTO "{schema.name}" ({columns}) SELECT {columns} FROM new_points')  # noqa: S608
        else:
            same = " AND ".join(f"old.{tag} = new.{tag}" for tag in ("ts", *schema.tags))
            fields = [f'"{name}"' for name in batch if name in schema.fields]
            update = ", ".join(f"{name} = coalesce(new.{name}, old.{name})" for name in fields)
            values = ", ".join(f'new."{name}"' for name in batch)
            cursor.execute(
                f'MERGE INTO "{schema.name}" AS old USING new_points AS new ON {same} '  # noqa: S608
                f"WHEN MATCHED THEN UPDATE SET {update} "
                f"WHEN NOT MATCHED THEN INSERT ({columns}) VALUES ({values})"
            )
    finally:
        cursor.unregister("new_points")


def _by_points(points: Sequence[Point]) -> list[tuple[Measurement, Batch]]:
    # MERGE would insert a pair of new points with one key twice, so such pairs become one before it sees
    # them.
    merged: dict[str, dict[tuple[tuple[str, ...], int], dict[str, Value]]] = {}
    for measurement, tags, ts_ms, fields in points:
        schema = MEASUREMENTS[measurement]
        if len(tags) != len(schema.tags) or not fields:
            raise ValueError(f"{measurement} {tags}")
        merged.setdefault(measurement, {}).setdefault((tags, ts_ms), {}).update(fields)
    return [(MEASUREMENTS[name], _point_batch(MEASUREMENTS[name], rows)) for name, rows in merged.items()]


def _point_batch(schema: Measurement, rows: Mapping[tuple[tuple[str, ...], int], dict[str, Value]]) -> Batch:
    batch: Batch = {"ts": np.array([ts_ms for _, ts_ms in rows], dtype="datetime64[ms]")}
    for place, tag in enumerate(schema.tags):
        batch[tag] = np.array([tags[place] for tags, _ in rows], dtype=object)
    for name in dict.fromkeys(chain.from_iterable(rows.values())):
        gaps = np.array([name not in row for row in rows.values()])
        values = np.array([row.get(name, 0) for row in rows.values()], dtype=_type(schema, name))
        if not np.isfinite(values).all():
            raise ValueError(f"{schema.name} {name} is not finite")
        batch[name] = np.ma.masked_array(values, gaps)
    return batch


def _by_columns(columns: Sequence[Columns]) -> list[tuple[Measurement, Batch]]:
    alike: dict[str, list[Columns]] = {}
    for each in columns:
        alike.setdefault(each.measurement, []).append(each)
    return [(MEASUREMENTS[name], _column_batch(MEASUREMENTS[name], some)) for name, some in alike.items()]


def _column_batch(schema: Measurement, columns: Sequence[Columns]) -> Batch:
    if any(np.isnan(each.values).all(axis=1).any() for each in columns):
        raise ValueError("a point has no field")
    batch: Batch = {"ts": np.concatenate([each.ts_ms for each in columns]).astype("datetime64[ms]")}
    for tag in schema.tags:
        batch[tag] = np.concatenate([each.series.tag(tag, each.rows) for each in columns])
    for name in dict.fromkeys(chain.from_iterable(each.names for each in columns)):
        values = np.concatenate([each.column(name) for each in columns])
        gaps = np.isnan(values)
        if np.isinf(values).any():
            raise ValueError(f"{schema.name} {name} is not finite")
        typed = np.where(gaps, 0, values).astype(_type(schema, name))
        batch[name] = np.ma.masked_array(typed, gaps) if gaps.any() else typed
    return batch


def _type(schema: Measurement, name: str) -> Any:
    if name not in schema.fields:
        raise KeyError(f"{schema.name} has no field {name}")
    return NUMPY_TYPES[schema.fields[name]]
