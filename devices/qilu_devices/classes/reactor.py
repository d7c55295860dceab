"""Chemical reactors: the Tennessee Eastman process (Downs and Vogel 1993), linear about its base case.

Thirteen signals in normal operation are a vector autoregression plus what sensors and fast control loops add;
disturbances enter as step, random variation, drift, or sticking or stuck valve, and each signal answers
through lags and damped waves, so that loops overshoot, settle or saturate. Both were identified (C) from
1,000 h and 32 runs of the published plant equations under the controllers of the published data set d00
(`data/reactor_normal.csv`, `data/reactor_answers.csv`); deviations of temperature, pressure and level are
d00's (C). Above 3,000 kPa the plant trips and its signals hold their last values until the repair. Marks of
constants: S source found, C computed, N standard named but not checked, A assumed.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np

from qilu_devices import exact
from qilu_devices.controls import AUTOMATIC, Controls
from qilu_devices.emissions import GRID_KG_PER_KWH
from qilu_devices.exact import cos_turns
from qilu_devices.kernel import SOUND, Consumption, FirstOrder, Severities, Times
from qilu_devices.noise import Streams, Values

# Base value (N), deviation in normal operation, and unit of the answers, which is the deviation of the plant
# equations' long runs (C).
_BASE: dict[str, tuple[float, float, float]] = {
    "reactor_temp": (120.40, 0.019, 0.017),
    "reactor_pressure": (2705.0, 5.3, 7.5),
    "reactor_level": (75.0, 0.53, 0.55),
    "feed_A": (0.2505, 0.031, 0.031),
    "feed_D": (3664.0, 34.0, 34.0),
    "feed_E": (4509.0, 39.0, 39.0),
    "feed_AC": (9.348, 0.089, 0.089),
    "feed_composition_A": (32.19, 0.29, 0.29),
    "purge_rate": (0.3371, 0.0128, 0.0128),
    "separator_temp": (80.11, 0.24, 0.24),
    "cooling_outlet_temp": (94.60, 0.126, 0.126),
    "cooling_valve": (41.11, 0.49, 0.49),
    "compressor_work": (341.4, 1.63, 1.63),
}
_NAMES = tuple(_BASE)
SAMPLE_S = 180.0  # S: the data set's; the autoregression is of its steps
TRIP_KPA = 3000.0  # N: high reactor pressure shuts the plant down
# A: a kelvin more takes less cooling, warmer water leaves, gas expands.
FOLLOWING = {
    "reactor_temp": 1.0,
    "cooling_valve": -2.0,
    "cooling_outlet_temp": 0.8,
    "reactor_pressure": 6.0,
}
AGITATOR_KW = 60.0  # A
SET_POINT_S = 360.0  # A: how soon a new set point is reached
LAGS_S = (180.0, 1200.0, 3600.0, 12_000.0)
# C: damping of each wave a step of 180 s, as cosine and sine (periods of 220 and 300 min, time constants of
# 150 and 320), and what enters.
WAVES = ((0.976603, 0.083881, 0.019801), (0.988714, 0.062205, 0.009331))
RANDOM = 1.25  # C: deviation of a random disturbance, in steps of it; linear between knots takes a fifth
STICTION_STEPS = 2.34  # C: the valve that sticks hunts once in 7 min
STUCK_S = 6.0 * 3600.0  # A: with a feed stuck, what nobody feeds back drifts for hours


@dataclass(frozen=True, slots=True)
class Disturbance:
    """`inputs`: which of the plant's inputs it moves, in what direction; `knots`: steps of 180 s between two
    independent values of a random one (C: their autocorrelation)."""

    inputs: Mapping[str, float]
    knots: int = 0


DISTURBANCES: dict[str, Disturbance] = {
    "idv1": Disturbance({"ac": 1.0}),
    "idv2": Disturbance({"b": 1.0}),
    "idv3": Disturbance({"d_temp": 1.0}),
    "idv4": Disturbance({"cw": 1.0}),
    "idv5": Disturbance({"ccw": 1.0}),
    "idv6": Disturbance({"loss": 1.0}),
    "idv7": Disturbance({"header": 1.0}),
    "idv8": Disturbance({"ac": 0.5, "b": 0.3}, 9),
    "idv9": Disturbance({"d_temp": 1.0}, 7),
    "idv10": Disturbance({"c_temp": 1.0}, 16),
    "idv11": Disturbance({"cw": 1.0}, 7),
    "idv12": Disturbance({"ccw": 1.0}, 7),
    "idv13": Disturbance({"k1": 1.0, "k2": 1.0}, 26),
}
# C: deviations of each signal, and how far the cosine is turned, when the reactor's cooling valve sticks; the
# condenser's is hardly seen (A: made visible).
STICKING: dict[str, dict[str, tuple[float, float]]] = {
    "idv14": {
        "reactor_temp": (13.0, 0.0),
        "cooling_valve": (13.0, 0.0),
        "cooling_outlet_temp": (9.8, 0.25),
    },
    "idv15": {"separator_temp": (1.2, 0.0)},
}
# C: deviations in the mean of the first hours with the feed of A and C stuck where it was.
STUCK = {
    "reactor_pressure": -12.0,
    "reactor_level": -14.0,
    "separator_temp": 8.0,
    "compressor_work": -4.0,
    "feed_E": -1.5,
}

Row = tuple[tuple[int, float], ...]
"""Non-zero elements of a matrix row: columns and values."""


def _rows(name: str) -> list[list[str]]:
    with (files("qilu_devices") / "data" / name).open(encoding="utf-8") as file:
        return list(csv.reader(file))[1:]


@cache
def _matrices() -> dict[str, tuple[Row, ...]]:
    """Matrices of normal operation, one row per signal: `keep` from step to step, `shock` and `sensor` for
    noise, `start` for the first step."""
    found: dict[str, list[Row]] = {}
    for matrix, _, *values in _rows("reactor_normal.csv"):
        row = tuple((column, float(text)) for column, text in enumerate(values) if float(text))
        found.setdefault(matrix, []).append(row)
    return {matrix: tuple(rows) for matrix, rows in found.items()}


@cache
def _answers() -> dict[str, dict[str, Row]]:
    """Coefficients by input and signal: the contribution of each lag and wave of the input to the signal, in
    its deviations."""
    found: dict[str, dict[str, Row]] = {}
    for name, signal, *values in _rows("reactor_answers.csv"):
        row = tuple((part, float(text)) for part, text in enumerate(values) if float(text))
        found.setdefault(name, {})[signal] = row
    return found


def _sum(row: Row, parts: list[Values]) -> Values:
    """Sum in the row's order, so that every processor gives the same result."""
    total: Values | None = None
    for place, factor in row:
        total = factor * parts[place] if total is None else total + factor * parts[place]
    return np.zeros_like(parts[0]) if total is None else total


