"""The spool: points on the gateway's own disk while the store is away or slow, oldest first out.

One SQLite file in `--state`, `spool.sqlite`, one row a batch: how many readings it holds, a checksum, and its
content (`spool_bodies`). A batch that was appended is on the disk (WAL, synchronous FULL) and survives the
process. What can no longer be read is counted in readings (`corrupt`) and set aside, and the rest goes on. A
second, tiny file (`spooled`) says how many readings have been acknowledged and not shipped: so a spool that
was lost or cut off is noticed, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import time
import zlib
from collections import OrderedDict
from collections.abc import Callable, Container, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import structlog
from qilu_contract.columns import Columns
from qilu_contract.storage import Point
from qilu_contract.wire.clock import wall_ms

from qilu_gateway.sqlite_files import (
    SEARCH_IDS,
    Identity,
    identity,
    is_damage,
    is_passing,
    open_private,
    remove_file,
    rename_file,
    sync,
    write_copy,
)
from qilu_gateway.write import spool_bodies
from qilu_gateway.write.spool_bodies import Body

log = structlog.get_logger()

FILE_NAME = "spool.sqlite"
COUNT_NAME = "spooled"
NEARLY = 0.75
"""Above this part of the bound the host's STATE goes offline; the rest is for what the broker still holds."""
NEARLY_FREE = 2
"""So many times the disk space that must stay free count as nearly none."""
FULL_S = 5.0
"""How long it is believed that there is no room."""
FILE_SYSTEM_EVERY_S = 0.5
MOST_BATCHES = 1000
"""Batches that are shipped together, at most: small ones come when data is sparse."""
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
# `heads` says again, on pages of its own, how many readings a batch holds: when a page of `batches` is
# damaged, it still tells what is missing.
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Spooled:
    """The oldest batches. `firsts`: units that were not on cloud when they were spooled, with the time of
    their first reading here."""

    ids: tuple[int, ...]
    readings: int
    points: list[Point]
    columns: list[Columns]
    """Each with a `Series` of its own: the gateway's numbers mean nothing here."""
    firsts: list[tuple[str, int]]

    def heard(self) -> Iterator[tuple[str, int]]:
        """Of each point, its unit and time."""
        yield from ((point.tags[-1], point.ts_ms) for point in self.points)
        for columns in self.columns:
            units = columns.series.tag("unit", columns.rows).tolist()
            yield from zip(units, columns.ts_ms.tolist(), strict=True)


