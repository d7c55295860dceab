"""Readings of an edge node on disk, from the time when they are read until the broker has acknowledged them.

It is one SQLite file in the state directory, `readings.sqlite`. A reading that `step` has added survives the
process, even if it is killed, and the machine. At the bound the oldest readings are dropped.
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
CREATE TABLE IF NOT EXISTS readings (id INTEGER PRIMARY KEY AUTOINCREMENT, body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS published
    (unit TEXT NOT NULL, shape BLOB NOT NULL, body BLOB NOT NULL, PRIMARY KEY (unit, shape)) WITHOUT ROWID;
"""
# `published` has the latest acknowledged reading of a unit, for each set of signals: births repeat them.

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
        self._given = 0  # id up to which `step` has returned rows
        self.readings = 0
        """Readings on disk."""
        self.dropped = 0
        """Readings dropped since the start: at the bound, or because the configuration has no such unit or
        signal any more."""
        self.newest_ms = 0
        """Latest time of all readings added."""

    def open(self) -> None:
        """Raises sqlite3.OperationalError or OSError when the disk takes nothing. A damaged file is set
        aside."""
        try:
            self._connect()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise
            aside = self.path.with_name(f"readings.damaged-{time.time_ns() // 1_000_000}.sqlite")
            self.close()
            for suffix in ("-wal", "-shm"):
                self.path.with_name(FILE_NAME + suffix).unlink(missing_ok=True)
            self.path.rename(aside)
            _log.error("the file of readings was damaged and set aside", file=str(aside), error=str(error))
            self._connect()

    def _connect(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        private_file(self.path)
        self._connection = connection = sqlite3.connect(
            self.path, isolation_level=None, check_same_thread=False
        )
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.executescript(_SCHEMA)
        [self.readings] = connection.execute("SELECT count(*) FROM readings").fetchone()

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

    def step(self, read: Sequence[Sample], published: Sequence[Row], room: int) -> list[Row]:
        """In one transaction: add readings, and remove those that were published. Returns the oldest that
        were not returned before, `room` at most. Raises sqlite3.Error when the disk takes nothing: then
        nothing has changed."""
        if read or published:
            self._change(read, published)
        return self._next(room)

    def _change(self, read: Sequence[Sample], published: Sequence[Row]) -> None:
        connection = self._opened()
        connection.execute("BEGIN IMMEDIATE")
        try:
            latest = {(row.sample.unit.id, row.sample.shape.positions): row.sample for row in published}
            connection.executemany(
                "INSERT OR REPLACE INTO published VALUES (?, ?, ?)",
                [(unit, _encode(positions), _packed(each)) for (unit, positions), each in latest.items()],
            )
            gone = [(row.id,) for row in published]
            removed = connection.executemany("DELETE FROM readings WHERE id = ?", gone).rowcount
            connection.executemany(
                "INSERT INTO readings (body) VALUES (?)", [(_packed(each),) for each in read]
            )
            count = self.readings + len(read) - max(removed, 0)
            dropped = connection.execute(  # readings that `step` has returned are being published
                "DELETE FROM readings WHERE id IN (SELECT id FROM readings WHERE id > ? ORDER BY id LIMIT ?)",
                (self._given, max(0, count - self._most)),
            ).rowcount
            connection.execute("COMMIT")
        except sqlite3.Error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        self.readings = count - dropped
        self.dropped += dropped
        self.newest_ms = max([self.newest_ms, *(sample.ts_ms for sample in read)])

    def _next(self, room: int) -> list[Row]:
        if room <= 0:
            return []
        rows = self._execute(
            "SELECT id, body FROM readings WHERE id > ? ORDER BY id LIMIT ?", (self._given, room)
        ).fetchall()
        samples = [(id_, self._sample(body)) for id_, body in rows]
        strange = [id_ for id_, sample in samples if sample is None]
        if strange:  # cannot be published: removed, and counted
            text = msgspec.json.encode(strange).decode()
            self._execute("DELETE FROM readings WHERE id IN (SELECT value FROM json_each(?))", (text,))
            self.readings -= len(strange)
            self.dropped += len(strange)
        if rows:  # not before: if the disk refuses the removal, the same rows come again
            self._given = rows[-1][0]
        return [Row(id_, sample) for id_, sample in samples if sample is not None]

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

    def _opened(self) -> sqlite3.Connection:
        assert self._connection is not None, "not open"
        return self._connection

    def _execute(self, sql: str, values: Sequence[object] = ()) -> sqlite3.Cursor:
        return self._opened().execute(sql, values)


def _packed(sample: Sample) -> bytes:
    return _encode(_Body(sample.unit.id, sample.ts_ms, sample.shape.positions, sample.values))
