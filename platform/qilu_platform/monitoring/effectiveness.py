"""OEE of places, enterprises and units: sums of seconds, and the ratios of ISO 22400-2 that follow from them.

Places and enterprises are read from roll-ups; a unit's states from its own readings."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from qilu_common.effectiveness import UnitAccounts
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.catalogue.effectiveness import EFFECTIVENESS, STOP_FIELDS, SUM_FIELDS, Effectiveness
from qilu_contract.catalogue.key_signals import MINUTE_MS
from qilu_contract.columns import Ints
from qilu_contract.readings import MAX_TIME_MS
from qilu_contract.storage import HOURLY, Point
from qilu_contract.store import MAX_ROWS, PlatformStore, Row, SeriesQuery

from qilu_platform.counting.activity import HOUR_MS
from qilu_platform.monitoring import alarms

MINUTES_MS = 2 * 86_400_000
"""Longer periods use hourly rows."""
LEAD_MS = 600_000
"""Readings before the begin of a period that say in which state it begins."""
_PAGE_ROWS = MAX_ROWS // 2
_SHANGHAI_MS = 8 * HOUR_MS
_SLACK_MS = 10_000
"""A stop may show in a reading a little before or after the command or alarm (assumed)."""
NO_REASON, RUNNING = -1, -2
"""Codes of spells; any other is the number of a reason."""


class TooManyRowsError(Exception):
    """The period has more rows than one answer may read."""


class Spell(NamedTuple):
    """A time without a change of state. Times between spells have no readings."""

    from_ms: int
    to_ms: int
    code: int


@dataclass(slots=True)
class Seconds:
    """Sums of one period."""

    sums: dict[str, float] = field(default_factory=lambda: dict.fromkeys(SUM_FIELDS, 0.0))
    stops: dict[str, float] = field(default_factory=dict)

    def add(self, rule: Effectiveness, fields: Mapping[str, Any]) -> None:
        for name in SUM_FIELDS:
            self.sums[name] += float(fields.get(name, 0.0))
        for name, reason in zip(STOP_FIELDS, rule.stops, strict=False):
            self.stops[reason] = self.stops.get(reason, 0.0) + float(fields.get(name, 0.0))

    def shown(self) -> dict[str, Any]:
        """The sums, the ratios (null where nothing was observed or made), and the stops by reason."""
        planned, run, ideal, good = (self.sums[name] for name in SUM_FIELDS)
        explained = sum(self.stops.values())
        return {
            **{name: round(value, 3) for name, value in self.sums.items()},
            "availability": _ratio(run, planned),
            "effectiveness": _ratio(ideal, run),
            "quality": _ratio(good, ideal),
            "oee": _ratio(good, planned),
            "stops": [
                *({"reason": reason, "seconds": round(value, 3)} for reason, value in self.stops.items()),
                {"reason": None, "seconds": round(max(0.0, planned - run - explained), 3)},
            ],
        }


def _ratio(part: float, whole: float) -> float | None:
    return round(part / whole, 4) if whole > 0 else None


async def of_place(
    store: PlatformStore, level: str, place: str, class_name: str, start_ms: int, end_ms: int
) -> dict[str, Any]:
    """OEE of a class in a place (or an enterprise) from its roll-ups: of the whole period, and by minute or
    hour. Raises TooManyRowsError."""
    rule = EFFECTIVENESS[class_name]
    hourly = level != "enterprise" and end_ms - start_ms > MINUTES_MS
    step_ms = HOUR_MS if hourly else MINUTE_MS
    measurement = "effectiveness" + (HOURLY if hourly else "")
    having: dict[str, str | int] = {"level": level, "place": place, "class": class_name}
    points = await store.newest(measurement, having, start_ms, end_ms, MAX_ROWS)
    if len(points) == MAX_ROWS:
        raise TooManyRowsError("the period has too many rows: ask for a shorter one")
    whole, by_step = Seconds(), defaultdict[int, Seconds](Seconds)
    for point in points:
        whole.add(rule, point.fields)
        by_step[point.ts_ms // step_ms * step_ms].add(rule, point.fields)
    columns = ("oee", "availability", "effectiveness", "quality")
    rows = [[ts_ms, *map(sums.shown().get, columns)] for ts_ms, sums in sorted(by_step.items())]
    return {
        "class": class_name,
        **whole.shown(),
        "assumed": list(rule.assumed),
        "columns": ["ts_ms", *columns],
        "rows": rows,
    }


class UnitHistory:
    """Sums and states of one unit over a period, from its readings. `shift`: planned busy time as minutes of
    the local day, first and last; None: all time with readings."""

    def __init__(self, class_name: str, start_ms: int, shift: tuple[int, int] | None = None) -> None:
        self._rule = EFFECTIVENESS[class_name]
        self._start_ms, self._shift = start_ms, shift
        self._accounts = UnitAccounts(self._rule)
        self.seconds = Seconds()
        self.spells: list[Spell] = []

    async def read(self, store: PlatformStore, unit: str, end_ms: int) -> None:
        """Read the unit's readings page by page. Raises TooManyRowsError."""
        rule = self._rule
        page_ms = CATALOGUE[rule.class_name].base_interval_s * 1000 * _PAGE_ROWS
        for begin_ms in range(max(0, self._start_ms - LEAD_MS), end_ms, page_ms):
            until_ms = min(begin_ms + page_ms, end_ms)
            try:
                rows = await store.series(
                    SeriesQuery(rule.class_name, {"unit": unit}, rule.signals, begin_ms, until_ms)
                )
            except ValueError as error:
                raise TooManyRowsError(f"the store cannot answer that: {error}") from error
            if rows:
                await asyncio.to_thread(self._add, rows)

    def _add(self, rows: Sequence[Row]) -> None:
        nan, names = float("nan"), self._rule.signals
        values = np.array([[row.values.get(name, nan) for name in names] for row in rows], dtype=np.float64)
        times = np.array([row.ts_ms for row in rows], dtype=np.int64)
        found = self._accounts.add(np.zeros(len(rows), dtype=np.int32), times, values)
        planned = (times > self._start_ms) & self._is_planned(times)
        sums = (found.planned_s, found.run_s, found.ideal_s, found.good_s, *found.stop_s.T)
        fields = [float(column[planned].sum()) for column in sums]
        self.seconds.add(self._rule, dict(zip((*SUM_FIELDS, *STOP_FIELDS), fields, strict=False)))
        shown = (times > self._start_ms) & (found.planned_s > 0)
        if not shown.any():
            return
        reason = np.full(len(rows), NO_REASON)
        if self._rule.stops:
            reason = np.where(found.stop_s.any(axis=1), found.stop_s.argmax(axis=1), NO_REASON)
        codes = np.where(found.run_s > 0, RUNNING, reason)[shown]
        to_ms, from_ms = times[shown], times[shown] - np.rint(found.planned_s[shown] * 1000).astype(np.int64)
        new = np.flatnonzero((np.diff(codes, prepend=-9) != 0) | (from_ms != np.roll(to_ms, 1)))
        ends = np.append(new[1:], len(codes)) - 1
        for begin, end in zip(new.tolist(), ends.tolist(), strict=True):
            self._spell(Spell(int(from_ms[begin]), int(to_ms[end]), int(codes[begin])))

    def _is_planned(self, times: Ints) -> NDArray[np.bool_]:
        if self._shift is None:
            return np.ones(len(times), dtype=np.bool_)
        minute = (times + _SHANGHAI_MS) // MINUTE_MS % 1440
        first, last = self._shift
        if first < last:
            return (minute >= first) & (minute < last)
        return (minute >= first) | (minute < last)

    def _spell(self, spell: Spell) -> None:
        """Add a spell; one that continues the last is joined with it. A reason that is reported during a stop
        is that of the whole stop."""
        last = self.spells[-1] if self.spells else None
        if last is not None and last.to_ms == spell.from_ms:
            codes = {last.code, spell.code}
            if len(codes) == 1 or (NO_REASON in codes and RUNNING not in codes):
                self.spells[-1] = Spell(last.from_ms, spell.to_ms, max(codes))
                return
        self.spells.append(spell)

    def states(self, breaches: Sequence[Point], commands: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """The states in order of time. A stop whose reason the unit does not report has that of the stop
        command that holds when it begins, or of an alarm that is open then."""
        orders = sorted(
            (each["holds_from_ms"], each["command"]["command"])
            for each in commands
            if each["state"] == "accepted"
            and each["holds_from_ms"] is not None
            and each["command"]["command"] in ("start", "stop")
        )
        found = []
        for from_ms, to_ms, code in self.spells:
            kind, reason = None, None
            if code >= 0:
                kind, reason = "signal", self._rule.stops[code]
            elif code == NO_REASON:
                kind, reason = _reason(from_ms, breaches, orders)
            state = "running" if code == RUNNING else "stopped"
            found.append(
                {"from_ms": from_ms, "to_ms": to_ms, "state": state, "reason_kind": kind, "reason": reason}
            )
        return found


def _reason(
    from_ms: int, breaches: Sequence[Point], orders: Sequence[tuple[int, str]]
) -> tuple[str | None, str | None]:
    before = [command for holds_ms, command in orders if holds_ms <= from_ms + _SLACK_MS]
    if before and before[-1] == "stop":
        return "command", "stop"
    for point in breaches:
        lasts_ms = round(float(point.fields.get("duration_s", 0.0)) * 1000)
        until_ms = MAX_TIME_MS if point.fields.get("open") else point.ts_ms + lasts_ms
        if point.ts_ms - _SLACK_MS <= from_ms <= until_ms + _SLACK_MS:
            return "alarm", alarms.tags_of(point)["signal"]
    return None, None
