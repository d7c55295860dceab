"""Counts of a fleet of ten million units; its sums are held by test_equipment_realism.py."""

from qilu_devices.fleet import expected_counts
from qilu_devices.scenario import load_scenario


def test_counts_are_scaled_and_capped() -> None:
    scenario = load_scenario()
    small = expected_counts(scenario.classes, scenario.cities, scenario.seed, 10_000)
    large = expected_counts(scenario.classes, scenario.cities, scenario.seed, 10_000_000)
    assert abs(sum(large.values()) - 10_000_000) < 20
    assert (large["wind_turbine"], large["boiler"]) == (12_000, 25_000)
    assert 990 < large["pump"] / small["pump"] < 1010
