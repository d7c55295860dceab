"""The gate to the store: readings, spooled batches, roll-ups and the gateway's own metrics are all written
through it. So `Retry-After` of the store applies to all writers, one place knows whether the store takes
writes, and the batch size follows the store's speed.
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
"""Upper bound for the store's `Retry-After`."""
PROBE_S = 10.0
QUICK_S, SLOW_S = 0.25, 1.0
"""Target duration of a write: a faster batch lets the next ones grow, a slower one halves them. It is short
compared to the write timeout."""
LEAST_SLOW_BATCH = 2500
"""Batches do not shrink below this because they are slow: if a busy machine is the cause, small batches would
make it busier. InfluxDB needs a sixth more CPU for a point in batches of 1000."""
LEAST_BATCH = 100
"""Smallest batch: below this, the cost per point outweighs the savings."""
SIFT_WRITE_S = 10.0
MOST_TOLD = 5
"""Maximum number of reasons logged during one outage."""


class Refused(NamedTuple):
    """A point that the store rejects even when written alone."""

    point: Point
    detail: str
    """The store's message."""
    group: int | None
    """Index of its columns in the batch; None: it is among the points."""
    place: int
    """Its index in these columns, or among the points."""


class _Batch:
    """Points and columns as one sequence that can be bisected."""

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
        """Mark all points of the range as rejected."""
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
        """`figures` makes the points of the gateway's own metrics, which show whether the store takes writes.
        `spooling`: readings that it does not take go to the spool."""
        self._store, self._counters, self._figures = store, counters, figures
        self._most, self._spooling = batch_size, spooling
        self._rest_until_s = 0.0
        self._told: set[str] = set()
        self._figures_refused = False
        self.batch_size = batch_size
        """Current batch size in points; follows the store's speed."""
        self.failing = True
        """Whether the last write failed, or none has been made yet."""
        self.away = False
        """Whether the last write failed."""
        self.reason = ""
        """Why the store takes no writes now, and the consequence, in one sentence; empty while it does."""

    def rests_s(self) -> float:
        """Remaining time of the store's `Retry-After`."""
        return max(0.0, self._rest_until_s - time.monotonic())

    async def write(
        self, points: Sequence[Point], columns: Sequence[Columns] = (), *, within_s: float | None = None
    ) -> None:
        """Write points; durable on return. Raises Retryable (without a request during `Retry-After`, and when
        the write takes longer than `within_s`), Rejected when the store rejects at least one point,
        TooLarge."""
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
        """Write the points that the store accepts; returns those that it rejects permanently. Raises
        Retryable: then some of the points may be stored, and all must be written again."""
        batch = _Batch(points, columns)
        return await self._write_good(batch, batch.whole, within_s)

    async def _write_good(self, batch: _Batch, which: range, within_s: float | None) -> list[Refused]:
        try:
            await self.write(*batch.part(which), within_s=within_s)
        except (Rejected, TooLarge) as error:
            # All points are rejected, for example because they are older than the retention: no need to
            # bisect.
            if len(which) == 1 or (isinstance(error, Rejected) and error.points == len(which)):
                return batch.refused(which, str(error))
            first, second = _halves(which)
            refused = await self._write_good(batch, first, within_s)
            return refused + await self._write_good(batch, second, within_s)
        return []

    async def sift(self, points: Sequence[Point], columns: Sequence[Columns] = ()) -> list[Refused]:
        """Like `write_good`, for points with which the store fails repeatedly (internal error, timeout)
        although it takes others: a point with which it fails even alone counts as rejected. Raises Retryable
        when the store takes no other writes either."""
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
        """Write the gateway's own metrics; returns whether the store took them."""
        try:
            await self.write(self._figures(), within_s=PROBE_S)
        except Retryable:
            return False
        except StoreError as error:
            if not self._figures_refused:  # written every two seconds: log once
                log.error("the store refuses the gateway's own figures", error=str(error))
            self._figures_refused = True
        else:
            self._figures_refused = False
        return True

    def _shrink(self, points: int, least: int) -> None:
        """Shrink the batch size after a failed or slow write of this many points. A slow write of the
        gateway's own few metrics, for example during a busy start, is ignored."""
        if points * 2 >= self.batch_size:
            self.batch_size = min(self.batch_size, max(least, points // 2), self._most)

    def _failed(self, error: Retryable) -> None:
        self._counters.store_errors += 1
        self._counters.store_denied += isinstance(error, Denied)
        self.away = self.failing = True
        if error.retry_after_s:
            rest_s = min(error.retry_after_s, LONGEST_REST_S)
            self._rest_until_s = max(self._rest_until_s, time.monotonic() + rest_s)
        # Log each reason once, because a rejected token and an unavailable server need different actions.
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
