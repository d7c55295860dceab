"""Sums the rows of minutes into points of `fleet` for every place and key signal. Pure functions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from qilu_contract.catalogue.classes import Signal
from qilu_contract.catalogue.key_signals import BIN_FIELDS, BINS, MINUTE_MS, is_cumulative
from qilu_contract.catalogue.places import PROVINCE, city_of
from qilu_contract.columns import Floats, Ints, Rows
from qilu_contract.storage import Point

Indices = NDArray[np.intp]
Key = tuple[int, str]
"""Minute since 1970, and the code of a place."""


class Place(NamedTuple):
    """Location and industry of a unit; shared by thousands of units."""

    county: str
    industry: str
    enterprise: str = ""
    """For classes with an OEE, else empty."""


class Table(NamedTuple):
    """Rows of one class: unit number, time in ms (UTC), a column for each key signal (NaN: no value)."""

    units: Rows
    times: Ints
    values: Floats


@dataclass(frozen=True, slots=True)
class Sums:
    """Sums of one signal by group; a group is a minute in a place."""

    counts: Ints
    """For each group: distinct units, readings, readings out of range, and readings in each bin."""
    totals: Floats
    lows: Floats
    highs: Floats

    def merged(self, into: Indices, size: int) -> Sums:
        """The sums of larger groups; `into` gives the larger group of each group."""
        counts = np.zeros((size, self.counts.shape[1]), dtype=np.int64)
        np.add.at(counts, into, self.counts)
        lows, highs = np.full(size, np.nan), np.full(size, np.nan)
        np.fmin.at(lows, into, self.lows)
        np.fmax.at(highs, into, self.highs)
        return Sums(counts, added(into, self.totals, size), lows, highs)


class Grouping(NamedTuple):
    """Rows grouped by minute and by place of one level."""

    keys: list[Key]
    which: Indices
    """The group of each row."""
    order: Indices
    starts: Indices
    """The rows in the order of their groups, and where each group begins in it."""


def joined(tables: Sequence[Table]) -> Table:
    units, times, values = zip(*tables, strict=True)
    return Table(np.concatenate(units), np.concatenate(times), np.concatenate(values))


def once(table: Table) -> Table:
    """Rows by unit and time, without duplicates: as in the store, a later row's values replace those of an
    earlier one, and values it lacks remain."""
    order = np.lexsort((table.times, table.units))  # stable: later arrivals come later
    units, times = table.units[order], table.times[order]
    values: Floats = np.empty(table.values.shape, order="F")  # from here on, read one column at a time
    for place, column in enumerate(table.values.T):
        values[:, place] = column[order]
    again = np.zeros(len(units), dtype=np.bool_)
    again[1:] = (units[1:] == units[:-1]) & (times[1:] == times[:-1])
    if not again.any():
        return Table(units, times, values)
    here = np.arange(len(units))
    first = np.maximum.accumulate(np.where(again, 0, here))
    last = np.append(~again[1:], True)
    for column in values.T:
        filled = np.maximum.accumulate(np.where(np.isnan(column), -1, here))
        known = filled >= first
        column[known] = column[filled[known]]
    return Table(units[last], times[last], values[last])


def summed(
    class_name: str,
    signals: Sequence[Signal],
    table: Table,
    columns: Sequence[Floats],
    places: tuple[Sequence[Place], Rows],
    gateway: str,
) -> Iterator[Point]:
    """The points of a table that `once` has made. `columns`: values to be summed for each signal, which are
    its readings or the increments of a meter. `places`: all places, and the place of each row's unit."""
    minutes = table.times // MINUTE_MS
    # Rows of a unit and minute are adjacent: the first with a value counts the unit.
    begins = np.append(True, (np.diff(table.units) != 0) | (np.diff(minutes) != 0))
    distinct = np.unique(minutes)
    slots = np.searchsorted(distinct, minutes)
    counties = grouped("county", distinct, slots, *places)
    industries = grouped("industry", distinct, slots, *places)
    cities, city_of_county = above("city", counties.keys)
    provinces, province_of_city = above("province", cities)
    for signal, column, values in zip(signals, columns, table.values.T, strict=True):
        by_county = _sums(signal, counties, begins, column, values)
        by_city = by_county.merged(city_of_county, len(cities))
        by_province = by_city.merged(province_of_city, len(provinces))
        levels = [
            ("county", counties.keys, by_county),
            ("city", cities, by_city),
            ("province", provinces, by_province),
        ]
        if signal is signals[0]:
            # Rows by industry hold only the number of units: a full set would cost as much as the counties.
            levels.append(("industry", industries.keys, _sums(signal, industries, begins, column, values)))
        for level, keys, sums in levels:
            for (minute, code), fields in zip(keys, _fields(signal, sums), strict=True):
                if fields["n"]:
                    city = city_of(code) if level in ("city", "county") else PROVINCE
                    tags = (level, code, city, class_name, signal.name, gateway)
                    yield Point("fleet", tags, minute * MINUTE_MS, fields)


