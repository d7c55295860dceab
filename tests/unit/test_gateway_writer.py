"""Two batches are written at once, and of one unit and time the last value stays all the same."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qilu_common.mqtt.messages import Messages
from qilu_contract.columns import Columns
from qilu_contract.storage import Point
from qilu_contract.wire.clock import JudgingClock
from qilu_gateway.admit.units import Tags, Units
from qilu_gateway.metrics import Counters
from qilu_gateway.read.arrivals import Arrival
from qilu_gateway.read.batching import Batcher
from qilu_gateway.read.reads import Group, Read
from qilu_gateway.statefile import StateFile
from qilu_gateway.write.batches import Written
from qilu_gateway.write.spool import Spool
from qilu_gateway.write.store_gate import StoreGate
from qilu_gateway.write.writer import Writer

FIGURE = Point("pipeline", ("qilu", "1m"), 0, {"accepted": 1})
TURNS = 200


class SlowAtFirst:
    """A store that takes many turns of the event loop for its first write, and one for any other."""

    def __init__(self) -> None:
        self.kept: dict[tuple[int, int], float] = {}
        self.at_once = self.most_at_once = 0
        self._turns = iter([TURNS])

    async def write(self, points: Sequence[Point], columns: Sequence[Columns] = ()) -> None:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        for _ in range(next(self._turns, 1)):
            await asyncio.sleep(0)
        for each in columns:
            keys = zip(each.rows.tolist(), each.ts_ms.tolist(), strict=True)
            self.kept.update(zip(keys, each.values[:, 0].tolist(), strict=True))
        self.at_once -= 1


@pytest.mark.parametrize("same", [True, False], ids=["one time", "two times"])
async def test_batches_that_hold_a_unit_at_one_time_are_written_one_after_the_other(
    same: bool, tmp_path: Path
) -> None:
    units, counters, ended = Units(), Counters(), asyncio.Event()
    units.add("motor", Tags("3702", "370202", "C34", "370202-e00001", "m1"))
    store = SlowAtFirst()
    opened: Any = store
    gate = StoreGate(opened, counters, lambda: [FIGURE], batch_size=1, spooling=True)
    batcher: Batcher[Any] = Batcher(1, 0.01)

    def read(ts_ms: int, value: float) -> Read:
        columns = Columns(
            "motor",
            units.series,
            np.array([0], dtype=np.int32),
            np.array([ts_ms]),
            ("power_in",),
            np.array([[value]]),
        )
        arrival = Arrival(Messages([b"topic"], [b"{}"], [1], [0]), 0, 1)
        return Read(arrival, np.array([0]), [Group(columns, np.array([0]))])

    async def settle(written: Written) -> None:
        if written.columns[0].values[0, 0] == 2.0:
            ended.set()

    async with StateFile(tmp_path, ()) as state, Spool(tmp_path, 2**20, 0, lambda _: None) as spool:
        writer = Writer(batcher, gate, spool, state, JudgingClock())
        running = asyncio.create_task(writer.run(units, settle))
        await batcher.add(read(1_700_000_000_000, 1.0))
        await batcher.add(read(1_700_000_000_000 + (not same), 2.0))
        await ended.wait()
        running.cancel()
        await asyncio.wait([running])
    assert store.kept[0, 1_700_000_000_000 + (not same)] == 2.0
    assert store.most_at_once == (1 if same else 2)
