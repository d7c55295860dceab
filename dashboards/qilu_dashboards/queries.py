"""The questions that dashboards ask of the roll-ups, as InfluxQL. None reads the series of units but those
that name one unit."""

from __future__ import annotations

from qilu_contract.storage import FINE, RESOLUTION

LATELY = "Different units in the newest minute that something came in."
"""What `last("units")` says: found at once, whereas the most of all minutes would read all of them."""
EACH_MINUTE = "1m"
"""The shortest step of a graph over roll-ups by the minute."""

BY_STEP = f'"{RESOLUTION}" =~ /[$__interval]/'
"""Rows by the hour for steps of an hour and longer, by the minute for others: `qilu_contract.storage` says
how. For what is asked once each interval, or added up over the time shown."""
BY_MINUTE = f"\"{RESOLUTION}\" = '{FINE}'"
"""For the newest alone."""

CITY_COUNTS = (
    'FROM "programme" WHERE "scope" = \'city\' AND "code" =~ /^${city:regex}$/ '
    f"AND {BY_STEP} AND $timeFilter"
)

PLACE = '"place" =~ /^${city:regex}$/'
"""One condition for the province or some cities: the variable's "All" is the province's own code."""
IN_CITY = '("province" =~ /^${city:regex}$/ OR "city" =~ /^${city:regex}$/)'
"""The same for alarms, which hold both codes."""
OF_CLASS = '"class" =~ /^${class:regex}$/'
OF_INDUSTRY = '"industry" =~ /^${industry:regex}$/'


def over_time(*tags: str) -> str:
    """One value an interval, for each value of `tags`."""
    return f"GROUP BY {', '.join(['time($__interval)', *(quoted(tag) for tag in tags)])} fill(none)"


def quoted(name: str) -> str:
    return f'"{name}"'


def fleet(class_name: str, signal: str, place: str = PLACE) -> str:
    """The rows of one signal of a class in the chosen places."""
    chosen = f"\"class\" = '{class_name}' AND \"signal\" = '{signal}' AND {place}"
    return f'FROM "fleet" WHERE {chosen} AND {BY_STEP} AND $timeFilter'


_SERIES = {
    "fleet": ("place", "class", "gateway"),
    "programme": ("scope", "code"),
    "pipeline": ("gateway",),
    "platform": ("host",),
}
"""Tags whose values are different writers' or different things'."""


def summed(field: str, name: str, source: str, *by: str, fn: str = "last", outer: str = "sum") -> str:
    """One value of each series an interval, added up: series do not write at the same moment. `by` are tags
    that stay apart; `source` begins with FROM and holds a condition."""
    inner = next(tags for begin, tags in _SERIES.items() if source.startswith(f'FROM "{begin}"'))
    grouped = dict.fromkeys((*by, *inner))
    one = f'SELECT {fn}("{field}") AS "each" {source} {over_time(*grouped)}'
    return f'SELECT {outer}("each") AS "{name}" FROM ({one}) WHERE $timeFilter {over_time(*by)}'


def newest(field: str, name: str, source: str, *by: str, outer: str = "sum") -> str:
    """One value of each series, the newest, added up: found at once, however long the time. `by` are tags
    that stay apart; `source` begins with FROM and asks for rows by the minute."""
    inner = next(tags for begin, tags in _SERIES.items() if source.startswith(f'FROM "{begin}"'))
    one = f'SELECT last("{field}") AS "each" {source} GROUP BY {", ".join(map(quoted, inner))}'
    apart = f" GROUP BY {', '.join(map(quoted, by))}" if by else ""
    return f'SELECT {outer}("each") AS "{name}" FROM ({one}) WHERE $timeFilter{apart}'


def increase(field: str, name: str, source: str, *by: str) -> str:
    """How much counters grew in each interval; a counter that began anew adds what it has counted since."""
    one = f'SELECT non_negative_difference(last("{field}")) AS "each" {source} {over_time(*by)}'
    return f'SELECT sum("each") AS "{name}" FROM ({one}) WHERE $timeFilter {over_time(*by)}'
