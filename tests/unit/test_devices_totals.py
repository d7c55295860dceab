"""A fleet of ten million units adds up to the province."""

import json
import subprocess
import sys
from pathlib import Path

from qilu_devices.fleet import expected_counts
from qilu_devices.scenario import load_scenario

HELD = {
    "electricity_TWh": (500.0, 650.0),
    "boiler_coal_Mt": (90.0, 140.0),
    "hot_metal_Mt": (70.0, 85.0),
    "wind_GW": (22.0, 28.0),
    "wind_TWh": (35.0, 60.0),
    "co2_Mt": (580.0, 850.0),
}


def test_the_sums_of_ten_million_units_are_the_provinces() -> None:
    program = Path(sys.executable).parent / "qilu"
    found = subprocess.run(
        [program, "devices", "totals", "--seed", "5", "--json"], capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
    sums = json.loads(found.stdout)
    assert sums.keys() == HELD.keys()
    for name, (low, high) in HELD.items():
        assert low <= sums[name] <= high, (name, sums[name])


def test_counts_are_scaled_and_capped() -> None:
    scenario = load_scenario()
    small = expected_counts(scenario.classes, scenario.cities, scenario.seed, 10_000)
    large = expected_counts(scenario.classes, scenario.cities, scenario.seed, 10_000_000)
    assert abs(sum(large.values()) - 10_000_000) < 20
    assert (large["wind_turbine"], large["boiler"]) == (12_000, 25_000)
    assert 990 < large["pump"] / small["pump"] < 1010
