"""The spool's file, and the count file beside it. Everything here runs in the spool's thread."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import zlib
from collections import OrderedDict
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import structlog
from qilu_contract.columns import Columns
from qilu_contract.storage import Point
from qilu_contract.wire.clock import wall_ms

from qilu_gateway.admit.units import Tags
from qilu_gateway.sqlite_files import (
    Identity,
    identity,
    is_damage,
    remove_file,
    rename_file,
    salvage,
    write_copy,
)
from qilu_gateway.write import spool_bodies
from qilu_gateway.write.spool_bodies import Body
from qilu_gateway.write.spool_salvage import connect, save_readable

log = structlog.get_logger()

NAME = "spool"
"""Of the store's spool: its file is `spool.sqlite`, the count beside it `spooled`."""
MOST_BATCHES = 1000
"""Maximum number of batches shipped together; batches are small when data is sparse."""


@dataclass(frozen=True, slots=True)
class Spooled:
    """The oldest batches, read for shipping. `firsts`: units that were not on cloud when they were spooled,
    with the time of their first reading here."""

    ids: tuple[int, ...]
    readings: int
    points: list[Point]
    columns: list[Columns]
    """Columns, each with a separate `Series`, because unit numbers of the running gateway do not apply
    here."""
    firsts: list[tuple[str, int]]

    def heard(self) -> Iterator[tuple[str, int]]:
        """The unit and time of each point."""
        yield from ((Tags(*point.tags).unit, point.ts_ms) for point in self.points)
        for columns in self.columns:
            units = columns.series.tag("unit", columns.rows).tolist()
            yield from zip(units, columns.ts_ms.tolist(), strict=True)


