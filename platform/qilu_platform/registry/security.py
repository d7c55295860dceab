"""Security events: what platform, gateways and edge nodes refuse for reasons of security.

One row for each kind, enterprise and subject, with a count: a client that keeps trying changes one row.
Events of the platform's own requests are gathered in memory and written every two seconds, so a flood of
requests with wrong keys costs one statement.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from qilu_contract.errors import Reason
from qilu_contract.wire.clock import wall_ms
from sqlalchemy import Connection, delete, exists, func, select, tuple_

from qilu_platform.database.schema import certificates, enterprises
from qilu_platform.database.schema import security_events as table
from qilu_platform.database.statements import insert_rows
from qilu_platform.database.transactions import Database

Kind = Literal[
    "unknown_key",
    "revoked_key",
    "forbidden",
    "rate_limit",
    "wrong_topic",
    "sequence",
    "refused_command",
    "foreign_answer",
    "revoked_certificate",
    "expired_certificate",
    "refused_certificate",
]
KINDS: tuple[Kind, ...] = get_args(Kind)
BY_REASON: dict[str, Kind] = {
    Reason.WRONG_OWNER: "wrong_topic",
    Reason.BAD_TOPIC: "wrong_topic",
    Reason.NO_BIRTH: "sequence",
}
"""Reasons of refused readings, as gateways report them, that are events."""
MAX_ROWS = 10_000
"""The ones that are longest past make room."""
MAX_GATHERED = 1_000
"""Different events in memory; of more, the further ones count as one of another subject."""
MAX_DETAIL = 300
OTHERS = "others"
_SHOWN = ("kind", "enterprise", "subject", "county", "count", "first_ms", "last_ms", "detail")


@dataclass(frozen=True, slots=True)
class Event:
    """`enterprise` and `county` are empty where nobody knows them; `subject` is a unit, a key, a certificate
    or the address of a client."""

    kind: Kind
    enterprise: str
    subject: str
    detail: str
    county: str = ""
    count: int = 1


def record(connection: Connection, events: Iterable[Event]) -> None:
    """Add up events, in the transaction of what they are about."""
    now_ms = wall_ms()
    rows: dict[tuple[str, str, str], dict[str, Any]] = {}
    for each in events:
        key = (each.kind, each.enterprise, each.subject[:64])
        row = rows.setdefault(
            key,
            {
                "kind": each.kind,
                "enterprise": each.enterprise,
                "subject": each.subject[:64],
                "count": 0,
                "first_ms": now_ms,
                "last_ms": now_ms,
            },
        )
        row |= {"county": each.county, "detail": each.detail[:MAX_DETAIL], "count": row["count"] + each.count}
    if not rows:
        return
    _add_counties(connection, list(rows.values()))
    # In key order, so that two replicas wait for each other instead of deadlocking.
    insert = insert_rows(connection, table, [rows[key] for key in sorted(rows)])
    new = insert.excluded
    connection.execute(
        insert.on_conflict_do_update(
            index_elements=["kind", "enterprise", "subject"],
            set_={"count": table.c.count + new.count, "last_ms": new.last_ms, "detail": new.detail},
        )
    )
    excess = (connection.scalar(select(func.count()).select_from(table)) or 0) - MAX_ROWS
    if excess > 0:
        key_columns = (table.c.kind, table.c.enterprise, table.c.subject)
        oldest = select(*key_columns).order_by(table.c.last_ms).limit(excess)
        connection.execute(delete(table).where(tuple_(*key_columns).in_(oldest)))


def _add_counties(connection: Connection, rows: Sequence[dict[str, Any]]) -> None:
    lacking = sorted({row["enterprise"] for row in rows if row["enterprise"] and not row["county"]})
    found = select(enterprises.c.id, enterprises.c.county).where(enterprises.c.id.in_(lacking))
    counties = {row.id: row.county for row in connection.execute(found)} if lacking else {}
    for row in rows:
        row["county"] = row["county"] or counties.get(row["enterprise"], "")


def record_expired(connection: Connection) -> None:
    """Add certificates that have ended by themselves, each once."""
    known = exists().where(table.c.kind == "expired_certificate", table.c.subject == certificates.c.id)
    ended = select(certificates.c.id, certificates.c.enterprise).where(
        certificates.c.ends_ms <= wall_ms(), certificates.c.revoked_ms.is_(None), ~known
    )
    rows = connection.execute(ended.limit(1_000)).all()
    record(
        connection, [Event("expired_certificate", each.enterprise, each.id, "It has ended.") for each in rows]
    )


class Watch:
    """Events of requests to this replica, until they are written."""

    def __init__(self) -> None:
        self._gathered: dict[tuple[Kind, str, str], Event] = {}

    def see(self, kind: Kind, enterprise: str | None, subject: str, detail: str, count: int = 1) -> None:
        """Never blocks, and needs no more memory than MAX_GATHERED events."""
        key = (kind, enterprise or "", subject)
        if key not in self._gathered and len(self._gathered) >= MAX_GATHERED:
            key = (kind, "", OTHERS)
        before = self._gathered.get(key)
        self._gathered[key] = Event(*key, detail, count=count + (0 if before is None else before.count))

    async def step(self, database: Database) -> None:
        """Write what was gathered."""
        if not self._gathered:
            return
        gathered, self._gathered = self._gathered, {}
        await database.write(lambda connection: record(connection, gathered.values()))


def events(
    connection: Connection, kind: Kind | None, city: str | None, enterprise: str | None, limit: int
) -> dict[str, Any]:
    """{"items", "by_kind", "by_city", "by_enterprise"}: the latest ones, and how often there were any."""
    only = [
        *([table.c.kind == kind] if kind else []),
        *([table.c.county.startswith(city[:4])] if city else []),
        *([table.c.enterprise == enterprise] if enterprise else []),
    ]
    newest = select(*(table.c[name] for name in _SHOWN)).where(*only).order_by(table.c.last_ms.desc())
    items = [dict(row._mapping) for row in connection.execute(newest.limit(limit))]

    def by(column: Any, most: int) -> dict[str, int]:
        total = func.sum(table.c.count)
        grouped = select(column, total).where(*only, column != "").group_by(column).order_by(total.desc())
        return {name: int(count) for name, count in connection.execute(grouped.limit(most))}

    by_city: dict[str, int] = {}
    for county, count in by(table.c.county, 1_000).items():
        by_city[f"{county[:4]}00"] = by_city.get(f"{county[:4]}00", 0) + count
    return {
        "items": items,
        "by_kind": by(table.c.kind, len(KINDS)),
        "by_city": by_city,
        "by_enterprise": by(table.c.enterprise, 20),
    }
