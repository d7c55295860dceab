"""State file: one SQLite file in `--state` with everything that must survive a restart. A commit that
returned is on disk.

If the disk is full, read-only or unavailable, a write fails or waits (`hold`). A file with damaged pages is
set aside and its readable rows are saved. A file that is removed or replaced while in use is written again
from the open connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self, TextIO, TypeVar

import structlog
from qilu_common.backoff import Backoff
from qilu_common.private_files import private_folder
from qilu_contract.errors import ConfigError
from qilu_contract.wire.clock import wall_ms

from qilu_gateway.sqlite_files import (
    Identity,
    identity,
    is_damage,
    is_passing,
    open_private,
    rename_file,
    salvage,
    save_readable,
    write_copy,
)

log = structlog.get_logger()

FILE_NAME = "gateway.sqlite"
BUSY_TIMEOUT_S = 10.0
_T = TypeVar("_T")


class StateFile:
    """The gateway's state file, opened by `async with`. Writes run in a dedicated thread; look-ups by key, a
    few microseconds each, run in the caller's thread.
    """

    def __init__(self, folder: Path, schemas: Sequence[str]) -> None:
        """`schemas` are scripts that create missing tables."""
        self._folder, self._schemas = folder, schemas
        self._path = folder / FILE_NAME
        self._saved = folder / "gateway.saved.sqlite"
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="gateway-state")
        self._lock: TextIO | None = None
        self._writer: sqlite3.Connection | None = None
        self._identity: Identity = ()
        self._opened = False
        self._reader: sqlite3.Connection | None = None
        self._reading = threading.Lock()
        """Guards the reader while it is used, and while its file is replaced."""
        self.failing = ""
        """Why the file takes no writes now, in one sentence; empty while it does."""

    async def __aenter__(self) -> Self:
        """Raises ConfigError when the folder cannot be used, or another gateway uses it, and
        sqlite3.OperationalError or OSError when the disk is full, read-only or unavailable."""
        try:
            await self.write(_nothing)
        except BaseException:
            await self._end()
            raise
        self._opened = True
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._end()

    async def _end(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown()

    async def write(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Run `work` in a transaction; returns its result once the changes are durable. On an error nothing
        is changed. `work` may run more than once. Raises sqlite3.OperationalError or OSError while the disk
        takes no writes."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._transaction, work)

    async def hold(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Like `write`, but waits while the disk takes no writes."""
        backoff = Backoff(most_s=2.0)
        while True:
            try:
                return await self.write(work)
            except (sqlite3.OperationalError, OSError) as error:
                if not is_passing(error):
                    raise
                await asyncio.sleep(backoff.delay_s())

    async def look_after(self) -> None:
        """Periodic check: detects a removed file, and a disk that takes writes again."""
        probe = _touch if self.failing else _nothing
        with contextlib.suppress(sqlite3.OperationalError, OSError):  # logged by `write`
            await self.write(probe)

    def read(self, query: str, values: tuple[object, ...]) -> tuple[object, ...] | None:
        """The first row of a look-up by key. Raises like `read_all`."""
        rows = self.read_all(query, values)
        return rows[0] if rows else None

    def read_all(self, query: str, values: tuple[object, ...]) -> list[tuple[object, ...]]:
        """All rows of a look-up by keys. Raises sqlite3.OperationalError when the disk cannot be read."""
        try:
            return self._look_up(query, values)
        except sqlite3.DatabaseError as error:
            if not is_damage(error):
                raise
            # Rare enough to block the event loop.
            self._thread.submit(self._salvage, error).result()
            return self._look_up(query, values)

    def _look_up(self, query: str, values: tuple[object, ...]) -> list[tuple[object, ...]]:
        with self._reading:
            if self._reader is None:
                self._reader = _connect(self._path)
                self._reader.execute("PRAGMA query_only = ON")
            return self._reader.execute(query, values).fetchall()

    # -- in the thread

    def _transaction(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        try:
            found, changed = self._try(work)
        except (sqlite3.OperationalError, OSError) as error:
            if not is_passing(error):
                raise
            if self._opened and not self.failing:
                log.error("state file takes nothing: messages stay unacknowledged", error=str(error))
            self.failing = f"{self._path} takes nothing ({error}): messages stay unacknowledged until it does"
            raise
        if self.failing and changed:
            self.failing = ""
            log.info("state file takes writes")
        return found

    def _try(self, work: Callable[[sqlite3.Connection], _T]) -> tuple[_T, bool]:
        """Run `work` once; returns its result, and whether it wrote anything."""
        for is_last in (False, True):
            try:
                with self._connection() as connection:
                    before = connection.total_changes
                    return work(connection), connection.total_changes != before
            except sqlite3.DatabaseError as error:
                if is_last or not is_damage(error):
                    raise
                self._salvage(error)
        raise AssertionError("the last try returns or raises")

    def _connection(self) -> sqlite3.Connection:
        if self._lock is None:
            self._lock = self._lock_folder()
        if self._writer is not None and identity(self._path) != self._identity:
            self._write_again(self._writer)
        if self._writer is None:
            if not self._path.exists() and self._saved.exists():  # a salvage was interrupted at its end
                self._saved.rename(self._path)
            self._writer = self._open(self._path)
            self._identity = identity(self._path)
        return self._writer

    def _salvage(self, error: sqlite3.Error) -> None:
        """Set the damaged file aside, and continue with its readable rows."""
        self._close_connections()
        rows = salvage(self._path, self._saved, self._open, save_readable)
        aside = self._path.with_name(f"gateway.damaged-{wall_ms()}.sqlite")
        with self._reading:
            self._close_reader()
            rename_file(self._path, aside)
            self._saved.rename(self._path)
        log.error(
            "the state file was damaged and set aside", file=str(aside), error=str(error), rows_kept=rows
        )

    def _write_again(self, connection: sqlite3.Connection) -> None:
        """Write the file again from the open connection, after it was removed or replaced."""
        self._folder.mkdir(parents=True, exist_ok=True)
        write_copy(connection, self._saved)
        self._close_connections()
        with self._reading:
            self._close_reader()
            if self._path.exists():
                rename_file(self._path, self._path.with_name(f"gateway.replaced-{wall_ms()}.sqlite"))
            self._saved.rename(self._path)
        if self._lock is not None:
            self._lock.close()
        self._lock = self._lock_folder()
        log.error("the state file was removed while in use, and was written again", file=str(self._path))

    def _lock_folder(self) -> TextIO:
        try:
            private_folder(self._folder)
            path = self._folder / "gateway.lock"
            lock = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w")
        except OSError as error:
            if is_passing(error):
                raise
            raise ConfigError(f"--state {self._folder} cannot be used: {error.strerror}.") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.close()
            raise ConfigError(
                f"--state {self._folder} is used by another gateway: give each its own."
            ) from error
        return lock

    def _open(self, path: Path) -> sqlite3.Connection:
        connection = _connect(path)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            for schema in self._schemas:
                connection.executescript(schema)
        except BaseException:
            connection.close()
            raise
        return connection

    def _close_reader(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _close_connections(self) -> None:
        with self._reading:
            self._close_reader()
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _close(self) -> None:
        self._close_connections()
        if self._lock is not None:
            self._lock.close()


def _connect(path: Path) -> sqlite3.Connection:
    connection = open_private(path, timeout=BUSY_TIMEOUT_S, check_same_thread=False)
    # Text in a damaged page may not be UTF-8. It is read all the same, and matches nothing.
    connection.text_factory = lambda text: text.decode(errors="replace")
    return connection


def _nothing(_: sqlite3.Connection) -> None:
    pass


def _touch(connection: sqlite3.Connection) -> None:
    """Write to an existing page, to test whether the disk takes writes."""
    connection.execute("CREATE TABLE IF NOT EXISTS probe (id INTEGER PRIMARY KEY, at_ms INTEGER)")
    connection.execute("REPLACE INTO probe VALUES (1, ?)", (wall_ms(),))
