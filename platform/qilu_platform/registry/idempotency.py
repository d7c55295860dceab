"""Idempotency of creates with an `Idempotency-Key`: the first answer is kept for a day, and returned to
repeated requests."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
from qilu_contract.wire.clock import wall_ms
from sqlalchemy import Connection, delete, select, update

from qilu_platform.database.schema import answers
from qilu_platform.database.statements import insert_rows
from qilu_platform.errors import Invalid
from qilu_platform.registry.keys import Caller

KEPT_MS = 24 * 3_600_000
Work = Callable[[Connection], tuple[dict[str, Any], int]]
"""Does what was asked: the answer's content and status."""


@dataclass(frozen=True, slots=True)
class Repeatable:
    """A create that may be repeated: its caller, its key if it has one, and what it asks for."""

    caller: Caller
    key: str | None
    path: str
    row: dict[str, Any]

    def run(self, connection: Connection, work: Work) -> tuple[dict[str, Any], int]:
        """Run `work`, or return its earlier result. Raises Invalid when the key belongs to another request.
        Failures are not kept, because the transaction is rolled back."""
        if self.key is None:
            return work(connection)
        request = hashlib.sha256(self.path.encode() + b"\n" + msgspec.json.encode(self.row)).hexdigest()
        now_ms = wall_ms()
        connection.execute(delete(answers).where(answers.c.at_ms < now_ms - KEPT_MS))
        mine = (answers.c.key == self.caller.key, answers.c.idempotency == self.key)
        entry = {
            "key": self.caller.key,
            "idempotency": self.key,
            "request": request,
            "at_ms": now_ms,
        }
        # Of two that come at once the second waits here until the first is done, and then finds its answer.
        insert = insert_rows(connection, answers, [entry]).on_conflict_do_nothing()
        if connection.scalar(insert.returning(answers.c.key)) is None:
            row = connection.execute(select(answers).where(*mine)).one()
            if row.request != request:
                raise Invalid(
                    "Idempotency-Key: it stood for another request already; give each request its own.",
                )
            content: dict[str, Any] = msgspec.json.decode(row.body)
            return content, row.status
        content, status = work(connection)
        body = msgspec.json.encode(content).decode()
        connection.execute(update(answers).where(*mine).values(status=status, body=body))
        return content, status
