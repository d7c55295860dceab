"""Recognitions: platforms by tier, suppliers, applications, pilot enterprises, bases, clusters."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from qilu_platform.database.migrations.types import ID

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "recognitions",
        sa.Column("id", ID, primary_key=True),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("place", sa.String(6), nullable=False),
        sa.Column("subject", ID),
        sa.Column("registered_ms", sa.BigInteger, nullable=False),
        sa.Column("ended_ms", sa.BigInteger),
    )
    op.create_index("recognitions_by_subject", "recognitions", ["subject", "id"])
