"""Signals of generic units, learned from what they send."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0112"
down_revision = "0111"

_ID = sa.String(32).with_variant(sa.String(32, collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "learned_signals",
        sa.Column("unit", _ID, primary_key=True),
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("measured_in", sa.String(32), nullable=False),
        sa.Column("since_ms", sa.BigInteger, nullable=False),
    )
