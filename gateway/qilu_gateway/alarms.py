"""Breaches of limits, from their begin to their end: which are open now, and the points of them."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence

import msgspec
import numpy as np
import structlog
from numpy.typing import NDArray
from qilu_contract.catalogue import CATALOGUE
from qilu_contract.limits import Limit, alarm_limits
from qilu_contract.places import PROVINCE
from qilu_contract.storage import Point

from qilu_gateway.statefile import StateFile

log = structlog.get_logger()

SCHEMA = """
CREATE TABLE IF NOT EXISTS alarm (unit TEXT, signal TEXT, body BLOB NOT NULL, PRIMARY KEY (unit, signal))
    WITHOUT ROWID;
"""
MAX_ALARMS = 200_000
MAX_RATIO = 100.0
WHILE_MS = 10 * 60_000
"""How long a limit's `while` signal is believed without a new value of it (assumed)."""
MAX_WHILE = 1_000_000
"""Units whose `while` signals are remembered, some 200 bytes each; beyond, the limit says nothing of a unit
that sends them apart."""

Key = tuple[str, str]
"""Unit and signal."""


class Alarm(msgspec.Struct):
    """An open alarm, as it is kept in the state file too."""

    class_name: str
    tags: tuple[str, ...]
    signal: str
    since_ms: int
    value: float
    worst: float


