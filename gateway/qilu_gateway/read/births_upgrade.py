"""Prepares birth tables in the state file before they are read: upgrades those of earlier versions, removes
unused layouts, and forgets births that are out of date."""

from __future__ import annotations

import sqlite3

import msgspec
import structlog

from qilu_gateway.read import layouts
from qilu_gateway.read.layouts import Aliases, id_of, layout_of

log = structlog.get_logger()


def upgrade(connection: sqlite3.Connection) -> None:
    """Convert tables that were kept whole for each device, and remove unused layouts when they are many. To
    be called before births are read."""
    if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'births'").fetchone():
        rows = connection.execute(
            "SELECT county || '/' || node || '/' || device, aliases, coalesce(session, 0), redefined_ms "
            "FROM births LEFT JOIN sessions USING (county, node, device)"
        )
        for key, body, session, redefined_ms in rows:
            try:
                layout, first = layout_of(msgspec.msgpack.decode(body, type=Aliases))
            except msgspec.MsgspecError as error:
                log.error("a birth in the state file cannot be read", of=key, error=str(error))
                continue
            id_ = id_of(layout)
            connection.execute("INSERT OR IGNORE INTO layouts VALUES (?, ?)", (id_, layouts.encode(layout)))
            row = key, id_, first, session, redefined_ms
            connection.execute("INSERT OR REPLACE INTO born VALUES (?, ?, ?, ?, ?)", row)
        connection.execute("DROP TABLE births")
        connection.execute("DELETE FROM sessions WHERE device <> ''")
    [count] = connection.execute("SELECT count(*) FROM layouts").fetchone()
    if count > layouts.MAX_LAYOUTS:
        connection.execute("DELETE FROM layouts WHERE id NOT IN (SELECT layout FROM born)")


def forget(connection: sqlite3.Connection) -> None:
    """Delete all births and sessions: another gateway has received others since."""
    connection.execute("DELETE FROM born")
    connection.execute("DELETE FROM sessions")
