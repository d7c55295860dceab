"""The programme's ledger: what happened, append-only, and the counters that it adds up to.

Both change in one transaction with the registry's own rows, so a crash neither loses nor doubles a count, and
`audit` can hold the three against each other: replayed ledger, counters, registry.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, NamedTuple

from qilu_contract.clock import wall_ms
from qilu_contract.places import PROVINCE, city_of
from sqlalchemy import Column, ColumnElement, Connection, Engine, func, select

from qilu_platform.database import insert_rows
from qilu_platform.schema import (
    activity,
    centres,
    contracts,
    counters,
    disbursements,
    enterprises,
    ledger,
    providers,
    recognitions,
    units,
)


class Event(StrEnum):
    ENTERPRISE_REGISTERED = "enterprise_registered"
    ENTERPRISE_ONBOARDED = "enterprise_onboarded"  # its first contract, once and for ever
    ENTERPRISE_LEFT = "enterprise_left"  # its last current contract ended
    ENTERPRISE_RETURNED = "enterprise_returned"  # a contract again after that
    ENTERPRISE_SUSPENDED = "enterprise_suspended"  # current and suspended, in whichever order
    ENTERPRISE_RESUMED = "enterprise_resumed"
    UNIT_REGISTERED = "unit_registered"
    UNIT_ONBOARDED = "unit_onboarded"  # its first reading, once and for ever
    UNIT_LEFT = "unit_left"  # on cloud and retired, in whichever order the two became known
    UNIT_SUSPENDED = "unit_suspended"  # on cloud and suspended, likewise
    UNIT_RESUMED = "unit_resumed"
    PROVIDER_REGISTERED = "provider_registered"
    CENTRE_OPENED = "centre_opened"
    CONTRACT_BEGUN = "contract_begun"
    CONTRACT_ENDED = "contract_ended"
    RECOGNISED = "recognised"  # its kind says as what
    RECOGNITION_ENDED = "recognition_ended"  # a platform has risen to a higher tier
    VOUCHERS_GRANTED = "vouchers_granted"  # these three happen once for each yuan
    VOUCHERS_REDEEMED = "vouchers_redeemed"
    VOUCHERS_CLAWED_BACK = "vouchers_clawed_back"


EFFECTS: Final[Mapping[Event, Mapping[str, int]]] = {
    Event.ENTERPRISE_REGISTERED: {"enterprises_registered": 1},
    Event.ENTERPRISE_ONBOARDED: {"enterprises_onboarded": 1, "enterprises_current": 1},
    Event.ENTERPRISE_LEFT: {"enterprises_current": -1},
    Event.ENTERPRISE_RETURNED: {"enterprises_current": 1},
    Event.ENTERPRISE_SUSPENDED: {"enterprises_current": -1},
    Event.ENTERPRISE_RESUMED: {"enterprises_current": 1},
    Event.UNIT_REGISTERED: {"units_registered": 1},
    Event.UNIT_ONBOARDED: {"units_onboarded": 1, "units_current": 1},
    Event.UNIT_LEFT: {"units_current": -1},
    Event.UNIT_SUSPENDED: {"units_current": -1},
    Event.UNIT_RESUMED: {"units_current": 1},
    Event.PROVIDER_REGISTERED: {"providers": 1},
    Event.CENTRE_OPENED: {"centres": 1},
    Event.CONTRACT_BEGUN: {"contracts_onboarded": 1, "contracts_current": 1},
    Event.CONTRACT_ENDED: {"contracts_current": -1},
    Event.RECOGNISED: {"recognitions_onboarded": 1, "recognitions_current": 1},
    Event.RECOGNITION_ENDED: {"recognitions_current": -1},
    Event.VOUCHERS_GRANTED: {"vouchers_granted": 1},
    Event.VOUCHERS_REDEEMED: {"vouchers_redeemed": 1},
    Event.VOUCHERS_CLAWED_BACK: {"vouchers_clawed_back": 1},
}
"""What one occurrence adds to which counter."""

VOUCHERS: Final[Mapping[str, Event]] = {
    "granted": Event.VOUCHERS_GRANTED,
    "redeemed": Event.VOUCHERS_REDEEMED,
    "clawed_back": Event.VOUCHERS_CLAWED_BACK,
}
"""What a disbursement's columns of money are about."""


