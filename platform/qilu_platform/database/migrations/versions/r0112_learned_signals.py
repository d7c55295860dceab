"""Signals of generic units, learned from what they send."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from qilu_platform.database.migrations.types import ID

revision = "0112"
down_revision = "0111"


def upgrade() -> None:
    op.create_table(
        "learned_signals",
        sa.Column("unit", ID, primary_key=True),
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("measured_in", sa.String(32), nullable=False),
        sa.Column("since_ms", sa.BigInteger, nullable=False),
    )
