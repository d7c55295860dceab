"""Registry, ledger, counters, keys, audit log, imports."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from qilu_platform.database.migrations.types import ID

revision = "0001"
down_revision = None

_NAME = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_SERIAL = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "enterprises",
        sa.Column("id", ID, primary_key=True),
        sa.Column("name", _NAME, nullable=False),
        sa.Column("county", sa.String(6), nullable=False),
        sa.Column("industry", sa.String(3), nullable=False),
        sa.Column("uscc", sa.String(18)),
        sa.Column("registered_ms", sa.BigInteger, nullable=False),
        sa.Column("on_cloud_ms", sa.BigInteger),
        sa.Column("contracts_current", sa.Integer, nullable=False),
    )
    for column in ("county", "industry", "name"):
        op.create_index(f"enterprises_by_{column}", "enterprises", [column, "id"])
    _partial_index("enterprises_by_uscc", "enterprises", ["uscc"], "uscc", unique=True)
    op.create_table(
        "units",
        sa.Column("id", ID, primary_key=True),
        sa.Column("class", sa.String(32), nullable=False),
        sa.Column("enterprise", ID, nullable=False),
        sa.Column("name", sa.Text),
        sa.Column("county", sa.String(6), nullable=False),
        sa.Column("industry", sa.String(3), nullable=False),
        sa.Column("irregular", sa.Integer),
        sa.Column("registered_ms", sa.BigInteger, nullable=False),
        sa.Column("on_cloud_ms", sa.BigInteger),
        sa.Column("suspended_ms", sa.BigInteger),
        sa.Column("retired_ms", sa.BigInteger),
        sa.Column("last_hour", sa.Integer),
        sqlite_with_rowid=False,
        postgresql_with={"fillfactor": "85"},
    )
    op.create_index("units_by_enterprise", "units", ["enterprise", "id"])
    _partial_index("units_irregular", "units", ["county", "class", "id"], "irregular")
    _partial_index("units_suspended", "units", ["id"], "suspended_ms")
    _partial_index("units_retired", "units", ["id"], "retired_ms")
    op.create_table(
        "providers",
        sa.Column("id", ID, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("registered_ms", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "contracts",
        sa.Column("id", ID, primary_key=True),
        sa.Column("enterprise", ID, sa.ForeignKey("enterprises.id"), nullable=False),
        sa.Column("provider", ID, sa.ForeignKey("providers.id"), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("registered_ms", sa.BigInteger, nullable=False),
        sa.Column("ended_ms", sa.BigInteger),
    )
    op.create_index("contracts_by_enterprise", "contracts", ["enterprise", "id"])
    op.create_table(
        "centres",
        sa.Column("id", ID, primary_key=True),
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
        sa.Column("id", ID, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("enterprise", ID, sa.ForeignKey("enterprises.id")),
        sa.Column("sha256", sa.String(64), nullable=False, unique=True),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("revoked_ms", sa.BigInteger),
    )
    op.create_table(
        "audit_log",
        sa.Column("seq", _SERIAL, primary_key=True, autoincrement=True),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        sa.Column("key", ID, nullable=False),
        sa.Column("action", sa.String(32), nullable=False),
        sa.Column("subject", sa.String(64), nullable=False),
        sa.Column("detail", sa.Text),
    )
    op.create_index("audit_by_subject", "audit_log", ["subject", "seq"])
    op.create_table(
        "answers",
        sa.Column("key", ID, primary_key=True),
        sa.Column("idempotency", sa.String(255), primary_key=True),
        sa.Column("request", sa.String(64), nullable=False),
        sa.Column("at_ms", sa.BigInteger, nullable=False),
        sa.Column("status", sa.Integer),
        sa.Column("body", sa.Text),
    )
    op.create_index("answers_by_age", "answers", ["at_ms"])
    op.create_table(
        "imports",
        sa.Column("id", ID, primary_key=True),
        sa.Column("book", sa.String(16), nullable=False),
        sa.Column("format", sa.String(8)),
        sa.Column("columns", sa.Text),
        sa.Column("state", sa.String(8), nullable=False),
        sa.Column("key", ID, nullable=False),
        *(
            sa.Column(name, sa.BigInteger, nullable=False)
            for name in ("offset", "lines", "created", "existing", "bad", "begun_ms", "changed_ms")
        ),
    )
    op.create_table(
        "import_errors",
        sa.Column("import", ID, primary_key=True),
        sa.Column("line", sa.BigInteger, primary_key=True),
        sa.Column("column", sa.String(32)),
        sa.Column("reason", sa.Text, nullable=False),
        sqlite_with_rowid=False,
    )
    _make_append_only("ledger", "the ledger")
    _make_append_only("audit_log", "the audit log")


def _partial_index(name: str, table: str, columns: list[str], given: str, *, unique: bool = False) -> None:
    """An index of the rows that have a value in `given`."""
    where = sa.text(f"{given} IS NOT NULL")
    op.create_index(name, table, columns, unique=unique, sqlite_where=where, postgresql_where=where)


def _make_append_only(table: str, what: str) -> None:
    if op.get_bind().dialect.name == "sqlite":
        for change in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER {table}_no_{change.lower()} BEFORE {change} ON {table} "
                f"BEGIN SELECT RAISE(ABORT, '{what} is append-only'); END"
            )
    else:
        op.execute(
            f"CREATE FUNCTION {table}_is_append_only() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$ BEGIN RAISE EXCEPTION '{what} is append-only'; END $$"
        )
        op.execute(
            f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
            f"FOR EACH STATEMENT EXECUTE FUNCTION {table}_is_append_only()"
        )