class Entry(NamedTuple):
    """One kind of thing that happened in one place; what does not apply is None."""

    event: Event
    county: str | None = None
    city: str | None = None
    class_: str | None = None
    kind: str | None = None
    level: str | None = None

    def scopes(self) -> list[tuple[str, str]]:
        """The scopes that count it, as (scope, code)."""
        named = (
            ("city", self.city),
            ("county", self.county),
            ("class", self.class_),
            ("kind", self.kind),
            ("level", self.level),
        )
        return [("province", PROVINCE), *((scope, code) for scope, code in named if code is not None)]


def in_county(event: Event, county: str, class_: str | None = None) -> Entry:
    return Entry(event, county, city_of(county), class_)


def append(connection: Connection, entries: Counter[Entry]) -> None:
    """Add to the ledger and to the counters, last in the caller's transaction: the counters' rows are what
    all writers share."""
    entries = +entries
    if not entries:
        return
    at_ms = wall_ms()
    lines = [
        {
            "at_ms": at_ms,
            "event": entry.event.value,
            "city": entry.city,
            "county": entry.county,
            "class": entry.class_,
            "kind": entry.kind,
            "level": entry.level,
            "count": count,
        }
        for entry, count in entries.items()
    ]
    connection.execute(insert_rows(connection, ledger, lines))
    totals = _add_up(entries.items())
    changes = [
        {"scope": scope, "code": code, "name": name, "value": value}
        for (scope, code, name), value in sorted(totals.items())
        if value
    ]
    if not changes:
        return
    insert = insert_rows(connection, counters, changes)
    connection.execute(
        insert.on_conflict_do_update(
            index_elements=["scope", "code", "name"],
            set_={"value": counters.c.value + insert.excluded["value"]},
        )
    )


def _add_up(entries: Iterable[tuple[Entry, int]]) -> Counter[tuple[str, str, str]]:
    totals: Counter[tuple[str, str, str]] = Counter()
    for entry, count in entries:
        for name, step in EFFECTS[entry.event].items():
            for scope, code in entry.scopes():
                totals[scope, code, name] += step * count
    return totals


@dataclass(frozen=True, slots=True)
class Difference:
    """A count on which ledger, counters and registry do not agree. `registry` is None where the registry was
    not asked."""

    scope: str
    code: str
    name: str
    counter: int
    ledger: int
    registry: int | None

    def __str__(self) -> str:
        registry = "" if self.registry is None else f", the registry holds {self.registry}"
        return (
            f"{self.name} of {self.scope} {self.code}: counter {self.counter}, ledger {self.ledger}{registry}"
        )


def audit(engine: Engine) -> list[Difference]:
    """Replay the ledger, count the registry, and name every difference from the counters; empty when all
    agree.

    Blocks; scans the registry. Sees one moment, whatever is written meanwhile.
    """
    with engine.connect().execution_options(**_snapshot(engine)) as connection:
        stored = {
            (row.scope, row.code, row.name): int(row.value) for row in connection.execute(select(counters))
        }
        replayed = _add_up(_ledger_lines(connection))
        counted = _add_up(_registry_lines(connection))
        keys = sorted({*stored, *replayed, *counted})
        found = [
            Difference(*key, counter=stored.get(key, 0), ledger=replayed[key], registry=counted[key])
            for key in keys
            if not stored.get(key, 0) == replayed[key] == counted[key]
        ]
        return found + _audit_sums(stored) + _audit_activity(connection)


def _snapshot(engine: Engine) -> dict[str, Any]:
    # In SQLite every reading transaction sees one moment anyway.
    return {"isolation_level": "REPEATABLE READ"} if engine.dialect.name == "postgresql" else {}


def _ledger_lines(connection: Connection) -> list[tuple[Entry, int]]:
    columns = [ledger.c[name] for name in ("event", "county", "city", "class", "kind", "level")]
    rows = connection.execute(select(*columns, func.sum(ledger.c["count"])).group_by(*columns))
    return [(Entry(Event(row[0]), *row[1:6]), int(row[6])) for row in rows]


