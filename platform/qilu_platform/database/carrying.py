"""Carries keys and sessions into a registry that begins again: who was signed in stays so."""

from __future__ import annotations

from sqlalchemy import Connection, select

from qilu_platform.database.schema import api_keys, sessions
from qilu_platform.database.transactions import Database


async def carry_keys(old: str, new: str) -> None:
    """Copy the keys that belong to no enterprise, and their sessions, from one database (a URL) into an empty
    one."""
    keys = select(api_keys).where(api_keys.c.enterprise.is_(None))
    of_these = select(sessions).where(sessions.c.key.in_(keys.with_only_columns(api_keys.c.id)))
    async with Database(old) as source:
        found = await source.read(
            lambda connection: [
                (table, [dict(row._mapping) for row in connection.execute(query)])
                for table, query in ((api_keys, keys), (sessions, of_these))
            ]
        )

    def insert(connection: Connection) -> None:
        for table, rows in found:
            if rows:
                connection.execute(table.insert(), rows)

    async with Database(new) as target:
        await target.write(insert)
