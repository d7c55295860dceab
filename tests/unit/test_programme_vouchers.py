"""Vouchers: capped, first come first served, whatever is claimed."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from qilu_programme.vouchers import Pools, grant_in_order

CLAIMS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 100)), max_size=60)


def test_first_come_first_served_at_each_place() -> None:
    places, amounts = np.array([0, 1, 0, 0, 1]), np.array([5, 9, 6, 1, 2])
    granted = grant_in_order(places, amounts, np.array([11, 10]))
    assert granted.tolist() == [True, True, True, False, False]


def test_a_pool_that_turned_a_claim_away_is_closed() -> None:
    pools = Pools(np.array([10]))
    assert pools.open_shares().tolist() == [1.0]
    assert pools.claim(np.array([0, 0]), np.array([6, 6])).tolist() == [6, 0]
    assert pools.open_shares().tolist() == [0.0]
    assert pools.claim(np.array([0]), np.array([1])).tolist() == [0]


def test_a_pool_that_is_granted_to_the_last_yuan_is_closed() -> None:
    pools = Pools(np.array([10, 10]))
    assert pools.claim(np.array([0, 0, 1]), np.array([6, 4, 9])).tolist() == [6, 4, 9]
    assert pools.open_shares().tolist() == [0.0, 1.0]


@given(CLAIMS, st.lists(st.integers(0, 300), min_size=5, max_size=5))
def test_grants_never_exceed_the_pool_and_nobody_passes_another(
    claims: list[tuple[int, int]], budgets: list[int]
) -> None:
    places = np.array([place for place, _ in claims], dtype=np.int64)
    amounts = np.array([amount for _, amount in claims], dtype=np.int64)
    left = np.array(budgets)
    granted = grant_in_order(places, amounts, left)
    for place in range(5):
        mine = places == place
        assert amounts[mine & granted].sum() <= left[place]
        wanted = granted[mine & (amounts > 0)]
        assert not (np.diff(wanted.astype(int)) > 0).any()  # once refused, all later ones are


@given(st.lists(CLAIMS, max_size=8), st.lists(st.integers(0, 300), min_size=5, max_size=5))
def test_pools_hold_over_many_months(months: list[list[tuple[int, int]]], budgets: list[int]) -> None:
    pools = Pools(np.array(budgets))
    for claims in months:
        places = np.array([place for place, _ in claims], dtype=np.int64)
        given_ = pools.claim(places, np.array([amount for _, amount in claims], dtype=np.int64))
        pools.redeem(places[::2], given_[::2])
        pools.claw_back(places[::4], given_[::4])
        assert (pools.granted <= pools.budgets).all()
        assert (pools.redeemed <= pools.granted).all()
        assert (pools.clawed_back <= pools.redeemed).all()
