"""Working time, stops and output of units, from their readings: the sums behind the OEE of ISO 22400-2.

The gateway (roll-ups by minute) and the platform (one unit) call the same function, so that both give the
same figures. Everything is decided by readings up to the row at hand, so that minutes can be summed as they
close; only the reason of a stop may come with a later reading.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from qilu_contract.catalogue.effectiveness import Effectiveness
from qilu_contract.columns import Floats, Ints, Rows

GAP_MS = 180_000
"""The state between two readings that are further apart is unknown, and no time is counted. Three times the
longest interval of a signal in `effectiveness.csv`."""

Mask = NDArray[np.bool_]

# Columns of the state of a unit: times in ms (0: never), a reason by its number (-1: none), seconds.
_AT, _MOVED, _BAD, _COUNTED, _COUNTER_AT, _STOP, _STOP_AT, _PENDING, _SIGNALS = range(9)


@dataclass(frozen=True, slots=True)
class Accounts:
    """Seconds that each row adds: the time from the unit's previous reading to this one."""

    planned_s: Floats
    run_s: Floats
    ideal_s: Floats
    """Planned run time of the items made."""
    good_s: Floats
    """The same, of good items."""
    stop_s: Floats
    """A column for each reason; a stop without a known reason is in none. A reason that is read later than
    the stop adds the seconds that waited for it."""


class UnitAccounts:
    """The accounts of the units of one class, by number. `add` gets each reading once, in order of time."""

    def __init__(self, rule: Effectiveness, state: Floats | None = None) -> None:
        self._rule = rule
        self.state = np.empty((0, _SIGNALS + len(rule.signals))) if state is None else state
        """State of each unit that later rows depend on; may be saved and restored."""

    def make_room(self, size: int) -> None:
        """Accept units with numbers below `size`."""
        more = size - len(self.state)
        if more > 0:
            new = np.zeros((max(more, len(self.state)), self.state.shape[1]))
            new[:, _STOP], new[:, _SIGNALS:] = -1, np.nan
            self.state = np.concatenate((self.state, new))

    def add(self, units: Rows, times: Ints, values: Floats, remember: bool = True) -> Accounts:
        """The accounts of rows that are ordered by unit and time, each unit and time once. `values`: a column
        for each signal of the rule; NaN: absent. Without `remember` the state is left unchanged."""
        rule, stops = self._rule, len(self._rule.stops)
        if not len(units):
            nothing = np.zeros(0)
            return Accounts(nothing, nothing, nothing, nothing, np.zeros((0, stops)))
        self.make_room(int(units[-1]) + 1)
        rows = _Rows(units, times, values, self.state, rule)
        rows.count_time()
        rows.count_output()
        rows.find_reasons()
        if remember:
            last = np.append(rows.first[1:], True)
            newer = last & (rows.t > self.state[units, _AT])
            self.state[units[newer]] = rows.state()[newer]
        return Accounts(rows.planned_s, rows.run_s, rows.ideal_s, rows.good_s, rows.stop_s)


