"""Statements with many rows or values in one parameter, and digests of rows, the same for both databases."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator, Mapping, Sequence
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
        each = values_table(rows)
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


def values_table(values: Sequence[Any]) -> FromClause:
    """`values` as the column `value` of a table in SQLite, in one parameter."""
    text = msgspec.json.encode(values).decode()
    return func.json_each(bindparam(None, text, String)).table_valued("value")


def _bare(type_: TypeEngine[Any]) -> TypeEngine[Any]:
    # A length in a cast cuts silently; the column itself refuses what is too long.
    return String() if isinstance(type_, String) else type_


def among(connection: Connection, column: Column[Any], values: Sequence[Any]) -> ColumnElement[bool]:
    """The condition that `column` is one of `values`, however many, in one parameter."""
    if connection.dialect.name == "sqlite":
        return column.in_(select(values_table(values).c.value))
    return column == func.any(bindparam(None, list(values), postgresql.ARRAY(_bare(column.type))))


_Values = Sequence[str | int | None]


def _joined(columns: Sequence[_Values]) -> Iterator[bytes]:
    texts = [
        column
        if set(map(type, column)) <= {str}
        else ["" if value is None else str(value) for value in column]
        for column in columns
    ]
    return map(str.encode, map("\x1f".join, zip(*texts, strict=True)))


def crc(*values: str | int | None) -> int:
    return zlib.crc32("\x1f".join(["" if value is None else str(value) for value in values]).encode())


def _sha(row: bytes) -> int:
    return int.from_bytes(hashlib.sha256(row).digest()[:4])


def row_digests(connection: Connection, columns: Sequence[_Values]) -> list[int]:
    """For each row of `columns`, 32 bits that tell rows apart: the same of the same values as `digest_of`
    finds in the database. SQLite calls us for it, as cheaply as there is; PostgreSQL has no checksum but
    cryptographic ones."""
    return list(map(zlib.crc32 if connection.dialect.name == "sqlite" else _sha, _joined(columns)))


def digest_of(connection: Connection, columns: Sequence[ColumnElement[Any]]) -> ColumnElement[int]:
    """`row_digests` of these columns, computed by the database."""
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
