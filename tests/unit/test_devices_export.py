"""An export has the readings of a run, to the last digit, in files that others read."""

import importlib
import os
from pathlib import Path

import duckdb
import msgspec
import pytest
from qilu_contract.errors import ConfigError
from qilu_contract.readings import Value
from qilu_devices.export import DatasetManifest, ExportConfig, export
from qilu_devices.faults import ground_truth
from qilu_devices.run.manifest import NodeRecord
from qilu_devices.scenario import Scenario, load_scenario, parse_scenario
from qilu_devices.simulation import fleet_of, samples

SEED, START_MS = 1122, 1_654_012_680_000  # 31 May 2022, 23:58 in Shandong: the day changes meanwhile
MORNING_MS = START_MS + 10 * 3_600_000
FOR_MS = 300_000
DISTURBED = """
transport:
  missing: {every: 5m, for: 30s}
  late: {every: 5m, for: 1m}
  out_of_order: {every: 4m, for: 30s}
  duplicated: {every: 5m, for: 1m}
  wrong_type: {every: 5m, for: 20s}
  stuck_sensor: {every: 5m, for: 1m}
  clock_skew: {every: 5m, for: 2m, by: 60s, drift_ppm: 900}
  offline: {every: 5m, for: 20s}
  reconnect_storm: {every: 5m, for: 20s, share: 0.5}
  garbage_payload: {every: 5m, for: 20s}
"""
Rows = dict[str, list[tuple[int, dict[str, Value]]]]


def written(folder: Path) -> Rows:
    """unit → readings in the order of time, without what was not sampled."""
    found: Rows = {}
    for part in sorted(folder.glob("class=*")):
        files = f"{part}/**/*.parquet"
        reader = duckdb.sql(
            "SELECT * EXCLUDE (class, date), epoch_ms(ts) AS ms "
            f"FROM read_parquet('{files}') ORDER BY unit, ts"
        )
        names = reader.columns
        for row in reader.fetchall():
            values = dict(zip(names, row, strict=True))
            unit, ms = values.pop("unit"), values.pop("ms")
            del values["ts"]
            sampled = {name: value for name, value in values.items() if value is not None}
            found.setdefault(unit, []).append((ms, sampled))
    return found


def config(
    out: Path, scenario: Scenario, units: int, *classes: str, start_ms: int = START_MS
) -> ExportConfig:
    return ExportConfig(out, scenario, SEED, units, start_ms, start_ms + FOR_MS, classes)


def test_an_export_has_the_samples_of_a_run(tmp_path: Path) -> None:
    scenario = load_scenario()
    told: list[tuple[int, int]] = []
    report = export(config(tmp_path / "out", scenario, 100), lambda done, total: told.append((done, total)))
    found = written(tmp_path / "out")
    expected = samples(scenario, SEED, START_MS, 100, None, START_MS + FOR_MS)
    assert found == expected
    assert report.readings == sum(map(len, expected.values()))
    assert report.values == sum(len(values) for rows in expected.values() for _, values in rows)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1][0] == report.readings <= told[-1][1] <= report.readings * 1.02
    days = {path.name for path in (tmp_path / "out" / "class=motor").iterdir()}
    assert days == {"date=2022-05-31", "date=2022-06-01"}
    for name, count in duckdb.sql(
        f"SELECT date, count(*) FROM read_parquet('{tmp_path}/out/class=motor/**/*.parquet') "
        "WHERE strftime(ts + INTERVAL 8 HOUR, '%Y-%m-%d') != date::VARCHAR GROUP BY date"
    ).fetchall():
        raise AssertionError(f"{count} readings of another day in {name}")