class _Normal:
    """Normal operation: a state that is a vector autoregression, and what sensors and fast loops add. Each
    signal has mean 0 and variance 1."""

    def __init__(self, units: Streams) -> None:
        self._units, self._matrices = units, _matrices()
        self._state: list[Values] = []

    def _chance(self, kind: str, k: int) -> list[Values]:
        return [self._units.normal(f"{kind}/{name}", k) for name in _NAMES]

    def step(self, k: int) -> list[Values]:
        drawn = self._chance("shock", k)
        if self._state:
            kept = [_sum(row, self._state) for row in self._matrices["keep"]]
            shocks = (_sum(row, drawn) for row in self._matrices["shock"])
            self._state = [was + shock for was, shock in zip(kept, shocks, strict=True)]
        else:
            self._state = [_sum(row, drawn) for row in self._matrices["start"]]
        drawn = self._chance("sensor", k)
        sensed = (_sum(row, drawn) for row in self._matrices["sensor"])
        return [state + extra for state, extra in zip(self._state, sensed, strict=True)]


class _Input:
    """One input of the plant for all units: as it is now, after each lag, and as each wave has it."""

    def __init__(self, units: int, interval_s: float) -> None:
        self._shares = [float(1.0 - exact.exp(-interval_s / tau_s)) for tau_s in LAGS_S]
        self.parts = [np.zeros(units) for _ in range(1 + len(LAGS_S) + 2 * len(WAVES))]

    def step(self, entering: Values) -> None:
        parts = self.parts
        lags = [was + share * (entering - was) for was, share in zip(parts[1:], self._shares, strict=False)]
        waves: list[Values] = []
        for number, (keep, turn, enters) in enumerate(WAVES):
            early, late = parts[1 + len(lags) + 2 * number : 3 + len(lags) + 2 * number]
            waves += [keep * early - turn * late + enters * entering, turn * early + keep * late]
        self.parts = [entering, *lags, *waves]

    def forget(self, still: Values) -> None:
        """Reset units with 0; they have been restarted."""
        self.parts = [part * still for part in self.parts]