def _registry_lines(connection: Connection) -> list[tuple[Entry, int]]:
    """What the ledger would hold if the registry as it stands had been made in one go."""
    lines: list[tuple[Entry, int]] = []

    def add(
        event: Event, by: Sequence[Column[Any]], names: Sequence[str], *where: ColumnElement[bool]
    ) -> None:
        rows = connection.execute(select(func.count(), *by).where(*where).group_by(*by))
        for number, *codes in rows:
            given = dict(zip(names, codes, strict=True))
            if "county" in given:
                given["city"] = city_of(given["county"])
            lines.append((Entry(event, **given), int(number)))

    county = [enterprises.c.county]
    on_cloud = enterprises.c.on_cloud_ms.is_not(None)
    add(Event.ENTERPRISE_REGISTERED, county, ["county"])
    add(Event.ENTERPRISE_ONBOARDED, county, ["county"], on_cloud)
    add(Event.ENTERPRISE_LEFT, county, ["county"], on_cloud, enterprises.c.contracts_current == 0)
    barred = (enterprises.c.contracts_current > 0, enterprises.c.suspended_ms.is_not(None))
    add(Event.ENTERPRISE_SUSPENDED, county, ["county"], on_cloud, *barred)
    cell = [units.c.county, units.c["class"]]
    seen = units.c.on_cloud_ms.is_not(None)
    add(Event.UNIT_REGISTERED, cell, ["county", "class_"])
    add(Event.UNIT_ONBOARDED, cell, ["county", "class_"], seen)
    add(Event.UNIT_LEFT, cell, ["county", "class_"], seen, units.c.retired_ms.is_not(None))
    add(Event.UNIT_SUSPENDED, cell, ["county", "class_"], seen, units.c.suspended_ms.is_not(None))
    add(Event.CONTRACT_BEGUN, [contracts.c.kind], ["kind"])
    add(Event.CONTRACT_ENDED, [contracts.c.kind], ["kind"], contracts.c.ended_ms.is_not(None))
    add(Event.CENTRE_OPENED, [centres.c.city], ["city"])
    add(Event.RECOGNISED, [recognitions.c.kind], ["kind"])
    add(Event.RECOGNITION_ENDED, [recognitions.c.kind], ["kind"], recognitions.c.ended_ms.is_not(None))
    money = [func.sum(disbursements.c[column]) for column in VOUCHERS]
    for level, *sums in connection.execute(
        select(disbursements.c.level, *money).group_by(disbursements.c.level)
    ):
        lines += [
            (Entry(event, level=level), int(yuan))
            for event, yuan in zip(VOUCHERS.values(), sums, strict=True)
        ]
    registered = connection.scalar(select(func.count()).select_from(providers)) or 0
    lines.append((Entry(Event.PROVIDER_REGISTERED), registered))
    return lines


def _audit_sums(stored: Mapping[tuple[str, str, str], int]) -> list[Difference]:
    """Counties add up to their city, cities to the province."""
    sums: Counter[tuple[str, str, str]] = Counter()
    for (scope, code, name), value in stored.items():
        if name.startswith(("units_", "enterprises_")):
            if scope == "county":
                sums["city", city_of(code), name] += value
            elif scope == "city":
                sums["province", PROVINCE, name] += value
    return [
        Difference(*key, counter=stored.get(key, 0), ledger=total, registry=None)
        for key, total in sorted(sums.items())
        if stored.get(key, 0) != total
    ]


def _audit_activity(connection: Connection) -> list[Difference]:
    gauge: dict[int, int] = {row.hour: row.units for row in connection.execute(select(activity)) if row.units}
    rows = connection.execute(
        select(units.c.last_hour, func.count())
        .where(units.c.last_hour.is_not(None), units.c.retired_ms.is_(None), units.c.suspended_ms.is_(None))
        .group_by(units.c.last_hour)
    )
    counted: dict[int, int] = {row[0]: row[1] for row in rows}
    return [
        Difference(
            "hour", str(hour), "units_active", gauge.get(hour, 0), gauge.get(hour, 0), counted.get(hour, 0)
        )
        for hour in sorted({*gauge, *counted})
        if gauge.get(hour, 0) != counted.get(hour, 0)
    ]
