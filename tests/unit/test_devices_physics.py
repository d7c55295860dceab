"""Balances and laws that hold for every class, whatever load, season or fault."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_devices.classes import KERNELS
from qilu_devices.classes.blast_furnace import HOT_METAL_CARBON_KG, BlastFurnaces, blower_kw, carbon_kg
from qilu_devices.classes.compressor import LOAD_MPA, UNLOAD_MPA, work_ratio
from qilu_devices.classes.heat_treatment import LEGAL_C, heating_duty_kw
from qilu_devices.classes.loom import REPAIR_MIN, Looms
from qilu_devices.classes.pump import WATER_KW, efficiency, head_m
from qilu_devices.classes.robot import friction
from qilu_devices.kernel import severities
from qilu_devices.noise import Streams, keys_of

MONDAY_10_H = 1_509_328_800_000  # 30 October 2017, 10:00 in Shandong
HOUR_MS, YEAR_MS = 3_600_000, 365 * 24 * 3_600_000
UNITS = 60
Series = dict[str, NDArray[np.float64]]


def streams(seed: int, units: int = UNITS) -> tuple[Streams, Streams]:
    unit, enterprise = (
        Streams(keys_of(seed, [f"{prefix}{i}" for i in range(units)])) for prefix in ("unit", "enterprise")
    )
    return unit, enterprise


def observe(name: str, interval_s: int, steps: int, begin_ms: int = MONDAY_10_H) -> Series:
    kernel = KERNELS[name](*streams(11), float(interval_s))
    times = np.full(UNITS, begin_ms, dtype=np.int64)
    produced = [kernel.step(k, times + k * interval_s * 1000) for k in range(steps)]
    return {signal: np.array([step[signal] for step in produced]) for signal in produced[0]}


@settings(max_examples=150)
@given(
    st.sampled_from(list(CATALOGUE)),
    st.integers(0, 2**32),
    st.integers(0, YEAR_MS),
    st.integers(0, 30),
    st.floats(0.0, 1.0),
    st.sampled_from([1, 60]),
)
def test_no_signal_leaves_its_bounds(
    name: str, seed: int, into_year_ms: int, fault: int, severity: float, stretch: int
) -> None:
    equipment = CATALOGUE[name]
    interval_s = equipment.base_interval_s * stretch if name != "reactor" else 180
    if name == "compressor":
        interval_s = equipment.base_interval_s  # between two samples it has to see its limits
    kernel = KERNELS[name](*streams(seed, 8), float(interval_s))
    kind = equipment.faults[fault % len(equipment.faults)]
    # A slip, an icing or a curtailment has no more time than the catalogue gives it.
    lasting = 1 + int((kind.develop_h + kind.repair_h) * 3600 / interval_s)
    for k in range(25):
        times = np.full(8, MONDAY_10_H + into_year_ms + k * interval_s * 1000, dtype=np.int64)
        ill = severities({kind.name: np.full(8, severity)} if 5 <= k < min(5 + lasting, 20) else {})
        step = kernel.step(k, times, ill)
        for signal in equipment.signals:
            values = signal.round_all(step[signal.name])
            assert ((values >= signal.low) & (values <= signal.high)).all(), (signal.name, values)


@pytest.mark.parametrize("name", list(CATALOGUE))
@pytest.mark.parametrize("chosen", [[17], [40, 3, 25, 8, 59, 1, 30]])
def test_a_units_numbers_do_not_depend_on_the_units_beside_it(name: str, chosen: list[int]) -> None:
    ids = [f"u{n}" for n in range(UNITS)]
    kernels = [
        KERNELS[name](
            Streams(keys_of(1, [ids[n] for n in which])),
            Streams(keys_of(2, [f"e{n // 10}" for n in which])),
            float(CATALOGUE[name].base_interval_s),
        )
        for which in (range(UNITS), chosen)
    ]
    place = np.array(chosen)
    phases = np.arange(UNITS, dtype=np.int64) * 100
    for k in range(150):
        times = MONDAY_10_H + phases + k * 700_000  # a day and more, shifts and all
        ill = {
            fault.name: np.where(np.arange(UNITS) % 7 == n % 7, 0.7, 0.0) * (k % 20 > n)
            for n, fault in enumerate(CATALOGUE[name].faults)
        }
        whole = kernels[0].step(k, times, severities(ill))
        mine = {fault: severity[place] for fault, severity in ill.items() if severity[place].any()}
        part = kernels[1].step(k, times[place], severities(mine))
        for signal, values in part.items():
            assert (values == whole[signal][place]).all(), (signal, k)


@pytest.mark.parametrize("name", list(CATALOGUE))
def test_counters_start_at_zero_and_never_fall(name: str) -> None:
    series = observe(name, CATALOGUE[name].base_interval_s, 100)
    for counter in ("energy_kWh", "co2_kg", "picks"):
        if counter in series:
            assert (series[counter][0] == 0.0).all()
            assert (np.diff(series[counter], axis=0) >= 0.0).all()
    assert (series["energy_kWh"][-1] > 0.0).any()


@pytest.mark.parametrize(
    ("name", "power"),
    [
        ("motor", lambda s: s["power_in"]),
        ("compressor", lambda s: s["power_in"]),
        ("pump", lambda s: s["power_in"]),
        ("wind_turbine", lambda s: np.maximum(s["active_power"], 0.0)),
        ("reactor", lambda s: s["compressor_work"] + 60.0),
        ("pasteuriser", lambda s: s["heating_duty"]),
        ("loom", lambda s: s["power_in"] + 0.11 * s["air_flow"]),
    ],
)
def test_energy_is_the_sum_of_power_over_time(name: str, power: object) -> None:
    interval_s = CATALOGUE[name].base_interval_s
    series = observe(name, interval_s, 60)
    kw = power(series)  # type: ignore[operator]
    assert series["energy_kWh"][-1] == pytest.approx(kw[1:].sum(axis=0) * interval_s / 3600.0)


def test_emissions_follow_from_energy_or_carbon() -> None:
    for name in ("motor", "compressor", "cnc", "robot", "reactor", "pump", "loom"):
        series = observe(name, 60, 30)
        assert series["co2_kg"] == pytest.approx(0.6410 * series["energy_kWh"])
    fired = observe("boiler", 60, 30)
    lit = fired["energy_kWh"][-1] > 0.0
    per_kwh = fired["co2_kg"][-1, lit] / fired["energy_kWh"][-1, lit]
    assert {round(float(factor) / 0.0036, 3) for factor in per_kwh} == {94.6, 56.1}  # coal and gas
    gas = observe("oven", 60, 30)
    assert gas["co2_kg"] == pytest.approx(56.1 * 0.0036 * gas["energy_kWh"])
    assert observe("wind_turbine", 600, 30)["co2_kg"].max() < 100.0


def test_a_blast_furnace_emits_the_carbon_that_does_not_leave_with_the_metal() -> None:
    kernel = BlastFurnaces(*streams(3), 60.0)
    times = np.full(UNITS, MONDAY_10_H, dtype=np.int64)
    kernel.step(0, times)
    step = kernel.step(1, times + 60_000)
    blown = step["blast_volume"] > 1.5  # the others are off
    assert blown.mean() > 0.8
    carbon = carbon_kg(step["coke_rate"], step["pci_rate"])[blown] - HOT_METAL_CARBON_KG
    blower = blower_kw(step["blast_volume"] * kernel.volume_m3, step["blast_pressure"])[blown]
    from_carbon = step["co2_kg"][blown] - 0.6410 * blower / 60.0
    metal_t = from_carbon / (carbon * 44.01 / 12.011)
    per_day = metal_t * 1440.0 / kernel.volume_m3[blown]
    assert per_day == pytest.approx(step["productivity"][blown], rel=0.25)  # a figure of half a day
    # C: about 1.4 t for a tonne of hot metal.
    assert (from_carbon / metal_t).mean() == pytest.approx(1400.0, rel=0.05)


@pytest.mark.parametrize(
    ("name", "temperatures", "zero"),
    [
        ("motor", ["winding_temp"], ["power_in", "current", "speed"]),
        ("pump", ["body_temp"], ["power_in", "flow", "head"]),
        ("compressor", ["discharge_temp"], ["power_in", "flow"]),
        ("robot", [f"motor_temp_{j}" for j in range(1, 7)], ["torque_1", "following_error"]),
        ("pasteuriser", ["hold_temp"], ["heating_duty", "product_flow"]),
        ("oven", ["zone_temp", "exhaust_temp"], ["burner_load", "belt_load"]),
    ],
)
def test_an_idle_machine_cools_to_ambient_and_takes_nothing(
    name: str, temperatures: list[str], zero: list[str]
) -> None:
    interval_s = 60 if name != "compressor" else 10
    series = observe(
        name, interval_s, int(14 * 3600 / interval_s), MONDAY_10_H + 5 * HOUR_MS
    )  # 15:00 to 5:00
    idle = (series[zero[0]][-int(3 * 3600 / interval_s) :] == 0.0).all(axis=0)
    worked = series[zero[0]][0] > 0.0
    cooled = idle & worked
    assert cooled.any()
    for signal in temperatures:
        warm, cold = series[signal][0, cooled], series[signal][-1, cooled]
        assert (cold < warm).all()
        assert ((cold > 5.0) & (cold < 32.0)).all()
    for signal in zero:
        assert (series[signal][-1, cooled] == 0.0).all()


def test_a_cnc_at_rest_has_the_airs_temperature() -> None:
    series = observe("cnc", 60, 60 * 14, MONDAY_10_H + 5 * HOUR_MS)
    idle = (series["spindle_speed"][-60:] == 0.0).all(axis=0)
    assert idle.any()
    assert series["process_temp"][-1, idle] == pytest.approx(series["air_temp"][-1, idle], abs=0.01)
    assert (series["spindle_power"][-1, idle] == 0.0).all()


@pytest.mark.parametrize(
    ("name", "load", "temperature", "interval_s"),
    [
        ("motor", "slip", "winding_temp", 600),
        ("boiler", "steam_flow", "flue_temp", 60),
        ("wind_turbine", "active_power", "generator_bearing_temp", 600),
        ("compressor", "load_ratio", "discharge_temp", 10),
        ("robot", "torque_2", "motor_temp_2", 1800),
        ("pump", "power_in", "body_temp", 600),
    ],
)
def test_temperature_rises_with_load(name: str, load: str, temperature: str, interval_s: int) -> None:
    series = observe(name, interval_s, 150)
    x, y = (series[signal] - series[signal].mean(axis=0) for signal in (load, temperature))
    assert np.sum(x * y) / np.sqrt(np.sum(x * x) * np.sum(y * y)) > 0.2


def test_pumps_obey_the_affinity_laws_and_the_power_balance() -> None:
    rated, share = np.full(5, 50.0), np.linspace(0.2, 1.2, 5)
    full, slow = head_m(rated, share, np.ones(5)), head_m(rated, 0.8 * share, np.full(5, 0.8))
    assert slow == pytest.approx(0.64 * full)
    assert efficiency(rated, 0.8 * share, np.full(5, 0.8)) == pytest.approx(
        efficiency(rated, share, np.ones(5))
    )
    assert (np.diff(full) < 0.0).all()
    assert head_m(rated, np.ones(5), np.ones(5)) == pytest.approx(rated)
    series = observe("pump", 5, 50)
    running = series["flow"] > 0.0
    hydraulic = WATER_KW * series["flow"][running] * series["head"][running]
    shaft = 0.92 * series["power_in"][running] * series["efficiency"][running] / 100.0
    assert hydraulic == pytest.approx(shaft, rel=0.06)  # the meters' noise


def test_compressors_work_adiabatically_between_their_limits() -> None:
    series = observe("compressor", 10, 2000)
    working = series["power_in"] > 0.0
    pressure = series["discharge_pressure"]
    assert ((pressure[working] > LOAD_MPA - 0.05) & (pressure[working] < UNLOAD_MPA + 0.03)).mean() > 0.98
    assert work_ratio(np.array([0.7]))[0] == 1.0
    assert work_ratio(np.array([0.8]))[0] == pytest.approx(1.07, abs=0.01)  # about 7 % for 0.1 MPa
    loaded = series["loaded"] > 0.0
    kw = series["specific_power"] * 24.0 / 132.0
    assert (series["flow"][~loaded] == 0.0).all()
    idles = (working & ~loaded).any(axis=0)
    assert 5 < idles.sum() < len(idles)  # a pressure switch stops the small ones at once
    idle_kw = np.where(working & ~loaded, series["power_in"], 0.0).max(axis=0)
    assert (np.where(loaded, series["power_in"], 0.0).max(axis=0)[idles] > 2.5 * idle_kw[idles]).all()
    assert (kw > 0.0).all()
    share = loaded[working].mean()
    assert 0.4 < share < 0.99


def test_friction_is_stribecks() -> None:
    cold, warm = np.full(200, 25.0), np.full(200, 60.0)
    speed = np.linspace(0.0, 1.0, 200)
    curve = friction(speed, cold)
    lowest = int(np.argmin(curve))
    assert 0 < lowest < 100
    assert curve[0] > curve[lowest] < curve[-1]
    assert (friction(speed, warm)[1:] < curve[1:]).all()
    assert friction(speed, cold, 1.0) == pytest.approx(1.8 * curve)


def test_looms_stop_as_poisson_and_efficiency_is_run_over_run_and_stop() -> None:
    units, steps = 400, 3000
    kernel = Looms(*streams(4, units), 10.0)
    times = np.full(units, MONDAY_10_H, dtype=np.int64)
    produced = [kernel.step(k, times + k * 10_000) for k in range(steps)]
    speed = np.array([step["speed"] for step in produced])
    warp, weft, other = (
        np.array([step[f"{kind}_stops"] for step in produced]) for kind in ("warp", "weft", "other")
    )
    stops = [int((np.diff(counts, axis=0) > 0.5).sum()) for counts in (warp, weft, other)]
    total = sum(stops)
    assert [count / total for count in stops] == pytest.approx([0.58, 0.34, 0.08], abs=0.03)
    picks = produced[-1]["picks"].sum()
    # Poisson: the standard deviation of a count is its root. Levels of looms have a mean of 1.1.
    assert total / picks * 1e5 == pytest.approx(1.1 * 5.17, rel=0.1)
    assert picks == pytest.approx(speed[1:].sum() * 10.0 / 60.0, rel=0.001)
    lengths = np.array([step["stop_duration"] for step in produced])
    began = np.diff(warp, axis=0) > 0.5
    assert lengths[1:][began].mean() == pytest.approx(REPAIR_MIN[0], rel=0.1)
    running = (speed > 0.0).mean()
    assert produced[-1]["efficiency"].mean() == pytest.approx(100.0 * running, abs=2.0)


def test_a_pasteuriser_heats_by_the_balance_and_diverts_below_72() -> None:
    series = observe("pasteuriser", 10, 1500, MONDAY_10_H + 5 * HOUR_MS)
    assert ((series["diversion"] == 1.0) == (series["hold_temp"] < LEGAL_C)).all()
    duty = heating_duty_kw(series["product_flow"], series["hold_temp"], series["regeneration"] / 100.0)
    assert series["heating_duty"] == pytest.approx(duty, rel=0.09)  # the regeneration's own noise
    running = series["product_flow"] > 0.0
    assert (series["hold_time"][running] > 15.0).all()
