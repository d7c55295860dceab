"""Batches by size and by age."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from qilu_contract.columns import Columns
from qilu_contract.storage import Point
from qilu_gateway.metrics import Counters
from qilu_gateway.read.batching import Batcher
from qilu_gateway.write.store_gate import LEAST_SLOW_BATCH, SLOW_S, StoreGate


@dataclass(frozen=True)
class Item:
    number: int
    weight: int = 1


@given(weights=st.lists(st.integers(1, 12), min_size=1, max_size=60), size=st.integers(1, 20))
def test_every_item_comes_out_once_and_in_order(weights: list[int], size: int) -> None:
    items = [Item(number, weight) for number, weight in enumerate(weights)]

    async def through() -> list[list[Item]]:
        batcher: Batcher[Item] = Batcher(size, 0.001)
        batches: list[list[Item]] = []

        async def write() -> None:
            while sum(map(len, batches)) < len(items):
                batches.append(await batcher.next())

        async with asyncio.TaskGroup() as group:
            group.create_task(write())
            for item in items:
                await batcher.add(item)
        return batches

    batches = asyncio.run(through())
    assert [item for batch in batches for item in batch] == items
    for batch in batches:
        assert batch
        assert sum(item.weight for item in batch[:-1]) < size


async def test_a_full_batch_goes_at_once_and_more_has_to_wait() -> None:
    batcher: Batcher[Item] = Batcher(2, age_s=3600)
    await batcher.add(Item(0))
    await batcher.add(Item(1))
    third = asyncio.create_task(batcher.add(Item(2)))
    await asyncio.sleep(0)
    assert not third.done()
    assert await batcher.next() == [Item(0), Item(1)]
    await third


async def test_an_old_batch_goes_though_it_is_not_full() -> None:
    batcher: Batcher[Item] = Batcher(1000, age_s=0.01)
    await batcher.add(Item(0))
    assert await batcher.next() == [Item(0)]


async def test_in_a_hurry_nothing_waits_for_company() -> None:
    batcher: Batcher[Item] = Batcher(1000, age_s=3600)
    await batcher.add(Item(0))
    batcher.hurry()
    assert await batcher.next() == [Item(0)]
    await batcher.add(Item(1))
    assert await batcher.next() == [Item(1)]


async def test_no_batch_is_empty() -> None:
    batcher: Batcher[Item] = Batcher(10, age_s=0.001)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await batcher.next()


class SlowStore:
    """Takes all, each time a little later than a quick store would."""

    async def write(self, points: Sequence[Point], columns: Sequence[Columns]) -> None:
        await asyncio.sleep(SLOW_S + 0.05)


async def test_a_slow_write_of_a_few_points_says_nothing_about_batches() -> None:
    """As while a start is busy with a backlog: the gateway's own figures take long."""
    point = Point("pipeline", ("qilu", "1m"), 0, {"accepted": 1})
    store: Any = SlowStore()
    gate = StoreGate(store, Counters(), lambda: [point], batch_size=5000, spooling=True)
    await asyncio.gather(*(gate.answers() for _ in range(5)))
    assert gate.batch_size == 5000
    await asyncio.gather(*(gate.write([point] * 5000) for _ in range(5)))
    assert LEAST_SLOW_BATCH <= gate.batch_size == 2500, "one round of slow writes halves it once"
    for size in (2500, 1250, 1000):
        await gate.write([point] * size)
    assert gate.batch_size == LEAST_SLOW_BATCH
