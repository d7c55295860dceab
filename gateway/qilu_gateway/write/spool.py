"""The spool: a queue of points on disk for times when the store is unavailable or slow. The oldest leave
first.

It is one SQLite file in `--state`, `spool.sqlite` (readings for Kafka have a second one), with one row per
batch: the number of readings, a checksum, and the content (`spool_bodies`). An appended batch is on disk
(WAL, synchronous FULL) and survives the process. Unreadable batches are counted in readings (`corrupt`) and
set aside, and the others remain available. A second, tiny file (`spooled`) holds the number of readings that
were acknowledged and not shipped, so that the loss or truncation of the spool is detected as well.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import Callable, Container, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self, TypeVar

import structlog
from qilu_contract.columns import Columns
from qilu_contract.storage import Point
from qilu_contract.wire.clock import wall_ms

from qilu_gateway.sqlite_files import is_passing
from qilu_gateway.write import spool_bodies
from qilu_gateway.write.spool_file import NAME, Spooled, SpoolFile

log = structlog.get_logger()

NEARLY = 0.75
"""Fill level above which the host's STATE goes offline; the rest is for messages that the broker still
holds."""
NEARLY_FREE = 2
"""Multiple of the disk space that must stay free, below which the disk counts as nearly full."""
FULL_S = 5.0
"""Time for which the result "no room" is cached."""
FILE_SYSTEM_EVERY_S = 0.5
_T = TypeVar("_T")


class Spool:
    """The spool, opened by `async with`. All work on the file runs in one dedicated thread."""

    def __init__(
        self,
        folder: Path,
        max_bytes: int,
        min_free_bytes: int,
        corrupted: Callable[[int], None],
        name: str = NAME,
    ) -> None:
        """With `max_bytes` 0 nothing is spooled, but existing batches are shipped. `corrupted` is called with
        the number of readings that have just turned out to be unreadable; `corrupt` holds those found when
        opening."""
        self._folder, self._name = folder, name
        self._file = SpoolFile(folder, self._tell_corrupt, name)
        self._max_bytes, self._min_free_bytes = max_bytes, min_free_bytes
        self._corrupted = corrupted
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="gateway-spool")
        self._loop: asyncio.AbstractEventLoop
        self._disk = (0.0, 0)
        self._full_until_s = 0.0
        self.filled = asyncio.Event()
        self.corrupt = 0

    async def __aenter__(self) -> Self:
        """Raises sqlite3.OperationalError or OSError when the disk is full, read-only or unavailable."""
        self._loop = asyncio.get_running_loop()
        try:
            self.corrupt = await self._run(self._file.open)
        except BaseException:
            await self._run(self._file.close)
            self._thread.shutdown()
            raise
        if self._file.batches:
            self.filled.set()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._run(self._file.close)
        self._thread.shutdown()

    @property
    def batches(self) -> int:
        return self._file.batches

    @property
    def readings(self) -> int:
        return self._file.readings

    @property
    def bytes(self) -> int:
        return self._file.bytes

    @property
    def enabled(self) -> bool:
        return self._max_bytes > 0

    @property
    def full(self) -> bool:
        """Whether there was no room a moment ago."""
        return time.monotonic() < self._full_until_s

    @property
    def nearly_full(self) -> bool:
        """Whether little room is left: edge nodes should keep their readings."""
        return (
            self.full
            or self.bytes >= NEARLY * self._max_bytes
            or self._free_bytes() < NEARLY_FREE * self._min_free_bytes
        )

    def age_s(self) -> float:
        """Age of the oldest batch."""
        oldest_ms = self._file.oldest_ms
        return max(0.0, (wall_ms() - oldest_ms) / 1000) if oldest_ms else 0.0

    async def append(
        self, points: Sequence[Point], columns: Sequence[Columns], firsts: Sequence[tuple[str, int]]
    ) -> bool:
        """Append points; returns whether they are on disk now. False when there is no room, within the bound
        or on the disk."""
        if not self.enabled:
            return False
        taken = await self._run(lambda: self._append(points, columns, firsts))
        if taken:
            self.filled.set()
            self._full_until_s = 0.0
        else:
            if not self.full:
                log.error(f"the {self._name} is full", bytes=self.bytes)
            self._full_until_s = time.monotonic() + FULL_S
        return taken

    async def oldest(self, most_readings: int, apart: Container[int] = ()) -> Spooled | None:
        """The oldest batches except those set `apart`, with about `most_readings` in total; None without any.
        Raises sqlite3.OperationalError when the disk cannot be read."""
        found = await self._run(lambda: self._file.oldest(most_readings, apart))
        if found is None and not self._file.batches:
            self.filled.clear()
        return found

    async def remove(self, ids: Sequence[int]) -> None:
        """Remove batches that have been shipped."""
        await self._run(lambda: self._file.remove(ids))

    # -- in the spool's thread

    async def _run(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _free_bytes(self) -> int:
        now_s = time.monotonic()
        if now_s - self._disk[0] > FILE_SYSTEM_EVERY_S:
            try:
                disk = os.statvfs(self._folder)
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
        try:
            return self._file.append(len(points) + sum(map(len, columns)), body)
        except (sqlite3.DatabaseError, OSError) as error:
            if not is_passing(error):
                raise
            if not self.full:
                log.warning("nothing can be spooled", error=str(error))
            return False

    def _tell_corrupt(self, readings: int) -> None:
        self._loop.call_soon_threadsafe(self._corrupted, readings)
