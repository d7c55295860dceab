"""The spool's file: what is in it survives, and what cannot be read any more is counted and set aside."""

from __future__ import annotations

import os
import shutil
import sqlite3
import zlib
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from qilu_contract.columns import Series, of_points
from qilu_contract.storage import BORN, Point
from qilu_gateway.write.spool import Spool
from qilu_gateway.write.spool_bodies import checksum_of
from qilu_gateway.write.spool_file import NAME

FILE_NAME = f"{NAME}.sqlite"
GIB = 1024**3
TAGS = ("370200", "370202", "C34", "370202-e00001")


class Told:
    """Counts the readings that were reported as unreadable."""

    def __init__(self) -> None:
        self.readings = 0

    def __call__(self, readings: int) -> None:
        self.readings += readings


def spool(folder: Path, told: Told | None = None, max_bytes: int = GIB, min_free_bytes: int = 0) -> Spool:
    return Spool(folder, max_bytes, min_free_bytes, told or Told())


def points(first: int, count: int, noise: int = 0) -> list[Point]:
    """Points whose time tells them apart; so many bytes of `noise` make them hard to compress."""
    return [
        Point(
            "motor", (*TAGS, f"m{os.urandom(noise).hex()}"), number, {"power_in": number + 0.5, "n": number}
        )
        for number in range(first, first + count)
    ]


def set_aside(folder: Path, suffix: str) -> int:
    return len(list(folder.glob(f"spool.damaged-*{suffix}")))


def copy_but(folder: Path, new: Path, parts: list[str]) -> None:
    """The spool's files but for some parts of SQLite's."""
    new.mkdir()
    for file in folder.glob("spool*"):
        if file.name.removeprefix(FILE_NAME) not in parts:
            shutil.copy(file, new)


def remove_all(folder: Path) -> None:
    for file in folder.glob("spool*"):
        file.unlink()


def halve(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


async def drain(opened: Spool, most_readings: int = 100) -> list[Point]:
    found = []
    while (batch := await opened.oldest(most_readings)) is not None:
        assert len(batch.ids) == 1 or len(batch.points) <= most_readings
        found += batch.points
        await opened.remove(batch.ids)
    assert (opened.readings, opened.bytes, opened.age_s()) == (0, 0, 0.0)
    assert not opened.filled.is_set()
    return found


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sizes=st.lists(st.integers(1, 60), max_size=12), reopen=st.integers(0, 12))
async def test_what_goes_in_comes_out_once_and_in_order(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], reopen: int
) -> None:
    folder = tmp_path_factory.mktemp("spool")
    expected: list[Point] = []
    opened = await spool(folder).__aenter__()
    for turn, size in enumerate(sizes):
        if turn == reopen:
            await opened.__aexit__(None, None, None)
            opened = await spool(folder).__aenter__()
        batch = points(len(expected), size)
        assert await opened.append(batch, [], [("u", turn)])
        expected += batch
        assert opened.readings == len(expected)
    assert await drain(opened) == expected
    await opened.__aexit__(None, None, None)


async def test_first_readings_come_back_with_their_batch_and_types_stay(tmp_path: Path) -> None:
    async with spool(tmp_path) as opened:
        await opened.append(
            [Point("motor", (*TAGS, "m"), 5, {"a": 12.0, "b": 12, "c": True})], [], [("m", 5)]
        )
    async with spool(tmp_path) as opened:
        found = await opened.oldest(10)
        assert found is not None
        assert found.firsts == [("m", 5)]
        assert {name: type(value) for name, value in found.points[0].fields.items()} == {
            "a": float, "b": int, "c": bool,
        }  # fmt: skip


async def test_columns_come_back_as_columns(tmp_path: Path) -> None:
    written = [
        Point("motor", (*TAGS, f"m{number % 7}"), number, {"power_in": number / 3, BORN: number * 10**9})
        for number in range(1000)
    ]
    written.append(Point("wind_turbine", (*TAGS, "turbine"), 5, {"energy_kWh": 1e15 / 3}))
    columns = of_points(written, Series(), {})
    columns[0].values[::3, 0] = np.nan
    expected = [point for each in columns for point in each.points()]
    async with spool(tmp_path) as opened:
        assert await opened.append(points(0, 5), columns, [])
        assert opened.readings == 5 + 1001
    async with spool(tmp_path) as opened:
        found = await opened.oldest(10)
        assert found is not None
        assert (found.readings, found.points) == (1006, points(0, 5))
        assert [each.measurement for each in found.columns] == ["motor", "wind_turbine"]
        assert [point for each in found.columns for point in each.points()] == expected
        assert list(found.heard())[-2:] == [("m5", 999), ("turbine", 5)]


async def test_a_spool_of_the_version_before_columns_is_gone_on_with(tmp_path: Path) -> None:
    written = points(0, 10)
    body = zlib.compress(msgspec.msgpack.encode([written, [("m", 5)]]), 1)
    async with spool(tmp_path) as opened:
        assert await opened.append(written, [], [])
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as connection, connection:
        connection.execute("UPDATE batches SET body = ?, checksum = ?", (body, checksum_of(10, body)))
    async with spool(tmp_path) as opened:
        found = await opened.oldest(10)
        assert found is not None
        assert (found.points, found.columns, found.firsts) == (written, [], [("m", 5)])


