"""Opens the spool's file, and salvages readable batches of a damaged one."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from qilu_gateway.sqlite_files import SEARCH_IDS, is_passing, open_private
from qilu_gateway.write import spool_bodies

_SCHEMA = """
CREATE TABLE IF NOT EXISTS batches (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  readings INTEGER NOT NULL,
  created_ms INTEGER NOT NULL,
  checksum BLOB NOT NULL,
  body BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS heads (id INTEGER PRIMARY KEY, readings INTEGER NOT NULL);
"""
# `heads` duplicates the number of readings per batch on separate pages: when a page of `batches` is damaged,
# the loss is still known.


def connect(path: Path, new: bool) -> sqlite3.Connection:
    """Connect to the spool's file. `new`: the file does not exist yet, or is empty."""
    connection = open_private(path, check_same_thread=False, isolation_level=None)
    try:
        # No other process opens the file, so it needs no WAL index, for which a full disk has no room:
        # spooled batches can be read and shipped even then.
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        if new:  # a write, even if it changes nothing
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.executescript(_SCHEMA)
    except BaseException:
        connection.close()
        raise
    return connection


def save_readable(damaged: Path, target: sqlite3.Connection) -> int:
    """Copy the intact batches of a damaged file; returns the number of readings in the others, as far as it
    is readable."""
    missing: dict[int, int] = {}
    with closing(sqlite3.connect(damaged, isolation_level=None)) as source:
        try:
            source.execute("PRAGMA writable_schema = ON")  # otherwise a truncated file cannot be read at all
            ids = _ids(source)
        except sqlite3.DatabaseError as error:
            if is_passing(error):
                raise
            return 0  # not even the first page is intact
        target.execute("BEGIN")
        # One look-up per row: a damaged page hides only its own rows.
        for id_ in ids:
            row = _look_up(source, "SELECT readings FROM heads WHERE id = ?", id_)
            if row is not None:
                missing[id_] = row[0]
            row = _look_up(source, "SELECT readings, created_ms, checksum FROM batches WHERE id = ?", id_)
            if row is None:
                continue
            readings, created_ms, checksum = row
            missing.setdefault(id_, readings)
            row = _look_up(source, "SELECT body FROM batches WHERE id = ?", id_)
            if row is not None and spool_bodies.decode(readings, checksum, row[0]) is not None:
                batch = (id_, readings, created_ms, checksum, row[0])
                target.execute("INSERT INTO batches VALUES (?, ?, ?, ?, ?)", batch)
                target.execute("INSERT INTO heads VALUES (?, ?)", (id_, readings))
                del missing[id_]
        target.execute("COMMIT")
    return sum(readings for readings in missing.values() if isinstance(readings, int))


def _look_up(connection: sqlite3.Connection, sql: str, id_: int) -> tuple[Any, ...] | None:
    try:
        row: tuple[Any, ...] | None = connection.execute(sql, (id_,)).fetchone()
    except sqlite3.DatabaseError:
        return None
    return row


def _ids(connection: sqlite3.Connection) -> range:
    """Range of the ids, as far as a damaged file returns it."""
    ends = [
        row[0]
        for row in (
            _look_up(connection, "SELECT seq FROM sqlite_sequence WHERE ?", 1),
            _look_up(connection, "SELECT max(id) FROM batches WHERE id >= ?", 0),
            _look_up(connection, "SELECT max(id) FROM heads WHERE id >= ?", 0),
        )
        if row is not None and isinstance(row[0], int)
    ]
    if not ends:
        return range(0)
    firsts = (
        _look_up(connection, "SELECT min(id) FROM batches WHERE id >= ?", 0),
        _look_up(connection, "SELECT min(id) FROM heads WHERE id >= ?", 0),
    )
    known = [row[0] for row in firsts if row is not None and isinstance(row[0], int)]
    return range(min(known, default=max(1, max(ends) - SEARCH_IDS)), max(ends) + 1)
