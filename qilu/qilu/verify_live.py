"""Verification of a live run of the programme: every first reading that must be stored is computed again from
the run's record, and compared with the store, value by value.

Block after block of a month's equipment, so memory stays bounded however large the run is.
"""

from __future__ import annotations

from collections.abc import Callable

from qilu_contract.catalogue import CATALOGUE
from qilu_contract.storage import Point
from qilu_contract.stores import Store

from qilu.replay import Block, Replay
from qilu.run_record import RunRecord
from qilu.verify import Verdict

Done = Callable[[int, int], None]
"""Called with how many units are verified, and how many there are."""


async def verify_live(record: RunRecord, store: Store, done: Done) -> Verdict:
    """Of the months that the record calls done. What else stands in the first minute of such a month is
    unexpected. Raises ConfigError for a record that was changed, StoreError when the store does not
    answer."""
    replay = Replay(record.loaded(), record.scale)
    verdict, verified = Verdict(), 0
    for month in replay.months():
        if month.month >= len(record.months):
            break
        for block in month.fleet.blocks():
            await _verify_block(block, record.seed, store, verdict)
            verified += len(block.units)
            done(verified, record.months[-1].counts["units_on_cloud"])
    return verdict


async def _verify_block(block: Block, seed: int, store: Store, verdict: Verdict) -> None:
    expected: dict[tuple[str, int], Point] = {
        (point.tags[-1], point.ts_ms): point for point in block.points(seed)
    }
    found: dict[tuple[str, int], int] = {}
    good: set[tuple[str, int]] = set()
    for class_name in CATALOGUE:
        async for points in store.scan(class_name, block.start_ms, block.end_ms):
            for point in points:
                counts = verdict.by_place[point.measurement, point.tags[1]]
                key = (point.tags[-1], point.ts_ms)
                counts.stored += 1
                if key not in expected:
                    counts.unexpected += 1
                    continue
                counts.duplicated += key in found
                found[key] = found.get(key, 0) + 1
                if point == expected[key]:
                    good.add(key)
    for key, point in expected.items():
        counts = verdict.by_place[point.measurement, point.tags[1]]
        counts.expected += 1
        counts.lost += key not in found
        counts.altered += key in found and key not in good
