"""Each row of docs/equipment/realism.md that has a source is within its spread, and the page has what is
measured; and properties of the models behind the rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from limit_alarms import STEP_S, alarms, day_of
from qilu_contract.catalogue.limits import LIMITS, alarm_limits
from qilu_devices.classes.blast_furnace import hydrogen_nm3, top_gas_percent
from qilu_devices.classes.pump import converter_speed, efficiency, flow_share, head_m, shaft_power
from qilu_devices.classes.reactor import TRIP_KPA
from realism_province import totals
from realism_rows import ROWS, Row
from realism_runs import PAGE, answer, at_fixed_speed, changes, motors_off, observed

HELD = {
    "electricity_TWh": (500.0, 650.0),
    "boiler_coal_Mt": (90.0, 140.0),
    "hot_metal_Mt": (70.0, 85.0),
    "wind_GW": (22.0, 28.0),
    "wind_TWh": (35.0, 60.0),
    "co2_Mt": (580.0, 850.0),
}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.subject)
def test_a_row_is_within_the_spread_of_its_source_and_on_the_page(row: Row) -> None:
    assert row.within()
    # After a change to a model: .venv/bin/python tests/realism_rows.py --write
    assert row.line() in PAGE.read_text(encoding="utf-8")


def test_the_sums_of_ten_million_units_are_the_provinces() -> None:
    assert totals().keys() == HELD.keys()
    for name, (low, high) in HELD.items():
        assert low <= totals()[name] <= high, name


def test_a_reactor_takes_back_the_jump_of_idv4_while_its_valve_stays_open() -> None:
    jump = answer("idv4", "reactor_temp").mean(axis=1)
    assert np.abs(jump[5:].mean()) < 0.5
    assert answer("idv4", "cooling_valve")[20:].mean() == pytest.approx(7.8, rel=0.2)


def test_the_loss_of_feed_a_trips_every_reactor_and_freezes_all_values() -> None:
    faulty = observed("reactor", 20, 180, 200, "idv6")
    tripped = np.argmax(faulty["reactor_pressure"] >= TRIP_KPA, axis=0) / 20.0  # hours
    assert ((tripped > 4.0) & (tripped < 9.0)).all()
    for signal, values in faulty.items():
        assert (values[-10:] == values[-1]).all(), signal


def test_every_pump_that_cavitates_shakes() -> None:
    assert changes("casing_accel", "cavitation", 0.5).min() > 0.3


def test_the_current_of_a_throttled_pump_falls_at_fixed_speed_and_rises_with_a_converter() -> None:
    found, fixed = changes("current", "valve_closure"), at_fixed_speed()
    assert 10 < fixed.sum() < len(fixed) - 10
    assert -0.06 < found[fixed].mean() < 0.0
    assert found[~fixed].mean() > 0.0


@pytest.mark.parametrize("severity", [0.5, 1.0])
def test_a_pump_that_cavitates_raises_one_alarm_and_not_one_after_the_other(severity: float) -> None:
    begun = alarms(
        alarm_limits("pump")["casing_accel"], observed("pump", 30, 5, 2160, "cavitation", severity), 5
    )
    assert begun.max() >= 1
    # Three hours: those that raise one do so once, and again only if the suction recovered meanwhile.
    assert begun[begun > 0].mean() < 2.0


@pytest.mark.parametrize("name", [name for name in LIMITS if alarm_limits(name)])
def test_healthy_units_raise_no_alarm_from_one_midnight_to_the_next(name: str) -> None:
    series = day_of(name, "", 15)
    for limit in alarm_limits(name).values():
        assert alarms(limit, series, STEP_S[name]).sum() == 0.0, limit.signal


def test_a_motor_that_idles_before_it_stops_is_off_for_less_time() -> None:
    off, switched = motors_off()
    assert off[~switched].mean() < off[switched].mean()


@settings(max_examples=60)
@given(st.floats(300.0, 600.0), st.floats(0.0, 200.0), st.floats(0.0, 0.06), st.floats(0.0, 100.0))
def test_top_gas_is_always_whole(coke: float, coal: float, oxygen: float, water: float) -> None:
    one = np.ones(1)
    hydrogen = hydrogen_nm3(coke * one, coal * one, water * one)
    parts = top_gas_percent((0.87 * coke + 0.78 * coal) * one, (0.21 + oxygen) * one, hydrogen)
    assert sum(parts) == pytest.approx(100.0)
    assert all((part >= 0.0).all() for part in parts)


@settings(max_examples=60)
@given(st.floats(1.35, 1.5), st.floats(0.8, 1.0), st.floats(0.2, 0.5), st.floats(0.1, 3.0))
def test_pump_and_network_have_the_same_head(
    steep: float, speed: float, static: float, friction: float
) -> None:
    one = np.ones(1)
    share = flow_share(steep * one, speed * one, static * one, friction * one)
    assert head_m(one, share, speed * one, steep) == pytest.approx(static + friction * share * share)


@settings(max_examples=60)
@given(st.floats(1.35, 1.5), st.floats(0.5, 1.0), st.floats(0.2, 0.5), st.floats(0.1, 3.0))
def test_a_converter_holds_the_flow_until_it_gives_rated_speed(
    steep: float, wanted: float, static: float, friction: float
) -> None:
    one = np.ones(1)
    speed = converter_speed(steep * one, wanted * one, static * one, friction * one)
    share = flow_share(steep * one, speed, static * one, friction * one)
    assert speed <= 1.0
    assert share == pytest.approx(wanted) if speed < 1.0 else share <= wanted * 1.000_001


@settings(max_examples=60)
@given(st.floats(1.35, 1.5))
def test_a_pump_is_best_at_its_rated_flow_and_the_steeper_the_less_its_power_falls(steep: float) -> None:
    share, one = np.linspace(0.02, 1.2, 60), np.ones(60)
    eta = efficiency(0.75 * one, share, one, steep)
    assert eta.max() == pytest.approx(0.75)
    assert share[eta.argmax()] == pytest.approx(1.0)
    power = shaft_power(steep, share, one)
    assert (np.diff(power) >= -1e-12).all()
    assert power[0] >= 2.0 * (steep - 1.0)
