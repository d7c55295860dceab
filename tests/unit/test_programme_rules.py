"""Rules of other provinces: who claims vouchers, when and how much; depth by stars; another province's
curve."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterator
from itertools import islice

import numpy as np
import pytest
from qilu_contract.errors import ConfigError
from qilu_programme import elsewhere
from qilu_programme.counts import Counter
from qilu_programme.ecosystem import Providers
from qilu_programme.events import Contracts, MonthEvents, Notice, NoticeKind
from qilu_programme.figures import SIZES, figure
from qilu_programme.model import Model, Step
from qilu_programme.months import MONTHS, month_of_year, year
from qilu_programme.rules import Rules
from qilu_programme.scenario import load_scenario, parse_scenario
from qilu_programme.vouchers import Pools
from qilu_programme.world import make_world

GUANGDONG, GUIZHOU = load_scenario("guangdong-rules"), load_scenario("guizhou-second-voucher")


@pytest.fixture(scope="module")
def guangdong() -> tuple[Model, list[Step], dict[int, int]]:
    """The steps of a diffusion by Guangdong's rules, and each adopter's provider."""
    model = Model(GUANGDONG)
    providers, chosen = Providers(model.world, model.draws), dict[int, int]()

    def choose(month: int, adopters: np.ndarray) -> np.ndarray:
        providers.register(month, len(adopters))
        first = np.argmax(model._actions.takes[adopters], axis=1)
        found = providers.choose_for(model.market.enterprise[adopters], first)
        chosen.update(zip(adopters.tolist(), found.tolist(), strict=True))
        return found

    return model, list(model.diffusion(choose=choose)), chosen


def paid(step: Step) -> np.ndarray:
    return np.sum(list(step.given.values()), axis=0)


def test_only_those_who_may_claim_get_a_voucher_and_only_in_the_window(
    guangdong: tuple[Model, list[Step], dict[int, int]],
) -> None:
    model, steps, _ = guangdong
    world, adopted = model.world, {}
    sizes = Tally[str]()
    for step in steps:
        adopted.update(dict.fromkeys(step.adopters.tolist(), step.month))
        given = paid(step)
        got = step.claimants[given > 0]
        assert not len(got) or 5 <= month_of_year(step.month) <= 9
        cells = model.market.cell[got]
        assert not world.service[cells].any()
        sizes.update(SIZES[size] for size in world.size[cells])
        # Enterprises that adopted outside the window waited for it, and came first.
        assert all(adopted[member] <= step.month for member in step.claimants.tolist())
        months = [adopted[member] for member in step.claimants.tolist()]
        assert months == sorted(months)
    assert sizes["micro"] == 0
    assert min(sizes["small"], sizes["medium"]) > 100
    waited = [step for step in steps if month_of_year(step.month) == 5]
    assert all(len(step.claimants) > len(step.adopters) for step in waited if step.month)


def test_no_provider_s_contracts_get_more_than_its_limit_in_a_year(
    guangdong: tuple[Model, list[Step], dict[int, int]],
) -> None:
    _, steps, chosen = guangdong
    sums = Tally[tuple[int, int]]()
    for step in steps:
        for member, amount in zip(step.claimants.tolist(), paid(step).tolist(), strict=True):
            sums[year(step.month), chosen[member]] += amount
    full_range = int(figure("provider.full_range"))
    assert GUANGDONG.rules.provider_caps == (8_000_000, 5_000_000)
    for (_, provider), total in sums.items():
        assert total <= (8_000_000 if provider < full_range else 5_000_000)
    pools = Rules(provider_caps=(30, 20)).provider_pools()
    assert isinstance(pools, Pools)
    granted = pools.claim(np.array([0, 0, 99, 99, 0]), np.array([20, 15, 20, 1, 5]))
    assert granted.tolist() == [20, 0, 20, 0, 0]  # a limit that refused a claim is reached for the year


def test_later_kinds_of_action_get_a_smaller_voucher_from_the_same_pools() -> None:
    plain, model = Model(load_scenario()), Model(GUIZHOU)
    sums = [0, 0]
    for one, two in islice(zip(plain.events(), model.events(), strict=True), 5):
        sums = [before + sum(each.money.granted) for before, each in zip(sums, (one, two), strict=True)]
    assert sums[1] > 1.1 * sums[0] > 0
    for (level, of_year), pools in model.pools.items():
        assert (pools.granted <= pools.budgets).all()
        assert pools.budgets.sum() == GUIZHOU.pools[level][of_year]
    large = np.flatnonzero((model._size == SIZES.index("large")) & model._funding._joined)[:50]
    claims = model._funding._claims(large, np.full(len(large), 3), 0.6)
    assert claims["province"].max() == 15_000  # 60 % of 25,000


def test_a_fourth_star_needs_equipment_and_a_fifth_all_kinds_for_a_year() -> None:
    def months() -> Iterator[MonthEvents]:
        provider = Notice(NoticeKind.PROVIDER, "provider-0001", "370102")
        pairs = [(1, 0), (2, 0), (2, 3), (2, 3), (3, 0), (3, 1), (3, 2), (3, 3), (5, 0)]
        enterprise, kind = np.array(pairs).T
        yield MonthEvents(0, Contracts(enterprise, kind, np.zeros_like(kind)), notices=(provider,))
        late = np.arange(4)
        contracts = Contracts(np.full(4, 4), late, np.zeros_like(late))
        yield MonthEvents(MONTHS - 12, contracts, ended=np.array([5]))

    counter = Counter(make_world())
    for events in months():
        counter.add(events)
    # Three: enterprise 1. Four: 2 and 4, which is too late for five. Five: 3. Enterprise 5 has ended.
    assert counter.stars().tolist() == [1, 2, 1]


def test_the_steep_set_does_not_have_the_shape_of_another_province() -> None:
    assert [(point.months, point.enterprises) for point in elsewhere.POINTS] == [(6, 37_658), (41, 377_800)]
    ratios = {check.set: check.ratio for check in elsewhere.checks()}
    assert ratios == pytest.approx({"m350k": 2.23, "m500k": 0.92, "m800k": 1.13}, abs=0.01)


@pytest.mark.parametrize(
    ("rules", "sentence"),
    [
        ("{sectors: [farming]}", "farming"),
        ("{window: {first: 9, last: 5}}", "swap them"),
        ("{sizes: {large: 1, medium: 1, small: 2, micro: 0}}", "rules: sizes: small"),
        ("{provider_caps: {others: 5}}", "full_range"),
        ("{later_voucher: 1.5}", "rules: later_voucher"),
        ("{quota: 1}", "quota"),
    ],
)
def test_a_wrong_rule_is_refused_with_its_line(rules: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=r"mine\.yaml") as caught:
        parse_scenario(f"extends: default\nname: mine\nrules: {rules}\n", "mine.yaml")
    assert sentence in str(caught.value)