async def test_at_its_bound_it_takes_no_more_and_says_so_before(tmp_path: Path) -> None:
    async with spool(tmp_path, max_bytes=20_000) as opened:
        taken = 0
        warned_at = 0
        while await opened.append(points(taken, 50, 10), [], []):
            taken += 50
            if opened.nearly_full and not warned_at:
                warned_at = opened.bytes
        assert 15_000 <= warned_at < opened.bytes <= 20_000
        assert opened.full
        assert len(await drain(opened)) == taken
        assert await opened.append(points(0, 10), [], [])
        assert not opened.full
        assert not opened.nearly_full
    async with spool(tmp_path, max_bytes=0) as off:
        assert not off.enabled
        assert not await off.append(points(0, 1), [], [])
        assert len(await drain(off)) == 10
    async with spool(tmp_path, min_free_bytes=2**60) as none_free:
        assert none_free.nearly_full
        assert not await none_free.append(points(0, 1), [], [])


async def fill(folder: Path, batches: int, size: int) -> None:
    async with spool(folder) as opened:
        for number in range(batches):
            assert await opened.append(points(number * size, size, 300), [], [])


async def test_a_batch_whose_content_changed_is_counted_and_set_aside_and_the_others_go_on(
    tmp_path: Path,
) -> None:
    await fill(tmp_path, 5, 10)
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as connection, connection:
        connection.execute("UPDATE batches SET body = zeroblob(length(body)) WHERE id = 2")
        connection.execute("UPDATE batches SET readings = 11 WHERE id = 4")
    told = Told()
    async with spool(tmp_path, told) as opened:
        found = await drain(opened)
    assert [point.ts_ms // 10 for point in found][::10] == [0, 2, 4]
    assert told.readings == 10 + 11
    assert set_aside(tmp_path, ".bin") == 2


@pytest.mark.parametrize("at", ["while open", "between"])
@pytest.mark.parametrize("place", [0.1, 0.3, 0.5, 0.7, 0.9])
async def test_a_file_with_scribbled_pages_keeps_what_is_readable_and_counts_the_rest(
    tmp_path: Path, at: str, place: float
) -> None:
    await fill(tmp_path, 20, 30)  # each batch spans many pages
    file = tmp_path / FILE_NAME
    told = Told()
    opened = spool(tmp_path, told)
    if at == "while open":
        await opened.__aenter__()
    size = file.stat().st_size
    with file.open("r+b") as out:
        out.seek(int(size * place))
        out.write(os.urandom(40_000))
    if at == "between":
        await opened.__aenter__()
    found = await drain(opened)
    corrupt = told.readings + opened.corrupt
    assert 0 < corrupt < 600
    assert len(found) + corrupt == 600
    assert len({point.ts_ms for point in found}) == len(found)
    assert await opened.append(points(0, 5), [], [])
    await opened.__aexit__(None, None, None)


async def test_a_torn_file_keeps_its_beginning(tmp_path: Path) -> None:
    await fill(tmp_path, 20, 30)
    file = tmp_path / FILE_NAME
    os.truncate(file, file.stat().st_size * 2 // 3)
    told = Told()
    async with spool(tmp_path, told) as opened:
        found = await drain(opened)
        assert 300 <= len(found) < 600
        assert found == sorted(found, key=lambda point: point.ts_ms)
        assert len(found) + told.readings + opened.corrupt <= 600
    assert set_aside(tmp_path, ".sqlite") == 1


@pytest.mark.parametrize("content", [b"", b"no database at all" * 500, bytes(5000)])
async def test_a_file_that_is_no_database_is_set_aside(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    async with spool(tmp_path) as opened:
        assert await opened.append(points(0, 5), [], [])
        assert len(await drain(opened)) == 5
    assert set_aside(tmp_path, ".sqlite") == (content != b"")


async def test_a_folder_that_is_away_is_to_be_tried_again(tmp_path: Path) -> None:
    with pytest.raises(sqlite3.OperationalError, match="unable to open"):
        async with spool(tmp_path / "missing"):
            pass


@pytest.mark.parametrize("parts", [["", "-wal", "-shm"], ["-wal"]])
async def test_a_spool_that_was_lost_is_noticed_and_counted(tmp_path: Path, parts: list[str]) -> None:
    killed = spool(tmp_path)
    await killed.__aenter__()
    for number in range(4):
        assert await killed.append(points(number * 100, 100), [], [])
    found = await killed.oldest(100)
    assert found is not None
    await killed.remove(found.ids)
    kept = tmp_path / "kept"
    copy_but(tmp_path, kept, parts)  # as a process that was killed leaves it: not closed
    await killed.__aexit__(None, None, None)
    async with spool(kept) as opened:
        assert (opened.readings, opened.corrupt) == (0, 300)
    async with spool(kept) as opened:
        assert opened.corrupt == 0, "counted once"


async def test_a_truncated_spool_counts_all_that_it_lacks(tmp_path: Path) -> None:
    await fill(tmp_path, 20, 30)
    halve(tmp_path / FILE_NAME)
    async with spool(tmp_path) as opened:
        assert opened.readings + opened.corrupt == 600
        assert opened.corrupt > 200


async def test_a_spool_that_is_removed_in_use_is_written_again(tmp_path: Path) -> None:
    async with spool(tmp_path) as opened:
        assert await opened.append(points(0, 100), [], [("u", 1)])
        remove_all(tmp_path)
        assert await opened.append(points(100, 100), [], [])
        assert opened.readings == 200
    async with spool(tmp_path) as opened:
        assert (opened.readings, opened.corrupt) == (200, 0)
        assert await drain(opened) == points(0, 200)


async def test_a_full_disk_is_a_full_spool_and_loses_nothing(small_disk: Any) -> None:
    async with spool(small_disk.folder) as opened:
        taken = 0
        while await opened.append(points(taken, 50, 300), [], []):
            taken += 50
        assert taken > 0
    async with spool(small_disk.folder) as again:
        assert again.readings == taken
        assert len(await drain(again)) == taken
        assert await again.append(points(0, 50), [], [])
