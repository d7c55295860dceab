"""Locks shared by all platforms on one PostgreSQL; SQLite has one writer and needs none."""

from __future__ import annotations

from sqlalchemy import (
    Connection,
    func,
    select,
    text,
)

_START_LOCK = 0x71696C75  # "qilu": any numbers that all replicas agree on
_BARRING_LOCK = _START_LOCK + 1
_SUSPENDING_LOCK = _START_LOCK + 2
_RECOGNISING_LOCK = _START_LOCK + 3
_SHARDS_LOCK = _START_LOCK + 4


def lock_start(connection: Connection) -> None:
    """Lock the steps of a start that must run once, until the transaction ends."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _START_LOCK})


def lock_barring(connection: Connection) -> None:
    """Taken last in a transaction: until it ends, no other one enters that somebody is barred. So the numbers
    of such entries grow in the order in which they become visible, and who reads on from one misses none."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _BARRING_LOCK})


def lock_suspensions(connection: Connection, *, shared: bool) -> None:
    """Taken first in a transaction that suspends or resumes an enterprise; `shared` in one that relies on no
    enterprise being suspended or resumed until it ends. One lock instead of the enterprises' rows: a block of
    an import has thousands of them."""
    if connection.dialect.name == "postgresql":
        lock = func.pg_advisory_xact_lock_shared if shared else func.pg_advisory_xact_lock
        connection.execute(select(lock(_SUSPENDING_LOCK)))


def lock_recognitions(connection: Connection) -> None:
    """Lock the assignment of platforms to tiers, until the transaction ends."""
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(_RECOGNISING_LOCK)))


def lock_shards(connection: Connection) -> None:
    """Lock the assignment of shards to gateways, until the transaction ends."""
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(_SHARDS_LOCK)))
