"""The working calendar: local days, public holidays and make-up workdays of 2017-2035, and the heating
season.

The table `data/holidays.csv` says where each row comes from. Outside its years a day is what its weekday
says.
"""

from __future__ import annotations

from datetime import date
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from qilu_contract.catalogue.tables import read_table

from qilu_devices.kernel import Times

DAY_MS = 86_400_000
SHANGHAI_MS = 8 * 3_600_000  # Asia/Shanghai has had no daylight saving since 1991
_EPOCH = date(1970, 1, 1)
_FIRST, _LAST = date(2016, 12, 1), date(2036, 1, 31)

WORKDAY, SATURDAY, SUNDAY, HOLIDAY = 0, 1, 2, 3

Days = NDArray[np.int64]
"""Local days since 1 January 1970."""


class _Table(NamedTuple):
    first: int  # day of the first element
    kind: NDArray[np.int8]
    from_new_year: NDArray[np.int16]  # days since the nearest lunar New Year's Day


def day_of(t_ms: Times) -> Days:
    """The local day of UTC milliseconds."""
    return np.asarray((t_ms + SHANGHAI_MS) // DAY_MS)


@cache
def _table() -> _Table:
    first = (_FIRST - _EPOCH).days
    days = np.arange(first, (_LAST - _EPOCH).days + 1)
    weekday = (days + 3) % 7  # 1 January 1970 was a Thursday
    kind = np.select([weekday == 5, weekday == 6], [SATURDAY, SUNDAY], WORKDAY).astype(np.int8)
    from_new_year = np.full(len(days), 999, dtype=np.int16)
    for row in read_table("holidays.csv", "qilu_devices"):
        begin, end = ((date.fromisoformat(row[name]) - _EPOCH).days - first for name in ("first", "last"))
        if row["day"] == "lunar_new_year":
            distance = np.arange(len(days)) - begin
            from_new_year = np.where(np.abs(distance) < np.abs(from_new_year), distance, from_new_year)
        else:
            kind[begin : end + 1] = WORKDAY if row["day"] == "workday" else HOLIDAY
    return _Table(first, kind, from_new_year.astype(np.int16))


def _inside(day: Days) -> tuple[_Table, NDArray[np.int64], NDArray[np.bool_]]:
    table = _table()
    place = day - table.first
    inside = (place >= 0) & (place < len(table.kind))
    return table, np.where(inside, place, 0), inside


def kind_of(day: Days) -> NDArray[np.int8]:
    """WORKDAY, SATURDAY, SUNDAY or HOLIDAY."""
    table, place, inside = _inside(day)
    weekday = (day + 3) % 7
    plain = np.select([weekday == 5, weekday == 6], [SATURDAY, SUNDAY], WORKDAY)
    return np.where(inside, table.kind[place], plain).astype(np.int8)


def from_new_year(day: Days) -> NDArray[np.int16]:
    """Days since the nearest lunar New Year's Day; 999 where the table has none."""
    table, place, inside = _inside(day)
    return np.where(inside, table.from_new_year[place], 999).astype(np.int16)


def is_heating_season(day: Days) -> NDArray[np.bool_]:
    """15 November to 15 March, when Shandong's district heating runs by rule (N); within a day."""
    of_year = day % 365.25
    return np.asarray((of_year >= 318.0) | (of_year < 74.0))
