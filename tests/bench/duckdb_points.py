"""CPU of a point in DuckDB, as JSON on standard output: in order of time, and at random times into a table of
so many rows, by column, with all that the store does between two batches. Run by `bench_gateway.py` in a
separate process.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable

import numpy as np
from gateway_load import BATCH, Fleet, values
from gateway_world import COUNTY, START_MS
from qilu_contract.columns import Columns, Ints, Series
from qilu_contract.store import Store
from qilu_stores import open_store

UNITS = 10_000
LATE_BATCHES = 100
"""Enough for the log to go into the file several times."""
EVERY_MS = 10_000


async def measure(address: str, rows: int) -> dict[str, float]:
    fleet, series = Fleet("json", UNITS), Series()
    for number, unit in enumerate(fleet.units):
        series.add("motor", (COUNTY[:4], COUNTY, "C34", fleet.node(number), unit))
    names = tuple(values(0))
    kinds = np.array([tuple(values(kind).values()) for kind in range(13)], dtype=np.float64)
    chance = np.random.default_rng(1)

    def in_order(batch: int) -> Columns:
        places = np.arange(batch * BATCH, (batch + 1) * BATCH)
        return columns(places % UNITS, START_MS + places // UNITS * EVERY_MS)

    def late(batch: int) -> Columns:
        ticks = chance.integers(0, rows // UNITS, BATCH) * EVERY_MS
        return columns(
            chance.integers(0, UNITS, BATCH), START_MS + ticks + chance.integers(1, EVERY_MS, BATCH)
        )

    def columns(units: Ints, ts_ms: Ints) -> Columns:
        return Columns("motor", series, units.astype(np.int32), ts_ms, names, kinds[units % len(kinds)])

    async with open_store(address) as store:
        return {
            "in_order": await _us_per_point(store, in_order, rows // BATCH),
            "random_order": await _us_per_point(store, late, LATE_BATCHES),
            "rows": rows,
        }


async def _us_per_point(store: Store, make: Callable[[int], Columns], batches: int) -> float:
    began_s = time.process_time()
    for batch in range(batches):
        await store.write((), [make(batch)])
    return round((time.process_time() - began_s) / batches / BATCH * 1e6, 1)


if __name__ == "__main__":
    print(json.dumps(asyncio.run(measure(sys.argv[1], int(sys.argv[2])))))  # noqa: T201
