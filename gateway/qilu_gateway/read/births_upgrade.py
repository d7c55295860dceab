"""What earlier versions kept of births in the state file, and what is kept no longer than it is needed."""

from __future__ import annotations

import sqlite3

import msgspec
import structlog

from qilu_gateway.read import layouts
from qilu_gateway.read.layouts import Aliases, id_of, layout_of

log = structlog.get_logger()


def upgrade(connection: sqlite3.Connection) -> None:
    """Before births are read: take over what is kept as a whole table for each device, and forget layouts
    that no birth has any more, when they are many."""
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
