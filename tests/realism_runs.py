"""Runs of the simulated equipment for docs/equipment/realism.md: seeded, and each is made once."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from qilu_devices.classes import KERNELS
from qilu_devices.classes.boiler import Boilers
from qilu_devices.classes.compressor import SWITCHED_UP_TO_KW, Compressors
from qilu_devices.kernel import SOUND, severities
from qilu_devices.noise import Streams, keys_of
from qilu_devices.weather import Enterprises

MONDAY_10_H = 1_509_328_800_000  # 30 October 2017, 10:00 in Shandong
JANUARY_1 = 1_640_966_400_000  # 2022, 00:00 in Shandong
HOUR_MS, DAY_MS = 3_600_000, 86_400_000
Array = NDArray[np.float64]
Series = dict[str, Array]
"""Axes: step, unit."""


PAGE = Path(__file__).parents[1] / "docs" / "equipment" / "realism.md"


def put(begin: str, text: str, end: str) -> None:
    """Replace what is between two lines of the page."""
    before, rest = PAGE.read_text(encoding="utf-8").split(begin)
    PAGE.write_text(before + begin + text + end + rest.split(end)[1], encoding="utf-8")


def streams(units: int) -> list[Streams]:
    return [Streams(keys_of(11, [f"{prefix}{i}" for i in range(units)])) for prefix in ("unit", "enterprise")]


@cache
def observed(
    name: str,
    units: int,
    interval_s: int,
    steps: int,
    fault: str = "",
    severity: float = 1.0,
    onset: int = 0,
    begin_ms: int = MONDAY_10_H,
    days_apart: int = 0,
) -> Series:
    """Units that share no enterprise; with a fault, all have it from step `onset` on. With `days_apart` they
    begin on seven different days."""
    kernel = KERNELS[name](*streams(units), float(interval_s))
    times = begin_ms + days_apart * DAY_MS * (np.arange(units, dtype=np.int64) % 7)
    ill = severities({fault: np.full(units, severity)}) if fault else SOUND
    produced = [
        kernel.step(k, times + k * interval_s * 1000, ill if k >= onset else SOUND) for k in range(steps)
    ]
    return {signal: np.array([step[signal] for step in produced]) for signal in produced[0]}


def variation(values: Array) -> float:
    """Coefficient of variation of a unit, in the mean."""
    return float(np.mean(np.nanstd(values, axis=0) / np.nanmean(values, axis=0)))


def memory(values: Array, lag: int) -> float:
    """Autocorrelation of a unit, in the mean."""
    centred = values - np.nanmean(values, axis=0)
    return float(
        np.nanmean(np.nanmean(centred[lag:] * centred[:-lag], axis=0) / np.nanmean(centred**2, axis=0))
    )


# --- the reactor beside Tennessee Eastman


def answer(fault: str, signal: str) -> Array:
    """Change of a signal since the onset, in its deviations in normal operation; a row a step of 3 min."""
    sound, faulty = observed("reactor", 20, 180, 200), observed("reactor", 20, 180, 200, fault)
    return (faulty[signal] - sound[signal]) / observed("reactor", 100, 180, 500)[signal].std()


def pressure_and_purge() -> float:
    series = observed("reactor", 100, 180, 500)
    pairs = zip(series["reactor_pressure"].T, series["purge_rate"].T, strict=True)
    return float(np.mean([np.corrcoef(pressure, purge)[0, 1] for pressure, purge in pairs]))


def idv4_lasts_min() -> float:
    """How long the temperature is above half of its jump."""
    jump = answer("idv4", "reactor_temp").mean(axis=1)
    return float(3 * np.argmax(jump < 0.5 * jump[0]))


def idv6_trips_h() -> float:
    faulty = observed("reactor", 20, 180, 200, "idv6")["reactor_pressure"]
    return float(np.argmax(faulty == faulty[-1], axis=0).mean() / 20.0)


def idv7_back_min() -> float:
    """When the feed has two thirds of what it lost back."""
    fallen = answer("idv7", "feed_AC").mean(axis=1)
    lowest = int(fallen[:5].argmin())
    return float(3 * (lowest + np.argmax(fallen[lowest:] > fallen[lowest] / 3.0)))


# --- the pump beside SKAB's rig


def pump(signal: str, fault: str = "", severity: float = 1.0) -> Array:
    """Half an hour in steps of 5 s, of pumps at work, the first minutes left out."""
    always = (observed("pump", 60, 5, 400)["flow"] > 0.0).all(axis=0)
    return observed("pump", 60, 5, 400, fault, severity)[signal][40:, always]


def changes(signal: str, fault: str, severity: float = 1.0) -> Array:
    """Of each pump's mean, relative."""
    return np.asarray(pump(signal, fault, severity).mean(axis=0) / pump(signal).mean(axis=0) - 1.0)


