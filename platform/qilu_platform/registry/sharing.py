"""Leases of shards: every shard of a pool has at most one gateway, and gateways that share a pool have
equally many.

A gateway asks for its shards every few seconds. One that has more than its share, because another one came,
has to serve fewer; it keeps the lease of a shard until it reports that it has handed it over. Leases of a
gateway that no longer asks end by themselves, but not while nobody can ask: the platform or its database was
unavailable then, and the gateways still serve.

A gateway is identified by its name together with its API key. A request with the name of another gateway, but
another key, comes from a different gateway: it can neither renew nor release the leases of the first one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from qilu_contract.wire.clock import wall_ms
from sqlalchemy import ColumnElement, Connection, Table, delete, func, select, update

from qilu_platform.database.locks import lock_shards
from qilu_platform.database.schema_gateways import shard_gateways, shards
from qilu_platform.models.bodies import ShardsIn

LEASE_MS = 15_000
"""Longer than a gateway needs to start again; a gateway asks several times in it."""
SILENCE_MS = 7_000
"""Gateways ask every 3 s. When none has asked for this time, none could."""


ENDED = 0
"""In place of the time at which a lease ends: it has ended."""
NO_KEY = ""
"""The key of a lease from before keys were recorded: the gateway's name suffices."""
_LEASES = (shards, shard_gateways)


class Shared(NamedTuple):
    shards: list[int]
    taken: list[int]
    """Wanted shards that another gateway has."""
    inherited: list[int]
    """Those of `shards` that another gateway served last."""


def share(connection: Connection, asked: ShardsIn, key: str) -> Shared:
    """The shards that a gateway serves from now on; `key`: the id of its API key."""
    lock_shards(connection)
    now_ms = clock_ms(connection)
    _end_leases(connection, now_ms)
    rows = connection.execute(select(shards).where(shards.c.pool == asked.pool)).all()
    own = {row.shard for row in rows if row.gateway == asked.gateway and row.key in (key, NO_KEY)}
    leased = {row.shard for row in rows if row.until_ms != ENDED}
    wanted = sorted(set(asked.wanted))
    held = own & leased & set(asked.held)
    mine = [shard for shard in wanted if shard in own & leased]
    free = [shard for shard in wanted if shard not in leased]
    most = len(wanted) if asked.fixed else _share(connection, asked, key, now_ms)
    served = (mine + free)[:most]
    kept = sorted({*served, *held})
    _replace(connection, asked, key, kept, now_ms)
    taken = [shard for shard in wanted if shard in leased - own]
    inherited = {row.shard for row in rows} - own
    return Shared(sorted(served), taken, [shard for shard in sorted(served) if shard in inherited])


def holders(connection: Connection) -> dict[str, str]:
    """The gateway that serves each leased shard, by the shard's host id."""
    rows = connection.execute(select(shards).where(shards.c.until_ms != ENDED))
    parts = [(*row.pool.split("/"), row.shard, row.gateway) for row in rows]
    return {f"{host}-{shard}-of-{count}": gateway for host, count, shard, gateway in parts}


def clock_ms(connection: Connection) -> int:
    """The time on one clock for all replicas: that of a PostgreSQL server."""
    if connection.dialect.name != "postgresql":
        return wall_ms()
    return int(connection.execute(select(func.extract("epoch", func.clock_timestamp()))).scalar_one() * 1000)


def _end_leases(connection: Connection, now_ms: int) -> None:
    """End leases that are over. If nobody could ask, all leases are extended by that time. The lease of a
    shard is kept, as the record of its last gateway."""
    newest = (connection.execute(select(func.max(table.c.until_ms))).scalar() for table in _LEASES)
    asked_ms = max((until_ms - LEASE_MS for until_ms in newest if until_ms), default=now_ms)
    for table in _LEASES:
        if now_ms - asked_ms > SILENCE_MS or asked_ms > now_ms:  # the latter: the clock was set back
            extended = update(table).where(table.c.until_ms != ENDED)
            connection.execute(extended.values(until_ms=table.c.until_ms + (now_ms - asked_ms)))
    connection.execute(delete(shard_gateways).where(shard_gateways.c.until_ms <= now_ms))
    connection.execute(update(shards).where(shards.c.until_ms <= now_ms).values(until_ms=ENDED))


def _is(table: Table, asked: ShardsIn, key: str) -> ColumnElement[bool]:
    """Rows of the gateway that asks."""
    return (table.c.gateway == asked.gateway) & table.c.key.in_((key, NO_KEY))


def _share(connection: Connection, asked: ShardsIn, key: str, now_ms: int) -> int:
    """The number of shards that a gateway has, with all gateways that share the same ones: those of its
    cell."""
    connection.execute(delete(shard_gateways).where(_is(shard_gateways, asked, key)))
    if not asked.wanted:
        return 0
    cell = f"{asked.pool}/{min(asked.wanted)}"
    row = {"pool": cell, "gateway": asked.gateway, "key": key, "until_ms": now_ms + LEASE_MS}
    connection.execute(shard_gateways.insert().values(**row))
    there = select(shard_gateways.c.gateway, shard_gateways.c.key).where(shard_gateways.c.pool == cell)
    gateways = sorted((row.gateway, row.key) for row in connection.execute(there))
    each, rest = divmod(len(set(asked.wanted)), len(gateways))
    return each + (gateways.index((asked.gateway, key)) < rest)


def _replace(connection: Connection, asked: ShardsIn, key: str, kept: Sequence[int], now_ms: int) -> None:
    """Make these the leases of the gateway."""
    mine = (shards.c.pool == asked.pool) & _is(shards, asked, key)
    connection.execute(update(shards).where(mine).values(until_ms=ENDED))
    connection.execute(delete(shards).where(shards.c.pool == asked.pool, shards.c.shard.in_(kept)))
    until_ms = now_ms + LEASE_MS
    row = {"pool": asked.pool, "gateway": asked.gateway, "key": key, "until_ms": until_ms}
    rows = [row | {"shard": shard} for shard in kept]
    if rows:
        connection.execute(shards.insert(), rows)
