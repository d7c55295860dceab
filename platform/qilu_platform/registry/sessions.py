"""Sessions of browsers: a cookie instead of a key, and one-time links that open a session.

Both are 32 random bytes, kept as SHA-256 only, and have the rights of the key that they were made with. They
end by themselves, and with that key.
"""

from __future__ import annotations

import hashlib
import secrets
from typing import Literal, NamedTuple

from qilu_contract.wire.clock import wall_ms
from sqlalchemy import Connection, delete, func, select

from qilu_platform.database.schema import api_keys, sessions
from qilu_platform.models.fields import Role
from qilu_platform.registry.keys import Caller, find_caller

COOKIE = "qilu_session"
SESSION_MS = 12 * 3_600_000
"""A working day: then the browser signs in again."""
LINK_MS = 30 * 60_000
"""How long a link waits for somebody to open it."""
MAX_OF_ONE = 1_000
"""Sessions and links of one key; the oldest make room."""

Kind = Literal["link", "session"]


class Opened(NamedTuple):
    """A secret that was made now, which is kept nowhere, and when it ends."""

    secret: str
    ends_ms: int


class Session(NamedTuple):
    caller: Caller
    ends_ms: int


def make_link(connection: Connection, caller: Caller) -> Opened:
    """Make a link for the caller's key: the first visitor of the link gets its rights."""
    return _insert(connection, caller.key, "link", LINK_MS)


def open_by_key(connection: Connection, key: str) -> Opened | None:
    """None if nobody holds the key, or it was revoked."""
    caller = find_caller(connection, key)
    if caller is None:
        return None
    return _insert(connection, caller.key, "session", SESSION_MS)


def open_by_link(connection: Connection, link: str) -> Opened | None:
    """Ends the link. None when it was opened before, or is too old."""
    found = _find(connection, link, "link")
    # Of two browsers that open it at once one deletes the row.
    spent = connection.execute(delete(sessions).where(sessions.c.sha256 == _digest(link)))
    if found is None or not spent.rowcount:
        return None
    return _insert(connection, found.caller.key, "session", SESSION_MS)


def find(connection: Connection, secret: str) -> Session | None:
    """The holder of a session; None if it is unknown or has ended."""
    if not secret:
        return None
    return _find(connection, secret, "session")


def close(connection: Connection, secret: str) -> None:
    connection.execute(delete(sessions).where(sessions.c.sha256 == _digest(secret)))


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _find(connection: Connection, secret: str, kind: Kind) -> Session | None:
    now_ms = wall_ms()
    row = connection.execute(
        select(sessions.c.ends_ms, api_keys.c.id, api_keys.c.role, api_keys.c.enterprise)
        .join(api_keys, api_keys.c.id == sessions.c.key)
        .where(sessions.c.sha256 == _digest(secret), sessions.c.kind == kind, sessions.c.ends_ms > now_ms)
        .where(api_keys.c.revoked_ms.is_(None) | (api_keys.c.revoked_ms > now_ms))
    ).one_or_none()
    return None if row is None else Session(Caller(row.id, Role(row.role), row.enterprise), row.ends_ms)


def _insert(connection: Connection, key: str, kind: Kind, lasts_ms: int) -> Opened:
    now_ms = wall_ms()
    connection.execute(delete(sessions).where(sessions.c.ends_ms <= now_ms))
    mine = sessions.c.key == key
    excess = (connection.scalar(select(func.count()).select_from(sessions).where(mine)) or 0) - MAX_OF_ONE + 1
    if excess > 0:
        oldest = select(sessions.c.sha256).where(mine).order_by(sessions.c.ends_ms).limit(excess)
        connection.execute(delete(sessions).where(sessions.c.sha256.in_(oldest)))
    secret, ends_ms = secrets.token_urlsafe(32), now_ms + lasts_ms
    connection.execute(sessions.insert().values(sha256=_digest(secret), kind=kind, key=key, ends_ms=ends_ms))
    return Opened(secret, ends_ms)
