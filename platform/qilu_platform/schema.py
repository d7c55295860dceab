"""The registry's tables. Migrations make them; a test holds the two together.

Ids that we make sort by county and class, so that primary keys and the few indexes grow at their ends. A city
is the first four digits of a county's code and is not stored.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, MetaData, String, Table, Text

metadata = MetaData()

# Ids sort by their bytes, as in Python, whatever the server's locale is: pages and locks follow that order.
_ID = String(32).with_variant(String(32, collation="C"), "postgresql")
# SQLite numbers rows by itself only under a primary key that is an INTEGER to the letter.
_Serial = BigInteger().with_variant(Integer(), "sqlite")

enterprises = Table(
    "enterprises",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("name", Text, nullable=False),
    Column("county", String(6), nullable=False),
    Column("industry", String(3), nullable=False),
    Column("uscc", String(18)),
    Column("registered_ms", BigInteger, nullable=False),
    Column("on_cloud_ms", BigInteger),  # when its first contract began
    Column("contracts_current", Integer, nullable=False),
)

units = Table(
    "units",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("class", String(32), nullable=False),
    Column("enterprise", _ID, ForeignKey("enterprises.id"), nullable=False),
    Column("name", Text),
    Column("county", String(6), nullable=False),
    Column("industry", String(3), nullable=False),
    Column("registered_ms", BigInteger, nullable=False),
    Column("on_cloud_ms", BigInteger),  # the time of its first reading
    Column("retired_ms", BigInteger),
    Column("last_hour", Integer),  # the hour (since 1970) of the latest reading that was reported
    Index("units_by_enterprise", "enterprise", "id"),
    # Serves county, city (a set of counties) and class: see listing.py.
    Index("units_by_cell", "county", "class", "id"),
    # Room in the page lets PostgreSQL update on_cloud_ms and last_hour without touching any index.
    postgresql_with={"fillfactor": "85"},
)
Index(
    "units_retired",
    units.c.id,
    sqlite_where=units.c.retired_ms.is_not(None),
    postgresql_where=units.c.retired_ms.is_not(None),
)

providers = Table(
    "providers",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("name", Text, nullable=False),
    Column("registered_ms", BigInteger, nullable=False),
)

contracts = Table(
    "contracts",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("enterprise", _ID, ForeignKey("enterprises.id"), nullable=False),
    Column("provider", _ID, ForeignKey("providers.id"), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("registered_ms", BigInteger, nullable=False),
    Column("ended_ms", BigInteger),
    Index("contracts_by_enterprise", "enterprise", "id"),
)

centres = Table(
    "centres",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("name", Text, nullable=False),
    Column("city", String(6), nullable=False),
    Column("park", Text),
    Column("registered_ms", BigInteger, nullable=False),
)

# Append-only (triggers refuse anything else): what happened, how often, in one transaction.
ledger = Table(
    "ledger",
    metadata,
    Column("seq", _Serial, primary_key=True, autoincrement=True),
    Column("at_ms", BigInteger, nullable=False),
    Column("event", String(32), nullable=False),
    Column("city", String(6)),
    Column("county", String(6)),
    Column("class", String(32)),
    Column("kind", String(16)),
    Column("count", Integer, nullable=False),
)

# What the ledger adds up to, for each scope; changed in the transaction that appends to it.
counters = Table(
    "counters",
    metadata,
    Column("scope", String(16), primary_key=True),
    Column("code", String(32), primary_key=True),
    Column("name", String(32), primary_key=True),
    Column("value", BigInteger, nullable=False),
)

# How many units were last heard of in that hour: a gauge, not in the ledger.
activity = Table(
    "activity",
    metadata,
    Column("hour", Integer, primary_key=True, autoincrement=False),
    Column("units", Integer, nullable=False),
)

# The next number of ids that the platform makes.
sequences = Table(
    "sequences",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("next", BigInteger, nullable=False),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("name", Text, nullable=False),
    Column("role", String(16), nullable=False),
    Column("enterprise", _ID, ForeignKey("enterprises.id")),
    Column("sha256", String(64), nullable=False, unique=True),
    Column("created_ms", BigInteger, nullable=False),
    Column("revoked_ms", BigInteger),
)
