"""Registering columns: a block of an import in one transaction, at the speed of the database.

The common block holds new things only. It goes in by the fastest statement there is, which fails when
anything in it is there already, and the whole transaction with it. The next try compares the block with what
is there; what is neither all new nor all there takes the way of every other registration (registration.py),
which says what is wrong where.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any

import psycopg
from qilu_contract.clock import wall_ms
from qilu_contract.ids import id_prefix
from sqlalchemy import Connection, Table, select
from sqlalchemy.exc import OperationalError

from qilu_platform import ledger
from qilu_platform.database import among
from qilu_platform.ledger import Entry, Event, in_county
from qilu_platform.parsing import Block, Columns
from qilu_platform.registration import BOOKS, LineError, unregistered
from qilu_platform.schema import enterprises

MAX_OWNERS = 50_000
"""Enterprises that an import keeps in mind: it meets the same ones again and again."""

Owners = dict[str, tuple[str, str]]
"""County and industry of enterprises, by id; neither ever changes."""
_Row = tuple[str | int | None, ...]

_UNIT = ("id", "class", "enterprise", "name", "county", "industry", "irregular", "registered_ms")
_ENTERPRISE = ("id", "name", "county", "industry", "uscc", "registered_ms", "contracts_current")


@dataclass(slots=True)
class Loaded:
    created: int = 0
    existing: int = 0
    errors: list[LineError] = field(default_factory=list)


class NotNewError(Exception):
    """Something is there already: roll the transaction back, and try again with `new=False`."""


def load(connection: Connection, book: str, block: Block, owners: Owners, *, new: bool) -> Loaded:
    """Register a block's rows in the caller's transaction; the errors are those of the block as well. With
    `new`, nothing is expected to be there: raises NotNewError otherwise. `owners` grows by the enterprises
    that were looked up."""
    done = Loaded(errors=list(block.errors))
    numbers, columns = block.numbers, block.columns
    if book == "units":
        _look_up(connection, columns["enterprise"], owners)
        numbers, columns = _owned(numbers, columns, owners, done)
    if not numbers:
        return done
    if new:
        _insert(connection, book, columns, owners)
        done.created = len(numbers)
    elif _all_there(connection, BOOKS[book].table, columns):
        done.existing = len(numbers)
    else:
        names = list(columns)
        rows = [dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        outcome = BOOKS[book].register(connection, list(zip(numbers, rows, strict=True)))
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
    numbers: Sequence[int], columns: Columns, owners: Owners, done: Loaded
) -> tuple[Sequence[int], Columns]:
    """What is left without the lines whose enterprise is not registered."""
    given = columns["enterprise"]
    if owners.keys() >= set(given):
        return numbers, columns
    kept = [place for place, id_ in enumerate(given) if id_ in owners]
    done.errors += [
        LineError(number, unregistered("enterprise", str(id_)), column="enterprise")
        for number, id_ in zip(numbers, given, strict=True)
        if id_ not in owners
    ]
    left = {name: [values[place] for place in kept] for name, values in columns.items()}
    return [numbers[place] for place in kept], left


def _insert(connection: Connection, book: str, columns: Columns, owners: Owners) -> None:
    make, names = (_units, _UNIT) if book == "units" else (_enterprises, _ENTERPRISE)
    rows, entries = make(columns, owners)
    try:
        _insert_rows(connection, BOOKS[book].table, names, rows)
    except (sqlite3.IntegrityError, psycopg.IntegrityError) as error:
        raise NotNewError from error
    except (sqlite3.Error, psycopg.Error) as error:
        raise OperationalError("insert of a block", None, error) from error
    ledger.append(connection, entries)


def _units(columns: Columns, owners: Owners) -> tuple[Iterable[_Row], Counter[Entry]]:
    # Columns and iterators all the way, no object for each row: the garbage collector would look at them all.
    ids: Sequence[Any] = columns["id"]
    classes: Sequence[Any] = columns["class"]
    of_owners: Iterable[Any] = map(owners.__getitem__, columns["enterprise"])  # type: ignore[arg-type]
    counties, industries = zip(*of_owners, strict=True)
    counted = Counter(zip(counties, classes, strict=True))
    prefixes = {cell: id_prefix(*cell) for cell in counted}
    wanted = map(prefixes.__getitem__, zip(counties, classes, strict=True))
    irregular: Iterable[int | None] = repeat(None, len(ids))
    if not all(map(str.startswith, ids, wanted)):
        wanted = map(prefixes.__getitem__, zip(counties, classes, strict=True))
        irregular = [None if id_.startswith(prefix) else 1 for id_, prefix in zip(ids, wanted, strict=True)]
    asked = [columns[name] for name in _UNIT[:4]]
    entries = Counter({in_county(Event.UNIT_REGISTERED, *cell): count for cell, count in counted.items()})
    rows = zip(*asked, counties, industries, irregular, repeat(wall_ms(), len(ids)), strict=True)
    return rows, entries


def _enterprises(columns: Columns, _owners: Owners) -> tuple[Iterable[_Row], Counter[Entry]]:
    asked = [columns[name] for name in _ENTERPRISE[:5]]
    number = len(columns["id"])
    counties: Iterable[Any] = columns["county"]
    entries = Counter(in_county(Event.ENTERPRISE_REGISTERED, county) for county in counties)
    return zip(*asked, repeat(wall_ms(), number), repeat(0, number), strict=True), entries


def _insert_rows(connection: Connection, table: Table, names: Sequence[str], rows: Iterable[_Row]) -> None:
    """By the fastest way of each database, below SQLAlchemy; raises the driver's errors."""
    columns = ", ".join(f'"{name}"' for name in names)
    driver: Any = connection.connection.driver_connection
    if connection.dialect.name == "sqlite":
        marks = ", ".join("?" * len(names))
        driver.executemany(f"INSERT INTO {table.name} ({columns}) VALUES ({marks})", rows)  # noqa: S608
        return
    with driver.cursor() as cursor, cursor.copy(f"COPY {table.name} ({columns}) FROM STDIN") as copy:
        copy.write("\n".join(map(_copy_line, rows)) + "\n")


def _copy_line(row: _Row) -> str:
    r"""A line of PostgreSQL's text format: tabs between, `\N` for null. Names hold no tab and no line
    break."""
    return "\t".join([r"\N" if value is None else str(value).replace("\\", r"\\") for value in row])


def _all_there(connection: Connection, table: Table, columns: Columns) -> bool:
    """Whether every row is registered already with the same content."""
    names = list(columns)
    query = select(*(table.c[name] for name in names)).where(
        among(connection, table.c.id, list(columns["id"]))
    )
    there = set(map(tuple, connection.execute(query)))
    return there.issuperset(zip(*columns.values(), strict=True))
