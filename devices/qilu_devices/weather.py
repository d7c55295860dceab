"""Weather of the province's cities: outdoor temperature and wind, the same for every class in a city, as pure
functions of seed, city and time.

Temperature is climate (season and hour by city) plus an anomaly of two parts, weather fronts of days and
spells of a week. Wind is a latent of variance 1: the synoptic wind that cities share by distance. Each part
is a moving average of hashed shocks on a grid of three hours, so it can be computed for any moment in any
process. Constants: S source found, C computed from data, N known but not checked, A assumed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from qilu_contract.catalogue.places import CITIES

from qilu_devices import exact
from qilu_devices.climate import local_hour, season
from qilu_devices.kernel import Times
from qilu_devices.noise import Streams, Values, keys_of

KNOT_MS = 3 * 3_600_000
TABLE_MS = 600_000
"""Temperature is linear between multiples of this."""

# C: the anomaly of a day's mean in Beijing (UCI 501) has sd 2.6-2.8 K and autocorrelation .67, .39, .20 at 1,
# 2 and 5 days: two parts, weather that passes and spells.
ANOMALY_K = 2.9  # of the three-hourly value; the day's mean has 2.7
FRONT_SHARE, FRONT_TAU_H = 0.55, 22.0
SPELL_TAU_H = 180.0
# C: the slow part of La Haute Borne's wind.
WIND_TAU_H = 30.0
TEMPERATURE_KM, WIND_KM = 900.0, 450.0  # A: distance at which the correlation of two places is 1/e
TAU_LENGTHS = 6  # a shock is forgotten after that many time constants (0.25 %)

# By city: longitude and latitude (the map's label), mean of the year, half of July less January, half of the
# daily range (N: climate normals 1981-2010, not checked; the coast is milder).
_SITES: dict[str, tuple[float, float, float, float, float]] = {
    "370100": (117.28, 36.77, 14.7, 14.3, 4.4),
    "370200": (120.31, 36.36, 12.8, 12.8, 2.9),
    "370300": (117.94, 36.60, 13.6, 14.6, 5.0),
    "370400": (117.42, 34.89, 14.2, 13.6, 4.9),
    "370500": (118.56, 37.55, 13.2, 14.8, 4.6),
    "370600": (120.79, 37.21, 12.6, 13.2, 3.4),
    "370700": (119.07, 36.51, 12.8, 14.4, 5.2),
    "370800": (116.65, 35.21, 14.0, 14.0, 5.1),
    "370900": (117.05, 36.06, 13.3, 14.3, 5.2),
    "371000": (122.12, 37.14, 12.3, 12.7, 2.8),
    "371100": (119.19, 35.56, 13.2, 12.8, 3.5),
    "371300": (118.31, 35.30, 13.8, 13.7, 4.8),
    "371400": (116.47, 37.21, 13.4, 14.8, 5.2),
    "371500": (115.93, 36.41, 13.6, 14.5, 5.3),
    "371600": (117.72, 37.49, 13.0, 14.9, 5.0),
    "371700": (115.61, 35.22, 14.1, 14.0, 5.1),
}
_MEAN_C, _SEASON_C, _DAY_C = (np.array([_SITES[city][n] for city in CITIES]) for n in (2, 3, 4))


def _mixing(length_km: float) -> NDArray[np.float64]:
    """The lower triangle L with L·Lᵀ = exp(−distance/length): independent shocks to correlated ones. Written
    out, because a library's factor differs in the last bits from processor to processor."""
    places = [_SITES[city][:2] for city in CITIES]
    km = np.array(
        [[math.sqrt((89.9 * (a - c)) ** 2 + (111.2 * (b - d)) ** 2) for c, d in places] for a, b in places]
    )
    wanted = exact.exp(-km / length_km)
    lower = np.zeros_like(wanted)
    for i in range(len(places)):
        for j in range(i + 1):
            rest = float(wanted[i, j])
            for n in range(j):
                rest -= float(lower[i, n]) * float(lower[j, n])
            lower[i, j] = math.sqrt(rest) if i == j else rest / float(lower[j, j])
    return lower


class _Shocks:
    """A first-order process of every city on the grid of knots: variance 1, as a moving average of hashed
    shocks. `at` is a pure function."""

    def __init__(self, cities: Streams, name: str, tau_h: float, mixing: NDArray[np.float64]) -> None:
        self._cities, self._name, self._mixing = cities, name, mixing
        keep = float(exact.exp(-KNOT_MS / 3_600_000.0 / tau_h))
        terms = int(TAU_LENGTHS * tau_h * 3_600_000.0 / KNOT_MS)
        weights = [1.0]
        for _ in range(terms - 1):
            weights.append(weights[-1] * keep)
        norm = math.sqrt(sum(weight * weight for weight in weights))
        self._weights = [weight / norm for weight in weights]
        self._which = np.tile(np.arange(len(cities)), terms)
        self._back = np.repeat(np.arange(terms), len(cities))
        self._kept: dict[int, Values] = {}

    def at(self, knot: int) -> Values:
        found = self._kept.get(knot)
        if found is None:
            if len(self._kept) > 5000:
                self._kept.clear()
            shocks = self._cities.normal_of(self._name, self._which, knot - self._back)
            total = np.zeros(len(self._cities))
            for weight, shock in zip(self._weights, shocks.reshape(-1, len(self._cities)), strict=True):
                total = total + weight * shock
            mixed = np.zeros(len(self._cities))
            for place in range(len(self._cities)):
                mixed = mixed + self._mixing[:, place] * total[place]
            found = self._kept[knot] = mixed
        return found