def change(signal: str, fault: str, severity: float = 1.0) -> float:
    return float(changes(signal, fault, severity).mean())


def at_fixed_speed() -> NDArray[np.bool_]:
    """Pumps whose converter does not answer the valve, or that have none."""
    return np.abs(changes("speed", "valve_closure")) < 0.005


def shaken_flow() -> float:
    return float(np.median(pump("flow", "cavitation").std(axis=0) / pump("flow").std(axis=0)))


def silent_cavitations() -> float:
    """Share of labelled cavitations, half as severe as can be, that shake the casing by less than a third."""
    least = 1.0 + changes("casing_accel", "cavitation", 0.5)
    return float((least < 1.33).mean())


def second_by_second(signal: str) -> Array:
    series = observed("pump", 60, 1, 600)
    return series[signal][:, (series["flow"] > 0.0).all(axis=0)]


def flow_takes_s() -> Array:
    """Seconds from 10 to 90 % of the change after a valve has closed, of each pump."""
    always = (observed("pump", 60, 1, 600)["flow"] > 0.0).all(axis=0)
    closing = observed("pump", 60, 1, 600, "valve_closure", 1.0, 200)["flow"][200:, always]
    moved = closing / second_by_second("flow")[200:] - 1.0
    done = moved / moved[-1]
    return np.asarray(np.argmax(done > 0.9, axis=0) - np.argmax(done > 0.1, axis=0), dtype=np.float64)


# --- the others


@cache
def furnaces() -> tuple[Series, NDArray[np.bool_]]:
    """Six months of furnaces, hourly, and a mask of the hours with the blast on."""
    series = observed("blast_furnace", 12, 3600, 4392)
    return series, series["blast_volume"] > 0.8 * np.median(series["blast_volume"], axis=0)


def blown(signal: str) -> Array:
    series, on = furnaces()
    return np.where(on, series[signal], np.nan)


def blown_10_min(signal: str) -> Array:
    series = observed("blast_furnace", 12, 600, 1008)
    on = series["blast_volume"] > 0.8 * np.median(series["blast_volume"], axis=0)
    return np.where(on, series[signal], np.nan)


def silicon(*, by_cast: bool) -> float:
    found = blown("hot_metal_Si")[::2]
    if by_cast:
        return float(np.nanstd(np.diff(found, axis=0), axis=0).mean()) / 2.0**0.5
    return float(np.nanstd(found, axis=0).mean())


def furnace_stops() -> float:
    off = furnaces()[0]["blast_volume"] < 0.3
    return float((np.diff(off.astype(np.int8), axis=0) == 1).sum(axis=0).mean())


def without_coal() -> float:
    return float((furnaces()[0]["pci_rate"] < 5.0).mean())


@cache
def motors_off() -> tuple[Array, NDArray[np.bool_]]:
    """Share of the time that each compressor's motor is off, over the days of a week; and a mask of those
    that a pressure switch stops."""
    keys, others = streams(84)
    switched = Compressors(keys, others, 20.0).size_kw <= SWITCHED_UP_TO_KW
    series = observed("compressor", 84, 20, 4320, days_apart=1)
    return np.asarray((series["power_in"] <= 0.0).mean(axis=0)), switched


