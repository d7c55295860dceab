from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.catalogue.places import CITIES, COUNTIES, INDUSTRIES
from qilu_contract.errors import ConfigError
from qilu_contract.wire.ids import is_id
from qilu_devices.fleet import Shard, Unit, make_units
from qilu_devices.scenario import load_scenario

ALL_CLASSES = dict.fromkeys(CATALOGUE, 1.0)
ALL_CITIES = dict.fromkeys(CITIES, 1.0)


def fleet(
    count: int,
    seed: int = 1,
    classes: dict[str, float] = ALL_CLASSES,
    cities: dict[str, float] = ALL_CITIES,
) -> list[Unit]:
    return list(make_units(classes, cities, seed, count))


@settings(max_examples=30)
@given(seed=st.integers(0, 2**63 - 1), small=st.integers(1, 400), more=st.integers(0, 400))
def test_a_fleet_is_the_beginning_of_every_larger_fleet(seed: int, small: int, more: int) -> None:
    smaller, larger = fleet(small, seed), fleet(small + more, seed)
    assert len(smaller) == small
    assert larger[:small] == smaller


def test_ids_are_ids_unique_and_of_their_county_and_class() -> None:
    units = fleet(5000)
    assert len({unit.id for unit in units}) == len(units)
    for unit in units:
        enterprise = unit.enterprise
        assert is_id(unit.id)
        assert is_id(enterprise.id)
        assert unit.id.startswith(f"{enterprise.county}-{unit.class_name.replace('_', '-')}-")
        assert enterprise.id.startswith(f"{enterprise.county}-e")
        assert COUNTIES[enterprise.county].kind != "zone"
        assert enterprise.industry in INDUSTRIES


def test_an_enterprise_is_one_thing_under_one_id() -> None:
    assert (
        len({u.enterprise for u in fleet(5000)})
        == len({u.enterprise.id for u in fleet(5000)})
        == len({u.enterprise.number for u in fleet(5000)})
    )


def test_sizes_are_heavy_tailed_with_33_units_on_average() -> None:
    sizes = Counter(unit.enterprise.id for unit in fleet(60_000)).values()
    assert 27 < sum(sizes) / len(sizes) < 39
    assert max(sizes) > 400
    assert sorted(sizes)[len(sizes) // 2] < 25


def test_classes_stand_where_they_belong_and_motors_are_most() -> None:
    units = fleet(20_000)
    counts = Counter(unit.class_name for unit in units)
    assert set(counts) == set(CATALOGUE)
    assert counts.most_common(1)[0][0] == "motor"
    assert {u.enterprise.industry for u in units if u.class_name == "blast_furnace"} == {"C31"}
    wind = {u.enterprise.industry for u in units if u.class_name == "wind_turbine"}
    assert {INDUSTRIES[code].group for code in wind} == {"energy"}
    for name, groups in (
        ("reactor", {"petrochemical"}),
        ("loom", {"textile"}),
        ("pasteuriser", {"food"}),
        ("cnc", {"machinery", "electronics"}),
        ("robot", {"machinery", "electronics"}),
    ):
        owners = {u.enterprise.industry for u in units if u.class_name == name}
        assert {INDUSTRIES[code].group for code in owners} == groups
    assert counts["blast_furnace"] <= 120


def test_weights_of_zero_leave_out_classes_and_cities() -> None:
    units = fleet(500, classes={"wind_turbine": 1.0}, cities={"370600": 2.0, "371000": 0.0})
    assert {unit.class_name for unit in units} == {"wind_turbine"}
    assert {unit.enterprise.county[:4] for unit in units} == {"3706"}


def test_no_equipment_at_all_is_a_mistake() -> None:
    with pytest.raises(ConfigError, match="at least one class"):
        fleet(1, classes={"motor": 0.0})


@pytest.mark.parametrize("count", [1, 2, 7])
def test_shards_are_a_partition_by_enterprise(count: int) -> None:
    units = fleet(1000)
    shards = [[u for u in units if Shard(i, count).holds(u)] for i in range(1, count + 1)]
    assert sorted(u.id for shard in shards for u in shard) == sorted(u.id for u in units)
    owners = [{u.enterprise.id for u in shard} for shard in shards]
    assert sum(map(len, owners)) == len(set().union(*owners))


def test_shards_are_counted_from_1() -> None:
    for index, count in ((0, 2), (3, 2), (1, 0)):
        with pytest.raises(ConfigError, match="no shard"):
            Shard(index, count)


def test_the_default_fleet_has_all_classes_early_and_about_60_enterprises() -> None:
    scenario = load_scenario()
    units = fleet(scenario.units, scenario.seed, dict(scenario.classes), dict(scenario.cities))
    assert {unit.class_name for unit in units[:150]} == set(CATALOGUE)
    assert 40 <= len({unit.enterprise.id for unit in units}) <= 80


def test_the_default_fleet_makes_fewer_than_400_readings_a_second() -> None:
    scenario = load_scenario()
    for seed in (scenario.seed, 1, 2):
        units = fleet(2000, seed, dict(scenario.classes), dict(scenario.cities))
        assert sum(1.0 / CATALOGUE[unit.class_name].base_interval_s for unit in units) < 400.0
