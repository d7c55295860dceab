"""What must outlive the gateway, in one SQLite file in `--state`: a commit that returned is on the disk."""

from __future__ import annotations

import asyncio
import fcntl
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO, TypeVar

from qilu_contract.errors import ConfigError

FILE_NAME = "gateway.sqlite"
BUSY_TIMEOUT_S = 10.0
_T = TypeVar("_T")


class StateFile:
    """Opened by `async with`. Writing runs in one thread of its own; reading by key, a few microseconds, runs
    where it is called.
    """

    def __init__(self, folder: Path, schemas: Sequence[str]) -> None:
        """`schemas` are scripts that make the tables that are missing."""
        self._folder, self._schemas = folder, schemas
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="gateway-state")
        self._lock: TextIO | None = None
        self._writer: sqlite3.Connection | None = None
        self._reader: sqlite3.Connection | None = None

    async def __aenter__(self) -> Self:
        """Raises ConfigError when the folder cannot be used, or another gateway uses it."""
        try:
            await self.write(lambda _: None)
        except sqlite3.Error as error:
            self._close()
            raise ConfigError(f"--state {self._folder}: {FILE_NAME} cannot be opened: {error}.") from error
        self._reader = _connect(self._folder)
        self._reader.execute("PRAGMA query_only = ON")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._reader is not None:
            self._reader.close()
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close)
        self._thread.shutdown()

    async def write(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """What `work` returns, once everything that it did is durable; on an error nothing is done."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._transaction, work)

    def read(self, query: str, values: tuple[object, ...]) -> tuple[object, ...] | None:
        """The first row of a look-up by key."""
        assert self._reader is not None, "the state file is not open"
        row: tuple[object, ...] | None = self._reader.execute(query, values).fetchone()
        return row

    def _transaction(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        if self._writer is None:
            self._writer = self._open()
        with self._writer:
            return work(self._writer)

    def _open(self) -> sqlite3.Connection:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            lock = (self._folder / "gateway.lock").open("w")
        except OSError as error:
            raise ConfigError(f"--state {self._folder} cannot be used: {error.strerror}.") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.close()
            raise ConfigError(
                f"--state {self._folder} is used by another gateway: give each its own."
            ) from error
        self._lock = lock
        connection = _connect(self._folder)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        for schema in self._schemas:
            connection.executescript(schema)
        return connection

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        if self._lock is not None:
            self._lock.close()


def _connect(folder: Path) -> sqlite3.Connection:
    return sqlite3.connect(folder / FILE_NAME, timeout=BUSY_TIMEOUT_S, check_same_thread=False)
