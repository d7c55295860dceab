"""Store and forward of an edge node: readings go to disk, from there to the node, and leave the disk when the
broker has acknowledged them.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import structlog
from qilu_contract.errors import ConfigError

from qilu_devices.doors.journal import Journal, Row
from qilu_devices.edge.edge_node import EdgeNode
from qilu_devices.simulation import Sample

_log = structlog.get_logger(__name__)
_T = TypeVar("_T")


class Forwarding:
    """`take` is called with what was read, `step` several times a second. `ahead`: readings that the node
    holds in memory; the others are on disk only."""

    def __init__(self, journal: Journal, node: EdgeNode, ahead: int) -> None:
        self._journal, self._node, self._ahead = journal, node, ahead
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="edge-journal")
        self._fresh: list[Sample] = []
        self._published: list[Row] = []
        self._superseded: list[Row] = []
        """Readings that no message will carry, because a later one is in the unit's birth."""
        self._offered: dict[int, Row] = {}
        """Readings that the node holds, by the identity of the sample."""
        self._failing = False
        self._dropped = 0
        self.readings = 0
        """Readings taken."""
        self.recovered = 0
        """Readings that an earlier process has left on disk."""
        self.acked = 0
        node.backlog.gone = self._gone

    @property
    def waiting(self) -> int:
        """Readings that the broker has not acknowledged."""
        return len(self._fresh) + self._journal.readings

    @property
    def dropped(self) -> int:
        return self._dropped + self._journal.dropped

    async def open(self, restore: Callable[[Sample], None]) -> None:
        """Open the file, and offer the oldest readings of an earlier process. `restore` is called with the
        readings in it. Raises ConfigError when it cannot be opened."""
        try:
            await self._run(self._journal.open)
            published = await self._run(lambda: list(self._journal.published()))
            latest = await self._run(self._journal.latest)
        except (sqlite3.Error, OSError) as error:
            raise ConfigError(
                f"{self._journal.path} cannot be opened ({error}): give another --state."
            ) from error
        backlog = self._node.backlog
        for sample in published:  # births repeat their values
            backlog.devices[sample.unit.id].take(sample)
            backlog.made_until_ms = max(backlog.made_until_ms, sample.ts_ms)
        for sample in (*published, *latest):
            restore(sample)
        self.recovered = self._journal.readings
        if self.recovered:
            _log.info("readings found on disk", readings=self.recovered)
        await self.step()

    async def close(self) -> None:
        await self._run(self._journal.close)
        self._thread.shutdown()

    def take(self, sample: Sample) -> None:
        self.readings += 1
        self._fresh.append(sample)

    async def step(self) -> None:
        """Write what was taken, remove what was published, and offer what comes next. While the disk takes
        nothing, readings wait in memory."""
        fresh, published, superseded = self._fresh, self._published, self._superseded
        room = self._ahead - self._node.pending
        if not fresh and not published and not superseded and (room <= 0 or not self._behind):
            return
        self._fresh, self._published, self._superseded = [], [], []
        try:
            rows = await self._run(lambda: self._journal.step(fresh, published, room, superseded))
        except (sqlite3.Error, OSError) as error:
            self._published = published + self._published
            self._superseded = superseded + self._superseded
            kept = fresh + self._fresh
            self._fresh = kept[-self._ahead :]
            self._dropped += len(kept) - len(self._fresh)
            if not self._failing:
                _log.error("the disk takes nothing: readings wait in memory", error=str(error))
            self._failing = True
            return
        if self._failing:
            self._failing = False
            _log.info("the disk takes readings again")
        for row in rows:
            self._offered[id(row.sample)] = row
            self._node.offer(row.sample)
        self._node.backlog.behind_ms = self._journal.newest_ms if self._behind else 0

    @property
    def _behind(self) -> bool:
        """Whether the disk has readings that were not offered yet."""
        offered = len(self._offered) + len(self._published) + len(self._superseded)
        return self._journal.readings > offered

    def _gone(self, sample: Sample, acked: bool) -> None:
        row = self._offered.pop(id(sample))
        if acked:
            self.acked += 1
            self._published.append(row)
        else:
            self._superseded.append(row)

    async def _run(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
