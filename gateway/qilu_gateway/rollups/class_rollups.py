"""Rows of the open minutes of one class, and its units by number.

A unit takes 60 bytes, in arrays; its id and tags are in the `Series` of its points."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from qilu_contract.catalogue.effectiveness import EFFECTIVENESS
from qilu_contract.catalogue.key_signals import KEY_SIGNALS, MINUTE_MS, is_cumulative
from qilu_contract.columns import Floats, Ints, Rows, Series, grown
from qilu_contract.storage import Point
from qilu_contract.wire.clock import MAX_AHEAD_MS

from qilu_gateway.rollups.effectiveness import EffectivenessRollup
from qilu_gateway.rollups.meters import Meter
from qilu_gateway.rollups.sums import Place, Table, joined, once, summed

LATE_MINUTES = 2
"""Lateness: how far behind its class a reading may be and still be rolled up."""
AHEAD_MINUTES = MAX_AHEAD_MS // MINUTE_MS + 5
"""A minute that its class has yet to reach stays open, whatever arrived for it, if it is no further ahead
than this: a clock that is ahead closes no minutes of other units. The gateway accepts readings up to
MAX_AHEAD_MS ahead, and units of one class may send some minutes apart."""
HEARD_S = 300.0
"""Units that have been silent for longer do not count for the position of their class."""
HOLD_S = 30.0
"""A minute stays open for this time after its last reading, because an accelerated simulation passes
LATE_MINUTES quickly."""
IDLE_S = 120.0
MAX_CLOSED = 10_080
"""Closed minutes remembered per class (a week); all minutes before the oldest count as closed."""


@dataclass(slots=True)
class _Minute:
    """An open minute."""

    touched_s: float = 0.0
    """Time of the last arrival for it."""
    tables: list[Table] = field(default_factory=list)
    rows: int = 0
    merged: int = 0
    """Number of tables that are already merged."""

    def add(self, table: Table, now_s: float) -> None:
        self.tables.append(table)
        self.rows += len(table.times)
        self.touched_s = now_s

    def merge(self) -> None:
        """Merge the tables that arrived since the last call into one."""
        if len(self.tables) > self.merged + 1:
            self.tables[self.merged :] = [joined(self.tables[self.merged :])]
        self.merged = len(self.tables)


@dataclass(frozen=True, slots=True)
class Cut:
    """Tables of minutes to be summed, with the data for it. A thread can process it while units are added."""

    tables: Sequence[Table]
    places: Sequence[Place]
    place_of: Rows
    """By unit number; append-only."""


class ClassRollup:
    """Roll-up of one class. `add` runs in the event loop; `sum_up` may run in a thread, one call at a
    time."""

    def __init__(self, class_name: str) -> None:
        self.class_name = class_name
        self.signals = KEY_SIGNALS[class_name]
        rule = EFFECTIVENESS.get(class_name)
        self._effectiveness = EffectivenessRollup(rule) if rule else None
        key_names = [signal.name for signal in self.signals]
        self.names = tuple(dict.fromkeys((*key_names, *(rule.signals if rule else ()))))
        """Columns of the rows: the key signals come first."""
        self._read_by_rule = [self.names.index(name) for name in rule.signals] if rule else []
        self.known = 0
        """Highest unit number; numbers start at 1."""
        self.last_ms: Ints = np.zeros(1, dtype=np.int64)
        """Time of each unit's latest reading by timestamp (UTC); 0: none."""
        self._clock: Rows = np.zeros(1, dtype=np.int32)
        """Minute of each unit's last received reading."""
        self._heard_s = np.zeros(1, dtype=np.float32)
        """Time of its receipt in seconds since `_began_s`; 0 for inactive units."""
        self._began_s: float | None = None
        self._active: list[Rows] = []
        """The units that sent within the last HEARD_S, each once."""
        self._places: dict[Place, int] = {}
        self._place_of: Rows = np.zeros(1, dtype=np.int32)
        self._place_of_head: Rows = np.zeros(0, dtype=np.int32)
        """The place of the units of a head in the series, plus one; 0: not looked up yet."""
        self._awaited: dict[str, int] = {}
        """Numbers, by id, of units known to the previous process that have not sent yet."""
        self._awaited_room = 0
        self._minutes: dict[int, _Minute] = {}
        self._closed: set[int] = set()
        self._floor = -1
        """All minutes up to this one are closed."""
        self._meters = {place: Meter() for place, signal in enumerate(self.signals) if is_cumulative(signal)}
        self._columns: dict[tuple[str, ...], tuple[list[int], list[int]]] = {}

    @property
    def rows(self) -> int:
        return sum(minute.rows for minute in self._minutes.values())

    def number(self, series: Series, rows: Rows) -> Rows:
        """Assign numbers to units that have none yet."""
        found = np.zeros(len(rows), dtype=np.int32)
        if self._awaited:
            found[:] = [self._awaited.pop(unit, 0) for unit in series.tag("unit", rows).tolist()]
            if len(self._awaited) < self._awaited_room // 4:  # a dictionary does not shrink by itself
                self._awaited, self._awaited_room = dict(self._awaited), len(self._awaited)
        new = np.flatnonzero(found == 0)
        found[new] = np.arange(self.known + 1, self.known + 1 + len(new))
        self.known += len(new)
        self._make_room()
        self._place_of[found] = self._places_of(series, rows)
        return found

    def _places_of(self, series: Series, rows: Rows) -> Rows:
        """The places of units, looked up once per head."""
        heads = series.heads(rows)
        self._place_of_head = grown(self._place_of_head, int(heads.max(initial=0)) + 1)
        new = np.flatnonzero(self._place_of_head[heads] == 0)
        tags = Place._fields if self._effectiveness is not None else ("county", "industry")
        places = zip(*(series.tag(name, rows[new]).tolist() for name in tags), strict=True)
        known = self._places
        self._place_of_head[heads[new]] = [
            known.setdefault(Place(*place), len(known)) + 1 for place in places
        ]
        return self._place_of_head[heads] - 1

    def _make_room(self) -> None:
        size = self.known + 1
        self.last_ms = grown(self.last_ms, size)
        self._clock, self._heard_s = grown(self._clock, size), grown(self._heard_s, size)
        self._place_of = grown(self._place_of, size)

    def is_closed(self, minute: int) -> bool:
        return minute <= self._floor or minute in self._closed

    def add(self, units: Rows, times: Ints, names: tuple[str, ...], values: Floats, now_s: float) -> int:
        """Add rows, except those of closed minutes; returns how many were excluded. `values`: a column for
        each name."""
        if not len(units):
            return 0
        np.maximum.at(self.last_ms, units, times)
        minutes = (times // MINUTE_MS).astype(np.int32)
        self._hear(units, minutes, now_s)
        table = Table(units, times, self._key_columns(names, values))
        first = int(minutes[0])
        if (minutes == first).all():
            return self._add(first, table, now_s)
        return sum(
            self._add(minute, Table(*(column[minutes == minute] for column in table)), now_s)
            for minute in np.unique(minutes).tolist()
        )

    def _add(self, minute: int, table: Table, now_s: float) -> int:
        if self.is_closed(minute):
            return len(table.times)
        self._minutes.setdefault(minute, _Minute()).add(table, now_s)
        return 0

    def _key_columns(self, names: tuple[str, ...], values: Floats) -> Floats:
        """The columns of `names`; NaN where absent."""
        known = self._columns.get(names)
        if known is None:
            there = [place for place, name in enumerate(self.names) if name in names]
            known = there, [names.index(self.names[place]) for place in there]
            if len(self._columns) < 1000:
                self._columns[names] = known
        there, of = known
        if len(there) == len(self.names):
            return values[:, of]
        found = np.full((len(values), len(self.names)), np.nan)
        found[:, there] = values[:, of]
        return found

    def _hear(self, units: Rows, minutes: Rows, now_s: float) -> None:
        if self._began_s is None:
            self._began_s = now_s - 1
        new = units[self._heard_s[units] == 0]
        if len(new):
            self._active.append(np.unique(new))
        self._clock[units] = minutes
        self._heard_s[units] = now_s - self._began_s

    def _reached(self, now_s: float) -> int | None:
        """The position of the class (a minute): a quarter of the recently active units have reached it or are
        further. So neither a few clocks that are ahead nor units that have just fallen silent determine it.
        None without active units."""
        if self._began_s is None or not self._active:
            return None
        active = np.concatenate(self._active)
        lately = self._heard_s[active] >= now_s - self._began_s - HEARD_S
        self._heard_s[active[~lately]] = 0
        active = active[lately]
        self._active = [active] if len(active) else []
        if not len(active):
            return None
        place = (len(active) - 1) * 3 // 4
        return int(np.partition(self._clock[active], place)[place])

    def closable(self, now_s: float) -> list[int]:
        """Minutes that are due to close, oldest first."""
        quiet = {number: now_s - minute.touched_s for number, minute in self._minutes.items()}
        quiet = {minute: quiet[minute] for minute in sorted(quiet) if quiet[minute] >= HOLD_S}
        reached = self._reached(now_s) if quiet else None
        return [minute for minute, quiet_s in quiet.items() if self._is_over(minute, quiet_s, reached)]

    @staticmethod
    def _is_over(minute: int, quiet_s: float, reached: int | None) -> bool:
        """Whether the minute can close. Nothing has arrived for it for `quiet_s`, at least HOLD_S."""
        if reached is None:
            return quiet_s >= IDLE_S
        return minute + LATE_MINUTES < reached or (
            quiet_s >= IDLE_S and not reached <= minute < reached + AHEAD_MINUTES
        )

    def open_minutes(self) -> list[int]:
        return sorted(self._minutes)

    def merge(self) -> None:
        """Merge the small tables of each minute into one."""
        for minute in self._minutes.values():
            minute.merge()

    def cut(self, minutes: list[int], keep: bool = False) -> Cut:
        """Take the rows of some minutes. This closes them, unless `keep`."""
        tables = [table for minute in minutes for table in self._minutes[minute].tables]
        if not keep:
            for minute in minutes:
                del self._minutes[minute]
            self._closed.update(minutes)
            if len(self._closed) > MAX_CLOSED:
                oldest = sorted(self._closed)[: len(self._closed) - MAX_CLOSED]
                self._floor = max(self._floor, oldest[-1])
                self._closed.difference_update(oldest)
        return Cut(tables, list(self._places), self._place_of)

    def sum_up(self, cut: Cut, gateway: str, remember: bool = True) -> list[Point]:
        """The points of these minutes. `remember` keeps the meters' last values for later minutes."""
        if not cut.tables:
            return []
        table = once(joined(cut.tables))
        columns = [
            self._meters[place].added(table.units, table.times, column, remember)
            if place in self._meters
            else column
            for place, column in enumerate(table.values.T[: len(self.signals)])
        ]
        places = cut.places, cut.place_of[table.units]
        keys = table._replace(values=table.values[:, : len(self.signals)])
        points = list(summed(self.class_name, self.signals, keys, columns, places, gateway))
        if self._effectiveness is not None:
            read = table._replace(values=table.values[:, self._read_by_rule])
            points += self._effectiveness.points(read, places, gateway, remember)
        return points

    def dump(self, series: Series, numbers: Rows) -> bytes:
        """Serialize the state for the next start: rows of the open minutes, closed minutes, meters.
        `numbers`: numbers in this class of the units of the series; 0 for others."""
        ids = np.full(self.known + 1, b"", dtype=object)
        mine = series.of_class(self.class_name)
        mine = mine[numbers[mine] > 0]
        ids[numbers[mine]] = series.tag("unit", mine)
        for unit, number in self._awaited.items():
            ids[number] = unit
        size = self.known + 1
        tables = [table for minute in self._minutes.values() for table in minute.tables]
        units, times, values = joined(tables) if tables else _no_rows(len(self.names))
        arrays: dict[str, NDArray[np.generic]] = {
            "names": np.array(self.names),
            "known": ids.astype(np.bytes_),  # ids are ASCII
            "units": units,
            "times": times,
            "values": values,
            "closed": np.array(sorted(self._closed), dtype=np.int64),
            "floor": np.array([self._floor], dtype=np.int64),
            "last_ms": self.last_ms[:size],
            "places": np.array(list(self._places), dtype=np.str_).reshape(-1, len(Place._fields)),
            "place_of": self._place_of[:size],
        }
        for place, meter in self._meters.items():
            arrays[f"then_{place}"], arrays[f"register_{place}"] = meter.of(size)
        if self._effectiveness is not None:
            arrays["effectiveness"] = self._effectiveness.dump(size)
        body = io.BytesIO()
        np.savez(body, **arrays)  # type: ignore[arg-type]  # the stub takes the flag allow_pickle for a name
        return body.getvalue()

    def load(self, body: bytes, now_s: float) -> None:
        """Restore the state of `dump`; a dump of a different catalogue is ignored."""
        with np.load(io.BytesIO(body), allow_pickle=False) as arrays:
            if tuple(arrays["names"].tolist()) != self.names:
                return
            ids = arrays["known"].astype(str).tolist()
            self._awaited = {unit: number for number, unit in enumerate(ids) if number}
            self._awaited_room = len(self._awaited)
            self.known = len(ids) - 1
            self._closed = set(arrays["closed"].tolist())
            self._floor = int(arrays["floor"][0])
            self.last_ms, self._place_of = arrays["last_ms"], arrays["place_of"]
            self._make_room()
            places = arrays["places"].tolist()
            self._places = {Place(*place): number for number, place in enumerate(places)}
            for place, meter in self._meters.items():
                meter.times, meter.values = arrays[f"then_{place}"], arrays[f"register_{place}"]
            if self._effectiveness is not None and "effectiveness" in arrays:
                self._effectiveness.load(arrays["effectiveness"])
            table = Table(arrays["units"], arrays["times"], arrays["values"])
            for minute in np.unique(table.times // MINUTE_MS).tolist():
                mine = table.times // MINUTE_MS == minute
                self._minutes.setdefault(minute, _Minute()).add(
                    Table(*(column[mine] for column in table)), now_s
                )


def _no_rows(signals: int) -> Table:
    return Table(np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.int64), np.empty((0, signals)))
