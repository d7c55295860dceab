"""Spool and batcher against the simplest model that does the same, in whatever order things happen."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections import deque
from dataclasses import dataclass
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from qilu_contract.columns import Series, of_points
from qilu_contract.storage import Point
from qilu_gateway.read.batching import Batcher
from qilu_gateway.write.spool import Spool
from qilu_gateway.write.spool_file import Spooled

TAGS = ("370200", "370202", "C34", "370202-e00001", "m1")
MAX_BYTES = 1500


class SpoolMachine(RuleBasedStateMachine):
    """Modelled by a list of batches: what was appended and not removed is there, in order, after every end of
    the process, clean or not."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = Path(tempfile.mkdtemp(prefix="qilu-spool-"))
        self.model: list[list[Point]] = []
        self.given = 0
        self.held: Spooled | None = None
        self.corrupt: list[int] = []

    def teardown(self) -> None:
        self.loop.run_until_complete(self.spool.__aexit__(None, None, None))
        self.loop.close()
        shutil.rmtree(self.folder)

    def _new(self) -> Spool:
        return Spool(self.folder, MAX_BYTES, 0, self.corrupt.append)

    @initialize()
    def open(self) -> None:
        self.spool = self.loop.run_until_complete(self._new().__aenter__())

    @rule(size=st.integers(1, 40), firsts=st.booleans(), by_column=st.integers(0, 40))
    def append(self, size: int, firsts: bool, by_column: int) -> None:
        points = [Point("motor", TAGS, self.given + k, {"power_in": k + 0.5}) for k in range(size)]
        columns = of_points(points[by_column:], Series(), {})
        room = self.spool.bytes
        taken = self.loop.run_until_complete(
            self.spool.append(points[:by_column], columns, [("m1", 1)] if firsts else [])
        )
        if taken:
            self.model.append(points)
            self.given += size
        else:
            assert room > 0  # an empty spool has room for any batch of these

    @rule(most=st.integers(1, 60))
    def oldest(self, most: int) -> None:
        self.held = self.loop.run_until_complete(self.spool.oldest(most))
        expected: list[Point] = []
        for place, batch in enumerate(self.model):
            if place and len(expected) + len(batch) > most:
                break
            expected += batch
        assert _points(self.held) == expected

    @precondition(lambda self: self.held is not None)
    @rule()
    def remove(self) -> None:
        assert self.held is not None
        self.loop.run_until_complete(self.spool.remove(self.held.ids))
        del self.model[: len(self.held.ids)]
        self.held = None

    @precondition(lambda self: self.model)
    @rule(most=st.integers(1, 60))
    def oldest_but_for_the_first(self, most: int) -> None:
        first = self.loop.run_until_complete(self.spool.oldest(1))
        assert first is not None
        rest = self.loop.run_until_complete(self.spool.oldest(most, set(first.ids)))
        assert _points(rest)[: len(self.model[1]) if len(self.model) > 1 else 0] == (
            self.model[1] if len(self.model) > 1 else []
        )

    @rule()
    def restart(self) -> None:
        self.loop.run_until_complete(self.spool.__aexit__(None, None, None))
        self.open()
        self.held = None

    @rule()
    def die_and_come_back(self) -> None:
        """A killed process leaves the content of its files at that moment."""
        left = self.folder.with_name(self.folder.name + "-left")
        shutil.copytree(self.folder, left)
        self.loop.run_until_complete(self.spool.__aexit__(None, None, None))
        shutil.rmtree(self.folder)
        left.rename(self.folder)
        self.open()
        self.held = None

    @invariant()
    def adds_up(self) -> None:
        if hasattr(self, "spool"):
            assert self.spool.readings == sum(map(len, self.model))
            assert self.spool.batches == len(self.model)
            assert self.spool.filled.is_set() or not self.model
            assert (self.spool.bytes > 0) == bool(self.model)
            assert not self.corrupt


def _points(found: Spooled | None) -> list[Point]:
    """In the order in which they were appended."""
    if found is None:
        return []
    points = [*found.points, *(point for columns in found.columns for point in columns.points())]
    assert len(points) == found.readings
    return sorted(points, key=lambda point: point.ts_ms)


@dataclass(frozen=True)
class Item:
    number: int
    weight: int


class BatcherMachine(RuleBasedStateMachine):
    """Modelled by a queue: items come out once, in order, no more at a time than asked for; who adds to a
    full batch waits."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.batcher: Batcher[Item] = Batcher(10, 3600)
        self.model: deque[Item] = deque()
        self.waiting: deque[tuple[Item, asyncio.Task[None]]] = deque()
        self.given = 0

    def teardown(self) -> None:
        for _, task in self.waiting:
            task.cancel()
        self._turn()
        self.loop.close()

    def _turn(self) -> None:
        """Let everybody go as far as they can."""

        async def turns() -> None:
            for _ in range(2 * len(self.waiting) + 3):
                await asyncio.sleep(0)

        self.loop.run_until_complete(turns())
        for _ in range(len(self.waiting)):
            item, task = self.waiting.popleft()
            if task.done():
                self.model.append(item)
            else:
                self.waiting.append((item, task))

    @property
    def weight(self) -> int:
        return sum(item.weight for item in self.model)

    @precondition(lambda self: not self.waiting)
    @rule(weight=st.integers(1, 15))
    def add(self, weight: int) -> None:
        item = Item(self.given, weight)
        self.given += 1
        full = self.weight >= self.batcher.size
        self.waiting.append((item, self.loop.create_task(self.batcher.add(item))))
        self._turn()
        assert bool(self.waiting) == full

    @rule(size=st.integers(1, 30))
    def resize(self, size: int) -> None:
        self.batcher.size = size

    @precondition(lambda self: self.model)
    @rule()
    def next(self) -> None:
        self.batcher.hurry()
        batch = self.loop.run_until_complete(self.batcher.next())
        assert batch == list(self.model)
        self.model.clear()
        self._turn()
        assert not self.waiting


TestSpool = SpoolMachine.TestCase
TestSpool.settings = settings(max_examples=12, stateful_step_count=25)
TestBatcher = BatcherMachine.TestCase
TestBatcher.settings = settings(max_examples=50, stateful_step_count=40)
