"""What a replay of the programme brings to the platform and the broker, month by month, and what must be
counted after each month. All of it is a pure function of scenario and scale: a replay that is broken off is
computed anew, and goes on with the same ids, times and values.

A scale below 1 takes that share of the enterprises, with their contracts and fleets; providers, centres,
platforms, what they publish, and the money of vouchers come whole. A month's equipment speaks within the
first minute of the month, in the order of registration, so that neither the store nor the roll-ups have to
look far.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from functools import cached_property
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.catalogue.places import BRANCHES as KNOWN_BRANCHES
from qilu_contract.catalogue.places import CITIES, COUNTIES, city_of
from qilu_contract.columns import Columns, Series
from qilu_contract.storage import Point
from qilu_contract.wire import topics
from qilu_contract.wire.ids import id_prefix
from qilu_devices.simulation import first_values
from qilu_programme.counts import Counter
from qilu_programme.draws import Mask, Whole
from qilu_programme.events import ACTIONS, Contracts, Equipment, MonthEvents, Notice, NoticeKind
from qilu_programme.figures import BRANCHES, CLASSES
from qilu_programme.model import Model
from qilu_programme.months import LABELS
from qilu_programme.scenario import LEVELS, Scenario
from qilu_programme.world import CITY_CODES, COUNTY_CODES

CHINA = timezone(timedelta(hours=8))
"""Months of the programme are Asia/Shanghai's, which knows no summer time."""
SPOKEN_MS = 60_000
"""All first readings of a month lie in so much time."""
BLOCK_UNITS = 20_000
_PARTS = (60, 30, 20, 15, 12, 10, 6, 5, 4, 3, 2, 1)
"""Into how many blocks a month may be cut: each is a whole number of milliseconds."""

Line = dict[str, Any]
Counts = dict[str, int]
"""Every count that must agree, by name: `units_on_cloud`, `city/370200/units`, `class/motor`, …"""

_RECOGNISED = {
    NoticeKind.LEADING: "leading",
    NoticeKind.SUPPLIER: "supplier",
    NoticeKind.APPLICATION: "application",
    NoticeKind.PILOT: "pilot",
    NoticeKind.BASE: "base",
    NoticeKind.CLUSTER: "cluster",
}
_TIERS = {"enterprise": "enterprise_level"}
"""What the platform calls a tier, where it is not what the model calls it."""
_COUNTIES = np.array(COUNTY_CODES, dtype=object)
_CITIES = np.array([city_of(county) for county in COUNTY_CODES], dtype=object)
_MONEY = ("granted", "redeemed", "clawed_back")


def month_start_ms(month: int) -> int:
    """UTC milliseconds; a month after the programme's last one is good as well."""
    year, place = divmod(2017 * 12 + 9 + month, 12)
    return int(datetime(year, place + 1, 1, tzinfo=CHINA).timestamp() * 1000)


class Unit(NamedTuple):
    id: str
    class_name: str
    enterprise: str
    county: str
    industry: str
    ts_ms: int
    """When it speaks for the first time."""


class Readings(NamedTuple):
    """First readings of a block's units of one class."""

    class_name: str
    places: Whole
    """Of the units in the block."""
    values: NDArray[np.float64]
    """A row for each unit, a column for each of the class's signals, in their order."""


