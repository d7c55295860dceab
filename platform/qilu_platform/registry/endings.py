"""The end of contracts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from qilu_contract.wire.clock import wall_ms
from sqlalchemy import Connection, select, update

from qilu_platform.counting import ledger
from qilu_platform.counting.ledger import Entry, Event, in_county
from qilu_platform.database.schema import contracts, enterprises
from qilu_platform.database.statements import among, rows_table
from qilu_platform.errors import NotFound


@dataclass(frozen=True, slots=True)
class Endings:
    """Result: number of contracts ended now and earlier, and ids that are not registered."""

    ended: int
    already: int
    unknown: list[str]


def end_contracts(connection: Connection, ids: Sequence[str]) -> Endings:
    """End contracts; with its last one an enterprise is no longer currently on cloud."""
    wanted = sorted(set(ids))
    of_owner = select(contracts.c.id, contracts.c.enterprise).where(among(connection, contracts.c.id, wanted))
    known = {row.id: row.enterprise for row in connection.execute(of_owner)}
    given = among(connection, contracts.c.id, sorted(known))
    # Lock owners first, in the same order as the start of a contract, to avoid deadlocks.
    owned = among(connection, enterprises.c.id, sorted(set(known.values())))
    query = select(enterprises).where(owned).order_by(enterprises.c.id).with_for_update(key_share=True)
    owners = {row.id: row for row in connection.execute(query)}
    found = connection.execute(
        select(contracts).where(given).order_by(contracts.c.id).with_for_update(key_share=True)
    ).all()
    ending = [row for row in found if row.ended_ms is None]
    entries = Counter(Entry(Event.CONTRACT_ENDED, kind=row.kind) for row in ending)
    changes = []
    for id_, number in sorted(Counter(row.enterprise for row in ending).items()):
        left = owners[id_].contracts_current - number
        changes.append((id_, left))
        if left == 0:
            entries[in_county(Event.ENTERPRISE_LEFT, owners[id_].county)] += 1
            if owners[id_].suspended_ms is not None:  # as with units: it comes back and leaves
                entries[in_county(Event.ENTERPRISE_RESUMED, owners[id_].county)] += 1
    if changes:
        ids_ = among(connection, contracts.c.id, [row.id for row in ending])
        connection.execute(update(contracts).where(ids_).values(ended_ms=wall_ms()))
        rows = rows_table(connection, [enterprises.c.id, enterprises.c.contracts_current], changes)
        connection.execute(
            update(enterprises)
            .where(enterprises.c.id == rows.c.id)
            .values(contracts_current=rows.c.contracts_current)
        )
    ledger.append(connection, entries)
    unknown = sorted(set(wanted) - known.keys())
    return Endings(len(ending), len(found) - len(ending), unknown)


def end_contract(connection: Connection, id_: str) -> bool:
    """End one; whether that changed anything. Raises NotFound."""
    done = end_contracts(connection, [id_])
    if done.unknown:
        raise NotFound(f"contract {id_} does not exist.")
    return bool(done.ended)
