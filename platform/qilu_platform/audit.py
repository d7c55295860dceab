"""Holds the ledger, the counters and the registry's rows against each other, and repairs what was derived.

The registry's rows are the truth: what stands in them is counted anew, and the columns that follow from other
rows are computed anew. Units are read in a few grouped scans, whatever their number.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from qilu_contract.catalogue.places import PROVINCE, city_of
from qilu_contract.wire.clock import wall_ms
from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Integer,
    Select,
    Table,
    and_,
    case,
    cast,
    func,
    select,
    text,
    update,
)

from qilu_platform import audit_log, seals
from qilu_platform.database import insert_rows, writing
from qilu_platform.keys import Caller
from qilu_platform.ledger import EFFECTS, VOUCHERS, Entry, Event, add_up, correction, write
from qilu_platform.models import TIERS, Role
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

SHOWN = 5
"""Ids that a finding names."""
_LOCKED = (enterprises, units, providers, contracts, centres, recognitions, disbursements, activity, ledger)

Key = tuple[str, str, str]
"""Scope, code and name of a counter."""
_Lines = Sequence[tuple[Entry, int]]
_Cell = tuple[str | None, ...]
"""Where a line of the ledger counts: county, city, class, kind, level."""


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


@dataclass(frozen=True, slots=True)
class Fault:
    """Rows that contradict each other, or what no version of this software writes."""

    text: str

    def __str__(self) -> str:
        return self.text


Finding = Difference | Fault


def audit(engine: Engine) -> list[Finding]:
    """Replay the ledger, count the registry, and name every difference from the counters and every
    contradiction between rows; empty when all agree.

    Blocks; scans the registry. Sees one moment, whatever is written meanwhile.
    """
    with engine.connect().execution_options(**_snapshot(engine)) as connection:
        _take_time(connection)
        return _find(connection)


def repair(engine: Engine, *, dry: bool) -> tuple[list[str], list[Finding]]:
    """What has to change so that everything agrees with the registry's rows, and what nobody but a person can
    decide. Changes it, and says so in the audit log, unless `dry`.

    Blocks; other writers wait until it is done.
    """
    with writing(engine) as connection:
        _take_time(connection)
        if connection.dialect.name == "postgresql":
            # In the order in which others lock them.
            for table in (*_LOCKED, counters):
                connection.execute(text(f"LOCK TABLE {table.name} IN SHARE ROW EXCLUSIVE MODE"))
        done = [
            *_mend_rows(connection),
            *_mend_counts(connection),
            *_mend_activity(connection),
            *_mend_seals(connection),
        ]
        if done:
            # The whole list may be long; the log of the command has it.
            by = Caller("command-line", Role.ADMIN)
            audit_log.record(connection, by, "repaired", "counts", changes=len(done), first=done[:100])
        left = _find(connection)
        if dry:
            connection.rollback()
    return done, left


def _take_time(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(text("SET LOCAL statement_timeout = 0"))


def _snapshot(engine: Engine) -> dict[str, Any]:
    # In SQLite every reading transaction sees one moment anyway.
    return {"isolation_level": "REPEATABLE READ"} if engine.dialect.name == "postgresql" else {}


def _find(connection: Connection) -> list[Finding]:
    stored = _stored(connection)
    replayed, faults = _ledger_lines(connection)
    recorded = add_up(replayed)
    counted = add_up(_registry_lines(connection))
    differences = [
        Difference(*key, counter=stored.get(key, 0), ledger=recorded[key], registry=counted[key])
        for key in sorted({*stored, *recorded, *counted})
        if not stored.get(key, 0) == recorded[key] == counted[key]
    ]
    contradictions = [Fault(rule.sentence(*found)) for rule in RULES if (found := rule.look(connection))[0]]
    return [
        *differences,
        *_audit_sums(stored),
        *_audit_activity(connection),
        *faults,
        *contradictions,
        *_audit_seals(connection),
    ]


def _stored(connection: Connection) -> dict[Key, int]:
    return {(row.scope, row.code, row.name): int(row.value) for row in connection.execute(select(counters))}


def _ledger_lines(connection: Connection) -> tuple[_Lines, list[Finding]]:
    """The ledger by event and place, and the events that nobody knows."""
    columns = [ledger.c[name] for name in ("event", "county", "city", "class", "kind", "level")]
    query = select(*columns, func.sum(ledger.c["count"]), func.count()).group_by(*columns)
    lines: list[tuple[Entry, int]] = []
    unknown: Counter[str] = Counter()
    for event, *where, total, number in connection.execute(query):
        if event in EFFECTS:
            lines.append((Entry(event, *where), int(total)))
        else:
            unknown[event] += number
    faults: list[Finding] = [
        Fault(
            f"ledger: {number} lines have the unknown event {event!r}: they count nothing, and no repair "
            "removes them"
        )
        for event, number in sorted(unknown.items())
    ]
    return lines, faults


def _registry_lines(connection: Connection) -> _Lines:
    """What the ledger would hold if the registry as it stands had been made in one go."""
    lines: list[tuple[Entry, int]] = []

    def number(*where: ColumnElement[bool]) -> ColumnElement[int]:
        return func.sum(cast(case((and_(*where), 1), else_=0), Integer))

    def add(table: Table, by: Sequence[str], counts: Mapping[Event, ColumnElement[Any]]) -> None:
        columns = [table.c[name] for name in by]
        for row in connection.execute(select(*columns, *counts.values()).group_by(*columns)):
            where = {f"{name}_" if name == "class" else name: row._mapping[name] for name in by}
            if "county" in where:
                where["city"] = city_of(where["county"])
            lines.extend(
                (Entry(event, **where), int(count))
                for event, count in zip(counts, row[len(by) :], strict=True)
                if count
            )

    seen = enterprises.c.on_cloud_ms.is_not(None)
    current = enterprises.c.contracts_current > 0
    by_enterprise = {
        Event.ENTERPRISE_REGISTERED: func.count(),
        Event.ENTERPRISE_ONBOARDED: number(seen),
        Event.ENTERPRISE_LEFT: number(seen, ~current),
        Event.ENTERPRISE_SUSPENDED: number(seen, current, enterprises.c.suspended_ms.is_not(None)),
    }
    add(enterprises, ["county"], by_enterprise)
    heard, retired = units.c.on_cloud_ms.is_not(None), units.c.retired_ms.is_not(None)
    by_unit = {
        Event.UNIT_REGISTERED: func.count(),
        Event.UNIT_ONBOARDED: number(heard),
        Event.UNIT_LEFT: number(heard, retired),
        Event.UNIT_SUSPENDED: number(heard, ~retired, units.c.suspended_ms.is_not(None)),
    }
    add(units, ["county", "class"], by_unit)
    for table, begun, over in (
        (contracts, Event.CONTRACT_BEGUN, Event.CONTRACT_ENDED),
        (recognitions, Event.RECOGNISED, Event.RECOGNITION_ENDED),
    ):
        add(table, ["kind"], {begun: func.count(), over: number(table.c.ended_ms.is_not(None))})
    add(centres, ["city"], {Event.CENTRE_OPENED: func.count()})
    money = {event: func.sum(disbursements.c[column]) for column, event in VOUCHERS.items()}
    add(disbursements, ["level"], money)
    registered = connection.scalar(select(func.count()).select_from(providers)) or 0
    lines.append((Entry(Event.PROVIDER_REGISTERED), registered))
    return lines


def _audit_sums(stored: Mapping[Key, int]) -> list[Difference]:
    """Counties add up to their city, cities to the province."""
    sums: Counter[Key] = Counter()
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


def _audit_seals(connection: Connection) -> list[Fault]:
    return [
        Fault(
            f"{name}: {there} rows, {written} were written"
            if there != written
            else f"{name}: rows are not as they were written"
        )
        for name, (written, _), (there, _) in _broken_seals(connection)
    ]


def _mend_seals(connection: Connection) -> list[str]:
    broken = _broken_seals(connection)
    seals.replace(connection, {name: there for name, _, there in broken})
    return [f"seal of {name}: its rows are taken as they are" for name, _, _ in broken]


def _broken_seals(connection: Connection) -> list[tuple[str, seals.Sum, seals.Sum]]:
    """(name, what was written, what is there)"""
    written, there = seals.stored(connection), seals.counted(connection)
    found = [(name, written.get(name, (0, 0)), total) for name, total in sorted(there.items())]
    return [seal for seal in found if seal[1] != seal[2]]


def _audit_activity(connection: Connection) -> list[Difference]:
    return [
        Difference("hour", str(hour), "units_active", shown, shown, counted)
        for hour, shown, counted in _hours(connection)
    ]


def _hours(connection: Connection) -> list[tuple[int, int, int]]:
    """(hour, what the gauge shows, units counted) where the two differ."""
    gauge: dict[int, int] = dict(connection.execute(select(activity.c.hour, activity.c.units)).all())
    rows = connection.execute(
        select(units.c.last_hour, func.count())
        .where(units.c.last_hour.is_not(None), units.c.retired_ms.is_(None), units.c.suspended_ms.is_(None))
        .group_by(units.c.last_hour)
    )
    counted: dict[int, int] = {row[0]: row[1] for row in rows}
    return [
        (hour, gauge.get(hour, 0), counted.get(hour, 0))
        for hour in sorted({*gauge, *counted})
        if gauge.get(hour, 0) != counted.get(hour, 0)
    ]


@dataclass(frozen=True, slots=True)
class Rule:
    """What holds for every row; `broken` selects the ids for which it does not."""

    text: str
    """A sentence about `{number}` things: `{ids}`."""
    broken: Select[Any]
    mend: Callable[[Connection], Iterator[str]] | None = None
    """Restores it, and tells what it changes; None where only a person knows which of two rows is right."""

    def look(self, connection: Connection) -> tuple[int, list[str]]:
        """How many break it, and the first ids."""
        found = self.broken.subquery()
        number = connection.scalar(select(func.count()).select_from(found)) or 0
        if not number:
            return 0, []
        return number, list(connection.scalars(select(found.c.id).order_by(found.c.id).limit(SHOWN)))

    def sentence(self, number: int, ids: Sequence[str]) -> str:
        more = ", …" if number > len(ids) else ""
        return self.text.format(number=number, ids=", ".join(ids) + more)


_owner = enterprises.alias("owner")
_with_owner = select(units.c.id).outerjoin_from(units, _owner, units.c.enterprise == _owner.c.id)
_signed = (
    select(
        contracts.c.enterprise.label("id"),
        func.count().label("begun"),
        (func.count() - func.count(contracts.c.ended_ms)).label("current"),
    )
    .group_by(contracts.c.enterprise)
    .subquery("signed")
)
_current = func.coalesce(_signed.c.current, 0)
_of_contracts = select(
    enterprises.c.id, enterprises.c.contracts_current, _current.label("current")
).outerjoin_from(enterprises, _signed, enterprises.c.id == _signed.c.id)
_standing = (recognitions.c.kind.in_(TIERS), recognitions.c.ended_ms.is_(None))
_lagging = _with_owner.where(
    _owner.c.suspended_ms.is_not(None), units.c.suspended_ms.is_(None), units.c.retired_ms.is_(None)
)


def _mend_contracts(connection: Connection) -> Iterator[str]:
    wrong = _of_contracts.where(enterprises.c.contracts_current != _current).order_by(enterprises.c.id)
    for id_, shown, current in connection.execute(wrong).all():
        yield f"enterprise {id_}: contracts_current {shown} becomes {current}"
        this = enterprises.c.id == id_
        connection.execute(update(enterprises).where(this).values(contracts_current=current))


def _mend_tiers(connection: Connection) -> Iterator[str]:
    rank = {kind.value: place for place, kind in enumerate(TIERS)}
    stands: set[str] = set()
    rows = connection.execute(select(recognitions).where(*_standing)).all()
    for row in sorted(rows, key=lambda row: (-rank[row.kind], row.registered_ms, row.id)):
        if row.subject in stands:
            yield f"platform {row.subject}: its recognition {row.id} as {row.kind} ends"
            this = recognitions.c.id == row.id
            connection.execute(update(recognitions).where(this).values(ended_ms=wall_ms()))
        stands.add(row.subject)


def _mend_suspended(connection: Connection) -> Iterator[str]:
    with_time = _lagging.add_columns(_owner.c.suspended_ms).order_by(units.c.id)
    for id_, suspended_ms in connection.execute(with_time).all():
        yield f"unit {id_}: suspended with its enterprise"
        connection.execute(update(units).where(units.c.id == id_).values(suspended_ms=suspended_ms))


def _mend_retired(connection: Connection) -> Iterator[str]:
    both = (units.c.retired_ms.is_not(None), units.c.suspended_ms.is_not(None))
    for id_ in connection.scalars(select(units.c.id).where(*both).order_by(units.c.id)).all():
        yield f"unit {id_}: retired, and no longer suspended"
        connection.execute(update(units).where(units.c.id == id_).values(suspended_ms=None))


RULES: Final[Sequence[Rule]] = (
    Rule(
        "{number} units belong to an enterprise that is not registered: {ids}",
        _with_owner.where(_owner.c.id.is_(None)),
    ),
    Rule(
        "{number} units are not in the county of their enterprise: {ids}",
        _with_owner.where(units.c.county != _owner.c.county),
    ),
    Rule(
        "{number} units are not in the industry of their enterprise: {ids}",
        _with_owner.where(units.c.industry != _owner.c.industry),
    ),
    Rule("{number} units are not suspended though their enterprise is: {ids}", _lagging, _mend_suspended),
    Rule(
        "{number} units are both retired and suspended: {ids}",
        select(units.c.id).where(units.c.retired_ms.is_not(None), units.c.suspended_ms.is_not(None)),
        _mend_retired,
    ),
    Rule(
        "contracts_current of {number} enterprises is not the number of their contracts: {ids}",
        _of_contracts.where(enterprises.c.contracts_current != _current),
        _mend_contracts,
    ),
    Rule(
        "{number} enterprises are on cloud without ever a contract, or not on cloud with one: {ids}",
        _of_contracts.where(enterprises.c.on_cloud_ms.is_(None) != _signed.c.id.is_(None)),
    ),
    Rule(
        "{number} platforms stand in two tiers, or twice in one: {ids}",
        select(recognitions.c.subject.label("id"))
        .where(*_standing)
        .group_by(recognitions.c.subject)
        .having(func.count() > 1),
        _mend_tiers,
    ),
)


def _mend_rows(connection: Connection) -> list[str]:
    return [change for rule in RULES if rule.mend is not None for change in rule.mend(connection)]


def _cells(lines: _Lines) -> Counter[tuple[str, _Cell]]:
    """What the lines add to each counter, by place."""
    totals: Counter[tuple[str, _Cell]] = Counter()
    for entry, count in lines:
        for name, step in EFFECTS[entry.event].items():
            totals[name, tuple(entry[1:])] += step * count
    return totals


def _mend_counts(connection: Connection) -> list[str]:
    """Corrections in the ledger, and counters that are what it adds up to then."""
    counted = _registry_lines(connection)
    right, recorded = _cells(counted), _cells(_ledger_lines(connection)[0])
    entries = {
        Entry(correction(name), *cell): right[name, cell] - recorded[name, cell]
        for name, cell in {*right, *recorded}
        if right[name, cell] != recorded[name, cell]
    }
    done = []
    for entry, count in sorted(entries.items(), key=lambda line: tuple(map(str, line[0]))):
        where = " ".join(code for code in entry[1:] if code is not None) or "the province"
        done.append(f"ledger: {entry.event} {count:+} in {where}")
    if entries:
        write(connection, entries, {})
    stored, wanted = _stored(connection), add_up(counted)
    wrong = [key for key in sorted({*stored, *wanted}) if stored.get(key, 0) != wanted[key]]
    done += [
        f"counter {name} of {scope} {code}: {stored.get((scope, code, name), 0)} becomes "
        f"{wanted[scope, code, name]}"
        for scope, code, name in wrong
    ]
    if wrong:
        rows = [
            dict(zip(("scope", "code", "name", "value"), (*key, wanted[key]), strict=True)) for key in wrong
        ]
        insert = insert_rows(connection, counters, rows)
        keys = ["scope", "code", "name"]
        connection.execute(
            insert.on_conflict_do_update(index_elements=keys, set_={"value": insert.excluded["value"]})
        )
    return done


def _mend_activity(connection: Connection) -> list[str]:
    wrong = _hours(connection)
    if wrong:
        insert = insert_rows(
            connection, activity, [{"hour": hour, "units": counted} for hour, _, counted in wrong]
        )
        connection.execute(
            insert.on_conflict_do_update(index_elements=["hour"], set_={"units": insert.excluded["units"]})
        )
    return [f"activity of hour {hour}: {shown} becomes {counted}" for hour, shown, counted in wrong]
