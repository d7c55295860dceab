"""Statements with many rows or values in one parameter, and digests of rows, the same for both databases."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    FromClause,
    String,
    Table,
    Text,
    bindparam,
    cast,
    func,
    select,
    true,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.types import TypeEngine


def rows_table(
    connection: Connection, columns: Sequence[Column[Any]], rows: Sequence[Sequence[Any]]
) -> FromClause:
    """`rows` as a table `given` with the names and types of `columns`, in one parameter (SQLite) or one a
    column (PostgreSQL)."""
    if connection.dialect.name == "sqlite":
        each = func.json_each(bindparam(None, msgspec.json.encode(rows).decode(), String)).table_valued(
            "value"
        )
        fields = [
            func.json_extract(each.c.value, f"$[{place}]", type_=column.type).label(column.name)
            for place, column in enumerate(columns)
        ]
        return select(*fields).subquery("given")
    turned: Sequence[Sequence[Any]] = list(zip(*rows, strict=True)) or [()] * len(columns)
    arrays = [
        bindparam(None, list(values), postgresql.ARRAY(_bare(column.type)))
        for values, column in zip(turned, columns, strict=True)
    ]
    names = [Column(column.name, column.type) for column in columns]
    return func.unnest(*arrays).table_valued(*names, name="given").render_derived()


def _bare(type_: TypeEngine[Any]) -> TypeEngine[Any]:
    # A length in a cast cuts silently; the column itself refuses what is too long.
    return String() if isinstance(type_, String) else type_


def among(connection: Connection, column: Column[Any], values: Sequence[Any]) -> ColumnElement[bool]:
    """The condition that `column` is one of `values`, however many, in one parameter."""
    if connection.dialect.name == "sqlite":
        each = func.json_each(bindparam(None, msgspec.json.encode(values).decode(), String)).table_valued(
            "value"
        )
        return column.in_(select(each.c.value))
    return column == func.any(bindparam(None, list(values), postgresql.ARRAY(_bare(column.type))))


def _joined(values: Sequence[str | int | None]) -> bytes:
    return "\x1f".join(["" if value is None else str(value) for value in values]).encode()


def crc(*values: str | int | None) -> int:
    return zlib.crc32(_joined(values))


def _sha(*values: str | int | None) -> int:
    return int.from_bytes(hashlib.sha256(_joined(values)).digest()[:4])


def row_digest(connection: Connection) -> Callable[..., int]:
    """32 bits that tell rows apart: the same of the same values as `digest_of` finds in the database. SQLite
    calls us for it, as cheaply as there is; PostgreSQL has no checksum but cryptographic ones."""
    return crc if connection.dialect.name == "sqlite" else _sha


def digest_of(connection: Connection, columns: Sequence[ColumnElement[Any]]) -> ColumnElement[int]:
    """`row_digest` of these columns, computed by the database."""
    if connection.dialect.name == "sqlite":
        return func.row_digest(*columns, type_=BigInteger)
    texts = [func.coalesce(cast(column, Text), "") for column in columns]
    joined: ColumnElement[str] = texts[0]
    for each in texts[1:]:
        joined = joined.concat("\x1f").concat(each)
    hashed = func.encode(func.sha256(func.convert_to(joined, "UTF8")), "hex")
    return cast(cast(func.concat("x", func.left(hashed, 8)), postgresql.BIT(32)), BigInteger)


def insert_rows(
    connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]
) -> postgresql.Insert | sqlite.Insert:
    """The statement that inserts `rows` (all with the same keys) in their order; the caller says what happens
    on conflict."""
    names = list(rows[0])
    given = rows_table(connection, [table.c[name] for name in names], [list(row.values()) for row in rows])
    # `WHERE true` lets SQLite tell ON CONFLICT from the ON of a join.
    source = select(*given.c).where(true())
    make = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    return make(table).from_select(names, source)
