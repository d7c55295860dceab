"""InfluxQL queries of the roll-ups. Only queries for a single unit read the series of units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from qilu_contract.storage import HOURLY

LATELY = "Number of different units in the newest minute with data."
"""Description of `last("units")`, which is found at once; the maximum over all minutes would read all
rows."""
EACH_MINUTE = "1m"
"""The shortest step of a graph of minute roll-ups."""

PLACE = '"place" =~ /^${city:regex}$/'
"""Condition for the province or some cities: the value of "All" is the province's own code."""
EITHER_PLACE = ('"province" =~ /^${city:regex}$/', '"city" =~ /^${city:regex}$/')
"""The same condition for alarms, which have both codes: either holds."""
IN_CITY = f"({' OR '.join(EITHER_PLACE)})"
OF_CLASS = '"class" =~ /^${class:regex}$/'
OF_INDUSTRY = '"industry" =~ /^${industry:regex}$/'


class Source(NamedTuple):
    """Minute rows of one measurement, and its hourly rows."""

    measurement: str
    where: str
    """A condition on tags."""

    def minutes(self) -> str:
        """Source of a query for the newest value alone."""
        return f'FROM "{self.measurement}" WHERE {self.where} AND $timeFilter'

    def by_step(self, select: str, grouped: str = "") -> str:
        """Source of a query per interval, or of a sum over the time range: minute rows if the steps of the
        graph are shorter than an hour, otherwise hourly rows. The store compares the two durations
        before it looks for rows, so it reads only one of the two."""
        return ", ".join(
            f'({select} FROM "{self.measurement}{suffix}" WHERE $__interval {compared} 1h '
            f"AND {self.where} AND $timeFilter{grouped})"
            for suffix, compared in (("", "<"), (HOURLY, ">="))
        )


CITY_COUNTS = Source("programme", '"scope" = \'city\' AND "code" =~ /^${city:regex}$/')


def fleet(class_name: str, signal: str, place: str = PLACE) -> Source:
    """Rows of one signal of a class in the chosen places."""
    return Source("fleet", f"\"class\" = '{class_name}' AND \"signal\" = '{signal}' AND {place}")


def over_time(*tags: str) -> str:
    """Clause for one value per interval and value of `tags`."""
    return f" GROUP BY {', '.join(['time($__interval)', *map(quoted, tags)])} fill(none)"


def apart(*tags: str) -> str:
    """Clause for one value per value of `tags`."""
    return f" GROUP BY {', '.join(map(quoted, tags))}" if tags else ""


def quoted(name: str) -> str:
    return f'"{name}"'


def each_interval(columns: Mapping[str, str], source: Source, *by: str) -> str:
    """Query for named columns per interval, grouped by the tags `by`."""
    return _shown(columns, source, over_time(*by), *by)


def in_all(columns: Mapping[str, str], source: Source, *by: str) -> str:
    """Query for named columns over the time range, grouped by the tags `by`."""
    return _shown(columns, source, apart(*by), *by)


def _shown(columns: Mapping[str, str], source: Source, grouped: str, *by: str) -> str:
    select = "SELECT " + ", ".join(f'{each} AS "{name}"' for name, each in columns.items())
    names = ", ".join(map(quoted, columns))
    return f"SELECT {names} FROM {source.by_step(select, grouped)} WHERE $timeFilter{apart(*by)}"


_WRITERS = {
    "fleet": ("place", "class", "gateway"),
    "programme": ("scope", "code"),
    "pipeline": ("gateway",),
    "platform": ("host",),
    "security": ("kind", "city"),
}
"""Tags that distinguish the series of a measurement."""


def summed(field: str, name: str, source: Source, *by: str, fn: str = "last", outer: str = "sum") -> str:
    """Query for the sum over series of one value per series and interval, because series are not written
    at the same moment; grouped by the tags `by`."""
    grouped = dict.fromkeys((*by, *_WRITERS[source.measurement]))
    each = source.by_step(f'SELECT {fn}("{field}") AS "each"', over_time(*grouped))
    return f'SELECT {outer}("each") AS "{name}" FROM {each} WHERE $timeFilter{over_time(*by)}'


def newest(field: str, name: str, source: Source, *by: str, outer: str = "sum") -> str:
    """Query for the sum over series of their newest values, which are found at once for any time range;
    grouped by the tags `by`."""
    each = f'SELECT last("{field}") AS "each" {source.minutes()}{apart(*_WRITERS[source.measurement])}'
    return f'SELECT {outer}("each") AS "{name}" FROM ({each}) WHERE $timeFilter{apart(*by)}'


def daily_rate(counts: str, name: str) -> str:
    """Source of the daily rate, from one interval to the next, of the column "count" of the source `counts`.

    openGemini finds nothing where `derivative` or a difference has an aggregate as its argument, so the
    aggregate is in a subquery.
    """
    return f'(SELECT derivative("count", 1d) AS "{name}" FROM {counts} WHERE $timeFilter)'


def grown(counts: str, *by: str) -> str:
    """Source of "each": the increase, from one interval to the next, of the column "count" of the source
    `counts`, by tags; nothing where a counter was reset."""
    return f'(SELECT non_negative_difference("count") AS "each" FROM {counts} WHERE $timeFilter{apart(*by)})'


def increase(field: str, name: str, source: Source, *by: str, series: Sequence[str] = ()) -> str:
    """Query for the sum over series of the increase of counters per interval, grouped by the tags `by`.
    `series`: the tags that distinguish the counters, `by` unless given."""
    apart_by = series or by
    counts = source.by_step(f'SELECT last("{field}") AS "count"', over_time(*apart_by))
    each = grown(counts, *apart_by)
    return f'SELECT sum("each") AS "{name}" FROM {each} WHERE $timeFilter{over_time(*by)}'
