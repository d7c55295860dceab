"""When a unit works: the shift pattern of its enterprise, local time, and rest on Sundays."""

from __future__ import annotations

import numpy as np

from qilu_devices.climate import local_hour, outdoor_c, weekday
from qilu_devices.kernel import Times
from qilu_devices.noise import Streams, Values

# Shift patterns by enterprise: first and last hour of work (A); equal ends mean round the clock.
SHIFT_BEGIN_H = (8.0, 6.0, 0.0)
SHIFT_HOURS = (9.0, 16.0, 24.0)
SHIFT_WEIGHTS = (0.3, 0.4, 0.3)  # A
SUNDAY_OFF = 0.5  # A: share of enterprises that rest on Sundays, unless they work round the clock
STAGGER_H = 0.25  # A: units are switched on and off within a quarter of an hour

HALL_C = 20.0  # A: mean of a factory hall; it follows a third of the outdoor swing (A)
HALL_SHARE = 0.33


class Shifts:
    """The calendar of some units; all units of an enterprise have the same pattern."""

    def __init__(self, units: Streams, enterprises: Streams) -> None:
        shift = enterprises.uniform("shift")
        edges = np.cumsum(SHIFT_WEIGHTS) / sum(SHIFT_WEIGHTS)
        pattern = np.minimum(np.searchsorted(edges, shift, side="right"), len(edges) - 1)
        self._begin_h = np.asarray(SHIFT_BEGIN_H)[pattern] + units.uniform("stagger", 0.0, STAGGER_H)
        self._hours = np.asarray(SHIFT_HOURS)[pattern]
        self._sunday_off = (enterprises.uniform("sunday") < SUNDAY_OFF) & (self._hours < 24.0)

    def running(self, t_ms: Times) -> Values:
        """1 where the calendar has the unit at work, else 0."""
        since_begin = local_hour(t_ms) - self._begin_h
        since_begin = np.where(since_begin < 0.0, since_begin + 24.0, since_begin)
        at_work = (since_begin < self._hours) & ~(self._sunday_off & (weekday(t_ms) == 6))
        return np.asarray(at_work, dtype=np.float64)


class Hall:
    """The air in the hall where a unit stands."""

    def __init__(self, units: Streams) -> None:
        self._mean_c = HALL_C + units.uniform("hall_c", -4.0, 6.0)  # A

    def temperature_c(self, t_ms: Times) -> Values:
        return np.asarray(self._mean_c + HALL_SHARE * (outdoor_c(t_ms) - 13.5))