@dataclass(frozen=True)
class Block:
    """Units that speak from `start_ms` up to, not including, `end_ms`, in the order of their times. They come
    in runs: `sizes[n]` units of one class of one enterprise, numbered from `first[n]` on."""

    fleet: Fleet
    rows: Whole
    """The run's enterprise: a row of the fleet."""
    classes: Whole
    first: Whole
    sizes: Whole
    ts_ms: Whole
    """Of each unit."""
    start_ms: int
    end_ms: int

    def __len__(self) -> int:
        return len(self.ts_ms)

    @cached_property
    def ids(self) -> list[str]:
        found: list[str] = []
        for row, class_, first, size in self._runs():
            prefix = id_prefix(self.fleet.county_of(row), CLASSES[class_])
            found += [f"{prefix}{number:07d}" for number in range(first, first + size)]
        return found

    @property
    def units(self) -> list[Unit]:
        """The same, one at a time."""
        fleet, runs = self.fleet, np.repeat(np.arange(len(self.sizes)), self.sizes)
        return [
            Unit(id_, CLASSES[class_], fleet.ids[row], fleet.county_of(row), fleet.industry[row], ts_ms)
            for id_, row, class_, ts_ms in zip(
                self.ids,
                self.rows[runs].tolist(),
                self.classes[runs].tolist(),
                self.ts_ms.tolist(),
                strict=True,
            )
        ]

    def lines(self) -> bytes:
        """CSV for the registry: id, class, enterprise."""
        found, at = [], 0
        for row, class_, _, size in self._runs():
            tail = f",{CLASSES[class_]},{self.fleet.ids[row]}\n"
            found += [tail.join(self.ids[at : at + size]), tail]
            at += size
        return "".join(found).encode()

    def topics(self) -> list[str]:
        """Where each unit speaks."""
        found: list[str] = []
        at = 0
        for row, _, _, size in self._runs():
            head, _, tail = topics.telemetry(self.fleet.county_of(row), self.fleet.ids[row], "*").partition(
                "*"
            )
            found += [head + id_ + tail for id_ in self.ids[at : at + size]]
            at += size
        return found

    def payloads(self, seed: int) -> list[bytes]:
        """What each unit says there: a reading as plain JSON."""
        found = np.empty(len(self), dtype=object)
        encode_lines = msgspec.json.Encoder().encode_lines
        for class_name, places, values in self.readings(seed):
            row = _ROWS[class_name]
            rows = list(map(row, self.ts_ms[places].tolist(), *values.T.tolist()))
            found[places] = encode_lines(rows).split(b"\n")[:-1]
        payloads: list[bytes] = found.tolist()
        return payloads

    def readings(self, seed: int) -> Iterator[Readings]:
        """First readings of all units, by class."""
        classes, rows = np.repeat(self.classes, self.sizes), np.repeat(self.rows, self.sizes)
        for class_ in np.unique(self.classes).tolist():
            places = np.flatnonzero(classes == class_)
            ids = [self.ids[place] for place in places.tolist()]
            owners = [self.fleet.ids[row] for row in rows[places].tolist()]
            values = first_values(CLASSES[class_], ids, owners, seed, self.ts_ms[places])
            yield Readings(CLASSES[class_], places, values)

    def columns(self, seed: int) -> list[Columns]:
        """What the store must hold of it."""
        found = []
        runs, ids = np.repeat(self.rows, self.sizes), np.array(self.ids, dtype=object)
        owners, industries = (np.array(each, dtype=object) for each in (self.fleet.ids, self.fleet.industry))
        for class_name, places, values in self.readings(seed):
            rows = runs[places]
            counties = self.fleet.county[rows]
            tags = {
                "city": _CITIES[counties],
                "county": _COUNTIES[counties],
                "industry": industries[rows],
                "enterprise": owners[rows],
                "unit": ids[places],
            }
            names = tuple(signal.name for signal in CATALOGUE[class_name].signals)
            numbers = np.arange(len(places), dtype=np.int32)
            series = Series.of(class_name, tags)
            found.append(Columns(class_name, series, numbers, self.ts_ms[places], names, values))
        return found

    def points(self, seed: int) -> Iterator[Point]:
        """The same, one at a time, by class."""
        for columns in self.columns(seed):
            yield from columns.points()

    def _runs(self) -> Iterator[tuple[int, int, int, int]]:
        """Row of the fleet, class, first number and size of each."""
        columns = (self.rows, self.classes, self.first, self.sizes)
        return zip(*(column.tolist() for column in columns), strict=True)


_ROWS = {
    name: msgspec.defstruct(name, ["ts", *(signal.name for signal in class_.signals)], gc=False)
    for name, class_ in CATALOGUE.items()
}
"""A reading of each class as it is encoded."""