class _Rows:
    """The computation for some rows: arrays with an entry per row. `…_before` is what was known before the
    row, from the row above or from the unit's state."""

    def __init__(self, units: Rows, times: Ints, values: Floats, state: Floats, rule: Effectiveness) -> None:
        self.rule, self.raw = rule, values
        self.t = times.astype(np.float64)
        self.here = np.arange(len(units))
        self.first: Mask = np.append(True, units[1:] != units[:-1])
        self._number = np.cumsum(self.first) - 1
        self._state = state[units[self.first]]
        self.start = np.maximum.accumulate(np.where(self.first, self.here, 0))
        self.held = np.column_stack([self._held(column) for column in range(values.shape[1])])
        self.held_before = np.roll(self.held, 1, axis=0)
        self.held_before[self.first] = self._state[:, _SIGNALS:]
        self.moving = self._above_0(rule.moves, self.held)
        self.moved = self._last_time(self.moving, _MOVED)
        self.moved_before = self._before(self.moved, _MOVED)
        self.bad = self._last_time(self._above_0(rule.bad, self.held), _BAD)
        self.bad_before = self._before(self.bad, _BAD)
        self.counted, self.counter_at, self.stop, self.stop_at, self.pending = (
            self._carried(column) for column in (_COUNTED, _COUNTER_AT, _STOP, _STOP_AT, _PENDING)
        )

    def _carried(self, column: int) -> Floats:
        """A column of the unit's state, for each row."""
        return np.asarray(self._state[self._number, column])

    def _column(self, name: str) -> int:
        return self.rule.signals.index(name)

    def _held(self, column: int) -> Floats:
        """The last value at or before each row."""
        values = self.raw[:, column]
        last = np.maximum.accumulate(np.where(np.isnan(values), -1, self.here))
        return np.where(last >= self.start, values[np.maximum(last, 0)], self._carried(_SIGNALS + column))

    def _before(self, values: Floats, column: int) -> Floats:
        return np.where(self.first, self._carried(column), np.roll(values, 1))

    def _last_time(self, mask: Mask, column: int) -> Floats:
        """The time of the last row in the mask, at or before each row."""
        last = np.maximum.accumulate(np.where(mask, self.here, -1))
        return np.where(last >= self.start, self.t[np.maximum(last, 0)], self._carried(column))

    def _above_0(self, name: str, values: Floats) -> Mask:
        if not name:
            return np.zeros(len(values), dtype=np.bool_)
        return np.asarray(values[:, self._column(name)] > 0)

    def count_time(self) -> None:
        rule = self.rule
        at_before = self._before(self.t, _AT)
        gap_ms = self.t - at_before
        known = ~np.isnan(self.held_before[:, self._column(rule.moves)])
        observed = (at_before > 0) & (gap_ms > 0) & (gap_ms <= GAP_MS) & known
        moved = self._above_0(rule.moves, self.held_before)
        in_cycle = (self.moved_before > 0) & (self.t - self.moved_before <= rule.hold_s * 1000)
        self.running: Mask = observed & (moved | in_cycle)
        self.stopped: Mask = observed & ~self.running
        self.planned_s: Floats = np.where(observed, gap_ms / 1000, 0.0)
        self.run_s: Floats = np.where(self.running, self.planned_s, 0.0)

    def count_output(self) -> None:
        rule = self.rule
        good = ~self._above_0(rule.bad, self.held_before)
        if rule.counter:
            made = self._items()
            ideal = np.asarray(rule.ideal_s)
            variant = np.zeros(len(made))
            if rule.variant:
                variant = np.nan_to_num(self.held_before[:, self._column(rule.variant)])
            self.ideal_s: Floats = made * ideal[np.clip(variant, 0, len(ideal) - 1).astype(np.int64)]
            self.counted = self._last_time(made > 0, _COUNTED)
            good = self.bad_before <= self._before(self.counted, _COUNTED)
        elif rule.cycle:
            cycle_s = self.held_before[:, self._column(rule.cycle)]
            turns = np.divide(self.run_s, cycle_s, out=np.zeros_like(self.run_s), where=cycle_s > 0)
            self.ideal_s = turns * rule.ideal_s[0]
        else:
            self.ideal_s = self.run_s
        self.good_s: Floats = np.where(good, self.ideal_s, 0.0)

    def _items(self) -> Floats:
        """Items counted since the previous value of the counter; none after a reset or a gap."""
        column = self._column(self.rule.counter)
        there = ~np.isnan(self.raw[:, column])
        self.counter_at = self._last_time(there, _COUNTER_AT)
        since_ms = self.t - self._before(self.counter_at, _COUNTER_AT)
        step = self.raw[:, column] - self.held_before[:, column]
        return np.where(there & (step > 0) & (since_ms <= GAP_MS), step, 0.0)

    def find_reasons(self) -> None:
        rule = self.rule
        self.stop_s: Floats = np.zeros((len(self.t), len(rule.stops)))
        if rule.stops == (rule.bad,):  # it was bad when it last moved
            caused = self.stopped & (self.bad_before > 0) & (self.bad_before >= self.moved_before)
            self.stop_s[:, 0] = np.where(caused, self.planned_s, 0.0)
        elif rule.stops:
            self._find_risen()

    def _find_risen(self) -> None:
        """The reason of a stop is the count that rose: known by the next report of the counts, or by one
        since the unit last moved."""
        columns = [self._column(name) for name in self.rule.stops]
        there: Mask = np.asarray(~np.isnan(self.raw[:, columns]).any(axis=1))
        rise = np.where(there[:, np.newaxis], self.raw[:, columns] - self.held_before[:, columns], 0.0)
        rise = np.nan_to_num(rise)  # of the first report
        code = np.where(rise.max(axis=1) > 0, rise.argmax(axis=1), -1)
        rose = np.maximum.accumulate(np.where(code >= 0, self.here, -1))
        inside = rose >= self.start
        self.stop = np.where(inside, code[np.maximum(rose, 0)], self._carried(_STOP))
        self.stop_at = self._last_time(code >= 0, _STOP_AT)

        explained: Mask = np.logical_and(
            self._before(self.stop_at, _STOP_AT) >= self.moved_before, self._before(self.stop, _STOP) >= 0
        )
        size = len(self.t)
        following = np.minimum.accumulate(np.where(there, self.here, size)[::-1])[::-1]
        later: Mask = following < np.append(np.flatnonzero(self.first)[1:], size)[self._number]
        reason = np.where(
            explained,
            self._before(self.stop, _STOP),
            np.where(later, code[np.minimum(following, size - 1)], -1),
        ).astype(np.int64)
        found = np.flatnonzero(self.stopped & (reason >= 0))
        self.stop_s[found, reason[found]] = self.planned_s[found]
        self._settle_pending(there, code, self.stopped & ~explained & ~later)

    def _settle_pending(self, there: Mask, code: NDArray[np.int64], waiting: Mask) -> None:
        """Add the seconds of earlier rows that waited for a report, and keep those that wait now."""
        number = self._number
        reports = np.flatnonzero(there)
        firsts = reports[np.append(True, np.diff(number[reports]) != 0)] if len(reports) else reports
        due = firsts[code[firsts] >= 0]
        self.stop_s[due, code[due]] += np.minimum(self._carried(_PENDING)[due], GAP_MS / 1000)
        reported = np.bincount(number[reports], minlength=int(number[-1]) + 1) > 0
        still = np.bincount(number, weights=np.where(waiting, self.planned_s, 0.0))
        self.pending = np.where(reported[number], 0.0, self._carried(_PENDING)) + still[number]

    def state(self) -> Floats:
        """The state after each row."""
        return np.column_stack(
            (
                *(self.t, self.moved, self.bad, self.counted, self.counter_at),
                *(self.stop, self.stop_at, self.pending),
                self.held,
            )
        )
