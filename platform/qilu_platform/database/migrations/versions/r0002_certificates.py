"""Client certificates of edge nodes, suspended enterprises."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from qilu_platform.database.migrations.types import ID

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("enterprises", sa.Column("suspended_ms", sa.BigInteger))
    _partial_index("enterprises_suspended", "enterprises", "id", "suspended_ms IS NOT NULL")
    _partial_index("audit_barring", "audit_log", "seq", "action IN ('suspended', 'retired')")
    op.create_table(
        "certificates",
        sa.Column("id", sa.String(40), primary_key=True),
        sa.Column("enterprise", ID, sa.ForeignKey("enterprises.id"), nullable=False),
        sa.Column("issued_ms", sa.BigInteger, nullable=False),
        sa.Column("ends_ms", sa.BigInteger, nullable=False),
        sa.Column("revoked_ms", sa.BigInteger),
    )
    op.create_index("certificates_by_enterprise", "certificates", ["enterprise", "id"])


def _partial_index(name: str, table: str, column: str, condition: str) -> None:
    where = sa.text(condition)
    op.create_index(name, table, [column], sqlite_where=where, postgresql_where=where)