class SpoolFile:
    """The file of the spool; an index of its batches is kept in memory."""

    def __init__(self, folder: Path, tell_corrupt: Callable[[int], None], name: str = NAME) -> None:
        """`tell_corrupt` is called with the number of readings that have just turned out to be unreadable.
        All files of the spool are called after its `name`."""
        self._path = folder / f"{name}.sqlite"
        self._saved = folder / f"{name}.saved.sqlite"
        self._name = name
        self._count = _Count(folder / f"{name}ed")
        self._tell_corrupt = tell_corrupt
        self._connection: sqlite3.Connection | None = None
        self._identity: Identity = ()
        # By id, in order: readings, bytes, created_ms. A plain dict finds its first key only after skipping
        # all removed ones.
        self._rows: OrderedDict[int, tuple[int, int, int]] = OrderedDict()
        self._undeleted: list[int] = []
        self.oldest_ms = 0
        """Time at which the oldest batch was appended; 0 without batches."""
        self.readings = 0
        self.bytes = 0

    @property
    def batches(self) -> int:
        return len(self._rows)

    def open(self) -> int:
        """Open the file; returns the number of readings lost. Raises sqlite3.OperationalError or OSError when
        the disk is full, read-only or unavailable."""
        corrupt = 0
        if not self._path.exists() and self._saved.exists():  # a salvage was interrupted at its end
            self._saved.rename(self._path)
        try:
            self._connect()
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            corrupt = self._salvage(error)
        self._count.open()
        lost = self._count.readings - self.readings
        if lost > corrupt:
            log.error(
                "the spool lacks readings that were acknowledged: its file was lost or cut off",
                file=str(self._path),
                readings=lost - corrupt,
            )
        self._count.set(self.readings)
        return max(lost, corrupt)

    def _connect(self) -> None:
        new = not self._path.exists() or self._path.stat().st_size == 0
        connection = connect(self._path, new)
        try:
            found = connection.execute(
                "SELECT id, readings, length(body), created_ms FROM batches ORDER BY id"
            ).fetchall()
        except BaseException:
            connection.close()
            raise
        self._connection, self._identity = connection, identity(self._path)
        shipped = set(self._undeleted)
        self._rows = OrderedDict(
            (id_, (readings, size, created_ms))
            for id_, readings, size, created_ms in found
            if id_ not in shipped
        )
        self._add_up()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _check_file(self) -> None:
        """Detect that the file was removed or replaced while in use, and write it again."""
        connection = self._connection_now()
        if identity(self._path) == self._identity:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_copy(connection, self._saved)
        self.close()
        if self._path.exists():
            rename_file(self._path, self._path.with_name(f"{self._name}.replaced-{wall_ms()}.sqlite"))
        self._saved.rename(self._path)
        self._connect()
        self._count.set(self.readings)
        log.error("the spool was removed while in use, and was written again", file=str(self._path))

    def _forget(self, id_: int) -> int:
        """Remove a batch from the index; returns the number of its readings."""
        readings, size, _ = self._rows.pop(id_, (0, 0, 0))
        self.readings -= readings
        self.bytes -= size
        self.oldest_ms = next(iter(self._rows.values()), (0, 0, 0))[2]
        return readings

    def _add_up(self) -> None:
        self.readings = sum(readings for readings, _, _ in self._rows.values())
        self.bytes = sum(size for _, size, _ in self._rows.values())
        self.oldest_ms = next(iter(self._rows.values()), (0, 0, 0))[2]

    def append(self, readings: int, body: bytes) -> bool:
        """Append a batch; returns whether it is on disk now. False when the file turned out to be damaged.
        Raises sqlite3.DatabaseError or OSError while the disk takes no writes."""
        created_ms = wall_ms()
        try:
            self._check_file()
            self._execute("BEGIN")
            id_ = self._execute(
                "INSERT INTO batches (readings, created_ms, checksum, body) VALUES (?, ?, ?, ?)",
                (readings, created_ms, spool_bodies.checksum_of(readings, body), body),
            ).lastrowid
            self._execute("INSERT INTO heads VALUES (?, ?)", (id_, readings))
            self._execute("COMMIT")
        except (sqlite3.DatabaseError, OSError) as error:
            self._roll_back()
            if not (isinstance(error, sqlite3.DatabaseError) and is_damage(error)):
                raise
            self._set_aside(error)
            return False
        assert id_ is not None
        self._rows[id_] = (readings, len(body), created_ms)
        self.oldest_ms = self.oldest_ms or created_ms
        self.readings += readings
        self.bytes += len(body)
        try:
            self._count.set(self.readings)
        except OSError:
            self._drop(id_)
            raise
        return True

    def _roll_back(self) -> None:
        if self._connection is not None and self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def _drop(self, id_: int) -> None:
        """Discard a batch that must not be shipped, because its append was reported as failed."""
        self._forget(id_)
        self._undeleted.append(id_)

    def oldest(self, most_readings: int, apart: Container[int]) -> Spooled | None:
        ids: list[int] = []
        batches: list[Body] = []
        readings = found = 0
        for id_ in list(islice((id_ for id_ in self._rows if id_ not in apart), MOST_BATCHES)):
            found += 1
            size = self._rows[id_][0]
            if ids and readings + size > most_readings:
                break
            try:
                batch = self._read(id_)
            except sqlite3.DatabaseError as error:
                if not is_damage(error):
                    raise
                self._set_aside(error)
                return self.oldest(most_readings, apart)
            if batch is not None:
                ids.append(id_)
                batches.append(batch)
                readings += size
        if not ids and found:  # none of them was readable
            return self.oldest(most_readings, apart)
        if not ids:
            return None
        return Spooled(
            tuple(ids),
            readings,
            [point for batch in batches for point in batch.points],
            [columns for batch in batches for columns in batch.columns],
            [first for batch in batches for first in batch.firsts],
        )

    def _read(self, id_: int) -> Body | None:
        """Read a batch. A damaged one is counted and set aside; then returns None."""
        row = self._execute("SELECT readings, checksum, body FROM batches WHERE id = ?", (id_,)).fetchone()
        if row is not None:
            batch = spool_bodies.decode(*row)
            if batch is not None:
                return batch
            aside = self._path.with_name(f"{self._name}.damaged-{wall_ms()}-{id_}.bin")
            aside.write_bytes(row[2] if isinstance(row[2], bytes) else b"")
            log.error("a spooled batch is damaged and was set aside", readings=row[0], file=str(aside))
        self._count.set(self.readings - self._rows[id_][0])
        self._execute("DELETE FROM batches WHERE id = ?", (id_,))
        self._execute("DELETE FROM heads WHERE id = ?", (id_,))
        self._tell_corrupt(self._forget(id_))
        return None

    def remove(self, ids: Sequence[int]) -> None:
        for id_ in ids:
            self._forget(id_)
        self._undeleted += ids
        try:
            self._count.set(self.readings)  # before deleting, so that it never exceeds the content
            self._delete()
        except (sqlite3.DatabaseError, OSError) as error:
            # A full disk has no room even for the journal of a deletion. Batches that cannot be deleted now
            # are deleted with the next ones, or at worst shipped again after a restart, which stores nothing
            # twice.
            self._roll_back()
            log.warning("shipped batches could not be deleted from the spool yet", error=str(error))
            if not self._rows:
                self._start_anew()

    def _delete(self) -> None:
        self._execute("BEGIN")
        gone = [(id_,) for id_ in self._undeleted]
        self._connection_now().executemany("DELETE FROM batches WHERE id = ?", gone)
        self._connection_now().executemany("DELETE FROM heads WHERE id = ?", gone)
        self._execute("COMMIT")
        self._undeleted.clear()
        if not self._rows:  # return the space to the disk
            self._execute("PRAGMA incremental_vacuum").fetchall()
            self._execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _start_anew(self) -> None:
        """Start with an empty file; its content is no longer needed."""
        self.close()
        with contextlib.suppress(OSError):
            remove_file(self._path)
            self._undeleted.clear()

    def _set_aside(self, error: Exception) -> None:
        """Handle damage that is found while the file is in use."""
        held = max(self.readings, self._count.readings)
        self._salvage(error)
        self._count.set(self.readings)
        # The index in memory is exact, whatever the file still returns.
        self._tell_corrupt(held - self.readings)

    def _salvage(self, error: Exception) -> int:
        """Set the file aside and continue with its readable batches; returns the number of readings in
        unreadable batches, as far as their rows are readable."""
        self.close()
        corrupt = salvage(self._path, self._saved, lambda path: connect(path, new=True), save_readable)
        aside = self._path.with_name(f"{self._name}.damaged-{wall_ms()}.sqlite")
        rename_file(self._path, aside)
        self._saved.rename(self._path)
        self._connect()
        log.error(
            "the spool was damaged and set aside",
            file=str(aside),
            error=str(error),
            readings_kept=self.readings,
            readings_corrupt=corrupt,
        )
        return corrupt

    def _connection_now(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connect()
        assert self._connection is not None
        return self._connection

    def _execute(self, sql: str, values: Sequence[object] = ()) -> sqlite3.Cursor:
        return self._connection_now().execute(sql, values)


class _Count:
    """Lower bound of the acknowledged readings in the spool, in a separate file that is on disk when `set`
    returns. Written in place, which works on a full disk."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.readings = 0

    def open(self) -> None:
        """Load the last count of an earlier process; 0 if it cannot be read."""
        try:
            text, check = self._path.read_bytes().split()
            self.readings = int(text) if int(check, 16) == zlib.crc32(text) else 0
        except (FileNotFoundError, ValueError):
            self.readings = 0

    def set(self, readings: int) -> None:
        text = b"%020d" % readings
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.pwrite(descriptor, b"%b %08x\n" % (text, zlib.crc32(text)), 0)
            os.fdatasync(descriptor)
        finally:
            os.close(descriptor)
        self.readings = readings
