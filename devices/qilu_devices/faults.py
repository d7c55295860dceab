"""Faults: which fault a unit has at which time, and how far it has developed. This is the ground truth, which
telemetry never contains.

Time is cut, for each kind of fault, into windows of four times its length (a day at least), the same for all
units. In each window a unit has the fault at most once: with the probability that its mean time between
faults gives, at a time and with a peak that are hashes of (seed, unit, fault, window). So faults are a pure
function of seed, unit and time: not of the fleet, the shard, or when a run begins. Besides, a scenario and
commands may order single faults, and a command may repair a unit.

Severity rises from 0 at the start, linearly, to its peak, stays, and is 0 from the repair on.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from qilu_contract.catalogue.classes import CATALOGUE, EquipmentClass, Fault

from qilu_devices import exact, parquet
from qilu_devices.climate import season
from qilu_devices.kernel import SOUND, Severities, Times, severities
from qilu_devices.noise import Streams, Values, keys_of

FILE_NAME = "faults.parquet"
HOUR_MS = 3_600_000
SHORTEST_WINDOW_MS = 24 * HOUR_MS
WINDOW_LENGTHS = 4  # a fault takes a quarter of its window, so where it lies is chance
WINTER = -0.6  # A: of the yearly swing; mid-November to early March
PEAK = (0.5, 1.0)  # A: faults that come by themselves peak between these


@dataclass(frozen=True, slots=True)
class Order:
    """A fault that a scenario orders. `start_ms`: relative to the run's start, or UTC if `absolute`."""

    unit: str
    fault: str
    start_ms: int
    absolute: bool
    duration_ms: int
    severity: float
    onset_ms: int | None = None
    """Time in which it develops; None for the same share of its duration as a random fault."""


@dataclass(frozen=True, slots=True)
class FaultPlan:
    """Fault plan from a scenario and commands: `rate` multiplies every hazard rate of the catalogue; `peak`
    is the range of peak severities of random faults; `repairs` are units with the times (UTC, ms) at which
    all of their faults end."""

    rate: float = 0.0
    orders: tuple[Order, ...] = ()
    repairs: tuple[tuple[str, int], ...] = ()
    peak: tuple[float, float] = PEAK


NO_FAULTS = FaultPlan()


@dataclass(frozen=True, slots=True)
class Occurrence:
    """The ground truth of one fault of one unit: severity is 0 at `start_ms`, `severity` from `developed_ms`
    until `end_ms`, linear between, and 0 from `end_ms` on."""

    unit: str
    class_name: str
    fault: str
    start_ms: int
    developed_ms: int
    end_ms: int
    severity: float
    visible_ms: int | None = None
    """The first sample that shows it (`visibility`); None if none did during the run, or it was not
    computed."""

    def severity_at(self, t_ms: int) -> float:
        if not self.start_ms <= t_ms < self.end_ms:
            return 0.0
        if t_ms >= self.developed_ms:
            return self.severity
        return self.severity * ((t_ms - self.start_ms) / (self.developed_ms - self.start_ms))


@dataclass(frozen=True, slots=True)
class Cases:
    """Occurrences of one fault, column by column; `unit` is the position of the unit."""

    unit: NDArray[np.int64]
    start: Times
    developed: Times
    end: Times
    peak: Values

    @classmethod
    def of(cls, cases: Sequence[tuple[int, Occurrence]]) -> Cases:
        """Occurrences, each with its unit's position."""
        whole = [(place, case.start_ms, case.developed_ms, case.end_ms) for place, case in cases]
        unit, start, developed, end = np.array(whole, dtype=np.int64).reshape(-1, 4).T
        peak = np.array([case.severity for _, case in cases], dtype=np.float64)
        return cls(unit, start, developed, end, peak)

    def severity(self, t_ms: Times) -> Values | None:
        """By unit, at the units' times; None where no unit has the fault."""
        t = t_ms[self.unit]
        active = (t >= self.start) & (t < self.end)
        if not active.any():
            return None
        ramp = np.maximum(self.developed - self.start, 1)
        grown = np.where(t >= self.developed, 1.0, (t - self.start) / ramp)
        severity = np.zeros(len(t_ms))
        np.maximum.at(severity, self.unit[active], (self.peak * grown)[active])
        return severity

    def first(self) -> int:
        return int(self.start.min(initial=2**62))

    def last(self) -> int:
        return int(self.end.max(initial=-(2**62)))


