"""A replay of the programme: the registrations and readings of each month, and the expected counts after it.
All of it is a pure function of scenario and scale: an interrupted replay is computed again, and continues
with the same ids, times and values.

A scale below 1 takes that share of the enterprises, with their contracts and fleets; providers, centres,
platforms, their applications, and voucher amounts are not scaled. A month's equipment publishes within the
first minute of the month, in the order of registration, so that store and roll-ups handle a short period
only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from qilu_contract.catalogue.places import BRANCHES as KNOWN_BRANCHES
from qilu_contract.catalogue.places import CITIES, COUNTIES
from qilu_programme.counts import Counter
from qilu_programme.draws import Mask, Whole
from qilu_programme.events import ACTIONS, Contracts, Equipment, MonthEvents, Notice, NoticeKind
from qilu_programme.figures import BRANCHES, CLASSES
from qilu_programme.model import Model
from qilu_programme.months import LABELS
from qilu_programme.scenario import LEVELS, Scenario
from qilu_programme.world import COUNTY_CODES

from qilu.month_fleet import Fleet, month_start_ms
from qilu.replay_counts import MONEY, Counts, expected

Line = dict[str, Any]

_RECOGNISED = {
    NoticeKind.LEADING: "leading",
    NoticeKind.SUPPLIER: "supplier",
    NoticeKind.APPLICATION: "application",
    NoticeKind.PILOT: "pilot",
    NoticeKind.BASE: "base",
    NoticeKind.CLUSTER: "cluster",
}
_TIERS = {"enterprise": "enterprise_level"}
"""The platform's names of tiers, where they differ from the model's."""


@dataclass(frozen=True)
class Month:
    """The content of a month, to be registered in this order, and the expected counts afterwards."""

    month: int
    providers: list[Line]
    centres: list[Line]
    enterprises: list[Line]
    contracts: list[Line]
    recognitions: list[Line]
    ended: list[str]
    """Contracts."""
    disbursements: list[Line]
    fleet: Fleet
    expected: Counts

    @property
    def label(self) -> str:
        return LABELS[self.month]

    @property
    def start_ms(self) -> int:
        return month_start_ms(self.month)

    @property
    def end_ms(self) -> int:
        return month_start_ms(self.month + 1)


@dataclass
class _Standing:
    """Totals of the earlier months."""

    known: Mask
    begun: Mask  # enterprise × kind
    numbers: Whole  # county × class: units so far
    registered: int = 0
    units_by_class: Whole = field(default_factory=lambda: np.zeros(len(CLASSES), dtype=np.int64))


class Replay:
    """A replay. The constructor computes the whole run (seconds); `months` may be iterated repeatedly."""

    def __init__(self, scenario: Scenario, scale: float) -> None:
        self.scenario, self.scale = scenario, scale
        self._model = Model(scenario)
        self._world = self._model.world
        everybody = np.arange(self._world.enterprises)
        self._chosen: Mask = self._model.draws.uniform("replay", everybody) < scale
        chosen = self._model.market.enterprise[self._chosen[self._model.market.enterprise]]
        pilots = None if scale >= 1 else set(self._world.identify_all(chosen))
        self._events = [self._part(events, pilots) for events in self._model.events()]
        self.units = sum(int(events.equipment.units.sum()) for events in self._events)
        self.enterprises = len(
            np.unique(np.concatenate([events.contracts.enterprise for events in self._events]))
        )

    def _part(self, events: MonthEvents, pilots: set[str] | None) -> MonthEvents:
        """The events of the chosen enterprises (`pilots` are their ids, None for all), and those without an
        enterprise."""
        contracts, equipment = events.contracts, events.equipment
        mine, theirs = self._chosen[contracts.enterprise], self._chosen[equipment.enterprise]
        return replace(
            events,
            contracts=Contracts(contracts.enterprise[mine], contracts.kind[mine], contracts.provider[mine]),
            equipment=Equipment(equipment.enterprise[theirs], equipment.units[theirs]),
            paid=events.paid[self._chosen[events.paid]],
            ended=events.ended[self._chosen[events.ended]],
            notices=tuple(
                notice
                for notice in events.notices
                if pilots is None or notice.kind is not NoticeKind.PILOT or notice.id in pilots
            ),
        )

    def months(self, first: int = 0) -> Iterator[Month]:
        """The months from `first` on, in order."""
        world = self._world
        counter = Counter(world)
        standing = _Standing(
            known=np.zeros(world.enterprises, dtype=np.bool_),
            begun=np.zeros((world.enterprises, len(ACTIONS)), dtype=np.bool_),
            numbers=np.zeros((len(COUNTY_CODES), len(CLASSES)), dtype=np.int64),
        )
        for events in self._events:
            counter.add(events)
            month = self._month(events, counter, standing, wanted=events.month >= first)
            if month is not None:
                yield month

    def _month(
        self, events: MonthEvents, counter: Counter, standing: _Standing, *, wanted: bool
    ) -> Month | None:
        contracts = events.contracts
        asked = np.unique(contracts.enterprise)
        new = asked[~standing.known[asked]]
        standing.known[new] = True
        standing.registered += len(new)
        standing.begun[contracts.enterprise, contracts.kind] = True
        fleet = self._fleet(events, standing, wanted=wanted)
        if not wanted or fleet is None:
            return None
        owners = self._world.identify_all(contracts.enterprise)
        notices = events.notices
        return Month(
            month=events.month,
            providers=[
                {"id": each.id, "name": f"Cloud {each.id.replace('-', ' No. ')}"}
                for each in notices
                if each.kind is NoticeKind.PROVIDER
            ],
            centres=[_centre(each) for each in notices if each.kind is NoticeKind.CENTRE],
            enterprises=self._enterprises(new),
            contracts=[
                {
                    "id": f"{owner}-{ACTIONS[kind]}",
                    "enterprise": owner,
                    "provider": f"provider-{provider + 1:04d}",
                    "kind": ACTIONS[kind],
                }
                for owner, kind, provider in zip(
                    owners, contracts.kind.tolist(), contracts.provider.tolist(), strict=True
                )
            ],
            recognitions=[line for each in notices if (line := _recognition(each)) is not None],
            ended=[
                f"{owner}-{ACTIONS[kind]}"
                for number, owner in zip(
                    events.ended.tolist(), self._world.identify_all(events.ended), strict=True
                )
                for kind in np.flatnonzero(standing.begun[number]).tolist()
            ],
            disbursements=[
                {"id": f"vouchers-{LABELS[events.month]}-{level}", "level": level}
                | {name: getattr(events.money, name)[place] for name in MONEY}
                for place, level in enumerate(LEVELS)
            ],
            fleet=fleet,
            expected=expected(counter, standing.registered, standing.units_by_class),
        )

    def _enterprises(self, enterprises: Whole) -> list[Line]:
        cells = self._world.cells_of(enterprises)
        counties, branches = self._world.county[cells].tolist(), self._world.branch[cells].tolist()
        return [
            {
                "id": id_,
                "name": f"{COUNTIES[id_[:6]].name} {KNOWN_BRANCHES[BRANCHES[branch].code].name} {id_[8:]}",
                "county": COUNTY_CODES[county],
                "industry": BRANCHES[branch].code,
            }
            for id_, county, branch in zip(
                self._world.identify_all(enterprises), counties, branches, strict=True
            )
        ]

    def _fleet(self, events: MonthEvents, standing: _Standing, *, wanted: bool) -> Fleet | None:
        """The month's equipment by county; and count its units, whether the fleet is wanted or not."""
        enterprises = np.sort(events.equipment.enterprise)
        members = np.searchsorted(self._model.market.enterprise, enterprises)
        counts = self._model.classes[members]
        cells = self._world.cells_of(enterprises)
        county = self._world.county[cells]
        # Number of units of the class that earlier enterprises of its county bring in this month.
        before = np.cumsum(counts, axis=0) - counts
        begins = np.searchsorted(county, county, side="left")
        first = standing.numbers[county] + before - before[begins] + 1
        np.add.at(standing.numbers, county, counts)
        standing.units_by_class += counts.sum(axis=0)
        if not wanted:
            return None
        return Fleet(
            events.month,
            self._world.identify_all(enterprises),
            county,
            [BRANCHES[branch].code for branch in self._world.branch[cells].tolist()],
            counts,
            first,
        )

    def cells(self) -> Mapping[str, Mapping[str, int]]:
        """Units on cloud at the end, by class and county."""
        total = np.zeros((len(COUNTY_CODES), len(CLASSES)), dtype=np.int64)
        for events in self._events:
            enterprises = events.equipment.enterprise
            members = np.searchsorted(self._model.market.enterprise, enterprises)
            county = self._world.county[self._world.cells_of(enterprises)]
            np.add.at(total, county, self._model.classes[members])
        return {
            name: {code: int(total[row, column]) for row, code in enumerate(COUNTY_CODES)}
            for column, name in enumerate(CLASSES)
        }


def _centre(notice: Notice) -> Line:
    county = COUNTIES[notice.place]
    return {
        "id": notice.id,
        "name": f"{CITIES[county.city].name} experience centre ({county.name})",
        "city": county.city,
        "park": None,
    }


def _recognition(notice: Notice) -> Line | None:
    """The platform's line, or None for notices that are not recognitions: providers, centres, money."""
    if notice.kind is NoticeKind.PLATFORM:
        kind = _TIERS.get(notice.detail, notice.detail)
        id_ = f"{notice.id}-{kind.replace('_', '-')}"
        return {"id": id_, "kind": kind, "place": notice.place, "subject": notice.id}
    if notice.kind not in _RECOGNISED:
        return None
    kind = _RECOGNISED[notice.kind]
    subject: str | None = notice.id
    id_ = f"{kind}-{notice.id}"
    if notice.kind is NoticeKind.APPLICATION:
        id_, subject = notice.id, notice.detail
    elif notice.kind in (NoticeKind.BASE, NoticeKind.CLUSTER):
        id_, subject = notice.id, None
    return {"id": id_, "kind": kind, "place": notice.place, "subject": subject}
