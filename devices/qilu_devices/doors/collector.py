"""Puts values that were read from a server together to readings: one unit, one time, its signals."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from qilu_contract.catalogue.classes import CATALOGUE

from qilu_devices.fleet import Unit
from qilu_devices.simulation import Sample, shape_of

SETTLE_S = 0.5
"""How long a reading waits for more values of the same time: a server sends them within one notification, or
within one after it."""


class _Waiting:
    """Values of one unit that are not readings yet."""

    def __init__(self, unit: Unit) -> None:
        self.unit = unit
        self.signals = CATALOGUE[unit.class_name].signals
        self.times: dict[int, dict[int, float]] = {}
        self.arrived_s: dict[int, float] = {}
        self.latest = [-1] * len(self.signals)
        self.known: set[int] = set()
        self.born = False

    def restore(self, position: int, ts_ms: int) -> None:
        """An earlier process has read values of this signal up to a time."""
        self.latest[position] = max(self.latest[position], ts_ms)
        self.known.add(position)
        self.born = len(self.known) == len(self.signals)

    def take(self, position: int, ts_ms: int, value: float, now_s: float) -> None:
        if ts_ms <= self.latest[position]:
            return  # sent again after a new subscription
        self.latest[position] = ts_ms
        self.known.add(position)
        self.times.setdefault(ts_ms, {})[position] = self.signals[position].round(value)
        self.arrived_s.setdefault(ts_ms, now_s)

    def settled(self, before_s: float) -> list[Sample]:
        """Readings that began to arrive before that time, in the order of their times."""
        ready = sorted(ts_ms for ts_ms, arrived_s in self.arrived_s.items() if arrived_s < before_s)
        if not self.born and not self._bear(ready):
            return []
        found = []
        for ts_ms in ready:
            values = self.times.pop(ts_ms, None)
            if values is None:
                continue  # its values are in the birth with later times
            del self.arrived_s[ts_ms]
            positions = tuple(sorted(values))
            shape = shape_of(CATALOGUE[self.unit.class_name], positions)
            found.append(Sample(self.unit, ts_ms, shape, tuple(values[i] for i in positions)))
        return found

    def _bear(self, ready: list[int]) -> bool:
        """Whether every signal has a value in these times. The readings up to the first time at which that
        holds go into the unit's birth, which has each signal once: earlier values are dropped. They are
        judged by their times, not in the order of arrival: a notification may hold several readings, signal
        after signal, and the values of one reading may come in two notifications."""
        newest: dict[int, int] = {}
        for ts_ms in ready:
            for position in self.times[ts_ms]:
                newest[position] = ts_ms
            if len(newest) == len(self.signals):
                self.born = True
                break
        last_ms = max(newest.values(), default=0)
        for ts_ms in [each for each in ready if each <= last_ms]:
            values = self.times[ts_ms]
            for position in [i for i in values if newest[i] != ts_ms]:
                del values[position]
            if not values:
                del self.times[ts_ms], self.arrived_s[ts_ms]
        return self.born


class Collector:
    """Readings of some units. Nothing of a unit is emitted before each of its signals has a value, since a
    Sparkplug birth names them all; until then only the latest value of a signal is kept."""

    def __init__(self, units: Sequence[Unit], emit: Callable[[Sample], None]) -> None:
        self._waiting = {unit.id: _Waiting(unit) for unit in units}
        self._emit = emit
        self.values = 0
        """Values taken so far."""

    def take(self, unit: str, position: int, ts_ms: int, value: float, now_s: float) -> None:
        """Take the value of a signal, given by its position in the class. `now_s`: time of any clock."""
        self.values += 1
        self._waiting[unit].take(position, ts_ms, value, now_s)

    def restore(self, sample: Sample) -> None:
        """An earlier process has read this reading: nothing that is as old is emitted again."""
        for position in sample.shape.positions:
            self._waiting[sample.unit.id].restore(position, sample.ts_ms)

    def flush(self, before_s: float) -> None:
        """Emit the readings that began to arrive before that time of the same clock."""
        for waiting in self._waiting.values():
            for sample in waiting.settled(before_s):
                self._emit(sample)

    @property
    def incomplete(self) -> dict[str, list[str]]:
        """Units without readings so far, and the signals that have no value yet."""
        return {
            id_: [signal.name for i, signal in enumerate(each.signals) if i not in each.known]
            for id_, each in self._waiting.items()
            if len(each.known) < len(each.signals)
        }