class Spool:
    """Opened by `async with`. All work on the file runs in one thread of its own."""

    def __init__(
        self, folder: Path, max_bytes: int, min_free_bytes: int, corrupted: Callable[[int], None]
    ) -> None:
        """`max_bytes` 0: nothing is ever spooled, but what is there is shipped. `corrupted` is called with
        how many readings have just turned out to be unreadable; `corrupt` holds those found at the
        opening."""
        self._path = folder / FILE_NAME
        self._saved = folder / "spool.saved.sqlite"
        self._count = _Count(folder / COUNT_NAME)
        self._max_bytes, self._min_free_bytes = max_bytes, min_free_bytes
        self._corrupted = corrupted
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="gateway-spool")
        self._loop: asyncio.AbstractEventLoop
        self._connection: sqlite3.Connection | None = None
        self._identity: Identity = ()
        # By id, in order: readings, bytes, created_ms. A dict finds its first behind all that were removed.
        self._rows: OrderedDict[int, tuple[int, int, int]] = OrderedDict()
        self._undeleted: list[int] = []
        self._oldest_ms = 0
        self._disk = (0.0, 0)
        self._full_until_s = 0.0
        self.filled = asyncio.Event()
        self.readings = 0
        self.bytes = 0
        self.corrupt = 0

    async def __aenter__(self) -> Self:
        """Raises sqlite3.OperationalError or OSError when the disk is full, read-only or away."""
        self._loop = asyncio.get_running_loop()
        try:
            await self._run(self._open)
        except BaseException:
            await self._run(self._close)
            self._thread.shutdown()
            raise
        if self._rows:
            self.filled.set()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._run(self._close)
        self._thread.shutdown()

    @property
    def batches(self) -> int:
        return len(self._rows)

    @property
    def enabled(self) -> bool:
        return self._max_bytes > 0

    @property
    def full(self) -> bool:
        """There was no room a moment ago."""
        return time.monotonic() < self._full_until_s

    @property
    def nearly_full(self) -> bool:
        """Little is left: whoever can keep readings elsewhere should do so."""
        return (
            self.full
            or self.bytes >= NEARLY * self._max_bytes
            or self._free_bytes() < NEARLY_FREE * self._min_free_bytes
        )

    def age_s(self) -> float:
        """How long the oldest batch has been here."""
        return max(0.0, (wall_ms() - self._oldest_ms) / 1000) if self._oldest_ms else 0.0

    async def append(
        self, points: Sequence[Point], columns: Sequence[Columns], firsts: Sequence[tuple[str, int]]
    ) -> bool:
        """Whether the points are on the disk now; False when there is no room, by bound or on the disk."""
        if not self.enabled:
            return False
        taken = await self._run(lambda: self._append(points, columns, firsts))
        if taken:
            self.filled.set()
            self._full_until_s = 0.0
        else:
            if not self.full:
                log.error("the spool is full: messages stay unacknowledged", bytes=self.bytes)
            self._full_until_s = time.monotonic() + FULL_S
        return taken

    async def oldest(self, most_readings: int, apart: Container[int] = ()) -> Spooled | None:
        """The oldest batches, but for those set `apart`, with about so many readings in all; None when there
        are none. Raises sqlite3.OperationalError when the disk does not answer."""
        found = await self._run(lambda: self._oldest(most_readings, apart))
        if found is None and not self._rows:
            self.filled.clear()
        return found

    async def remove(self, ids: Sequence[int]) -> None:
        """The batches are where they belong, and leave the spool."""
        await self._run(lambda: self._remove(ids))

    # -- in the spool's thread

    async def _run(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _open(self) -> None:
        corrupt = 0
        if not self._path.exists() and self._saved.exists():  # a salvage that was cut off at its end
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
        self.corrupt = max(lost, corrupt)
        self._count.set(self.readings)

    def _connect(self) -> None:
        new = not self._path.exists() or self._path.stat().st_size == 0
        connection = _connect(self._path, new)
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

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _check_file(self) -> None:
        """Notice that the file was removed or replaced while it is in use, and write it again."""
        connection = self._connection_now()
        if identity(self._path) == self._identity:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        write_copy(connection, self._saved)
        self._close()
        if self._path.exists():
            rename_file(self._path, self._path.with_name(f"spool.replaced-{wall_ms()}.sqlite"))
        self._saved.rename(self._path)
        self._connect()
        self._count.set(self.readings)
        log.error("the spool was removed while in use, and was written again", file=str(self._path))

    def _forget(self, id_: int) -> int:
        """The batch is gone from the file; returns how many readings it held."""
        readings, size, _ = self._rows.pop(id_, (0, 0, 0))
        self.readings -= readings
        self.bytes -= size
        self._oldest_ms = next(iter(self._rows.values()), (0, 0, 0))[2]
        return readings

    def _add_up(self) -> None:
        self.readings = sum(readings for readings, _, _ in self._rows.values())
        self.bytes = sum(size for _, size, _ in self._rows.values())
        self._oldest_ms = next(iter(self._rows.values()), (0, 0, 0))[2]

    def _free_bytes(self) -> int:
        now_s = time.monotonic()
        if now_s - self._disk[0] > FILE_SYSTEM_EVERY_S:
            try:
                disk = os.statvfs(self._path.parent)
            except OSError:
                self._disk = (now_s, 0)
            else:
                self._disk = (now_s, disk.f_bavail * disk.f_frsize)
        return self._disk[1]

    def _append(
        self, points: Sequence[Point], columns: Sequence[Columns], firsts: Sequence[tuple[str, int]]
    ) -> bool:
        body = spool_bodies.encode(points, columns, firsts)
        room = self.bytes + len(body) <= self._max_bytes
        if not room or self._free_bytes() - len(body) < self._min_free_bytes:
            return False
        readings, created_ms = len(points) + sum(map(len, columns)), wall_ms()
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
            self._give_up(error)
            return False
        assert id_ is not None
        self._rows[id_] = (readings, len(body), created_ms)
        self._oldest_ms = self._oldest_ms or created_ms
        self.readings += readings
        self.bytes += len(body)
        try:
            self._count.set(self.readings)
        except OSError as error:
            self._give_up(error)
            self._drop(id_)
            return False
        return True

    def _roll_back(self) -> None:
        if self._connection is not None and self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def _give_up(self, error: Exception) -> None:
        """Nothing can be spooled now."""
        if isinstance(error, sqlite3.DatabaseError) and is_damage(error):
            try:
                self._set_aside(error)
                return
            except (sqlite3.OperationalError, OSError) as passing:
                error = passing
        elif not is_passing(error):
            raise error
        if not self.full:
            log.warning("nothing can be spooled", error=str(error))

    def _drop(self, id_: int) -> None:
        """The batch is not to be shipped: nobody was told that it is here."""
        self._forget(id_)
        self._undeleted.append(id_)

    def _oldest(self, most_readings: int, apart: Container[int]) -> Spooled | None:
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
                return self._oldest(most_readings, apart)
            if batch is not None:
                ids.append(id_)
                batches.append(batch)
                readings += size
        if not ids and found:  # none of these could be read
            return self._oldest(most_readings, apart)
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
        """A batch; None, once it is counted and set aside, when its content is not what was written."""
        row = self._execute("SELECT readings, checksum, body FROM batches WHERE id = ?", (id_,)).fetchone()
        if row is not None:
            batch = spool_bodies.decode(*row)
            if batch is not None:
                return batch
            aside = self._path.with_name(f"spool.damaged-{wall_ms()}-{id_}.bin")
            aside.write_bytes(row[2] if isinstance(row[2], bytes) else b"")
            log.error("a spooled batch is damaged and was set aside", readings=row[0], file=str(aside))
        self._count.set(self.readings - self._rows[id_][0])
        self._execute("DELETE FROM batches WHERE id = ?", (id_,))
        self._execute("DELETE FROM heads WHERE id = ?", (id_,))
        self._tell_corrupt(self._forget(id_))
        return None

    def _remove(self, ids: Sequence[int]) -> None:
        for id_ in ids:
            self._forget(id_)
        self._undeleted += ids
        try:
            self._count.set(self.readings)  # before they are gone: what it counts is never missing
            self._delete()
        except (sqlite3.DatabaseError, OSError) as error:
            # A full disk has no room even for the journal of a deletion. What is not deleted now is deleted
            # with the next, or at worst shipped once more after a restart, which stores nothing twice.
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
        if not self._rows:  # the space goes back to the disk
            self._execute("PRAGMA incremental_vacuum").fetchall()
            self._execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _start_anew(self) -> None:
        """Nothing in the file is needed any more."""
        self._close()
        with contextlib.suppress(OSError):
            remove_file(self._path)
            self._undeleted.clear()

    def _set_aside(self, error: Exception) -> None:
        """The file is damaged while we use it."""
        held = max(self.readings, self._count.readings)
        self._salvage(error)
        self._count.set(self.readings)
        # What was in memory tells exactly, whatever the file can still say.
        self._tell_corrupt(held - self.readings)

    def _tell_corrupt(self, readings: int) -> None:
        self._loop.call_soon_threadsafe(self._corrupted, readings)

    def _salvage(self, error: Exception) -> int:
        """Set the file aside and go on with what can be read of it; returns the readings of batches whose
        content cannot, as far as their rows tell."""
        self._close()
        remove_file(self._saved)
        try:
            with closing(_connect(self._saved, new=True)) as target:
                corrupt = _save_readable(self._path, target)
            sync(self._saved)
        except BaseException:
            remove_file(self._saved)
            raise
        aside = self._path.with_name(f"spool.damaged-{wall_ms()}.sqlite")
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
    """How many readings are in the spool, at least, and were acknowledged: in a file of its own, on the disk
    when `set` returns. Written in place, which a full disk allows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.readings = 0

    def open(self) -> None:
        """What an earlier process said last; 0 when that cannot be read."""
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


def _connect(path: Path, new: bool) -> sqlite3.Connection:
    connection = open_private(path, check_same_thread=False, isolation_level=None)
    try:
        # Nobody else opens the file, and so there is no index of the log beside it, for which a full disk
        # has no room: what is spooled can be read and shipped all the same.
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        if new:  # a write, even where it changes nothing
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.executescript(_SCHEMA)
    except BaseException:
        connection.close()
        raise
    return connection


def _save_readable(damaged: Path, target: sqlite3.Connection) -> int:
    """Copy the batches of a damaged file that are as they were written; returns how many readings the others
    held, as far as it says."""
    missing: dict[int, int] = {}
    with closing(sqlite3.connect(damaged, isolation_level=None)) as source:
        try:
            source.execute("PRAGMA writable_schema = ON")  # else a file that lost its end is not read at all
            ids = _ids(source)
        except sqlite3.DatabaseError as error:
            if is_passing(error):
                raise
            return 0  # not even the first page is one of ours
        target.execute("BEGIN")
        # One look-up each: a damaged page hides its own rows only.
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
    """Where ids lie, as far as a damaged file tells."""
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
