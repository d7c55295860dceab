"""Each sourced row of docs/equipment/realism.md, measured from seeded runs: within a factor of 1.5 of a real
deviation or ratio, within 0.1 of a correlation, and of the right sign. `real` is the figure of the source."""

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from qilu_contract.catalogue.limits import alarm_limits
from qilu_devices.classes import KERNELS
from qilu_devices.classes.blast_furnace import hydrogen_nm3, top_gas_percent
from qilu_devices.classes.boiler import Boilers
from qilu_devices.classes.compressor import SWITCHED_UP_TO_KW, Compressors
from qilu_devices.classes.pump import converter_speed, efficiency, flow_share, head_m, shaft_power
from qilu_devices.classes.reactor import TRIP_KPA
from qilu_devices.kernel import SOUND, severities
from qilu_devices.noise import Streams, keys_of
from qilu_devices.weather import Enterprises

MONDAY_10_H = 1_509_328_800_000  # 30 October 2017, 10:00 in Shandong
JANUARY_1 = 1_640_966_400_000  # 2022, 00:00 in Shandong
HOUR_MS, DAY_MS = 3_600_000, 86_400_000
Array = NDArray[np.float64]
Series = dict[str, Array]


def close(found: float, real: float) -> bool:
    """Of the right sign, and within a factor of 1.5."""
    return 1.0 / 1.5 <= found / real <= 1.5


def streams(units: int) -> list[Streams]:
    return [Streams(keys_of(11, [f"{prefix}{i}" for i in range(units)])) for prefix in ("unit", "enterprise")]


@cache
def observed(
    name: str, units: int, interval_s: int, steps: int, fault: str = "", severity: float = 1.0, onset: int = 0
) -> Series:
    """Units that share no enterprise; with a fault, all have it from step `onset` on."""
    kernel = KERNELS[name](*streams(units), float(interval_s))
    times = np.full(units, MONDAY_10_H, dtype=np.int64)
    ill = severities({fault: np.full(units, severity)}) if fault else SOUND
    produced = [
        kernel.step(k, times + k * interval_s * 1000, ill if k >= onset else SOUND) for k in range(steps)
    ]
    return {signal: np.array([step[signal] for step in produced]) for signal in produced[0]}


def variation(values: Array) -> float:
    """Coefficient of variation of a unit, in the mean."""
    return float(np.mean(np.nanstd(values, axis=0) / np.nanmean(values, axis=0)))


def memory(values: Array, lag: int) -> float:
    centred = values - np.nanmean(values, axis=0)
    return float(
        np.nanmean(np.nanmean(centred[lag:] * centred[:-lag], axis=0) / np.nanmean(centred**2, axis=0))
    )


# --- the reactor beside Tennessee Eastman


def answer(fault: str, signal: str, hours: float = 10.0) -> Array:
    """Change of a signal since the onset, in its deviations in normal operation; a row a step of 3 min."""
    steps = int(20 * hours)
    sound, faulty = observed("reactor", 20, 180, steps), observed("reactor", 20, 180, steps, fault)
    return (faulty[signal] - sound[signal]) / observed("reactor", 100, 180, 500)[signal].std()


def test_pressure_and_purge_of_a_reactor_correlate_like_the_data() -> None:
    series = observed("reactor", 100, 180, 500)
    pairs = zip(series["reactor_pressure"].T, series["purge_rate"].T, strict=True)
    found = np.mean([np.corrcoef(pressure, purge)[0, 1] for pressure, purge in pairs])
    assert found == pytest.approx(-0.31, abs=0.1)


def test_a_reactor_takes_back_the_jump_of_idv4_within_minutes() -> None:
    jump = answer("idv4", "reactor_temp").mean(axis=1)
    assert close(jump[0], 10.0)
    assert jump[1] < 0.5 * jump[0]
    assert np.abs(jump[5:].mean()) < 0.5
    assert answer("idv4", "cooling_valve")[20:].mean() == pytest.approx(7.8, rel=0.2)  # and it stays open


