"""Registers resources, one or many at a time, with the same set-based statements.

A line is a row as the API took it, with its number in the body for the answer. Same id and same content is
already there and fine; same id and other content is an error of that line.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from qilu_contract.wire.clock import wall_ms
from qilu_contract.wire.ids import enterprise_id, id_prefix, unit_id
from sqlalchemy import Connection, Row, Table, select, update

from qilu_platform.counting import ledger
from qilu_platform.counting.ledger import Entry, Event, in_county
from qilu_platform.database import seals
from qilu_platform.database.locks import lock_recognitions, lock_suspensions
from qilu_platform.database.schema import (
    centres,
    contracts,
    disbursements,
    enterprises,
    providers,
    recognitions,
    sequences,
    units,
)
from qilu_platform.database.statements import among, insert_rows, rows_table
from qilu_platform.errors import Conflict, Invalid
from qilu_platform.models.fields import TIERS, Recognised

Line = tuple[int, dict[str, Any]]

FIRST_UNIT_NUMBER = 5_000_001
"""Simulated fleets number the units of a county and class from 1; what people register starts far above, so a
fleet can grow."""
FIRST_ENTERPRISE_NUMBER = 50_001


@dataclass(frozen=True, slots=True)
class LineError:
    line: int
    detail: str
    conflict: bool = False
    """The id is taken by other content."""
    column: str | None = None
    """The one that is wrong, where it is one."""


@dataclass(slots=True)
class Outcome:
    created: list[str] = field(default_factory=list)
    existing: int = 0
    errors: list[LineError] = field(default_factory=list)


class _Batch:
    """Lines on their way into a table, with the same outcome as if they came one after the other."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self.lines = list(lines)
        self.outcome = Outcome()
        self.sealed: dict[str, seals.Sum] = {}
        """Of what was inserted."""

    def refuse_unregistered(self, what: str, known: Collection[str]) -> None:
        """Lines whose column `what` names nothing in `known` become errors."""
        unknown = [(number, row[what]) for number, row in self.lines if row[what] not in known]
        self.outcome.errors += [
            LineError(number, unregistered(what, id_), column=what) for number, id_ in unknown
        ]
        self.lines = [line for line in self.lines if line[1][what] in known]

    def insert(
        self, connection: Connection, table: Table, derive: Callable[[dict[str, Any]], dict[str, Any]]
    ) -> list[dict[str, Any]]:
        """Insert the first line of each new id, completed by `derive`; return the new rows.

        Every other line must hold what is there by then.
        """
        if not self.lines:
            return []
        first: dict[str, Line] = {}
        for line in self.lines:
            first.setdefault(line[1]["id"], line)
        given = [row | derive(row) for _, (_, row) in sorted(first.items())]
        statement = insert_rows(connection, table, given).on_conflict_do_nothing()
        created = set(connection.scalars(statement.returning(table.c.id)))
        present: dict[str, Mapping[str, Any]] = {id_: first[id_][1] for id_ in created}
        if old := list(first.keys() - created):
            columns = [table.c[name] for name in self.lines[0][1]]
            query = select(*columns).where(among(connection, table.c.id, old))
            present |= {row.id: dict(row._mapping) for row in connection.execute(query)}
        for number, row in self.lines:
            id_ = row["id"]
            if id_ not in present:
                detail = f"uscc {row['uscc']} is that of another enterprise already"
                self.outcome.errors.append(LineError(number, detail, conflict=True, column="uscc"))
            elif row != present[id_]:
                other = [name for name in row if row[name] != present[id_][name]]
                detail = _difference(row, present[id_], other)
                self.outcome.errors.append(LineError(number, detail, conflict=True, column=other[0]))
            elif id_ not in created or number != first[id_][0]:
                self.outcome.existing += 1
        self.outcome.created = [row["id"] for row in given if row["id"] in created]
        new = [row for row in given if row["id"] in created]
        self.sealed[str(table.name)] = seals.sum_up_rows(connection, str(table.name), new)
        return new


def _difference(row: Mapping[str, Any], present: Mapping[str, Any], names: Sequence[str]) -> str:
    shown = [f"{name} is {present[name]!r}, not {row[name]!r}" for name in names]
    return f"id {row['id']} exists with other content: {', '.join(shown)}"


