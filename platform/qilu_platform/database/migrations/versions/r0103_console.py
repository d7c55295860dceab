"""Data of the console: sessions of browsers, and actions on alarms."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from qilu_platform.database.migrations.types import ID

revision = "0103"
down_revision = "0102"


def upgrade() -> None:
    op.create_table(
        "sessions",
        sa.Column("sha256", sa.String(64), primary_key=True),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("key", ID, sa.ForeignKey("api_keys.id"), nullable=False),
        sa.Column("ends_ms", sa.BigInteger, nullable=False),
    )
    op.create_index("sessions_by_key", "sessions", ["key", "ends_ms"])
    op.create_table(
        "alarm_notes",
        sa.Column("unit", ID, primary_key=True),
        sa.Column("signal", sa.String(64), primary_key=True),
        sa.Column("acknowledged_since_ms", sa.BigInteger),
        sa.Column("acknowledged_ms", sa.BigInteger),
        sa.Column("acknowledged_by", ID),
        sa.Column("shelved_until_ms", sa.BigInteger),
        sa.Column("shelved_by", ID),
    )
