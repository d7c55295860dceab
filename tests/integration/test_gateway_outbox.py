"""First readings on their way to the platform: many in a call, those of an earlier version, and those that a
damaged file left."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

from gateway_world import FakePlatform, eventually
from qilu_gateway.admit.platform_api import MAX_COLUMN_IDS, PlatformApi
from qilu_gateway.settle import outbox
from qilu_gateway.settle.outbox import Outbox
from qilu_gateway.statefile import FILE_NAME, StateFile


async def ship(state: StateFile, platform: FakePlatform) -> list[int]:
    """Until nothing waits; how many each call confirmed."""
    confirmed: list[int] = []
    async with PlatformApi(platform.url, "ingest-key") as api:
        shipping = asyncio.create_task(Outbox(state, api, confirmed.append).run())
        while await state.write(outbox.size):  # another thread empties it
            await asyncio.sleep(0.01)
        shipping.cancel()
    return confirmed


async def test_rows_are_shipped_together_and_in_order(tmp_path: Path, platform: FakePlatform) -> None:
    units = [f"unit-{number:06}" for number in range(MAX_COLUMN_IDS + 10)]
    for unit in units:
        platform.register(unit)
    async with StateFile(tmp_path, [outbox.SCHEMA]) as state:
        await state.write(lambda connection: outbox.add(connection, units[:3], [10, 11, 12]))
        await state.write(lambda connection: outbox.add(connection, units[3:], list(range(3, len(units)))))
        confirmed = await ship(state, platform)
    assert sum(confirmed) == len(units)
    assert len(confirmed) == 2
    assert platform.first == dict(zip(units, [10, 11, 12, *range(3, len(units))], strict=True))


async def test_what_an_earlier_version_left_is_shipped(tmp_path: Path, platform: FakePlatform) -> None:
    old = {f"unit-{number:06}": 1000 + number for number in range(outbox.ROW_UNITS + 1)}
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as connection, connection:
        connection.execute(
            "CREATE TABLE outbox (unit TEXT PRIMARY KEY, ts_ms INTEGER NOT NULL) WITHOUT ROWID"
        )
        connection.executemany("INSERT INTO outbox VALUES (?, ?)", old.items())
    for unit in old:
        platform.register(unit)
    async with StateFile(tmp_path, [outbox.SCHEMA]) as state:
        assert await state.write(outbox.size) == len(old)
        await ship(state, platform)
    assert platform.first == old
    async with StateFile(tmp_path, [outbox.SCHEMA]) as state:
        assert await state.write(outbox.size) == 0


async def test_a_row_that_cannot_be_read_holds_up_nothing(tmp_path: Path, platform: FakePlatform) -> None:
    platform.register("good")
    async with StateFile(tmp_path, [outbox.SCHEMA]) as state:

        def damage(connection: sqlite3.Connection) -> None:
            outbox.add(connection, ["bad"], [1])
            outbox.add(connection, ["short", "er"], [1, 2])
            connection.execute("UPDATE first_readings SET units = '[\"b' WHERE units = '[\"bad\"]'")
            connection.execute("UPDATE first_readings SET ts_ms = '[1]' WHERE ts_ms = '[1,2]'")
            outbox.add(connection, ["good"], [2])

        await state.write(damage)
        await ship(state, platform)
    assert platform.first == {"good": 2}


async def test_activity_is_reported_by_column(tmp_path: Path, platform: FakePlatform) -> None:
    async with (
        StateFile(tmp_path, [outbox.SCHEMA]) as state,
        PlatformApi(platform.url, "ingest-key") as api,
    ):
        box = Outbox(state, api, lambda _: None)
        for unit in ("a", "b"):
            platform.register(unit)
            box.active([unit], [5])
        shipping = asyncio.create_task(box.run_activity())
        await eventually(lambda: platform.active == {"a": 5, "b": 5}, "reported")
        shipping.cancel()
