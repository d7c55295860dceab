"""Registers a block of an import by column, in one transaction, at the speed of the database.

The common block holds new things only. It goes in by the fastest statement there is, which fails when
anything in it is there already, and the whole transaction with it. The next try compares the block with what
is there; what is neither all new nor all there takes the way of every other registration
(registry/registration.py), which says what is wrong where.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

import msgspec
import psycopg
from qilu_contract.wire.clock import wall_ms
from qilu_contract.wire.ids import id_prefix
from sqlalchemy import Connection, Table, select
from sqlalchemy.exc import IntegrityError, OperationalError

from qilu_platform.counting.ledger import Entry, Event, in_county
from qilu_platform.database import seals
from qilu_platform.database.locks import lock_suspensions
from qilu_platform.database.schema import enterprises
from qilu_platform.database.statements import among
from qilu_platform.imports.parsing import Block, Columns, numbered_rows, parse
from qilu_platform.registry.registration import BOOKS, LineError, Outcome, unregistered

MAX_OWNERS = 50_000
"""Enterprises that an import keeps in mind: it meets the same ones again and again."""

Owners = dict[str, tuple[str, str]]
"""County and industry of enterprises, by id; neither ever changes."""
_Filled = Sequence[Sequence[str | None]]
"""All columns that differ by row, in the order of _INSERTED."""
_INSERTED: Mapping[str, tuple[Sequence[str], Mapping[str, int]]] = {
    "units": (("id", "class", "enterprise", "name", "county", "industry", "irregular"), {}),
    "enterprises": (("id", "name", "county", "industry", "uscc"), {"contracts_current": 0}),
}
"""Columns, and those that are the same for all rows (beside `registered_ms`)."""


@dataclass(frozen=True, slots=True)
class Ready:
    """A block ready to be inserted: `rows` for the database if all are new, and their `entries` for the
    ledger. Prepared before the transaction, to keep it short."""

    book: str
    size: int
    lines: int
    numbers: Sequence[int]
    columns: Columns
    errors: Sequence[LineError]
    rows: str
    entries: Counter[Entry]
    sealed: seals.Sum


@dataclass(slots=True)
class Loaded:
    created: int = 0
    existing: int = 0
    errors: list[LineError] = field(default_factory=list)
    entries: Counter[Entry] = field(default_factory=Counter)
    """Ledger entries to be written at the end of the transaction."""
    sealed: seals.Sum = (0, 0)
    """Likewise the seal of the table."""


class NotNewError(Exception):
    """A row exists already: the caller rolls the transaction back, and retries with `new=False`."""


def register_lines(connection: Connection, book: str, lines: bytes) -> Outcome:
    """Register NDJSON in the caller's transaction: few enough lines that they need no job."""
    block = parse(book, None, lines, 1)
    outcome = BOOKS[book].register(connection, numbered_rows(block.numbers, block.columns))
    outcome.errors.extend(block.errors)
    return outcome


def prepare(connection: Connection, book: str, block: Block, owners: Owners) -> Ready:
    """Look up what a block's rows need, and write them down for the database. `owners` grows by the
    enterprises that were looked up: who is registered stays so, in its county and industry."""
    numbers, columns, errors = block.numbers, block.columns, list(block.errors)
    if book == "units":
        _look_up(connection, columns["enterprise"] if numbers else (), owners)
        numbers, columns = _owned(numbers, columns, owners, errors)
    rows, entries, sealed = "", Counter[Entry](), (0, 0)
    if numbers:
        filled, entries = _units(columns, owners) if book == "units" else _enterprises(columns)
        rows = _json(filled) if connection.dialect.name == "sqlite" else _copied(filled)
        sealed = seals.sum_up(connection, book, dict(zip(_INSERTED[book][0], filled, strict=True)))
    return Ready(book, block.size, block.lines, numbers, columns, errors, rows, entries, sealed)


def load(connection: Connection, ready: Ready, *, new: bool) -> Loaded:
    """Register a block's rows in the caller's transaction; the errors are those of the block as well. With
    `new`, nothing is expected to be there: raises NotNewError otherwise."""
    done = Loaded(errors=list(ready.errors))
    numbers, columns, book = ready.numbers, ready.columns, BOOKS[ready.book]
    if not numbers:
        return done
    suspended = ready.book == "units" and _of_suspended(connection, columns["enterprise"])
    if new and suspended:
        raise NotNewError  # they are suspended as well, which only the other way knows of
    if new:
        _insert(connection, ready)
        done.entries, done.sealed = ready.entries, ready.sealed
        done.created = len(numbers)
    elif _all_there(connection, book.table, columns):
        done.existing = len(numbers)
    else:
        outcome = book.register(connection, numbered_rows(numbers, columns))
        done.created, done.existing = len(outcome.created), outcome.existing
        done.errors += outcome.errors
    return done


