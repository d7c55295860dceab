"""The audit log: who changed what, and when. Append-only, written in the transaction of the change itself."""

from __future__ import annotations

from typing import Any

import msgspec
from qilu_contract.clock import wall_ms
from sqlalchemy import Connection, RowMapping, select

from qilu_platform.keys import Caller
from qilu_platform.schema import audit_log


def record(connection: Connection, caller: Caller, action: str, subject: str, **detail: Any) -> None:
    """Note that `caller` did `action` to `subject`: `units/<id>`, or `units` for many at once, with their
    numbers in `detail`."""
    connection.execute(
        audit_log.insert().values(
            at_ms=wall_ms(),
            key=caller.key,
            action=action,
            subject=subject,
            detail=msgspec.json.encode(detail).decode() if detail else None,
        )
    )


def latest(
    connection: Connection, before: int | None, limit: int, subject: str | None, key: str | None
) -> dict[str, Any]:
    """{"items", "next"}: the newest first, those before the line numbered `before`."""
    query = select(audit_log).order_by(audit_log.c.seq.desc()).limit(limit + 1)
    if before is not None:
        query = query.where(audit_log.c.seq < before)
    if subject is not None:
        query = query.where(audit_log.c.subject == subject)
    if key is not None:
        query = query.where(audit_log.c.key == key)
    rows = connection.execute(query).all()
    items = [_shown(row._mapping) for row in rows[:limit]]
    return {"items": items, "next": str(items[-1]["seq"]) if len(rows) > limit else None}


def history(connection: Connection, unit: RowMapping) -> list[dict[str, Any]]:
    """What happened to a unit, oldest first.

    Registration and first reading stand in its row, in columns that are written once: ten million lines would
    say the same here. What came after is read from the audit log.
    """
    found = [{"event": "registered", "at_ms": unit["registered_ms"], "key": None}]
    if unit["on_cloud_ms"] is not None:
        found.append({"event": "on_cloud", "at_ms": unit["on_cloud_ms"], "key": None})
    changes = select(audit_log).where(audit_log.c.subject == f"units/{unit['id']}").order_by(audit_log.c.seq)
    for row in connection.execute(changes):
        if row.action == "registered":
            found[0]["key"] = row.key
        else:
            found.append({"event": row.action, "at_ms": row.at_ms, "key": row.key})
    return found


def _shown(row: RowMapping) -> dict[str, Any]:
    detail = None if row["detail"] is None else msgspec.json.decode(row["detail"])
    return dict(row) | {"detail": detail}
