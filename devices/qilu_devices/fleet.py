"""Fleets: which enterprises there are, where, in which industry, and which equipment each owns.

A fleet is a pure function of scenario, seed and size. Enterprises are made one after the other and units fill
them in order, so the fleet of N units is the beginning of every larger fleet, and a unit never changes when
the fleet grows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from qilu_common.splitmix import mix, uniforms
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.catalogue.places import CITIES, COUNTIES, INDUSTRIES
from qilu_contract.errors import ConfigError
from qilu_contract.wire.ids import enterprise_id, unit_id

from qilu_devices.noise import keys_of

# Frequency of each class in an industry's plants (A: the order of magnitude only; the class mix of a scenario
# multiplies it). Motors, pumps and compressors are everywhere; wind turbines belong to power producers,
# reactors to chemistry, looms to weavers, pasteurisers and ovens to food, machine tools and robots to
# manufacturers of machines and electronics. Classes that are sampled every second are few.
_AFFINITY: dict[str, dict[str, float]] = {
    "petrochemical": {"motor": 0.60, "boiler": 0.09, "pump": 0.20, "compressor": 0.05, "reactor": 0.06},
    "machinery": {
        "motor": 0.77,
        "boiler": 0.02,
        "pump": 0.06,
        "compressor": 0.06,
        "cnc": 0.06,
        "robot": 0.03,
    },
    "food": {
        **{"motor": 0.66, "boiler": 0.10, "pump": 0.12, "compressor": 0.05},
        **{"pasteuriser": 0.03, "oven": 0.04},
    },
    "textile": {"motor": 0.72, "boiler": 0.06, "pump": 0.06, "compressor": 0.06, "loom": 0.10},
    "metallurgy": {"motor": 0.78, "boiler": 0.05, "pump": 0.11, "compressor": 0.06},
    "energy": {"motor": 0.36, "boiler": 0.13, "pump": 0.12, "compressor": 0.03, "wind_turbine": 0.36},
    "electronics": {
        "motor": 0.78,
        "boiler": 0.02,
        "pump": 0.06,
        "compressor": 0.08,
        "cnc": 0.02,
        "robot": 0.04,
    },
    "software": {"motor": 0.9, "pump": 0.1},
    "other": {"motor": 0.80, "boiler": 0.05, "pump": 0.08, "compressor": 0.06, "oven": 0.01},
}
_IRON = "C31"
_IRON_AFFINITY = {"motor": 0.72, "boiler": 0.05, "pump": 0.10, "compressor": 0.05, "blast_furnace": 0.08}
_USUAL_AFFINITY = 0.05  # A: a class that no industry names occurs in every one, like a compressor
_NAMED = frozenset[str]().union(_IRON_AFFINITY, *_AFFINITY.values())

# No more than this many in the province, whatever the fleet's size. With these the fleet of ten million adds
# up to the province's figures (`qilu devices totals`; C: reckoned back from them): about 76 Mt of hot metal,
# 24 GW of wind (12,000 of 2,050 kW), 115 Mt of coal in boilers; reactors and the rest are orders of magnitude
# (A).
_PROVINCE_CAP = {
    **{"blast_furnace": 44, "wind_turbine": 12_000, "boiler": 25_000, "reactor": 5_000},
    **{"robot": 200_000, "pasteuriser": 20_000, "oven": 50_000, "loom": 500_000},
}

# Every city has some of every industry; these come on top, from the programme's seed industries and pilot
# zones (S: which city; A: how much).
_SEED_WEIGHT = 8.0
_CITY_SEEDS: dict[str, tuple[str, ...]] = {
    "370100": ("I65", "C39", "C34"),  # software and high-end computing, Mingshui zone
    "370200": ("C38", "C39"),  # smart home appliances
    "370300": ("C39", "C26"),  # electronic components
    "370400": ("C34",),  # Tengzhou machine tools
    "370500": ("C25", "C35", "D44"),  # petrochemical equipment
    "370600": ("C14", "C39"),  # food, computer and network products
    "370700": ("C34", "C35", "C39"),  # high-end machinery, electro-acoustic
    "370800": ("I64", "C35"),  # cloud and big data
    "370900": ("I65", "C38"),  # software park
    "371000": ("C39", "D44"),  # computer peripherals
    "371100": ("C31",),  # metallurgy
    "371300": ("I65", "C34"),  # software park
    "371400": ("C17", "C39"),  # textile, silicon wafers
    "371500": ("C26", "C32"),  # chemical base
    "371600": ("C32", "C17"),  # A: aluminium and textile
    "371700": ("C26", "D44"),  # A: chemicals, power
}
_BASE_WEIGHT = {"C31": 1.5, "D44": 2.0}  # A: others 1

# Size of an enterprise's fleet: P(S ≥ s) = min(1, (x/s)^1.5) up to the cap. With these the mean is 33 (A: the
# programme's own ratio of 10 million units to 300,000 enterprises). The exponent is 1.5 because square roots
# are exact on every processor.
_SIZE_X, _SIZE_CAP = 12.3, 600

# Counties proper: an enterprise in a development zone is counted in the district around it.
_COUNTIES_OF: dict[str, tuple[str, ...]] = {
    city: tuple(code for code, county in COUNTIES.items() if county.city == city and county.kind != "zone")
    for city in CITIES
}


@dataclass(frozen=True, slots=True)
class Enterprise:
    """An enterprise, which is one edge node of the same id."""

    id: str
    number: int  # order of making in the province, from 0
    name: str
    county: str
    industry: str


@dataclass(frozen=True, slots=True)
class Unit:
    id: str
    class_name: str
    enterprise: Enterprise


def _survival(size: int) -> float:
    ratio = _SIZE_X / size
    return ratio * sqrt(ratio) if ratio < 1.0 else 1.0


_SURVIVAL = np.array([_survival(size) for size in range(1, _SIZE_CAP + 1)])


def _size(u: float) -> int:
    """The largest size whose survival probability exceeds u."""
    return max(1, int(np.searchsorted(-_SURVIVAL, -u, side="left")))


def _pick(u: float, weights: Sequence[float]) -> int:
    """Index by weight. Written out, because the order of additions has to stay the same everywhere."""
    goal, total = u * sum(weights), 0.0
    for index, weight in enumerate(weights):
        total += weight
        if goal < total:
            return index
    return max(index for index, weight in enumerate(weights) if weight > 0.0)


def _class_weights(classes: Mapping[str, float], industry: str) -> list[float]:
    affinity = _IRON_AFFINITY if industry == _IRON else _AFFINITY[INDUSTRIES[industry].group]
    return [
        classes.get(name, 0.0) * (affinity.get(name, 0.0) if name in _NAMED else _USUAL_AFFINITY)
        for name in CATALOGUE
    ]


class _Maker:
    """Makes enterprises and their units in order. `classes` and `cities` are weights; what is not named has
    none."""

    def __init__(self, classes: Mapping[str, float], cities: Mapping[str, float], seed: int) -> None:
        self._seed = seed
        self._cities = [cities.get(city, 0.0) for city in CITIES]
        self._class_weights = {code: _class_weights(classes, code) for code in INDUSTRIES}
        possible = {code for code, weights in self._class_weights.items() if sum(weights) > 0.0}
        if not possible or sum(self._cities) <= 0.0:
            raise ConfigError(
                "The scenario leaves no equipment: give at least one class and one city a weight above 0."
            )
        self._industries = {
            city: [
                (_BASE_WEIGHT.get(code, 1.0) + (_SEED_WEIGHT if code in _CITY_SEEDS[city] else 0.0))
                * (code in possible)
                for code in INDUSTRIES
            ]
            for city in CITIES
        }
        self._enterprises: dict[str, int] = {}
        self._units: dict[tuple[str, str], int] = {}
        self._made: dict[str, int] = {}
        # A class that the mix leaves alone is not capped: there is nothing to put in its place.
        self._capped = classes.get("motor", 0.0) > 0.0

    def enterprise(self, number: int) -> tuple[Enterprise, int]:
        """The enterprise and how many units it has."""
        key = keys_of(self._seed, [f"enterprise-{number}"])
        draws = uniforms(mix(key ^ np.arange(4, dtype=np.uint64)))
        city = list(CITIES)[_pick(float(draws[0]), self._cities)]
        counties = _COUNTIES_OF[city]
        county = counties[int(float(draws[1]) * len(counties))]
        industry = list(INDUSTRIES)[_pick(float(draws[2]), self._industries[city])]
        count = self._enterprises[county] = self._enterprises.get(county, 0) + 1
        name = f"{COUNTIES[county].name} {INDUSTRIES[industry].name} No. {count}"
        return Enterprise(enterprise_id(county, count), number, name, county, industry), _size(
            float(draws[3])
        )

    def weights_of(self, enterprise: Enterprise) -> list[float]:
        """Weight of each class of the catalogue in the enterprise."""
        return self._class_weights[enterprise.industry]

    def units(self, enterprise: Enterprise, size: int) -> Iterator[Unit]:
        key = keys_of(self._seed, [f"equipment-{enterprise.number}"])
        weights = self.weights_of(enterprise)
        names = list(CATALOGUE)
        for u in uniforms(mix(key ^ np.arange(size, dtype=np.uint64))):
            name = names[_pick(float(u), weights)]
            made = self._made.get(name, 0)
            if self._capped and name in _PROVINCE_CAP and made >= _PROVINCE_CAP[name]:
                name = "motor"
            else:
                self._made[name] = made + 1
            place = (enterprise.county, name)
            number = self._units[place] = self._units.get(place, 0) + 1
            yield Unit(unit_id(enterprise.county, name, number), name, enterprise)


def make_units(
    classes: Mapping[str, float], cities: Mapping[str, float], seed: int, count: int
) -> Iterator[Unit]:
    """The first `count` units of the fleet, enterprise by enterprise. Raises ConfigError when the weights
    leave nothing."""
    maker = _Maker(classes, cities, seed)
    number = 0
    while count > 0:
        enterprise, size = maker.enterprise(number)
        # All draws of an enterprise are its own, so cutting it short leaves the units before the cut as they
        # are.
        yield from maker.units(enterprise, min(size, count))
        count -= size
        number += 1


@dataclass(frozen=True, slots=True)
class Shard:
    """A slice of the fleet, `index` of `count` (from 1), cut by edge node."""

    index: int = 1
    count: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.count:
            raise ConfigError(f"There is no shard {self.index}/{self.count}: count shards from 1, as in 1/4.")

    def holds(self, unit: Unit) -> bool:
        return unit.enterprise.number % self.count == self.index - 1


def expected_counts(
    classes: Mapping[str, float], cities: Mapping[str, float], seed: int, units: int, drawn: int = 2_000
) -> dict[str, int]:
    """How many of each class a fleet of `units` has, scaled from `drawn` enterprises of the same fleet."""
    maker = _Maker(classes, cities, seed)
    shares = dict.fromkeys(CATALOGUE, 0.0)
    total = 0
    for number in range(drawn):
        enterprise, size = maker.enterprise(number)
        weights = maker.weights_of(enterprise)
        whole = sum(weights)
        total += size
        for name, weight in zip(CATALOGUE, weights, strict=True):
            shares[name] += size * weight / whole
    counts = {name: round(units * share / total) for name, share in shares.items()}
    if classes.get("motor", 0.0) > 0.0:
        for name, cap in _PROVINCE_CAP.items():
            counts["motor"] += max(counts[name] - cap, 0)
            counts[name] = min(counts[name], cap)
    return counts
