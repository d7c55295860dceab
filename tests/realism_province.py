"""Province, calendar and weather, measured for docs/equipment/realism.md; each run is made once."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
from qilu_contract.catalogue.places import CITIES
from qilu_devices.classes.motor import Motors
from qilu_devices.classes.wind_turbine import WindTurbines
from qilu_devices.noise import Streams, keys_of
from qilu_devices.shifts import Shifts
from qilu_devices.weather import Enterprises, Weather
from realism_runs import DAY_MS, HOUR_MS, JANUARY_1, Array, Series, streams

APRIL_1_2019 = 1_554_048_000_000  # a Monday, 00:00 in Shandong


@cache
def totals() -> dict[str, float]:
    """The output of `qilu devices totals --json`."""
    program = Path(sys.executable).parent / "qilu"
    found = subprocess.run([program, "devices", "totals", "--json"], capture_output=True, check=True)
    sums: dict[str, float] = json.loads(found.stdout)
    return sums


@cache
def power_by_quarter(*patterns: int) -> Array:
    """Power of motors, of rated, in works of these shift patterns, in the mean: a row for each day from
    1 April to 3 May 2019, which have Qingming (5 to 7 April) and Labour Day (from 1 May), and a column for
    each quarter of an hour."""
    keys, others = streams(1000)
    kernel, works = Motors(keys, others, 900.0), np.isin(Shifts(keys, others)._pattern, patterns)
    times = np.full(1000, APRIL_1_2019, dtype=np.int64)
    load = 1.0 / kernel.rated_kw[works]
    power = [(kernel.step(k, times + k * 900_000)["power_in"][works] * load).mean() for k in range(33 * 96)]
    return np.array(power).reshape(33, 96)


ONE_SHIFT, TWO_SHIFTS = 0, 1
SATURDAYS, SUNDAYS, HOLIDAYS = (13, 20, 27), (14, 21), (5, 6, 7, 31, 32, 33)  # counted from 1 April
WORKING = (8, 9, 10, 11, 12, 15, 16, 17, 18, 19, 22, 23, 24, 25, 26)


def load_on(days: Sequence[int]) -> float:
    """Load of works of one and two shifts, of that of a working day."""
    by_day = power_by_quarter(ONE_SHIFT, TWO_SHIFTS).mean(axis=1)
    return float(by_day[[n - 1 for n in days]].mean() / by_day[[n - 1 for n in WORKING]].mean())


def load_at_noon() -> float:
    """Load of works of one shift from 12:00 to 12:45, of its mean over a working day's hours of work."""
    by_quarter = power_by_quarter(ONE_SHIFT)[[n - 1 for n in WORKING]].mean(axis=0)
    return float(by_quarter[48:51].mean() / by_quarter[33:68].mean())


@cache
def temperature_anomalies() -> Array:
    """Daily means of all cities in two years, three times, less their season: a row a day."""
    places = np.arange(len(CITIES), dtype=np.int8)
    daily = []
    for seed in (1, 2, 3):
        weather = Weather(seed, places)
        hours = [weather.outdoor_c(np.full(len(places), JANUARY_1 + n * 6 * HOUR_MS)) for n in range(730 * 4)]
        daily.append(np.array(hours).reshape(730, 4, -1).mean(axis=1))
    day, series = np.arange(730), np.concatenate(daily, axis=1)
    waves = [np.ones(730), *(f(2 * np.pi * n * day / 365.25) for n in (1, 2, 3) for f in (np.sin, np.cos))]
    season = np.array(waves).T
    return np.asarray(series - season @ np.linalg.lstsq(season, series, rcond=None)[0])


def anomaly_memory(days: int) -> float:
    rest = temperature_anomalies()
    return float(np.mean(rest[days:] * rest[:-days]) / rest.var())


def farms(units: int, interval_s: int, steps: int, days_apart: int) -> Series:
    """Wind turbines, four to a farm, in all cities."""
    keys = Streams(keys_of(11, [f"unit{i}" for i in range(units)]))
    places = Enterprises(11, [f"37{i // 4 % 16 + 1:02d}01-{i // 4}" for i in range(units)])
    kernel = WindTurbines(keys, places, float(interval_s))
    times = JANUARY_1 + DAY_MS * (np.arange(units, dtype=np.int64) // 4 * days_apart % 365)
    produced = [kernel.step(k, times + k * interval_s * 1000) for k in range(steps)]
    return {
        signal: np.array([step[signal] for step in produced]) for signal in ("wind_speed", "active_power")
    }


@cache
def ten_minutes() -> Series:
    """Ten days of a hundred turbines, farms on different days of the year."""
    return farms(100, 600, 1440, 29)


@cache
def wind_of_a_year() -> Array:
    """Wind every three hours, from 02:00 on: axes month, hour, relative to the mean."""
    wind = farms(64, 10_800, 365 * 8 + 1, 0)["wind_speed"][:-1].mean(axis=1).reshape(365, 8)
    edges = np.cumsum((0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31))
    by_month = [wind[a:b].mean(axis=0) for a, b in pairwise(edges.tolist())]
    return np.array(by_month) / wind.mean()


def wind_in(*months: int) -> float:
    return float(wind_of_a_year()[[month - 1 for month in months]].mean())


def wind_at(hour: int) -> float:
    """Of the multiple of three hours."""
    return float(wind_of_a_year()[:, hour // 3].mean())


def still_in_the_wind() -> float:
    wind, power = ten_minutes()["wind_speed"], ten_minutes()["active_power"]
    return float((power[wind > 4.0] <= 0.0).mean())


def kurtosis_of_changes() -> float:
    jumps = np.diff(ten_minutes()["active_power"], axis=0)
    jumps = jumps - jumps.mean()
    return float((jumps**4).mean() / (jumps**2).mean() ** 2)


def neighbours(slow: bool) -> float:
    """Correlation of the wind of neighbours in a farm: of half days (slow), or of changes in ten minutes."""
    wind = ten_minutes()["wind_speed"]
    wind = wind.reshape(-1, 72, 100).mean(axis=1) if slow else np.diff(wind, axis=0)
    pairs = [np.corrcoef(wind[:, n], wind[:, n + 1])[0, 1] for n in range(0, 100, 4)]
    return float(np.mean(pairs))
