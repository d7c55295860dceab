"""Chemical reactors: an autoregressive surrogate of the Tennessee Eastman process (Downs and Vogel 1993).

Each signal is its base value, first-order autoregressive noise (in part shared, since heat, pressure and the
cooling valve go together), and the answers to the process's disturbances IDV1-15 and 21: a disturbance enters
as step, random variation, drift or sticking valve, is felt with a lag, and what the controllers take back
comes as a jump that returns. Means and deviations of temperature, pressure and level are the base case's (C);
the other base values N; gains and times A. Marks of constants: S source found, C computed, N standard named
but not checked, A assumed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from qilu_devices.controls import AUTOMATIC, Controls
from qilu_devices.emissions import GRID_KG_PER_KWH
from qilu_devices.exact import cos_turns
from qilu_devices.kernel import SOUND, Consumption, FirstOrder, Severities, Times
from qilu_devices.noise import Autoregression, Streams, Values

# Base value, standard deviation, share of variance that is shared (below 0: against the others; C for the
# purge, which falls as pressure rises), memory in s. Temperature, pressure, level: C; other base values N;
# the rest A.
_BASE: dict[str, tuple[float, float, float, float]] = {
    "reactor_temp": (120.40, 0.019, 0.4, 540.0),
    "reactor_pressure": (2705.0, 5.3, 0.4, 1800.0),
    "reactor_level": (75.0, 0.5, 0.0, 360.0),
    "feed_A": (0.2505, 0.004, 0.0, 360.0),
    "feed_D": (3664.0, 20.0, 0.0, 180.0),
    "feed_E": (4509.0, 20.0, 0.0, 180.0),
    "feed_AC": (9.348, 0.06, 0.0, 180.0),
    "feed_composition_A": (32.19, 0.25, 0.0, 900.0),
    "purge_rate": (0.3371, 0.01, -0.25, 1200.0),
    "separator_temp": (80.11, 0.15, 0.0, 900.0),
    "cooling_outlet_temp": (94.60, 0.15, 0.4, 600.0),
    "cooling_valve": (41.11, 0.5, 0.4, 600.0),
    "compressor_work": (341.4, 1.5, 0.0, 600.0),
}
# A: a kelvin more takes less cooling, warmer water leaves, gas expands.
FOLLOWING = {
    "reactor_temp": 1.0,
    "cooling_valve": -2.0,
    "cooling_outlet_temp": 0.8,
    "reactor_pressure": 6.0,
}
AGITATOR_KW = 60.0  # A
FAST_S, SLOW_S = 360.0, 5400.0  # A: how soon a disturbance is felt, and how soon controllers take it back
KNOTS_S = 2700.0  # A: random disturbances turn every 45 min
STICTION_MS = 26 * 60_000  # A: a sticking valve hunts once in 26 min
DRIFT_S = 8.0 * 3600.0  # A: what nobody feeds back wanders over hours


@dataclass(frozen=True, slots=True)
class Disturbance:
    """`lasting` and `jump`: change of each signal at full severity, for good and until controllers act."""

    form: str
    lasting: dict[str, float] = field(default_factory=dict)
    jump: dict[str, float] = field(default_factory=dict)
    soon_s: float = FAST_S
    late_s: float = SLOW_S


DISTURBANCES: dict[str, Disturbance] = {
    "idv1": Disturbance(
        "step", {"feed_AC": -0.35, "feed_A": 0.35, "feed_composition_A": 0.5}, {"reactor_pressure": 40.0}
    ),
    "idv2": Disturbance(
        "step",
        {"purge_rate": 0.17, "feed_composition_A": -1.6, "compressor_work": 6.0},
        {"reactor_pressure": 35.0},
    ),
    "idv3": Disturbance("step", {"cooling_valve": 0.3}),
    "idv4": Disturbance("step", {"cooling_valve": 4.0}, {"reactor_temp": 0.6}, 60.0, 180.0),
    "idv5": Disturbance("step", {"cooling_valve": 0.5}, {"separator_temp": 2.5, "reactor_pressure": 30.0}),
    "idv6": Disturbance(
        "step",
        # C: pressure climbs for six hours by 43 deviations while the purge falls by 9.
        {"feed_A": -0.2505, "reactor_pressure": 260.0, "purge_rate": -0.1, "feed_composition_A": -6.0},
        {},
        10_800.0,
    ),
    "idv7": Disturbance(
        # C: controllers bring the feed back in 40 min.
        "step",
        {"purge_rate": -0.02},
        {"feed_AC": -1.2, "reactor_pressure": -35.0, "reactor_level": -3.0},
        120.0,
        800.0,
    ),
    "idv8": Disturbance(
        "random", {"feed_composition_A": 1.6, "purge_rate": 0.06, "reactor_pressure": 35.0, "feed_A": 0.05}
    ),
    "idv9": Disturbance("random", {"cooling_valve": 0.6}),
    "idv10": Disturbance("random", {"cooling_outlet_temp": 0.5, "cooling_valve": 1.5, "separator_temp": 0.4}),
    "idv11": Disturbance("random", {"cooling_valve": 4.0, "reactor_temp": 0.25}),
    "idv12": Disturbance("random", {"separator_temp": 1.8, "reactor_pressure": 35.0, "cooling_valve": 1.0}),
    "idv13": Disturbance(
        "drift",
        {"reactor_pressure": 45.0, "reactor_temp": 0.3, "purge_rate": 0.05, "cooling_outlet_temp": -1.2},
    ),
    "idv14": Disturbance("sticking", {"reactor_temp": 0.5, "cooling_outlet_temp": 1.8, "cooling_valve": 6.0}),
    "idv15": Disturbance("sticking", {"separator_temp": 0.25}),
    "idv21": Disturbance("stuck", {"reactor_pressure": 40.0, "feed_A": 0.06, "purge_rate": 0.04}),
}


class Reactors:
    """The kernel of class `reactor`; see `qilu_devices.kernel.Kernel`. They run round the clock.

    Equations::

        x = base + sd·AR(1) + Σ gain·soon + Σ jump·(soon − late)
        soon, late: first-order after the disturbance (step, random, drift, sticking or stuck valve)
        heat, pressure and cooling valve share a part of their noise
        P = compressor + agitator
    """

    def __init__(self, units: Streams, enterprises: Streams, interval_s: float) -> None:
        self._units, self._interval_s = units, interval_s
        self._own = {
            name: Autoregression(units, name, interval_s, tau_s) for name, (_, _, _, tau_s) in _BASE.items()
        }
        self._shared = Autoregression(units, "shared", interval_s, 1200.0)  # A
        # How far each disturbance that any unit has had is felt: soon, and once controllers have acted.
        self._felt: dict[str, tuple[FirstOrder, FirstOrder]] = {}
        self._shift = FirstOrder(interval_s, FAST_S)  # how far the temperature is from the base case's
        self._meters = Consumption(len(units), interval_s)

    def _entering(self, fault: str, severity: Values, k: int, t_ms: Times) -> Values:
        """The disturbance as it comes in now. A function of severity and time alone: what one unit has had
        must not change another's numbers."""
        match DISTURBANCES[fault].form:
            case "random":
                return severity * self._wander(fault, k, KNOTS_S)
            case "stuck":
                return severity * 1.5 * self._wander(fault, k, DRIFT_S)
            case "sticking":
                swing = cos_turns((t_ms % STICTION_MS) * (1.0 / STICTION_MS))
                return severity * np.clip(2.0 * swing, -1.0, 1.0)  # it waits, then moves at once
            case _:
                return severity

    def _wander(self, fault: str, k: int, knots_s: float) -> Values:
        """Chance that is linear between knots, for any step alone."""
        steps = max(1, round(knots_s / self._interval_s))
        knot, rest = divmod(k, steps)
        share = rest / steps
        stream = f"disturbance/{fault}"
        return self._units.normal(stream, knot) * (1.0 - share) + self._units.normal(stream, knot + 1) * share

    def _answers(self, k: int, t_ms: Times, faults: Severities) -> dict[str, Values]:
        answers: dict[str, Values] = {}
        for fault, disturbance in DISTURBANCES.items():
            severity = faults[fault]
            if isinstance(severity, float):
                if fault not in self._felt:
                    continue
                severity = np.zeros(len(self._units))
            if fault not in self._felt:
                fast = FirstOrder(self._interval_s, disturbance.soon_s)
                slow = FirstOrder(self._interval_s, disturbance.late_s)
                fast.value, slow.value = np.zeros(len(self._units)), np.zeros(len(self._units))
                self._felt[fault] = fast, slow
            fast, slow = self._felt[fault]
            entering = self._entering(fault, severity, k, t_ms)
            soon = fast.step(entering)
            late = slow.step(entering)
            for name, gain in disturbance.lasting.items():
                answers[name] = answers.get(name, 0.0) + gain * soon
            for name, gain in disturbance.jump.items():
                answers[name] = answers.get(name, 0.0) + gain * (soon - late)
        return answers

    def step(
        self, k: int, t_ms: Times, faults: Severities = SOUND, controls: Controls = AUTOMATIC
    ) -> dict[str, Values]:
        answers = self._answers(k, t_ms, faults)
        shared = self._shared.step(k)
        signals: dict[str, Values] = {}
        for name, (base, sd, together, _) in _BASE.items():
            noise = self._own[name].step(k)
            if together:
                with_it = math.copysign(math.sqrt(abs(together)), together)
                noise = math.sqrt(1.0 - abs(together)) * noise + with_it * shared
            if name == "feed_AC":
                noise = noise * (1.0 - faults["idv21"])  # the valve stands still
            value = base + sd * noise
            signals[name] = value + answers[name] if name in answers else value
        base_c = _BASE["reactor_temp"][0]
        shift_c = self._shift.step(
            np.zeros(len(self._units)) + controls.value("reactor_temp", base_c) - base_c
        )
        for name, gain in FOLLOWING.items():
            signals[name] = signals[name] + gain * shift_c
        signals["feed_A"] = np.maximum(signals["feed_A"], 0.0)
        electric = signals["compressor_work"] + AGITATOR_KW
        return {**signals, **self._meters.step(k, electric, GRID_KG_PER_KWH * electric)}
