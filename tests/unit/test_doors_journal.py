"""Readings of an edge node on disk."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest
from qilu_common.broker import BrokerAddress
from qilu_common.private_files import sole_user
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.errors import ConfigError
from qilu_devices.doors import southbound
from qilu_devices.doors.edge_config import EdgeConfig, load_edge_config
from qilu_devices.doors.journal import FILE_NAME, Journal
from qilu_devices.fleet import Enterprise, Unit
from qilu_devices.simulation import Sample, shape_of

MOTOR = CATALOGUE["motor"]
UNIT = Unit("m1", "motor", Enterprise("e1", 0, "e1", "370202", ""))
OTHER = Unit("m2", "motor", UNIT.enterprise)


def sample(second: int, positions: tuple[int, ...] = (0, 1), unit: Unit = UNIT) -> Sample:
    return Sample(unit, second * 1000, shape_of(MOTOR, positions), tuple(second + 0.5 for _ in positions))


def opened(folder: Path, most: int = 1000, units: tuple[Unit, ...] = (UNIT, OTHER)) -> Journal:
    journal = Journal(folder, units, most)
    journal.open()
    return journal


def edge_config(folder: Path) -> EdgeConfig:
    (folder / "edge.yaml").write_text(
        'enterprise: 370502-e00001\ncounty: "370502"\nopcua: opc.tcp://127.0.0.1:4840\n'
        "units: [{unit: 370502-motor-0000001, class: motor}]\n"
    )
    return load_edge_config(folder / "edge.yaml")


def test_readings_come_oldest_first_and_survive_until_they_are_published(tmp_path: Path) -> None:
    samples = [sample(second) for second in range(10)]
    journal = opened(tmp_path)
    assert journal.step(samples[:6], [], 0) == []
    first = journal.step(samples[6:], [], 4)
    assert [row.sample for row in first] == samples[:4]
    assert journal.step([], first[:3], 2)[0].sample == samples[4]
    journal.close()  # as after a kill: the fourth was not acknowledged
    again = opened(tmp_path)
    assert again.readings == 7
    assert [each.ts_ms for each in again.published()] == [2000]
    assert [each.ts_ms for each in again.latest()] == [9000]
    assert [row.sample for row in again.step([], [], 100)] == samples[3:]
    assert again.newest_ms == 9000
    again.close()


def test_births_after_a_restart_repeat_the_latest_reading_of_each_set_of_signals(tmp_path: Path) -> None:
    samples = [sample(1, (0, 1, 2)), sample(2), sample(3), sample(3, unit=OTHER)]
    journal = opened(tmp_path)
    rows = journal.step(samples, [], 100)
    journal.step([], rows, 0)
    assert journal.readings == 0
    journal.close()
    again = opened(tmp_path)
    found = {(each.unit.id, each.ts_ms, each.shape.positions) for each in again.published()}
    assert found == {("m1", 1000, (0, 1, 2)), ("m1", 3000, (0, 1)), ("m2", 3000, (0, 1))}
    again.close()


def test_at_the_bound_the_oldest_that_are_not_being_published_are_dropped(tmp_path: Path) -> None:
    journal = opened(tmp_path, most=5)
    [first] = journal.step([sample(second) for second in range(5)], [], 1)
    assert (journal.readings, journal.dropped) == (5, 0)
    rest = journal.step([sample(second) for second in range(5, 8)], [], 100)
    assert (journal.readings, journal.dropped) == (5, 3)
    assert [row.sample.ts_ms // 1000 for row in (first, *rest)] == [0, 4, 5, 6, 7]
    journal.close()


def test_readings_of_a_unit_that_is_not_configured_any_more_are_dropped(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    journal.step([sample(1), sample(1, unit=OTHER), sample(2)], [], 0)
    journal.close()
    again = opened(tmp_path, units=(UNIT,))
    assert [row.sample.ts_ms for row in again.step([], [], 100)] == [1000, 2000]
    assert (again.readings, again.dropped) == (2, 1)
    again.close()


def test_nothing_has_changed_when_the_disk_refused_a_part_of_a_step(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    journal.step([sample(1), sample(1, unit=OTHER), sample(2)], [], 0)
    journal.close()
    again = opened(tmp_path, units=(UNIT,))
    disk = sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)
    disk.execute("CREATE TRIGGER full BEFORE DELETE ON readings BEGIN SELECT RAISE(ABORT, 'full'); END")
    with pytest.raises(sqlite3.Error, match="full"):
        again.step([sample(3)], [], 100)
    disk.execute("DROP TRIGGER full")
    disk.close()
    assert [row.sample.ts_ms for row in again.step([sample(3)], [], 100)] == [1000, 2000, 3000]
    assert (again.readings, again.dropped) == (3, 1)
    again.close()


@pytest.mark.parametrize("content", [b"no database at all" * 500, bytes(5000)])
def test_a_damaged_file_is_set_aside(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    journal = opened(tmp_path)
    journal.step([sample(1)], [], 0)
    assert journal.readings == 1
    journal.close()
    [aside] = tmp_path.glob("readings.damaged-*.sqlite")
    assert aside.read_bytes() == content


def test_damage_that_is_found_later_costs_only_what_is_not_being_published(tmp_path: Path) -> None:
    journal = opened(tmp_path)
    out = journal.step([sample(second) for second in range(500)], [], 20)
    disk = sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)
    disk.execute("CREATE TABLE other (x)")  # the journal must not answer from its cache
    disk.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    [page_size] = disk.execute("PRAGMA page_size").fetchone()
    disk.close()
    with (tmp_path / FILE_NAME).open("r+b") as file:
        size = file.seek(0, 2)
        file.seek(page_size)
        file.write(bytes(size - page_size))
    rows = journal.step([sample(600)], out[:5], 100)
    assert [row.sample.ts_ms for row in rows] == [600_000]
    assert (journal.readings, journal.dropped) == (16, 480)
    assert len(list(tmp_path.glob("readings.damaged-*.sqlite"))) == 1
    journal.step([], out[5:10], 0)
    journal.close()
    again = opened(tmp_path)
    assert [row.sample for row in again.step([], [], 100)] == [*(row.sample for row in out[10:]), sample(600)]
    again.close()


async def test_two_edge_nodes_with_one_state_directory_are_refused(tmp_path: Path) -> None:
    config = edge_config(tmp_path)
    with (
        sole_user(tmp_path / "edge.lock", "the first one's"),
        pytest.raises(ConfigError, match=r"An edge node runs in .* already: stop it"),
    ):
        await southbound.run_edge(config, "mqtt://127.0.0.1", tmp_path, asyncio.Event())
    assert not (tmp_path / FILE_NAME).exists()


async def test_readings_that_a_birth_cannot_carry_leave_the_disk_and_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(southbound, "DRAIN_S", 0.2)
    config = edge_config(tmp_path)
    positions = tuple(range(len(MOTOR.signals)))
    journal = opened(tmp_path, units=tuple(config.units))
    # Read before the class had its last signal. The birth has each signal once: the first reading is dropped.
    journal.step([sample(second, positions[:-1], config.units[0]) for second in (1, 2)], [], 0)
    journal.close()
    edge = southbound._Edge(config, BrokerAddress.from_url("mqtt://127.0.0.1"), tmp_path, 1)
    await edge._forwarding.open(edge._collector.restore)
    edge._forwarding.take(sample(3, positions[-1:], config.units[0]))
    await edge._forwarding.step()
    assert (edge._forwarding.dropped, edge._forwarding.waiting) == (1, 2)
    backlog = edge.node.backlog
    backlog.online = True
    backlog.acknowledged(list(backlog.devices.values()))
    await edge._drain()
    assert (edge.node.pending, edge._forwarding.waiting, edge._forwarding.acked) == (0, 0, 2)
    assert backlog.made == backlog.acked + backlog.dropped == 3
    await edge._forwarding.close()
    edge._sessions.close()
