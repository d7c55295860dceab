"""Physics of the simulated classes: relations that must hold whatever the constants."""

import numpy as np
import pytest
from numpy.typing import NDArray
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_devices.classes import KERNELS
from qilu_devices.classes.blast_furnace import (
    HOT_METAL_CARBON_KG,
    NM3_PER_KMOL,
    BlastFurnaces,
    blast_nm3_per_t,
    carbon_kg,
)
from qilu_devices.classes.boiler import Boilers, efficiency, excess_air
from qilu_devices.classes.motor import RATED_VOLTAGE_V, SYNCHRONOUS_RPM, Motors
from qilu_devices.classes.wind_turbine import REFERENCE_DENSITY, air_density, power_kw
from qilu_devices.kernel import Kernel
from qilu_devices.noise import Streams, keys_of
from qilu_devices.steam import saturation_c, steam_enthalpy, water_enthalpy

UNITS = 200
MONDAY_10_H = 1_509_328_800_000  # 30 October 2017, 10:00 in Shandong
HOUR_MS = 3_600_000
Series = dict[str, NDArray[np.float64]]


def streams(prefix: str, share: int = 1) -> Streams:
    return Streams(keys_of(11, [f"{prefix}{i // share}" for i in range(UNITS)]))


def build(name: str) -> Kernel:
    return KERNELS[name](streams("unit"), streams("enterprise", 10), float(CATALOGUE[name].base_interval_s))


def observe(kernel: Kernel, name: str, steps: int, begin_ms: int = MONDAY_10_H) -> Series:
    base_ms = CATALOGUE[name].base_interval_s * 1000
    times = np.full(UNITS, begin_ms, dtype=np.int64)
    produced = [kernel.step(k, times + k * base_ms) for k in range(steps)]
    return {signal: np.array([step[signal] for step in produced]) for signal in produced[0]}


@pytest.mark.parametrize("name", list(CATALOGUE))
def test_every_signal_of_the_catalogue_is_made_within_its_bounds(name: str) -> None:
    series = observe(build(name), name, 800)
    assert set(series) == {signal.name for signal in CATALOGUE[name].signals}
    for signal in CATALOGUE[name].signals:
        values = series[signal.name]
        assert np.isfinite(values).all()
        outside = np.mean((values < signal.low) | (values > signal.high))
        assert outside < 1e-3, signal.name


@pytest.mark.parametrize("name", list(CATALOGUE))
def test_every_signal_that_can_vary_does(name: str) -> None:
    kernel = build(name)
    day = observe(kernel, name, 60)
    base_ms = CATALOGUE[name].base_interval_s * 1000
    night = np.full(UNITS, MONDAY_10_H + 16 * HOUR_MS)
    late = [kernel.step(k, night + k * base_ms) for k in range(60, 120)]
    for signal in CATALOGUE[name].signals:
        values = np.concatenate([day[signal.name], [step[signal.name] for step in late]])
        assert np.ptp(values) >= signal.resolution, signal.name


def test_wind_power_rises_with_wind_below_rated_and_is_flat_above() -> None:
    wind = np.linspace(3.0, 15.0, 200)
    power = power_kw(wind, np.full_like(wind, REFERENCE_DENSITY))
    assert (np.diff(power) > 0.0).all()
    assert (power_kw(np.array([16.0, 24.0]), np.full(2, REFERENCE_DENSITY)) == 2050.0).all()
    assert power_kw(np.array([8.0]), air_density(np.array([-10.0]))) > power_kw(
        np.array([8.0]), air_density(np.array([35.0]))
    )


def test_a_wind_turbines_signals_hang_together() -> None:
    series = observe(build("wind_turbine"), "wind_turbine", 500)
    wind, power, rpm = series["wind_speed"], series["active_power"], series["rotor_speed"]
    standing = power < 0.0
    assert (power[wind < 3.0] < 0.0).all()
    assert (rpm[standing] == 0.0).all()
    assert 0.005 < standing[wind > 4.0].mean() < 0.1  # for repair
    assert np.corrcoef(wind[~standing], power[~standing])[0, 1] > 0.9
    fine = series["pitch_angle"][~standing & (wind > 4.0) & (wind < 10.0)] == -1.0
    assert fine.mean() > 0.9  # the others are held back by the grid
    above = series["gearbox_bearing_temp"] - series["outdoor_temp"]
    assert np.corrcoef(power[10:].ravel(), above[10:].ravel())[0, 1] > 0.6


