"""Sums of working time, stops and output by place and minute: points of `effectiveness`, for the classes with
an OEE."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from qilu_common.effectiveness import UnitAccounts
from qilu_contract.catalogue.effectiveness import STOP_FIELDS, SUM_FIELDS, Effectiveness
from qilu_contract.catalogue.key_signals import MINUTE_MS
from qilu_contract.catalogue.places import PROVINCE, city_of
from qilu_contract.columns import Floats, Rows
from qilu_contract.storage import Point

from qilu_gateway.rollups.sums import Indices, Key, Place, Table, above, added, grouped


class EffectivenessRollup:
    """The accounts of one class's units, summed. `points` may run in a thread, one call at a time."""

    def __init__(self, rule: Effectiveness) -> None:
        self._rule = rule
        self._accounts = UnitAccounts(rule)

    def points(
        self, table: Table, places: tuple[Sequence[Place], Rows], gateway: str, remember: bool
    ) -> Iterator[Point]:
        """The points of a table that `once` has made, with a column for each signal of the rule. `places`:
        all places, and the place of each row's unit. `remember` keeps what later minutes need."""
        found = self._accounts.add(table.units, table.times, table.values, remember)
        there = (found.planned_s > 0) | (found.ideal_s > 0) | found.stop_s.any(axis=1)
        units, minutes = table.units[there], table.times[there] // MINUTE_MS
        columns = (found.planned_s, found.run_s, found.ideal_s, found.good_s, *found.stop_s.T)
        # Rows of a unit and minute are adjacent: the first counts the unit.
        spells = (np.diff(units, prepend=-1) != 0) | (np.diff(minutes, prepend=-1) != 0)
        values = np.column_stack((spells, *(column[there] for column in columns)))
        of_rows = places[1][there]
        distinct = np.unique(minutes)
        slots = np.searchsorted(distinct, minutes)
        counties = grouped("county", distinct, slots, places[0], of_rows)
        cities, city_of_county = above("city", counties.keys)
        provinces, province_of_city = above("province", cities)
        enterprises = grouped("enterprise", distinct, slots, places[0], of_rows)
        city_of_enterprise = {place.enterprise: city_of(place.county) for place in places[0]}
        by_county = _added(counties.which, values, len(counties.keys))
        by_city = _added(city_of_county, by_county, len(cities))
        levels: list[tuple[str, Sequence[Key], Floats]] = [
            ("county", counties.keys, by_county),
            ("city", cities, by_city),
            ("province", provinces, _added(province_of_city, by_city, len(provinces))),
            ("enterprise", enterprises.keys, _added(enterprises.which, values, len(enterprises.keys))),
        ]
        names = (*SUM_FIELDS, *STOP_FIELDS[: len(self._rule.stops)])
        for level, keys, sums in levels:
            for (minute, code), (count, *seconds) in zip(keys, sums.tolist(), strict=True):
                if level == "enterprise":
                    city = city_of_enterprise[code]
                else:
                    city = PROVINCE if level == "province" else city_of(code)
                tags = (level, code, city, self._rule.class_name, gateway)
                fields = dict(zip(names, (round(each, 3) for each in seconds), strict=True))
                yield Point("effectiveness", tags, minute * MINUTE_MS, {"units": int(count), **fields})

    def dump(self, size: int) -> Floats:
        """The state of units with numbers below `size`, for the next start."""
        self._accounts.make_room(size)
        return self._accounts.state[:size]

    def load(self, state: Floats) -> None:
        """Restore the state of `dump`."""
        self._accounts = UnitAccounts(self._rule, state)


def _added(into: Indices, values: Floats, size: int) -> Floats:
    return np.column_stack([added(into, column, size) for column in values.T])
