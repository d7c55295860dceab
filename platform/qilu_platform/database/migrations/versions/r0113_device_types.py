"""Classes that operators describe for generic units."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from qilu_platform.database.migrations.types import ID

revision = "0113"
down_revision = "0112"


def upgrade() -> None:
    op.create_table(
        "device_types",
        sa.Column("id", ID, primary_key=True),
        sa.Column("title", sa.String(80), nullable=False),
        sa.Column("title_zh", sa.String(80), nullable=False),
        sa.Column("signals", sa.Text, nullable=False),
    )
    op.create_table(
        "unit_types",
        sa.Column("unit", ID, primary_key=True),
        sa.Column("type", ID, nullable=False),
    )
