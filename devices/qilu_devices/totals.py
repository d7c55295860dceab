"""Yearly totals of a fleet of ten million units, compared with the province's figures.

Classes are counted in a fleet drawn at random and scaled (with the caps of `qilu_devices.fleet`). Units of
each class are drawn and run for a day, each on one of 52 days, one a week and all weekdays alike, so
seasons, weekends and holidays count as often as they come.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from qilu_contract.catalogue.classes import CATALOGUE

from qilu_devices.classes import KERNELS
from qilu_devices.classes.boiler import COAL_LHV_KJ_KG, Boilers
from qilu_devices.classes.wind_turbine import RATED_KW
from qilu_devices.fleet import Unit, expected_counts, make_units
from qilu_devices.kernel import SOUND
from qilu_devices.noise import Streams, Values, keys_of
from qilu_devices.weather import Enterprises

SCALED_TO = 10_000_000
YEAR_MS = 1_640_966_400_000  # 1 January 2022, 00:00 in Shandong
DAY_S, YEAR_DAYS = 86_400, 365

# Seconds between two steps: a compressor has to see its limits of pressure, a machine tool the ends of its
# parts.
_STEP_S = {"compressor": 20, "cnc": 60, "loom": 20, "robot": 300, "pasteuriser": 300, "oven": 300}
_USUAL_STEP_S = 600
_UNITS = {"motor": 3000, "pump": 1200, "compressor": 400, "boiler": 1200}
_USUAL_UNITS = 150
_FIRED = frozenset({"boiler", "oven", "pasteuriser"})  # their meter counts heat


@dataclass(frozen=True, slots=True)
class Figure:
    """A yearly total, with the published figure for comparison."""

    name: str
    value: float
    low: float
    high: float
    mark: str
    reference: str


@dataclass(frozen=True, slots=True)
class ClassTotal:
    """One class of the scaled fleet: number of units, and mean consumption and emission of each per hour."""

    name: str
    units: int
    mean_kw: float
    mean_co2_kg_h: float


def class_totals(classes: Mapping[str, float], cities: Mapping[str, float], seed: int) -> list[ClassTotal]:
    """Counts by class, and means over units and the year. Blocks for some seconds."""
    counts = expected_counts(classes, cities, seed, SCALED_TO)
    found = []
    for name, count in counts.items():
        if name in KERNELS and count:
            kw, co2 = _means(name, cities, seed)
            found.append(ClassTotal(name, count, kw, co2))
    return found


def figures(found: list[ClassTotal], cities: Mapping[str, float], seed: int) -> list[Figure]:
    """The totals for which the province has statistics."""
    hours = 24.0 * YEAR_DAYS
    counts = {each.name: each.units for each in found}
    electricity = sum(
        each.units * each.mean_kw for each in found if each.name not in _FIRED and each.name != "wind_turbine"
    )
    wind = next((each for each in found if each.name == "wind_turbine"), None)
    co2 = sum(each.units * each.mean_co2_kg_h for each in found)
    metal_t_h, coal_kg_h = _hot_metal(cities, seed), _coal(cities, seed)
    return [
        Figure(
            "electricity_TWh",
            electricity * hours / 1e9,
            500.0,
            650.0,
            "N",
            "industry of Shandong about 600 a year",
        ),
        Figure(
            "boiler_coal_Mt",
            counts.get("boiler", 0) * coal_kg_h * hours / 1e9,
            90.0,
            140.0,
            "N",
            "industry's end use 115 (2012 yearbook)",
        ),
        Figure(
            "hot_metal_Mt",
            counts.get("blast_furnace", 0) * metal_t_h * hours / 1e6,
            70.0,
            85.0,
            "N",
            "crude steel 76 (2022)",
        ),
        Figure(
            "wind_GW",
            counts.get("wind_turbine", 0) * RATED_KW / 1e6,
            22.0,
            28.0,
            "N",
            "installed about 24 (2022)",
        ),
        Figure(
            "wind_TWh",
            0.0 if wind is None else wind.units * wind.mean_kw * hours / 1e9,
            35.0,
            60.0,
            "A",
            "24 GW at about 2,000 h",
        ),
        Figure(
            "co2_Mt",
            co2 * hours / 1e9,
            580.0,
            850.0,
            "C",
            "electricity at .641 kg/kWh, boilers' fuel at 94.6 and 56.1 kg/GJ, hot metal at 1.4 t/t",
        ),
    ]


def _sample(name: str, cities: Mapping[str, float], seed: int) -> tuple[list[Unit], Values]:
    """Units of one class from a random fleet, and the day of the year (ms) on which each is run."""
    count = _UNITS.get(name, _USUAL_UNITS)
    units = list(make_units({name: 1.0}, cities, seed, count))
    week = np.floor(Streams(keys_of(seed, [unit.id for unit in units])).uniform("totals/week", 0.0, 52.0))
    return units, (7.0 * week + np.mod(week, 7.0)) * (DAY_S * 1000.0)


def _means(name: str, cities: Mapping[str, float], seed: int) -> tuple[float, float]:
    units, day_ms = _sample(name, cities, seed)
    step_s = _STEP_S.get(name, max(_USUAL_STEP_S, CATALOGUE[name].base_interval_s))
    kernel = KERNELS[name](
        Streams(keys_of(seed, [unit.id for unit in units])),
        Enterprises(seed, [unit.enterprise.id for unit in units]),
        float(step_s),
    )
    begin = YEAR_MS + day_ms.astype(np.int64)
    for k in range(DAY_S // step_s + 1):
        step = kernel.step(k, begin + k * step_s * 1000, SOUND)
    return float(step["energy_kWh"].mean() / 24.0), float(step["co2_kg"].mean() / 24.0)


def _hot_metal(cities: Mapping[str, float], seed: int) -> float:
    """Mean output of a furnace in tonnes per hour."""
    units, day_ms = _sample("blast_furnace", cities, seed)
    keys = Streams(keys_of(seed, [unit.id for unit in units]))
    kernel = KERNELS["blast_furnace"](keys, Enterprises(seed, [unit.enterprise.id for unit in units]), 600.0)
    begin = YEAR_MS + day_ms.astype(np.int64)
    made = [kernel.step(k, begin + k * 600_000)["productivity"] for k in range(144)]
    return float((np.mean(made, axis=0) * kernel.volume_m3).mean() / 24.0)  # type: ignore[attr-defined]


def _coal(cities: Mapping[str, float], seed: int) -> float:
    """Mean coal consumption of a boiler in kg per hour, over all boilers including gas-fired ones."""
    units, day_ms = _sample("boiler", cities, seed)
    keys = Streams(keys_of(seed, [unit.id for unit in units]))
    kernel = Boilers(keys, Enterprises(seed, [unit.enterprise.id for unit in units]), 600.0)
    begin = YEAR_MS + day_ms.astype(np.int64)
    for k in range(145):
        step = kernel.step(k, begin + k * 600_000)
    kw = np.where(kernel.is_gas, 0.0, step["energy_kWh"]) / 24.0
    return float(kw.mean() * 3600.0 / COAL_LHV_KJ_KG)
