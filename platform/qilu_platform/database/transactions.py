"""The registry's database: SQLite or PostgreSQL, the same statements for both, always in a thread.

SQLite has one writer (one thread, BEGIN IMMEDIATE) and readers beside it; PostgreSQL has as many as threads,
and any number of platforms may share it. There every statement of a transaction sees what others committed
before it, so a count is taken of rows that are locked, never of rows that an earlier statement saw. All
transactions lock in one order, so that they wait for each other and do not deadlock: the lock of suspensions
or recognitions, enterprises, units, contracts, hours of activity, counters, the lock of barring; rows of one
table in the order of their ids.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self, TypeVar

import structlog
from qilu_common.private_files import private_file
from qilu_contract.errors import QiluError
from sqlalchemy import (
    Connection,
    Table,
    text,
)
from sqlalchemy.exc import DBAPIError

from qilu_platform.database.engine import RESUMED, THREADS, WRITES, open_engine
from qilu_platform.database.faults import has_no_room
from qilu_platform.database.migrating import migrate

log = structlog.get_logger()
T = TypeVar("T")
MAX_WAITING = 256
"""Calls that may wait for a thread; the next is refused at once (503) instead of waiting longer than its
client does."""
MAX_TRIES = 5
"""Tries of a transaction that PostgreSQL ended for the sake of another."""
_RETRIED = ("40001", "40P01")  # serialization failure, deadlock


class DatabaseBusy(QiluError):
    """Too many calls wait for the database already: come again later."""


class Database:
    """Runs functions of a connection in a transaction, in a thread. Opened by `async with`, which also
    migrates."""

    def __init__(self, url: str, password: str | None = None) -> None:
        self.engine = open_engine(url, password)
        self._writing = self.engine.execution_options(**{WRITES: True})
        one_writer = self.engine.dialect.name == "sqlite"
        self._readers = ThreadPoolExecutor(THREADS, thread_name_prefix="qilu-db-read")
        self._writers = (
            ThreadPoolExecutor(1, thread_name_prefix="qilu-db-write") if one_writer else self._readers
        )
        self._file = Path(str(self.engine.url.database)) if one_writer else None
        self._waiting = 0
        self._writes = 0
        self.trouble = ""
        """Why nothing can be written, in one sentence; empty when the last write could."""

    async def __aenter__(self) -> Self:
        try:
            if self._file is not None:
                await asyncio.to_thread(self._file.parent.mkdir, parents=True, exist_ok=True)
                await asyncio.to_thread(private_file, self._file)
            await self.write(migrate)
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._close()

    async def _close(self) -> None:
        def close() -> None:
            self._writers.shutdown()
            self._readers.shutdown()
            self.engine.dispose()

        await asyncio.to_thread(close)

    async def read(self, fn: Callable[[Connection], T]) -> T:
        """Run `fn` in one read-only transaction; returns its result."""

        def run() -> T:
            with self.engine.connect() as connection:
                return fn(connection)

        return await self._run(self._readers, run)

    async def compute(self, fn: Callable[[], T]) -> T:
        """Run `fn` in a thread; returns its result. For work besides the database that is too long for the
        event loop."""
        return await self._run(self._readers, fn)

    async def write(self, fn: Callable[[Connection], T], *, resumed: bool = False) -> T:
        """Run `fn` in one transaction; returns its result once it is durable. `fn` may run more than once:
        all its effects must be in the transaction.

        `resumed` is for steps of work that can resume from its last durable state: they do not wait for the
        disk, and a power failure may undo the last of them, in order and as a whole. The next write without
        it makes them durable as well.
        """
        writing = self._writing.execution_options(**{RESUMED: True}) if resumed else self._writing
        relaxed = resumed and self._file is None

        def run() -> T:
            for left in reversed(range(MAX_TRIES)):
                try:
                    with writing.begin() as connection:
                        if relaxed:
                            connection.execute(text("SET LOCAL synchronous_commit = off"))
                        return fn(connection)
                except DBAPIError as error:
                    if not left or getattr(error.orig, "sqlstate", None) not in _RETRIED:
                        raise
            raise AssertionError("the last try returns or raises")

        self._writes += 1
        try:
            found = await self._run(self._writers, run)
        except DBAPIError as error:
            if has_no_room(error):
                if not self.trouble:
                    log.error("the registry's disk is full: changes are refused until it has room")
                self.trouble = f"the registry's disk is full ({error.orig}): changes are refused"
            raise
        finally:
            self._writes -= 1
        if self.trouble:
            self.trouble = ""
            log.info("the registry's disk takes changes")
        return found

    def contended(self) -> bool:
        """Whether others may wait for the write that asks; on PostgreSQL, which has other writers, always."""
        return self._file is None or self._writes > 1

    async def refresh_statistics(self, table: Table) -> None:
        """After a table grew by much at once: PostgreSQL would plan for its old size, for a minute, and read
        all of it for a page. SQLite plans well without."""
        if self._file is None:
            await self.write(lambda connection: connection.execute(text(f'ANALYZE "{table.name}"')))

    async def _run(self, threads: ThreadPoolExecutor, run: Callable[[], T]) -> T:
        if self._waiting >= MAX_WAITING:
            raise DatabaseBusy(f"{MAX_WAITING} calls wait for the database already; come again in a second.")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(threads, run)
        finally:
            self._waiting -= 1
