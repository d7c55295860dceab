"""Working hours of units: the enterprise's shifts, the working calendar, lunch, and stops for maintenance.

A pure function of unit, enterprise and time. Marks: S source found, A assumed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qilu_devices.calendar import (
    DAY_MS,
    HOLIDAY,
    SATURDAY,
    SHANGHAI_MS,
    SUNDAY,
    Days,
    day_of,
    from_new_year,
    kind_of,
)
from qilu_devices.kernel import Times
from qilu_devices.noise import Streams, Values
from qilu_devices.weather import Weather, weather_of

# Shift patterns by enterprise: first and last hour of work (A); 24 hours means round the clock.
SHIFT_BEGIN_H = (8.0, 6.0, 0.0)
SHIFT_HOURS = (9.0, 16.0, 24.0)
SHIFT_WEIGHTS = (0.3, 0.4, 0.3)  # A
# Share of enterprises of one or two shifts that rest. A: with these their load on a Saturday, a Sunday and a
# holiday is near the measured works' .58, .28 and .10-.13 of a weekday (UCI steel industry data).
SATURDAY_OFF, SUNDAY_OFF, HOLIDAY_OFF = 0.42, 0.72, 0.88
ROUND_THE_CLOCK_NEW_YEAR = 0.25  # A: share of works of three shifts that shut down for the Spring Festival
BEFORE_NEW_YEAR, AFTER_NEW_YEAR = (1.0, 5.0), (5.0, 12.0)  # A: days; workers travel home
STAGGER_H = 0.25  # A: units are switched on and off within a quarter of an hour, another one each day
LUNCH_SHARE, LUNCH_H, LUNCH_MIN = 0.67, 11.9, (30.0, 75.0)  # A: of works of one shift; .33 run on at noon
MAINTENANCE = 1.0 / 30.0  # A: share of days on which a unit is stopped for one to four hours

HALL_C = 20.0  # A: mean of a factory hall; it follows a third of the outdoor swing (A)
HALL_SHARE = 0.33

_H_MS = 3_600_000.0


class Shifts:
    """Working hours of some units; all units of an enterprise have the same pattern."""

    def __init__(self, units: Streams, enterprises: Streams) -> None:
        self._units, self._all = units, np.arange(len(units))
        shift = enterprises.uniform("shift")
        edges = np.cumsum(SHIFT_WEIGHTS) / sum(SHIFT_WEIGHTS)
        self._pattern = np.minimum(np.searchsorted(edges, shift, side="right"), len(edges) - 1).astype(
            np.int8
        )
        self._rests = enterprises.uniform("rests").astype(np.float32)
        self._holidays_off = enterprises.uniform("holidays") < HOLIDAY_OFF
        self._new_year = enterprises.uniform("new_year").astype(np.float32)
        self._lunches = (units.uniform("lunches") < LUNCH_SHARE) & (self._pattern == 0)
        self._day: Days | None = None
        # Of the day, in ms since local midnight: at work from the first to the last, less the pause.
        self._hours: tuple[NDArray[np.int32], ...] = ()

    def running(self, t_ms: Times) -> Values:
        """1 where the calendar has the unit at work, else 0."""
        day = day_of(t_ms)
        if self._day is None or not np.array_equal(day, self._day):
            self._plan(day)
        into = t_ms + SHANGHAI_MS - day * DAY_MS
        begin, pause, resume, end = self._hours
        return np.asarray(
            ((into >= begin) & (into < end) & ((into < pause) | (into >= resume))).astype(np.float64)
        )

    def open(self, day: Days) -> NDArray[np.bool_]:
        """Whether the enterprise works at all on each unit's day."""
        kind = kind_of(day)
        three = self._pattern == 2
        off = (kind == SATURDAY) & (self._rests < SATURDAY_OFF)
        off |= (kind == SUNDAY) & (self._rests < SUNDAY_OFF)
        off |= (kind == HOLIDAY) & self._holidays_off
        since = from_new_year(day)
        before = BEFORE_NEW_YEAR[0] + (BEFORE_NEW_YEAR[1] - BEFORE_NEW_YEAR[0]) * self._new_year
        after = AFTER_NEW_YEAR[0] + (AFTER_NEW_YEAR[1] - AFTER_NEW_YEAR[0]) * self._new_year
        away = (since >= -before) & (since <= after)
        leaves = np.where(three, self._new_year < ROUND_THE_CLOCK_NEW_YEAR, self._new_year < 0.95)
        return np.asarray(~((off & ~three) | (away & leaves)))

    def _plan(self, day: Days) -> None:
        self._day = day.astype(np.int64)
        chance = self._units.chance_of
        three = self._pattern == 2
        late_h = STAGGER_H * chance("late", self._all, self._day)
        begin_h = np.asarray(SHIFT_BEGIN_H)[self._pattern] + np.where(three, 0.0, late_h)
        end_h = begin_h + np.asarray(SHIFT_HOURS)[self._pattern]
        length = chance("pause", self._all, self._day)
        low, high = LUNCH_MIN
        pause_h = np.where(self._lunches, LUNCH_H + 0.4 * late_h, 24.0)
        resume_h = pause_h + (low + (high - low) * length) / 60.0
        mended = chance("maintenance", self._all, self._day) < MAINTENANCE
        if mended.any():
            mend_h = begin_h + length * (end_h - begin_h - 4.0)
            pause_h = np.where(mended, mend_h, pause_h)
            resume_h = np.where(mended, mend_h + 1.0 + 12.0 * late_h, resume_h)
        open_ = self.open(self._day)
        self._hours = tuple(
            (hours * _H_MS).astype(np.int32)
            for hours in (np.where(open_, begin_h, 24.0), pause_h, resume_h, np.where(open_, end_h, 0.0))
        )


class Hall:
    """Air temperature in the halls of units."""

    def __init__(self, units: Streams, enterprises: Streams) -> None:
        self._mean_c = HALL_C + units.uniform("hall_c", -4.0, 6.0)  # A
        self.weather: Weather = weather_of(enterprises)

    def temperature_c(self, t_ms: Times) -> Values:
        return np.asarray(self._mean_c + HALL_SHARE * (self.weather.outdoor_c(t_ms) - 13.5))