class _Cities:
    """The weather of all cities under one seed; a shared instance."""

    def __init__(self, seed: int) -> None:
        cities = Streams(keys_of(seed, [f"weather/{city}" for city in CITIES]))
        warm, windy = _MIXING
        self._front = _Shocks(cities, "front", FRONT_TAU_H, warm)
        self._spell = _Shocks(cities, "spell", SPELL_TAU_H, warm)
        self._synoptic = _Shocks(cities, "synoptic", WIND_TAU_H, windy)
        self._rows: dict[int, Values] = {}

    def wind(self, knot: int) -> Values:
        """At a knot, by city."""
        return self._synoptic.at(knot)

    def temperature(self, row: int) -> Values:
        """At a multiple of TABLE_MS, by city."""
        found = self._rows.get(row)
        if found is None:
            if len(self._rows) > 100_000:
                self._rows.clear()
            found = self._rows[row] = self._temperature(row)
        return found

    def _temperature(self, row: int) -> Values:
        at_ms = np.array([row * TABLE_MS], dtype=np.int64)
        knot, rest = divmod(row * TABLE_MS, KNOT_MS)
        share = rest / KNOT_MS
        front = self._front.at(knot) * (1.0 - share) + self._front.at(knot + 1) * share
        spell = self._spell.at(knot) * (1.0 - share) + self._spell.at(knot + 1) * share
        anomaly = math.sqrt(FRONT_SHARE) * front + math.sqrt(1.0 - FRONT_SHARE) * spell
        # N: warmest at three in the afternoon. A: winters vary by a third more than summers.
        daily = exact.cos_turns((local_hour(at_ms) - 15.0) / 24.0)
        wintry = 1.0 - 0.15 * season(at_ms)
        return np.asarray(_MEAN_C + _SEASON_C * season(at_ms) + _DAY_C * daily + ANOMALY_K * wintry * anomaly)


@lru_cache(maxsize=4)
def _cities(seed: int) -> _Cities:
    return _Cities(seed)


class Weather:
    """Weather at units; `places` are indices of their cities in `CITIES`."""

    def __init__(self, seed: int, places: NDArray[np.int8]) -> None:
        self._places, self._cities = places, _cities(seed)

    def outdoor_c(self, t_ms: Times) -> Values:
        """Outdoor temperature of each unit's city."""
        return self._between(t_ms, TABLE_MS, self._cities.temperature)

    def wind(self, t_ms: Times) -> Values:
        """The synoptic wind of each unit's city as a standard normal latent."""
        return self._between(t_ms, KNOT_MS, self._cities.wind)

    def _between(self, t_ms: Times, step_ms: int, row_of: Callable[[int], Values]) -> Values:
        """Interpolate linearly in time between the cities' rows; the times of units may differ widely."""
        if not len(t_ms):
            return np.zeros(0)
        row = t_ms // step_ms
        share = (t_ms - row * step_ms) * (1.0 / step_ms)
        low, high = int(row.min()), int(row.max())
        if low == high:
            first, second = (row_of(low + n)[self._places] for n in (0, 1))
            return np.asarray(first + share * (second - first))
        rows, place = np.unique(row, return_inverse=True)
        table = np.array([row_of(int(n)) for n in rows])
        after = np.array([row_of(int(n) + 1) for n in rows])
        place = place.reshape(-1)
        first, second = table[place, self._places], after[place, self._places]
        return np.asarray(first + share * (second - first))


_MIXING = (_mixing(TEMPERATURE_KM), _mixing(WIND_KM))
_PLACE_OF = {city[:4]: place for place, city in enumerate(CITIES)}


class Enterprises(Streams):
    """The random streams of units' enterprises, with the weather at their location."""

    def __init__(self, seed: int, enterprise_ids: Sequence[str]) -> None:
        """One element per unit; an id begins with its county's code."""
        known = sorted(set(enterprise_ids))
        keys = dict(zip(known, keys_of(seed, (f"enterprise/{name}" for name in known)), strict=True))
        super().__init__(np.array([keys[name] for name in enterprise_ids], dtype=np.uint64))
        self.weather = Weather(
            seed, np.array([_PLACE_OF.get(name[:4], 0) for name in enterprise_ids], dtype=np.int8)
        )


def weather_of(enterprises: Streams) -> Weather:
    """The weather at enterprises; streams without an address get a random city."""
    if isinstance(enterprises, Enterprises):
        return enterprises.weather
    places = (enterprises.uniform("city") * len(CITIES)).astype(np.int8)
    return Weather(0, places)
