"""Passwords of single devices at the broker: one for each unit at most, kept as a hash.

A device that signs in with it may publish readings of its own unit and nothing else.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any

from qilu_common.mosquitto_password import mosquitto_hash
from qilu_contract.wire.clock import wall_ms
from qilu_contract.wire.doors import DOORS
from sqlalchemy import Connection, Row, Select, delete, func, select

from qilu_platform.broker.certificates import touch_rules
from qilu_platform.database.schema import device_passwords, enterprises, units
from qilu_platform.database.statements import insert_rows
from qilu_platform.errors import Conflict, NotFound

PREFIX = "device."
"""Of user names: no id holds a dot, so no edge node or service has such a name."""
MAX_DEVICES = 5_000
"""Passwords of one platform: the broker's time to read its rules grows with the square of their number
(docs/decisions/043-broker-rules.md). Beyond, devices use the certificates of their enterprises."""


@dataclass(frozen=True, slots=True)
class Login:
    """A device that may sign in, the hash of its password, and the topics on which it may publish."""

    user: str
    hash: str
    topics: tuple[str, ...]


def user_of(unit: str) -> str:
    return PREFIX + unit


def issue(connection: Connection, unit: str, by: str) -> str:
    """A new password, which is kept nowhere; one that the unit had before ends. Raises NotFound, or Conflict
    for a retired unit and where there are too many."""
    row = connection.execute(select(units).where(units.c.id == unit)).one_or_none()
    if row is None:
        raise NotFound(f"unit {unit} does not exist.")
    if row.retired_ms is not None:
        raise Conflict(f"unit {unit} is retired.")
    count = connection.scalar(select(func.count()).select_from(device_passwords)) or 0
    if count >= MAX_DEVICES and get(connection, unit) is None:
        raise Conflict(
            f"There are {MAX_DEVICES} device passwords, the most that the broker takes: revoke one, or use "
            "the certificate of the enterprise."
        )
    password = secrets.token_urlsafe(24)
    values = {"hash": mosquitto_hash(password), "issued_ms": wall_ms(), "issued_by": by}
    insert = insert_rows(connection, device_passwords, [{"unit": unit, **values}])
    connection.execute(insert.on_conflict_do_update(index_elements=["unit"], set_=values))
    touch_rules(connection)
    return password


def get(connection: Connection, unit: str) -> dict[str, Any] | None:
    """The unit's password as the API shows it, without its hash; None if it has none."""
    row = connection.execute(select(device_passwords).where(device_passwords.c.unit == unit)).one_or_none()
    if row is None:
        return None
    return {"username": user_of(unit), "issued_ms": row.issued_ms, "issued_by": row.issued_by}


def revoke(connection: Connection, unit: str) -> bool:
    """End the unit's password; whether it had one."""
    done = connection.execute(delete(device_passwords).where(device_passwords.c.unit == unit))
    if not done.rowcount:
        return False
    touch_rules(connection)
    return True


def touch_if_it_has_one(connection: Connection, unit: str) -> None:
    """Have the broker's rules written again after a change of the unit's state, if they name it."""
    if get(connection, unit) is not None:
        touch_rules(connection)


def logins(connection: Connection) -> list[Login]:
    """Devices that may sign in, by unit: neither they nor their enterprises are suspended or retired."""
    return [_login(row) for row in connection.execute(_may_sign_in())]


def login(connection: Connection, user: str) -> Login | None:
    """The device that may sign in under this user name."""
    if not user.startswith(PREFIX):
        return None
    query = _may_sign_in().where(device_passwords.c.unit == user.removeprefix(PREFIX))
    row = connection.execute(query).one_or_none()
    return None if row is None else _login(row)


def _may_sign_in() -> Select[Any]:
    return (
        select(device_passwords.c.unit, device_passwords.c.hash, units.c.county, units.c.enterprise)
        .join(units, units.c.id == device_passwords.c.unit)
        .join(enterprises, enterprises.c.id == units.c.enterprise)
        .where(
            units.c.retired_ms.is_(None), units.c.suspended_ms.is_(None), enterprises.c.suspended_ms.is_(None)
        )
        .order_by(device_passwords.c.unit)
    )


def _login(row: Row[Any]) -> Login:
    unit = row.unit
    return Login(
        user_of(unit), row.hash, tuple(door.topic(row.county, row.enterprise, unit) for door in DOORS)
    )
