"""The registry's epoch, by which gateways notice that it may have gone back."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0101"
down_revision = "0007"


def upgrade() -> None:
    op.create_table(
        "epoch",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("value", sa.String(16), nullable=False),
    )
