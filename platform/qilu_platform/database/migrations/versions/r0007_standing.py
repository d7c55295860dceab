"""A platform is in one tier, enforced by the database; and the time at which an hour of activity was last
reported.

Where two replicas had placed a platform in two tiers at once, it keeps the higher one: the other recognition
ends, and the ledger and the counters say so.
"""

from __future__ import annotations

import json
import time
from collections import Counter

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

_TIERS = ("enterprise_level", "cross_industry", "comprehensive")  # the lowest first
_STANDING = "ended_ms IS NULL AND kind IN ('enterprise_level', 'cross_industry', 'comprehensive')"


def upgrade() -> None:
    _end_second_tiers(op.get_bind())
    where = sa.text(_STANDING)
    op.create_index(
        "recognitions_standing",
        "recognitions",
        ["subject"],
        unique=True,
        sqlite_where=where,
        postgresql_where=where,
    )
    op.add_column("activity", sa.Column("heard_ms", sa.BigInteger))


def _end_second_tiers(connection: sa.Connection) -> None:
    query = f"SELECT id, kind, subject FROM recognitions WHERE {_STANDING} ORDER BY registered_ms, id"  # noqa: S608
    rows = connection.execute(sa.text(query)).all()
    stands: dict[str, tuple[str, str]] = {}
    for id_, kind, subject in rows:
        if subject not in stands or _TIERS.index(kind) > _TIERS.index(stands[subject][1]):
            stands[subject] = (id_, kind)
    left = [(id_, kind) for id_, kind, subject in rows if stands[subject][0] != id_]
    now_ms = time.time_ns() // 1_000_000
    for id_, _ in left:
        connection.execute(
            sa.text("UPDATE recognitions SET ended_ms = :now WHERE id = :id"), {"now": now_ms, "id": id_}
        )
    for kind, number in Counter(kind for _, kind in left).items():
        line = {"now": now_ms, "kind": kind, "number": number}
        connection.execute(
            sa.text(
                "INSERT INTO ledger (at_ms, event, kind, count) "
                "VALUES (:now, 'recognition_ended', :kind, :number)"
            ),
            line,
        )
        connection.execute(
            sa.text(
                "UPDATE counters SET value = value - :number WHERE name = 'recognitions_current' "
                "AND (scope = 'province' OR (scope = 'kind' AND code = :kind))"
            ),
            {"number": number, "kind": kind},
        )
    if left:
        detail = json.dumps({"second_tiers_ended": sorted(id_ for id_, _ in left)})
        connection.execute(
            sa.text(
                "INSERT INTO audit_log (at_ms, key, action, subject, detail) "
                "VALUES (:now, 'upgrade', 'repaired', 'recognitions', :detail)"
            ),
            {"now": now_ms, "detail": detail},
        )
