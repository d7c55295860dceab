"""Entering things into the registry, one or many at a time, by the same set-based statements.

A line is a row as the API took it, with its number in the body for the answer. Same id and same content is
already there and fine; same id and other content is an error of that line.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from qilu_contract.clock import wall_ms
from qilu_contract.ids import enterprise_id, unit_id
from sqlalchemy import Connection, Row, RowMapping, Table, select, update

from qilu_platform import ledger
from qilu_platform.database import among, insert_rows, rows_table
from qilu_platform.ledger import Entry, Event, in_county
from qilu_platform.problems import Problem
from qilu_platform.schema import centres, contracts, enterprises, providers, sequences, units

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


@dataclass(slots=True)
class Outcome:
    created: list[str] = field(default_factory=list)
    existing: int = 0
    errors: list[LineError] = field(default_factory=list)


class _Batch:
    """Lines by id: a later line with the same content shares the fate of the first, one with other content is
    an error."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self.rows: dict[str, dict[str, Any]] = {}
        self.outcome = Outcome()
        self._numbers: dict[str, list[int]] = {}
        for number, row in lines:
            id_ = row["id"]
            first = self.rows.setdefault(id_, row)
            if first is row:
                self._numbers[id_] = [number]
            elif first == row:
                self._numbers[id_].append(number)
            else:
                why = f"id {id_} stands on line {self._numbers[id_][0]} with other content"
                self.outcome.errors.append(LineError(number, why, conflict=True))

    def refuse(self, id_: str, why: str, *, conflict: bool = False) -> None:
        del self.rows[id_]
        self.outcome.errors.extend(LineError(number, why, conflict) for number in self._numbers[id_])

    def insert(
        self, connection: Connection, table: Table, derive: Callable[[dict[str, Any]], dict[str, Any]]
    ) -> list[dict[str, Any]]:
        """Insert what is left, each row completed by `derive`; compare what was there already; return the new
        rows."""
        if not self.rows:
            return []
        given = [row | derive(row) for _, row in sorted(self.rows.items())]
        statement = insert_rows(connection, table, given).on_conflict_do_nothing(index_elements=["id"])
        created = set(connection.scalars(statement.returning(table.c.id)))
        old = [id_ for id_ in self.rows if id_ not in created]
        if old:
            columns = [table.c[name] for name in self.rows[old[0]]]
            for stored in connection.execute(select(*columns).where(among(connection, table.c.id, old))):
                self._compare(stored._mapping)
        self.outcome.created = [row["id"] for row in given if row["id"] in created]
        self.outcome.existing += sum(len(self._numbers[id_]) for id_ in self.rows) - len(created)
        return [row for row in given if row["id"] in created]

    def _compare(self, stored: RowMapping) -> None:
        row = self.rows[stored["id"]]
        other = [name for name, value in row.items() if stored[name] != value]
        if other:
            shown = ", ".join(f"{name} is {stored[name]!r}, not {row[name]!r}" for name in other)
            self.refuse(stored["id"], f"id {stored['id']} exists with other content: {shown}", conflict=True)


def register_enterprises(connection: Connection, lines: Sequence[Line]) -> Outcome:
    batch, now_ms = _Batch(lines), wall_ms()
    new = batch.insert(
        connection, enterprises, lambda _row: {"registered_ms": now_ms, "contracts_current": 0}
    )
    ledger.append(connection, Counter(in_county(Event.ENTERPRISE_REGISTERED, row["county"]) for row in new))
    return batch.outcome


def register_units(connection: Connection, lines: Sequence[Line]) -> Outcome:
    batch, now_ms = _Batch(lines), wall_ms()
    owners = _owners(connection, batch, lock=False)

    def derive(row: dict[str, Any]) -> dict[str, Any]:
        owner = owners[row["enterprise"]]
        return {"county": owner.county, "industry": owner.industry, "registered_ms": now_ms}

    new = batch.insert(connection, units, derive)
    ledger.append(
        connection, Counter(in_county(Event.UNIT_REGISTERED, row["county"], row["class"]) for row in new)
    )
    return batch.outcome


