"""The audit log: who changed what, and when. Append-only, written in the transaction of the change itself."""

from __future__ import annotations

from typing import Any

import msgspec
from qilu_contract.wire.clock import wall_ms
from sqlalchemy import Connection, RowMapping, func, select

from qilu_platform.database import epoch, seals
from qilu_platform.database.locks import lock_barring
from qilu_platform.database.schema import BARRING, api_keys, audit_log
from qilu_platform.models.fields import Role
from qilu_platform.registry.keys import Caller

_BARRING = ("suspended", "retired")
MAX_BARRED = 5_000


def record(connection: Connection, caller: Caller, action: str, subject: str, **detail: Any) -> None:
    """Note that `caller` did `action` to `subject`: `units/<id>`, or `units` for many at once, with their
    numbers in `detail`."""
    if action in _BARRING:
        lock_barring(connection)
    row = {
        "at_ms": wall_ms(),
        "key": caller.key,
        "action": action,
        "subject": subject,
        "detail": msgspec.json.encode(detail).decode() if detail else None,
    }
    connection.execute(audit_log.insert().values(row))
    seals.add(connection, {"audit_log": seals.sum_up_rows(connection, "audit_log", [row])})


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


def barred_after(connection: Connection, after: int | None) -> dict[str, Any]:
    """{"epoch", "next", "units", "enterprises"}: units and enterprises suspended or retired after line
    `after`, up to MAX_BARRED; with None none, only the position to continue from. `next` is less than `after`
    if that line does not exist, because the registry was restored from a backup."""
    found: dict[str, list[str]] = {"units": [], "enterprises": []}
    if after is not None:
        lines = select(audit_log.c.seq, audit_log.c.subject).where(BARRING, audit_log.c.seq > after)
        rows = connection.execute(lines.order_by(audit_log.c.seq).limit(MAX_BARRED)).all()
        for row in rows:
            book, _, id_ = row.subject.partition("/")
            found[book].append(id_)
        if rows:
            return {"epoch": epoch.current(connection), "next": rows[-1].seq, **found}
    last = connection.scalar(select(func.max(audit_log.c.seq)).where(BARRING)) or 0
    # Not later than asked: a line that was added since the first query is the next answer's.
    return {"epoch": epoch.current(connection), "next": last if after is None else min(after, last), **found}


def history(connection: Connection, unit: RowMapping) -> list[dict[str, Any]]:
    """The history of a unit, oldest first.

    Registration and first reading come from its row, whose columns are written once, instead of ten million
    lines in the audit log. Later events come from the audit log.
    """
    found = [{"event": "registered", "at_ms": unit["registered_ms"], "key": None}]
    if unit["on_cloud_ms"] is not None:
        found.append({"event": "on_cloud", "at_ms": unit["on_cloud_ms"], "key": None})
    itself, owner = f"units/{unit['id']}", f"enterprises/{unit['enterprise']}"
    with_owner = audit_log.c.action.in_(("suspended", "resumed")) & (audit_log.c.subject == owner)
    changes = select(audit_log).where(
        (audit_log.c.subject == itself) | (with_owner & (audit_log.c.at_ms >= unit["registered_ms"]))
    )
    for row in connection.execute(changes.order_by(audit_log.c.seq)):
        if row.subject == owner:
            found.append({"event": f"enterprise_{row.action}", "at_ms": row.at_ms, "key": row.key})
        elif row.action == "registered":
            found[0]["key"] = row.key
        else:
            found.append({"event": row.action, "at_ms": row.at_ms, "key": row.key})
    return found


def suspended_by_owner(connection: Connection, unit: str) -> bool:
    """Whether the latest suspension of a unit was by a key of role `enterprise`."""
    by = (
        select(api_keys.c.role)
        .join(audit_log, audit_log.c.key == api_keys.c.id)
        .where(audit_log.c.subject == f"units/{unit}", audit_log.c.action == "suspended")
        .order_by(audit_log.c.seq.desc())
        .limit(1)
    )
    return connection.scalar(by) == Role.ENTERPRISE.value


def _shown(row: RowMapping) -> dict[str, Any]:
    detail = None if row["detail"] is None else msgspec.json.decode(row["detail"])
    return dict(row) | {"detail": detail}
