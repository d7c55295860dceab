"""Seals of what is written once; what is there at the upgrade is taken as it was written."""

from __future__ import annotations

import zlib
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0102"
down_revision = "0101"

_SEALED = {
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


def upgrade() -> None:
    seals = op.create_table(
        "seals",
        sa.Column("name", sa.String(32), primary_key=True),
        sa.Column("rows", sa.BigInteger, nullable=False),
        sa.Column("digest", sa.BigInteger, nullable=False),
    )
    connection = op.get_bind()
    if connection.dialect.name == "postgresql":
        # Ten million units take some seconds.
        connection.execute(sa.text("SET LOCAL statement_timeout = 0"))
    for table, columns in _SEALED.items():
        _seal(connection, seals, table, table, columns, "")
    _seal(
        connection, seals, "first readings", "units", ("id", "on_cloud_ms"), "WHERE on_cloud_ms IS NOT NULL"
    )


def _seal(
    connection: sa.Connection, seals: Any, name: str, table: str, columns: tuple[str, ...], where: str
) -> None:
    if connection.dialect.name == "postgresql":
        texts = " || chr(31) || ".join(f"coalesce(\"{column}\"::text, '')" for column in columns)
        hashed = f"left(encode(sha256(convert_to({texts}, 'UTF8')), 'hex'), 8)"
        query = f"SELECT count(*), sum(('x' || {hashed})::bit(32)::bigint) FROM {table} {where}"  # noqa: S608
        rows, digest = connection.execute(sa.text(query)).one()
    else:
        names = ", ".join(f'"{column}"' for column in columns)
        rows = digest = 0
        for row in connection.execute(sa.text(f"SELECT {names} FROM {table} {where}")):  # noqa: S608
            text = "\x1f".join(["" if value is None else str(value) for value in row])
            digest += zlib.crc32(text.encode())
            rows += 1
    if rows:
        connection.execute(seals.insert().values(name=name, rows=rows, digest=int(digest)))
