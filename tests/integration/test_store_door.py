"""A store behind its door answers as the store itself does."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from qilu.store_door import StoreBehindDoor, StoreDoor
from qilu_contract.errors import Rejected, Retryable, StoreError
from qilu_contract.storage import Point
from qilu_contract.store import SeriesQuery
from qilu_stores import open_store

TAGS = ("370200", "370202", "C34", "370202-e00001")
POINTS = [
    Point("motor", (*TAGS, f"m{unit}"), 1_700_000_000_000 + at, {"power_in": 1.5 + at, "slip": 0.5})
    for unit in range(3)
    for at in range(4)
]
SPAN = (1_700_000_000_000, 1_700_000_001_000)


async def test_what_is_asked_through_the_door_is_what_the_store_says(tmp_path: Path) -> None:
    async with (
        open_store(f"duckdb:///{tmp_path}/store.duckdb") as store,
        StoreDoor(store) as door,
        StoreBehindDoor(door.url, door.key) as behind,
    ):
        await behind.write(POINTS)
        assert await store.count("motor") == len(POINTS)
        for each in (store, behind):
            row = await each.latest("motor", {"unit": "m1"})
            assert row is not None
            assert (row.ts_ms, row.values) == (POINTS[7].ts_ms, POINTS[7].fields)
            assert await each.latest("motor", {"unit": "other"}) is None
        asked = ("motor", {"unit": "m0"}, ["power_in"], *SPAN)
        assert await behind.series(SeriesQuery(*asked)) == await store.series(SeriesQuery(*asked)) != []
        assert (
            await behind.series(SeriesQuery(*asked, 1000, "max"))
            == await store.series(SeriesQuery(*asked, 1000, "max"))
            != []
        )
        assert await behind.count_by("motor", "unit", *SPAN) == {"m0": 4, "m1": 4, "m2": 4}
        for each in (store, behind):
            found = [point async for chunk in each.scan("motor", *SPAN) for point in chunk.all()]
            assert sorted(found, key=lambda point: (point.tags[-1], point.ts_ms)) == POINTS
            assert [chunk async for chunk in each.scan("motor", 0, 1000)] == []
        with pytest.raises(ValueError, match="no_such"):
            [chunk async for chunk in behind.scan("no_such", *SPAN)]
        with pytest.raises(ValueError, match="no_such"):
            await behind.series(SeriesQuery("motor", {"unit": "m0"}, ["no_such"], *SPAN))


async def test_the_door_opens_to_its_key_only(tmp_path: Path) -> None:
    async with open_store(f"duckdb:///{tmp_path}/store.duckdb") as store, StoreDoor(store) as door:
        async with StoreBehindDoor(door.url, "another") as behind:
            with pytest.raises(Retryable, match="401"):
                await behind.count_by("motor", "unit", *SPAN)
        async with httpx.AsyncClient(trust_env=False) as http:
            key = {"Authorization": f"Bearer {door.key}"}
            assert (await http.post(f"{door.url}/ping", content=b"", headers=key)).status_code == 404
            assert (await http.post(f"{door.url}/latest", content=b"x", headers=key)).status_code == 400


async def test_what_goes_wrong_is_told_by_what_to_do_about_it(tmp_path: Path) -> None:
    class Failing:
        error: StoreError = Retryable("the disk is full")

        async def write(self, points: object) -> None:
            raise self.error

    failing = Failing()
    async with (
        StoreDoor(failing) as door,  # type: ignore[arg-type]
        StoreBehindDoor(door.url, door.key) as behind,
    ):
        with pytest.raises(Retryable, match="the disk is full"):
            await behind.write(POINTS)
        failing.error = Rejected("a field of another type")
        with pytest.raises(Rejected, match="a field of another type"):
            await behind.write(POINTS)
    async with StoreBehindDoor(door.url, door.key) as behind:
        with pytest.raises(Retryable, match="does not answer"):
            await behind.write(POINTS)