def leak(signal: str, fault: str = "system_leak") -> float:
    return float(observed("compressor", 60, 10, 2000, fault)[signal][800:].mean())


@cache
def heating_boilers() -> NDArray[np.bool_]:
    """Whether each boiler that heats is lit in each hour of a year."""
    units = 160
    keys = Streams(keys_of(11, [f"unit{i}" for i in range(units)]))
    kernel = Boilers(keys, Enterprises(11, [f"37{i % 16 + 1:02d}01-{i}" for i in range(units)]), 3600.0)
    hours = JANUARY_1 + HOUR_MS * np.arange(8760)
    lit = [
        kernel._lit(np.full(units, hour), kernel._weather.outdoor_c(np.full(units, hour)))
        for hour in hours.tolist()
    ]
    return np.array(lit)[:, kernel._heats]


def starts_a_year() -> float:
    return float((np.diff(heating_boilers().astype(np.int8), axis=0) > 0).sum(axis=0).mean())


def lit_in_june() -> float:
    return float(heating_boilers()[151 * 24 : 181 * 24].mean())


def with_load(signal: str) -> float:
    """Change of a gas boiler's signal from .3 of its load to all of it, each against its own mean."""
    kernel = Boilers(*streams(200), 60.0)
    times = np.full(200, MONDAY_10_H, dtype=np.int64)
    produced = [kernel.step(k, times + k * 60_000) for k in range(240)][60:]
    load = np.array([step["steam_flow"] for step in produced]) / kernel.size_tph
    values = np.array([step[signal] for step in produced])
    gas = kernel.is_gas & (load.min(axis=0) > 0.3)
    x, y = (v[:, gas] - v[:, gas].mean(axis=0) for v in (load, values))
    return float(0.7 * (x * y).sum() / (x * x).sum())


def worn_bearing(signal: str, life: float) -> Array:
    """Ratio to the sound motor's signal, of each motor at work."""
    sound, worn = observed("motor", 40, 60, 40), observed("motor", 40, 60, 40, "bearing", life)
    always = (sound["speed"] > 0.0).all(axis=0)
    return np.asarray((worn[signal][:, always] / sound[signal][:, always]).mean(axis=0))


def steady_vibration() -> float:
    series = observed("motor", 40, 60, 40)
    return variation(series["vibration"][:, (series["speed"] > 0.0).all(axis=0)])


def arms(signal: str) -> Array:
    series = observed("robot", 60, 7, 1200)
    return series[signal][:, (series["cycle_time"] > 0.0).all(axis=0)]


def standing_arms() -> float:
    """Share of seconds in which the base's joint, which gravity does not load, has no torque."""
    return float((arms("torque_1") == 0.0).mean())


def cold_start() -> float:
    """Heat of a pasteuriser ten seconds after a start at eight o'clock, of what it takes an hour later."""
    series = observed("pasteuriser", 40, 10, 10 * 360, begin_ms=MONDAY_10_H - 5 * HOUR_MS)
    flow, duty = series["product_flow"], series["heating_duty"]
    ratios: list[float] = []
    for unit in range(flow.shape[1]):
        starts = np.flatnonzero((flow[:-361, unit] <= 0.0) & (flow[1:-360, unit] > 0.0)) + 1
        ratios += [
            duty[start + 1, unit] / duty[start + 359, unit]
            for start in starts.tolist()
            if (flow[start : start + 360, unit] > 0.0).all()
        ]
    return float(np.mean(ratios))


def cutting_time() -> float:
    cutting = observed("cnc", 100, 5, 1500)["spindle_speed"] > 0.0
    return float(cutting[:, cutting.any(axis=0)].mean())


def torque_within_a_part() -> float:
    """Deviation of the torque's change from cut to cut in a part, of the torque's mean."""
    series = observed("cnc", 100, 5, 1500)
    cutting, torque = series["spindle_speed"] > 0.0, series["torque"]
    same = (np.diff(series["parts"], axis=0) == 0) & cutting[1:] & cutting[:-1]
    return float(np.diff(torque, axis=0)[same].std() / torque[cutting].mean())
