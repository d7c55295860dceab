"""Administration of dead letters: list, replay once the cause is fixed, and purge. The running gateway serves
it on its endpoint.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable

import msgspec
from qilu_contract.errors import Reason
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from qilu_gateway.endpoint import body, keyed
from qilu_gateway.settle.dead_letters import MOST_LISTED_BYTES, Bounds, Row, list_rows
from qilu_gateway.statefile import StateFile

TOGETHER = 100
"""Letters replayed concurrently; each waits for a batch to settle."""
MOST_AT_ONCE = 1000
"""Maximum number of letters that a call replays or purges; the answer tells whether there may be more."""


class Choice(msgspec.Struct, forbid_unknown_fields=True):
    """Selection of letters: those that match all given fields, up to and including `before_id`."""

    id: int | None = None
    reason: Reason | None = None
    unit: str | None = None
    before_id: int | None = None


class Outcome(msgspec.Struct):
    """Result of a call: `done` letters with `readings` were removed; `kept` ones were refused again or are
    truncated. Continue with `before_id` unless it is None."""

    done: int = 0
    readings: int = 0
    kept: int = 0
    before_id: int | None = None


class LetterOffice:
    def __init__(
        self,
        state: StateFile,
        bounds: Bounds,
        replay: Callable[[str, bytes, int], Awaitable[frozenset[Reason]]],
    ) -> None:
        """`replay` decodes a message again that was first received at a time (ms), and returns the reasons
        why its readings are refused now."""
        self._state, self._bounds, self._replay = state, bounds, replay

    def routes(self, key: str) -> list[Route]:
        """Routes for callers with the key."""
        return [
            Route("/dead-letters", keyed(self._list, key)),
            Route("/dead-letters/replay", keyed(self._serve_replay, key), methods=["POST"]),
            Route("/dead-letters/purge", keyed(self._serve_purge, key), methods=["POST"]),
        ]

    async def replay(self, choice: Choice) -> Outcome:
        """Replay letters, oldest first; those that are accepted now are removed."""
        rows, outcome = await self._choose(choice)
        rows.reverse()
        for start in range(0, len(rows), TOGETHER):
            some = rows[start : start + TOGETHER]
            reasons = await asyncio.gather(*map(self._take_again, some))
            gone = [row for row, found in zip(some, reasons, strict=True) if row.reason not in found]
            await self._remove(gone, outcome)
            outcome.kept += len(some) - len(gone)
        return outcome

    async def _take_again(self, row: Row) -> frozenset[Reason]:
        """Replay one letter; returns the reasons why its readings are refused now, or all reasons if it is
        truncated."""
        return (
            await self._replay(row.topic, row.payload, row.first_seen_ms) if row.whole else frozenset(Reason)
        )

    async def purge(self, choice: Choice) -> Outcome:
        """Delete letters."""
        rows, outcome = await self._choose(choice)
        await self._remove(rows, outcome)
        return outcome

    async def _choose(self, choice: Choice) -> tuple[list[Row], Outcome]:
        rows = await self._state.write(lambda connection: _rows(connection, choice, MOST_AT_ONCE))
        more = len(rows) == MOST_AT_ONCE or sum(len(row.payload) for row in rows) > MOST_LISTED_BYTES
        return rows, Outcome(before_id=rows[-1].id if more else None)

    async def _remove(self, rows: list[Row], outcome: Outcome) -> None:
        ids = [row.id for row in rows]
        letters, readings = await self._state.write(lambda connection: self._bounds.remove(connection, ids))
        outcome.done += letters
        outcome.readings += readings

    async def _list(self, request: Request) -> Response:
        try:
            choice = msgspec.convert(
                {name: value for name, value in request.query_params.items() if name != "limit"},
                Choice,
                strict=False,
            )
            limit = min(int(request.query_params.get("limit", "100")), MOST_AT_ONCE)
        except (msgspec.ValidationError, ValueError) as error:
            return PlainTextResponse(f"{error}\n", 400)
        try:
            rows = await self._state.write(lambda connection: _rows(connection, choice, limit))
        except (sqlite3.OperationalError, OSError) as error:
            return _away(error)
        return _json([row.as_dict() for row in rows])

    async def _serve_replay(self, request: Request) -> Response:
        return await self._do(request, self.replay)

    async def _serve_purge(self, request: Request) -> Response:
        return await self._do(request, self.purge)

    async def _do(self, request: Request, work: Callable[[Choice], Awaitable[Outcome]]) -> Response:
        try:
            choice = msgspec.json.decode(await body(request) or b"{}", type=Choice)
        except msgspec.DecodeError as error:
            return PlainTextResponse(f"{error}\n", 400)
        try:
            return _json(await work(choice))
        except (sqlite3.OperationalError, OSError) as error:
            return _away(error)


def _json(value: object) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json")


def _away(error: Exception) -> Response:
    return PlainTextResponse(f"the state file's disk is full or away ({error}): try again\n", 503)


def _rows(connection: sqlite3.Connection, choice: Choice, limit: int) -> list[Row]:
    return list_rows(
        connection,
        id=choice.id,
        reason=choice.reason,
        unit=choice.unit,
        before_id=choice.before_id,
        limit=limit,
    )
