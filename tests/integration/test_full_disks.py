"""Disks that are full, read-only or damaged: nothing ends, nothing that was acknowledged is lost, and work
goes on by itself once there is room."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from qilu_contract.errors import Retryable
from qilu_contract.storage import Point
from qilu_contract.stores import Store, open_store

TAGS = ("370200", "370202", "C34", "370202-e00001")


def motors(first_ms: int, count: int) -> list[Point]:
    """Points that do not shrink in the store's file."""
    return [
        Point("motor", (*TAGS, f"u{os.urandom(8).hex()}"), ts_ms, {"power_in": ts_ms + 0.5})
        for ts_ms in range(first_ms, first_ms + count)
    ]


async def write_until_away(store: Store, first_ms: int) -> tuple[int, list[Point]]:
    """The time after the last point that was stored, and the batch that was not."""
    while True:
        batch = motors(first_ms, 2000)
        try:
            await store.write(batch)
        except Retryable as error:
            assert "No space left" in str(error) or "File too large" in str(error), error
            return first_ms, batch
        first_ms += len(batch)


# The first disk is full for the log beside the file, the second one for the checkpoint, after which DuckDB
# wants the file opened anew.
@pytest.mark.parametrize("megabytes", [4, 22])
async def test_a_full_disk_is_a_duckdb_store_that_is_away_until_there_is_room(
    small_disk: Any, megabytes: int
) -> None:
    small_disk.grow(megabytes)
    url = f"duckdb:///{small_disk.folder}/readings.duckdb"
    async with open_store(url) as store:
        stored, batch = await write_until_away(store, 0)
        assert stored > 0
        for _ in range(3):
            with pytest.raises(Retryable):
                await store.write(batch)
            assert await store.count("motor") == stored, "what is there can be read meanwhile"
        small_disk.grow(3 * megabytes)
        await store.write(batch)
        assert await store.count("motor") == stored + 2000
    async with open_store(url) as store:
        assert await store.count("motor") == stored + 2000


@contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


async def test_a_file_at_its_quota_is_a_duckdb_store_that_is_away(tmp_path: Path) -> None:
    async with open_store(f"duckdb:///{tmp_path}/readings.duckdb") as store:
        with files_no_larger_than(1024 * 1024):
            stored, batch = await write_until_away(store, 0)
            assert stored > 0
        await store.write(batch)
        assert await store.count("motor") == stored + 2000


async def test_a_duckdb_file_that_cannot_be_opened_yet_is_opened_later(small_disk: Any) -> None:
    url = f"duckdb:///{small_disk.folder}/readings.duckdb"
    async with open_store(url) as store:
        await store.write(motors(0, 10))
    small_disk.make_read_only()
    async with open_store(url) as store:
        with pytest.raises(Retryable, match="Read-only"):
            await store.write(motors(10, 10))
        with pytest.raises(Retryable, match="Read-only"):
            await store.count("motor")
        small_disk.grow(4)
        await store.write(motors(10, 10))
        assert await store.count("motor") == 20


@pytest.mark.parametrize("place", [0.0, 0.02, 0.3, 0.6])
async def test_a_damaged_duckdb_file_is_a_store_that_is_away_or_goes_on(tmp_path: Path, place: float) -> None:
    file = tmp_path / "readings.duckdb"
    async with open_store(f"duckdb:///{file}") as store:
        for first in range(0, 40_000, 5000):
            await store.write(motors(first, 5000))
    with file.open("r+b") as out:
        out.seek(int(file.stat().st_size * place))
        out.write(os.urandom(12_000))
    async with open_store(f"duckdb:///{file}") as store:
        for first in (100_000, 100_010):
            try:
                await store.write(motors(first, 10))
                await store.latest("motor", {"enterprise": TAGS[-1]})
            except Retryable as error:
                assert place or "damaged" in str(error)
