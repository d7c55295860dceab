"""The questions that dashboards ask of the roll-ups, as InfluxQL. None reads the series of units but those
that name one unit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from qilu_contract.storage import HOURLY

LATELY = "Different units in the newest minute that something came in."
"""What `last("units")` says: found at once, whereas the most of all minutes would read all of them."""
EACH_MINUTE = "1m"
"""The shortest step of a graph over roll-ups by the minute."""

PLACE = '"place" =~ /^${city:regex}$/'
"""One condition for the province or some cities: the variable's "All" is the province's own code."""
IN_CITY = '("province" =~ /^${city:regex}$/ OR "city" =~ /^${city:regex}$/)'
"""The same for alarms, which hold both codes."""
OF_CLASS = '"class" =~ /^${class:regex}$/'
OF_INDUSTRY = '"industry" =~ /^${industry:regex}$/'


class Source(NamedTuple):
    """Rows by the minute of one measurement, and those by the hour beside them."""

    measurement: str
    where: str
    """A condition on tags."""

    def minutes(self) -> str:
        """For what asks for the newest alone."""
        return f'FROM "{self.measurement}" WHERE {self.where} AND $timeFilter'

    def by_step(self, select: str, grouped: str = "") -> str:
        """For what is asked once an interval, or added up over the time shown: rows by the minute where the
        graph's steps are shorter than an hour, else by the hour. The store compares the two durations before
        it looks for rows, so only one of the two is read."""
        return ", ".join(
            f'({select} FROM "{self.measurement}{suffix}" WHERE $__interval {compared} 1h '
            f"AND {self.where} AND $timeFilter{grouped})"
            for suffix, compared in (("", "<"), (HOURLY, ">="))
        )


CITY_COUNTS = Source("programme", '"scope" = \'city\' AND "code" =~ /^${city:regex}$/')


def fleet(class_name: str, signal: str, place: str = PLACE) -> Source:
    """The rows of one signal of a class in the chosen places."""
    return Source("fleet", f"\"class\" = '{class_name}' AND \"signal\" = '{signal}' AND {place}")


def over_time(*tags: str) -> str:
    """One value an interval, for each value of `tags`."""
    return f" GROUP BY {', '.join(['time($__interval)', *map(quoted, tags)])} fill(none)"


def apart(*tags: str) -> str:
    """One value for each value of `tags`."""
    return f" GROUP BY {', '.join(map(quoted, tags))}" if tags else ""


def quoted(name: str) -> str:
    return f'"{name}"'


def each_interval(columns: Mapping[str, str], source: Source, *by: str) -> str:
    """Columns, by their names, once an interval; `by` are tags that stay apart."""
    return _shown(columns, source, over_time(*by), *by)


def in_all(columns: Mapping[str, str], source: Source, *by: str) -> str:
    """Columns, by their names, once for the time shown; `by` are tags that stay apart."""
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
}
"""Tags whose values are different writers' or different things'."""


def summed(field: str, name: str, source: Source, *by: str, fn: str = "last", outer: str = "sum") -> str:
    """One value of each series an interval, added up: series do not write at the same moment. `by` are tags
    that stay apart."""
    grouped = dict.fromkeys((*by, *_WRITERS[source.measurement]))
    each = source.by_step(f'SELECT {fn}("{field}") AS "each"', over_time(*grouped))
    return f'SELECT {outer}("each") AS "{name}" FROM {each} WHERE $timeFilter{over_time(*by)}'


def newest(field: str, name: str, source: Source, *by: str, outer: str = "sum") -> str:
    """One value of each series, the newest, added up: found at once, however long the time. `by` are tags
    that stay apart."""
    each = f'SELECT last("{field}") AS "each" {source.minutes()}{apart(*_WRITERS[source.measurement])}'
    return f'SELECT {outer}("each") AS "{name}" FROM ({each}) WHERE $timeFilter{apart(*by)}'


def increase(field: str, name: str, source: Source, *by: str) -> str:
    """How much counters grew in each interval; a counter that began anew adds what it has counted since."""
    each = source.by_step(f'SELECT non_negative_difference(last("{field}")) AS "each"', over_time(*by))
    return f'SELECT sum("each") AS "{name}" FROM {each} WHERE $timeFilter{over_time(*by)}'
