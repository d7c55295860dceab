"""The registry's tables. Migrations make them; a test holds the two together.

Ids that we make sort by county and class, so that primary keys grow at their ends and serve pages of a city,
a county or a class: such units are `regular` and need no index for it. A city is the first four digits of a
county's code and is not stored.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, MetaData, String, Table, Text, text

metadata = MetaData()

# Ids sort by their bytes, as in Python, whatever the server's locale is: pages and locks follow that order.
ID = String(32).with_variant(String(32, collation="C"), "postgresql")
# Names are searched by how they begin, so they sort by their bytes as well.
_Name = Text().with_variant(Text(collation="C"), "postgresql")
# SQLite numbers rows by itself only under a primary key that is an INTEGER to the letter; that holds as much.
_Long = BigInteger().with_variant(Integer(), "sqlite")

enterprises = Table(
    "enterprises",
    metadata,
    Column("id", ID, primary_key=True),
    Column("name", _Name, nullable=False),
    Column("county", String(6), nullable=False),
    Column("industry", String(3), nullable=False),
    Column("uscc", String(18)),
    Column("registered_ms", BigInteger, nullable=False),
    Column("on_cloud_ms", BigInteger),  # when its first contract began
    Column("contracts_current", Integer, nullable=False),
    Column("suspended_ms", BigInteger),  # null again when it is resumed
    Index("enterprises_by_county", "county", "id"),
    Index("enterprises_by_industry", "industry", "id"),
    Index("enterprises_by_name", "name", "id"),
)
Index(
    "enterprises_by_uscc",
    enterprises.c.uscc,
    unique=True,
    sqlite_where=enterprises.c.uscc.is_not(None),
    postgresql_where=enterprises.c.uscc.is_not(None),
)

units = Table(
    "units",
    metadata,
    Column("id", ID, primary_key=True),
    Column("class", String(32), nullable=False),
    # Looked up in the transaction that inserts the unit, and never removed: a foreign key would look it up
    # once more for each unit of an import.
    Column("enterprise", ID, nullable=False),
    Column("name", Text),
    Column("county", String(6), nullable=False),
    Column("industry", String(3), nullable=False),
    # 1 where the id does not begin with the unit's county and class; else null: see registry/listing.py.
    Column("irregular", Integer),
    Column("registered_ms", BigInteger, nullable=False),
    Column("on_cloud_ms", BigInteger),  # the time of its first reading
    Column("suspended_ms", BigInteger),  # null again when it is resumed or retired
    Column("retired_ms", BigInteger),
    Column("last_hour", Integer),  # the hour (since 1970) of the latest reading that was reported
    Index("units_by_enterprise", "enterprise", "id"),
    # One tree instead of two: rows lie in the order of their ids.
    sqlite_with_rowid=False,
    # Room in the page lets PostgreSQL update on_cloud_ms and last_hour without touching any index.
    postgresql_with={"fillfactor": "85"},
)
for _name, _column, _where in (
    ("units_irregular", (units.c.county, units.c["class"], units.c.id), units.c.irregular.is_not(None)),
    ("units_suspended", (units.c.id,), units.c.suspended_ms.is_not(None)),
    ("units_retired", (units.c.id,), units.c.retired_ms.is_not(None)),
    ("enterprises_suspended", (enterprises.c.id,), enterprises.c.suspended_ms.is_not(None)),
):
    Index(_name, *_column, sqlite_where=_where, postgresql_where=_where)

providers = Table(
    "providers",
    metadata,
    Column("id", ID, primary_key=True),
    Column("name", Text, nullable=False),
    Column("registered_ms", BigInteger, nullable=False),
)

contracts = Table(
    "contracts",
    metadata,
    Column("id", ID, primary_key=True),
    Column("enterprise", ID, ForeignKey("enterprises.id"), nullable=False),
    Column("provider", ID, ForeignKey("providers.id"), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("registered_ms", BigInteger, nullable=False),
    Column("ended_ms", BigInteger),
    Index("contracts_by_enterprise", "enterprise", "id"),
)

centres = Table(
    "centres",
    metadata,
    Column("id", ID, primary_key=True),
    Column("name", Text, nullable=False),
    Column("city", String(6), nullable=False),
    Column("park", Text),
    Column("registered_ms", BigInteger, nullable=False),
)

# What the programme recognises beside all that: platforms in a tier, suppliers, applications, pilot
# enterprises, bases, clusters. `subject` is whom or what it is about.
recognitions = Table(
    "recognitions",
    metadata,
    Column("id", ID, primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("place", String(6), nullable=False),
    Column("subject", ID),
    Column("registered_ms", BigInteger, nullable=False),
    Column("ended_ms", BigInteger),  # a platform that rises leaves its tier
    Index("recognitions_by_subject", "subject", "id"),
)
# A platform is in one tier.
STANDING = text("ended_ms IS NULL AND kind IN ('enterprise_level', 'cross_industry', 'comprehensive')")
Index(
    "recognitions_standing",
    recognitions.c.subject,
    unique=True,
    sqlite_where=STANDING,
    postgresql_where=STANDING,
)

# Voucher money in yuan, by payer. Lines never change: clawed back money is a separate figure.
disbursements = Table(
    "disbursements",
    metadata,
    Column("id", ID, primary_key=True),
    Column("level", String(8), nullable=False),
    Column("granted", BigInteger, nullable=False),
    Column("redeemed", BigInteger, nullable=False),
    Column("clawed_back", BigInteger, nullable=False),
    Column("registered_ms", BigInteger, nullable=False),
)

# Append-only (triggers refuse anything else): what happened, how often, in one transaction.
ledger = Table(
    "ledger",
    metadata,
    Column("seq", _Long, primary_key=True, autoincrement=True),
    Column("at_ms", BigInteger, nullable=False),
    Column("event", String(32), nullable=False),
    Column("city", String(6)),
    Column("county", String(6)),
    Column("class", String(32)),
    Column("kind", String(16)),
    Column("level", String(8)),
    Column("count", _Long, nullable=False),  # things, or yuan
)

# Sums of the ledger for each scope; updated in the transaction that appends to it.
counters = Table(
    "counters",
    metadata,
    Column("scope", String(16), primary_key=True),
    Column("code", String(32), primary_key=True),
    Column("name", String(32), primary_key=True),
    Column("value", BigInteger, nullable=False),
)

# How many rows of a table were written, and the sum of their digests: see seals.py.
seals = Table(
    "seals",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("rows", BigInteger, nullable=False),
    Column("digest", BigInteger, nullable=False),
)

# Number of units with their last reading in that hour: a gauge, not in the ledger.
activity = Table(
    "activity",
    metadata,
    Column("hour", Integer, primary_key=True, autoincrement=False),
    Column("units", Integer, nullable=False),
    # By the wall's clock, when a report last added to it: hours ahead of that clock are believed while it is
    # recent.
    Column("heard_ms", BigInteger),
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
    Column("id", ID, primary_key=True),
    Column("name", Text, nullable=False),
    Column("role", String(16), nullable=False),
    Column("enterprise", ID, ForeignKey("enterprises.id")),
    Column("sha256", String(64), nullable=False, unique=True),
    Column("created_ms", BigInteger, nullable=False),
    Column("revoked_ms", BigInteger),
)

# Browsers that signed in, and links by which one may: see sessions.py.
sessions = Table(
    "sessions",
    metadata,
    Column("sha256", String(64), primary_key=True),
    Column("kind", String(8), nullable=False),  # link, session
    Column("key", ID, ForeignKey("api_keys.id"), nullable=False),
    Column("ends_ms", BigInteger, nullable=False),
    Index("sessions_by_key", "key", "ends_ms"),
)

# Append-only like the ledger: who changed what, and when.
audit_log = Table(
    "audit_log",
    metadata,
    Column("seq", _Long, primary_key=True, autoincrement=True),
    Column("at_ms", BigInteger, nullable=False),
    Column("key", ID, nullable=False),
    Column("action", String(32), nullable=False),
    Column("subject", String(64), nullable=False),  # "units/370202-motor-0000123", or "units" for many
    Column("detail", Text),  # a JSON object
    Index("audit_by_subject", "subject", "seq"),
)

# Suspensions and retirements, which gateways request every second.
BARRING = text("action IN ('suspended', 'retired')")
Index("audit_barring", audit_log.c.seq, sqlite_where=BARRING, postgresql_where=BARRING)

# One row: see `epoch.py`.
epoch = Table(
    "epoch",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("value", String(16), nullable=False),
)

# Client certificates of edge nodes: what was signed, never a private key.
certificates = Table(
    "certificates",
    metadata,
    Column("id", String(40), primary_key=True),  # the serial number, hexadecimal
    Column("enterprise", ID, ForeignKey("enterprises.id"), nullable=False),
    Column("issued_ms", BigInteger, nullable=False),
    Column("ends_ms", BigInteger, nullable=False),
    Column("revoked_ms", BigInteger),
    Index("certificates_by_enterprise", "enterprise", "id"),
)

# Passwords of single devices at the broker, as hashes.
device_passwords = Table(
    "device_passwords",
    metadata,
    Column("unit", ID, primary_key=True),
    Column("hash", Text, nullable=False),
    Column("issued_ms", BigInteger, nullable=False),
    Column("issued_by", ID, nullable=False),
)

# Answers to creates that carried an Idempotency-Key, for a day.
answers = Table(
    "answers",
    metadata,
    Column("key", ID, primary_key=True),
    Column("idempotency", String(255), primary_key=True),
    Column("request", String(64), nullable=False),  # SHA-256 of path and body
    Column("at_ms", BigInteger, nullable=False),
    Column("status", Integer),
    Column("body", Text),
    Index("answers_by_age", "at_ms"),
)

# Jobs of bulk import: how far each has come.
imports = Table(
    "imports",
    metadata,
    Column("id", ID, primary_key=True),
    Column("book", String(16), nullable=False),
    Column("format", String(8)),  # null until the first rows arrive
    Column("columns", Text),  # of a CSV file, from its header: a JSON array
    Column("state", String(8), nullable=False),
    Column("key", ID, nullable=False),
    Column("offset", BigInteger, nullable=False),  # bytes of whole lines that are done
    Column("lines", BigInteger, nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("existing", BigInteger, nullable=False),
    Column("bad", BigInteger, nullable=False),
    Column("begun_ms", BigInteger, nullable=False),
    Column("changed_ms", BigInteger, nullable=False),
)

import_errors = Table(
    "import_errors",
    metadata,
    Column("import", ID, primary_key=True),
    Column("line", BigInteger, primary_key=True),
    Column("column", String(32)),
    Column("reason", Text, nullable=False),
    sqlite_with_rowid=False,
)

# Commands to units; the state changes once, by the unit's answer.
commands = Table(
    "commands",
    metadata,
    Column("id", ID, primary_key=True),
    Column("unit", ID, nullable=False),
    Column("at_ms", BigInteger, nullable=False),
    Column("key", ID, nullable=False),
    Column("command", Text, nullable=False),  # a JSON object, as it was asked for
    Column("state", String(8), nullable=False),  # sent, accepted, refused
    Column("reason", Text),  # of a refusal
    Column("holds_from_ms", BigInteger),  # by the unit's clock
    Index("commands_by_unit", "unit", "at_ms"),
)

# Why gateways refused, or only partly took, what devices sent: the latest of each kind, by the enterprise
# that the topic named, whether the unit is registered or not.
device_problems = Table(
    "device_problems",
    metadata,
    Column("enterprise", ID, primary_key=True),
    Column("unit", ID, primary_key=True),
    Column("reason", String(32), primary_key=True),
    Column("county", String(6), nullable=False),
    Column("count", BigInteger, nullable=False),
    Column("first_ms", BigInteger, nullable=False),
    Column("last_ms", BigInteger, nullable=False),
    Column("excerpt", Text, nullable=False),
    Index("device_problems_by_age", "enterprise", "last_ms"),
)

# Actions on the alarms of a unit's signal; the alarms themselves are in the store.
alarm_notes = Table(
    "alarm_notes",
    metadata,
    Column("unit", ID, primary_key=True),
    Column("signal", String(64), primary_key=True),
    Column("acknowledged_since_ms", BigInteger),  # when the alarm began that was acknowledged
    Column("acknowledged_ms", BigInteger),
    Column("acknowledged_by", ID),
    Column("shelved_until_ms", BigInteger),
    Column("shelved_by", ID),
)

# Notifications of alarms, for each URL (`target` is a digest of it): the queue, and what was delivered.
webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("id", ID, primary_key=True),
    Column("target", String(64), nullable=False),
    Column("subject", String(255), nullable=False),  # what it is about: once for each target
    Column("at_ms", BigInteger, nullable=False),
    Column("body", Text, nullable=False),
    Column("state", String(16), nullable=False),  # waiting, delivered, failed
    Column("attempts", Integer, nullable=False),
    Column("next_ms", BigInteger, nullable=False),  # of the next attempt
    Column("answer", Text),  # of the last attempt
    Index("webhook_deliveries_once", "target", "subject", unique=True),
    Index("webhook_deliveries_due", "state", "next_ms"),
    Index("webhook_deliveries_by_age", "at_ms", "id"),
)

# Security events: see `registry/security.py`.
security_events = Table(
    "security_events",
    metadata,
    Column("kind", String(32), primary_key=True),
    Column("enterprise", ID, primary_key=True),  # empty where nobody knows it
    Column("subject", String(64), primary_key=True),
    Column("county", String(6), nullable=False),  # the same
    Column("count", BigInteger, nullable=False),
    Column("first_ms", BigInteger, nullable=False),
    Column("last_ms", BigInteger, nullable=False),
    Column("detail", Text, nullable=False),
    Index("security_events_by_age", "last_ms"),
)
