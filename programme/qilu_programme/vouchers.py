"""Vouchers at three levels out of budget pools: capped, first come first served, paid after the enterprise is
on cloud, clawed back when the contract fails.

Money is in whole CNY. A grant is reserved in the pool of its place and year at the moment of adoption; it is
redeemed (paid) later, and what fails before payment is never paid. What is clawed back goes to the treasury:
it is not granted again. So at any time, for every pool: granted ≤ pool, and redeemed ≤ granted.
"""

from __future__ import annotations

import numpy as np

from qilu_programme.draws import Mask, Values, Whole


def grant_in_order(places: Whole, amounts: Whole, left: Whole) -> Mask:
    """Which of the claims, given in the order they came in, are granted: at each place, those before the
    first that does not fit. `left` is what each place's pool still has. Pure; claims of 0 are never granted.
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
    """One level's pools in one year, a place each."""

    def __init__(self, budgets: Whole) -> None:
        self.budgets = budgets
        self.granted = np.zeros(len(budgets), dtype=np.int64)
        self.redeemed = np.zeros(len(budgets), dtype=np.int64)
        self.clawed_back = np.zeros(len(budgets), dtype=np.int64)
        # A pool that had to turn a claim away is closed for the year: later, smaller claims do not slip in.
        self.closed = budgets <= 0

    def open_shares(self) -> Values:
        """1 for a place whose pool still pays, 0 for one that does not."""
        return np.where(self.closed, 0.0, 1.0)

    def claim(self, places: Whole, amounts: Whole) -> Whole:
        """What each claim is granted, in the order given; the pools keep account."""
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
