"""Gathers messages into batches, by size and by age."""

from __future__ import annotations

import asyncio
import time
from typing import Generic, Protocol, TypeVar


class Weighed(Protocol):
    @property
    def weight(self) -> int:
        """Share of the batch size that it takes; at least 1."""


_T = TypeVar("_T", bound=Weighed)


class Batcher(Generic[_T]):
    """Batcher with backpressure: one batch fills while its predecessor is written; once it is full, `add`
    waits. So it never holds more than two batches and one item. `size` may be changed at any time.
    """

    def __init__(self, size: int, age_s: float) -> None:
        self.size, self._age_s = size, age_s
        self._items: list[_T] = []
        self._weight = 0
        self._since_s = 0.0
        self._some = asyncio.Event()
        self._full = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()

    async def add(self, item: _T) -> None:
        """Add an item; waits while the batch is full."""
        await self.room()
        if not self._items:
            self._since_s = time.monotonic()
        self._items.append(item)
        self._weight += item.weight
        self._some.set()
        if self._weight >= self.size:
            self._full.set()

    async def room(self) -> int:
        """Free room in the batch; waits while it is full."""
        while self._weight >= self.size:
            self._room.clear()
            await self._room.wait()
        return self.size - self._weight

    async def next(self) -> list[_T]:
        """The next batch, in the order of `add`, once it is full or its first item has reached the maximum
        age."""
        await self._some.wait()
        if not self._full.is_set():
            try:
                async with asyncio.timeout(self._since_s + self._age_s - time.monotonic()):
                    await self._full.wait()
            except TimeoutError:
                pass
        batch, self._items, self._weight = self._items, [], 0
        self._some.clear()
        self._full.clear()
        self._room.set()
        return batch

    def hurry(self) -> None:
        """Release the current batch now, and stop waiting for batches to fill."""
        self._age_s = 0.0
        self._full.set()