def test_turbines_of_one_farm_share_most_of_their_wind() -> None:
    wind = observe(build("wind_turbine"), "wind_turbine", 3000)["wind_speed"]
    assert np.corrcoef(wind[:, 0], wind[:, 1])[0, 1] > 0.8


def test_motor_power_is_electric_and_slip_follows_load() -> None:
    kernel = Motors(streams("unit"), streams("enterprise", 10), 10.0)
    series = observe(kernel, "motor", 100)
    running = series["power_in"] > 0.0
    apparent = np.sqrt(3.0) * series["voltage"] * series["current"] / 1000.0
    factor = series["power_in"][running] / apparent[running]
    assert ((factor > 0.2) & (factor < 0.92)).all()
    assert series["speed"][running] == pytest.approx(
        SYNCHRONOUS_RPM * (1.0 - series["slip"][running] / 100.0)
    )
    assert (series["power_in"][-1] >= kernel.load * kernel.rated_kw).all()  # more goes in than comes out
    for unit in np.flatnonzero(running.all(axis=0))[:20]:
        assert np.corrcoef(series["slip"][:, unit], series["power_in"][:, unit])[0, 1] > 0.95


def test_voltage_stays_within_5_percent() -> None:
    voltage = observe(build("motor"), "motor", 500)["voltage"]
    assert np.abs(voltage / RATED_VOLTAGE_V - 1.0).max() < 0.05 + 1e-9


def test_a_motor_warms_under_load_and_cools_to_the_hall_when_it_stands() -> None:
    kernel = Motors(streams("unit"), streams("enterprise", 10), 10.0)
    begin_ms = MONDAY_10_H + 6 * HOUR_MS
    day = observe(kernel, "motor", 6 * 360 + 13 * 360, begin_ms)  # from 16:00 to 11:00 of the next day
    night = slice(8 * 360, 13 * 360)  # midnight to five
    stood = (day["speed"][night] == 0.0).all(axis=0) & (day["speed"][0] > 0.0)
    assert stood.any()
    for unit in np.flatnonzero(stood):
        still = day["winding_temp"][night, unit]
        assert still[0] > still[-1]
        assert still[-1] < 35.0
        assert (day["current"][night, unit] == 0.0).all()
    always = (day["speed"] > 0.0).all(axis=0)
    end = day["winding_temp"][13 * 360 - 1]
    assert end[always].min() > end[stood].max()


def test_single_shift_motors_rest_at_night_and_some_on_sundays() -> None:
    kernel = Motors(streams("unit"), streams("enterprise", 10), 10.0)

    def share(t_ms: int) -> float:
        return float(kernel.running(np.full(UNITS, t_ms)).mean())

    day, night, sunday = MONDAY_10_H, MONDAY_10_H + 16 * HOUR_MS, MONDAY_10_H + 6 * 24 * HOUR_MS
    assert share(day) > 0.9  # some are stopped for maintenance
    assert 0.0 < share(night) < share(sunday) < share(day)


def test_steam_table_meets_the_computed_points() -> None:
    gauge = np.array([1.25])
    assert saturation_c(gauge)[0] == pytest.approx(193.4, abs=0.4)
    feed = water_enthalpy(np.array([105.0]))[0]
    assert feed == pytest.approx(441.1, abs=1.0)
    assert steam_enthalpy(gauge, saturation_c(gauge))[0] - feed == pytest.approx(2346.6, abs=2.0)
    assert steam_enthalpy(gauge, np.array([350.0]))[0] - feed == pytest.approx(2710.0, abs=6.0)


