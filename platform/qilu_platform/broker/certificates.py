"""Client certificates of edge nodes: issuing, validity and revocation."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from qilu_common.broker import is_service
from qilu_contract.wire.clock import wall_ms
from sqlalchemy import Connection, Row, func, select, update

from qilu_platform.broker.authority import CLOCK_SKEW, Authority, BadRequest, Revoked, requested_key
from qilu_platform.database.schema import certificates, enterprises, sequences
from qilu_platform.database.statements import insert_rows
from qilu_platform.errors import Conflict, Invalid, NotFound

MAX_VALID = 20
"""Of one enterprise at a time: enough to renew many devices' copies in turn, few enough to look at."""
_VERSION = "broker-rules"


@dataclass(frozen=True, slots=True)
class Node:
    """An edge node with a valid certificate, and the group that it speaks in."""

    enterprise: str
    county: str


def issue(
    connection: Connection, authority: Authority, enterprise: str, csr: str, days: int
) -> tuple[str, x509.Certificate]:
    """(id, certificate) for the key of `csr`, in the name of `enterprise`, whatever name the request gives.
    Raises NotFound for an unknown enterprise, Conflict for one that may have none, Invalid for a malformed
    request."""
    row = _locked(connection, enterprise)
    if is_service(enterprise):
        raise Conflict(
            f"{enterprise} is the name of a service at the broker: register the enterprise by another id.",
        )
    if row.suspended_ms is not None:
        raise Conflict(f"enterprise {enterprise} is suspended: resume it first.")
    now_ms = wall_ms()
    valid = (certificates.c.revoked_ms.is_(None), certificates.c.ends_ms > now_ms)
    mine = (certificates.c.enterprise == enterprise, *valid)
    if (connection.scalar(select(func.count()).select_from(certificates).where(*mine)) or 0) >= MAX_VALID:
        raise Conflict(f"enterprise {enterprise} has {MAX_VALID} valid certificates: revoke one first.")
    try:
        key = requested_key(csr)
    except BadRequest as error:
        raise Invalid(f"{error}.") from error
    now = datetime.now(UTC)
    made = authority.sign_node(key, enterprise, now - CLOCK_SKEW, now + timedelta(days=days))
    id_ = f"{made.serial_number:040x}"
    connection.execute(
        certificates.insert().values(
            id=id_,
            enterprise=enterprise,
            issued_ms=now_ms,
            ends_ms=int(made.not_valid_after_utc.timestamp() * 1000),
        )
    )
    touch_rules(connection)
    return id_, made


def revoke(connection: Connection, id_: str) -> bool:
    """End a certificate, for good; whether that changed anything. Raises NotFound."""
    row = get(connection, id_)
    if row["revoked_ms"] is not None:
        return False
    connection.execute(
        update(certificates)
        .where(certificates.c.id == id_, certificates.c.revoked_ms.is_(None))
        .values(revoked_ms=wall_ms())
    )
    touch_rules(connection)
    return True


def get(connection: Connection, id_: str) -> dict[str, Any]:
    """Raises NotFound."""
    row = connection.execute(select(certificates).where(certificates.c.id == id_)).one_or_none()
    if row is None:
        raise NotFound(f"certificate {id_} does not exist.")
    return _shown(row, wall_ms())


def page(
    connection: Connection, enterprise: str | None, ends_before_ms: int | None, cursor: str | None, limit: int
) -> dict[str, Any]:
    """{"items", "next"} in the order of ids; with `ends_before_ms` only valid ones that end by then."""
    query = select(certificates).where(certificates.c.id > (cursor or "")).order_by(certificates.c.id)
    now_ms = wall_ms()
    if enterprise is not None:
        query = query.where(certificates.c.enterprise == enterprise)
    if ends_before_ms is not None:
        ends = certificates.c.ends_ms
        query = query.where(certificates.c.revoked_ms.is_(None), ends > now_ms, ends < ends_before_ms)
    rows = connection.execute(query.limit(limit + 1)).all()
    items = [_shown(row, now_ms) for row in rows[:limit]]
    return {"items": items, "next": items[-1]["id"] if len(rows) > limit else None}


def _shown(row: Row[Any], now_ms: int) -> dict[str, Any]:
    state = "valid" if row.ends_ms > now_ms else "expired"
    return dict(row._mapping) | {"state": state if row.revoked_ms is None else "revoked"}


def nodes(connection: Connection) -> list[Node]:
    """Edge nodes that may speak: enterprises with a valid certificate that are not suspended, by id."""
    query = (
        select(enterprises.c.id, enterprises.c.county)
        .join(certificates, certificates.c.enterprise == enterprises.c.id)
        .where(
            certificates.c.revoked_ms.is_(None),
            certificates.c.ends_ms > wall_ms(),
            enterprises.c.suspended_ms.is_(None),
        )
        .distinct()
        .order_by(enterprises.c.id)
    )
    return [Node(*row) for row in connection.execute(query)]


def revocations(connection: Connection) -> list[Revoked]:
    """Entries of a revocation list: revoked certificates until they expire, and those of suspended
    enterprises, on hold."""
    query = (
        select(certificates.c.id, certificates.c.revoked_ms, enterprises.c.suspended_ms)
        .join(enterprises, certificates.c.enterprise == enterprises.c.id)
        .where(
            certificates.c.ends_ms > wall_ms(),
            certificates.c.revoked_ms.is_not(None) | enterprises.c.suspended_ms.is_not(None),
        )
        .order_by(certificates.c.id)
    )
    return [
        Revoked(int(id_, 16), revoked_ms or suspended_ms, held=revoked_ms is None)
        for id_, revoked_ms, suspended_ms in connection.execute(query)
    ]


def touch_rules(connection: Connection) -> None:
    """Note that what brokers must know has changed, in the transaction that changes it."""
    insert = insert_rows(connection, sequences, [{"name": _VERSION, "next": 1}])
    connection.execute(
        insert.on_conflict_do_update(index_elements=["name"], set_={"next": sequences.c.next + 1})
    )


def rules_version(connection: Connection) -> int:
    """Grows with each change of what brokers must know."""
    return connection.scalar(select(sequences.c.next).where(sequences.c.name == _VERSION)) or 0


def _locked(connection: Connection, enterprise: str) -> Row[Any]:
    query = select(enterprises).where(enterprises.c.id == enterprise).with_for_update(key_share=True)
    row = connection.execute(query).one_or_none()
    if row is None:
        raise NotFound(f"enterprise {enterprise} does not exist.")
    return row
