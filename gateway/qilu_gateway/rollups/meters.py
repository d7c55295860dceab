"""Meters: increments of cumulative signals between readings."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from qilu_contract.columns import Floats, Ints, Rows, grown


class Meter:
    """A cumulative signal of the units of a class: time and value of each unit's last reading."""

    def __init__(self) -> None:
        self.times: Ints = np.zeros(0, dtype=np.int64)
        """Times in UTC milliseconds; 0: none yet."""
        self.values: Floats = np.zeros(0)

    def added(self, units: Rows, times: Ints, column: Floats, remember: bool) -> Floats:
        """Increments since the unit's previous reading; NaN where it is unknown or the meter was reset. Rows
        are ordered by unit and time. Without `remember` the state is left unchanged."""
        found = np.full(len(column), np.nan)
        rows = np.flatnonzero(~np.isnan(column))
        if not len(rows):
            return found
        self._make_room(int(units[-1]) + 1)
        unit, value, at_ms = units[rows], column[rows], times[rows]
        first = np.append(True, unit[1:] != unit[:-1])
        before = np.where(first, self.values[unit], np.roll(value, 1))
        known = ~first | ((self.times[unit] > 0) & (self.times[unit] < at_ms))
        with np.errstate(over="ignore"):
            step = value - before
        good = known & (step >= 0)
        found[rows[good]] = step[good]
        if remember:
            last = np.append(first[1:], True)
            newer = last & (at_ms > self.times[unit])
            self.times[unit[newer]] = at_ms[newer]
            self.values[unit[newer]] = value[newer]
        return found

    def _make_room(self, size: int) -> None:
        self.times, self.values = grown(self.times, size), grown(self.values, size)

    def of(self, size: int) -> tuple[NDArray[np.int64], Floats]:
        """Times and values of the first `size` units, to be saved."""
        self._make_room(size)
        return self.times[:size], self.values[:size]
