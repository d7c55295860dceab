"""`qilu verify`: what a run must have stored against what a store holds, in exact counts."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from qilu.verify import verify
from qilu_contract.catalogue.places import city_of
from qilu_contract.readings import Reading
from qilu_contract.storage import BORN, Point
from qilu_devices.fleet import Unit
from qilu_devices.run.manifest import Manifest, NodeRecord, ScenarioRecord
from qilu_devices.scenario import load_scenario
from qilu_stores import open_store

QILU = Path(sys.executable).parent / "qilu"
START_MS = 1_700_000_000_000
UNTIL_MS = START_MS + 180_000


def manifest_of(units: int, **nodes: NodeRecord) -> Manifest:
    """A run of the default scenario: all was acknowledged, except where `nodes` says otherwise."""
    scenario = load_scenario()
    record = ScenarioRecord(scenario.name, scenario.sha256, scenario.text)
    manifest = Manifest(record, 7, START_MS, units, "1/1", None, UNTIL_MS, True, {})
    acked = NodeRecord(UNTIL_MS, 1, 1, 0)
    manifest.nodes.update({unit.enterprise.id: acked for unit in manifest.fleet()} | nodes)
    return manifest


def point(unit: Unit, reading: Reading) -> Point:
    place = unit.enterprise
    tags = (city_of(place.county), place.county, place.industry, place.id, unit.id)
    return Point(unit.class_name, tags, reading.ts_ms, reading.values)


def points_of(manifest: Manifest) -> list[Point]:
    units = {unit.id: unit for unit in manifest.fleet()}
    return [point(units[reading.unit], reading) for reading in manifest.readings()]


@pytest.fixture(params=["duckdb", "influxdb"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "duckdb":
        return f"duckdb:///{tmp_path}/readings.duckdb"
    return str(request.getfixturevalue("influxdb").url)


def run_verify(manifest: Manifest, folder: Path, store_url: str) -> tuple[int, dict[str, Any], str]:
    manifest.save(folder)
    command = [QILU, "verify", "--run", folder, "--store", store_url, "--json"]
    said = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    return said.returncode, json.loads(said.stdout or "{}"), said.stderr


def test_every_kind_of_difference_is_counted_exactly_by_class_and_county(
    store_url: str, tmp_path: Path
) -> None:
    manifest = manifest_of(60)
    points = points_of(manifest)
    lost, altered, twice, strange = points[3:8], points[20:22], points[50:53], points[70:71]
    wrong = [each._replace(fields={**each.fields, next(iter(each.fields)): -1.0}) for each in altered]
    moved = [each._replace(tags=(*each.tags[:3], "370202-e99999", each.tags[-1])) for each in twice]
    late = [each._replace(ts_ms=UNTIL_MS - 77) for each in strange]
    own = point(manifest.fleet()[0], Reading("x", START_MS + 5, {"power_in": 1.0}))
    by_hand = own._replace(measurement="motor", tags=(*own.tags[:4], "my-own"))

    async def fill(more: list[Point]) -> None:
        async with open_store(store_url) as store:
            kept = [each for each in points if each not in lost and each not in altered]
            await store.write([*kept, *more])

    asyncio.run(fill([*wrong, *moved, *late, by_hand]))
    code, verdict, error = run_verify(manifest, tmp_path / "run", store_url)
    assert code == 1
    assert "5 are lost and 2 altered; 3 are stored twice, 1 should not be there" in error
    assert verdict["expected"] == len(points)
    assert verdict["stored"] == len(points) - 5 + 3 + 1
    assert [verdict[name] for name in ("lost", "duplicated", "altered", "unexpected", "others")] == [
        5, 3, 2, 1, 1,
    ]  # fmt: skip
    for group, of in (("by_class", lambda each: each.measurement), ("by_county", lambda each: each.tags[1])):
        for name, changed in (("lost", lost), ("duplicated", twice), ("altered", altered)):
            for key, counts in verdict[group].items():
                assert counts[name] == sum(of(each) == key for each in changed), (group, name, key)


def test_a_run_that_is_stored_as_it_was_made_is_good(store_url: str, tmp_path: Path) -> None:
    manifest = manifest_of(60)
    # The time of birth in a point is not part of the simulation.
    points = [each._replace(fields={**each.fields, BORN: each.ts_ms}) for each in points_of(manifest)]

    async def fill() -> None:
        async with open_store(store_url) as store:
            await store.write(points)

    asyncio.run(fill())
    code, verdict, error = run_verify(manifest, tmp_path / "run", store_url)
    assert (code, error) == (0, "")
    assert verdict["expected"] == verdict["stored"] > 100


async def test_windows_add_up_and_only_acknowledged_readings_are_expected(tmp_path: Path) -> None:
    whole = manifest_of(80)
    [one, other, *_] = {unit.enterprise.id: None for unit in whole.fleet()}
    cut_ms = START_MS + 60_000
    of_other = [each for each in points_of(whole) if each.tags[3] == other]
    part = manifest_of(80, **{one: NodeRecord(cut_ms, 1, 1, 0), other: NodeRecord(UNTIL_MS, 1, 1, 4)})
    async with open_store(f"duckdb:///{tmp_path}/readings.duckdb") as store:
        await store.write([each for each in points_of(whole) if each not in of_other[:6]])
        verdict = await verify(part, store, window_readings=50)
    beyond = [each for each in points_of(whole) if each.tags[3] == one and each.ts_ms > cut_ms]
    total = verdict.total
    assert total.unacknowledged == len(beyond) > 0
    # Four of the six that are missing may be those that the edge node dropped.
    assert (verdict.dropped, total.lost) == ({other: 4}, 2)
    assert total.expected == len(points_of(whole)) - len(beyond) - 4
    assert total.stored == total.expected - 2
    assert (total.duplicated, total.altered, total.unexpected) == (0, 0, 0)


def test_what_cannot_be_verified_is_said_in_a_sentence(tmp_path: Path) -> None:
    manifest_of(5).save(tmp_path)
    missing = f"duckdb:///{tmp_path}/none.duckdb"
    for words in (
        ["--run", str(tmp_path), "--store", missing],
        ["--run", str(tmp_path / "no"), "--store", missing],
        ["--run", str(tmp_path), "--store", "nothing"],
    ):
        said = subprocess.run(
            [QILU, "verify", *words], capture_output=True, text=True, timeout=60, check=False
        )
        assert said.returncode == 2, said.stderr
        assert len(said.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "none.duckdb").exists()