def grouped(level: str, minutes: Ints, slots: Indices, places: Sequence[Place], of_rows: Rows) -> Grouping:
    """Group rows by their minutes, which are `minutes[slots]`, and places."""
    codes: dict[str, int] = {}
    code_of = np.zeros(len(places), dtype=np.int64)
    for number in np.flatnonzero(np.bincount(of_rows)).tolist():
        code_of[number] = codes.setdefault(getattr(places[number], level), len(codes))
    names, cells = list(codes), slots * len(codes) + code_of[of_rows]
    used = np.bincount(cells) > 0
    which = (np.cumsum(used) - 1)[cells]
    found = [
        (int(minutes[cell // len(codes)]), names[cell % len(codes)]) for cell in np.flatnonzero(used).tolist()
    ]
    # numpy's stable sort of small numbers is a radix sort.
    order = np.argsort(which.astype(np.uint16) if len(found) <= 1 << 16 else which, kind="stable")
    starts = np.flatnonzero(np.diff(which[order], prepend=-1))
    return Grouping(found, which, order, starts)


def above(level: str, below: Sequence[Key]) -> tuple[list[Key], Indices]:
    """The groups of the next level up, and for each group of the level below the group that contains it."""
    numbers: dict[Key, int] = {}
    which = [
        numbers.setdefault((minute, city_of(code) if level == "city" else PROVINCE), len(numbers))
        for minute, code in below
    ]
    return list(numbers), np.array(which, dtype=np.intp)


def _sums(
    signal: Signal,
    grouping: Grouping,
    begins: NDArray[np.bool_],
    column: Floats,
    values: Floats,
) -> Sums:
    """`begins`: mask of the rows at which unit or minute changes. `values`: those to which the signal's range
    applies."""
    size, which, found = len(grouping.keys), grouping.which, column
    outside = values < signal.low
    outside |= values > signal.high
    there = ~np.isnan(column)
    if not there.all():
        which, found, outside = which[there], found[there], outside[there]
        begins = np.diff(np.cumsum(begins)[there], prepend=0) != 0
    counts = [
        np.bincount(which[begins], minlength=size),
        np.bincount(which, minlength=size),
        np.bincount(which[outside], minlength=size),
    ]
    if not is_cumulative(signal):
        with np.errstate(over="ignore"):
            scaled = found - signal.low  # in place from here on: new memory costs more than arithmetic
            scaled /= signal.high - signal.low
            scaled *= BINS
        np.clip(scaled, 0, BINS - 1, out=scaled)
        steps = scaled.astype(np.int64)
        steps += which * BINS
        bins = np.bincount(steps, minlength=size * BINS).reshape(size, BINS)
        counts += list(bins.T)
    ordered = column[grouping.order]
    return Sums(
        np.column_stack(counts),
        added(which, found, size),
        np.fmin.reduceat(ordered, grouping.starts),
        np.fmax.reduceat(ordered, grouping.starts),
    )


def _fields(signal: Signal, sums: Sums) -> Iterator[dict[str, float | int]]:
    bins = () if is_cumulative(signal) else BIN_FIELDS
    for (units, n, outside, *steps), total, low, high in zip(
        sums.counts.tolist(), sums.totals.tolist(), sums.lows.tolist(), sums.highs.tolist(), strict=True
    ):
        yield {
            "units": units,
            "n": n,
            "sum": round(total, 6),
            "min": low,
            "max": high,
            "out_of_range": outside,
            **dict(zip(bins, steps, strict=True)),
        }


def added(into: Indices, values: Floats, size: int) -> Floats:
    return np.bincount(into, weights=values, minlength=size).astype(np.float64, copy=False)
