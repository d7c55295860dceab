"""Passwords of single devices at the broker."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from qilu_platform.database.migrations.types import ID

revision = "0104"
down_revision = "0103"


def upgrade() -> None:
    op.create_table(
        "device_passwords",
        sa.Column("unit", ID, primary_key=True),
        sa.Column("hash", sa.Text, nullable=False),
        sa.Column("issued_ms", sa.BigInteger, nullable=False),
        sa.Column("issued_by", ID, nullable=False),
    )
