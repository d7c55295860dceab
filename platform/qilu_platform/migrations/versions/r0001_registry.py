"""Registry, ledger, counters, keys."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_ID = sa.String(32).with_variant(sa.String(32, collation="C"), "postgresql")
_SERIAL = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "enterprises",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("county", sa.String(6), nullable=False),
        sa.Column("industry", sa.String(3), nullable=False),
        sa.Column("uscc", sa.String(18)),
        sa.Column("registered_ms", sa.BigInteger, nullable=False),
        sa.Column("on_cloud_ms", sa.BigInteger),
        sa.Column("contracts_current", sa.Integer, nullable=False),
    )
    op.create_table(
        "units",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("class", sa.String(32), nullable=False),
        sa.Column("enterprise", _ID, sa.ForeignKey("enterprises.id"), nullable=False),
        sa.Column("name", sa.Text),
        sa.Column("county", sa.String(6), nullable=False),
        sa.Column("industry", sa.String(3), nullable=False),
        sa.Column("registered_ms", sa.BigInteger, nullable=False),
        sa.Column("on_cloud_ms", sa.BigInteger),
        sa.Column("retired_ms", sa.BigInteger),
        sa.Column("last_hour", sa.Integer),
        postgresql_with={"fillfactor": "85"},
    )
    op.create_index("units_by_enterprise", "units", ["enterprise", "id"])
    op.create_index("units_by_cell", "units", ["county", "class", "id"])
    retired = sa.text("retired_ms IS NOT NULL")
    op.create_index("units_retired", "units", ["id"], sqlite_where=retired, postgresql_where=retired)
    op.create_table(
        "providers",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("registered_ms", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "contracts",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("enterprise", _ID, sa.ForeignKey("enterprises.id"), nullable=False),
        sa.Column("provider", _ID, sa.ForeignKey("providers.id"), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("registered_ms", sa.BigInteger, nullable=False),
        sa.Column("ended_ms", sa.BigInteger),
    )
    op.create_index("contracts_by_enterprise", "contracts", ["enterprise", "id"])
    op.create_table(
        "centres",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("city", sa.String(6), nullable=False),
        sa.Column("park", sa.Text),
        sa.Column("registered_ms", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "ledger",
        sa.Column("seq", _SERIAL, primary_key=True, autoincrement=True),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        sa.Column("event", sa.String(32), nullable=False),
        sa.Column("city", sa.String(6)),
        sa.Column("county", sa.String(6)),
        sa.Column("class", sa.String(32)),
        sa.Column("kind", sa.String(16)),
        sa.Column("count", sa.Integer, nullable=False),
    )
    op.create_table(
        "counters",
        sa.Column("scope", sa.String(16), primary_key=True),
        sa.Column("code", sa.String(32), primary_key=True),
        sa.Column("name", sa.String(32), primary_key=True),
        sa.Column("value", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "activity",
        sa.Column("hour", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("units", sa.Integer, nullable=False),
    )
    op.create_table(
        "sequences",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("next", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "api_keys",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("enterprise", _ID, sa.ForeignKey("enterprises.id")),
        sa.Column("sha256", sa.String(64), nullable=False, unique=True),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("revoked_ms", sa.BigInteger),
    )
    _make_append_only()


def _make_append_only() -> None:
    if op.get_bind().dialect.name == "sqlite":
        for change in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER ledger_no_{change.lower()} BEFORE {change} ON ledger "
                "BEGIN SELECT RAISE(ABORT, 'the ledger is append-only'); END"
            )
    else:
        op.execute(
            "CREATE FUNCTION ledger_is_append_only() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'the ledger is append-only'; END $$"
        )
        op.execute(
            "CREATE TRIGGER ledger_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger "
            "FOR EACH STATEMENT EXECUTE FUNCTION ledger_is_append_only()"
        )
