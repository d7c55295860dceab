"""Vouchers of three levels from budget pools: capped, first come, first served, paid after the enterprise is
on cloud, and clawed back when the contract fails.

Money is in whole CNY. A grant is reserved in the pool of its place and year at the moment of adoption. It
is redeemed (paid) later, unless the contract fails before that. Clawed back money goes to the treasury and
is not granted again. At any time, for every pool: granted ≤ pool, and redeemed ≤ granted.
"""

from __future__ import annotations

import numpy as np

from qilu_programme.draws import Mask, Values, Whole


def grant_in_order(places: Whole, amounts: Whole, left: Whole) -> Mask:
    """Mask of the granted claims. Claims are in order of arrival; at each place, those before the first
    one that exceeds the pool are granted. `left` is the remaining amount of each place's pool. Claims
    of 0 are not granted.
    """
    order = np.argsort(places, kind="stable")
    sorted_places = places[order]
    total = np.cumsum(amounts[order])
    firsts = np.searchsorted(sorted_places, sorted_places, side="left")
    before = np.where(firsts > 0, total[firsts - 1], 0)
    granted = np.zeros(len(places), dtype=np.bool_)
    granted[order] = total - before <= left[sorted_places]
    return granted & (amounts > 0)


class Pools:
    """The pools of one level in one year, one per place."""

    def __init__(self, budgets: Whole) -> None:
        self.budgets = budgets
        self.granted = np.zeros(len(budgets), dtype=np.int64)
        self.redeemed = np.zeros(len(budgets), dtype=np.int64)
        self.clawed_back = np.zeros(len(budgets), dtype=np.int64)
        # A pool that refused a claim is closed for the year, so that later, smaller claims are not granted
        # either.
        self.closed = budgets <= 0

    def open_shares(self) -> Values:
        """1 for each place whose pool is open, 0 for the others."""
        return np.where(self.closed, 0.0, 1.0)

    def claim(self, places: Whole, amounts: Whole) -> Whole:
        """Grant claims in the given order, and return the granted amount of each."""
        left = np.where(self.closed, 0, self.budgets - self.granted)
        granted = grant_in_order(places, amounts, left)
        refused = places[(amounts > 0) & ~granted]
        given = np.where(granted, amounts, 0)
        np.add.at(self.granted, places, given)
        self.closed[refused] = True
        self.closed |= self.granted >= self.budgets
        return given

    def redeem(self, places: Whole, amounts: Whole) -> None:
        np.add.at(self.redeemed, places, amounts)

    def claw_back(self, places: Whole, amounts: Whole) -> None:
        np.add.at(self.clawed_back, places, amounts)
