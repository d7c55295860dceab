"""Replay of the programme: the same result however it is divided, and a check before it starts."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from pydantic import SecretStr
from qilu.commands.programme import app as programme_app
from qilu.flags import share
from qilu.live import LiveConfig, bytes_needed, check_room, open_record
from qilu.month_fleet import Block, month_start_ms
from qilu.player import Player
from qilu.player_platform import Platform, Target
from qilu.replay import Replay
from qilu.replay_counts import counted, differences
from qilu.run_record import MonthRecord, RunRecord, is_live_run
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.catalogue.places import BRANCHES, COUNTIES
from qilu_contract.errors import ConfigError
from qilu_contract.readings import Reading
from qilu_contract.wire import topics
from qilu_contract.wire.ids import is_id
from qilu_devices.fleet import Enterprise
from qilu_devices.fleet import Unit as SimulatedUnit
from qilu_devices.simulation import Simulation, first_values
from qilu_gateway.read.checking import SIGNALS, check
from qilu_platform.service import PlatformService
from qilu_platform.settings import Settings
from qilu_programme.months import MONTHS
from qilu_programme.scenario import load_scenario
from typer.testing import CliRunner

DEFAULT = load_scenario()


@cache
def small() -> Replay:
    return Replay(DEFAULT, 0.002)


def test_a_replay_brings_each_thing_once_and_names_nothing_unknown() -> None:
    units: set[str] = set()
    enterprises: dict[str, str] = {}
    contracts: set[str] = set()
    others: set[str] = set()
    for month in small().months():
        for line in month.enterprises:
            assert line["id"] not in enterprises
            enterprises[line["id"]] = line["industry"]
            assert line["county"] in COUNTIES
            assert line["industry"] in BRANCHES
        for line in month.contracts:
            assert line["id"] not in contracts
            assert line["enterprise"] in enterprises
            contracts.add(line["id"])
        assert contracts.issuperset(month.ended)
        for line in (*month.providers, *month.centres, *month.recognitions, *month.disbursements):
            assert line["id"] not in others
            assert is_id(line["id"])
            others.add(line["id"])
        for block in month.fleet.blocks():
            times = [unit.ts_ms for unit in block.units]
            assert times == sorted(times)
            assert month.start_ms <= block.start_ms <= times[0] <= times[-1] < block.end_ms <= month.end_ms
            for unit in block.units:
                assert unit.id not in units
                assert unit.industry == enterprises[unit.enterprise]
                assert unit.enterprise[:6] == unit.county
                units.add(unit.id)
        assert month.expected["units_on_cloud"] == len(units)
        assert month.expected["enterprises_on_cloud"] == len(enterprises)
    assert (len(units), len(enterprises)) == (small().units, small().enterprises)
    assert all(map(is_id, units | enterprises.keys() | contracts))
    assert sum(sum(counties.values()) for counties in small().cells().values()) == len(units)


def test_months_may_begin_anywhere_and_blocks_be_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    late = next(small().months(40))
    [whole] = [month for month in small().months() if month.month == 40]
    assert (late.enterprises, late.contracts, late.expected) == (
        whole.enterprises,
        whole.contracts,
        whole.expected,
    )
    units = [unit for block in whole.fleet.blocks() for unit in block.units]
    monkeypatch.setattr("qilu.month_fleet.BLOCK_UNITS", 7)
    blocks = list(late.fleet.blocks())
    assert len(blocks) > 1
    assert [unit for block in blocks for unit in block.units] == units
    assert [block.end_ms for block in blocks[:-1]] == [block.start_ms for block in blocks[1:]]


def test_first_values_are_the_simulations_sample_0() -> None:
    owner = Enterprise("370202-e00007", 0, "E", "370202", "C31")
    ts_ms = month_start_ms(3)
    for class_name, class_ in CATALOGUE.items():
        ids = [f"370202-{class_name.replace('_', '-')}-{n:07d}" for n in (1, 2, 3)]
        simulated = Simulation([SimulatedUnit(id_, class_name, owner) for id_ in ids], 5, ts_ms)
        moments = simulated.moments(ts_ms)
        wanted = {sample.unit.id: sample.values for moment in moments for sample in moment.samples}
        rows = [
            tuple(row) for row in first_values(class_name, ids, [owner.id] * 3, 5, np.full(3, ts_ms)).tolist()
        ]
        assert dict(zip(ids, rows, strict=True)) == wanted
        for row in rows:
            values = dict(zip((signal.name for signal in class_.signals), row, strict=True))
            reading = Reading(ids[0], ts_ms, values)  # type: ignore[arg-type]
            assert check(reading, SIGNALS[class_name], ts_ms) == values


def test_a_blocks_points_are_what_its_readings_say() -> None:
    block: Block = next(next(small().months(0)).fleet.blocks())
    points = list(block.points(1))
    by_unit = {point.tags[-1]: point for point in points}
    assert len(by_unit) == len(points) == len(block)
    assert [point.fields for point in points] != [point.fields for point in block.points(2)]
    for unit, topic, payload in zip(block.units, block.topics(), block.payloads(1), strict=True):
        point = by_unit[unit.id]
        assert topic == topics.telemetry(unit.county, unit.enterprise, unit.id)
        assert json.loads(payload) == {"ts": unit.ts_ms, **point.fields}
        assert (point.measurement, point.ts_ms) == (unit.class_name, unit.ts_ms)
        assert point.tags[1:4] == (unit.county, unit.industry, unit.enterprise)
    lines = [f"{unit.id},{unit.class_name},{unit.enterprise}\n" for unit in block.units]
    assert block.lines() == "".join(lines).encode()
    for point in points:
        assert point.fields.keys() == {signal.name for signal in CATALOGUE[point.measurement].signals}


def test_what_differs_is_told_in_words() -> None:
    empty = {
        "targets": [{"name": "enterprises_on_cloud", "onboarded": 5, "current": 4}],
        "registered": {"enterprises": 5, "units": 1},
        "contracts": {"equipment": {"onboarded": 2}},
        "by_city": {"370200": {"enterprises_on_cloud": 5, "units_on_cloud": 0}},
        "by_class": {"motor": {"units_on_cloud": 0}},
        "vouchers": {"city": {"granted": 7}},
    }
    found = counted(empty)
    assert differences(found, found) == []
    assert differences(found | {"class/motor": 1}, found) == ["class/motor: the model has 1, the platform 0"]
    assert differences(found | {"vouchers/city/granted": 8}, found) == [
        "vouchers/city/granted: the model has 8, the platform 7"
    ]


def test_a_run_that_does_not_fit_on_the_disk_says_so(tmp_path: Path) -> None:
    replay = small()
    record = open_record(config(tmp_path), replay)
    needed = bytes_needed(replay, record)
    check_room(needed, 10**12, tmp_path)
    with pytest.raises(ConfigError, match=r"needs about .* GB in .* and 0\.0 GB are free: make room"):
        check_room(needed, 1000, tmp_path)
    last = list(replay.months())[-1].expected
    done = MonthRecord("2022-12", last, 1.0)
    assert bytes_needed(replay, RunRecord("programme", "d", "", 1, 1.0, 1, 1, [done])) == 0


def config(state: Path, scale: float = 0.002, seed: int = DEFAULT.seed) -> LiveConfig:
    return LiveConfig(replace(DEFAULT, seed=seed), scale, None, MONTHS - 1, state)


def test_a_folder_holds_one_run(tmp_path: Path) -> None:
    record = open_record(config(tmp_path), small())
    record.months.append(MonthRecord("2017-10", {"units_on_cloud": 1}, 0.5))
    record.save(tmp_path)
    assert is_live_run(tmp_path)
    assert is_live_run(tmp_path / "run.json")
    again = open_record(config(tmp_path), small())
    assert again == record
    assert again.loaded() == DEFAULT
    for other in (config(tmp_path, scale=0.5), config(tmp_path, seed=1)):
        with pytest.raises(ConfigError, match="continue with those, or choose another folder"):
            open_record(other, small())
    (tmp_path / "run.json").write_text(json.dumps({"scenario_sha256": "of equipment"}))
    assert not is_live_run(tmp_path)
    with pytest.raises(ConfigError, match="no record of a live run"):
        open_record(config(tmp_path), small())


@pytest.mark.parametrize(("text", "value"), [("1/1000", 0.001), ("0.05", 0.05), ("1", 1.0), ("3/4", 0.75)])
def test_shares(text: str, value: float) -> None:
    assert share(text) == value


@pytest.mark.parametrize("text", ["0", "2", "1/0", "-1", "half", "1.0.1", ""])
def test_what_is_no_share_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is no share"):
        share(text)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--live", "--scale", "2"], "'2' is no share"),
        (["--live", "--full", "--scale", "1/10"], "give one of them"),
        (["--live", "--until", "2030-01"], "--until: 2030-01 is outside the programme"),
        (["--live", "--platform", "http://127.0.0.1:1"], "--platform needs --broker"),
        (["--live", "--runs", "3"], "--live plays one run"),
        (["--scale", "1/10"], "need --live"),
    ],
)
def test_flags_that_make_no_sense_are_refused(words: list[str], says: str, tmp_path: Path) -> None:
    state = tmp_path / "state"
    done = CliRunner().invoke(programme_app, ["run", *words, "--state", str(state)])
    assert isinstance(done.exception, ConfigError)
    assert says in str(done.exception)
    assert not state.exists()


async def test_a_platform_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    key = "the-key-of-this-test"
    settings = Settings(db_url=f"sqlite:///{tmp_path}/registry.sqlite", port=0, api_key=SecretStr(key))
    async with PlatformService(settings) as service:
        platform = Platform(Target(service.url, "", key))
        names = [{"id": f"others-{n}", "name": f"Other {n}"} for n in range(100)]
        await platform.bulk("providers", names)
        with pytest.raises(ConfigError, match=r"refuses 1 contracts \(enterprise nobody is not registered"):
            await platform.bulk(
                "contracts",
                [{"id": "c", "enterprise": "nobody", "provider": "others-1", "kind": "equipment"}],
            )
        await platform.close()
        record, target = (
            open_record(config(tmp_path), small()),
            Target(service.url, "mqtt://127.0.0.1:1", key),
        )
        player = Player(small(), record, target, tmp_path, None, lambda *_: None)
        with pytest.raises(ConfigError, match="The platform counts 100 providers, more than this run"):
            await player.play(0, asyncio.Event())
        assert not record.months


async def test_a_platform_that_cannot_be_one_is_told_in_a_sentence() -> None:
    with pytest.raises(ConfigError, match="--platform 'nowhere' is no address"):
        Platform(Target("nowhere", "mqtt://127.0.0.1:1", None))
