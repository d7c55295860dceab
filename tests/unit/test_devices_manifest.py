from pathlib import Path

import msgspec
import pytest
from qilu_contract.catalogue.own_classes import ClassRecord
from qilu_contract.errors import ConfigError
from qilu_devices.faults import ground_truth
from qilu_devices.run.manifest import FILE_NAME, Manifest, NodeRecord, ScenarioRecord, load_manifest
from qilu_devices.scenario import load_scenario
from qilu_devices.simulation import fleet_of, samples

SCENARIO = load_scenario()
START_MS = 1_509_328_800_000
UNTIL_MS = START_MS + 60_000


def manifest(units: int, acked_through: dict[str, int]) -> Manifest:
    return Manifest(
        scenario=ScenarioRecord(SCENARIO.name, SCENARIO.sha256, SCENARIO.text),
        seed=SCENARIO.seed,
        start_ms=START_MS,
        units=units,
        shard="1/1",
        speed=None,
        until_ms=UNTIL_MS,
        finished=True,
        nodes={node: NodeRecord(ts_ms, 0, 0, 0) for node, ts_ms in acked_through.items()},
    )


def test_a_manifest_tells_exactly_what_was_acknowledged(tmp_path: Path) -> None:
    units = fleet_of(SCENARIO, units=40)
    nodes = sorted({unit.enterprise.id for unit in units})
    half_ms = START_MS + 30_000
    written = manifest(40, dict.fromkeys(nodes, UNTIL_MS) | {nodes[0]: half_ms})
    written.save(tmp_path)
    read = load_manifest(tmp_path)
    assert read == written
    found = {(reading.unit, reading.ts_ms): reading.values for reading in read.readings()}
    everything = samples(SCENARIO, SCENARIO.seed, START_MS, 40, None, UNTIL_MS)
    owner = {unit.id: unit.enterprise.id for unit in units}
    assert found == {
        (unit, ts_ms): values
        for unit, readings in everything.items()
        for ts_ms, values in readings
        if ts_ms <= (half_ms if owner[unit] == nodes[0] else UNTIL_MS)
    }


def test_a_manifest_of_a_class_that_is_not_known_says_where_it_is(tmp_path: Path) -> None:
    kiln = ClassRecord("kiln", "kiln.yaml", "0" * 64, "name: kiln")
    msgspec.structs.replace(manifest(40, {}), classes=(kiln,)).save(tmp_path)
    with pytest.raises(ConfigError, match=r"class 'kiln' of kiln\.yaml, which is not known here: set QILU"):
        load_manifest(tmp_path).fleet()


def test_a_manifest_tells_the_faults_that_units_had(tmp_path: Path) -> None:
    units = {unit.id: unit.class_name for unit in fleet_of(SCENARIO, units=40)}
    manifest(40, {}).save(tmp_path)
    truth = load_manifest(tmp_path).ground_truth()
    assert truth == ground_truth(units, SCENARIO.seed, START_MS, UNTIL_MS, SCENARIO.faults)
    assert all(case.start_ms <= UNTIL_MS and case.end_ms > START_MS for case in truth)


def test_saving_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "made" / "here"
    manifest(1, {}).save(folder)
    manifest(2, {}).save(folder)
    assert load_manifest(folder / FILE_NAME).units == 2
    assert [path.name for path in folder.iterdir()] == [FILE_NAME]


def test_what_is_no_manifest_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load_manifest(tmp_path)
    (tmp_path / FILE_NAME).write_text("{}")
    with pytest.raises(ConfigError, match="not the manifest"):
        load_manifest(tmp_path)
    with pytest.raises(ConfigError, match="cannot be written"):
        manifest(1, {}).save(tmp_path / FILE_NAME)


def test_a_changed_scenario_is_noticed(tmp_path: Path) -> None:
    manifest(1, {}).save(tmp_path)
    raw = msgspec.json.decode((tmp_path / FILE_NAME).read_bytes())
    raw["scenario"]["text"] += "# changed\n"
    (tmp_path / FILE_NAME).write_bytes(msgspec.json.encode(raw))
    with pytest.raises(ConfigError, match="fingerprint"):
        list(load_manifest(tmp_path).readings())
