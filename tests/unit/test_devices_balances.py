"""Balances that close for every unit, whatever its season, load and fault; what work and rest do to
temperatures; how faults grow, and in which order they are seen."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_devices.classes import KERNELS
from qilu_devices.classes.blast_furnace import BlastFurnaces, blower_kw
from qilu_devices.classes.boiler import Boilers
from qilu_devices.classes.compressor import UNLOADED_SHARE, Compressors
from qilu_devices.classes.heat_treatment import Ovens, Pasteurisers, heating_duty_kw
from qilu_devices.classes.motor import Motors
from qilu_devices.classes.pump import MOTOR_EFFICIENCY, WATER_KW, Pumps
from qilu_devices.classes.robot import JOINTS, RATED_KW, STANDBY_KW, Robots
from qilu_devices.classes.wind_turbine import RADIUS_M, WindTurbines, air_density
from qilu_devices.kernel import Kernel, severities
from qilu_devices.noise import Streams, keys_of
from qilu_devices.steam import steam_enthalpy, water_enthalpy

MONDAY_10_H = 1_509_328_800_000  # 30 October 2017, 10:00 in Shandong
HOUR_MS, YEAR_MS = 3_600_000, 365 * 24 * 3_600_000
UNITS = 40
Step = dict[str, NDArray[np.float64]]
Series = dict[str, NDArray[np.float64]]


def streams(seed: int, units: int) -> list[Streams]:
    prefixes = (("unit", 1), ("enterprise", 10))
    return [Streams(keys_of(seed, [f"{prefix}{i // n}" for i in range(units)])) for prefix, n in prefixes]


def observe(name: str, interval_s: int, steps: int, begin_ms: int = MONDAY_10_H) -> Series:
    kernel = KERNELS[name](*streams(11, UNITS), float(interval_s))
    times = np.full(UNITS, begin_ms, dtype=np.int64)
    produced = [kernel.step(k, times + k * interval_s * 1000) for k in range(steps)]
    return {signal: np.array([step[signal] for step in produced]) for signal in produced[0]}


def balance(kernel: Kernel, step: Step, hours: float, used_kwh: NDArray[np.float64]) -> None:
    """Input equals output by the class's own equation; `used_kwh` is the increase of the meter in this
    step."""
    match kernel:
        case BlastFurnaces():
            blower = blower_kw(step["blast_volume"] * kernel.volume_m3, step["blast_pressure"])
            assert used_kwh == pytest.approx(blower * hours)
            assert step["fuel_rate"] == pytest.approx(step["coke_rate"] + step["pci_rate"])
            gas = step["top_gas_CO"] + step["top_gas_CO2"]
            assert step["eta_CO"] == pytest.approx(step["top_gas_CO2"] / gas)
        case WindTurbines():
            swept = np.pi * RADIUS_M**2
            in_the_wind = 0.5 * air_density(step["outdoor_temp"]) * swept * step["wind_speed"] ** 3 / 1000.0
            assert (step["active_power"] <= 16.0 / 27.0 * in_the_wind + 1e-9).all()  # Betz
            assert used_kwh == pytest.approx(np.maximum(step["active_power"], 0.0) * hours)
        case Motors():
            shaft = kernel.rated_kw * kernel.load
            estimated = step["power_in"] * step["efficiency"] / 100.0
            assert estimated == pytest.approx(shaft, rel=0.02)  # the meters' noise
            assert (step["power_in"] >= shaft).all()
            apparent = np.sqrt(3.0) * step["voltage"] * step["current"] / 1000.0
            assert (step["power_in"] <= apparent + 1e-9).all()
            running = step["speed"] > 0.0
            assert step["speed"][running] == pytest.approx(1500.0 * (1.0 - step["slip"][running] / 100.0))
            assert used_kwh == pytest.approx(step["power_in"] * hours)
        case Boilers():
            steam = steam_enthalpy(step["steam_pressure"], step["steam_temp"])
            taken = 1000.0 * step["steam_flow"] * (steam - water_enthalpy(step["feedwater_temp"]))
            given = kernel.efficiency * step["fuel_flow"] * kernel.lhv_kj_kg
            hot = step["steam_temp"] > 150.0  # a vessel that was off is colder than its steam would be
            assert taken[hot] == pytest.approx(given[hot], rel=0.02)
            assert used_kwh == pytest.approx(step["fuel_flow"] * kernel.lhv_kj_kg / 3600.0 * hours)
        case Compressors():
            loaded = step["loaded"] > 0.0
            work = step["specific_power"] * step["flow"]
            assert step["power_in"][loaded] == pytest.approx(
                work[loaded], rel=0.025
            )  # the flow meter's noise
            idle = (step["power_in"] > 0.0) & ~loaded
            most = UNLOADED_SHARE * step["specific_power"] * kernel.rated_flow
            assert (step["power_in"][idle] <= most[idle] + 1e-9).all()
            assert used_kwh == pytest.approx(step["power_in"] * hours)
        case Pumps():
            hydraulic = WATER_KW * step["flow"] * step["head"]
            shaft = MOTOR_EFFICIENCY * step["power_in"] * step["efficiency"] / 100.0
            assert hydraulic == pytest.approx(shaft, rel=0.06)  # the meters' noise
            assert used_kwh == pytest.approx(step["power_in"] * hours)
        case Pasteurisers():
            exact = heating_duty_kw(step["product_flow"], step["hold_temp"], step["regeneration"] / 100.0)
            assert step["heating_duty"] == pytest.approx(exact, rel=0.09)  # the regeneration's noise
            assert used_kwh == pytest.approx(step["heating_duty"] * hours)
        case Ovens():
            assert used_kwh == pytest.approx(kernel.rated_kw * step["burner_load"] / 100.0 * hours)
        case Robots():
            work = sum(step[f"torque_{j}"] for j in range(1, JOINTS + 1)) / (100.0 * JOINTS)
            drive = used_kwh / hours - STANDBY_KW
            assert (drive >= 0.2 * RATED_KW * work - 1e-9).all()  # from standstill
            assert (drive <= 1.2 * RATED_KW * work + 1e-9).all()  # to full speed
        case _ if "spindle_power" in step:
            power = step["torque"] * step["spindle_speed"] * np.pi / 30.0
            assert step["spindle_power"] == pytest.approx(power)
            assert (used_kwh >= step["spindle_power"] / 1000.0 * hours - 1e-9).all()
        case _ if "compressor_work" in step:
            assert used_kwh == pytest.approx((step["compressor_work"] + 60.0) * hours)
        case _:
            assert used_kwh == pytest.approx((step["power_in"] + 0.11 * step["air_flow"]) * hours)


@pytest.mark.parametrize("name", list(CATALOGUE))
@settings(max_examples=12)
@given(st.integers(0, 2**32), st.integers(0, YEAR_MS), st.integers(0, 30), st.floats(0.0, 1.0))
def test_balances_close_whatever_the_season_the_load_and_the_fault(
    name: str, seed: int, into_year_ms: int, fault: int, severity: float
) -> None:
    equipment = CATALOGUE[name]
    interval_s = equipment.base_interval_s
    kernel = KERNELS[name](*streams(seed, 8), float(interval_s))
    kind = equipment.faults[fault % len(equipment.faults)].name
    before = np.zeros(8)
    for k in range(12):
        times = np.full(8, MONDAY_10_H + into_year_ms + k * interval_s * 1000, dtype=np.int64)
        ill = severities({kind: np.full(8, severity)} if k >= 3 and severity > 0.0 else {})
        step = kernel.step(k, times, ill)
        if k > 0:
            balance(kernel, step, interval_s / 3600.0, step["energy_kWh"] - before)
        before = step["energy_kWh"]


@pytest.mark.parametrize(
    ("name", "at_work", "temperatures"),
    [
        ("cnc", "spindle_speed", ["process_temp"]),
        ("oven", "belt_load", ["zone_temp", "exhaust_temp"]),
        ("pasteuriser", "product_flow", ["hold_temp"]),
        ("motor", "speed", ["winding_temp"]),
        ("pump", "flow", ["body_temp"]),
        ("robot", "torque_2", ["motor_temp_2", "motor_temp_5"]),
    ],
)
def test_a_machine_at_work_is_warmer_than_at_rest(name: str, at_work: str, temperatures: list[str]) -> None:
    series = observe(name, 300, 24 * 12)
    for signal in temperatures:
        values = series[signal] - series["air_temp"] if name == "cnc" else series[signal]
        working = series[at_work] > 0.0
        if name == "cnc":  # it clamps parts between cuts
            near = np.array([np.roll(working, lag, axis=0) for lag in range(-6, 7)])
            working = near.any(axis=0)
        both = working.any(axis=0) & ((~working).mean(axis=0) > 0.2)  # a whole night
        assert both.any()
        for unit in np.flatnonzero(both):
            assert values[working[:, unit], unit].mean() > values[~working[:, unit], unit].mean(), signal


def test_a_wind_turbine_without_wind_cools_to_its_nacelle() -> None:
    series = observe("wind_turbine", 600, 3000)
    quiet = series["active_power"] <= 0.0
    long = np.array([quiet[k - 36 : k + 1].all(axis=0) for k in range(36, len(quiet))])  # six hours of calm
    assert long.any()
    nacelle = series["outdoor_temp"] + 6.0
    for signal in ("gearbox_bearing_temp", "generator_bearing_temp"):
        above = (series[signal] - nacelle)[36:]
        assert np.abs(above[long]).max() < 3.0
        assert above[~long].max() > 15.0


@pytest.mark.parametrize(
    ("name", "moving"),
    [("reactor", "feed_AC"), ("loom", "picks")],
)
def test_what_never_rests_never_does(name: str, moving: str) -> None:
    """Classes for which there is no idle machine."""
    series = observe(name, 600, 7 * 144)
    if name == "loom":
        assert (np.diff(series[moving][::72], axis=0) > 0.0).all()
    else:
        assert (series[moving] > 0.0).all()
