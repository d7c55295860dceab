"""Live readings of single units for pages: polled from the store, by one query a second for all watched units
of a class, and not at all without watchers.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import msgspec
from qilu_contract.catalogue.generic import COUNTED
from qilu_contract.errors import StoreError
from qilu_contract.storage import BORN
from qilu_contract.store import PlatformStore, Row
from qilu_contract.wire.clock import wall_ms
from qilu_stores.cells import store_of

from qilu_platform.event_queue import EventQueue

EVERY_S = 1.0
LOOK_AGAIN_S = 30.0
"""Without new readings the latest one is asked for again this often: a run's clock may have gone back."""
AHEAD_MS = 86_400_000
"""Simulated time may be ahead of the wall's clock."""
MAX_ROWS = 500
"""Of one event; of more, the last."""
MAX_WATCHED = 500
"""Units that are read for one replica's viewers at a time."""


class TooManyWatched(Exception):
    """MAX_WATCHED units are being read already."""


@dataclass(eq=False, slots=True)
class _Watched:
    """A watched unit."""

    unit: str
    class_name: str
    store: PlatformStore
    born_ms: int | None = None
    last: Row | None = None
    error: str = ""
    looked_s: float = float("-inf")
    """When the latest reading was asked for, or the last new one came (monotonic)."""
    viewers: set[EventQueue] = field(default_factory=set)

    def tell(self, event: bytes) -> None:
        for queue in self.viewers:
            queue.put(event)


class LiveUnits:
    """Not thread-safe: everything here runs in the event loop."""

    def __init__(self, store: PlatformStore) -> None:
        self._store = store
        self._stores: dict[str, PlatformStore] = {}
        """By county."""
        self._watched: dict[str, _Watched] = {}
        self._reading: asyncio.Task[None] | None = None

    async def stream(self, unit: str, class_name: str, county: str) -> AsyncIterator[bytes]:
        """Server-sent events: `latest` at once, `readings` as they come, `store` when it becomes
        unavailable or available. Raises TooManyWatched at the first step."""
        watched = self._watched.get(unit)
        if watched is None:
            if len(self._watched) >= MAX_WATCHED:
                raise TooManyWatched
            if county not in self._stores:
                self._stores[county] = store_of(self._store, county)
            watched = self._watched[unit] = _Watched(unit, class_name, self._stores[county])
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read(), name="live units")
        queue = EventQueue()
        watched.viewers.add(queue)
        try:
            yield b"retry: 2000\n\n"
            if watched.last is not None:
                yield _latest(watched)
            while True:
                event = await queue.get()
                if event is None:
                    return
                yield event
        finally:
            watched.viewers.discard(queue)
            if not watched.viewers and self._watched.get(unit) is watched:
                del self._watched[unit]

    def close(self) -> None:
        """End all streams: a server does not stop while one is open."""
        if self._reading is not None:
            self._reading.cancel()
        for watched in self._watched.values():
            for queue in watched.viewers:
                queue.put(None)

    async def _read(self) -> None:
        """Ends when nobody watches."""
        while self._watched:
            now_s, groups = time.monotonic(), defaultdict[tuple[int, str], list[_Watched]](list)
            for watched in list(self._watched.values()):
                if watched.last is None or now_s - watched.looked_s >= LOOK_AGAIN_S:
                    await self._ask(self._look(watched), [watched])
                else:
                    groups[id(watched.store), watched.class_name].append(watched)
            for group in groups.values():
                await self._ask(self._follow(group), group)
            await asyncio.sleep(EVERY_S)

    async def _ask(self, asking: Awaitable[None], group: Sequence[_Watched]) -> None:
        """Tell the viewers of these units when the store becomes unavailable or available."""
        problem = ""
        try:
            await asking
        except (StoreError, ValueError, OSError, TimeoutError) as error:
            problem = str(error) or type(error).__name__
        for watched in group:
            if bool(problem) != bool(watched.error):
                watched.tell(_event("store", {"error": problem or None}))
                watched.error = problem

    async def _look(self, watched: _Watched) -> None:
        row = await watched.store.latest(watched.class_name, {"unit": watched.unit})
        watched.looked_s = time.monotonic()
        if row is None or (watched.last is not None and row.ts_ms == watched.last.ts_ms):
            return
        watched.last = _without_marks(watched, row)
        watched.tell(_latest(watched))

    async def _follow(self, group: Sequence[_Watched]) -> None:
        starts = {watched.unit: watched.last.ts_ms for watched in group if watched.last is not None}
        end_ms = max(wall_ms(), *starts.values()) + AHEAD_MS
        found = await group[0].store.since(group[0].class_name, starts, end_ms)
        for watched in group:
            _tell(watched, found.get(watched.unit, []))


def _tell(watched: _Watched, found: Sequence[Row]) -> None:
    """Tell the viewers of what is new since the last reading."""
    assert watched.last is not None
    start_ms = watched.last.ts_ms
    # The last one is read again: signals that were sampled together may be stored apart.
    new = [_without_marks(watched, row) for row in found]
    rows = [row for row in new if row.ts_ms > start_ms or row.values.keys() - watched.last.values.keys()]
    columns = list(dict.fromkeys(chain.from_iterable(row.values for row in rows)))
    if not columns:
        return
    watched.looked_s = time.monotonic()
    for row in rows:
        watched.last = Row(row.ts_ms, watched.last.values | row.values)
    body: dict[str, Any] = {
        "born_ms": watched.born_ms,
        "columns": ["ts_ms", *columns],
        "rows": [[row.ts_ms, *(row.values.get(name) for name in columns)] for row in rows[-MAX_ROWS:]],
    }
    watched.tell(_event("readings", body))


def _without_marks(watched: _Watched, row: Row) -> Row:
    """The row without fields that are no signals; the time of a birth is kept."""
    if (born_ms := row.values.pop(BORN, None)) is not None:
        watched.born_ms = int(born_ms)
    row.values.pop(COUNTED, None)
    return row


def _latest(watched: _Watched) -> bytes:
    assert watched.last is not None
    return _event(
        "latest",
        {"born_ms": watched.born_ms, "ts_ms": watched.last.ts_ms, "values": watched.last.values},
    )


def _event(name: str, value: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), msgspec.json.encode(value))
