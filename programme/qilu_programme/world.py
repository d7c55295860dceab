"""The province before the programme: enterprises by place, industry and size, and their equipment.

The 1,801,000 legal units are distributed over cells (county × industry × size) by largest remainders, so
the world has exactly the sourced totals and is the same for every seed. Enterprises are numbered by cell,
and cells are ordered by county: an enterprise's number gives its county, industry and size. The random
properties of an enterprise (its fleet) are a pure function of seed and number.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from qilu_contract.catalogue.places import CITIES, COUNTIES
from qilu_contract.wire.ids import enterprise_id

from qilu_programme.draws import Draws, Values, Whole
from qilu_programme.figures import (
    BRANCHES,
    CLASSES,
    GROUPS,
    SECTORS,
    SIZES,
    by_size,
    figure,
    read_table,
)

CITY_CODES: tuple[str, ...] = tuple(CITIES)
COUNTY_CODES: tuple[str, ...] = tuple(code for code, county in COUNTIES.items() if county.kind != "zone")
"""The 136 counties. An enterprise in a development zone counts in the surrounding county."""

CITY_OF_COUNTY: NDArray[np.int64] = np.array([CITY_CODES.index(COUNTIES[code].city) for code in COUNTY_CODES])
_COUNTY_WEIGHT = {
    "district": figure("world.county.district"),
    "county-level city": figure("world.county.city"),
    "county": figure("world.county.county"),
}


@dataclass(frozen=True)
class World:
    """Cells and their numbers of enterprises. Arrays have one entry per cell; `start` has one more: the
    enterprises of cell c are start[c] to start[c + 1] − 1.
    """

    county: Whole
    city: Whole
    branch: Whole
    size: Whole
    service: Whole  # 0 industry, 1 service
    group: Whole  # of industries
    count: Whole
    start: Whole

    @property
    def enterprises(self) -> int:
        return int(self.start[-1])

    def cells_of(self, enterprises: Whole) -> Whole:
        """The cell of each enterprise."""
        return np.asarray(np.searchsorted(self.start, enterprises, side="right") - 1, dtype=np.int64)

    def identify(self, enterprise: int) -> str:
        """The enterprise's id in the platform's form, numbered within the county from 1."""
        return self.identify_all(np.array([enterprise]))[0]

    def identify_all(self, enterprises: Whole) -> list[str]:
        """The ids of many enterprises."""
        counties = self.county[self.cells_of(enterprises)]
        firsts = self.start[np.searchsorted(self.county, counties, side="left")]
        numbers = (enterprises - firsts + 1).tolist()
        return [
            enterprise_id(COUNTY_CODES[county], number)
            for county, number in zip(counties.tolist(), numbers, strict=True)
        ]


def spread(total: int, weights: Values) -> Whole:
    """Divide `total` into whole parts by weight, with the largest remainders rounded up (Hamilton's
    method). The parts add up to `total` exactly.
    """
    exact = weights * (total / weights.sum())
    parts = np.floor(exact).astype(np.int64)
    missing = total - int(parts.sum())
    if missing:
        order = np.argsort(-(exact - parts), kind="stable")
        parts[order[:missing]] += 1
    return np.asarray(parts, dtype=np.int64)


def _place_weights() -> Values:
    """County × branch weights."""
    cities = {row["city"]: float(row["weight"]) for row in read_table("cities.csv")}
    weights = np.zeros((len(COUNTY_CODES), len(BRANCHES)))
    kinds = np.array([_COUNTY_WEIGHT[COUNTIES[code].kind] for code in COUNTY_CODES])
    for position, city in enumerate(CITY_CODES):
        inside = position == CITY_OF_COUNTY
        weights[inside] = (cities[city] * kinds[inside] / kinds[inside].sum())[:, None]
    codes = [branch.code for branch in BRANCHES]
    for row in read_table("seeds.csv"):
        branch = codes.index(row["industry"])
        if row["place"] in CITY_CODES:
            inside = CITY_CODES.index(row["place"]) == CITY_OF_COUNTY
            weights[inside, branch] *= figure("world.seed_weight")
        else:
            weights[COUNTY_CODES.index(row["place"]), branch] *= figure("world.zone_weight")
    return weights


@cache
def make_world() -> World:
    """The province's enterprises. Takes tens of milliseconds, once per process."""
    places = _place_weights()
    shape = (len(COUNTY_CODES), len(BRANCHES), len(SIZES))
    count = np.zeros(shape, dtype=np.int64)
    totals = {"industry": int(figure("world.industrial_units"))}
    totals["service"] = int(figure("world.legal_units")) - totals["industry"]
    for sector in SECTORS:
        mine = [index for index, branch in enumerate(BRANCHES) if branch.sector == sector]
        sizes = np.array([figure(f"world.{sector}.{size}") for size in SIZES[:-1]])
        sizes = np.append(sizes, 1.0 - sizes.sum())
        # Normalise columns first: the share of an industry in the province does not depend on its places.
        columns = places[:, mine] / places[:, mine].sum(axis=0)
        columns = columns * np.array([BRANCHES[index].weight for index in mine])
        weights = columns[:, :, None] * sizes
        count[:, mine, :] = spread(totals[sector], weights.ravel()).reshape(weights.shape)
    county, branch, size = (index.ravel() for index in np.indices(shape))
    flat = count.ravel()
    keep = flat > 0
    county, branch, size, flat = county[keep], branch[keep], size[keep], flat[keep]
    group = np.array([GROUPS.index(found.group) for found in BRANCHES])
    service = np.array([SECTORS.index(found.sector) for found in BRANCHES])
    return World(
        county=county,
        city=CITY_OF_COUNTY[county],
        branch=branch,
        size=size,
        service=service[branch],
        group=group[branch],
        count=flat,
        start=np.concatenate(([0], np.cumsum(flat))),
    )


