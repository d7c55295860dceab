"""Security events: what platform, gateways and edge nodes refuse, or find unusual, for reasons of security.

One row for each kind, enterprise and subject, with a count: a client that keeps trying changes one row. The
number of rows is bounded; counts by kind and city never decrease.

Events of the platform's own requests are gathered in memory and written every two seconds, so a flood of
requests with wrong keys costs one statement.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qilu_contract.catalogue.places import CITIES, city_of
from qilu_contract.errors import Reason, Remark
from qilu_contract.security import SECURITY_KINDS, UNKNOWN_CITY, SecurityKind
from qilu_contract.storage import Point
from qilu_contract.wire.clock import wall_ms
from sqlalchemy import ColumnElement, Connection, and_, delete, exists, func, select, tuple_

from qilu_platform.database.schema import certificates, enterprises
from qilu_platform.database.schema import security_events as table
from qilu_platform.database.statements import insert_rows
from qilu_platform.database.transactions import Database
from qilu_platform.models.bodies import ProblemIn

BY_REASON: dict[str, SecurityKind] = {
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
"""Rows. The ones that are longest past make room, so no kind crowds out others; what they counted is added to
one row for each city."""
MAX_GATHERED = 1_000
"""Different events in memory; of more, the further ones count as one of another subject."""
MAX_DETAIL = 300
OTHERS = "others"
_REST = {"": OTHERS} | {city: f"{OTHERS}-{city}" for city in CITIES}
"""Subjects of the rows for events without a separate row, by city."""
_SHOWN = ("kind", "enterprise", "subject", "county", "count", "first_ms", "last_ms", "detail")


@dataclass(frozen=True, slots=True)
class Event:
    """`enterprise` and `county` are empty where nobody knows them; `subject` is a unit, a key, a certificate
    or the address of a client. `county` may be a city."""

    kind: SecurityKind
    enterprise: str
    subject: str
    detail: str
    county: str = ""
    count: int = 1
    at_ms: int | None = None
    """None: now."""


def record(connection: Connection, events: Collection[Event]) -> None:
    """Add up events, in the transaction of what they are about."""
    now_ms = wall_ms()
    rows: dict[tuple[str, str, str], dict[str, Any]] = {}
    for each in events:
        key = (each.kind, each.enterprise, each.subject[:64])
        row = rows.setdefault(key, dict(zip(("kind", "enterprise", "subject"), key, strict=True)))
        at_ms = now_ms if each.at_ms is None else each.at_ms
        row |= {"county": each.county, "detail": each.detail[:MAX_DETAIL], "last_ms": at_ms}
        row |= {"count": row.get("count", 0) + each.count, "first_ms": row.get("first_ms", at_ms)}
    if not rows:
        return
    _add_counties(connection, list(rows.values()))
    _add(connection, rows)
    for kind in sorted({each.kind for each in events}):
        _make_room(connection, kind)


def _add(connection: Connection, rows: Mapping[tuple[str, str, str], dict[str, Any]]) -> None:
    # In key order, so that two replicas wait for each other instead of deadlocking.
    insert = insert_rows(connection, table, [rows[key] for key in sorted(rows)])
    new = insert.excluded
    connection.execute(
        insert.on_conflict_do_update(
            index_elements=["kind", "enterprise", "subject"],
            set_={"count": table.c.count + new.count, "last_ms": new.last_ms, "detail": new.detail},
        )
    )


def _make_room(connection: Connection, kind: SecurityKind) -> None:
    """Add the counts of the rows beyond the bound to the rows of their cities, and delete them."""
    mine = and_(table.c.kind == kind, ~_is_rest())
    excess = (connection.scalar(select(func.count()).select_from(table).where(mine)) or 0) - MAX_OF_KIND
    if excess <= 0:
        return
    key_columns = (table.c.enterprise, table.c.subject)
    oldest = select(*key_columns).where(mine).order_by(table.c.last_ms).limit(excess)
    gone = delete(table).where(mine, tuple_(*key_columns).in_(oldest))
    columns = (table.c.county, table.c.count, table.c.first_ms, table.c.last_ms)
    rest: dict[tuple[str, str, str], dict[str, Any]] = {}
    for county, count, first_ms, last_ms in connection.execute(gone.returning(*columns)):
        city = city_of(county) if city_of(county) in CITIES else ""
        key = (kind, "", _REST[city])
        row = rest.setdefault(key, {"kind": kind, "enterprise": "", "subject": _REST[city], "county": city})
        row |= {"count": row.get("count", 0) + count, "detail": "Events without a separate row."}
        row |= {"first_ms": min(row.get("first_ms", first_ms), first_ms)}
        row |= {"last_ms": max(row.get("last_ms", last_ms), last_ms)}
    _add(connection, rest)


def _is_rest() -> ColumnElement[bool]:
    return and_(table.c.enterprise == "", table.c.subject.in_(_REST.values()))


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
    kind: SecurityKind = "expired_certificate"
    known = exists().where(table.c.kind == kind, table.c.subject == certificates.c.id)
    settled_ms = connection.scalar(select(func.max(table.c.last_ms)).where(table.c.kind == kind, _is_rest()))
    ended = (
        select(certificates.c.id, certificates.c.enterprise, certificates.c.ends_ms)
        .where(certificates.c.ends_ms > (settled_ms or 0), certificates.c.ends_ms <= wall_ms())
        .where(certificates.c.revoked_ms.is_(None), ~known)
    )
    # The earliest first: those that ended before the ones that made room were counted.
    rows = connection.execute(ended.order_by(certificates.c.ends_ms).limit(1_000)).all()
    found = [Event(kind, each.enterprise, each.id, "It has ended.", at_ms=each.ends_ms) for each in rows]
    record(connection, found)


class Watch:
    """Events of requests to this replica, until they are written."""

    def __init__(self) -> None:
        self._gathered: dict[tuple[SecurityKind, str, str], Event] = {}

    def see(
        self, kind: SecurityKind, enterprise: str | None, subject: str, detail: str, count: int = 1
    ) -> None:
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
    """Points of the measurement `security`: the events since the registry was made, by kind and city."""

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
    connection: Connection, kind: SecurityKind | None, city: str | None, enterprise: str | None, limit: int
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
        "by_kind": by(table.c.kind, len(SECURITY_KINDS)),
        "by_city": by_city,
        "by_enterprise": by(table.c.enterprise, 1_000),
    }