def test_an_export_has_what_transport_faults_leave_and_says_what_they_did(tmp_path: Path) -> None:
    scenario = parse_scenario(load_scenario().text + DISTURBED, "disturbed")
    out = tmp_path / "out"
    report = export(config(out, scenario, 60), lambda done, total: None)
    manifest = msgspec.json.decode((out / "run.json").read_bytes(), type=DatasetManifest)
    nodes = {unit.enterprise.id for unit in fleet_of(scenario, SEED, 60)}
    whole = NodeRecord(START_MS + FOR_MS, 0, 0, 0)
    # Rows that the store must hold once every node's readings were acknowledged to the end.
    manifest = msgspec.structs.replace(manifest, nodes=dict.fromkeys(nodes, whole), beyond_ms=FOR_MS)
    expected: Rows = {}
    for reading in manifest.readings():
        expected.setdefault(reading.unit, []).append((reading.ts_ms, dict(reading.values)))
    assert written(out) == {unit: sorted(rows, key=lambda row: row[0]) for unit, rows in expected.items()}
    truth = manifest.transport_truth()
    assert report.transport_episodes == len(truth) > 0
    told = duckdb.sql(
        f"SELECT kind, unit, node, epoch_ms(\"start\"), readings FROM '{out}/transport.parquet' ORDER BY ALL"
    ).fetchall()
    assert told == sorted(
        ((str(each.kind), each.unit, each.node, each.start_ms, each.readings) for each in truth),
        key=lambda row: (row[0], row[1] is None, row[1] or "", *row[2:]),
    )


def test_only_some_classes_are_exported_with_their_faults_and_nameplates(tmp_path: Path) -> None:
    scenario = load_scenario()
    out = tmp_path / "out"
    report = export(config(out, scenario, 400, "motor", "pump", start_ms=MORNING_MS))
    assert {path.name for path in out.glob("class=*")} == {"class=motor", "class=pump"}
    chosen = {
        unit.id: unit.class_name
        for unit in fleet_of(scenario, SEED, 400)
        if unit.class_name in ("motor", "pump")
    }
    assert report.units == len(chosen)
    truth = ground_truth(chosen, SEED, MORNING_MS, MORNING_MS + FOR_MS, scenario.faults)
    rows = duckdb.sql(
        f'SELECT unit, fault, epoch_ms("start"), visible_ms, epoch_ms("end") FROM \'{out}/faults.parquet\''
    ).fetchall()
    assert {row[:3] for row in rows} <= {(case.unit, case.fault, case.start_ms) for case in truth}
    assert len(rows) == report.faults > 0
    assert sum(row[3] is not None for row in rows) == report.faults_visible > 0
    for _, _, start_ms, visible_ms, end_ms in rows:
        if visible_ms is not None:
            assert max(start_ms, MORNING_MS) <= visible_ms < end_ms
        else:
            assert end_ms > MORNING_MS + FOR_MS  # it may still show
    about = dict(duckdb.sql(f"SELECT key, value FROM parquet_kv_metadata('{out}/faults.parquet')").fetchall())
    assert about[b"units"] == str(len(chosen)).encode()
    units = duckdb.sql(f"SELECT unit, rated_kw, rated_m3_h FROM '{out}/units.parquet'").fetchall()
    assert {row[0] for row in units} == set(chosen)
    for unit, kw, flow in units:
        assert (kw is not None, flow is not None) == (chosen[unit] == "motor", chosen[unit] == "pump")


@pytest.mark.parametrize(("library", "reader"), [("pandas", "pyarrow"), ("polars", "polars")])
def test_other_libraries_read_an_export(tmp_path: Path, library: str, reader: str) -> None:
    pytest.importorskip(reader, reason=f"{reader} is not installed: it is no dependency")
    report = export(config(tmp_path / "out", load_scenario(), 40, "motor"))
    read = importlib.import_module(library).read_parquet
    found = read(tmp_path / "out" / "class=motor")
    assert len(found) == report.readings


def test_mistakes_are_told_in_a_sentence(tmp_path: Path) -> None:
    scenario = load_scenario()
    full = tmp_path / "full"
    full.mkdir()
    (full / "file").write_text("")
    with pytest.raises(ConfigError, match="not empty"):
        export(config(full, scenario, 10))
    with pytest.raises(ConfigError, match="cannot be used"):
        export(config(full / "file", scenario, 10))
    with pytest.raises(ConfigError, match="no unit of blast_furnace"):
        export(config(tmp_path / "new", scenario, 3, "blast_furnace"))
    if os.geteuid() != 0:
        full.chmod(0o500)
        with pytest.raises(ConfigError, match="cannot be"):
            export(config(full / "new", scenario, 3))
