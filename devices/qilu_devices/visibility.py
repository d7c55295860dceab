"""When a fault becomes visible in principle: a unit that has it is simulated beside its healthy twin.

The twin is the same unit with the same chance, weather, calendar and commands, and with all of its faults
but this one. A signal shows the fault once the running mean of its difference from the twin's is more than
`THRESHOLD` times the signal's own noise, or once it swings by that much more than the twin's does.

The running mean is exponential, over ten minutes, or five samples where those take longer: a compressor that
only loads at another moment than its twin shows nothing. Noise is the deviation of the healthy unit's
changes from sample to sample over √2, on a working afternoon, and no less than what rounding adds (the
resolution over √12). A signal that is true or false shows the fault when it differs. Meters show nothing by
themselves, since nobody has the twin's.

A fault that ends without having been visible is not labelled.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from qilu_contract.catalogue.classes import EquipmentClass

from qilu_devices.calendar import DAY_MS, SHANGHAI_MS, WORKDAY, kind_of
from qilu_devices.classes import KERNELS
from qilu_devices.controls import AUTOMATIC, Controls
from qilu_devices.faults import Cases, Occurrence
from qilu_devices.kernel import Kernel, Severities, Times, severities
from qilu_devices.noise import Streams, keys_of
from qilu_devices.sensing import sensed
from qilu_devices.weather import Enterprises

THRESHOLD = 3.0  # A: three deviations
MEAN_OVER_S, MEAN_OVER_SAMPLES = 600, 5  # A
METERS = frozenset({"energy_kWh", "co2_kg", "picks", "parts"})
NOISE_FROM_H, NOISE_FOR_S = 13.5, 3 * 3600  # a working afternoon, after the lunch break
NOISE_STEPS_MIN, NOISE_STEPS_MAX = 60, 720
_ROUNDING = 1.0 / 12.0**0.5

Matrix = NDArray[np.float64]


class Watch:
    """The healthy twins of units of one class, one for each fault that is watched; stepped beside them.

    `units` are those of the class run in its order, as (unit id, enterprise id); every fault of theirs is in
    `cases`. For each step, call `step` before the units' own kernel is stepped, and `compare` afterwards.
    """

    def __init__(
        self,
        equipment: EquipmentClass,
        units: Sequence[tuple[str, str]],
        seed: int,
        cases: Sequence[Occurrence],
    ) -> None:
        self.cases = cases
        self.visible_ms: list[int | None] = [None] * len(cases)
        places = {unit: place for place, (unit, _) in enumerate(units)}
        self._equipment = equipment
        self._places = np.array([places[case.unit] for case in cases], dtype=np.int64)
        lanes = [units[place] for place in self._places]
        self._kernel = _kernel(equipment, lanes, seed)
        self._others = _others(cases)
        self._start = np.array([case.start_ms for case in cases], dtype=np.int64)
        self._end = np.array([case.end_ms for case in cases], dtype=np.int64)
        self._open = np.ones(len(cases), dtype=np.bool_)
        signals = equipment.signals
        self._limit = THRESHOLD * _noise(equipment, lanes, seed, int(self._start.min(initial=2**62)))
        over = [max(MEAN_OVER_S / signal.interval_s, MEAN_OVER_SAMPLES) for signal in signals]
        self._share = np.array(
            [0.0 if signal.name in METERS else 1.0 / n for signal, n in zip(signals, over, strict=True)]
        )
        for place, signal in enumerate(signals):
            if signal.type == "bool":
                self._share[place], self._limit[:, place] = 1.0, 0.5
        self._mean = np.zeros((len(cases), len(signals)))
        self._centre: Matrix | None = None  # the twins' running mean
        self._swing = np.zeros((len(cases), len(signals)))  # square of what the unit swings more about it
        self._twins: Matrix = np.zeros((0, 0))

    @property
    def done(self) -> bool:
        """Whether no fault is left to watch."""
        return not self._open.any()

    def step(self, k: int, times: Times, positions: Sequence[int], controls: Controls) -> None:
        """Step the twins of the units that are being stepped."""
        at = times[self._places]
        ill: dict[str, Matrix] = {}
        for name, cases in self._others.items():
            severity = cases.severity(at)
            if severity is not None:
                ill[name] = severity
        found: Severities = severities(ill)
        produced = self._kernel.step(k, at, found, controls.take(self._places))
        self._twins = sensed([self._equipment.signals[i] for i in positions], produced)

    def compare(self, times: Times, positions: Sequence[int], rows: Matrix) -> None:
        """Compare the result of the units' step with the twins."""
        at = times[self._places]
        active = self._open & (at >= self._start) & (at < self._end)
        if active.any():
            which = list(positions)
            difference = rows[self._places] - self._twins
            mean = self._mean[:, which]
            mean = mean + self._share[which] * (difference - mean)
            self._mean[:, which] = mean
            swing = self._swings(which, rows[self._places])
            limit = self._limit[:, which]
            shows = active & ((np.abs(mean) > limit) | (swing > limit * limit)).any(axis=1)
            for lane in np.flatnonzero(shows).tolist():
                self.visible_ms[lane] = int(at[lane])
            self._open &= ~shows
        self._open &= at < self._end

    def _swings(self, which: list[int], rows: Matrix) -> Matrix:
        """How much more the units swing about their twins' running means than the twins do, squared."""
        if self._centre is None:
            self._centre = np.full(self._mean.shape, np.nan)
        share, centre = self._share[which], self._centre[:, which]
        centre = np.where(np.isnan(centre), self._twins, centre + share * (self._twins - centre))
        self._centre[:, which] = centre
        more = (rows - centre) ** 2 - (self._twins - centre) ** 2
        swing = self._swing[:, which] + share * (more - self._swing[:, which])
        self._swing[:, which] = swing
        return swing

    def labels(self, until_ms: int) -> Iterator[Occurrence]:
        """The cases that showed, with the time at which they began to, and those that may still show: the
        run ended before they did."""
        for case, visible_ms in zip(self.cases, self.visible_ms, strict=True):
            if visible_ms is not None or case.end_ms > until_ms:
                yield replace(case, visible_ms=visible_ms)


