"""One class's rows of the minutes that are open, and what they add up to when those close."""

from __future__ import annotations

import io
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from qilu_contract.clock import MAX_AHEAD_MS
from qilu_contract.places import PROVINCE, city_of
from qilu_contract.rollups import BIN_FIELDS, BINS, KEY_SIGNALS, LEVELS, MINUTE_MS, is_cumulative
from qilu_contract.storage import FINE, Point

LATE_MS = 2 * MINUTE_MS
"""How far behind its class a reading may come and be rolled up."""
AHEAD_MS = MAX_AHEAD_MS + 5 * MINUTE_MS
"""A minute that its class has yet to come to, by no more than this, stays open whatever came for it: a clock
that goes ahead closes nobody else's minutes. The gateway takes what is MAX_AHEAD_MS ahead, and units of one
class may be heard some minutes apart."""
HEARD_S = 300.0
"""Units that were not heard of for longer do not say where their class is."""
HOLD_S = 30.0
"""A minute that something came for so lately stays open: a simulation at speed passes LATE_MS in no time."""
IDLE_S = 120.0
MAX_UNITS = 4_000_000
"""Units told apart, about 150 bytes each; beyond, new ones are not rolled up."""
MAX_CLOSED = 10_080
"""Closed minutes remembered for each class (a week); everything before the oldest counts as closed."""

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Rows = tuple[Ints, Ints, Floats]
"""Units (their numbers), times (ms) and values (a column for each signal) of the same rows."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Rows to be summed up, with what is needed for it: a thread can work on it while units are added."""

    units: Ints
    times: Ints
    values: Floats
    codes: dict[str, list[str]]
    places: dict[str, Ints]
    """For each level the place of every unit, as an index into its codes."""
    known: int
    """Units."""


