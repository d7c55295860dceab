from itertools import islice

import pytest
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_devices.digests import combined_digest, unit_digests
from qilu_devices.fleet import Shard
from qilu_devices.scenario import load_scenario
from qilu_devices.simulation import PHASE_STEP_MS, Simulation, fleet_of, phases_ms, samples

SCENARIO = load_scenario()
SEED = SCENARIO.seed
START_MS = 1_509_328_812_345  # on no grid
MINUTE_MS = 60_000
UNITS = 150  # have all classes


def test_readings_come_in_time_order_and_end_where_told() -> None:
    until_ms = START_MS + 2 * MINUTE_MS
    times = [
        moment.ts_ms
        for moment in Simulation(fleet_of(SCENARIO, units=UNITS), SEED, START_MS).moments(until_ms)
    ]
    assert times == sorted(times)
    assert times[-1] <= until_ms
    endless = Simulation(fleet_of(SCENARIO, units=UNITS), SEED, START_MS).moments(None)
    assert [moment.ts_ms for moment in islice(endless, len(times))] == times


def test_every_unit_has_its_first_sample_at_the_start_with_all_signals() -> None:
    found = samples(SCENARIO, SEED, START_MS, UNITS, None, START_MS)
    units = {unit.id: unit for unit in fleet_of(SCENARIO, units=UNITS)}
    assert set(found) == set(units)
    for id_, [(ts_ms, values)] in found.items():
        assert ts_ms == START_MS
        assert list(values) == [signal.name for signal in CATALOGUE[units[id_].class_name].signals]


def test_a_unit_is_sampled_on_its_own_grid_and_each_signal_at_its_interval() -> None:
    found = samples(SCENARIO, SEED, START_MS, UNITS, None, START_MS + 30 * MINUTE_MS)
    for unit in fleet_of(SCENARIO, units=UNITS):
        equipment = CATALOGUE[unit.class_name]
        base_s = equipment.base_interval_s
        [phase_ms] = phases_ms([unit], base_s * 1000)
        assert phase_ms % PHASE_STEP_MS == 0
        readings = found[unit.id]
        assert START_MS < readings[1][0] <= START_MS + base_s * 1000
        for k, (ts_ms, values) in enumerate(readings[1:], 1):
            assert ts_ms == readings[1][0] + (k - 1) * base_s * 1000
            assert ts_ms % (base_s * 1000) == phase_ms
            assert list(values) == [s.name for s in equipment.signals if k * base_s % s.interval_s == 0]
            assert equipment.base_signal.name in values


def test_phases_spread_a_fleet_over_the_interval() -> None:
    units = [unit for unit in fleet_of(SCENARIO, units=1000) if unit.class_name == "motor"]
    phases = phases_ms(units, 10_000)
    assert len(set(phases.tolist())) > 90
    assert (phases < 10_000).all()


def test_values_are_rounded_and_within_the_catalogues_bounds() -> None:
    found = samples(SCENARIO, SEED, START_MS, UNITS, None, START_MS + 20 * MINUTE_MS)
    for unit in fleet_of(SCENARIO, units=UNITS):
        equipment = CATALOGUE[unit.class_name]
        for _, values in found[unit.id]:
            for name, value in values.items():
                signal = equipment.signal(name)
                assert type(value) is float
                assert signal.low <= value <= signal.high
                assert signal.round(value) == value
                assert str(value) != "-0.0"


def test_a_units_samples_do_not_depend_on_the_fleets_size() -> None:
    until_ms = START_MS + 5 * MINUTE_MS
    small = samples(SCENARIO, SEED, START_MS, UNITS, None, until_ms)
    large = samples(SCENARIO, SEED, START_MS, 4 * UNITS, None, until_ms)
    assert {unit: large[unit] for unit in small} == small


def test_chosen_units_have_the_samples_that_they_have_in_the_whole_fleet() -> None:
    until_ms = START_MS + 5 * MINUTE_MS
    whole = samples(SCENARIO, SEED, START_MS, UNITS, None, until_ms)
    chosen = list(whole)[::-7]
    assert samples(SCENARIO, SEED, START_MS, UNITS, chosen, until_ms) == {
        unit: whole[unit] for unit in chosen
    }


def test_a_longer_run_begins_with_the_shorter_one() -> None:
    short = samples(SCENARIO, SEED, START_MS, UNITS, None, START_MS + 3 * MINUTE_MS)
    long = samples(SCENARIO, SEED, START_MS, UNITS, None, START_MS + 6 * MINUTE_MS)
    assert {unit: readings[: len(short[unit])] for unit, readings in long.items()} == short


@pytest.mark.parametrize("count", [1, 2, 7])
def test_the_digest_is_equal_for_any_number_of_shards(count: int) -> None:
    until_ms = START_MS + 2 * MINUTE_MS
    parts: dict[str, bytes] = {}
    for index in range(count, 0, -1):
        parts |= unit_digests(SCENARIO, SEED, START_MS, 200, until_ms, Shard(index, count))
    assert combined_digest(parts) == combined_digest(unit_digests(SCENARIO, SEED, START_MS, 200, until_ms))


def test_seed_start_and_end_change_the_digest() -> None:
    until_ms = START_MS + MINUTE_MS
    found = {
        combined_digest(unit_digests(SCENARIO, SEED, START_MS, UNITS, until_ms)),
        combined_digest(unit_digests(SCENARIO, SEED + 1, START_MS, UNITS, until_ms)),
        combined_digest(unit_digests(SCENARIO, SEED, START_MS - 10_000, UNITS, until_ms)),
        combined_digest(unit_digests(SCENARIO, SEED, START_MS, UNITS, until_ms + MINUTE_MS)),
        combined_digest(unit_digests(SCENARIO, SEED, START_MS, UNITS - 1, until_ms)),
    }
    assert len(found) == 5