def test_the_loss_of_feed_a_raises_the_pressure_for_hours_and_trips_the_plant() -> None:
    faulty = observed("reactor", 20, 180, 200, "idv6")
    tripped = np.argmax(faulty["reactor_pressure"] >= TRIP_KPA, axis=0) / 20.0  # hours
    assert ((tripped > 4.0) & (tripped < 9.0)).all()
    pressure = answer("idv6", "reactor_pressure").max(axis=0).mean()
    assert close(pressure, 43.0)
    assert close(answer("idv6", "purge_rate")[100:].mean(), -9.0)
    for signal, values in faulty.items():
        assert (values[-10:] == values[-1]).all(), signal


def test_a_reactor_has_its_feed_back_within_40_minutes_of_idv7() -> None:
    fallen = answer("idv7", "feed_AC").mean(axis=1)
    assert fallen[:3].min() < -5.0
    assert fallen[13:17].mean() > 0.33 * fallen[:3].min()


# --- the pump beside SKAB's rig


def pump(signal: str, fault: str = "", severity: float = 1.0) -> Array:
    """Half an hour in steps of 5 s, of pumps at work, the first minutes left out."""
    always = (observed("pump", 60, 5, 400)["flow"] > 0.0).all(axis=0)
    return observed("pump", 60, 5, 400, fault, severity)[signal][40:, always]


def change(signal: str, fault: str, severity: float = 1.0) -> float:
    """Of the mean, relative."""
    return float((pump(signal, fault, severity).mean(axis=0) / pump(signal).mean(axis=0) - 1.0).mean())


def test_imbalance_shakes_a_pump_and_does_not_warm_it() -> None:
    assert close(1.0 + change("casing_accel", "rotor_imbalance"), 2.8)
    assert change("body_temp", "rotor_imbalance") == pytest.approx(-0.002, abs=0.005)


def test_bubbles_take_and_shake_the_flow_of_every_pump_that_cavitates() -> None:
    assert close(change("flow", "cavitation"), -0.33)
    shaken = pump("flow", "cavitation").std(axis=0) / pump("flow").std(axis=0)
    assert close(float(np.median(shaken)), 15.0)
    least = pump("casing_accel", "cavitation", 0.5).mean(axis=0) / pump("casing_accel").mean(axis=0)
    assert least.min() > 1.3


def test_a_valve_that_closes_takes_flow() -> None:
    assert -0.23 <= change("flow", "valve_closure") <= -0.1
    assert -0.12 <= change("flow", "valve_closure", 0.5) <= -0.015


def test_the_current_of_a_throttled_pump_falls_at_fixed_speed_and_rises_with_a_converter() -> None:
    """The rig's changes by +.3 %, within the error of its mean. By affinity law and power curve it falls at
    fixed speed, but no more than flow does, and a converter that holds the flow takes more."""
    sound, closed = pump("current"), pump("current", "valve_closure")
    change_of = closed.mean(axis=0) / sound.mean(axis=0) - 1.0
    speed = [pump("speed", fault).mean(axis=0) for fault in ("", "valve_closure")]
    fixed = np.abs(speed[1] / speed[0] - 1.0) < 0.005
    assert 10 < fixed.sum() < len(fixed) - 10
    assert -0.06 < change_of[fixed].mean() < 0.0
    assert change_of[~fixed].mean() > 0.0
    assert -0.03 < change_of.mean() < 0.03


def alarms(class_name: str, signal: str, values: Array, interval_s: int) -> Array:
    """How often each unit's alarm begins, with the limit's delay and distance back."""
    limit = alarm_limits(class_name)[signal]
    found = np.zeros(values.shape[1])
    for unit, series in enumerate(values.T.tolist()):
        is_open, for_s = False, 0.0
        for value in series:
            changes = limit.kept(value) if is_open else limit.breached(value)
            for_s = for_s + interval_s if changes else 0.0
            if for_s > limit.delay_s:
                is_open, for_s = not is_open, 0.0
                found[unit] += is_open
    return found


