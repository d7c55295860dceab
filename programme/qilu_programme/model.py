"""The model: one run of the programme, from October 2017 to December 2022, as a stream of events."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from qilu_programme.adoption import NEVER, Adoption, Market, awareness, make_market
from qilu_programme.counts import Table, tabulate
from qilu_programme.draws import Draws, Values, Whole
from qilu_programme.ecosystem import Platforms, Providers, Reviews, awards_of_2018
from qilu_programme.events import (
    ACTIONS,
    EQUIPMENT,
    Contracts,
    Equipment,
    Money,
    MonthEvents,
    Notice,
    NoticeKind,
)
from qilu_programme.figures import SIZES, by_size, figure
from qilu_programme.months import MONTHS, year
from qilu_programme.scenario import LEVELS, Scenario
from qilu_programme.vouchers import Pools
from qilu_programme.world import (
    CITY_CODES,
    CITY_OF_COUNTY,
    COUNTY_CODES,
    World,
    fleet_classes,
    fleet_sizes,
    make_world,
    spread,
)

_LARGE = SIZES.index("large")
_PLACES = {"province": 1, "city": len(CITY_CODES), "county": len(COUNTY_CODES)}


@dataclass(frozen=True)
class Actions:
    """When each member of the market begins each kind of action, relative to the month in which it adopts."""

    takes: NDArray[np.bool_]  # member × kind
    first: Whole
    delay: NDArray[np.int16]  # member × kind

    def months(self, members: Whole, month: int) -> NDArray[np.int16]:
        """Member × kind: the month in which a kind begins; NEVER if it is not taken or begins after the
        programme."""
        begins = np.where(self.takes[members], self.delay[members] + month, NEVER)
        begins[np.arange(len(members)), self.first[members]] = month
        return np.where(begins < MONTHS, begins, NEVER).astype(np.int16)


def plan_actions(world: World, market: Market, units: Whole, draws: Draws) -> Actions:
    """Draw which kinds each enterprise takes (at least one), which one comes first, and the delay of the
    others. Only enterprises with equipment can take the equipment action.
    """
    size = world.size[market.cell]
    takes = np.zeros((len(market), len(ACTIONS)), dtype=np.bool_)
    for kind, name in enumerate(ACTIONS):
        shares = (
            np.array(by_size("action.equipment"))[size] * (units > 0)
            if kind == EQUIPMENT
            else figure(f"action.{name}")
        )
        takes[:, kind] = draws.uniform(f"takes {name}", market.enterprise) < shares
    takes[~takes.any(axis=1), 0] = True
    rank = np.stack([draws.uniform(f"first {name}", market.enterprise) for name in ACTIONS], axis=1)
    first = np.argmax(np.where(takes, rank, -1.0), axis=1)
    delay = np.stack(
        [
            1.0 + figure("action.delay") * draws.exponential(f"delay {name}", market.enterprise)
            for name in ACTIONS
        ],
        axis=1,
    )
    return Actions(takes, first, np.minimum(delay, 1_000).astype(np.int16))


class Model:
    """One run. The same scenario, seed and parameter set give the same events. Iterate over `events()`
    once."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.world = make_world()
        self.draws = Draws(scenario.seed)
        self.market = make_market(self.world, scenario.set, self.draws)
        self.units = fleet_sizes(self.world, self.market.enterprise, self.draws)
        self._actions = plan_actions(self.world, self.market, self.units, self.draws)
        self._size = self.world.size[self.market.cell]
        self._industrial = self.world.service[self.market.cell] == 0
        self._county = self.world.county[self.market.cell]
        self._place: dict[str, Whole] = {
            "province": np.zeros(len(self.market), dtype=np.int64),
            "city": CITY_OF_COUNTY[self._county],
            "county": self._county,
        }
        self.pools: dict[tuple[str, int], Pools] = {}
        """The pools of the run, by level and year; filled while `events()` is iterated."""
        fails = self.draws.uniform("fails", self.market.enterprise) < figure("action.fail")
        first, last = figure("action.fail_first"), figure("action.fail_last")
        after = first + np.floor(
            (last - first + 1) * self.draws.uniform("fails after", self.market.enterprise)
        )
        self._fails_after = np.where(fails, after, float(NEVER)).astype(np.int64)

    @cached_property
    def classes(self) -> Whole:
        """Fleets by class. Rows: members of the market; columns: equipment classes."""
        return fleet_classes(self.world, self.market.enterprise, self.units, self.draws)

    def _open_pools(self, month: int) -> None:
        weights = np.bincount(self.world.county, weights=self.world.count, minlength=len(COUNTY_CODES))
        by_place = {
            "province": np.array([1.0]),
            "city": np.bincount(CITY_OF_COUNTY, weights=weights, minlength=len(CITY_CODES)),
            "county": weights,
        }
        for level in LEVELS:
            budget = self.scenario.pools[level][year(month)]
            self.pools[level, year(month)] = Pools(spread(budget, by_place[level]))

    def _subsidy(self, month: int) -> Values:
        """The subsidy term x by cell: (net price / price)^elasticity, with the payments of the open pools
        of its places."""
        world, prices = self.world, np.array(by_size("price"))
        paid = np.zeros(len(world.count))
        place = {"province": np.zeros_like(world.county), "city": world.city, "county": world.county}
        for level in LEVELS:
            amount = np.minimum(self.scenario.shares[level] * prices, self.scenario.caps[level])
            still_open = self.pools[level, year(month)].open_shares()[place[level]]
            paid += still_open * (amount / prices)[world.size]
        # Vouchers for the first three kinds are for small and medium-sized enterprises. A large enterprise
        # gets a voucher only if its first kind is equipment, about one in two.
        paid[world.size == _LARGE] *= figure("voucher.large")
        own = 1.0 - figure("price.discount")
        return np.asarray(
            (np.maximum(own - paid, figure("voucher.least_price")) / own) ** figure("adoption.elasticity")
        )

    def _claims(self, members: Whole) -> dict[str, Whole]:
        """Maximum claim of each adopter at each level, CNY."""
        prices = np.array(by_size("price"))[self._size[members]]
        eligible = (self._size[members] != _LARGE) | (self._actions.first[members] == EQUIPMENT)
        return {
            level: np.where(
                eligible,
                np.minimum(np.floor(self.scenario.shares[level] * prices), self.scenario.caps[level]),
                0,
            ).astype(np.int64)
            for level in LEVELS
        }

    def diffusion(self, fit: float | None = None) -> Iterator[tuple[int, Whole, dict[str, Whole]]]:
        """Month by month: the members of the market that adopt, in order, and their granted vouchers by
        level. `fit` replaces the fit of the parameter set.
        """
        scenario = self.scenario
        parameters = scenario.set if fit is None else replace(scenario.set, fit=fit)
        adoption = Adoption(self.world, self.market, parameters, scenario.hazard)
        for month in range(MONTHS):
            if month == 0 or year(month) != year(month - 1):
                self._open_pools(month)
            if month == 0:
                adopters = adoption.launch(int(figure("adoption.launch")))
            else:
                adopters = adoption.step(month, awareness(scenario.centres, month), self._subsidy(month))
            yield month, adopters, self._grant(month, adopters)

    def events(self) -> Iterator[MonthEvents]:
        """The programme's events, month by month."""
        market, world = self.market, self.world
        providers, platforms = Providers(world, self.draws), Platforms(world, self.draws)
        reviews = Reviews(world)
        begins = np.full((len(market), len(ACTIONS)), NEVER, dtype=np.int16)
        ends = np.full(len(market), NEVER, dtype=np.int64)
        starting: dict[int, list[tuple[Whole, Whole]]] = {}  # by month: members and kinds
        ending: dict[int, list[Whole]] = {}
        large = np.zeros(0, dtype=np.int64)
        due: dict[int, list[tuple[Whole, int, dict[str, Whole]]]] = {}
        claw: dict[int, list[tuple[Whole, int, dict[str, Whole]]]] = {}
        delay = int(figure("voucher.pay_delay"))
        joined_so_far = np.zeros(0, dtype=np.int64)
        for month, adopters, given in self.diffusion():
            notices = self._centres(month)
            notices += providers.register(month, len(adopters))
            joined_so_far = np.append(joined_so_far, adopters)
            ends[adopters] = month + self._fails_after[adopters]
            planned = self._actions.months(adopters, month)
            # An enterprise whose contract has ended begins nothing new.
            planned = np.where(planned < ends[adopters, None], planned, NEVER).astype(np.int16)
            begins[adopters] = planned
            for later in range(month, MONTHS):
                rows, columns = np.nonzero(planned == later)
                if len(rows):
                    starting.setdefault(later, []).append((adopters[rows], columns))
            for later in np.unique(ends[adopters]):
                ending.setdefault(int(later), []).append(adopters[ends[adopters] == later])

            due.setdefault(month + delay, []).append((adopters, year(month), given))
            granted = _totals(given)
            redeemed = self._redeem(month, ends, due, claw)
            clawed_back = self._claw_back(month, claw)
            ended = np.concatenate([large[:0], *ending.pop(month, [])])

            batches = starting.pop(month, [])
            members = np.concatenate([large[:0], *(batch[0] for batch in batches)])
            kinds = np.concatenate([large[:0], *(batch[1] for batch in batches)])
            contracts = Contracts(
                market.enterprise[members], kinds, providers.contract(market.enterprise[members], kinds)
            )
            equipped = members[kinds == EQUIPMENT]
            large_industrial = self._industrial[adopters] & (self._size[adopters] == _LARGE)
            large = np.append(large, market.enterprise[adopters[large_industrial]])
            notices += platforms.found(month, np.sort(large))
            notices += platforms.connect(market.enterprise[members[kinds == ACTIONS.index("platform")]])
            notices += platforms.publish(month)
            if self._december(month) and year(month) >= 2018:
                notices += self._review(month, begins, joined_so_far, providers, platforms, reviews)
            yield MonthEvents(
                month=month,
                contracts=contracts,
                equipment=Equipment(market.enterprise[equipped], self.units[equipped]),
                paid=market.enterprise[redeemed[1]],
                ended=market.enterprise[ended],
                money=Money(granted, redeemed[0], clawed_back),
                notices=tuple(notices),
            )

    @staticmethod
    def _december(month: int) -> bool:
        return month + 1 == MONTHS or year(month + 1) != year(month)

    def _centres(self, month: int) -> list[Notice]:
        notices = []
        for number, centre in enumerate(self.scenario.centres):
            if centre.opens == month:
                name = f"centre-{number + 1:02d}"
                notices.append(Notice(NoticeKind.CENTRE, name, centre.county))
                award = int(figure("centre.award"))
                notices.append(Notice(NoticeKind.AWARD, name, centre.county, "experience centre", award))
        return notices

    def _review(
        self,
        month: int,
        begins: NDArray[np.int16],
        joined: Whole,
        providers: Providers,
        platforms: Platforms,
        reviews: Reviews,
    ) -> list[Notice]:
        begun = begins[joined] <= month
        equipped = joined[begun[:, EQUIPMENT] & self._industrial[joined]]
        both = joined[begun[:, EQUIPMENT] & (begun.sum(axis=1) >= 2) & self._industrial[joined]]
        best = both[np.argsort(-self.units[both], kind="stable")]
        numbers = self.market.enterprise
        return [
            *providers.review(),
            *reviews.pilots(numbers[both], self.units[both]),
            *reviews.bases(platforms.by_city()),
            *reviews.clusters(numbers[equipped]),
            *awards_of_2018(month, numbers[best], self.world, self._industrial[best]),
        ]

    def _grant(self, month: int, adopters: Whole) -> dict[str, Whole]:
        """Granted vouchers of each adopter by level, in the order of adoption."""
        if month == 0:  # enterprises on cloud before the programme get no voucher
            return {level: np.zeros(len(adopters), dtype=np.int64) for level in LEVELS}
        return {
            level: self.pools[level, year(month)].claim(self._place[level][adopters], amounts)
            for level, amounts in self._claims(adopters).items()
        }

    def _redeem(
        self,
        month: int,
        ends: Whole,
        due: dict[int, list[tuple[Whole, int, dict[str, Whole]]]],
        claw: dict[int, list[tuple[Whole, int, dict[str, Whole]]]],
    ) -> tuple[tuple[int, int, int], Whole]:
        """Pay the due vouchers of enterprises that are still on cloud, and schedule the clawback of those
        that fail later."""
        total = {level: np.zeros(1, dtype=np.int64) for level in LEVELS}
        paid = np.zeros(0, dtype=np.int64)
        for members, budget_year, given in due.pop(month, []):
            good = ends[members] > month
            good &= sum(given.values(), np.zeros(len(members), dtype=np.int64)) > 0
            for level in LEVELS:
                amounts = given[level][good]
                self.pools[level, budget_year].redeem(self._place[level][members[good]], amounts)
                total[level] += amounts.sum()
            paid = np.append(paid, members[good])
            for later in np.unique(ends[members[good]]):
                if later < MONTHS:
                    failing = good & (ends[members] == later)
                    back = {level: given[level][failing] for level in LEVELS}
                    claw.setdefault(int(later), []).append((members[failing], budget_year, back))
        return _totals(total), paid

    def _claw_back(
        self, month: int, claw: dict[int, list[tuple[Whole, int, dict[str, Whole]]]]
    ) -> tuple[int, int, int]:
        total = {level: np.zeros(1, dtype=np.int64) for level in LEVELS}
        for members, budget_year, given in claw.pop(month, []):
            for level in LEVELS:
                self.pools[level, budget_year].claw_back(self._place[level][members], given[level])
                total[level] += given[level].sum()
        return _totals(total)


def _totals(amounts: dict[str, Whole]) -> tuple[int, int, int]:
    """Sums by level, in the order of LEVELS."""
    province, city, county = (int(amounts[level].sum()) for level in LEVELS)
    return province, city, county


def run(scenario: Scenario, classes: bool = False) -> Table:
    """Run a scenario and count its events. Takes a few seconds; with `classes`, which also counts units by
    equipment class, a second more."""
    model = Model(scenario)
    equipped: list[Whole] = []

    def watched() -> Iterator[MonthEvents]:
        for events in model.events():
            equipped.append(events.equipment.enterprise)
            yield events

    table = tabulate(model.world, watched())
    if not classes:
        return table
    members = np.searchsorted(model.market.enterprise, np.concatenate(equipped))
    return replace(table, units_by_class=model.classes[members].sum(axis=0))
