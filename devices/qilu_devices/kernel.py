"""What a class of equipment is to the simulation: a kernel that advances all its units by one interval."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from qilu_devices.noise import Streams, Values

Times = NDArray[np.int64]


class Kernel(Protocol):
    """All units of one class, one array element a unit.

    A kernel is built from the units' own streams and their enterprises' (an array of the same length), draws
    its units' parameters from them, and is stepped with k = 0, 1, 2, … in order and the units' sample times
    (UTC, ms). Each step gives every signal of the class in the catalogue's unit. A unit's numbers depend on
    its own streams, its enterprise's and its times alone: only element-wise arithmetic, no sums over units.
    """

    def __init__(self, units: Streams, enterprises: Streams, interval_s: float) -> None: ...

    def step(self, k: int, t_ms: Times) -> dict[str, Values]: ...


class FirstOrder:
    """dx/dt = (x∞ − x)/τ, exact for a target that is constant over a step; starts in equilibrium."""

    def __init__(self, interval_s: float, tau_s: Values | float) -> None:
        self._share = 1.0 - np.exp(-interval_s / np.asarray(tau_s, dtype=np.float64))
        self.value: Values | None = None

    def step(self, target: Values) -> Values:
        self.value = target if self.value is None else self.value + self._share * (target - self.value)
        return self.value
