"""The programme's counts, made from events alone, and their comparison with the targets.

The rules are those of the platform's ledger: an enterprise is on cloud from its first contract with a
registered provider; its equipment counts once; a repeated event counts once; counts of "ever" never decrease.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from qilu_contract.catalogue.targets import CORE_TARGETS

from qilu_programme.draws import Whole
from qilu_programme.events import ACTIONS, EQUIPMENT, TIERS, MonthEvents, NoticeKind
from qilu_programme.figures import CLASSES, GROUPS
from qilu_programme.months import LABELS, MONTHS
from qilu_programme.world import CITY_CODES, World

STARS = (3, 4, 5)
"""Jiangsu's levels of enterprises on cloud."""
DEEP_MONTHS = 12
_NOTICE_COUNTS = {
    NoticeKind.PROVIDER: "providers",
    NoticeKind.CENTRE: "centres",
    NoticeKind.LEADING: "platforms_leading",
    NoticeKind.SUPPLIER: "suppliers",
    NoticeKind.APPLICATION: "applications",
    NoticeKind.PILOT: "pilots",
    NoticeKind.BASE: "bases",
    NoticeKind.CLUSTER: "clusters",
}


class Counter:
    """Adds up events, month by month."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._on_cloud = np.zeros(world.enterprises, dtype=np.bool_)
        self._ended = np.zeros(world.enterprises, dtype=np.bool_)
        self._equipped = np.zeros(world.enterprises, dtype=np.bool_)
        self._seen: dict[str, set[str]] = {name: set() for name in _NOTICE_COUNTS.values()}
        self._tier: dict[str, int] = {}
        self.enterprises_by_city = np.zeros(len(CITY_CODES), dtype=np.int64)
        self.units_by_city = np.zeros(len(CITY_CODES), dtype=np.int64)
        self.enterprises_by_group = np.zeros(len(GROUPS), dtype=np.int64)
        self.units_by_group = np.zeros(len(GROUPS), dtype=np.int64)
        self.contracts_by_kind = np.zeros(len(ACTIONS), dtype=np.int64)
        self.enterprises = self.units = self.current = 0
        self._kinds = np.zeros(world.enterprises, dtype=np.uint8)
        """A bit for each kind of action that the enterprise has begun."""
        self._complete_since = np.full(world.enterprises, MONTHS, dtype=np.int16)
        """The month in which it had begun all kinds."""
        self.awards = 0
        self.money = np.zeros((3, 3), dtype=np.int64)
        """Vouchers in CNY. Rows: granted, redeemed, clawed back; columns: levels."""

    def add(self, events: MonthEvents) -> None:
        world = self._world
        contracts = events.contracts
        known = contracts.provider < len(self._seen["providers"]) + sum(
            notice.kind is NoticeKind.PROVIDER for notice in events.notices
        )
        enterprises = np.unique(contracts.enterprise[known])
        new = enterprises[~self._on_cloud[enterprises]]
        self._on_cloud[new] = True
        np.bitwise_or.at(
            self._kinds, contracts.enterprise[known], 1 << contracts.kind[known].astype(np.uint8)
        )
        complete = enterprises[self._kinds[enterprises] == (1 << len(ACTIONS)) - 1]
        self._complete_since[complete] = np.minimum(self._complete_since[complete], events.month)
        cells = world.cells_of(new)
        self.enterprises_by_city += np.bincount(world.city[cells], minlength=len(CITY_CODES))
        self.enterprises_by_group += np.bincount(world.group[cells], minlength=len(GROUPS))
        self.contracts_by_kind += np.bincount(contracts.kind[known], minlength=len(ACTIONS))
        self.enterprises += len(new)
        self.current += len(new)
        ended = np.unique(events.ended)
        ended = ended[self._on_cloud[ended] & ~self._ended[ended]]
        self._ended[ended] = True
        self.current -= len(ended)
        self._add_equipment(events.equipment.enterprise, events.equipment.units)
        self.money += np.array([events.money.granted, events.money.redeemed, events.money.clawed_back])
        for notice in events.notices:
            if notice.kind is NoticeKind.PLATFORM:
                tier = TIERS.index(notice.detail)
                self._tier[notice.id] = max(tier, self._tier.get(notice.id, 0))
            elif notice.kind is NoticeKind.AWARD:
                self.awards += notice.amount
            else:
                self._seen[_NOTICE_COUNTS[notice.kind]].add(notice.id)

    def _add_equipment(self, enterprises: Whole, units: Whole) -> None:
        # Equipment counts only if its enterprise is on cloud, and every fleet counts once.
        enterprises, first = np.unique(enterprises, return_index=True)
        good = self._on_cloud[enterprises] & ~self._equipped[enterprises]
        enterprises, units = enterprises[good], units[first[good]]
        self._equipped[enterprises] = True
        cells = self._world.cells_of(enterprises)
        np.add.at(self.units_by_city, self._world.city[cells], units)
        np.add.at(self.units_by_group, self._world.group[cells], units)
        self.units += int(units.sum())

    def stars(self) -> Whole:
        """Enterprises on cloud now by depth, in Jiangsu's stars: three for services and applications on
        cloud, four with equipment on cloud (S), five for those that have had all four kinds for a year.
        Jiangsu gives five for new applications of data and models, to enterprises that have four stars; a
        year with all kinds stands for that (A)."""
        mine = self._on_cloud & ~self._ended
        equipped = (self._kinds[mine] & (1 << EQUIPMENT) != 0).astype(np.int64)
        deep = self._complete_since[mine] + DEEP_MONTHS < MONTHS
        return np.bincount(equipped + deep, minlength=len(STARS))

    def values(self) -> dict[str, int]:
        """The current count of every core target."""
        tiers = list(self._tier.values())
        return {
            "enterprises_on_cloud": self.enterprises,
            "units_on_cloud": self.units,
            **{name: len(seen) for name, seen in self._seen.items()},
            **{f"platforms_{tier}": tiers.count(index) for index, tier in enumerate(TIERS)},
        }


@dataclass(frozen=True)
class Table:
    """The monthly table of a run. Arrays have one row per month; columns are cities, groups or levels."""

    values: Mapping[str, Whole]
    current: Whole
    enterprises_by_city: Whole
    units_by_city: Whole
    enterprises_by_group: Whole
    units_by_group: Whole
    contracts_by_kind: Whole
    granted: Whole
    redeemed: Whole
    clawed_back: Whole
    awards: Whole
    units_by_class: Whole = field(default_factory=lambda: np.zeros(len(CLASSES), dtype=np.int64))
    """Units on cloud at the end, by equipment class; zeros if the run did not count them."""
    stars: Whole = field(default_factory=lambda: np.zeros(len(STARS), dtype=np.int64))
    """Enterprises on cloud at the end, by Jiangsu's stars of depth: three, four, five."""

    @property
    def vouchers_cny(self) -> int:
        """Voucher money that stayed with enterprises, at the end."""
        return int((self.redeemed - self.clawed_back)[-1].sum())

    @property
    def funds_cny(self) -> int:
        """Public funds until the end: vouchers and awards."""
        return self.vouchers_cny + int(self.awards[-1])

    def reached_in(self, name: str) -> str | None:
        """The first month in which the target is reached, or None."""
        target = CORE_TARGETS[name]
        for month, value in enumerate(self.values[name]):
            if target.reached(int(value)):
                return LABELS[month]
        return None


def tabulate(world: World, stream: Iterable[MonthEvents]) -> Table:
    """Count a stream of events month by month. Raises ValueError if the stream is incomplete."""
    counter = Counter(world)
    rows: dict[str, list[int]] = {name: [] for name in CORE_TARGETS}
    series: dict[str, list[Whole]] = {}
    for events in stream:
        counter.add(events)
        for name, value in counter.values().items():
            rows[name].append(value)
        for name in (
            "enterprises_by_city",
            "units_by_city",
            "enterprises_by_group",
            "units_by_group",
            "contracts_by_kind",
        ):
            series.setdefault(name, []).append(getattr(counter, name).copy())
        for name, index in (("granted", 0), ("redeemed", 1), ("clawed_back", 2)):
            series.setdefault(name, []).append(counter.money[index].copy())
        series.setdefault("current", []).append(np.array(counter.current))
        series.setdefault("awards", []).append(np.array(counter.awards))
    if len(series["current"]) != MONTHS:
        raise ValueError(f"a run has {MONTHS} months, this stream has {len(series['current'])}")
    return Table(
        values={name: np.array(row) for name, row in rows.items()},
        stars=counter.stars(),
        **{name: np.array(row) for name, row in series.items()},
    )
