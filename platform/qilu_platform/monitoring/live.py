"""Live readings of single units for pages: polled from the store, once for all watchers of a unit, and not at
all without watchers.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import msgspec
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.catalogue.generic import COUNTED, GENERIC
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
    viewers: set[EventQueue] = field(default_factory=set)
    task: asyncio.Task[None] | None = None

    def tell(self, event: bytes) -> None:
        for queue in self.viewers:
            queue.put(event)


class LiveUnits:
    """Not thread-safe: everything here runs in the event loop."""

    def __init__(self, store: PlatformStore) -> None:
        self._store = store
        self._watched: dict[str, _Watched] = {}

    async def stream(self, unit: str, class_name: str, county: str) -> AsyncIterator[bytes]:
        """Server-sent events: `latest` at once, `readings` as they come, `store` when it becomes
        unavailable or available. Raises TooManyWatched at the first step."""
        watched = self._watched.get(unit)
        if watched is None:
            if len(self._watched) >= MAX_WATCHED:
                raise TooManyWatched
            watched = self._watched[unit] = _Watched(unit, class_name, store_of(self._store, county))
            watched.task = asyncio.create_task(self._read(watched), name=f"live {unit}")
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
                if watched.task is not None:
                    watched.task.cancel()

    def close(self) -> None:
        """End all streams: a server does not stop while one is open."""
        for watched in self._watched.values():
            if watched.task is not None:
                watched.task.cancel()
            for queue in watched.viewers:
                queue.put(None)

    async def _read(self, watched: _Watched) -> None:
        quiet_s = LOOK_AGAIN_S
        while True:
            try:
                if quiet_s >= LOOK_AGAIN_S:
                    quiet_s = 0.0
                    await self._look(watched)
                elif await self._follow(watched):
                    quiet_s = 0.0
                if watched.error:
                    watched.error = ""
                    watched.tell(_event("store", {"error": None}))
            except (StoreError, ValueError, OSError, TimeoutError) as error:
                if not watched.error:
                    watched.error = str(error) or type(error).__name__
                    watched.tell(_event("store", {"error": watched.error}))
            await asyncio.sleep(EVERY_S)
            quiet_s += EVERY_S

    async def _look(self, watched: _Watched) -> None:
        row = await watched.store.latest(watched.class_name, {"unit": watched.unit})
        if row is None or (watched.last is not None and row.ts_ms == watched.last.ts_ms):
            return
        born_ms = row.values.pop(BORN, None)
        row.values.pop(COUNTED, None)
        watched.born_ms = None if born_ms is None else int(born_ms)
        watched.last = row
        watched.tell(_latest(watched))

    async def _follow(self, watched: _Watched) -> bool:
        """Whether there was something new since the last reading."""
        if watched.last is None or watched.class_name == GENERIC:  # whose signals are not known beforehand
            before = watched.last
            await self._look(watched)
            return watched.last is not before
        names = [signal.name for signal in CATALOGUE[watched.class_name].signals]
        start_ms = watched.last.ts_ms
        end_ms = max(start_ms, wall_ms()) + AHEAD_MS
        tags = {"unit": watched.unit}
        found = await watched.store.series(watched.class_name, tags, [*names, BORN], start_ms, end_ms)
        # The last one is read again: signals that were sampled together may be stored apart.
        rows = [
            row for row in found if row.ts_ms > start_ms or row.values.keys() - watched.last.values.keys()
        ]
        if not rows:
            return False
        for row in rows:
            if (born_ms := row.values.pop(BORN, None)) is not None:
                watched.born_ms = int(born_ms)
            watched.last = Row(row.ts_ms, watched.last.values | row.values)
        columns = [name for name in names if any(name in row.values for row in rows)]
        if not columns:
            return False
        body: dict[str, Any] = {
            "born_ms": watched.born_ms,
            "columns": ["ts_ms", *columns],
            "rows": [[row.ts_ms, *(row.values.get(name) for name in columns)] for row in rows[-MAX_ROWS:]],
        }
        watched.tell(_event("readings", body))
        return True


def _latest(watched: _Watched) -> bytes:
    assert watched.last is not None
    return _event(
        "latest",
        {"born_ms": watched.born_ms, "ts_ms": watched.last.ts_ms, "values": watched.last.values},
    )


def _event(name: str, value: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), msgspec.json.encode(value))
