"""Commands to units and what became of them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from qilu_platform.database.migrations.types import ID

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "commands",
        sa.Column("id", ID, primary_key=True),
        sa.Column("unit", ID, nullable=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        sa.Column("key", ID, nullable=False),
        sa.Column("command", sa.Text, nullable=False),
        sa.Column("state", sa.String(8), nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("holds_from_ms", sa.BigInteger),
    )
    op.create_index("commands_by_unit", "commands", ["unit", "at_ms"])
