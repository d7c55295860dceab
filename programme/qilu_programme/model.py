"""The model: one run of the programme, from October 2017 to December 2022, as a stream of events."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

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
    MonthEvents,
    Notice,
    NoticeKind,
)
from qilu_programme.figures import SIZES, by_size, figure
from qilu_programme.funding import Funding
from qilu_programme.months import MONTHS, year
from qilu_programme.scenario import Scenario
from qilu_programme.vouchers import Pools
from qilu_programme.world import (
    CITY_CODES,
    COUNTY_CODES,
    World,
    fleet_classes,
    fleet_sizes,
    make_world,
)

_LARGE = SIZES.index("large")
_PLACES = {"province": 1, "city": len(CITY_CODES), "county": len(COUNTY_CODES)}


@dataclass(frozen=True)
class Actions:
    """When each member of the market begins each kind of action, relative to the month in which it adopts."""

    takes: NDArray[np.bool_]  # member × kind
    first: Whole
    delay: NDArray[np.int16]  # member × kind

    def sooner(self, speed: Values) -> Actions:
        """The same with later kinds beginning sooner, by a factor for each member."""
        delay = np.maximum(np.floor(self.delay / speed[:, np.newaxis]), 1.0)
        return replace(self, delay=delay.astype(np.int16))

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


class Step(NamedTuple):
    """A month of the diffusion, in members of the market."""

    month: int
    adopters: Whole
    """Those that adopt, in order."""
    claimants: Whole
    """Those that claim a voucher: the adopters, and earlier ones that waited for a window."""
    given: dict[str, Whole]
    """The claimants' granted vouchers by level, CNY."""


Chooser = Callable[[int, Whole], Whole]
"""Called once each month with its adopters: the provider of each one's first contract."""


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
        self._funding = self._new_funding()
        self._actions = self._actions.sooner(self._funding.later_speed())
        fails = self.draws.uniform("fails", self.market.enterprise) < figure("action.fail")
        first, last = figure("action.fail_first"), figure("action.fail_last")
        after = first + np.floor(
            (last - first + 1) * self.draws.uniform("fails after", self.market.enterprise)
        )
        self._fails_after = np.where(fails, after, float(NEVER)).astype(np.int64)
        self._fails_in = np.full(len(self.market), NEVER, dtype=np.int64)
        """The month in which the contract of each member fails; filled as they adopt."""

    def _new_funding(self) -> Funding:
        return Funding(self.scenario, self.world, self.market, self._actions.first, self.draws)

    @property
    def pools(self) -> Mapping[tuple[str, int], Pools]:
        """The pools of the run, by level and year; filled while `events()` is iterated."""
        return self._funding.pools

    @cached_property
    def classes(self) -> Whole:
        """Fleets by class. Rows: members of the market; columns: equipment classes."""
        return fleet_classes(self.world, self.market.enterprise, self.units, self.draws)

    def diffusion(self, fit: float | None = None, choose: Chooser | None = None) -> Iterator[Step]:
        """Month by month: the members of the market that adopt, and the vouchers that are granted. `fit`
        replaces the fit of the parameter set. Without `choose`, no provider's contracts are capped.
        """
        scenario = self.scenario
        parameters = scenario.set if fit is None else replace(scenario.set, fit=fit)
        adoption = Adoption(self.world, self.market, parameters, scenario.hazard)
        self._funding = self._new_funding()
        for month in range(MONTHS):
            if month == 0:
                adopters = adoption.launch(int(figure("adoption.launch")))
            else:
                x = self._funding.subsidy(month)
                adopters = adoption.step(month, awareness(self.scenario.centres, month), x)
            providers = choose(month, adopters) if choose else None
            self._fails_in[adopters] = month + self._fails_after[adopters]
            yield Step(month, adopters, *self._funding.claim(month, adopters, providers, self._fails_in))

    def events(self) -> Iterator[MonthEvents]:
        """The programme's events, month by month."""
        market, world = self.market, self.world
        providers, platforms = Providers(world, self.draws), Platforms(world, self.draws)
        reviews = Reviews(world)
        begins = np.full((len(market), len(ACTIONS)), NEVER, dtype=np.int16)
        ends = self._fails_in
        starting: dict[int, list[tuple[Whole, Whole]]] = {}  # by month: members and kinds
        ending: dict[int, list[Whole]] = {}
        large = np.zeros(0, dtype=np.int64)
        joined_so_far = np.zeros(0, dtype=np.int64)
        registered: list[Notice] = []

        def choose(month: int, adopters: Whole) -> Whole:
            registered[:] = providers.register(month, len(adopters))
            return providers.choose_for(market.enterprise[adopters], self._actions.first[adopters])

        for month, adopters, claimants, given in self.diffusion(choose=choose):
            notices = [*self._centres(month), *registered]
            joined_so_far = np.append(joined_so_far, adopters)
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

            batches = starting.pop(month, [])
            members = np.concatenate([large[:0], *(batch[0] for batch in batches)])
            kinds = np.concatenate([large[:0], *(batch[1] for batch in batches)])
            granted = [(claimants, given), self._funding.claim_later(month, members, kinds)]
            money, paid = self._funding.settle(month, granted, ends)
            ended = np.concatenate([large[:0], *ending.pop(month, [])])

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
                paid=market.enterprise[paid],
                ended=market.enterprise[ended],
                money=money,
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
