"""Security events: what platform, gateways and edge nodes refuse, or find unusual, for reasons of security.

One row for each kind, enterprise and subject, with a count: a client that keeps trying changes one row.
Events of the platform's own requests are gathered in memory and written every two seconds, so a flood of
requests with wrong keys costs one statement.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from qilu_contract.catalogue.places import CITIES, city_of
from qilu_contract.errors import Reason, Remark
from qilu_contract.storage import Point
from qilu_contract.wire.clock import wall_ms
from sqlalchemy import Connection, delete, exists, func, select, tuple_

from qilu_platform.database.schema import certificates, enterprises
from qilu_platform.database.schema import security_events as table
from qilu_platform.database.statements import insert_rows
from qilu_platform.database.transactions import Database
from qilu_platform.models.bodies import ProblemIn

Kind = Literal[
    "unknown_key",
    "revoked_key",
    "forbidden",
    "rate_limit",
    "wrong_topic",
    "sequence",
    "unusual_value",
    "dead_letter_burst",
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
    Remark.SEQUENCE_GAP: "sequence",
    Remark.OUT_OF_RANGE: "unusual_value",
}
"""Kinds of events by the reason that a gateway reports."""
BURST = 25
"""Dead letters of one enterprise in one report of a gateway (two seconds) that are a burst; assumed."""
_DEAD_LETTERS = frozenset(map(str, Reason)) - frozenset(map(str, Remark))
"""Reasons in reports that always mean dead letters; `wrong_type` and `unknown_signal` need not."""
MAX_OF_KIND = 2_000
"""Rows. The ones that are longest past make room, so no kind crowds out others."""
UNKNOWN_CITY = "unknown"
"""Tag value of events without a city of the province."""
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
    for kind in sorted({key[0] for key in rows}):
        _make_room(connection, kind)


def _make_room(connection: Connection, kind: str) -> None:
    mine = table.c.kind == kind
    excess = (connection.scalar(select(func.count()).select_from(table).where(mine)) or 0) - MAX_OF_KIND
    if excess > 0:
        key_columns = (table.c.enterprise, table.c.subject)
        oldest = select(*key_columns).where(mine).order_by(table.c.last_ms).limit(excess)
        connection.execute(delete(table).where(mine, tuple_(*key_columns).in_(oldest)))


def of_problems(problems: Iterable[ProblemIn]) -> list[Event]:
    """The events in a gateway's report."""
    found = []
    letters: dict[tuple[str, str], int] = {}
    for each in problems:
        if (kind := BY_REASON.get(each.reason)) is not None:
            found.append(Event(kind, each.enterprise, each.unit, each.excerpt, each.county, each.count))
        if each.reason in _DEAD_LETTERS:
            key = each.enterprise, each.county
            letters[key] = letters.get(key, 0) + each.count
    for (enterprise, county), count in letters.items():
        if count >= BURST:
            detail = f"{count} dead letters in one report of a gateway"
            found.append(Event("dead_letter_burst", enterprise, enterprise, detail, county))
    return found


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


class Situation:
    """Points of the measurement `security`: the events so far, by kind and city."""

    def __init__(self) -> None:
        self._known: set[tuple[str, str]] | None = None

    def points(self, connection: Connection, ts_ms: int, before_ms: int) -> list[Point]:
        """A kind that is new in its city begins with 0 at `before_ms`, so that its first events are an
        increase. The first look finds nothing new: nobody knows when what it sees happened."""
        totals = _totals(connection)
        new = set() if self._known is None else totals.keys() - self._known
        self._known = set(totals)
        found = [(key, before_ms, 0) for key in new]
        found += [(key, ts_ms, count) for key, count in totals.items()]
        return [Point("security", key, at_ms, {"events": count}) for key, at_ms, count in sorted(found)]


def _totals(connection: Connection) -> dict[tuple[str, str], int]:
    total = func.sum(table.c.count)
    totals: dict[tuple[str, str], int] = {}
    for kind, county, count in connection.execute(
        select(table.c.kind, table.c.county, total).group_by(table.c.kind, table.c.county)
    ):
        city = city_of(county)
        key = (kind, city if city in CITIES else UNKNOWN_CITY)
        totals[key] = totals.get(key, 0) + int(count)
    return totals


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
        "by_enterprise": by(table.c.enterprise, 1_000),
    }