def unregistered(what: str, id_: str) -> str:
    return f"{what} {id_} is not registered: register it first"


def register_enterprises(connection: Connection, lines: Sequence[Line]) -> Outcome:
    batch, now_ms = _Batch(lines), wall_ms()
    new = batch.insert(
        connection, enterprises, lambda _row: {"registered_ms": now_ms, "contracts_current": 0}
    )
    entries = Counter(in_county(Event.ENTERPRISE_REGISTERED, row["county"]) for row in new)
    ledger.append(connection, entries, batch.sealed)
    return batch.outcome


def irregular(id_: str, county: str, class_: str) -> int | None:
    """Value of the column of that name: None for an id that sorts by the unit's county and class."""
    return None if id_.startswith(id_prefix(county, class_)) else 1


def register_units(connection: Connection, lines: Sequence[Line]) -> Outcome:
    """A unit that is registered for a suspended enterprise is suspended with it."""
    batch, now_ms = _Batch(lines), wall_ms()
    lock_suspensions(connection, shared=True)
    owners = _owners(connection, batch, lock=False)

    def derive(row: dict[str, Any]) -> dict[str, Any]:
        owner = owners[row["enterprise"]]
        return {
            "county": owner.county,
            "industry": owner.industry,
            "irregular": irregular(row["id"], owner.county, row["class"]),
            "registered_ms": now_ms,
            "suspended_ms": owner.suspended_ms,
        }

    new = batch.insert(connection, units, derive)
    entries = Counter(in_county(Event.UNIT_REGISTERED, row["county"], row["class"]) for row in new)
    ledger.append(connection, entries, batch.sealed)
    return batch.outcome


def register_providers(connection: Connection, lines: Sequence[Line]) -> Outcome:
    batch, now_ms = _Batch(lines), wall_ms()
    new = batch.insert(connection, providers, lambda _row: {"registered_ms": now_ms})
    ledger.append(connection, Counter({Entry(Event.PROVIDER_REGISTERED): len(new)}), batch.sealed)
    return batch.outcome


def register_centres(connection: Connection, lines: Sequence[Line]) -> Outcome:
    batch, now_ms = _Batch(lines), wall_ms()
    new = batch.insert(connection, centres, lambda _row: {"registered_ms": now_ms})
    entries = Counter(Entry(Event.CENTRE_OPENED, city=row["city"]) for row in new)
    ledger.append(connection, entries, batch.sealed)
    return batch.outcome


def register_contracts(connection: Connection, lines: Sequence[Line]) -> Outcome:
    """The first contract of an enterprise puts it on cloud."""
    batch, now_ms = _Batch(lines), wall_ms()
    owners = _owners(connection, batch, lock=True)
    wanted = sorted({row["provider"] for _, row in batch.lines})
    known = connection.scalars(select(providers.c.id).where(among(connection, providers.c.id, wanted)))
    batch.refuse_unregistered("provider", set(known))
    new = batch.insert(connection, contracts, lambda _row: {"registered_ms": now_ms})
    entries = Counter(Entry(Event.CONTRACT_BEGUN, kind=row["kind"]) for row in new)
    changes = []
    for id_, number in sorted(Counter(row["enterprise"] for row in new).items()):
        owner = owners[id_]
        if owner.on_cloud_ms is None:
            entries[in_county(Event.ENTERPRISE_ONBOARDED, owner.county)] += 1
        elif owner.contracts_current == 0:
            entries[in_county(Event.ENTERPRISE_RETURNED, owner.county)] += 1
        if owner.contracts_current == 0 and owner.suspended_ms is not None:
            entries[in_county(Event.ENTERPRISE_SUSPENDED, owner.county)] += 1
        on_cloud_ms = now_ms if owner.on_cloud_ms is None else owner.on_cloud_ms
        changes.append((id_, on_cloud_ms, owner.contracts_current + number))
    if changes:
        columns = [enterprises.c.id, enterprises.c.on_cloud_ms, enterprises.c.contracts_current]
        given = rows_table(connection, columns, changes)
        connection.execute(
            update(enterprises)
            .where(enterprises.c.id == given.c.id)
            .values(on_cloud_ms=given.c.on_cloud_ms, contracts_current=given.c.contracts_current)
        )
    ledger.append(connection, entries, batch.sealed)
    return batch.outcome


