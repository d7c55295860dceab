"""Readings of an edge node on disk, from the time when they are read until the broker has acknowledged them.

It is one SQLite file in the state directory, `readings.sqlite`. A reading that `step` has added survives the
process, even if it is killed, and the machine. At the bound the oldest readings are dropped. A damaged file
is set aside, whenever the damage is found: the readings in it are dropped, except those that are being
published.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import structlog
from qilu_common.private_files import private_file
from qilu_contract.catalogue.classes import CATALOGUE

from qilu_devices.fleet import Unit
from qilu_devices.simulation import Sample, Shape, shape_of

FILE_NAME = "readings.sqlite"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS readings (id INTEGER PRIMARY KEY, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS published
    (unit TEXT NOT NULL, shape BLOB NOT NULL, body BLOB NOT NULL, PRIMARY KEY (unit, shape)) WITHOUT ROWID;
"""
# `published` has the latest acknowledged reading of a unit, for each set of signals: births repeat them.

_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)

_log = structlog.get_logger(__name__)


class _Body(msgspec.Struct, array_like=True):
    unit: str
    ts_ms: int
    positions: tuple[int, ...]
    values: tuple[float, ...]


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Body).decode


class Row(NamedTuple):
    id: int
    sample: Sample


class Journal:
    """The readings of these units, `most` at most. All methods block for the disk; they are called from one
    thread at a time."""

    def __init__(self, folder: Path, units: Sequence[Unit], most: int) -> None:
        self.path = folder / FILE_NAME
        self._units = {unit.id: unit for unit in units}
        self._most = most
        self._connection: sqlite3.Connection | None = None
        self._newest = 0  # id of the reading added last; ids are never used again
        self._given = 0  # id up to which `step` has returned rows
        self._out: dict[int, Row] = {}  # of these, the ones that are not yet published
        self._saved: list[Row] = []  # of a file that was set aside: to be added to the new one
        self.readings = 0
        """Readings on disk."""
        self.dropped = 0
        """Readings dropped since the start: at the bound, with a damaged file, superseded before the unit's
        birth, or because the configuration has no such unit or signal any more."""
        self.newest_ms = 0
        """Latest time of all readings added."""

    def open(self) -> None:
        """Raises sqlite3.Error or OSError when the disk takes nothing."""
        try:
            self._connect()
        except sqlite3.DatabaseError as error:
            self._set_aside(error)
            self._connect()

    def _connect(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        private_file(self.path)
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.executescript(_SCHEMA)
            [state] = connection.execute("PRAGMA quick_check(1)").fetchone()
            if state != "ok":
                raise _damage(state)
            [self.readings] = connection.execute("SELECT count(*) FROM readings").fetchone()
            [newest] = connection.execute("SELECT max(id) FROM readings").fetchone()
        except sqlite3.Error:
            connection.close()
            raise
        self._newest = max(self._newest, newest or 0)
        self._connection = connection
        return connection

    def _set_aside(self, error: sqlite3.DatabaseError) -> None:
        """Move the file away, if the error shows that it is damaged; else raises the error."""
        if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _DAMAGE:
            raise error
        self.close()
        for suffix in ("-wal", "-shm"):
            self.path.with_name(FILE_NAME + suffix).unlink(missing_ok=True)
        aside = self.path.with_name(f"readings.damaged-{time.time_ns() // 1_000_000}.sqlite")
        self.path.rename(aside)
        self._saved = list(self._out.values())
        self.dropped += max(0, self.readings - len(self._saved))
        self.readings = 0
        _log.error("the file of readings was damaged and set aside", file=str(aside), error=str(error))

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def published(self) -> Iterator[Sample]:
        """The latest acknowledged readings of all units, for their births."""
        for [body] in self._execute("SELECT body FROM published"):
            sample = self._sample(body)
            if sample is not None:
                yield sample

    def latest(self) -> list[Sample]:
        """The latest readings on disk, of each unit and set of signals. Reads the whole file."""
        found: dict[tuple[str, Shape], Sample] = {}
        for [body] in self._execute("SELECT body FROM readings ORDER BY id"):
            sample = self._sample(body)
            if sample is not None:
                self.newest_ms = max(self.newest_ms, sample.ts_ms)
                found[sample.unit.id, sample.shape] = sample
        return list(found.values())

    def step(
        self, read: Sequence[Sample], published: Sequence[Row], room: int, superseded: Sequence[Row] = ()
    ) -> list[Row]:
        """In one transaction: add readings, and remove those that were published or superseded. Returns the
        oldest that were not returned before, `room` at most. Raises sqlite3.Error or OSError when the disk
        takes nothing: then nothing has changed."""
        try:
            return self._change(read, published, room, superseded)
        except sqlite3.DatabaseError as error:
            self._set_aside(error)
            return self._change(read, published, room, superseded)

    def _change(
        self, read: Sequence[Sample], published: Sequence[Row], room: int, superseded: Sequence[Row]
    ) -> list[Row]:
        connection = self._connection or self._connect()
        added = [*self._saved, *(Row(self._newest + n, sample) for n, sample in enumerate(read, 1))]
        latest = {(row.sample.unit.id, row.sample.shape.positions): row.sample for row in published}
        connection.execute("BEGIN")
        try:
            connection.executemany(
                "INSERT OR REPLACE INTO published VALUES (?, ?, ?)",
                [(unit, _encode(positions), _packed(each)) for (unit, positions), each in latest.items()],
            )
            connection.executemany(
                "INSERT INTO readings VALUES (?, ?)", [(row.id, _packed(row.sample)) for row in added]
            )
            gone = [(row.id,) for row in (*published, *superseded)]
            removed = connection.executemany("DELETE FROM readings WHERE id = ?", gone).rowcount
            count = self.readings + len(added) - max(removed, 0)
            dropped = 0
            if count > self._most:  # readings that `step` has returned are being published
                dropped = connection.execute(
                    "DELETE FROM readings WHERE id IN "
                    "(SELECT id FROM readings WHERE id > ? ORDER BY id LIMIT ?)",
                    (self._given, count - self._most),
                ).rowcount
            given, rows, strange = self._next(connection, room)
            connection.executemany("DELETE FROM readings WHERE id = ?", strange)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        self._saved, self._given, self._newest = [], given, self._newest + len(read)
        dropped += len(strange)
        self.readings = count - dropped
        self.dropped += dropped + len(superseded)
        self.newest_ms = max([self.newest_ms, *(sample.ts_ms for sample in read)])
        for row in (*published, *superseded):
            self._out.pop(row.id, None)
        self._out.update((row.id, row) for row in rows)
        return rows

    def _next(self, connection: sqlite3.Connection, room: int) -> tuple[int, list[Row], list[tuple[int]]]:
        """Id up to which rows are returned, these rows, and the ids of those that cannot be published."""
        found = connection.execute(
            "SELECT id, body FROM readings WHERE id > ? ORDER BY id LIMIT ?", (self._given, max(0, room))
        ).fetchall()
        samples = [(id_, self._sample(body)) for id_, body in found]
        rows = [Row(id_, sample) for id_, sample in samples if sample is not None]
        strange = [(id_,) for id_, sample in samples if sample is None]
        return found[-1][0] if found else self._given, rows, strange

    def _sample(self, body: bytes) -> Sample | None:
        """None for a reading of a unit that the configuration does not name any more, or with other
        signals."""
        try:
            found = _decode(body)
            unit = self._units[found.unit]
            shape = shape_of(CATALOGUE[unit.class_name], found.positions)
        except (msgspec.DecodeError, KeyError, IndexError):
            return None
        return Sample(unit, found.ts_ms, shape, found.values)

    def _execute(self, sql: str) -> sqlite3.Cursor:
        return (self._connection or self._connect()).execute(sql)


def _damage(what: str) -> sqlite3.DatabaseError:
    error = sqlite3.DatabaseError(what)
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    return error


def _packed(sample: Sample) -> bytes:
    return _encode(_Body(sample.unit.id, sample.ts_ms, sample.shape.positions, sample.values))