@dataclass(frozen=True)
class Fleet:
    """The equipment that joins in a month: an enterprise a row, classes as columns. `first` is the number of
    an enterprise's first unit of a class, which counts by county and class from 1 as long as the programme
    runs."""

    month: int
    ids: list[str]
    county: Whole
    industry: list[str]
    counts: Whole
    first: Whole

    @property
    def units(self) -> int:
        return int(self.counts.sum())

    def county_of(self, row: int) -> str:
        """Its code."""
        return COUNTY_CODES[int(self.county[row])]

    def blocks(self) -> Iterator[Block]:
        total, start_ms = self.units, month_start_ms(self.month)
        if not total:
            return
        parts = next((parts for parts in _PARTS if total >= parts * BLOCK_UNITS), 1)
        counts, first = self.counts.ravel(), self.first.ravel()
        ends = np.cumsum(counts)
        step_ms = SPOKEN_MS // parts
        for part in range(parts):
            low, high = -(-part * total // parts), -(-(part + 1) * total // parts)
            runs = np.arange(
                np.searchsorted(ends, low, side="right"), np.searchsorted(ends, high - 1, side="right") + 1
            )
            runs = runs[counts[runs] > 0]
            begins = ends[runs] - counts[runs]
            cut = np.maximum(begins, low)
            rows, classes = np.divmod(runs, len(CLASSES))
            ts_ms = start_ms + np.arange(low, high) * SPOKEN_MS // total
            begin_ms = start_ms + part * step_ms
            yield Block(
                self,
                rows,
                classes,
                first[runs] + cut - begins,
                np.minimum(ends[runs], high) - cut,
                ts_ms,
                begin_ms,
                begin_ms + step_ms,
            )


@dataclass(frozen=True)
class Month:
    """All that a month brings, ready to be registered in this order, and what is counted afterwards."""

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
    """What the months before have brought."""

    known: Mask
    begun: Mask  # enterprise × kind
    numbers: Whole  # county × class: units so far
    registered: int = 0
    units_by_class: Whole = field(default_factory=lambda: np.zeros(len(CLASSES), dtype=np.int64))


class Replay:
    """Computes the whole run when it is made (seconds); `months` may be iterated again and again."""

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
        """The events of the chosen enterprises (`pilots` are their ids, None for all), and those of nobody in
        particular."""
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
                | {name: getattr(events.money, name)[place] for name in _MONEY}
                for place, level in enumerate(LEVELS)
            ],
            fleet=fleet,
            expected=_expected(counter, standing),
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
        # How many of the class the enterprises before it, in its county, bring in this month.
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
    """The platform's line, or None for what is none: providers, centres, money."""
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


def _expected(counter: Counter, standing: _Standing) -> Counts:
    counts: Counts = dict(counter.values())
    counts["enterprises_on_cloud_now"] = counter.current
    counts["enterprises_registered"] = standing.registered
    counts["units_registered"] = int(standing.units_by_class.sum())
    for kind, name in enumerate(ACTIONS):
        counts[f"contracts/{name}"] = int(counter.contracts_by_kind[kind])
    for place, city in enumerate(CITY_CODES):
        counts[f"city/{city}/enterprises"] = int(counter.enterprises_by_city[place])
        counts[f"city/{city}/units"] = int(counter.units_by_city[place])
    for place, name in enumerate(CLASSES):
        counts[f"class/{name}"] = int(standing.units_by_class[place])
    for name, row in zip(_MONEY, counter.money.tolist(), strict=True):
        for level, yuan in zip(LEVELS, row, strict=True):
            counts[f"vouchers/{level}/{name}"] = yuan
    return counts


def counted(programme: Mapping[str, Any]) -> Counts:
    """The same counts as `Month.expected`, from the platform's `GET /v1/programme`."""
    counts: Counts = {target["name"]: target["onboarded"] for target in programme["targets"]}
    counts["enterprises_on_cloud_now"] = programme["targets"][0]["current"]
    counts["enterprises_registered"] = programme["registered"]["enterprises"]
    counts["units_registered"] = programme["registered"]["units"]
    for kind, found in programme["contracts"].items():
        counts[f"contracts/{kind}"] = found["onboarded"]
    for city, found in programme["by_city"].items():
        counts[f"city/{city}/enterprises"] = found["enterprises_on_cloud"]
        counts[f"city/{city}/units"] = found["units_on_cloud"]
    for name, found in programme["by_class"].items():
        counts[f"class/{name}"] = found["units_on_cloud"]
    for level, money in programme["vouchers"].items():
        for name, yuan in money.items():
            counts[f"vouchers/{level}/{name}"] = yuan
    return counts


def differences(expected: Counts, found: Counts) -> list[str]:
    """What does not agree, in words."""
    return [
        f"{name}: the model has {expected.get(name, 0):,}, the platform {found.get(name, 0):,}"
        for name in sorted({*expected, *found})
        if expected.get(name, 0) != found.get(name, 0)
    ]
