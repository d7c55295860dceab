"""The kernel interface: a kernel simulates all units of an equipment class, one interval per step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from qilu_devices import exact
from qilu_devices.controls import AUTOMATIC, Controls
from qilu_devices.noise import Streams, Values

Times = NDArray[np.int64]
Severities = Mapping[str, Values | float]
"""By fault: how far it has developed now, from 0 (sound) to 1, for each unit; the number 0.0 where no unit
has it. A kernel may ask for every fault of its class."""


class _Sound(dict[str, Values | float]):
    def __missing__(self, fault: str) -> float:
        return 0.0


SOUND: Severities = _Sound()


def severities(found: Mapping[str, Values]) -> Severities:
    """Severities from those of the faults that some unit has; all others are 0.0."""
    return _Sound(found) if found else SOUND


class Kernel(Protocol):
    """Simulation of all units of one class, one array element per unit.

    A kernel is built from the units' own streams and their enterprises' (an array of the same length), draws
    its units' parameters from them, and is stepped with k = 0, 1, 2, … in order, the units' sample times
    (UTC, ms), the severities of faults at these times and what commands have set. Each step gives every
    signal of the class in the catalogue's unit. A unit's numbers depend on its own streams, its enterprise's,
    its times, faults and commands alone: only element-wise arithmetic, no sums over units; and only exactly
    rounded operations (`qilu_devices.exact`), so that every processor gives the same numbers. A fault changes
    a parameter or an input of the equations, never a signal by itself, and severity 0 changes no bit; a
    command likewise.
    """

    def __init__(self, units: Streams, enterprises: Streams, interval_s: float) -> None: ...

    def step(
        self, k: int, t_ms: Times, faults: Severities = SOUND, controls: Controls = AUTOMATIC
    ) -> dict[str, Values]: ...


class FirstOrder:
    """dx/dt = (x∞ − x)/τ, exact for a target that is constant over a step; starts in equilibrium."""

    def __init__(self, interval_s: float, tau_s: Values | float) -> None:
        self._share = 1.0 - exact.exp(-interval_s / np.asarray(tau_s, dtype=np.float64))
        self.value: Values | None = None

    def step(self, target: Values) -> Values:
        self.value = target if self.value is None else self.value + self._share * (target - self.value)
        return self.value


class Meter:
    """A counter that starts at 0 and never falls: the sum of a rate per hour (≥ 0) over the steps."""

    def __init__(self, units: int, interval_s: float) -> None:
        self._hours = interval_s / 3600.0
        self.value = np.zeros(units)

    def step(self, k: int, per_hour: Values) -> Values:
        """The count at step k; at step 0 nothing has been counted yet."""
        if k > 0:
            self.value = self.value + self._hours * per_hour
        return self.value


class Consumption:
    """Every class's `energy_kWh` and `co2_kg`."""

    def __init__(self, units: int, interval_s: float) -> None:
        self._energy, self._co2 = Meter(units, interval_s), Meter(units, interval_s)

    def step(self, k: int, kw: Values, co2_kg_h: Values) -> dict[str, Values]:
        return {"energy_kWh": self._energy.step(k, kw), "co2_kg": self._co2.step(k, co2_kg_h)}