def register_recognitions(connection: Connection, lines: Sequence[Line]) -> Outcome:
    """A platform that is recognised in a higher tier leaves its previous tier; a recognition in a tier that
    is no higher has ended when it is entered."""
    batch, now_ms = _Batch(lines), wall_ms()
    rank = {kind.value: place for place, kind in enumerate(TIERS)}
    tiered = sorted({row["subject"] for _, row in lines if row["kind"] in rank})
    if tiered:
        lock_recognitions(connection)
    _refuse_unknown_subjects(connection, batch, tiered)
    new = batch.insert(
        connection,
        recognitions,
        lambda row: {"registered_ms": now_ms, "ended_ms": now_ms if row["kind"] in rank else None},
    )
    entries = Counter(Entry(Event.RECOGNISED, kind=row["kind"]) for row in new)
    of_subjects = among(connection, recognitions.c.subject, tiered)
    query = select(recognitions).where(
        of_subjects, recognitions.c.kind.in_(TIERS), recognitions.c.ended_ms.is_(None)
    )
    stood = {row.subject: (rank[row.kind], row.id) for row in connection.execute(query)} if tiered else {}
    stands = dict(stood)
    added = {row["id"]: row for row in new if row["kind"] in rank}
    for _, row in batch.lines:
        if row["id"] in added and rank[row["kind"]] > stands.get(row["subject"], (-1,))[0]:
            stands[row["subject"]] = (rank[row["kind"]], row["id"])
    left = [place for subject, place in stood.items() if stands[subject] != place]
    risen = [id_ for subject, (_, id_) in stands.items() if id_ in added]
    # One tier at a time, also for the database, which holds each platform to one.
    for ids, ended_ms in (([id_ for _, id_ in left], now_ms), (risen, None)):
        if ids:
            these = among(connection, recognitions.c.id, ids)
            connection.execute(update(recognitions).where(these).values(ended_ms=ended_ms))
    ended = [TIERS[place] for place, _ in left] + [added[id_]["kind"] for id_ in added.keys() - set(risen)]
    entries += Counter(Entry(Event.RECOGNITION_ENDED, kind=kind) for kind in ended)
    ledger.append(connection, entries, batch.sealed)
    return batch.outcome


def register_disbursements(connection: Connection, lines: Sequence[Line]) -> Outcome:
    batch, now_ms = _Batch(lines), wall_ms()
    new = batch.insert(connection, disbursements, lambda _row: {"registered_ms": now_ms})
    entries: Counter[Entry] = Counter()
    for row in new:
        for column, event in ledger.VOUCHERS.items():
            entries[Entry(event, level=row["level"])] += row[column]
    ledger.append(connection, entries, batch.sealed)
    return batch.outcome


def _refuse_unknown_subjects(connection: Connection, batch: _Batch, platforms: Collection[str]) -> None:
    """Lines about what is not registered become errors. A platform is registered by its first tier, which may
    be a line of this batch."""
    ids = {
        "provider": (providers.c.id, (Recognised.SUPPLIER,)),
        "enterprise": (enterprises.c.id, (Recognised.PILOT,)),
        "platform": (recognitions.c.subject, (Recognised.LEADING, Recognised.APPLICATION)),
    }
    for what, (column, kinds) in ids.items():
        mine = [(number, row["subject"]) for number, row in batch.lines if row["kind"] in kinds]
        query = select(column).where(among(connection, column, sorted({subject for _, subject in mine})))
        if what == "platform":
            query = query.where(recognitions.c.kind.in_(TIERS))
        known = {*(connection.scalars(query) if mine else ()), *(platforms if what == "platform" else ())}
        wrong = {number: subject for number, subject in mine if subject not in known}
        batch.outcome.errors += [
            LineError(number, unregistered(what, subject), column="subject")
            for number, subject in wrong.items()
        ]
        batch.lines = [line for line in batch.lines if line[0] not in wrong]


