"""The programme's model as a whole: the known points, the counterfactual, invariants of a run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qilu_contract.catalogue.places import COUNTIES
from qilu_contract.catalogue.targets import CORE_TARGETS
from qilu_contract.wire.ids import is_id
from qilu_programme.calibration import calibrate
from qilu_programme.counts import Table, tabulate
from qilu_programme.events import EQUIPMENT, MonthEvents
from qilu_programme.figures import FIGURES, figure
from qilu_programme.model import Model, run
from qilu_programme.months import CHECKPOINT, LABELS, MONTHS, index_of
from qilu_programme.scenario import LEVELS, SETS, load_scenario
from qilu_programme.world import CAPS, CLASSES, fleet_sizes, make_world, market_shares, spread

DEFAULT = load_scenario()


@cache
def default_run() -> tuple[Model, tuple[MonthEvents, ...], Table]:
    model = Model(DEFAULT)
    events = tuple(model.events())
    return model, events, tabulate(model.world, events)


def contracts(events: tuple[MonthEvents, ...]) -> Iterator[tuple[int, int, int]]:
    for month in events:
        for enterprise, kind in zip(
            month.contracts.enterprise.tolist(), month.contracts.kind.tolist(), strict=True
        ):
            yield month.month, enterprise, kind


def test_the_world_holds_the_sourced_totals() -> None:
    world = make_world()
    assert world.enterprises == 1_801_000
    assert int(world.count[world.service == 0].sum()) == 319_000
    assert len(np.unique(world.county)) == 136
    assert len(np.unique(world.city)) == 16


def test_a_seed_industry_stands_out_in_its_city() -> None:
    from qilu_programme.figures import BRANCHES
    from qilu_programme.world import CITY_CODES, COUNTY_CODES

    world = make_world()
    codes = [branch.code for branch in BRANCHES]

    def share(code: str, where: np.ndarray) -> float:  # type: ignore[type-arg]
        here = world.count[where & (world.service == 0)].sum()
        return float(world.count[where & (world.branch == codes.index(code))].sum() / here)

    for city, industry in (("370500", "C25"), ("370600", "C14"), ("371100", "C31"), ("371400", "C17")):
        here = world.city == CITY_CODES.index(city)
        assert share(industry, here) > 3 * share(industry, ~here)
    tengzhou = world.county == COUNTY_CODES.index("370481")
    assert share("C34", tengzhou) > 2 * share("C34", ~tengzhou)


@pytest.mark.parametrize("parameters", SETS.values(), ids=lambda found: found.name)
def test_the_market_has_the_size_of_its_parameter_set(parameters) -> None:  # type: ignore[no-untyped-def]
    world = make_world()
    assert (world.count * market_shares(world, parameters.market)).sum() == pytest.approx(parameters.market)


def test_fleets_are_heavy_tailed_and_33_units_on_average() -> None:
    model, _, _ = default_run()
    assert model.units.mean() == pytest.approx(33, abs=1)
    assert np.median(model.units) < 10
    assert np.sort(model.units)[-len(model.units) // 100 :].sum() > 0.3 * model.units.sum()


def test_an_enterprise_keeps_its_fleet_whatever_the_market() -> None:
    model, _, _ = default_run()
    some = model.market.enterprise[::1000]
    assert (fleet_sizes(model.world, some, model.draws) == model.units[::1000]).all()


def test_no_class_exceeds_what_physically_exists() -> None:
    model, _, _ = default_run()
    totals = dict(zip(CLASSES, model.classes.sum(axis=0).tolist(), strict=True))
    assert (model.classes >= 0).all()
    assert (model.classes.sum(axis=1) == model.units).all()
    for name, cap in CAPS.items():
        assert 0 < totals[name] <= cap


def test_the_default_passes_the_known_points_and_reaches_every_target() -> None:
    _, _, table = default_run()
    enterprises = table.values["enterprises_on_cloud"]
    assert enterprises[0] == 20_000
    assert enterprises[CHECKPOINT] == pytest.approx(170_000, rel=0.01)
    crossed = table.reached_in("enterprises_on_cloud")
    assert crossed is not None
    assert crossed.startswith("2022-")
    assert table.values["units_on_cloud"][-1] > 10_000_000
    missed = [name for name in CORE_TARGETS if table.reached_in(name) is None]
    assert missed == []


def test_the_default_agrees_with_what_is_known_of_october_2020() -> None:
    _, _, table = default_run()
    assert table.redeemed[CHECKPOINT].sum() > 100_000_000
    platforms = sum(
        table.values[f"platforms_{tier}"][CHECKPOINT]
        for tier in ("enterprise", "cross_industry", "comprehensive")
    )
    assert platforms == pytest.approx(70, rel=0.2)
    assert table.values["applications"][CHECKPOINT] == pytest.approx(7_500, rel=0.2)
    assert table.values["centres"][index_of("2018-12")] == 14


def test_a_fifth_less_hazard_misses_the_target() -> None:
    model = Model(replace(DEFAULT, hazard=0.8))
    assert sum(len(step.adopters) for step in model.diffusion()) < 300_000


@pytest.mark.parametrize("name", SETS)
def test_the_shipped_fit_is_what_calibration_finds(name: str) -> None:
    parameters = SETS[name]
    model = Model(replace(DEFAULT, set=parameters))
    count = sum(len(step.adopters) for step in model.diffusion() if step.month <= CHECKPOINT)
    assert count == pytest.approx(figure("adoption.checkpoint"), rel=0.005)


def test_calibration_finds_the_known_point() -> None:
    assert calibrate(DEFAULT, SETS["m350k"], steps=7) == pytest.approx(SETS["m350k"].fit, abs=3 / 2**7)


def test_the_same_seed_gives_the_same_table_and_another_seed_another() -> None:
    _, _, table = default_run()
    again = run(DEFAULT)
    other = run(replace(DEFAULT, seed=DEFAULT.seed + 1))
    for name in CORE_TARGETS:
        assert (table.values[name] == again.values[name]).all()
    assert (table.units_by_city == again.units_by_city).all()
    assert (table.redeemed == again.redeemed).all()
    assert (table.units_by_city != other.units_by_city).any()


def test_cities_and_industries_add_up_to_the_province_every_month() -> None:
    _, _, table = default_run()
    for columns, name in (
        (table.enterprises_by_city, "enterprises_on_cloud"),
        (table.enterprises_by_group, "enterprises_on_cloud"),
        (table.units_by_city, "units_on_cloud"),
        (table.units_by_group, "units_on_cloud"),
    ):
        assert (columns.sum(axis=1) == table.values[name]).all()


def test_no_count_of_ever_goes_down_but_that_of_the_lowest_tier() -> None:
    _, _, table = default_run()
    for name, values in table.values.items():
        # A platform that rises leaves its tier.
        if not name.startswith(("platforms_enterprise", "platforms_cross")):
            assert (np.diff(values) >= 0).all(), name
    assert (table.current <= table.values["enterprises_on_cloud"]).all()


def test_no_enterprise_adopts_twice_or_begins_a_kind_twice() -> None:
    model, events, table = default_run()
    seen = list(contracts(events))
    assert len({(enterprise, kind) for _, enterprise, kind in seen}) == len(seen)
    adopted = np.concatenate([step.adopters for step in Model(DEFAULT).diffusion()])
    assert len(np.unique(adopted)) == len(adopted) == table.values["enterprises_on_cloud"][-1]
    assert set(np.unique(model.market.enterprise[adopted])) == {enterprise for _, enterprise, _ in seen}


def test_equipment_joins_with_or_after_the_equipment_contract_and_once() -> None:
    _, events, _ = default_run()
    joined = np.concatenate([month.equipment.enterprise for month in events])
    assert len(np.unique(joined)) == len(joined)
    for month in events:
        asked = month.contracts.enterprise[month.contracts.kind == EQUIPMENT]
        assert sorted(asked.tolist()) == sorted(month.equipment.enterprise.tolist())


def test_nobody_is_paid_before_being_on_cloud_or_after_the_contract_ended() -> None:
    model, events, _ = default_run()
    began = np.full(model.world.enterprises, MONTHS)
    ended = np.full(model.world.enterprises, MONTHS)
    for month in events:
        new = month.contracts.enterprise
        began[new] = np.minimum(began[new], month.month)
        assert (began[month.paid] + figure("voucher.pay_delay") <= month.month).all()
        assert (ended[month.paid] == MONTHS).all()
        assert (began[month.ended] < month.month).all()
        ended[month.ended] = month.month


def test_every_contract_is_with_a_provider_that_is_registered() -> None:
    _, events, _ = default_run()
    registered = 0
    for month in events:
        registered += sum(notice.kind == "provider_registered" for notice in month.notices)
        assert (month.contracts.provider < registered).all()


def test_ids_of_events_are_ids_and_places_are_places() -> None:
    model, events, _ = default_run()
    counties = {code for code, county in COUNTIES.items() if county.kind != "zone"}
    for month in events[::10]:
        for notice in month.notices:
            assert is_id(notice.id)
        for enterprise in month.contracts.enterprise[:20].tolist():
            name = model.world.identify(enterprise)
            assert is_id(name)
            assert name[:6] in counties


def test_cutting_the_county_share_costs_enterprises_and_centres_bring_them_where_they_stand() -> None:
    _, _, table = default_run()
    cut, west = run(load_scenario("county-share-cut")), run(load_scenario("west-centres"))
    assert cut.values["enterprises_on_cloud"][-1] < table.values["enterprises_on_cloud"][-1]
    assert cut.redeemed[-1, LEVELS.index("county")] == 0
    gained = west.enterprises_by_city[-1] - table.enterprises_by_city[-1]
    assert gained.sum() > 0
    before = slice(0, index_of("2019-03"))
    assert (west.enterprises_by_city[before] == table.enterprises_by_city[before]).all()
    from qilu_programme.world import CITY_CODES

    best = {CITY_CODES[index] for index in np.argsort(-gained)[:3]}
    assert best == {"371400", "371500", "371700"}  # Dezhou, Liaocheng, Heze


def test_pools_hold_in_the_run() -> None:
    model, _, table = default_run()
    for (level, year), pools in model.pools.items():
        assert pools.budgets.sum() == DEFAULT.pools[level][year]
        assert (pools.clawed_back <= pools.redeemed).all()
        assert (pools.redeemed <= pools.granted).all()
        assert (pools.granted <= pools.budgets).all()
    assert (table.redeemed <= table.granted).all()
    assert (table.clawed_back <= table.redeemed).all()
    assert table.clawed_back[-1].sum() > 0


@settings(max_examples=4)
@given(
    seed=st.integers(0, 2**63 - 1),
    name=st.sampled_from(sorted(SETS)),
    shares=st.tuples(*[st.floats(0, 0.25)] * 3),
    pool=st.integers(0, 50_000_000),
    hazard=st.floats(0, 3),
)
def test_the_invariants_hold_under_any_policy(
    seed: int, name: str, shares: tuple[float, float, float], pool: int, hazard: float
) -> None:
    scenario = replace(
        DEFAULT,
        seed=seed,
        set=SETS[name],
        hazard=hazard,
        shares=dict(zip(LEVELS, shares, strict=True)),
        pools={level: dict.fromkeys(DEFAULT.pools[level], pool) for level in LEVELS},
    )
    model = Model(scenario)
    began = np.full(model.world.enterprises, MONTHS)
    months = []
    for month in model.events():
        new = month.contracts.enterprise
        began[new] = np.minimum(began[new], month.month)
        assert (began[month.paid] < month.month).all()
        months.append(month)
    table = tabulate(model.world, months)
    for pools in model.pools.values():
        assert (pools.redeemed <= pools.granted).all()
        assert (pools.granted <= pools.budgets).all()
        assert (pools.clawed_back <= pools.redeemed).all()
    assert (table.enterprises_by_city.sum(axis=1) == table.values["enterprises_on_cloud"]).all()
    assert (table.units_by_city.sum(axis=1) == table.values["units_on_cloud"]).all()
    assert table.values["enterprises_on_cloud"][-1] == np.count_nonzero(began < MONTHS)
    assert table.values["enterprises_on_cloud"][0] == 20_000


@given(st.integers(0, 10**7), st.lists(st.floats(0.001, 1e6), min_size=1, max_size=50))
def test_spreading_keeps_the_total(total: int, weights: list[float]) -> None:
    parts = spread(total, np.array(weights))
    assert parts.sum() == total
    assert (parts >= 0).all()


def test_every_figure_has_a_mark_and_a_source() -> None:
    assert {found.mark for found in FIGURES.values()} <= set("SCNA")
    assert all(found.source and found.unit for found in FIGURES.values())


def test_every_figure_is_used() -> None:
    from importlib.resources import files

    code = "".join(
        entry.read_text(encoding="utf-8")
        for entry in files("qilu_programme").iterdir()
        if entry.name.endswith(".py")
    )
    for name in FIGURES:
        head, _, tail = name.rpartition(".")
        stem = head.rpartition(".")[0]
        spoken = (f'"{name}"', f'"{head}"', f'"{head}.{{', f'"{stem}.{{', f'f"{head}.{{')
        assert any(text in code for text in spoken), (
            f"{name} ({tail}) is in figures.csv but nowhere in the code"
        )


def test_months_run_from_launch_to_the_end_of_2022() -> None:
    assert len(LABELS) == 63
    assert (LABELS[0], LABELS[-1]) == ("2017-10", "2022-12")
    assert index_of("2020-10") == CHECKPOINT == 36
    for bad in ("2017-09", "2023-01", "2020-13", "2020-1", "soon"):
        with pytest.raises(ValueError):
            index_of(bad)
