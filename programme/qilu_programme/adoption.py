"""Adoption: Bass diffusion with an installed base, by group, over individual enterprises.

An enterprise's monthly hazard is (p·a + q·F)·x·s·u / 12:

- p, q: innovation and imitation per year (Bass 1969);
- a: awareness, 1 plus the effect of nearby experience centres;
- F: the share of the market on cloud, half in the enterprise's group (city × industry group × size), half in
  the province; 20,000 at launch;
- x: the subsidy term of the generalised Bass model (Bass, Krishnan, Jain 1994): (net price /
  price)^elasticity;
- s: the speed of its size class; u: its own lognormal factor, mean 1.

Hazards within a cell differ only by the constant s·u, so the model needs one random number per enterprise:
with H the cell's cumulative hazard, an enterprise adopts when H·s·u exceeds its own exponential number.
This is the exact survival law of the hazard. It costs one comparison per enterprise and month, and gives
the moment within the month, which orders the claims for vouchers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qilu_programme.draws import Draws, Values, Whole
from qilu_programme.figures import GROUPS, SIZES, by_size, figure
from qilu_programme.scenario import Centre, ParameterSet
from qilu_programme.world import CITY_OF_COUNTY, COUNTY_CODES, World, market_shares

NEVER = np.int16(32_767)
"""Month of an event that does not happen during the programme."""


@dataclass(frozen=True)
class Market:
    """The enterprises that may go on cloud, each with its threshold of cumulative hazard. One entry per
    member."""

    enterprise: Whole
    cell: Whole
    threshold: Values

    def __len__(self) -> int:
        return len(self.enterprise)


def make_market(world: World, parameters: ParameterSet, draws: Draws) -> Market:
    """Draw the members of the market and their thresholds. A larger market contains every smaller one."""
    everybody = np.arange(world.enterprises)
    inside = draws.uniform("market", everybody) < np.repeat(
        market_shares(world, parameters.market), world.count
    )
    enterprise = everybody[inside]
    cell = np.repeat(np.arange(len(world.count)), world.count)[inside]
    sigma = figure("adoption.sigma")
    own = np.exp(sigma * draws.normal("heterogeneity", enterprise) - sigma**2 / 2.0)
    speed = np.array(by_size("adoption.speed"))[world.size[cell]]
    return Market(enterprise, cell, draws.exponential("threshold", enterprise) / (own * speed))


def awareness(centres: tuple[Centre, ...], month: int) -> Values:
    """The factor on p, by county, of the centres that are open in a month. The effect is full in the centre's
    county and smaller in the rest of its city; the effects of several centres add up.
    """
    factor = np.ones(len(COUNTY_CODES))
    for centre in centres:
        if centre.opens <= month:
            county = COUNTY_CODES.index(centre.county)
            factor[CITY_OF_COUNTY[county] == CITY_OF_COUNTY] += figure("centre.city")
            factor[county] += figure("centre.county") - figure("centre.city")
    return factor


class Adoption:
    """State of the diffusion. Call `launch` once, then `step` for each month in order."""

    def __init__(self, world: World, market: Market, parameters: ParameterSet, hazard: float) -> None:
        self._market = market
        self._p, self._q = parameters.p / 12.0, parameters.q / 12.0
        self._factor = parameters.fit * hazard
        group_of_cell = (world.city * len(GROUPS) + world.group) * len(SIZES) + world.size
        _, self._group = np.unique(group_of_cell, return_inverse=True)
        self._groups = int(self._group.max()) + 1
        self._county = world.county
        group_of_member = self._group[market.cell]
        self._sizes = np.maximum(np.bincount(group_of_member, minlength=self._groups), 1)
        self._group_of_member = group_of_member
        self._adopted = np.zeros(self._groups, dtype=np.int64)
        self._cumulative = np.zeros(len(world.count))
        self._waiting = np.arange(
            len(market)
        )  # members that have not adopted; thresholds and cells are parallel
        self._thresholds, self._cells = market.threshold, market.cell
        self.month: NDArray[np.int16] = np.full(len(market), NEVER, dtype=np.int16)
        """The month in which each member of the market adopts; NEVER until then."""

    def launch(self, count: int) -> Whole:
        """Members that are on cloud when the programme begins: the `count` with the lowest thresholds."""
        count = min(count, len(self._market))
        thresholds = self._market.threshold
        first = np.argpartition(thresholds, count - 1)[:count] if count else np.zeros(0, dtype=np.int64)
        self._cumulative += float(thresholds[first].max()) if count else 0.0
        return self._adopt(np.sort(first), 0)

    def step(self, month: int, aware: Values, subsidy: Values) -> Whole:
        """Members of the market that adopt in this month, in the order of their moment. `aware` is by county,
        `subsidy` (x) by cell.
        """
        own = (self._adopted / self._sizes)[self._group]
        province = self._adopted.sum() / max(1, len(self._market))
        peers = figure("adoption.peers")
        imitation = self._q * (peers * own + (1.0 - peers) * province)
        hazard = self._factor * (self._p * aware[self._county] + imitation) * subsidy
        before = self._cumulative
        self._cumulative = before + hazard
        moved = self._waiting[self._thresholds <= self._cumulative[self._cells]]
        cells = self._market.cell[moved]
        moment = (self._market.threshold[moved] - before[cells]) / hazard[cells]
        return self._adopt(moved[np.argsort(moment, kind="stable")], month)

    def _adopt(self, members: Whole, month: int) -> Whole:
        self.month[members] = month
        self._adopted += np.bincount(self._group_of_member[members], minlength=self._groups)
        stay = self.month[self._waiting] == NEVER
        self._waiting = self._waiting[stay]
        self._thresholds, self._cells = self._thresholds[stay], self._cells[stay]
        return members
