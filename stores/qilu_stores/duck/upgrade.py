"""Upgrades a DuckDB file of an older version when it is opened."""

from __future__ import annotations

import duckdb
from qilu_contract.storage import HOURLY, MEASUREMENTS

_TAG = "resolution"
_COARSE = "hour-day-week-year"


def move_hourly_rows(connection: duckdb.DuckDBPyConnection) -> None:
    """Move hourly rows, which used to be in the tables of rows per minute with another value of a tag, to
    their own tables, which exist already."""
    found = connection.execute(
        "SELECT table_name FROM duckdb_columns() WHERE column_name = ?", [_TAG]
    ).fetchall()
    for name in {table for (table,) in found} & MEASUREMENTS.keys():
        if name + HOURLY in MEASUREMENTS and _TAG not in MEASUREMENTS[name].tags:
            columns = f"* EXCLUDE ({_TAG})"
            connection.execute("BEGIN")
            connection.execute(
                f'INSERT INTO "{name}{HOURLY}" BY NAME SELECT {columns} FROM "{name}" WHERE {_TAG} = ?',  # noqa: S608  # names from the schema
                [_COARSE],
            )
            connection.execute(f'DELETE FROM "{name}" WHERE {_TAG} = ?', [_COARSE])  # noqa: S608
            connection.execute(f'ALTER TABLE "{name}" DROP COLUMN {_TAG}')
            connection.execute("COMMIT")