class Fleet:
    """The rows of one class. `add` runs in the event loop; `close` may run in a thread, one call at a
    time."""

    def __init__(self, class_name: str) -> None:
        self.class_name = class_name
        self.signals = KEY_SIGNALS[class_name]
        self.names = tuple(signal.name for signal in self.signals)
        self.units: dict[str, int] = {}
        self.last_ms = _no_ints()
        """Of each unit's latest reading; longer than there are units."""
        self._clock_ms = _no_ints()
        self._heard_s = np.empty(0)
        """Time of the reading that each unit sent last, and when that came."""
        self._places: dict[str, dict[str, int]] = {level: {} for level in LEVELS}
        self._place_of: dict[str, array[int]] = {level: array("q") for level in LEVELS}
        self._held: Rows = (_no_ints(), _no_ints(), np.empty((0, len(self.signals))))
        self._came: list[Rows] = []
        """Rows that are not in `_held` yet."""
        self._touched: dict[int, float] = {}
        """When something came for each open minute."""
        self._closed: set[int] = set()
        self._floor = -1
        """Minutes up to this one are closed."""
        self._registers: dict[int, tuple[Ints, Floats]] = {}
        """For each cumulative signal (by its place): time and value of every unit's last reading."""

    @property
    def rows(self) -> int:
        return len(self._held[0]) + sum(len(units) for units, _, _ in self._came)

    def table(self, points: Sequence[Point], names: Sequence[str]) -> Rows:
        """Of points that all have these fields: their values in that order. Units are numbered at first
        sight; -1 beyond MAX_UNITS."""
        known = self.units
        numbers = [known.get(point[1][4], -1) for point in points]
        if -1 in numbers:
            numbers = [self._number(point[1]) for point in points]
        return (
            np.array(numbers, dtype=np.int64),
            np.array([point[2] for point in points], dtype=np.int64),
            np.array([tuple(point[3].values()) for point in points], dtype=np.float64).reshape(
                len(points), len(names)
            ),
        )

    def columns(self, names: Sequence[str], values: Floats) -> Floats:
        """Of values by these names, those of the class's key signals; NaN where there is none."""
        found = np.full((len(values), len(self.names)), np.nan)
        for place, name in enumerate(self.names):
            if name in names:
                found[:, place] = values[:, names.index(name)]
        return found

    def _number(self, tags: tuple[str, ...]) -> int:
        number = self.units.get(tags[4])
        if number is None:
            number = len(self.units)
            if number >= MAX_UNITS:
                return -1
            self.units[tags[4]] = number
            if number == len(self.last_ms):
                more = np.full(max(number, 1000), -1, dtype=np.int64)
                self.last_ms = np.concatenate((self.last_ms, more))
                self._clock_ms = np.concatenate((self._clock_ms, more))
                self._heard_s = np.concatenate((self._heard_s, np.full(len(more), -np.inf)))
            city, county, industry = tags[:3]
            for level, code in zip(LEVELS, (PROVINCE, city, county, industry), strict=True):
                known = self._places[level]
                self._place_of[level].append(known.setdefault(code, len(known)))
        return number

    def latest_ms(self, unit: str) -> int:
        """Time of the unit's latest reading; that of one beyond MAX_UNITS is not kept."""
        number = self.units.get(unit)
        return -1 if number is None else int(self.last_ms[number])

    def is_closed(self, minute: int) -> bool:
        return minute <= self._floor or minute in self._closed

    def add(self, units: Ints, times: Ints, values: Floats, now_s: float) -> int:
        """Take rows over, but for those of minutes that are closed; returns how many those are."""
        self._clock_ms[units], self._heard_s[units] = times, now_s
        minutes = times // MINUTE_MS
        late = 0
        for minute in np.unique(minutes).tolist():
            if self.is_closed(minute):
                stay = minutes != minute
                late += len(minutes) - int(stay.sum())
                units, times, values, minutes = units[stay], times[stay], values[stay], minutes[stay]
            else:
                self._touched[minute] = now_s
        if len(times):
            self._came.append((units, times, values))
        return late

    def _reached_ms(self, now_s: float) -> int | None:
        """Where the class is: a quarter of the units that were heard of lately are as far or further, so that
        neither a few clocks that go ahead decide it nor units that have just gone silent. None when none was
        heard of."""
        clocks = self._clock_ms[self._heard_s >= now_s - HEARD_S]
        if not len(clocks):
            return None
        place = (len(clocks) - 1) * 3 // 4
        return int(np.partition(clocks, place)[place])

    def closable(self, now_s: float) -> list[int]:
        """Minutes to be closed now, oldest first."""
        quiet = sorted(minute for minute, at_s in self._touched.items() if now_s - at_s >= HOLD_S)
        reached_ms = self._reached_ms(now_s) if quiet else None
        return [
            minute for minute in quiet if self._is_over(minute, now_s - self._touched[minute], reached_ms)
        ]

    @staticmethod
    def _is_over(minute: int, quiet_s: float, reached_ms: int | None) -> bool:
        """Nothing has come for the minute for `quiet_s`, at least HOLD_S."""
        if reached_ms is None:
            return quiet_s >= IDLE_S
        left_ms = (minute + 1) * MINUTE_MS - reached_ms
        return left_ms < -LATE_MS or (quiet_s >= IDLE_S and not 0 < left_ms <= AHEAD_MS)

    def open_minutes(self) -> list[int]:
        return sorted(self._touched)

    def take_in(self) -> None:
        """Make one table of the rows that came."""
        if self._came:
            units, times, values = zip(self._held, *self._came, strict=True)
            self._held = np.concatenate(units), np.concatenate(times), np.concatenate(values)
            self._came = []

    def cut(self, minutes: list[int], keep: bool = False) -> Cut:
        """The rows of some minutes, which are closed by it, unless `keep`."""
        self.take_in()
        units, times, values = self._held
        mine = np.isin(times // MINUTE_MS, np.array(minutes, dtype=np.int64))
        if not keep:
            self._held = (units[~mine], times[~mine], values[~mine])
            for minute in minutes:
                del self._touched[minute]
            self._closed.update(minutes)
            if len(self._closed) > MAX_CLOSED:
                oldest = sorted(self._closed)[: len(self._closed) - MAX_CLOSED]
                self._floor = max(self._floor, oldest[-1])
                self._closed.difference_update(oldest)
        return Cut(
            units[mine],
            times[mine],
            values[mine],
            {level: list(codes) for level, codes in self._places.items()},
            {level: np.array(places, dtype=np.int64) for level, places in self._place_of.items()},
            len(self.units),
        )

    def sum_up(self, cut: Cut, gateway: str, remember: bool = True) -> list[Point]:
        """The points of the rows' minutes. `remember` keeps the meters' last values for the minutes to
        come."""
        units, times, values = _once(cut.units, cut.times, cut.values)
        if not len(units):
            return []
        minutes = times // MINUTE_MS
        columns = [
            self._added(place, units, times, values[:, place], cut.known, remember)
            if is_cumulative(signal)
            else values[:, place]
            for place, signal in enumerate(self.signals)
        ]
        points: list[Point] = []
        for level in LEVELS:
            codes, places = cut.codes[level], cut.places[level][units]
            # The industries' rows say only how many units there are: a whole set would cost as much as
            # counties.
            wanted = 1 if level == "industry" else len(self.signals)
            keys, which = np.unique(minutes * len(codes) + places, return_inverse=True)
            for place in range(wanted):
                points += self._rows(
                    level,
                    codes,
                    keys,
                    which,
                    units,
                    cut.known,
                    columns[place],
                    self._outside(place, values),
                    place,
                    gateway,
                )
        return points

    def _outside(self, place: int, values: Floats) -> NDArray[np.bool_]:
        """Which of the rows hold a value outside the range of the signal."""
        signal, column = self.signals[place], values[:, place]
        return (column < signal.low) | (column > signal.high)

    def _rows(
        self,
        level: str,
        codes: list[str],
        keys: Ints,
        which: Ints,
        units: Ints,
        known: int,
        column: Floats,
        outside: NDArray[np.bool_],
        place: int,
        gateway: str,
    ) -> Iterator[Point]:
        there = ~np.isnan(column)
        column, which, units, outside = column[there], which[there], units[there], outside[there]
        if not len(column):
            return
        size = len(keys)
        counts = np.bincount(which, minlength=size)
        sums = np.bincount(which, weights=column, minlength=size)
        order = np.argsort(which, kind="stable")
        starts = np.flatnonzero(np.diff(which[order], prepend=-1))
        lows = dict(
            zip(
                which[order][starts].tolist(),
                np.minimum.reduceat(column[order], starts).tolist(),
                strict=True,
            )
        )
        highs = np.maximum.reduceat(column[order], starts).tolist()
        seen = np.unique(which * known + units) // known
        different = np.bincount(seen, minlength=size)
        outsiders = np.bincount(which[outside], minlength=size)
        signal = self.signals[place]
        bins = None
        if not is_cumulative(signal):
            with np.errstate(over="ignore"):
                scaled = (column - signal.low) / (signal.high - signal.low) * BINS
            steps = np.clip(scaled, 0, BINS - 1).astype(np.int64)
            bins = np.bincount(which * BINS + steps, minlength=size * BINS).reshape(size, BINS)
        for (row, low), high in zip(lows.items(), highs, strict=True):
            minute, code = divmod(int(keys[row]), len(codes))
            fields: dict[str, float | int] = {
                "units": int(different[row]),
                "n": int(counts[row]),
                "sum": round(float(sums[row]), 6),
                "min": low,
                "max": high,
                "out_of_range": int(outsiders[row]),
            }
            if bins is not None:
                fields.update(zip(BIN_FIELDS, bins[row].tolist(), strict=True))
            place_code = codes[code]
            city = city_of(place_code) if level in ("city", "county") else PROVINCE
            tags = (level, place_code, city, self.class_name, signal.name, gateway, FINE)
            yield Point("fleet", tags, minute * MINUTE_MS, fields)

    def _added(
        self, place: int, units: Ints, times: Ints, column: Floats, known_units: int, remember: bool
    ) -> Floats:
        """What a meter added since the unit's reading before; NaN where that is not known, or the meter began
        anew. Rows are ordered by unit and time."""
        then, register = self._registers.get(place, (_no_ints(), np.empty(0)))
        more = known_units - len(then)
        then = np.concatenate((then, np.full(more, -1, dtype=np.int64)))
        register = np.concatenate((register, np.full(more, np.nan)))
        added = np.full(len(column), np.nan)
        rows = np.flatnonzero(~np.isnan(column))
        if len(rows):
            unit, value = units[rows], column[rows]
            first = np.diff(unit, prepend=-1) != 0
            before = np.where(first, register[unit], np.roll(value, 1))
            known = ~first | ((then[unit] >= 0) & (then[unit] < times[rows]))
            with np.errstate(over="ignore"):
                step = value - before
            good = known & (step >= 0)
            added[rows[good]] = step[good]
            last = np.append(np.flatnonzero(first)[1:] - 1, len(rows) - 1)
            newer = times[rows[last]] > then[unit[last]]
            then[unit[last][newer]] = times[rows[last]][newer]
            register[unit[last][newer]] = value[last][newer]
        if remember:
            self._registers[place] = (then, register)
        return added

    def dump(self) -> bytes:
        """Everything that a new start needs: the open minutes' rows, which minutes are closed, the meters."""
        self.take_in()
        units, times, values = self._held
        arrays: dict[str, NDArray[np.generic]] = {
            "names": np.array(self.names),
            "known": np.array(list(self.units), dtype=np.bytes_),  # ids are ASCII
            "units": units,
            "times": times,
            "values": values,
            "closed": np.array(sorted(self._closed), dtype=np.int64),
            "heads": np.array([self._floor], dtype=np.int64),
            "last_ms": self.last_ms,
        }
        for level in LEVELS:
            arrays[f"codes_{level}"] = np.array(list(self._places[level]))
            arrays[f"places_{level}"] = np.array(self._place_of[level], dtype=np.int64)
        for place, (then, register) in self._registers.items():
            arrays[f"then_{place}"], arrays[f"register_{place}"] = then, register
        body = io.BytesIO()
        np.savez(body, **arrays)  # type: ignore[arg-type]  # the stub takes the flag allow_pickle for a name
        return body.getvalue()

    def load(self, body: bytes, now_s: float) -> None:
        """Go on where `dump` was; a dump of another catalogue is left alone."""
        with np.load(io.BytesIO(body), allow_pickle=False) as arrays:
            if tuple(arrays["names"].tolist()) != self.names:
                return
            self.units = {unit: number for number, unit in enumerate(arrays["known"].astype(str).tolist())}
            self._held = (arrays["units"], arrays["times"], arrays["values"])
            self._closed = set(arrays["closed"].tolist())
            self._floor = int(arrays["heads"][0])
            self.last_ms = arrays["last_ms"]
            self._clock_ms = np.full(len(self.last_ms), -1, dtype=np.int64)
            self._heard_s = np.full(len(self.last_ms), -np.inf)
            for level in LEVELS:
                codes = arrays[f"codes_{level}"].tolist()
                self._places[level] = {code: number for number, code in enumerate(codes)}
                self._place_of[level] = array("q", arrays[f"places_{level}"].tolist())
            for place in range(len(self.signals)):
                if f"then_{place}" in arrays:
                    self._registers[place] = (arrays[f"then_{place}"], arrays[f"register_{place}"])
            self._touched = dict.fromkeys((self._held[1] // MINUTE_MS).tolist(), now_s)


def _no_ints() -> Ints:
    return np.empty(0, dtype=np.int64)


def _once(units: Ints, times: Ints, values: Floats) -> tuple[Ints, Ints, Floats]:
    """Rows by unit and time, each pair once: as in the store, a later row's values replace an earlier one's,
    and what it does not hold stays."""
    order = np.lexsort((times, units))  # stable: what came later stands later
    units, times, values = units[order], times[order], values[order]
    again = np.zeros(len(units), dtype=np.bool_)
    again[1:] = (units[1:] == units[:-1]) & (times[1:] == times[:-1])
    for row in np.flatnonzero(again):  # few: rebirths, and what the broker delivered twice
        gaps = np.isnan(values[row])
        values[row][gaps] = values[row - 1][gaps]
    last = np.ones(len(units), dtype=np.bool_)
    last[:-1] = ~again[1:]
    return units[last], times[last], values[last]
