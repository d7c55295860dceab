"""Notifications of alarms: what waits, and what was delivered."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from qilu_platform.database.migrations.types import ID

revision = "0105"
down_revision = "0104"


def upgrade() -> None:
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", ID, primary_key=True),
        sa.Column("target", sa.String(64), nullable=False),
        sa.Column("subject", sa.String(255), nullable=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("next_ms", sa.BigInteger, nullable=False),
        sa.Column("answer", sa.Text),
    )
    op.create_index("webhook_deliveries_once", "webhook_deliveries", ["target", "subject"], unique=True)
    op.create_index("webhook_deliveries_due", "webhook_deliveries", ["state", "next_ms"])
    op.create_index("webhook_deliveries_by_age", "webhook_deliveries", ["at_ms", "id"])