@pytest.mark.parametrize("severity", [0.5, 1.0])
def test_a_pump_that_cavitates_rings_once_and_not_all_day(severity: float) -> None:
    shaking = observed("pump", 30, 5, 2160, "cavitation", severity)["casing_accel"]
    rang = alarms("pump", "casing_accel", shaking, 5)
    assert rang.max() >= 1
    # Three hours: those that ring do so once, and again only if the suction recovered meanwhile.
    assert rang[rang > 0].mean() < 2.0
    assert alarms("pump", "casing_accel", observed("pump", 30, 5, 2160)["casing_accel"], 5).sum() == 0


def test_a_pump_is_as_steady_and_as_slow_as_the_rig() -> None:
    series = observed("pump", 60, 1, 600)
    always = (series["flow"] > 0.0).all(axis=0)
    assert close(variation(series["casing_accel"][:, always]), 0.022)
    assert close(variation(series["current"][:, always]), 0.20)
    closing = observed("pump", 60, 1, 600, "valve_closure", 1.0, 200)["flow"][:, always]
    moved = closing[200:] / series["flow"][200:, always] - 1.0
    done = moved / moved[-1]
    took = np.argmax(done > 0.9, axis=0) - np.argmax(done > 0.1, axis=0)
    assert ((took >= 8) & (took <= 76)).all()


# --- the blast furnace beside two measured ones


@cache
def furnaces() -> tuple[Series, NDArray[np.bool_]]:
    """Six months of furnaces, hourly, and a mask of the hours with the blast on."""
    series = observed("blast_furnace", 12, 3600, 4392)
    return series, series["blast_volume"] > 0.8 * np.median(series["blast_volume"], axis=0)


def blown(signal: str) -> Array:
    series, on = furnaces()
    return np.where(on, series[signal], np.nan)


@pytest.mark.parametrize(
    ("signal", "real"),
    [("blast_volume", 0.05), ("top_gas_temp", 0.22), ("eta_CO", 0.039), ("top_gas_H2", 0.13)],
)
def test_a_furnace_varies_as_measured(signal: str, real: float) -> None:
    assert close(variation(blown(signal)), real)


@pytest.mark.parametrize(
    ("signal", "real"), [("blast_volume", 0.56), ("top_pressure", 0.71), ("top_gas_H2", 0.71)]
)
def test_a_furnace_remembers_yesterday_as_measured(signal: str, real: float) -> None:
    assert memory(blown(signal), 24) == pytest.approx(real, abs=0.1)


def test_silicon_varies_as_measured_from_cast_to_cast_and_in_all() -> None:
    silicon = blown("hot_metal_Si")[::2]
    assert close(float(np.nanstd(silicon, axis=0).mean()), 0.110)
    assert close(float(np.nanstd(np.diff(silicon, axis=0), axis=0).mean()) / 2.0**0.5, 0.060)


def test_a_furnace_stops_as_often_as_measured_and_is_without_coal_as_long() -> None:
    series, _ = furnaces()
    off = series["blast_volume"] < 0.3
    assert close(float((np.diff(off.astype(np.int8), axis=0) == 1).sum(axis=0).mean()), 61.0)
    assert close(float((series["pci_rate"] < 5.0).mean()), 0.10)


@settings(max_examples=60, deadline=None)
@given(st.floats(300.0, 600.0), st.floats(0.0, 200.0), st.floats(0.0, 0.06), st.floats(0.0, 100.0))
def test_top_gas_is_always_whole(coke: float, coal: float, oxygen: float, water: float) -> None:
    one = np.ones(1)
    hydrogen = hydrogen_nm3(coke * one, coal * one, water * one)
    parts = top_gas_percent((0.87 * coke + 0.78 * coal) * one, (0.21 + oxygen) * one, hydrogen)
    assert sum(parts) == pytest.approx(100.0)
    assert all((part >= 0.0).all() for part in parts)


