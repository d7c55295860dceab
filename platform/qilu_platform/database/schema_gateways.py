"""The registry's tables about gateways and what they report, beside those of `schema.py`."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Integer, String, Table, Text

from qilu_platform.database.schema import ID, metadata

# Leases: the gateways that share the shards of a pool, and which of them has which. Each ends at `until_ms`
# unless it is renewed. `key`: the API key that holds it; empty in rows of version 0.2 or older.
shard_gateways = Table(
    "shard_gateways",
    metadata,
    Column("pool", String(64), primary_key=True),
    Column("gateway", String(64), primary_key=True),
    Column("key", ID, primary_key=True, server_default=""),
    Column("until_ms", BigInteger, nullable=False),
)
shards = Table(
    "shards",
    metadata,
    Column("pool", String(64), primary_key=True),
    Column("shard", Integer, primary_key=True),
    Column("gateway", String(64), nullable=False),
    Column("until_ms", BigInteger, nullable=False),
    Column("key", ID, nullable=False, server_default=""),
)

# Signals of generic units: see `registry/learned_signals.py`.
learned_signals = Table(
    "learned_signals",
    metadata,
    Column("unit", ID, primary_key=True),
    Column("name", String(64), primary_key=True),
    Column("measured_in", String(32), nullable=False),  # empty where no birth has given it
    Column("since_ms", BigInteger, nullable=False),
)

# Classes that operators describe for generic units: see `registry/device_types.py`.
device_types = Table(
    "device_types",
    metadata,
    Column("id", ID, primary_key=True),
    Column("title", String(80), nullable=False),
    Column("title_zh", String(80), nullable=False),
    Column("signals", Text, nullable=False),  # a JSON array
)
unit_types = Table(
    "unit_types",
    metadata,
    Column("unit", ID, primary_key=True),
    Column("type", ID, nullable=False),
)
