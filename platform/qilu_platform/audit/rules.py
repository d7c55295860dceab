"""Invariants of the registry's rows, and their repair."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from qilu_contract.wire.clock import wall_ms
from sqlalchemy import (
    Connection,
    Select,
    func,
    select,
    update,
)

from qilu_platform.database.schema import (
    contracts,
    enterprises,
    recognitions,
    units,
)
from qilu_platform.models.fields import TIERS

SHOWN = 5
"""Ids that a finding names."""


@dataclass(frozen=True, slots=True)
class Rule:
    """An invariant of every row; `broken` selects the ids that violate it."""

    text: str
    """A sentence about `{number}` things: `{ids}`."""
    broken: Select[Any]
    mend: Callable[[Connection], Iterator[str]] | None = None
    """Restores it, and tells what it changes; None where only a person knows which of two rows is right."""

    def look(self, connection: Connection) -> tuple[int, list[str]]:
        """Number of rows that violate it, and the first ids."""
        found = self.broken.subquery()
        number = connection.scalar(select(func.count()).select_from(found)) or 0
        if not number:
            return 0, []
        return number, list(connection.scalars(select(found.c.id).order_by(found.c.id).limit(SHOWN)))

    def sentence(self, number: int, ids: Sequence[str]) -> str:
        more = ", …" if number > len(ids) else ""
        return self.text.format(number=number, ids=", ".join(ids) + more)


_owner = enterprises.alias("owner")
_with_owner = select(units.c.id).outerjoin_from(units, _owner, units.c.enterprise == _owner.c.id)
_signed = (
    select(
        contracts.c.enterprise.label("id"),
        func.count().label("begun"),
        (func.count() - func.count(contracts.c.ended_ms)).label("current"),
    )
    .group_by(contracts.c.enterprise)
    .subquery("signed")
)
_current = func.coalesce(_signed.c.current, 0)
_of_contracts = select(
    enterprises.c.id, enterprises.c.contracts_current, _current.label("current")
).outerjoin_from(enterprises, _signed, enterprises.c.id == _signed.c.id)
_standing = (recognitions.c.kind.in_(TIERS), recognitions.c.ended_ms.is_(None))
_lagging = _with_owner.where(
    _owner.c.suspended_ms.is_not(None), units.c.suspended_ms.is_(None), units.c.retired_ms.is_(None)
)


def _mend_contracts(connection: Connection) -> Iterator[str]:
    wrong = _of_contracts.where(enterprises.c.contracts_current != _current).order_by(enterprises.c.id)
    for id_, shown, current in connection.execute(wrong).all():
        yield f"enterprise {id_}: contracts_current {shown} becomes {current}"
        this = enterprises.c.id == id_
        connection.execute(update(enterprises).where(this).values(contracts_current=current))


def _mend_tiers(connection: Connection) -> Iterator[str]:
    rank = {kind.value: place for place, kind in enumerate(TIERS)}
    stands: set[str] = set()
    rows = connection.execute(select(recognitions).where(*_standing)).all()
    for row in sorted(rows, key=lambda row: (-rank[row.kind], row.registered_ms, row.id)):
        if row.subject in stands:
            yield f"platform {row.subject}: its recognition {row.id} as {row.kind} ends"
            this = recognitions.c.id == row.id
            connection.execute(update(recognitions).where(this).values(ended_ms=wall_ms()))
        stands.add(row.subject)


def _mend_suspended(connection: Connection) -> Iterator[str]:
    with_time = _lagging.add_columns(_owner.c.suspended_ms).order_by(units.c.id)
    for id_, suspended_ms in connection.execute(with_time).all():
        yield f"unit {id_}: suspended with its enterprise"
        connection.execute(update(units).where(units.c.id == id_).values(suspended_ms=suspended_ms))


def _mend_retired(connection: Connection) -> Iterator[str]:
    both = (units.c.retired_ms.is_not(None), units.c.suspended_ms.is_not(None))
    for id_ in connection.scalars(select(units.c.id).where(*both).order_by(units.c.id)).all():
        yield f"unit {id_}: retired, and no longer suspended"
        connection.execute(update(units).where(units.c.id == id_).values(suspended_ms=None))


RULES: Final[Sequence[Rule]] = (
    Rule(
        "{number} units belong to an enterprise that is not registered: {ids}",
        _with_owner.where(_owner.c.id.is_(None)),
    ),
    Rule(
        "{number} units are not in the county of their enterprise: {ids}",
        _with_owner.where(units.c.county != _owner.c.county),
    ),
    Rule(
        "{number} units are not in the industry of their enterprise: {ids}",
        _with_owner.where(units.c.industry != _owner.c.industry),
    ),
    Rule("{number} units are not suspended though their enterprise is: {ids}", _lagging, _mend_suspended),
    Rule(
        "{number} units are both retired and suspended: {ids}",
        select(units.c.id).where(units.c.retired_ms.is_not(None), units.c.suspended_ms.is_not(None)),
        _mend_retired,
    ),
    Rule(
        "contracts_current of {number} enterprises is not the number of their contracts: {ids}",
        _of_contracts.where(enterprises.c.contracts_current != _current),
        _mend_contracts,
    ),
    Rule(
        "{number} enterprises are on cloud without ever a contract, or not on cloud with one: {ids}",
        _of_contracts.where(enterprises.c.on_cloud_ms.is_(None) != _signed.c.id.is_(None)),
    ),
    Rule(
        "{number} platforms are in two tiers, or twice in one: {ids}",
        select(recognitions.c.subject.label("id"))
        .where(*_standing)
        .group_by(recognitions.c.subject)
        .having(func.count() > 1),
        _mend_tiers,
    ),
)


def mend_rows(connection: Connection) -> list[str]:
    return [change for rule in RULES if rule.mend is not None for change in rule.mend(connection)]