@settings(max_examples=60, deadline=None)
@given(st.floats(1.35, 1.5), st.floats(0.8, 1.0), st.floats(0.2, 0.5), st.floats(0.1, 3.0))
def test_pump_and_network_have_the_same_head(
    steep: float, speed: float, static: float, friction: float
) -> None:
    one = np.ones(1)
    share = flow_share(steep * one, speed * one, static * one, friction * one)
    assert head_m(one, share, speed * one, steep) == pytest.approx(static + friction * share * share)


@settings(max_examples=60, deadline=None)
@given(st.floats(1.35, 1.5), st.floats(0.5, 1.0), st.floats(0.2, 0.5), st.floats(0.1, 3.0))
def test_a_converter_holds_the_flow_until_it_gives_rated_speed(
    steep: float, wanted: float, static: float, friction: float
) -> None:
    one = np.ones(1)
    speed = converter_speed(steep * one, wanted * one, static * one, friction * one)
    share = flow_share(steep * one, speed, static * one, friction * one)
    assert speed <= 1.0
    assert share == pytest.approx(wanted) if speed < 1.0 else share <= wanted * 1.000_001


@settings(max_examples=60, deadline=None)
@given(st.floats(1.35, 1.5))
def test_a_pump_is_best_at_its_rated_flow_and_the_steeper_the_less_its_power_falls(steep: float) -> None:
    share, one = np.linspace(0.02, 1.2, 60), np.ones(60)
    eta = efficiency(0.75 * one, share, one, steep)
    assert eta.max() == pytest.approx(0.75)
    assert share[eta.argmax()] == pytest.approx(1.0)
    power = shaft_power(steep, share, one)
    assert (np.diff(power) >= -1e-12).all()
    assert power[0] >= 2.0 * (steep - 1.0)


# --- the others


def test_a_motor_that_a_pressure_switch_stops_is_off_as_long_as_the_measured_one() -> None:
    """A train's air supply, which a pressure switch stops, was off for 75 % of the time."""
    series = observed("compressor", 40, 20, 4320)
    keys, others = streams(40)
    switched = Compressors(keys, others, 20.0).size_kw <= SWITCHED_UP_TO_KW
    off = (series["power_in"] <= 0.0).mean(axis=0)
    assert close(float(off[switched].mean()), 0.75)
    assert off[~switched].mean() < off[switched].mean()  # they idle for some minutes first


def test_a_leak_loads_a_compressor_without_end_and_takes_pressure() -> None:
    sound, leaking = (observed("compressor", 60, 10, 2000, fault) for fault in ("", "system_leak"))
    on = slice(800, None)
    assert leaking["loaded"][on].mean() > 0.85
    lost = leaking["discharge_pressure"][on].mean() / sound["discharge_pressure"][on].mean() - 1.0
    assert close(lost, -0.08)
    assert close(leaking["discharge_temp"][on].mean() - sound["discharge_temp"][on].mean(), 11.0)


def test_boilers_that_heat_are_lit_as_often_as_a_campus_and_rarely_in_june() -> None:
    units = 160
    keys = Streams(keys_of(11, [f"unit{i}" for i in range(units)]))
    kernel = Boilers(keys, Enterprises(11, [f"37{i % 16 + 1:02d}01-{i}" for i in range(units)]), 3600.0)
    hours = JANUARY_1 + HOUR_MS * np.arange(8760)
    lit = np.array(
        [
            kernel._lit(np.full(units, hour), kernel._weather.outdoor_c(np.full(units, hour)))
            for hour in hours.tolist()
        ]
    )[:, kernel._heats]
    assert close(float((np.diff(lit, axis=0) > 0).sum(axis=0).mean()), 55.0)
    june = lit[151 * 24 : 181 * 24]
    assert close(float(june.mean()), 0.04)


