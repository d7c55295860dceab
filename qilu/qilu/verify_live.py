"""Verification of a live run of the programme: recomputes every expected first reading from the run's record,
and compares it with the store, value by value.

Some blocks of a month's equipment at a time, so memory stays bounded however large the run is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.store import Store

from qilu.comparison import Expected
from qilu.month_fleet import Block
from qilu.replay import Replay
from qilu.run_record import RunRecord
from qilu.verify import Verdict

Done = Callable[[int, int], None]
"""Called with the number of units verified, and the total."""
WINDOW_UNITS = 150_000
"""Approximate number of units compared together: a query to the store costs as much as a thousand of them,
and a unit takes about a kilobyte."""


async def verify_live(record: RunRecord, store: Store, done: Done) -> Verdict:
    """Verify the months that the record lists as finished. Other points in the first minute of such a month
    are unexpected. Raises ConfigError for a record that was changed, StoreError when the store does not
    answer."""
    replay = Replay(record.loaded(), record.scale)
    verdict, verified = Verdict(), 0
    for month in replay.months():
        if month.month >= len(record.months):
            break
        for blocks in _windows(month.fleet.blocks()):
            await _verify_blocks(blocks, record.seed, store, verdict)
            verified += sum(map(len, blocks))
            done(verified, record.months[-1].counts["units_on_cloud"])
    return verdict


def _windows(blocks: Iterator[Block]) -> Iterator[list[Block]]:
    """Blocks that follow each other, WINDOW_UNITS of units or a little more."""
    window: list[Block] = []
    for block in blocks:
        window.append(block)
        if sum(map(len, window)) >= WINDOW_UNITS:
            yield window
            window = []
    if window:
        yield window


async def _verify_blocks(blocks: Sequence[Block], seed: int, store: Store, verdict: Verdict) -> None:
    expected = Expected([columns for block in blocks for columns in block.columns(seed)])
    for class_name in CATALOGUE:
        async for chunk in store.scan(class_name, blocks[0].start_ms, blocks[-1].end_ms):
            for found in expected.find(chunk, marks=False):
                counties = np.array(found.counties, dtype=object)
                verdict.count("stored", _of_class(class_name, counties))
                verdict.count("unexpected", _of_class(class_name, counties[found.places < 0]))
                verdict.count("duplicated", _of_class(class_name, counties[found.again]))
    verdict.close(expected, expected.found == 0)


def _of_class(class_name: str, counties: NDArray[Any]) -> Counter[tuple[str, str]]:
    return Counter({(class_name, county): count for county, count in Counter(counties.tolist()).items()})