class _Timeline:
    """One kind of fault of some units."""

    def __init__(
        self,
        fault: Fault,
        streams: Streams,
        plan: FaultPlan,
        ordered: Cases,
        repairs: Sequence[tuple[int, int]] = (),
    ) -> None:
        self._repairs = repairs
        self._streams, self._name = streams, f"fault/{fault.name}"
        self._develop_ms = round(fault.develop_h * HOUR_MS)
        self._length_ms = self._develop_ms + round(fault.repair_h * HOUR_MS)
        self._window_ms = max(WINDOW_LENGTHS * self._length_ms, SHORTEST_WINDOW_MS)
        windows_between = fault.mean_hours_between * HOUR_MS / self._window_ms
        self._season = fault.season
        self._probability = 1.0 - float(exact.exp(-min(plan.rate / windows_between, 100.0)))
        self._peak = plan.peak
        self._ordered = ordered
        self._loaded: tuple[int, int] | None = None
        self._now = ordered
        self._from, self._until = ordered.first(), ordered.last()

    def window(self, number: int) -> Cases:
        """Faults of one window; each begins and ends in it."""
        everyone = np.arange(len(self._streams))
        numbers = np.full(len(everyone), number, dtype=np.int64)
        chance = self._streams.chance_of(f"{self._name}/occurs", everyone, numbers)
        unit = np.flatnonzero(chance < self._probability)
        numbers = np.full(len(unit), number, dtype=np.int64)
        room = self._window_ms - self._length_ms
        within = self._streams.chance_of(f"{self._name}/start", unit, numbers)
        start = number * self._window_ms + (within * room).astype(np.int64)
        if self._season == "winter":
            cold = season(start) < WINTER
            unit, numbers, start = unit[cold], numbers[cold], start[cold]
        low, high = self._peak
        peak = low + (high - low) * self._streams.chance_of(f"{self._name}/peak", unit, numbers)
        return Cases(unit, start, start + self._develop_ms, start + self._length_ms, peak)

    def between(self, from_ms: int, until_ms: int) -> Iterator[Cases]:
        """Faults that overlap a period, and possibly others."""
        yield self._repaired(self._ordered)
        if self._probability > 0.0:
            for number in range(from_ms // self._window_ms, until_ms // self._window_ms + 1):
                yield self._repaired(self.window(number))

    def _repaired(self, cases: Cases) -> Cases:
        """End faults in progress at each repair; their development until then is unchanged."""
        for unit, at_ms in self._repairs:
            found = (cases.unit == unit) & (cases.start < at_ms) & (at_ms < cases.end)
            if found.any():
                cases = replace(cases, end=np.where(found, at_ms, cases.end))
        return cases

    def at(self, t_ms: Times, low: int, high: int) -> Values | None:
        """Severity by unit; None where no unit has the fault. `low` and `high` are the bounds of `t_ms`."""
        windows = (low // self._window_ms, high // self._window_ms)
        if windows != self._loaded:
            self._loaded = windows
            found = list(self.between(low, high))
            self._now = Cases(
                *(np.concatenate([getattr(cases, name) for cases in found]) for name in Cases.__slots__)
            )
            self._from, self._until = self._now.first(), self._now.last()
        if high < self._from or low >= self._until:
            return None
        return self._now.severity(t_ms)


class Schedule:
    """Fault schedule of some units of one class. `streams` are the units' random streams."""

    def __init__(
        self,
        equipment: EquipmentClass,
        unit_ids: Sequence[str],
        streams: Streams,
        start_ms: int,
        plan: FaultPlan,
    ) -> None:
        self._class, self._unit_ids = equipment, unit_ids
        named = plan.orders or plan.repairs
        places = {unit: place for place, unit in enumerate(unit_ids)} if named else {}
        ordered = _ordered(equipment, places, start_ms, plan.orders)
        repairs = [(places[unit], at_ms) for unit, at_ms in plan.repairs if unit in places]
        self._timelines = {
            fault.name: _Timeline(fault, streams, plan, ordered[fault.name], repairs)
            for fault in equipment.faults
            if plan.rate > 0.0 or len(ordered[fault.name].unit)
        }

    def at(self, t_ms: Times) -> Severities:
        """Severity of each fault at the units' times."""
        if not self._timelines or not len(t_ms):
            return SOUND
        low, high = int(t_ms.min()), int(t_ms.max())
        found = ((name, timeline.at(t_ms, low, high)) for name, timeline in self._timelines.items())
        return severities({name: severity for name, severity in found if severity is not None})

    def occurrences(self, from_ms: int, until_ms: int) -> Iterator[Occurrence]:
        """Every fault that a unit has at some time from `from_ms` through `until_ms`, whole."""
        for name, timeline in self._timelines.items():
            for cases in timeline.between(from_ms, until_ms):
                columns = (getattr(cases, column).tolist() for column in Cases.__slots__)
                for unit, start, developed, end, peak in zip(*columns, strict=True):
                    if start <= until_ms and end > from_ms:
                        if end < developed:  # repaired before its peak
                            developed, peak = end, peak * ((end - start) / (developed - start))
                        yield Occurrence(
                            self._unit_ids[unit], self._class.name, name, start, developed, end, peak
                        )


def _ordered(
    equipment: EquipmentClass, places: Mapping[str, int], start_ms: int, orders: Sequence[Order]
) -> dict[str, Cases]:
    rows: dict[str, list[tuple[int, int, int, int, float]]] = {fault.name: [] for fault in equipment.faults}
    for order in orders:
        if order.unit in places and order.fault in rows:
            fault = equipment.fault(order.fault)
            begin = order.start_ms if order.absolute else start_ms + order.start_ms
            share = fault.develop_h / (fault.develop_h + fault.repair_h)
            onset_ms = round(order.duration_ms * share) if order.onset_ms is None else order.onset_ms
            developed, end = begin + onset_ms, begin + order.duration_ms
            rows[order.fault].append((places[order.unit], begin, developed, end, order.severity))
    found = {}
    for name, cases in rows.items():
        whole = np.array([case[:4] for case in cases], dtype=np.int64).reshape(-1, 4)
        peak = np.array([case[4] for case in cases], dtype=np.float64)
        found[name] = Cases(whole[:, 0], whole[:, 1], whole[:, 2], whole[:, 3], peak)
    return found


def ground_truth(
    units: Mapping[str, str], seed: int, start_ms: int, until_ms: int, plan: FaultPlan
) -> list[Occurrence]:
    """Every fault of some units (id → class) during a run, in the order of start, unit and fault: a pure
    function, of no other unit."""
    found: list[Occurrence] = []
    for name, equipment in CATALOGUE.items():
        ids = [unit for unit, class_name in units.items() if class_name == name]
        schedule = Schedule(equipment, ids, Streams(keys_of(seed, ids)), start_ms, plan)
        found.extend(schedule.occurrences(start_ms, until_ms))
    return sorted(found, key=lambda case: (case.start_ms, case.unit, case.fault))


def save(found: Sequence[Occurrence], folder: Path, about: Mapping[str, object] | None = None) -> Path:
    """Write the ground truth as `faults.parquet`, whole or not at all: one row a fault, with the points
    between which its severity is linear. `about` is kept as the file's own metadata. Blocks. Raises
    ConfigError when it cannot be written."""
    text = {
        "unit": np.array([case.unit for case in found], dtype=object),
        "class": np.array([case.class_name for case in found], dtype=object),
        "fault": np.array([case.fault for case in found], dtype=object),
    }
    times = {
        name: np.array([getattr(case, name) for case in found], dtype="datetime64[ms]")
        for name in ("start_ms", "developed_ms", "end_ms")
    }
    peak = {
        "severity": np.array([case.severity for case in found], dtype=np.float64),
        "visible": np.array([case.visible_ms or 0 for case in found], dtype=np.int64),
    }
    query = """
        SELECT unit::VARCHAR AS unit, class::VARCHAR AS class, fault::VARCHAR AS fault,
            start_ms AS "start", developed_ms AS developed, end_ms AS "end", severity,
            nullif(visible, 0) AS visible_ms,
            [{'ts': start_ms, 'severity': 0.0}, {'ts': developed_ms, 'severity': severity},
             {'ts': end_ms, 'severity': severity}, {'ts': end_ms, 'severity': 0.0}] AS severity_over_time
        FROM given
    """
    return parquet.write(folder / FILE_NAME, text | times | peak, query, about)
