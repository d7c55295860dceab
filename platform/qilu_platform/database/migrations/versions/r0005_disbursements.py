"""Voucher money by who pays, and a ledger that counts yuan."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from qilu_platform.database.migrations.types import ID

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table(
        "disbursements",
        sa.Column("id", ID, primary_key=True),
        sa.Column("level", sa.String(8), nullable=False),
        *(
            sa.Column(name, sa.BigInteger, nullable=False)
            for name in ("granted", "redeemed", "clawed_back", "registered_ms")
        ),
    )
    op.add_column("ledger", sa.Column("level", sa.String(8)))
    # A month's vouchers may come to more than 2^31 yuan. SQLite's INTEGER holds that already.
    if op.get_bind().dialect.name == "postgresql":
        op.alter_column("ledger", "count", type_=sa.BigInteger)
