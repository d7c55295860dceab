"""Every core target is counted from events, and from the right ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from qilu_contract.catalogue.targets import CORE_TARGETS
from qilu_programme.counts import Counter
from qilu_programme.events import TIERS, Contracts, Equipment, MonthEvents, Notice, NoticeKind
from qilu_programme.world import make_world

PROVIDER = Notice(NoticeKind.PROVIDER, "provider-0001", "370102")


def counted(*months: MonthEvents) -> dict[str, int]:
    counter = Counter(make_world())
    for events in months:
        counter.add(events)
    return counter.values()


def contract(*enterprises: int, provider: int = 0, kind: int = 0) -> Contracts:
    many = len(enterprises)
    return Contracts(np.array(enterprises), np.full(many, kind), np.full(many, provider))


def notices(*found: Notice) -> MonthEvents:
    return MonthEvents(0, notices=found)


def test_with_no_events_everything_is_zero() -> None:
    assert set(counted(MonthEvents(0)).values()) == {0}
    assert set(counted(MonthEvents(0))) == set(CORE_TARGETS)


def test_enterprises_on_cloud_count_from_their_first_contract_and_once() -> None:
    first = MonthEvents(0, contract(5, 9, 5), notices=(PROVIDER,))
    again = MonthEvents(1, contract(9, 1_800_999, kind=2))
    assert counted(first)["enterprises_on_cloud"] == 2
    assert counted(first, again)["enterprises_on_cloud"] == 3
    assert counted(first, first)["enterprises_on_cloud"] == 2


def test_a_contract_with_a_provider_that_is_not_registered_does_not_count() -> None:
    assert counted(MonthEvents(0, contract(5)))["enterprises_on_cloud"] == 0
    assert counted(MonthEvents(0, contract(5, provider=1), notices=(PROVIDER,)))["enterprises_on_cloud"] == 0


def test_an_enterprise_whose_contract_ended_was_on_cloud_but_is_not_current() -> None:
    counter = Counter(make_world())
    counter.add(MonthEvents(0, contract(5, 6), notices=(PROVIDER,)))
    counter.add(MonthEvents(1, ended=np.array([5, 5, 77])))
    assert (counter.enterprises, counter.current) == (2, 1)


def test_units_on_cloud_count_with_their_enterprise_and_once() -> None:
    fleet = Equipment(np.array([5, 6]), np.array([40, 2]))
    on_cloud = MonthEvents(0, contract(5, kind=3), fleet, notices=(PROVIDER,))
    assert counted(on_cloud)["units_on_cloud"] == 40  # 6 is not on cloud
    assert counted(on_cloud, MonthEvents(1, equipment=fleet))["units_on_cloud"] == 40
    assert counted(on_cloud, MonthEvents(1, contract(6, kind=3), fleet))["units_on_cloud"] == 42


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("providers", NoticeKind.PROVIDER),
        ("centres", NoticeKind.CENTRE),
        ("suppliers", NoticeKind.SUPPLIER),
        ("applications", NoticeKind.APPLICATION),
        ("pilots", NoticeKind.PILOT),
        ("bases", NoticeKind.BASE),
        ("clusters", NoticeKind.CLUSTER),
        ("platforms_leading", NoticeKind.LEADING),
    ],
)
def test_each_notice_counts_for_its_own_target_and_once(name: str, kind: NoticeKind) -> None:
    one, two = Notice(kind, "thing-1", "370102"), Notice(kind, "thing-2", "370102")
    values = counted(notices(one, two), notices(one))
    assert values.pop(name) == 2
    assert set(values.values()) == {0}


@pytest.mark.parametrize("tier", range(3))
def test_a_platform_counts_in_the_highest_tier_it_was_recognised_in(tier: int) -> None:
    rise = [
        notices(Notice(NoticeKind.PLATFORM, "platform-001", "370102", TIERS[step]))
        for step in range(tier + 1)
    ]
    values = counted(*rise, rise[0])
    assert [values[f"platforms_{name}"] for name in TIERS] == [int(step == tier) for step in range(3)]


def test_awards_are_money_and_no_count() -> None:
    counter = Counter(make_world())
    counter.add(notices(Notice(NoticeKind.AWARD, "centre-01", "370102", "experience centre", 500_000)))
    assert counter.awards == 500_000
    assert set(counter.values().values()) == {0}


def test_more_than_is_more_than() -> None:
    assert not CORE_TARGETS["enterprises_on_cloud"].reached(300_000)
    assert CORE_TARGETS["enterprises_on_cloud"].reached(300_001)
    assert CORE_TARGETS["centres"].reached(30)
    assert CORE_TARGETS["clusters"].reached(2)
    assert CORE_TARGETS["clusters"].wanted == "2–3"


def test_the_docs_say_of_every_core_target_where_its_count_comes_from() -> None:
    text = (Path(__file__).parents[2] / "docs" / "programme.md").read_text(encoding="utf-8")
    assert len(CORE_TARGETS) == 13
    for target in CORE_TARGETS.values():
        assert f"`{target.name}`" in text
    assert len({target.row for target in CORE_TARGETS.values()}) == 13