class Alarms:
    """`judge` is called with readings in the order of their times, for each unit; `write` gets the points."""

    def __init__(self, state: StateFile, write: Callable[[Point], None]) -> None:
        self._state, self._write = state, write
        self._limits: dict[str, list[tuple[str, Limit]]] = {
            name: list(alarm_limits(name).items()) for name in CATALOGUE
        }
        self._gates: dict[str, tuple[str, ...]] = {
            name: tuple({limit.while_above_0 for _, limit in limits} - {""})
            for name, limits in self._limits.items()
        }
        """The `while` signals of each class."""
        self._gate_open: dict[Key, tuple[int, bool]] = {}
        """When each of those came last, and whether it was above 0."""
        self._open: dict[Key, Alarm] = {}
        self._units: dict[str, int] = {}
        """How many alarms each unit has that has any."""
        self._changed: dict[Key, Alarm] = {}
        """Open alarms whose worst value the store does not have yet."""
        self._to_keep: dict[Key, Alarm | None] = {}
        """Alarms that have begun or ended (None) since the state file was told."""
        self.left_out = 0
        """Breaches beyond MAX_ALARMS."""

    def __len__(self) -> int:
        return len(self._open)

    def suspects(
        self, class_name: str, names: Sequence[str], values: NDArray[np.float64], points: Sequence[Point]
    ) -> set[str]:
        """The units for which some of the points, all with these fields, may begin or end an alarm.
        `values`: a row for each point, a column for each field."""
        if self._gates[class_name]:  # every value counts, for what comes after
            return {point.tags[4] for point in points}
        found = {point.tags[4] for point in points if point.tags[4] in self._units} if self._units else set()
        for signal, limit in self._limits[class_name]:
            if signal in names:
                column = values[:, names.index(signal)]
                breached = column > limit.limit if limit.kind == "above" else column < limit.limit
                found.update(points[row].tags[4] for row in np.flatnonzero(breached).tolist())
        return found

    def judge(self, point: Point) -> None:
        """What a reading begins or ends."""
        class_name, tags, ts_ms, values = point
        unit = tags[4]
        for gate in self._gates[class_name]:
            value = values.get(gate)
            key = (unit, gate)
            if value is not None and (key in self._gate_open or len(self._gate_open) < MAX_WHILE):
                self._gate_open[key] = (ts_ms, value > 0)
        for signal, limit in self._limits[class_name]:
            value = values.get(signal)
            holds = self._holds(unit, limit, ts_ms)
            alarm = self._open.get((unit, signal))
            if alarm is not None:
                if holds is False or (value is not None and limit.kept(value)):
                    self._end(alarm, ts_ms)
                elif value is not None and (
                    value > alarm.worst if limit.kind == "above" else value < alarm.worst
                ):
                    alarm.worst = float(value)
                    self._changed[unit, signal] = alarm
            elif holds and value is not None and limit.breached(value):
                self._begin(Alarm(class_name, tags, signal, ts_ms, float(value), float(value)))

    def _holds(self, unit: str, limit: Limit, ts_ms: int) -> bool | None:
        """Whether the limit says anything of the unit now; None when that is not known."""
        if not limit.while_above_0:
            return True
        at_ms, is_open = self._gate_open.get((unit, limit.while_above_0), (-WHILE_MS, False))
        return is_open if ts_ms - at_ms < WHILE_MS else None

    def _begin(self, alarm: Alarm) -> None:
        if len(self._open) >= MAX_ALARMS:
            self.left_out += 1
            return
        unit = alarm.tags[4]
        key = (unit, alarm.signal)
        self._open[key] = self._changed[key] = self._to_keep[key] = alarm
        self._units[unit] = self._units.get(unit, 0) + 1

    def _end(self, alarm: Alarm, ended_ms: int) -> None:
        unit = alarm.tags[4]
        key = (unit, alarm.signal)
        del self._open[key]
        self._changed.pop(key, None)
        self._to_keep[key] = None
        self._forget_unit(unit)
        self._write(self._point(alarm, ended_ms=ended_ms))

    def _point(self, alarm: Alarm, ended_ms: int | None = None) -> Point:
        limit = alarm_limits(alarm.class_name)[alarm.signal]
        over, under = (alarm.worst, limit.limit) if limit.kind == "above" else (limit.limit, alarm.worst)
        ratio = min(over / under, MAX_RATIO) if over > 0 and under > 0 else 1.0
        fields = {
            "open": 1 if ended_ms is None else 0,
            "value": alarm.value,
            "limit": limit.limit,
            "worst": alarm.worst,
            "ratio": round(ratio, 4),
            "duration_s": 0.0 if ended_ms is None else (ended_ms - alarm.since_ms) / 1000,
        }
        return Point("alarm", (PROVINCE, *alarm.tags, alarm.class_name, alarm.signal), alarm.since_ms, fields)

    def _forget_unit(self, unit: str) -> None:
        """One alarm of it less."""
        self._units[unit] -= 1
        if not self._units[unit]:
            del self._units[unit]

    def write_changes(self) -> None:
        """Points of the open alarms that have begun or become worse."""
        for alarm in self._changed.values():
            self._write(self._point(alarm))
        self._changed = {}

    async def load(self) -> None:
        """The alarms that were open when the process before this one ended. Before the first `judge`."""
        bodies = await self._state.write(
            lambda connection: connection.execute("SELECT body FROM alarm").fetchall()
        )
        for (body,) in bodies:
            try:
                alarm = msgspec.msgpack.decode(body, type=Alarm)
            except msgspec.DecodeError as error:  # damaged: it opens again with the next breach
                log.error("an alarm in the state file cannot be read", error=str(error))
                continue
            if alarm.signal in alarm_limits(alarm.class_name):
                unit = alarm.tags[4]
                self._open[unit, alarm.signal] = alarm
                self._units[unit] = self._units.get(unit, 0) + 1

    async def keep(self) -> None:
        """Tell the state file what has begun and ended."""
        if not self._to_keep:
            return
        changes, self._to_keep = self._to_keep, {}
        begun = [(*key, msgspec.msgpack.encode(alarm)) for key, alarm in changes.items() if alarm is not None]
        ended = [key for key, alarm in changes.items() if alarm is None]

        def work(connection: sqlite3.Connection) -> None:
            connection.executemany("REPLACE INTO alarm VALUES (?, ?, ?)", begun)
            connection.executemany("DELETE FROM alarm WHERE unit = ? AND signal = ?", ended)

        try:
            await self._state.write(work)
        except (sqlite3.OperationalError, OSError):  # the disk is full, or away: the pipeline says so
            self._to_keep = changes | self._to_keep