def test_the_heat_balance_of_a_boiler_closes() -> None:
    kernel = Boilers(streams("unit"), streams("enterprise", 10), 5.0)
    series = observe(kernel, "boiler", 200)
    last = {name: values[-1] for name, values in series.items()}
    rise = steam_enthalpy(last["steam_pressure"], last["steam_temp"]) - water_enthalpy(last["feedwater_temp"])
    into_steam = 1000.0 * last["steam_flow"] * rise
    lit = last["steam_flow"] > 0.0
    assert 0.3 < lit.mean() < 0.9  # a Monday in October: what heats is out
    given = kernel.efficiency * kernel.fuel_kg_h * kernel.lhv_kj_kg
    assert into_steam[lit] == pytest.approx(given[lit])
    assert (given[~lit] == 0.0).all()
    assert ((kernel.efficiency[lit] > 0.7) & (kernel.efficiency[lit] < 0.97)).all()


def test_20_degrees_of_flue_gas_cost_1_percent_of_the_fuel() -> None:
    load, o2, ambient = np.full(1, 0.8), np.full(1, 9.0), np.full(1, 15.0)
    cool, hot = (efficiency(load, np.full(1, t), o2, ambient)[0] for t in (140.0, 160.0))
    assert cool - hot == pytest.approx(0.01, abs=0.001)


def test_boilers_are_saturated_or_superheated_and_fire_with_more_air_at_low_load() -> None:
    kernel = Boilers(streams("unit"), streams("enterprise", 10), 5.0)
    series = observe(kernel, "boiler", 400)
    lit = series["steam_flow"].min(axis=0) > 0.0
    saturation = saturation_c(series["steam_pressure"])
    assert (series["steam_temp"] >= saturation - 1e-9)[:, lit].all()
    small = (kernel.size_tph <= 15.0) & lit
    assert series["steam_temp"][:, small] == pytest.approx(saturation[:, small])
    load = series["steam_flow"] / kernel.size_tph
    for fuel in (kernel.is_gas & lit, ~kernel.is_gas & lit):
        assert np.corrcoef(load[-1, fuel], series["flue_O2"][-1, fuel])[0, 1] < 0.0
        assert np.corrcoef(load[-1, fuel], series["flue_temp"][-1, fuel])[0, 1] > 0.3
    assert excess_air(np.array([7.0]))[0] == pytest.approx(0.5)


def test_top_gas_is_one_balance_of_carbon_nitrogen_and_hydrogen_and_eta_its_definition() -> None:
    kernel = BlastFurnaces(streams("unit"), streams("enterprise", 10), 10.0)
    series = observe(kernel, "blast_furnace", 300)
    total = series["top_gas_CO"] + series["top_gas_CO2"]
    assert series["eta_CO"] == pytest.approx(series["top_gas_CO2"] / total)
    carbon = carbon_kg(series["coke_rate"], series["pci_rate"])
    oxygen = 0.21 + series["oxygen_enrichment"] / 100.0
    gas_nm3 = (carbon - HOT_METAL_CARBON_KG) / 12.011 * NM3_PER_KMOL
    nitrogen = total * blast_nm3_per_t(carbon, oxygen) * (1.0 - oxygen) / gas_nm3
    blown = (series["blast_volume"] > 1.5).all(axis=0)  # the others are off, their gas is purged
    assert blown.mean() > 0.8
    assert (total + nitrogen + series["top_gas_H2"])[:, blown] == pytest.approx(100.0)
    assert series["coke_rate"] + series["pci_rate"] == pytest.approx(series["fuel_rate"])


def test_permeability_is_volume_over_pressure_drop() -> None:
    series = observe(build("blast_furnace"), "blast_furnace", 100)
    blown = series["blast_volume"] > 1.5
    drop = (series["blast_pressure"] - series["top_pressure"])[blown]
    assert series["permeability"][blown] == pytest.approx(series["blast_volume"][blown] / drop)


def test_hot_metal_lags_the_fuel_by_hours() -> None:
    series = observe(build("blast_furnace"), "blast_furnace", 9000)
    fuel = series["fuel_rate"] - series["fuel_rate"].mean(axis=0)
    metal = series["hot_metal_temp"] - series["hot_metal_temp"].mean(axis=0)

    def together(lag_h: float) -> float:
        lag = int(lag_h * 360)
        return float(np.mean(fuel[: len(fuel) - lag] * metal[lag:]))

    assert together(3.0) > together(0.0) > 0.0
    assert (
        np.corrcoef(series["hot_metal_Si"][::720].ravel(), series["hot_metal_temp"][::720].ravel())[0, 1]
        > 0.5
    )
