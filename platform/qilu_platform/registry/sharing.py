"""Leases of shards: every shard of a pool has at most one gateway, and gateways that share a pool have
equally many.

A gateway asks for its shards every few seconds. One that has more than its share, because another one came,
has to serve fewer; it keeps the lease of a shard until it reports that it has handed it over. Leases of a
gateway that no longer asks end by themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from qilu_contract.wire.clock import wall_ms
from sqlalchemy import Connection, delete, select

from qilu_platform.database.locks import lock_shards
from qilu_platform.database.schema import shard_gateways, shards
from qilu_platform.models.bodies import ShardsIn

LEASE_MS = 15_000
"""Longer than a gateway needs to start again; a gateway asks several times in it."""


class Shared(NamedTuple):
    shards: list[int]
    taken: list[int]
    """Wanted shards that another gateway has."""


def share(connection: Connection, asked: ShardsIn) -> Shared:
    """The shards that a gateway serves from now on."""
    lock_shards(connection)
    now_ms = wall_ms()
    for table in (shards, shard_gateways):
        connection.execute(delete(table).where(table.c.until_ms <= now_ms))
    rows = connection.execute(select(shards).where(shards.c.pool == asked.pool)).all()
    leased = {row.shard: row.gateway for row in rows}
    wanted = sorted(set(asked.wanted))
    mine = [shard for shard in wanted if leased.get(shard) == asked.gateway]
    free = [shard for shard in wanted if shard not in leased]
    most = len(wanted) if asked.fixed else _share(connection, asked, now_ms, len(wanted))
    served = (mine + free)[:most]
    kept = sorted({*served, *(set(asked.held) & set(mine))})
    _replace(connection, asked, kept, now_ms)
    return Shared(sorted(served), [shard for shard in wanted if shard not in free and shard not in mine])


def _share(connection: Connection, asked: ShardsIn, now_ms: int, wanted: int) -> int:
    """The number of shards that a gateway has, with all gateways that share the same ones: those of its
    cell."""
    connection.execute(delete(shard_gateways).where(shard_gateways.c.gateway == asked.gateway))
    if not asked.wanted:
        return 0
    cell = f"{asked.pool}/{min(asked.wanted)}"
    row = {"pool": cell, "gateway": asked.gateway, "until_ms": now_ms + LEASE_MS}
    connection.execute(shard_gateways.insert().values(**row))
    there = select(shard_gateways.c.gateway).where(shard_gateways.c.pool == cell)
    names = sorted(connection.execute(there).scalars())
    each, rest = divmod(wanted, len(names))
    return each + (names.index(asked.gateway) < rest)


def _replace(connection: Connection, asked: ShardsIn, kept: Sequence[int], now_ms: int) -> None:
    """Make these the leases of the gateway."""
    mine = (shards.c.pool == asked.pool) & (shards.c.gateway == asked.gateway)
    connection.execute(delete(shards).where(mine))
    until_ms = now_ms + LEASE_MS
    rows = [
        {"pool": asked.pool, "shard": shard, "gateway": asked.gateway, "until_ms": until_ms} for shard in kept
    ]
    if rows:
        connection.execute(shards.insert(), rows)