class Reactors:
    """The kernel of class `reactor`; see `qilu_devices.kernel.Kernel`. They run round the clock.

    Equations::

        x = base + sd·(z + D·v) + sd·Σ gain·part(input)
        z' = A·z + B·e                                  normal operation, 13 signals; v, e normal
        parts of an input d (step, random, drift): d, d after lags of 3, 20, 60, 200 min, and
            two damped waves of 220 and 300 min
        sticking valve: a cosine of 7 min;  stuck feed: a drift of hours
        pressure ≥ 3000 kPa: trip, all signals hold until the repair
        P = compressor + agitator
    """

    def __init__(self, units: Streams, enterprises: Streams, interval_s: float) -> None:
        self._units, self._interval_s = units, interval_s
        self._normal = _Normal(units)
        self._inputs: dict[str, _Input] = {}  # those that any unit has had moved
        self._stuck: FirstOrder | None = None
        self._shift = FirstOrder(interval_s, SET_POINT_S)  # how far the temperature is from the base case's
        self._tripped = np.zeros(len(units), dtype=bool)
        self._last: dict[str, Values] = {}
        self._meters = Consumption(len(units), interval_s)

    def _entering(self, fault: str, severity: Values, k: int) -> Values:
        """The disturbance as it comes in now. A function of severity and time alone: what one unit has had
        must not change another's numbers."""
        knots = DISTURBANCES[fault].knots
        if not knots:
            return severity
        knot, rest = divmod(k, knots)
        share = rest / knots
        stream = f"disturbance/{fault}"
        first, second = self._units.normal(stream, knot), self._units.normal(stream, knot + 1)
        return RANDOM * severity * (first * (1.0 - share) + second * share)

    def _move_inputs(self, k: int, faults: Severities) -> None:
        entering: dict[str, Values] = {}
        for fault, disturbance in DISTURBANCES.items():
            severity = faults[fault]
            if isinstance(severity, float):
                continue
            moved = self._entering(fault, severity, k)
            for name, factor in disturbance.inputs.items():
                entering[name] = entering.get(name, 0.0) + factor * moved
        for name in entering:
            if name not in self._inputs:
                self._inputs[name] = _Input(len(self._units), self._interval_s)
        for name, plant_input in self._inputs.items():
            plant_input.step(entering.get(name, np.zeros(len(self._units))))

    def _answers(self, k: int, t_ms: Times, faults: Severities) -> dict[str, Values]:
        """Deviations of each signal that disturbances cause."""
        self._move_inputs(k, faults)
        answers: dict[str, Values] = {}
        for name, plant_input in self._inputs.items():
            for signal, row in _answers()[name].items():
                answers[signal] = answers.get(signal, 0.0) + _sum(row, plant_input.parts)
        turn = t_ms * (1.0 / (STICTION_STEPS * SAMPLE_S * 1000.0))
        for fault, signals in STICKING.items():
            severity = faults[fault]
            if not isinstance(severity, float):
                for signal, (size, turned) in signals.items():
                    hunts = size * severity * cos_turns(turn - turned)
                    answers[signal] = answers.get(signal, 0.0) + hunts
        stuck = faults["idv21"]
        if self._stuck is not None or not isinstance(stuck, float):
            if self._stuck is None:
                self._stuck = FirstOrder(self._interval_s, STUCK_S)
                self._stuck.value = np.zeros(len(self._units))
            drifted = self._stuck.step(stuck + np.zeros(len(self._units)))
            for signal, size in STUCK.items():
                answers[signal] = answers.get(signal, 0.0) + size * drifted
        return answers

    def _held(self, signals: dict[str, Values], faults: Severities) -> dict[str, Values]:
        """Signals of tripped plants hold their values until all of the plant's faults have ended."""
        if self._tripped.any():
            wrong = sum(
                (faults[fault] for fault in (*DISTURBANCES, *STICKING, "idv21")), np.zeros(len(self._units))
            )
            still_down = self._tripped & (wrong > 0.0)
            restarted = np.where(self._tripped & ~still_down, 0.0, 1.0)
            for plant_input in self._inputs.values():
                plant_input.forget(restarted)
            self._tripped = still_down
            signals = {name: np.where(still_down, self._last[name], signals[name]) for name in _NAMES}
        self._tripped = self._tripped | (signals["reactor_pressure"] >= TRIP_KPA)
        self._last = signals
        return signals

    def step(
        self, k: int, t_ms: Times, faults: Severities = SOUND, controls: Controls = AUTOMATIC
    ) -> dict[str, Values]:
        answers = self._answers(k, t_ms, faults)
        signals: dict[str, Values] = {}
        for (name, (base, sd, size)), noise in zip(_BASE.items(), self._normal.step(k), strict=True):
            if name == "feed_AC":
                noise = noise * (1.0 - 0.8 * faults["idv21"])  # the valve is stuck; the meter is not
            value = base + sd * noise
            signals[name] = value + size * answers[name] if name in answers else value
        base_c = _BASE["reactor_temp"][0]
        shift_c = self._shift.step(
            np.zeros(len(self._units)) + controls.value("reactor_temp", base_c) - base_c
        )
        for name, gain in FOLLOWING.items():
            signals[name] = signals[name] + gain * shift_c
        signals["feed_A"] = np.maximum(signals["feed_A"], 0.0)
        signals["cooling_valve"] = np.clip(signals["cooling_valve"], 0.0, 100.0)  # the loop saturates
        down = self._tripped
        signals = self._held(signals, faults)
        electric = signals["compressor_work"] + AGITATOR_KW
        drawn = np.where(down & self._tripped, 0.0, electric)
        return {**signals, **self._meters.step(k, drawn, GRID_KG_PER_KWH * drawn)}