def register_providers(connection: Connection, lines: Sequence[Line]) -> Outcome:
    batch, now_ms = _Batch(lines), wall_ms()
    new = batch.insert(connection, providers, lambda _row: {"registered_ms": now_ms})
    ledger.append(connection, Counter({Entry(Event.PROVIDER_REGISTERED): len(new)}))
    return batch.outcome


def register_centres(connection: Connection, lines: Sequence[Line]) -> Outcome:
    batch, now_ms = _Batch(lines), wall_ms()
    new = batch.insert(connection, centres, lambda _row: {"registered_ms": now_ms})
    ledger.append(connection, Counter(Entry(Event.CENTRE_OPENED, city=row["city"]) for row in new))
    return batch.outcome


def register_contracts(connection: Connection, lines: Sequence[Line]) -> Outcome:
    """The first contract of an enterprise puts it on cloud."""
    batch, now_ms = _Batch(lines), wall_ms()
    owners = _owners(connection, batch, lock=True)
    wanted = sorted({row["provider"] for row in batch.rows.values()})
    known = set(connection.scalars(select(providers.c.id).where(among(connection, providers.c.id, wanted))))
    for id_, row in list(batch.rows.items()):
        if row["provider"] not in known:
            batch.refuse(id_, _unregistered("provider", row["provider"]))
    new = batch.insert(connection, contracts, lambda _row: {"registered_ms": now_ms})
    entries = Counter(Entry(Event.CONTRACT_BEGUN, kind=row["kind"]) for row in new)
    changes = []
    for id_, number in sorted(Counter(row["enterprise"] for row in new).items()):
        owner = owners[id_]
        if owner.on_cloud_ms is None:
            entries[in_county(Event.ENTERPRISE_ONBOARDED, owner.county)] += 1
        elif owner.contracts_current == 0:
            entries[in_county(Event.ENTERPRISE_RETURNED, owner.county)] += 1
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
    ledger.append(connection, entries)
    return batch.outcome


def _owners(connection: Connection, batch: _Batch, *, lock: bool) -> dict[str, Row[Any]]:
    """The enterprises that the lines name; lines of unknown ones are refused."""
    wanted = sorted({row["enterprise"] for row in batch.rows.values()})
    query = select(enterprises).where(among(connection, enterprises.c.id, wanted)).order_by(enterprises.c.id)
    if lock:
        query = query.with_for_update(key_share=True)
    owners = {row.id: row for row in connection.execute(query)}
    for id_, row in list(batch.rows.items()):
        if row["enterprise"] not in owners:
            batch.refuse(id_, _unregistered("enterprise", row["enterprise"]))
    return owners


def _unregistered(what: str, id_: str) -> str:
    return f"{what} {id_} is not registered: register it first"


@dataclass(frozen=True, slots=True)
class Series:
    """Ids that the platform makes: numbers of their own, in a form of their own."""

    name: str
    first: int
    make_id: Callable[[int], str]


@dataclass(frozen=True, slots=True)
class Book:
    """One of the registry's five kinds of thing."""

    table: Table
    register: Callable[[Connection, Sequence[Line]], Outcome]
    series: Callable[[Connection, Mapping[str, Any]], Series]


def _enterprise_series(_connection: Connection, row: Mapping[str, Any]) -> Series:
    county = row["county"]
    return Series(f"enterprise:{county}", FIRST_ENTERPRISE_NUMBER, partial(enterprise_id, county))


def _unit_series(connection: Connection, row: Mapping[str, Any]) -> Series:
    county = connection.scalar(select(enterprises.c.county).where(enterprises.c.id == row["enterprise"]))
    if county is None:
        raise Problem(422, _unregistered("enterprise", row["enterprise"]))
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
}


def register_one(connection: Connection, book: Book, row: dict[str, Any]) -> tuple[str, bool]:
    """Its id, and whether it is new. Raises Problem: 422 for an unknown reference, 409 for an id with other
    content."""
    if row["id"] is None:
        row = row | {"id": _free_id(connection, book, row)}
    outcome = book.register(connection, [(1, row)])
    for error in outcome.errors:
        raise Problem(409 if error.conflict else 422, error.detail)
    return row["id"], bool(outcome.created)


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
