"""Seals: for each table, how many rows were written and the sum of their digests, kept by the transactions
that write them.

Columns that never change are sealed. So the audit detects rows that were changed, added or removed by hand
without an effect on counts: a unit given to another enterprise of the same place, the time of a line of the
ledger, a line of the audit log that is gone. It detects mistakes, not attacks: anyone who can write the
tables can write the seals as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Table, func, select

from qilu_platform.database.schema import metadata, seals, units
from qilu_platform.database.statements import digest_of, insert_rows, row_digests

SEALED: Final[Mapping[str, Sequence[str]]] = {
    "audit_log": ("at_ms", "key", "action", "subject", "detail"),
    "centres": ("id", "city"),
    "contracts": ("id", "enterprise", "provider", "kind"),
    "disbursements": ("id", "level", "granted", "redeemed", "clawed_back"),
    "enterprises": ("id", "county", "industry", "uscc"),
    "ledger": ("at_ms", "event", "city", "county", "class", "kind", "level", "count"),
    "providers": ("id",),
    "recognitions": ("id", "kind", "place", "subject"),
    "units": ("id", "class", "enterprise", "county", "industry"),
}
"""Tables, and what of their rows never changes."""
FIRST_READINGS: Final = "first readings"
"""The seal of what is written once, but later than its row: the time of a unit's first reading."""

Sum = tuple[int, int]
"""How many rows, and the sum of their digests."""


def sum_up(connection: Connection, table: str, columns: Mapping[str, Sequence[Any]]) -> Sum:
    """Of rows that are written, given as at least their sealed columns."""
    digests = row_digests(connection, [columns[name] for name in SEALED[table]])
    return len(digests), sum(digests)


def sum_up_rows(connection: Connection, table: str, rows: Sequence[Mapping[str, Any]]) -> Sum:
    return sum_up(connection, table, {name: [row[name] for row in rows] for name in SEALED[table]})


def sum_up_first_readings(connection: Connection, ids: Sequence[str], on_cloud_ms: Sequence[int]) -> int:
    """The sum of the digests that `first_reading` gives."""
    return sum(row_digests(connection, [ids, on_cloud_ms]))


def first_reading(connection: Connection, id_: ColumnElement[Any], on_cloud_ms: ColumnElement[Any]) -> Any:
    return digest_of(connection, [id_, on_cloud_ms])


def add(connection: Connection, sums: Mapping[str, Sum]) -> None:
    """Note what was written, in the transaction that wrote it, after the counters."""
    rows = [
        {"name": name, "rows": rows, "digest": digest}
        for name, (rows, digest) in sorted(sums.items())
        if rows
    ]
    if rows:
        insert = insert_rows(connection, seals, rows)
        new = insert.excluded
        changes = {"rows": seals.c.rows + new["rows"], "digest": seals.c.digest + new["digest"]}
        connection.execute(insert.on_conflict_do_update(index_elements=["name"], set_=changes))


def stored(connection: Connection) -> dict[str, Sum]:
    return {row.name: (int(row.rows), int(row.digest)) for row in connection.execute(select(seals))}


def counted(connection: Connection) -> dict[str, Sum]:
    """Expected seals of the present rows. Scans the tables."""
    found = {}
    for name, columns in SEALED.items():
        table: Table = metadata.tables[name]
        total = func.sum(digest_of(connection, [table.c[column] for column in columns]))
        found[name] = connection.execute(select(func.count(), total).select_from(table)).one()
    digest = first_reading(connection, units.c.id, units.c.on_cloud_ms)
    firsts = select(func.count(), func.sum(digest)).where(units.c.on_cloud_ms.is_not(None))
    found[FIRST_READINGS] = connection.execute(firsts).one()
    return {name: (int(rows), int(digest or 0)) for name, (rows, digest) in found.items()}


def replace(connection: Connection, sums: Mapping[str, Sum]) -> None:
    """Set seals: the rows are taken as they are."""
    rows = [{"name": name, "rows": rows, "digest": digest} for name, (rows, digest) in sorted(sums.items())]
    if rows:
        insert = insert_rows(connection, seals, rows)
        new = insert.excluded
        changes = {"rows": new["rows"], "digest": new["digest"]}
        connection.execute(insert.on_conflict_do_update(index_elements=["name"], set_=changes))