def market_shares(world: World, market: int) -> Values:
    """The share of each cell in the market, so that the province's market is `market` enterprises.

    A share is 1 − exp(−κ·odds): larger enterprises have larger shares, and no share exceeds 1. κ by
    bisection.
    """
    odds = np.array([by_size(f"market.{sector}") for sector in SECTORS])[world.service, world.size]
    low, high = 0.0, 1e3
    for _ in range(80):
        middle = (low + high) / 2.0
        if float((world.count * -np.expm1(-middle * odds)).sum()) < market:
            low = middle
        else:
            high = middle
    return np.asarray(-np.expm1(-high * odds))


@cache
def _smallest_fleets() -> Values:
    """Sector × size: the size of the smallest fleet, such that the mean over the default market is
    `equipment.mean`."""
    world = make_world()
    means = np.array([by_size(f"equipment.{sector}") for sector in SECTORS])
    inside = world.count * market_shares(world, DEFAULT_MARKET)
    mean = float((inside * means[world.service, world.size]).sum() / inside.sum())
    # The mean of a Pareto variable (minimum x, exponent a), cut at k·x, is x·(a − k^(1−a)) / (a − 1).
    tail, cap = figure("equipment.tail"), figure("equipment.cap")
    spread_out = (tail - cap ** (1.0 - tail)) / (tail - 1.0)
    return np.asarray(means * (figure("equipment.mean") / mean / spread_out))


DEFAULT_MARKET = 800_000
"""The market of the default parameter set. Fleet sizes are scaled to it, and are the same under all sets
(S)."""


def fleet_sizes(world: World, enterprises: Whole, draws: Draws) -> Whole:
    """Number of units of each enterprise (0 is possible for the smallest service enterprises)."""
    cells = world.cells_of(enterprises)
    smallest = _smallest_fleets()[world.service[cells], world.size[cells]]
    ratio = (1.0 - draws.uniform("fleet", enterprises)) ** (-1.0 / figure("equipment.tail"))
    exact = smallest * np.minimum(ratio, figure("equipment.cap"))
    whole = np.floor(exact)
    return np.asarray(whole + (draws.uniform("fleet rest", enterprises) < exact - whole), dtype=np.int64)


@cache
def _mix() -> Values:
    """Branch × class: the share of a class in the fleets of an industry."""
    shares = np.zeros((len(BRANCHES), len(CLASSES)))
    for row in read_table("equipment_mix.csv"):
        for index, branch in enumerate(BRANCHES):
            # In metallurgy, only iron and steel has blast furnaces.
            group = "iron" if branch.code == "C31" else branch.group
            if group == row["group"]:
                shares[index, CLASSES.index(row["class"])] += float(row["share"])
    shares[:, 0] = 1.0 - shares.sum(axis=1)
    return shares


def fleet_classes(world: World, enterprises: Whole, units: Whole, draws: Draws) -> Whole:
    """Enterprise × class: the fleets by class; rows add up to `units`. No class exceeds its cap, the
    number that physically exists in the province. Units above the cap are motors; the order is random,
    so that no county is preferred.
    """
    branch = world.branch[world.cells_of(enterprises)]
    fleets = np.zeros((len(CLASSES), len(enterprises)), dtype=np.int64)
    left = units.astype(np.int64)
    order = draws.uniform("cap order", enterprises)
    for index, name in enumerate(CLASSES[1:], start=1):
        exact = units * _mix()[branch, index]
        some = np.flatnonzero(exact)
        whole = np.floor(exact[some])
        extra = draws.uniform(f"class {name}", enterprises[some]) < exact[some] - whole
        claimed = np.minimum(whole.astype(np.int64) + extra, left[some])
        limit = CAPS.get(name)
        if limit is not None:
            ordered = np.argsort(order[some], kind="stable")
            before = np.cumsum(claimed[ordered]) - claimed[ordered]
            claimed[ordered] = np.clip(limit - before, 0, claimed[ordered])
        fleets[index, some] = claimed
        left[some] -= claimed
    fleets[0] = left
    return fleets.T


CAPS: dict[str, int] = {
    name: int(figure(f"cap.{name}")) for name in ("blast_furnace", "wind_turbine", "boiler", "reactor")
}
