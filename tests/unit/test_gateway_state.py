"""State that survives a restart of the gateway: dead letters, the outbox, their file; and the counters."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from qilu_common.backoff import Backoff
from qilu_contract.errors import ConfigError, Reason
from qilu_contract.storage import Point
from qilu_gateway.metrics import Meter
from qilu_gateway.service import STATE_SCHEMAS
from qilu_gateway.settings import Settings
from qilu_gateway.settle import dead_letters, outbox
from qilu_gateway.settle.dead_letters import Bounds, DeadLetter
from qilu_gateway.statefile import FILE_NAME, StateFile
from qilu_gateway.write.spool import Spool


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    opened = sqlite3.connect(":memory:")
    opened.executescript(dead_letters.SCHEMA)
    opened.executescript(outbox.SCHEMA)
    yield opened
    opened.close()


def letter(
    payload: bytes, reason: Reason = Reason.BAD_PAYLOAD, readings: int = 1, redelivered: bool = False
) -> DeadLetter:
    return DeadLetter(reason, "why", "qilu/v1/x", payload, readings, "m1", redelivered)


def test_equal_letters_share_a_row_that_counts_them(connection: sqlite3.Connection) -> None:
    bounds = Bounds()
    bounds.add(connection, [letter(b"a", readings=2), letter(b"b"), letter(b"a", Reason.UNKNOWN_UNIT)], 1000)
    bounds.add(connection, [letter(b"a", readings=3)], 2000)
    assert dead_letters.count_readings(connection) == {Reason.BAD_PAYLOAD: 6, Reason.UNKNOWN_UNIT: 1}
    [_, first] = dead_letters.list_rows(connection, reason=Reason.BAD_PAYLOAD)
    assert (first.payload, first.readings, first.first_seen_ms, first.last_seen_ms) == (b"a", 5, 1000, 2000)


def test_a_redelivered_letter_is_not_counted_again(connection: sqlite3.Connection) -> None:
    bounds = Bounds()
    bounds.add(connection, [letter(b"a", redelivered=True)], 1000)  # lost by the process before
    bounds.add(connection, [letter(b"a", redelivered=True)], 2000)
    assert dead_letters.count_readings(connection) == {Reason.BAD_PAYLOAD: 1}


def test_at_the_bound_the_oldest_are_evicted_and_counted(connection: sqlite3.Connection) -> None:
    bounds = Bounds(max_rows=3)
    bounds.add(connection, [letter(bytes([number]), readings=number) for number in range(1, 4)], 1000)
    assert bounds.add(connection, [letter(b"x"), letter(b"y")], 2000) == 1 + 2
    assert [row.payload for row in dead_letters.list_rows(connection)] == [b"y", b"x", b"\x03"]
    assert dead_letters.evicted_readings(connection) == 3
    by_size = Bounds(max_bytes=10)
    by_size.add(connection, [letter(b"0123456789")], 3000)
    assert [row.payload for row in dead_letters.list_rows(connection)] == [b"0123456789"]


def test_rows_are_listed_in_pages(connection: sqlite3.Connection) -> None:
    Bounds().add(connection, [letter(bytes([number])) for number in range(5)], 1000)
    first = dead_letters.list_rows(connection, limit=2)
    second = dead_letters.list_rows(connection, before_id=first[-1].id, limit=10)
    assert [row.payload[0] for row in first + second] == [4, 3, 2, 1, 0]


def test_the_outbox_keeps_the_earliest_time(connection: sqlite3.Connection) -> None:
    outbox.add(connection, ["a", "b", "a", "a"], [20, 5, 10, 30])
    assert connection.execute("SELECT count, units, ts_ms FROM first_readings").fetchall() == [
        (2, '["a","b"]', "[10,5]")
    ]


def test_the_outbox_counts_the_units_that_wait(connection: sqlite3.Connection) -> None:
    outbox.add(connection, ["a", "b"], [20, 5])
    outbox.add(connection, [], [])
    outbox.add(connection, ["c"], [30])
    assert outbox.size(connection) == 3
    many = [f"unit-{number}" for number in range(2 * outbox.ROW_UNITS + 1)]
    outbox.add(connection, many, list(range(len(many))))
    assert outbox.size(connection) == 3 + len(many)
    assert connection.execute("SELECT max(count), sum(count) FROM first_readings").fetchone() == (
        outbox.ROW_UNITS,
        3 + len(many),
    )


async def test_a_failed_transaction_leaves_nothing(tmp_path: Path) -> None:
    async with StateFile(tmp_path, [outbox.SCHEMA]) as state:

        def work(connection: sqlite3.Connection) -> None:
            outbox.add(connection, ["a"], [1])
            raise sqlite3.OperationalError("disk full")

        with pytest.raises(sqlite3.OperationalError):
            await state.write(work)
        assert await state.write(outbox.size) == 0
        assert state.read("SELECT * FROM first_readings WHERE units = ?", ('["a"]',)) is None
        mode = state.read("PRAGMA journal_mode", ())
        assert mode == ("wal",)


def births_of(count: int) -> list[tuple[str, int, int, int, int]]:
    return [(key_of(number), 1, 1, 0, number) for number in range(count)]


def key_of(number: int) -> str:
    """As long as a page holds a dozen or two."""
    return f"370202/node/unit-{number:06}" + "-" * 200


async def fill_state(folder: Path, count: int) -> None:
    async with StateFile(folder, STATE_SCHEMAS) as state:

        def work(connection: sqlite3.Connection) -> None:
            connection.executemany("INSERT INTO born VALUES (?, ?, ?, ?, ?)", births_of(count))
            for number in range(count):
                outbox.add(connection, [f"unit-{number:06}"], [number])
            letters = [letter(number.to_bytes(200)) for number in range(count)]
            Bounds().add(connection, letters, 1000)

        await state.write(work)


def scribble(file: Path, place: float) -> None:
    """On two pages of 4 kB."""
    with file.open("r+b") as out:
        out.seek(int(file.stat().st_size * place) // 4096 * 4096)
        out.write(os.urandom(8192))


def count_all(connection: sqlite3.Connection) -> dict[str, int]:
    """Every row is read, and the totals are right."""
    counts = {
        table: len(connection.execute(f"SELECT * FROM {table}").fetchall())
        for table in ("born", "first_readings", "dead_letters")
    }
    totals = connection.execute("SELECT letters, bytes FROM dead_letters_total").fetchone()
    assert totals == (counts["dead_letters"], 200 * counts["dead_letters"])
    return counts


@pytest.mark.parametrize("place", [0.0, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9])
async def test_a_damaged_state_file_is_set_aside_with_what_could_be_saved(
    tmp_path: Path, place: float
) -> None:
    await fill_state(tmp_path, 3000)
    scribble(tmp_path / FILE_NAME, place)
    async with StateFile(tmp_path, STATE_SCHEMAS) as state:
        state.read("SELECT * FROM born WHERE key = ?", (key_of(7),))
        counts = await state.write(count_all)
        await state.write(lambda connection: outbox.add(connection, ["new"], [1]))
        assert not state.failing
    [aside] = list_damaged(tmp_path)
    assert aside.stat().st_size > 1_000_000
    if place:  # without its first page nobody knows which table a page belongs to
        assert all(2000 <= rows <= 3000 for rows in counts.values()), counts
        assert sum(counts.values()) > 8800, counts


def list_damaged(folder: Path) -> list[Path]:
    return list(folder.glob("gateway.damaged-*.sqlite"))


async def test_a_state_file_is_read_around_damage_that_comes_while_it_is_in_use(tmp_path: Path) -> None:
    await fill_state(tmp_path, 3000)
    query = "SELECT redefined_ms FROM born WHERE key = ?"
    async with StateFile(tmp_path, STATE_SCHEMAS) as state:
        scribble(tmp_path / FILE_NAME, 0.2)
        found = [state.read(query, (key_of(number),)) for number in range(3000)]
        kept = [row for row in found if row is not None]
        assert 2500 < len(kept) <= 3000
        assert all(row is None or row == (number,) for number, row in enumerate(found))


@pytest.mark.parametrize("content", [b"", b"not a database, surely" * 100])
async def test_a_file_that_is_no_database_is_set_aside(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    async with StateFile(tmp_path, [outbox.SCHEMA]) as state:
        await state.write(lambda connection: outbox.add(connection, ["a"], [1]))
        assert await state.write(outbox.size) == 1
    assert len(list_damaged(tmp_path)) == (content != b"")
    with pytest.raises(ConfigError, match="has run"), dead_letters.open_for_reading(tmp_path / "no"):
        pass


@pytest.mark.parametrize("by", ["removed", "replaced"])
async def test_a_state_file_that_is_removed_in_use_is_written_again(tmp_path: Path, by: str) -> None:
    async with StateFile(tmp_path, STATE_SCHEMAS) as state:
        await state.write(lambda connection: outbox.add(connection, ["a"], [1]))
        assert state.read("SELECT ts_ms FROM first_readings WHERE units = ?", ('["a"]',)) == ("[1]",)
        take_away(tmp_path, by)
        await state.look_after()
        assert state.read("SELECT ts_ms FROM first_readings WHERE units = ?", ('["a"]',)) == ("[1]",)
        await state.write(lambda connection: outbox.add(connection, ["b"], [2]))
        with pytest.raises(ConfigError, match="another gateway"):
            async with StateFile(tmp_path, STATE_SCHEMAS):
                pass
    async with StateFile(tmp_path, STATE_SCHEMAS) as state:
        assert await state.write(outbox.size) == 2


async def test_files_are_their_owners_only(tmp_path: Path) -> None:
    async with StateFile(tmp_path, STATE_SCHEMAS) as state, Spool(tmp_path, 10**9, 0, print) as spool:
        await state.write(lambda connection: outbox.add(connection, ["a"], [1]))
        assert await spool.append([Point("motor", ("", "", "", "", "m"), 1, {"power_in": 1.0})], [], [])
        modes = {file.name: file.stat().st_mode & 0o777 for file in list_files(tmp_path)}
        assert set(modes) >= {"gateway.sqlite", "gateway.sqlite-wal", "spool.sqlite-wal", "spooled"}
        assert set(modes.values()) == {0o600}


def list_files(folder: Path) -> list[Path]:
    return list(folder.iterdir())


def take_away(folder: Path, by: str) -> None:
    for file in folder.glob("gateway.*"):
        file.unlink()
    if by == "replaced":
        (folder / FILE_NAME).write_bytes(b"somebody else's" * 1000)


async def test_a_full_disk_is_waited_for(small_disk: Any) -> None:
    async with StateFile(small_disk.folder, STATE_SCHEMAS) as state:
        await state.write(lambda connection: outbox.add(connection, ["a"], [1]))
        small_disk.fill()
        big = [letter(os.urandom(100_000))]
        with pytest.raises(sqlite3.OperationalError):
            await state.write(lambda connection: Bounds().add(connection, big, 1))
        assert "full" in state.failing
        assert await state.write(outbox.size) == 1, "what is there can be read"
        assert state.failing, "reading is no sign of room"
        waiting = asyncio.create_task(state.hold(lambda connection: Bounds().add(connection, big, 1)))
        small_disk.clear()
        await waiting
        assert not state.failing
        assert await state.write(dead_letters.count_readings) == {Reason.BAD_PAYLOAD: 1}
        small_disk.fill()
        with pytest.raises(sqlite3.OperationalError):
            await state.write(lambda connection: Bounds().add(connection, [letter(os.urandom(10**6))], 1))
        small_disk.clear()
        await state.look_after()
        assert not state.failing, "noticed without anything to write"


def test_metrics_show_one_moment() -> None:
    meter = Meter()
    meter.counters.accepted, meter.counters.stored, meter.counters.in_flight = 7, 4, 2
    meter.counters.dead_lettered = 1
    meter.by_reason[Reason.NO_BIRTH] = 1
    meter.observe_lags([100, 300, 200])
    meter.measure()
    assert meter.rates.lag_ms == 200.0
    families = text_string_to_metric_families(meter.exposition().decode())
    samples = {
        (sample.name, sample.labels.get("reason")): sample.value
        for family in families
        for sample in family.samples
    }
    dead = sum(value for (name, _), value in samples.items() if name == "qilu_gateway_dead_lettered_total")
    assert samples["qilu_gateway_accepted_total", None] == (
        samples["qilu_gateway_stored_total", None] + dead + samples["qilu_gateway_in_flight", None]
    )
    assert samples["qilu_gateway_lag_seconds_count", None] == 3


def test_delays_grow_up_to_a_bound_and_start_again() -> None:
    backoff = Backoff(first_s=1.0, most_s=4.0)
    delays = [backoff.delay_s() for _ in range(5)]
    for delay, base in zip(delays, (1, 2, 4, 4, 4), strict=True):
        assert base / 2 <= delay <= base
    assert backoff.delay_s(at_least_s=9.0) == 9.0
    backoff.reset()
    assert backoff.delay_s() <= 1.0


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QILU_HOST_ID", "east")
    monkeypatch.setenv("QILU_BATCH_SIZE", "100")
    assert (Settings.load().host_id, Settings.load(batch_size=7).batch_size) == ("east", 7)
    assert Settings.load(state="here").state == Path("here")
    with pytest.raises(ConfigError, match=r"host id 'Not An Id'"):
        Settings.load(host_id="Not An Id")
    monkeypatch.setenv("QILU_BATCH_SIZE", "20000")
    with pytest.raises(
        ConfigError, match=r"batch_size \(QILU_BATCH_SIZE\) is '20000': Expected `int` <= 15000\."
    ):
        Settings.load()
    monkeypatch.setenv("QILU_BATCH_SIZE", "many")
    with pytest.raises(ConfigError, match=r"QILU_BATCH_SIZE"):
        Settings.load()
