"""The one way to the store: readings, what was spooled, roll-ups and the gateway's own figures all go through
here. So a store that asks to be left alone is left alone by everybody, it is known in one place whether it
takes anything, and batches are as large as it can take them.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import NamedTuple

import structlog
from qilu_contract.columns import Columns
from qilu_contract.errors import Denied, Rejected, Retryable, StoreError, TooLarge
from qilu_contract.storage import Point
from qilu_contract.store import Store

from qilu_gateway.metrics import Counters

log = structlog.get_logger()

LONGEST_REST_S = 60.0
"""However long a store asks to be left alone, it is asked again after this."""
PROBE_S = 10.0
QUICK_S, SLOW_S = 0.25, 1.0
"""A batch that takes less lets the next ones grow, one that takes more halves them: a write should be short
beside the time after which it is given up."""
LEAST_SLOW_BATCH = 1000
"""Batches are not made smaller than this because they are slow: where a busy machine is what makes them so,
small ones would make it busier."""
LEAST_BATCH = 100
"""Smaller batches cost a store more for each point than they spare it."""
SIFT_WRITE_S = 10.0
MOST_TOLD = 5
"""Reasons told during one outage."""


class Refused(NamedTuple):
    """A point that is refused even alone."""

    point: Point
    detail: str
    """What the store said."""
    group: int | None
    """The place, in what was to be written, of the columns that it stands in; None: among the points."""
    place: int
    """Its own place in these, or among the points."""


class _Batch:
    """Points and columns as one sequence, which can be halved."""

    def __init__(self, points: Sequence[Point], columns: Sequence[Columns]) -> None:
        self._points, self._columns = points, columns
        self._ends = list(accumulate(map(len, columns), initial=len(points)))
        self.whole = range(self._ends[-1])

    def part(self, which: range) -> tuple[Sequence[Point], list[Columns]]:
        if which == self.whole:
            return self._points, list(self._columns)
        inside = []
        for columns, first, end in zip(self._columns, self._ends[:-1], self._ends[1:], strict=True):
            low, high = max(which.start, first), min(which.stop, end)
            if low < high:
                inside.append(columns.take(slice(low - first, high - first)))
        return self._points[which.start : which.stop], inside

    def refused(self, which: range, detail: str) -> list[Refused]:
        """All of these."""
        points, columns = self.part(which)
        each = [*points, *(point for some in columns for point in some.points())]
        return [Refused(point, detail, *self._place(at)) for at, point in zip(which, each, strict=True)]

    def _place(self, at: int) -> tuple[int | None, int]:
        if at < len(self._points):
            return None, at
        group = bisect_right(self._ends, at) - 1
        return group, at - self._ends[group]


def _halves(which: range) -> tuple[range, range]:
    middle = len(which) // 2
    return which[:middle], which[middle:]


class StoreGate:
    def __init__(
        self,
        store: Store,
        counters: Counters,
        figures: Callable[[], list[Point]],
        *,
        batch_size: int,
        spooling: bool,
    ) -> None:
        """`figures` makes points of the gateway's own, which show whether the store takes anything.
        `spooling`: readings that it does not take go to the spool."""
        self._store, self._counters, self._figures = store, counters, figures
        self._most, self._spooling = batch_size, spooling
        self._rest_until_s = 0.0
        self._told: set[str] = set()
        self._figures_refused = False
        self.batch_size = batch_size
        """Points that should be written together now: follows the store's pace."""
        self.failing = True
        """It has not taken the last write, or none yet."""
        self.away = False
        """It did not take the last write."""
        self.reason = ""
        """Why it takes nothing now, and what follows, in one sentence; empty while it takes writes."""

    def rests_s(self) -> float:
        """How long the store still asks to be left alone."""
        return max(0.0, self._rest_until_s - time.monotonic())

    async def write(
        self, points: Sequence[Point], columns: Sequence[Columns] = (), *, within_s: float | None = None
    ) -> None:
        """Durable on return. Raises Retryable (without asking, while the store wants to be left alone; also
        when it takes longer than `within_s`), Rejected when at least one point is refused, TooLarge."""
        rests_s = self.rests_s()
        if rests_s:
            raise Retryable("the store asked to be left alone", rests_s)
        size = len(points) + sum(map(len, columns))
        began_s = time.monotonic()
        try:
            async with asyncio.timeout(within_s):
                await self._store.write(points, columns)
        except TimeoutError as error:
            slow = Retryable(f"the store took nothing within {within_s} s")
            self._shrink(size, LEAST_BATCH)
            self._failed(slow)
            raise slow from error
        except Retryable as error:
            self._failed(error)
            raise
        except (Rejected, TooLarge) as error:
            self._counters.store_refused += 1
            if isinstance(error, TooLarge):
                self._shrink(size, LEAST_BATCH)
            raise
        took_s = time.monotonic() - began_s
        if took_s > SLOW_S:
            self._shrink(size, LEAST_SLOW_BATCH)
        elif took_s < QUICK_S and size * 2 >= self.batch_size:
            self.batch_size = min(self._most, self.batch_size * 5 // 4 + 1)
        self._succeeded()

    async def write_good(
        self, points: Sequence[Point], columns: Sequence[Columns] = (), *, within_s: float | None = None
    ) -> list[Refused]:
        """Write those that the store does not refuse for good; returns the others. Raises Retryable: then any
        of them may be stored, and all are to be written again."""
        batch = _Batch(points, columns)
        return await self._write_good(batch, batch.whole, within_s)

    async def _write_good(self, batch: _Batch, which: range, within_s: float | None) -> list[Refused]:
        try:
            await self.write(*batch.part(which), within_s=within_s)
        except (Rejected, TooLarge) as error:
            # All of them, as when they are older than what the store keeps: nothing to look for.
            if len(which) == 1 or (isinstance(error, Rejected) and error.points == len(which)):
                return batch.refused(which, str(error))
            first, second = _halves(which)
            refused = await self._write_good(batch, first, within_s)
            return refused + await self._write_good(batch, second, within_s)
        return []

    async def sift(self, points: Sequence[Point], columns: Sequence[Columns] = ()) -> list[Refused]:
        """As `write_good`, for points with which the store fails again and again (an inner error, no answer)
        though it takes others: a point at which it fails even alone counts as refused. Raises Retryable when
        the store takes nothing else either."""
        batch = _Batch(points, columns)
        return await self._sift(batch, batch.whole)

    async def _sift(self, batch: _Batch, which: range) -> list[Refused]:
        try:
            return await self._write_good(batch, which, SIFT_WRITE_S)
        except Retryable as error:
            if not await self.answers():
                raise
            if len(which) == 1:
                return batch.refused(which, f"while the store takes others: {error}")
        first, second = _halves(which)
        refused = await self._sift(batch, first)
        return refused + await self._sift(batch, second)

    async def answers(self) -> bool:
        """Whether the store takes the gateway's own figures now."""
        try:
            await self.write(self._figures(), within_s=PROBE_S)
        except Retryable:
            return False
        except StoreError as error:
            if not self._figures_refused:  # they are written every two seconds
                log.error("the store refuses the gateway's own figures", error=str(error))
            self._figures_refused = True
        else:
            self._figures_refused = False
        return True

    def _shrink(self, points: int, least: int) -> None:
        """After trouble with so many points. That a few of the gateway's own figures took long, say while a
        start is busy with a backlog, tells nothing about batches."""
        if points * 2 >= self.batch_size:
            self.batch_size = min(self.batch_size, max(least, points // 2), self._most)

    def _failed(self, error: Retryable) -> None:
        self._counters.store_errors += 1
        self._counters.store_denied += isinstance(error, Denied)
        self.away = self.failing = True
        if error.retry_after_s:
            rest_s = min(error.retry_after_s, LONGEST_REST_S)
            self._rest_until_s = max(self._rest_until_s, time.monotonic() + rest_s)
        # Each reason once: a token that is refused is another matter than a server that is away.
        self.reason = str(error)
        if len(self._told) < MOST_TOLD and self.reason not in self._told:
            self._told.add(self.reason)
            then = "readings are spooled" if self._spooling else "messages stay unacknowledged"
            log.error(f"store takes nothing: {then}", error=self.reason)

    def _succeeded(self) -> None:
        self.away = False
        self._told.clear()
        self.reason = ""
        if self.failing:
            self.failing = False
            log.info("store takes writes")
