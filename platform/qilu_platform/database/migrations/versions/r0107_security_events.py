"""Security events: what was refused for reasons of security, by kind, enterprise and subject."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from qilu_platform.database.migrations.types import ID

revision = "0107"
down_revision = "0106"


def upgrade() -> None:
    op.create_table(
        "security_events",
        sa.Column("kind", sa.String(32), primary_key=True),
        sa.Column("enterprise", ID, primary_key=True),
        sa.Column("subject", sa.String(64), primary_key=True),
        sa.Column("county", sa.String(6), nullable=False),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.Column("first_ms", sa.BigInteger, nullable=False),
        sa.Column("last_ms", sa.BigInteger, nullable=False),
        sa.Column("detail", sa.Text, nullable=False),
    )
    op.create_index("security_events_by_age", "security_events", ["last_ms"])
