"""Verification of a run over several cells: each part of the run is compared with its store in a separate
process, all at once."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NamedTuple

from qilu_common.cells import Cells, load_cells
from qilu_common.secrets import secret
from qilu_contract.catalogue.places import COUNTIES
from qilu_devices.run.manifest import load_manifest
from qilu_stores import open_store
from qilu_stores.cells import Several

from qilu.verify import Verdict, verify


class Part(NamedTuple):
    """One process's share: the counties whose readings are in the same stores."""

    run: Path
    stores: tuple[str, ...]
    counties: frozenset[str]


def parts(runs: Sequence[Path], cells: Cells) -> list[Part]:
    by_stores: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for county in COUNTIES:
        by_stores[tuple(cells.stores_of(county))].add(county)
    return [Part(run, stores, frozenset(counties)) for run in runs for stores, counties in by_stores.items()]


def verify_cells(runs: Sequence[Path], cells: Path) -> Verdict:
    """Verdict about all shards of a run. Raises ConfigError, StoreError."""
    shares = parts(runs, load_cells(cells))
    total = Verdict()
    at_once = min(len(shares), os.cpu_count() or 1)
    with ProcessPoolExecutor(at_once, multiprocessing.get_context("spawn")) as pool:
        for verdict in pool.map(_verify, shares):
            total.add(verdict)
    return total


def _verify(part: Part) -> Verdict:
    return asyncio.run(_compare(part))


async def _compare(part: Part) -> Verdict:
    token = secret("QILU_INFLUX_TOKEN")
    async with AsyncExitStack() as stack:
        stores = [await stack.enter_async_context(open_store(url, token)) for url in part.stores]
        found = await verify(
            load_manifest(part.run), Several(stores), counties=part.counties, shared=len(stores) > 1
        )
    found.by_place = {
        place: counts for place, counts in found.by_place.items() if counts.stored or counts.expected
    }
    return found
