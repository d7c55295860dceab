"""The spool: points on the gateway's own disk while the store is away or slow, oldest first out.

One SQLite file in `--state`, `spool.sqlite`, one row a batch: how many readings it holds, a checksum, and its
content (`spool_bodies`). A batch that was appended is on the disk (WAL, synchronous FULL) and survives the
process. What can no longer be read is counted in readings (`corrupt`) and set aside, and the rest goes on. A
second, tiny file (`spooled`) says how many readings have been acknowledged and not shipped: so a spool that
was lost or cut off is noticed, too.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import Callable, Container, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import structlog
from qilu_contract.columns import Columns
from qilu_contract.storage import Point
from qilu_contract.wire.clock import wall_ms

from qilu_gateway.sqlite_files import is_passing
from qilu_gateway.write import spool_bodies
from qilu_gateway.write.spool_file import Spooled, SpoolFile

log = structlog.get_logger()

NEARLY = 0.75
"""Above this part of the bound the host's STATE goes offline; the rest is for what the broker still holds."""
NEARLY_FREE = 2
"""So many times the disk space that must stay free count as nearly none."""
FULL_S = 5.0
"""How long it is believed that there is no room."""
FILE_SYSTEM_EVERY_S = 0.5
_T = TypeVar("_T")


class Spool:
    """Opened by `async with`. All work on the file runs in one thread of its own."""

    def __init__(
        self, folder: Path, max_bytes: int, min_free_bytes: int, corrupted: Callable[[int], None]
    ) -> None:
        """`max_bytes` 0: nothing is ever spooled, but what is there is shipped. `corrupted` is called with
        how many readings have just turned out to be unreadable; `corrupt` holds those found at the
        opening."""
        self._folder = folder
        self._file = SpoolFile(folder, self._tell_corrupt)
        self._max_bytes, self._min_free_bytes = max_bytes, min_free_bytes
        self._corrupted = corrupted
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="gateway-spool")
        self._loop: asyncio.AbstractEventLoop
        self._disk = (0.0, 0)
        self._full_until_s = 0.0
        self.filled = asyncio.Event()
        self.corrupt = 0

    async def __aenter__(self) -> Self:
        """Raises sqlite3.OperationalError or OSError when the disk is full, read-only or away."""
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

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
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
        oldest_ms = self._file.oldest_ms
        return max(0.0, (wall_ms() - oldest_ms) / 1000) if oldest_ms else 0.0

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
        found = await self._run(lambda: self._file.oldest(most_readings, apart))
        if found is None and not self._file.batches:
            self.filled.clear()
        return found

    async def remove(self, ids: Sequence[int]) -> None:
        """The batches are where they belong, and leave the spool."""
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