def _look_up(connection: Connection, ids: Iterable[Any], owners: Owners) -> None:
    wanted = sorted(set(ids) - owners.keys())
    if not wanted:
        return
    if len(owners) > MAX_OWNERS:
        owners.clear()
        wanted = sorted(set(ids))
    query = select(enterprises.c.id, enterprises.c.county, enterprises.c.industry)
    for id_, county, industry in connection.execute(query.where(among(connection, enterprises.c.id, wanted))):
        owners[id_] = (county, industry)


def _owned(
    numbers: Sequence[int], columns: Columns, owners: Owners, errors: list[LineError]
) -> tuple[Sequence[int], Columns]:
    """Remove lines whose enterprise is not registered; they become errors."""
    given = columns["enterprise"] if numbers else ()
    if owners.keys() >= set(given):
        return numbers, columns
    kept = [place for place, id_ in enumerate(given) if id_ in owners]
    errors += [
        LineError(number, unregistered("enterprise", str(id_)), column="enterprise")
        for number, id_ in zip(numbers, given, strict=True)
        if id_ not in owners
    ]
    left = {name: [values[place] for place in kept] for name, values in columns.items()}
    return [numbers[place] for place in kept], left


def _units(columns: Columns, owners: Owners) -> tuple[_Filled, Counter[Entry]]:
    # By the column, no object for each row: the garbage collector would look at them all.
    ids: Sequence[Any] = columns["id"]
    classes: Sequence[Any] = columns["class"]
    of_owners: list[tuple[str, str]] = list(map(owners.__getitem__, columns["enterprise"]))  # type: ignore[arg-type]
    counties, industries = list(map(itemgetter(0), of_owners)), list(map(itemgetter(1), of_owners))
    counted = Counter(zip(counties, classes, strict=True))
    prefixes = {cell: id_prefix(*cell) for cell in counted}
    wanted = map(prefixes.__getitem__, zip(counties, classes, strict=True))
    irregular: list[str | None] = [None] * len(ids)
    if not all(map(str.startswith, ids, wanted)):
        wanted = map(prefixes.__getitem__, zip(counties, classes, strict=True))
        irregular = [None if id_.startswith(prefix) else "1" for id_, prefix in zip(ids, wanted, strict=True)]
    asked: list[Sequence[Any]] = [columns[name] for name in ("id", "class", "enterprise", "name")]
    entries = Counter({in_county(Event.UNIT_REGISTERED, *cell): count for cell, count in counted.items()})
    return [*asked, counties, industries, irregular], entries


def _enterprises(columns: Columns) -> tuple[_Filled, Counter[Entry]]:
    counties: Iterable[Any] = columns["county"]
    entries = Counter(in_county(Event.ENTERPRISE_REGISTERED, county) for county in counties)
    return [columns[name] for name in _INSERTED["enterprises"][0]], entries


def _json(filled: _Filled) -> str:
    return msgspec.json.encode(list(zip(*filled, strict=True))).decode()


def _copied(filled: _Filled) -> str:
    r"""PostgreSQL's text format: tabs between, `\N` for null. Names hold no tab and no line break."""
    escaped = [
        [r"\N" if value is None else value.replace("\\", r"\\") for value in column] for column in filled
    ]
    return "\n".join(map("\t".join, zip(*escaped, strict=True)))


def _insert(connection: Connection, ready: Ready) -> None:
    """Insert with one statement, during which other threads run. Raises NotNewError."""
    table, (names, constants) = BOOKS[ready.book].table, _INSERTED[ready.book]
    added = {**constants, "registered_ms": wall_ms()}
    columns = ", ".join(f'"{name}"' for name in (*names, *added))
    try:
        if connection.dialect.name == "sqlite":
            fields = [f"json_extract(value, '$[{place}]')" for place in range(len(names))] + ["?"] * len(
                added
            )
            statement = f"INSERT INTO {table.name} ({columns}) SELECT {', '.join(fields)} FROM json_each(?)"  # noqa: S608
            connection.exec_driver_sql(statement, (*added.values(), ready.rows))
            return
        driver: Any = connection.connection.driver_connection
        tail = "".join(f"\t{value}" for value in added.values()) + "\n"
        with driver.cursor() as cursor, cursor.copy(f"COPY {table.name} ({columns}) FROM STDIN") as copy:
            copy.write(ready.rows.replace("\n", tail) + tail)
    except (IntegrityError, psycopg.IntegrityError) as error:
        raise NotNewError from error
    except psycopg.Error as error:
        raise OperationalError("insert of a block", None, error) from error


def _of_suspended(connection: Connection, owners: Sequence[Any]) -> bool:
    """Whether any of these enterprises is suspended; none is from now on until the transaction ends."""
    lock_suspensions(connection, shared=True)
    suspended = connection.scalars(select(enterprises.c.id).where(enterprises.c.suspended_ms.is_not(None)))
    return not set(suspended).isdisjoint(owners)


def _all_there(connection: Connection, table: Table, columns: Columns) -> bool:
    """Whether every row is registered already with the same content."""
    names = list(columns)
    query = select(*(table.c[name] for name in names)).where(
        among(connection, table.c.id, list(columns["id"]))
    )
    there = set(map(tuple, connection.execute(query)))
    return there.issuperset(zip(*columns.values(), strict=True))
