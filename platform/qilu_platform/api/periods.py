"""The period that a question is about, and the bound on long questions."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Annotated

from fastapi import Query
from qilu_contract.readings import MAX_TIME_MS
from qilu_contract.wire.clock import wall_ms

from qilu_platform.api.problems import Problem
from qilu_platform.counting.activity import HOUR_MS

AT_ONCE = 2
"""Long questions of a kind that a replica answers at the same time: each scans a part of the store."""

Ms = Annotated[int | None, Query(ge=0, le=MAX_TIME_MS, description="Milliseconds since 1970, UTC.")]
From = Annotated[str | None, Query(alias="from", description="RFC 3339 or ms.")]
To = Annotated[str | None, Query(description="RFC 3339 or ms; else now. Not included itself.")]


def period_ms(
    from_: str | int | None,
    to: str | int | None,
    default_ms: int = HOUR_MS,
    most_ms: int = MAX_TIME_MS,
) -> tuple[int, int]:
    """Begin and end of a period: without `to` until now, without `from` of the default length. Raises Problem
    when it ends before it begins, or is longer than `most_ms`."""
    end_ms = wall_ms() + 1 if to is None else _time_ms(to, "to")
    start_ms = max(0, end_ms - default_ms) if from_ is None else _time_ms(from_, "from")
    if start_ms >= end_ms:
        raise Problem(422, "from: must be before `to`.")
    if end_ms - start_ms > most_ms:
        days = most_ms // (24 * HOUR_MS)
        raise Problem(422, f"from: {f'{days} days' if days > 1 else 'a day'} at most before `to`.")
    return start_ms, end_ms


def _time_ms(given: str | int, where: str) -> int:
    """A time in a query: milliseconds or RFC 3339. Raises Problem."""
    if isinstance(given, int):
        return given
    if given.isascii() and given.isdigit() and len(given) <= 15:
        return min(int(given), MAX_TIME_MS)
    try:
        # A + that was not escaped arrives as a space.
        moment = datetime.fromisoformat(given.replace(" ", "+"))
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise Problem(
            422,
            f"{where}: not a time; give milliseconds or RFC 3339, such as 2026-01-31T08:00:00+08:00.",
        )
    return min(max(0, int(moment.timestamp() * 1000)), MAX_TIME_MS)


class LongQuestions:
    """`async with` it around the answer to a long question of this kind. Raises Problem while AT_ONCE others
    are answered."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._running = asyncio.Semaphore(AT_ONCE)

    async def __aenter__(self) -> None:
        if self._running.locked():
            raise Problem(
                503, f"{AT_ONCE} {self._kind} are under way: try again.", headers={"Retry-After": "10"}
            )
        await self._running.acquire()

    async def __aexit__(self, *_: object) -> None:
        self._running.release()
