"""Alarms of one unit from the catalogue's limits, by the rules of the gateway: a value past its limit for the
limit's delay raises an alarm, a value back inside for as long clears it."""

from __future__ import annotations

from typing import NamedTuple

from qilu_contract.catalogue.limits import Limit, alarm_limits

from qilu_devices.simulation import Sample


class Change(NamedTuple):
    """An alarm that was raised or cleared, with the time from which that holds (UTC, ms), and the value."""

    limit: Limit
    active: bool
    since_ms: int
    value: float


class UnitAlarms:
    """Alarms of one unit. `judge` takes its samples in time order."""

    def __init__(self, class_name: str) -> None:
        self._limits = alarm_limits(class_name)
        self._gates = {limit.while_above_0: 0.0 for limit in self._limits.values() if limit.while_above_0}
        self._since: dict[str, int] = {}
        """Since when a signal is past its limit, or with an active alarm back inside."""
        self.active: set[str] = set()
        """Signals with an active alarm."""

    def judge(self, sample: Sample) -> list[Change]:
        """Alarms that this sample raises or clears."""
        if not self._limits:
            return []
        values = dict(zip(sample.shape.names, sample.values, strict=True))
        self._gates.update((name, values[name]) for name in self._gates if name in values)
        changes = [
            self._judge_one(limit, sample.ts_ms, values[signal])
            for signal, limit in self._limits.items()
            if signal in values
        ]
        return [change for change in changes if change is not None]

    def _judge_one(self, limit: Limit, ts_ms: int, value: float) -> Change | None:
        signal = limit.signal
        applies = not limit.while_above_0 or self._gates[limit.while_above_0] > 0.0
        active = signal in self.active
        turning = not applies or limit.kept(value) if active else applies and limit.breached(value)
        if not turning:
            self._since.pop(signal, None)
            return None
        since_ms = self._since.setdefault(signal, ts_ms)
        if ts_ms - since_ms < limit.delay_s * 1000 and (applies or not active):
            return None
        del self._since[signal]
        if active:
            self.active.discard(signal)
        else:
            self.active.add(signal)
        return Change(limit, not active, since_ms, value)
