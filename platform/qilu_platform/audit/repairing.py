"""Repairs data that is derived from the registry's rows."""

from __future__ import annotations

from collections import Counter

from sqlalchemy import (
    Connection,
    Engine,
    text,
)

from qilu_platform.audit.comparison import (
    Lines,
    broken_seals,
    differing_hours,
    find,
    ledger_lines,
    registry_lines,
    stored_counters,
    take_time,
)
from qilu_platform.audit.findings import Finding
from qilu_platform.audit.rules import mend_rows
from qilu_platform.counting.ledger import EFFECTS, Entry, add_up, correction, write
from qilu_platform.database import seals
from qilu_platform.database.engine import writing
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
from qilu_platform.database.statements import insert_rows
from qilu_platform.models.fields import Role
from qilu_platform.registry import audit_log
from qilu_platform.registry.keys import Caller

_LOCKED = (enterprises, units, providers, contracts, centres, recognitions, disbursements, activity, ledger)
_Cell = tuple[str | None, ...]
"""Where a line of the ledger counts: county, city, class, kind, level."""


def repair(engine: Engine, *, dry: bool) -> tuple[list[str], list[Finding]]:
    """Compute the changes that make everything agree with the registry's rows, and the findings that a person
    must decide. Applies the changes, with an entry in the audit log, unless `dry`.

    Blocks; other writers wait until it is done.
    """
    with writing(engine) as connection:
        take_time(connection)
        if connection.dialect.name == "postgresql":
            # In the order in which others lock them.
            for table in (*_LOCKED, counters):
                connection.execute(text(f"LOCK TABLE {table.name} IN SHARE ROW EXCLUSIVE MODE"))
        done = [
            *mend_rows(connection),
            *_mend_counts(connection),
            *_mend_activity(connection),
            *_mend_seals(connection),
        ]
        if done:
            # The whole list may be long; the log of the command has it.
            by = Caller("command-line", Role.ADMIN)
            audit_log.record(connection, by, "repaired", "counts", changes=len(done), first=done[:100])
        left = find(connection)
        if dry:
            connection.rollback()
    return done, left


def _mend_seals(connection: Connection) -> list[str]:
    broken = broken_seals(connection)
    seals.replace(connection, {name: there for name, _, there in broken})
    return [f"seal of {name}: its rows are taken as they are" for name, _, _ in broken]


def _cells(lines: Lines) -> Counter[tuple[str, _Cell]]:
    """Sums of the lines by counter and place."""
    totals: Counter[tuple[str, _Cell]] = Counter()
    for entry, count in lines:
        for name, step in EFFECTS[entry.event].items():
            totals[name, tuple(entry[1:])] += step * count
    return totals


def _mend_counts(connection: Connection) -> list[str]:
    """Corrections in the ledger, and counters that are what it adds up to then."""
    counted = registry_lines(connection)
    right, recorded = _cells(counted), _cells(ledger_lines(connection)[0])
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
    stored, wanted = stored_counters(connection), add_up(counted)
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
    wrong = differing_hours(connection)
    if wrong:
        insert = insert_rows(
            connection, activity, [{"hour": hour, "units": counted} for hour, _, counted in wrong]
        )
        connection.execute(
            insert.on_conflict_do_update(index_elements=["hour"], set_={"units": insert.excluded["units"]})
        )
    return [f"activity of hour {hour}: {shown} becomes {counted}" for hour, shown, counted in wrong]