def _owners(connection: Connection, batch: _Batch, *, lock: bool) -> dict[str, Row[Any]]:
    """The enterprises that the lines name; lines of unknown ones are refused."""
    wanted = sorted({row["enterprise"] for _, row in batch.lines})
    query = select(enterprises).where(among(connection, enterprises.c.id, wanted)).order_by(enterprises.c.id)
    if lock:
        query = query.with_for_update(key_share=True)
    owners = {row.id: row for row in connection.execute(query)}
    batch.refuse_unregistered("enterprise", owners)
    return owners


@dataclass(frozen=True, slots=True)
class Series:
    """Ids that the platform makes, with a separate number sequence and form."""

    name: str
    first: int
    make_id: Callable[[int], str]


@dataclass(frozen=True, slots=True)
class Book:
    """A kind of registered resource."""

    table: Table
    register: Callable[[Connection, Sequence[Line]], Outcome]
    series: Callable[[Connection, Mapping[str, Any]], Series]


def _enterprise_series(_connection: Connection, row: Mapping[str, Any]) -> Series:
    county = row["county"]
    return Series(f"enterprise:{county}", FIRST_ENTERPRISE_NUMBER, partial(enterprise_id, county))


def _unit_series(connection: Connection, row: Mapping[str, Any]) -> Series:
    county = connection.scalar(select(enterprises.c.county).where(enterprises.c.id == row["enterprise"]))
    if county is None:
        raise Invalid(unregistered("enterprise", row["enterprise"]))
    return Series(f"unit:{county}:{row['class']}", FIRST_UNIT_NUMBER, partial(unit_id, county, row["class"]))


def _plain_series(name: str) -> Callable[[Connection, Mapping[str, Any]], Series]:
    series = Series(name, 1, lambda number: f"{name}-{number}")
    return lambda _connection, _row: series


BOOKS: Mapping[str, Book] = {
    "enterprises": Book(enterprises, register_enterprises, _enterprise_series),
    "units": Book(units, register_units, _unit_series),
    "providers": Book(providers, register_providers, _plain_series("provider")),
    "contracts": Book(contracts, register_contracts, _plain_series("contract")),
    "centres": Book(centres, register_centres, _plain_series("centre")),
    "recognitions": Book(recognitions, register_recognitions, _plain_series("recognition")),
    "disbursements": Book(disbursements, register_disbursements, _plain_series("disbursement")),
}


def register_one(
    connection: Connection, book: Book, row: dict[str, Any], confined_to: str | None = None
) -> tuple[str, bool]:
    """Its id, and whether it is new. Raises Invalid for an unknown reference, Conflict for an id with other
    content. A caller that is confined to an enterprise learns nothing of other enterprises' content."""
    if row["id"] is None:
        row = row | {"id": _free_id(connection, book, row)}
    outcome = book.register(connection, [(1, row)])
    for error in outcome.errors:
        if error.conflict and confined_to is not None and not _owns(connection, book, row["id"], confined_to):
            raise Conflict(f"id {row['id']} is taken: choose another one, or leave it out.")
        raise (Conflict if error.conflict else Invalid)(error.detail)
    return row["id"], bool(outcome.created)


def _owns(connection: Connection, book: Book, id_: str, enterprise: str) -> bool:
    owner = select(book.table.c.enterprise).where(book.table.c.id == id_)
    return connection.scalar(owner) == enterprise


def _free_id(connection: Connection, book: Book, row: Mapping[str, Any]) -> str:
    series, step = book.series(connection, row), 1
    while True:
        id_ = series.make_id(_take(connection, series, step))
        if connection.scalar(select(book.table.c.id).where(book.table.c.id == id_)) is None:
            return id_
        # Callers chose ids in our series: leave their stretch in few steps, however long it is.
        step *= 2


def _take(connection: Connection, series: Series, step: int) -> int:
    insert = insert_rows(connection, sequences, [{"name": series.name, "next": series.first}])
    upsert = insert.on_conflict_do_update(
        index_elements=["name"], set_={"next": sequences.c.next + step}
    ).returning(sequences.c.next)
    return int(connection.scalars(upsert).one())
