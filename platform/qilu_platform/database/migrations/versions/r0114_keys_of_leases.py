"""The key that holds a lease: another key cannot renew or release it.

Leases from before have no key; the first key that asks under the gateway's name takes them over. Gateways
announce themselves to `shard_gateways` every few seconds, so that table starts empty.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from qilu_platform.database.migrations.types import ID

revision = "0114"
down_revision = "0113"


def upgrade() -> None:
    # With a default: replicas of the version before insert rows without it during an upgrade.
    op.add_column("shards", sa.Column("key", ID, nullable=False, server_default=""))
    op.drop_table("shard_gateways")
    op.create_table(
        "shard_gateways",
        sa.Column("pool", sa.String(64), primary_key=True),
        sa.Column("gateway", sa.String(64), primary_key=True),
        sa.Column("key", ID, primary_key=True, server_default=""),
        sa.Column("until_ms", sa.BigInteger, nullable=False),
    )
