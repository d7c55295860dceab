"""Renaming: the name is the only field of a registered resource that its owner may change."""

from __future__ import annotations

from sqlalchemy import Connection, Table, select, update

from qilu_platform.errors import NotFound


def rename(connection: Connection, table: Table, id_: str, name: str) -> str | None:
    """Rename a registered resource; returns the previous name. Raises NotFound."""
    query = select(table.c.name).where(table.c.id == id_).with_for_update(key_share=True)
    row = connection.execute(query).one_or_none()
    if row is None:
        raise NotFound(f"{id_} does not exist.")
    if row.name != name:
        connection.execute(update(table).where(table.c.id == id_).values(name=name))
    was: str | None = row.name
    return was
