"""Classes that operators describe for generic units."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0113"
down_revision = "0112"

_ID = sa.String(32).with_variant(sa.String(32, collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "device_types",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("title", sa.String(80), nullable=False),
        sa.Column("title_zh", sa.String(80), nullable=False),
        sa.Column("signals", sa.Text, nullable=False),
    )
    op.create_table(
        "unit_types",
        sa.Column("unit", _ID, primary_key=True),
        sa.Column("type", _ID, nullable=False),
    )
