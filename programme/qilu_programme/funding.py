"""The vouchers of a run: who claims when, what the pools of the three levels grant, pay and take back, and
how much vouchers speed up adoption.
"""

from __future__ import annotations

import numpy as np

from qilu_programme.adoption import Market
from qilu_programme.draws import Draws, Values, Whole
from qilu_programme.events import EQUIPMENT, Money
from qilu_programme.figures import SIZES, by_size, figure
from qilu_programme.months import MONTHS, month_of_year, year
from qilu_programme.scenario import LEVELS, Scenario
from qilu_programme.vouchers import Pools
from qilu_programme.world import CITY_CODES, CITY_OF_COUNTY, COUNTY_CODES, World, spread

Sums = dict[str, Whole]
"""Amounts in CNY by level, each for some members."""

_LARGE = SIZES.index("large")


def subsidy_term(paid: Values) -> Values:
    """The term x of the generalised Bass model, (net price / price)^elasticity; `paid`: share of the price
    that vouchers pay."""
    own = 1.0 - figure("price.discount")
    return np.asarray(
        (np.maximum(own - paid, figure("voucher.least_price")) / own) ** figure("adoption.elasticity")
    )


class Funding:
    """Vouchers of one run; members are those of the market, by number. `first`: each one's first kind of
    action. In each month call `subsidy`, `claim` and, with what was granted, `settle`."""

    def __init__(self, scenario: Scenario, world: World, market: Market, first: Whole, draws: Draws) -> None:
        self._scenario, self._world, self._first = scenario, world, first
        self._size = world.size[market.cell]
        county = world.county[market.cell]
        self._place: dict[str, Whole] = {
            "province": np.zeros(len(market), dtype=np.int64),
            "city": CITY_OF_COUNTY[county],
            "county": county,
        }
        rules = scenario.rules
        self._may_claim = rules.may_claim(market.enterprise, self._size, world.service[market.cell], draws)
        self._share_of_cell = rules.share(world.size, world.service)
        self.pools: dict[tuple[str, int], Pools] = {}
        """By level and year, from the first month of the year on."""
        self._by_provider: Pools | None = None
        nobody = np.zeros(0, dtype=np.int64)
        self._waiting = (nobody, nobody)
        """Members that wait for a window, and their providers."""
        self._joined = np.zeros(len(market), dtype=np.bool_)
        """Members that adopted during the programme: only these get vouchers."""
        self._due: dict[int, list[tuple[Whole, int, Sums]]] = {}
        self._to_claw: dict[int, list[tuple[Whole, int, Sums]]] = {}

    def _open_pools(self, month: int) -> None:
        if ("province", year(month)) in self.pools:
            return
        weights = np.bincount(self._world.county, weights=self._world.count, minlength=len(COUNTY_CODES))
        by_place = {
            "province": np.array([1.0]),
            "city": np.bincount(CITY_OF_COUNTY, weights=weights, minlength=len(CITY_CODES)),
            "county": weights,
        }
        for level in LEVELS:
            budget = self._scenario.pools[level][year(month)]
            self.pools[level, year(month)] = Pools(spread(budget, by_place[level]))
        self._by_provider = self._scenario.rules.provider_pools()

    def later_speed(self) -> Values:
        """How much sooner each member begins later kinds of action, where these get a voucher too: by the
        same term as adoption (A); 1 elsewhere."""
        later_caps = self._scenario.rules.later_caps
        if later_caps is None:
            return np.ones(len(self._size))
        prices, paid = np.array(by_size("price")), np.zeros(len(SIZES))
        for level in LEVELS:
            cap = self._scenario.caps[level] * later_caps
            paid += np.minimum(self._scenario.shares[level] * prices, cap) / prices
        return np.where(self._may_claim & (self._size != _LARGE), subsidy_term(paid)[self._size], 1.0)

    def subsidy(self, month: int) -> Values:
        """The subsidy term x by cell, with the payments of the open pools of its places."""
        self._open_pools(month)
        world, prices = self._world, np.array(by_size("price"))
        paid = np.zeros(len(world.count))
        if not self._scenario.rules.is_open(month_of_year(month)):
            return subsidy_term(paid)  # A: a voucher that cannot be claimed now convinces nobody
        place = {"province": np.zeros_like(world.county), "city": world.city, "county": world.county}
        for level in LEVELS:
            amount = np.minimum(self._scenario.shares[level] * prices, self._scenario.caps[level])
            still_open = self.pools[level, year(month)].open_shares()[place[level]]
            paid += still_open * (amount / prices)[world.size]
        # Vouchers for the first three kinds are for small and medium-sized enterprises. A large enterprise
        # gets a voucher only if its first kind is equipment, about one in two.
        paid[world.size == _LARGE] *= figure("voucher.large")
        return subsidy_term(paid * self._share_of_cell)

    def claim(self, month: int, adopters: Whole, providers: Whole | None, ends: Whole) -> tuple[Whole, Sums]:
        """The members that claim in this month, in order, and what is granted to each. `providers`: of the
        adopters; None: no provider is capped. `ends`: the month in which each member's contract ends."""
        self._open_pools(month)
        if month == 0:  # enterprises on cloud before the programme get no voucher
            return self._grant(month, adopters[:0], self._claims(adopters[:0], adopters[:0]))
        self._joined[adopters] = True
        known = np.zeros_like(adopters) if providers is None else providers
        waiting, theirs = (
            np.concatenate(pair) for pair in zip(self._waiting, (adopters, known), strict=True)
        )
        if not self._scenario.rules.is_open(month_of_year(month)):
            self._waiting = (waiting, theirs)
            return self._grant(month, adopters[:0], self._claims(adopters[:0], adopters[:0]))
        lasts = ends[waiting] > month
        claimants, theirs = waiting[lasts], theirs[lasts]
        self._waiting = (claimants[:0], claimants[:0])
        claims = self._claims(claimants, self._first[claimants])
        if providers is not None and self._by_provider is not None:
            self._cap_providers(month, self._by_provider, claimants, theirs, claims)
        return self._grant(month, claimants, claims)

    def claim_later(self, month: int, members: Whole, kinds: Whole) -> tuple[Whole, Sums]:
        """The same for kinds of action after a member's first one, where the rules have vouchers for them."""
        rules = self._scenario.rules
        later = (kinds != self._first[members]) & self._joined[members]
        if rules.later_caps is None or not rules.is_open(month_of_year(month)):
            later[:] = False
        claims = self._claims(members[later], kinds[later], rules.later_caps or 0.0)
        return self._grant(month, members[later], claims)

    def _claims(self, members: Whole, kinds: Whole, caps: float = 1.0) -> Sums:
        """Maximum claim of each member for a contract of a kind; `caps` multiplies the caps."""
        scenario, prices = self._scenario, np.array(by_size("price"))[self._size[members]]
        eligible = (self._size[members] != _LARGE) | (kinds == EQUIPMENT)
        eligible &= self._may_claim[members]
        amounts = {
            level: np.floor(np.minimum(scenario.shares[level] * prices, scenario.caps[level] * caps))
            for level in LEVELS
        }
        return {level: np.where(eligible, each, 0).astype(np.int64) for level, each in amounts.items()}

    def _cap_providers(
        self, month: int, by_provider: Pools, members: Whole, providers: Whole, claims: Sums
    ) -> None:
        """Refuse claims for contracts of providers whose limit of the year is reached. The share of a
        closed pool does not count."""
        for level, amounts in claims.items():
            still_open = self.pools[level, year(month)].open_shares()[self._place[level][members]]
            amounts *= still_open.astype(np.int64)
        total = np.sum(list(claims.values()), axis=0)
        refused = by_provider.claim(providers, total) < total
        for amounts in claims.values():
            amounts[refused] = 0

    def _grant(self, month: int, members: Whole, claims: Sums) -> tuple[Whole, Sums]:
        """Amounts that the pools grant, of claims in the order of their arrival."""
        return members, {
            level: self.pools[level, year(month)].claim(self._place[level][members], amounts)
            for level, amounts in claims.items()
        }

    def settle(self, month: int, granted: list[tuple[Whole, Sums]], ends: Whole) -> tuple[Money, Whole]:
        """The money of a month, and the members to whom a voucher is paid. Grants are paid after a delay,
        unless the contract has ended; what was paid for contracts that end later is taken back."""
        due = month + int(figure("voucher.pay_delay"))
        self._due.setdefault(due, []).extend((members, year(month), given) for members, given in granted)
        province, city, county = np.array([_totals(given) for _, given in granted]).sum(axis=0).tolist()
        redeemed, paid = self._redeem(month, ends)
        return Money((province, city, county), redeemed, self._claw_back(month)), paid

    def _redeem(self, month: int, ends: Whole) -> tuple[tuple[int, int, int], Whole]:
        total = {level: np.zeros(1, dtype=np.int64) for level in LEVELS}
        paid = np.zeros(0, dtype=np.int64)
        for members, budget_year, given in self._due.pop(month, []):
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
                    self._to_claw.setdefault(int(later), []).append((members[failing], budget_year, back))
        return _totals(total), paid

    def _claw_back(self, month: int) -> tuple[int, int, int]:
        total = {level: np.zeros(1, dtype=np.int64) for level in LEVELS}
        for members, budget_year, given in self._to_claw.pop(month, []):
            for level in LEVELS:
                self.pools[level, budget_year].claw_back(self._place[level][members], given[level])
                total[level] += given[level].sum()
        return _totals(total)


def _totals(amounts: Sums) -> tuple[int, int, int]:
    """Sums by level, in the order of LEVELS."""
    province, city, county = (int(amounts[level].sum()) for level in LEVELS)
    return province, city, county
