"""Data products: versions of data sets that enterprises register for others."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from qilu_platform.database.migrations.types import ID

revision = "0111"
down_revision = "0107"


def upgrade() -> None:
    op.create_table(
        "data_products",
        sa.Column("id", ID, primary_key=True),
        sa.Column("version", ID, primary_key=True),
        sa.Column("owner", ID, sa.ForeignKey("enterprises.id"), nullable=False),
        sa.Column("dataset", sa.String(80), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("terms", sa.Text, nullable=False),
        sa.Column("licence", sa.Text, nullable=False),
        sa.Column("from_ms", sa.BigInteger, nullable=False),
        sa.Column("until_ms", sa.BigInteger),
        sa.Column("registered_ms", sa.BigInteger, nullable=False),
    )
