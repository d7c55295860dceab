"""CPU of a point in DuckDB, as JSON on standard output: in order of time, and at random times into a table of
so many rows. Run by `bench_gateway.py` in a process of its own.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from statistics import median

from gateway_load import BATCH, Fleet, values
from gateway_world import COUNTY, START_MS
from qilu_contract.storage import Point
from qilu_contract.stores import open_store

UNITS = 10_000
LATE_BATCHES = 9
EVERY_MS = 10_000


async def measure(address: str, rows: int) -> dict[str, float]:
    fleet = Fleet("json", UNITS)
    tags = [(COUNTY[:4], COUNTY, "C34", fleet.node(number), unit) for number, unit in enumerate(fleet.units)]
    chance = random.Random(1)
    in_order, late = [], []
    async with open_store(address) as store:
        for start in range(0, rows, BATCH):
            points = [
                Point("motor", tags[place % UNITS], START_MS + place // UNITS * EVERY_MS, values(place % 13))
                for place in range(start, start + BATCH)
            ]
            began_s = time.process_time()
            await store.write(points)
            in_order.append((time.process_time() - began_s) / BATCH * 1e6)
        for _ in range(LATE_BATCHES):
            points = [
                Point(
                    "motor",
                    tags[chance.randrange(UNITS)],
                    START_MS
                    + chance.randrange(rows // UNITS) * EVERY_MS
                    + 1
                    + chance.randrange(EVERY_MS - 1),
                    values(0),
                )
                for _ in range(BATCH)
            ]
            began_s = time.process_time()
            await store.write(points)
            late.append((time.process_time() - began_s) / BATCH * 1e6)
    return {"in_order": round(median(in_order), 1), "random_order": round(median(late), 1), "rows": rows}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(measure(sys.argv[1], int(sys.argv[2])))))  # noqa: T201
