"""Problems of devices: why a gateway refused, or only partly took, what a unit sent."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from qilu_platform.database.migrations.types import ID

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_table(
        "device_problems",
        sa.Column("enterprise", ID, primary_key=True),
        sa.Column("unit", ID, primary_key=True),
        sa.Column("reason", sa.String(32), primary_key=True),
        sa.Column("county", sa.String(6), nullable=False),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.Column("first_ms", sa.BigInteger, nullable=False),
        sa.Column("last_ms", sa.BigInteger, nullable=False),
        sa.Column("excerpt", sa.Text, nullable=False),
    )
    op.create_index("device_problems_by_age", "device_problems", ["enterprise", "last_ms"])
