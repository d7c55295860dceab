"""Custom classes: the signals that a user's YAML file describes
(`qilu_contract.catalogue.own_classes.Motion`), for all units at once.

A signal is constant + daily swing + autoregression + noise + Σ factor·(another signal, after a first-order
lag), within its range; or a counter, Σ factor·signal·Δt.
"""

from __future__ import annotations

import numpy as np
from qilu_contract.catalogue.own_classes import Motion, OwnClass

from qilu_devices.climate import local_hour
from qilu_devices.controls import AUTOMATIC, Controls
from qilu_devices.exact import cos_turns
from qilu_devices.kernel import SOUND, FirstOrder, Meter, Severities, Times
from qilu_devices.noise import Autoregression, Streams, Values
from qilu_devices.shifts import Shifts


class _SignalModel:
    """One signal of some units."""

    def __init__(self, motion: Motion, units: Streams, interval_s: float) -> None:
        self._motion, self._units = motion, units
        name = motion.signal.name
        self._noise = f"{name}/noise"
        self._constant = units.uniform(f"{name}/constant", *motion.constant)
        self._walk = (
            None if motion.walk is None else Autoregression(units, f"{name}/walk", interval_s, motion.walk[1])
        )
        self._lags = [
            FirstOrder(interval_s, each.lag_s) if each.lag_s > 0.0 else None for each in motion.follows
        ]
        self._meter = Meter(len(units), interval_s)

    def step(self, k: int, t_ms: Times, running: Values, others: dict[str, Values]) -> Values:
        motion = self._motion
        signal, counts = motion.signal, motion.counts
        if counts is not None:
            rate = np.maximum(counts.factor * others[counts.signal], 0.0)
            return np.minimum(self._meter.step(k, rate), signal.high)
        value = self._constant
        if motion.daily is not None:
            swing, peak_h = motion.daily
            value = value + swing * cos_turns((local_hour(t_ms) - peak_h) / 24.0)
        if motion.walk is not None and self._walk is not None:
            value = value + motion.walk[0] * self._walk.step(k)
        if motion.noise > 0.0:
            value = value + motion.noise * self._units.normal(self._noise, k)
        for each, lag in zip(motion.follows, self._lags, strict=True):
            target = each.factor * others[each.signal]
            value = value + (target if lag is None else lag.step(target))
        if motion.at_work:
            value = value * running
        if signal.type == "bool":
            return np.where(value >= 0.5, 1.0, 0.0)
        return np.clip(value, signal.low, signal.high)


class OwnUnits:
    """The kernel of a user's class; see `qilu_devices.kernel.Kernel`. It has no faults.

    Equations::

        x = constant + swing·cos(2π(h − peak)/24) + sd·AR(1) + noise + Σ factor·y        y another signal
        with a lag: dz/dt = (factor·y − z)/τ, and z in the place of factor·y
        counter: x = Σ factor·y·Δt
    """

    def __init__(self, own: OwnClass, units: Streams, enterprises: Streams, interval_s: float) -> None:
        self._shifts = Shifts(units, enterprises)
        self._models = {motion.signal.name: _SignalModel(motion, units, interval_s) for motion in own.motions}

    def step(
        self, k: int, t_ms: Times, faults: Severities = SOUND, controls: Controls = AUTOMATIC
    ) -> dict[str, Values]:
        running = controls.working(self._shifts.running(t_ms))
        values: dict[str, Values] = {}
        for name, model in self._models.items():  # in the file's order: each names earlier ones only
            values[name] = model.step(k, t_ms, running, values)
        return values