def _kernel(equipment: EquipmentClass, lanes: Sequence[tuple[str, str]], seed: int) -> Kernel:
    return KERNELS[equipment.name](
        Streams(keys_of(seed, [unit for unit, _ in lanes])),
        Enterprises(seed, [enterprise for _, enterprise in lanes]),
        float(equipment.base_interval_s),
    )


def _others(cases: Sequence[Occurrence]) -> Mapping[str, Cases]:
    """By fault: for each lane the other faults of its unit."""
    of_unit: dict[str, list[Occurrence]] = {}
    for case in cases:
        of_unit.setdefault(case.unit, []).append(case)
    found: dict[str, list[tuple[int, Occurrence]]] = {}
    for lane, case in enumerate(cases):
        for other in of_unit[case.unit]:
            if other is not case:
                found.setdefault(other.fault, []).append((lane, other))
    return {name: Cases.of(lanes) for name, lanes in found.items()}


def _noise(equipment: EquipmentClass, lanes: Sequence[tuple[str, str]], seed: int, from_ms: int) -> Matrix:
    """Noise of each signal (columns) of each lane's unit (rows): the deviation of a sample without a
    cause."""
    day = (from_ms + SHANGHAI_MS) // DAY_MS
    while kind_of(np.array([day]))[0] != WORKDAY:
        day += 1
    begin_ms = day * DAY_MS - SHANGHAI_MS + round(NOISE_FROM_H * 3_600_000)
    base_s = equipment.base_interval_s
    steps = min(max(NOISE_FOR_S // base_s, NOISE_STEPS_MIN), NOISE_STEPS_MAX)
    kernel = _kernel(equipment, lanes, seed)
    multiples = [signal.interval_s // base_s for signal in equipment.signals]
    shape = (len(lanes), len(equipment.signals))
    before, total, count = np.zeros(shape), np.zeros(shape), np.zeros(shape[1])
    for k in range(steps):
        times = np.full(len(lanes), begin_ms + 1000 * base_s * k, dtype=np.int64)
        due = [place for place, multiple in enumerate(multiples) if k % multiple == 0]
        now = sensed([equipment.signals[i] for i in due], kernel.step(k, times, controls=AUTOMATIC))
        if k > 0:
            total[:, due] += (now - before[:, due]) ** 2
            count[due] += 1.0
        before[:, due] = now
    floor = np.array([signal.resolution * _ROUNDING for signal in equipment.signals])
    return np.asarray(np.maximum(np.sqrt(total / (2.0 * np.maximum(count, 1.0))), floor))
