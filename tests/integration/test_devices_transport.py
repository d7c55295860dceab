"""Transport faults on their real way: equipment, Mosquitto, gateway, InfluxDB, and what is left of each
reading at its end."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest
from gateway_world import FakePlatform, eventually, letters, online
from qilu.verify import Verdict, verify
from qilu_contract.errors import Reason
from qilu_contract.places import city_of
from qilu_contract.stores import open_store
from qilu_devices.manifest import load_manifest
from qilu_devices.run import RunConfig, RunReport, run
from qilu_devices.scenario import Scenario, parse_scenario
from qilu_devices.simulation import fleet_of
from qilu_devices.transport import FILE_NAME, Kind
from qilu_gateway.settings import Settings

START_MS = 1_509_328_846_046  # on no grid
MINUTES = 20
FAULTS = {
    Kind.MISSING: "{every: 5m, for: 1m}",
    Kind.LATE: "{every: 5m, for: 90s}",
    Kind.OUT_OF_ORDER: "{every: 5m, for: 1m}",
    Kind.DUPLICATED: "{every: 5m, for: 1m}",
    Kind.CLOCK_SKEW: "{every: 5m, for: 2m, by: 2m, drift_ppm: 5000}",
    Kind.STUCK_SENSOR: "{every: 5m, for: 1m}",
    Kind.WRONG_TYPE: "{every: 5m, for: 30s}",
    Kind.GARBAGE_PAYLOAD: "{every: 5m, for: 30s}",
    Kind.RECONNECT_STORM: "{every: 5m, for: 20s, share: 0.8}",
}


def scenario(*kinds: Kind) -> Scenario:
    lines = "".join(f"  {kind}: {FAULTS[kind]}\n" for kind in kinds)
    mix = "classes: {motor: 1, pump: 1, boiler: 1}\ncities: {'370200': 1, '370700': 1}\n"
    return parse_scenario(f"name: rough\nunits: 60\nseed: 5\n{mix}transport:\n{lines}", "rough.yaml")


async def judged(
    chosen: Scenario, settings: Settings, platform: FakePlatform, folder: Path
) -> tuple[RunReport, Verdict, dict[str, int]]:
    """Run it to its end, and hold it against the store; also what the gateway counted."""
    for unit in fleet_of(chosen):
        county = unit.enterprise.county
        place = {"county": county, "city": city_of(county), "industry": unit.enterprise.industry}
        owned = {"class": unit.class_name, "enterprise": unit.enterprise.id, "on_cloud": False}
        platform.units[unit.id] = owned | place
    config = RunConfig(
        settings.broker, chosen, start_ms=START_MS, speed=None, for_s=60.0 * MINUTES, state=folder
    )
    async with online(settings) as gateway:
        report = await run(config)
        counters = gateway.counters
        await eventually(
            lambda: counters.in_flight == 0 and counters.accepted >= report.readings_acked, "rest"
        )
        counted = {"births": counters.births, "accepted": counters.accepted, "stored": counters.stored}
    async with open_store(settings.store) as store:
        return report, await verify(load_manifest(folder), store, window_readings=500), counted


@pytest.fixture
def influx_settings(settings: Settings, influxdb: object) -> Settings:
    return settings.model_copy(update={"store": influxdb.url, "host_id": "qilu"})  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "kinds", [*((kind,) for kind in Kind), tuple(Kind)], ids=lambda kinds: "+".join(kinds)
)
async def test_what_is_left_of_a_run_is_what_its_faults_leave(
    kinds: tuple[Kind, ...], influx_settings: Settings, platform: FakePlatform, tmp_path: Path
) -> None:
    folder = tmp_path / "devices"
    report, verdict, counted = await judged(scenario(*kinds), influx_settings, platform, folder)
    total = verdict.total
    assert (total.lost, total.duplicated, total.altered, total.unexpected) == (0, 0, 0, 0)
    assert total.expected == total.stored > 60
    assert (total.unacknowledged, verdict.others, report.pending, report.dropped) == (0, 0, 0, 0)

    rows = duckdb.sql(f"SELECT kind, sum(readings)::INT FROM '{folder / FILE_NAME}' GROUP BY kind").fetchall()
    truth = dict(rows)
    assert set(truth) == set(kinds)
    wanted = {
        Reason.WRONG_TYPE: truth.get(Kind.WRONG_TYPE),
        Reason.BAD_PAYLOAD: truth.get(Kind.GARBAGE_PAYLOAD),
    }
    assert letters(influx_settings) == {reason: count for reason, count in wanted.items() if count}
    assert verdict.refused == letters(influx_settings)
    assert report.readings_acked == total.stored + sum(verdict.refused.values())
    if Kind.DUPLICATED in kinds:
        assert counted["stored"] >= total.stored + truth[Kind.DUPLICATED]
    if Kind.RECONNECT_STORM in kinds:
        assert counted["births"] > 60 + report.enterprises
