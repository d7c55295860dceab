"""API keys: 32 random bytes, kept as SHA-256 only, each with one role."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from qilu_contract.errors import ConfigError
from qilu_contract.wire.clock import wall_ms
from sqlalchemy import Connection, Row, func, select, update

from qilu_platform.database.schema import api_keys, enterprises
from qilu_platform.errors import Conflict, Invalid, NotFound
from qilu_platform.models.fields import Role

PREFIX = "qilu_"
"""Lets a person, or a scanner of leaked secrets, see what it is."""
MIN_LENGTH = 20
"""Of a key that is brought from outside: shorter ones can be guessed, and are defaults more often than
secrets."""


@dataclass(frozen=True, slots=True)
class Caller:
    """The caller: the key's id, its role, and the enterprise that it is restricted to (role `enterprise`)."""

    key: str
    role: Role
    enterprise: str | None = None

    def sees(self, enterprise: str | None) -> bool:
        """Whether what belongs to `enterprise` (None: to all) may be shown."""
        return self.enterprise is None or enterprise is None or enterprise == self.enterprise


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def make_key(connection: Connection, name: str, role: Role, enterprise: str | None = None) -> tuple[str, str]:
    """(id, key); the key is not kept. Raises Invalid for an unknown enterprise."""
    if enterprise is not None:
        known = connection.scalar(select(enterprises.c.id).where(enterprises.c.id == enterprise))
        if known is None:
            raise Invalid(f"enterprise {enterprise} is not registered: register it first")
    key = PREFIX + secrets.token_urlsafe(32)
    return _insert(connection, name, role, enterprise, key), key


def _insert(connection: Connection, name: str, role: Role, enterprise: str | None, key: str) -> str:
    id_ = f"key-{secrets.token_hex(6)}"
    connection.execute(
        api_keys.insert().values(
            id=id_,
            name=name,
            role=role.value,
            enterprise=enterprise,
            sha256=_digest(key),
            created_ms=wall_ms(),
        )
    )
    return id_


def ensure_keys(connection: Connection, given: Mapping[Role, str]) -> str | None:
    """Make sure that the keys given at start are known, and that there is an admin: the new admin key if one
    had to be made.

    A given key that was revoked stays revoked. Raises ConfigError for one that is too short, or known under
    another role.
    """
    for role, key in given.items():
        if len(key) < MIN_LENGTH:
            raise ConfigError(
                f"The {role} key has {len(key)} characters: use at least {MIN_LENGTH} random ones."
            )
        known = connection.scalar(select(api_keys.c.role).where(api_keys.c.sha256 == _digest(key)))
        if known is None:
            _insert(connection, f"{role} key given at start", role, None, key)
        elif known != role:
            raise ConfigError(f"The {role} key is the {known} key already: give each role its own.")
    if _admins(connection):
        return None
    _, made = make_key(connection, "first admin key", Role.ADMIN)
    return made


def _admins(connection: Connection) -> int:
    valid = (api_keys.c.role == Role.ADMIN.value, api_keys.c.revoked_ms.is_(None))
    return connection.scalar(select(func.count()).select_from(api_keys).where(*valid)) or 0


def find_caller(connection: Connection, key: str) -> Caller | None:
    """The holder of `key`; None if it is unknown or revoked."""
    digest = _digest(key)
    row = connection.execute(select(api_keys).where(api_keys.c.sha256 == digest)).one_or_none()
    if row is None or not hmac.compare_digest(row.sha256, digest):
        return None
    if row.revoked_ms is not None and row.revoked_ms <= wall_ms():
        return None
    return Caller(row.id, Role(row.role), row.enterprise)


def find_ended(connection: Connection, key: str) -> Caller | None:
    """The former holder of a key that was revoked."""
    row = connection.execute(select(api_keys).where(api_keys.c.sha256 == _digest(key))).one_or_none()
    return None if row is None else Caller(row.id, Role(row.role), row.enterprise)


def name_of(connection: Connection, id_: str) -> str:
    return str(connection.scalar(select(api_keys.c.name).where(api_keys.c.id == id_)))


def list_keys(connection: Connection) -> list[dict[str, Any]]:
    columns = [api_keys.c[name] for name in ("id", "name", "role", "enterprise", "created_ms", "revoked_ms")]
    rows = connection.execute(select(*columns).order_by(api_keys.c.created_ms, api_keys.c.id))
    return [dict(row._mapping) for row in rows]


def revoke_key(connection: Connection, id_: str) -> None:
    """Ends a key at once, for good. Raises NotFound if there is none, Conflict for the last admin key."""
    row, now_ms = _locked(connection, id_), wall_ms()
    if row.revoked_ms is not None and row.revoked_ms <= now_ms:
        return
    if row.role == Role.ADMIN.value and row.revoked_ms is None and _admins(connection) == 1:
        raise Conflict(f"key {id_} is the last admin key: make another one first.")
    connection.execute(update(api_keys).where(api_keys.c.id == id_).values(revoked_ms=now_ms))


def rotate_key(connection: Connection, id_: str, grace_s: int) -> tuple[str, str]:
    """(id, key) of a new key with the same name, role and enterprise; the old one ends `grace_s` seconds from
    now, so that its holders can change over.

    Raises NotFound if there is none, Conflict if it was ended already.
    """
    row = _locked(connection, id_)
    if row.revoked_ms is not None:
        raise Conflict(f"key {id_} was revoked or rotated already: make a new key instead.")
    key = PREFIX + secrets.token_urlsafe(32)
    made = _insert(connection, row.name, Role(row.role), row.enterprise, key)
    ends_ms = wall_ms() + grace_s * 1000
    connection.execute(update(api_keys).where(api_keys.c.id == id_).values(revoked_ms=ends_ms))
    return made, key


def _locked(connection: Connection, id_: str) -> Row[Any]:
    # All keys are locked, in order: of two admins that revoke each other at once, one must find itself the
    # last.
    rows = connection.execute(select(api_keys).order_by(api_keys.c.id).with_for_update()).all()
    row = next((row for row in rows if row.id == id_), None)
    if row is None:
        raise NotFound(f"key {id_} does not exist.")
    return row
