"""Compares the ledger, the counters and the registry's rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from qilu_contract.catalogue.places import PROVINCE, city_of
from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Integer,
    Table,
    and_,
    case,
    cast,
    func,
    select,
    text,
)

from qilu_platform.audit.findings import Difference, Fault, Finding, Key
from qilu_platform.audit.rules import RULES
from qilu_platform.counting.ledger import EFFECTS, VOUCHERS, Entry, Event, add_up
from qilu_platform.database import seals
from qilu_platform.database.schema import (
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

Lines = Sequence[tuple[Entry, int]]


def audit(engine: Engine) -> list[Finding]:
    """Replay the ledger, count the registry, and name every difference from the counters and every
    contradiction between rows; empty when all agree.

    Blocks; scans the registry. Sees one moment, whatever is written meanwhile.
    """
    with engine.connect().execution_options(**_snapshot(engine)) as connection:
        take_time(connection)
        return find(connection)


def take_time(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(text("SET LOCAL statement_timeout = 0"))


def _snapshot(engine: Engine) -> dict[str, Any]:
    # In SQLite every reading transaction sees one moment anyway.
    return {"isolation_level": "REPEATABLE READ"} if engine.dialect.name == "postgresql" else {}


def find(connection: Connection) -> list[Finding]:
    stored = stored_counters(connection)
    replayed, faults = ledger_lines(connection)
    recorded = add_up(replayed)
    counted = add_up(registry_lines(connection))
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


def stored_counters(connection: Connection) -> dict[Key, int]:
    return {(row.scope, row.code, row.name): int(row.value) for row in connection.execute(select(counters))}


def ledger_lines(connection: Connection) -> tuple[Lines, list[Finding]]:
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


def registry_lines(connection: Connection) -> Lines:
    """Expected content of the ledger if the present registry had been made at once."""
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
        for name, (written, _), (there, _) in broken_seals(connection)
    ]


def broken_seals(connection: Connection) -> list[tuple[str, seals.Sum, seals.Sum]]:
    """(name, what was written, what is there)"""
    written, there = seals.stored(connection), seals.counted(connection)
    found = [(name, written.get(name, (0, 0)), total) for name, total in sorted(there.items())]
    return [seal for seal in found if seal[1] != seal[2]]


def _audit_activity(connection: Connection) -> list[Difference]:
    return [
        Difference("hour", str(hour), "units_active", shown, shown, counted)
        for hour, shown, counted in differing_hours(connection)
    ]


def differing_hours(connection: Connection) -> list[tuple[int, int, int]]:
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