def test_a_gas_boiler_burns_hotter_and_with_less_air_at_full_load() -> None:
    kernel = Boilers(*streams(200), 60.0)
    times = np.full(200, MONDAY_10_H, dtype=np.int64)
    produced = [kernel.step(k, times + k * 60_000) for k in range(240)][60:]
    load = np.array([step["steam_flow"] for step in produced]) / kernel.size_tph
    gas = kernel.is_gas & (load.min(axis=0) > 0.3)
    assert gas.sum() > 10
    by_load = {"flue_temp": 25.0, "flue_O2": -0.9}
    for signal, real in by_load.items():
        values = np.array([step[signal] for step in produced])
        # Of each boiler against its own mean: from .3 to all of its load.
        x, y = (v[:, gas] - v[:, gas].mean(axis=0) for v in (load, values))
        assert close(0.7 * float((x * y).sum() / (x * x).sum()), real)


@pytest.mark.parametrize(("life", "real"), [(0.5, 1.0), (0.6, 1.2), (0.8, 1.3), (0.9, 1.8), (0.98, 3.1)])
def test_a_bearing_shakes_late_in_its_life(life: float, real: float) -> None:
    sound, worn = observed("motor", 40, 60, 40), observed("motor", 40, 60, 40, "bearing", life)
    always = (sound["speed"] > 0.0).all(axis=0)
    assert close(float((worn["vibration"] / sound["vibration"])[:, always].mean()), real)


def test_a_broken_bearing_shows_as_in_seeded_ones_and_a_sound_motor_hardly_varies() -> None:
    sound, worn = observed("motor", 40, 60, 40), observed("motor", 40, 60, 40, "bearing")
    always = (sound["speed"] > 0.0).all(axis=0)
    assert 0.9 <= float((worn["vibration"] / sound["vibration"])[:, always].mean()) <= 1.5 * 2.7
    assert 1.6 <= float((worn["envelope"] / sound["envelope"])[:, always].mean()) <= 18.0
    assert close(variation(sound["vibration"][:, always]), 0.012)


def test_an_arm_stands_half_of_its_time_and_its_cycles_vary_as_measured() -> None:
    series = observed("robot", 60, 7, 1200)
    at_work = (series["torque_2"] > 0.0).all(axis=0)
    cycles = series["cycle_time"][:, at_work]
    assert close(variation(cycles), 0.39)


def test_cnc_machines_clamp_a_part_before_they_cut_it_and_torque_varies_within() -> None:
    series = observed("cnc", 100, 5, 1500)
    cutting = series["spindle_speed"] > 0.0
    busy = cutting.any(axis=0)
    assert 0.5 < cutting[:, busy].mean() < 0.9  # A
    torque, parts = series["torque"], series["parts"]
    same = (np.diff(parts, axis=0) == 0) & cutting[1:] & cutting[:-1]
    steps = np.diff(torque, axis=0)[same]
    assert 1.0 < steps.std() < 5.0  # A: cuts of a quarter of a minute


@cache
def turbines() -> Series:
    units = 100
    keys = Streams(keys_of(11, [f"unit{i}" for i in range(units)]))
    places = Enterprises(11, [f"37{i // 4 % 16 + 1:02d}01-{i // 4}" for i in range(units)])
    kernel = KERNELS["wind_turbine"](keys, places, 600.0)
    times = JANUARY_1 + DAY_MS * (np.arange(units, dtype=np.int64) * 29 % 365)
    produced = [kernel.step(k, times + k * 600_000) for k in range(1440)]
    return {
        signal: np.array([step[signal] for step in produced]) for signal in ("wind_speed", "active_power")
    }


def test_turbines_stand_in_the_wind_as_often_as_measured_and_change_in_jumps() -> None:
    wind, power = turbines()["wind_speed"], turbines()["active_power"]
    assert close(float((power[wind > 4.0] <= 0.0).mean()), 0.046)
    jumps = np.diff(power, axis=0)
    jumps = jumps - jumps.mean()
    assert close(float((jumps**4).mean() / (jumps**2).mean() ** 2), 19.0)
