"""From the spool to the store: the oldest first, while new data goes its own way."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import replace

import structlog
from qilu_contract import json_payload, topics
from qilu_contract.clock import wall_ms
from qilu_contract.errors import Reason, Rejected, Retryable, TooLarge
from qilu_contract.storage import UNIT_TAGS, Point
from qilu_contract.stores import Store

from qilu_gateway import outbox
from qilu_gateway.backoff import Backoff
from qilu_gateway.dead_letters import Bounds, DeadLetter
from qilu_gateway.spool import Spool, Spooled
from qilu_gateway.statefile import StateFile

log = structlog.get_logger()

WRITE_S = 60.0
"""A write from the spool may take long: nobody waits for it."""
_COUNTY, _ENTERPRISE, _UNIT = (UNIT_TAGS.index(name) for name in ("county", "enterprise", "unit"))


class Shipper:
    def __init__(
        self,
        *,
        spool: Spool,
        store: Store,
        state: StateFile,
        bounds: Bounds,
        batch_size: int,
        shipped: Callable[[Spooled, int, int], None],
        failed: Callable[[str, Exception], None],
        succeeded: Callable[[str], None],
        rests_s: Callable[[], float],
    ) -> None:
        """`shipped` is called with batches that have left the spool, how many of their readings the store
        refused, and how many were evicted from the dead letters for these; `failed` and `succeeded` with what
        did or did not take a write; `rests_s` says how long the store asks to be left alone."""
        self._spool, self._store, self._state, self._bounds = spool, store, state, bounds
        self._batch_size, self._rests_s = batch_size, rests_s
        self._shipped, self._failed, self._succeeded = shipped, failed, succeeded

    async def run(self) -> None:
        """Ship what is spooled, for ever."""
        backoff = Backoff(most_s=5.0)
        while True:
            await self._spool.filled.wait()
            await asyncio.sleep(self._rests_s())
            try:
                batch = await self._spool.oldest(self._batch_size)
                if batch is not None:
                    await self._ship(batch)
                backoff.reset()
            except Retryable as error:
                self._failed("store", error)
                await asyncio.sleep(backoff.delay_s())
            except sqlite3.OperationalError as error:
                log.warning("the spool waits for the disk", error=str(error))
                await asyncio.sleep(backoff.delay_s())

    async def _ship(self, batch: Spooled) -> None:
        refused = await self._write(batch.points)
        letters = [_letter(point, detail) for point, detail in refused]
        firsts = batch.firsts
        if refused:  # a unit none of whose readings were stored is not on cloud by them
            bad = {id(point) for point, _ in refused}
            stored = {point.tags[_UNIT] for point in batch.points if id(point) not in bad}
            firsts = [(unit, ts_ms) for unit, ts_ms in firsts if unit in stored]

        def work(connection: sqlite3.Connection) -> int:
            outbox.add(connection, firsts)
            return self._bounds.add(connection, letters, wall_ms())

        evicted = await self._state.write(work) if firsts or letters else 0
        await self._spool.remove(batch.ids)
        self._shipped(replace(batch, firsts=firsts), len(refused), evicted)

    async def _write(self, points: Sequence[Point]) -> list[tuple[Point, str]]:
        """Write; returns the points that are refused even alone, with the reason. Raises Retryable."""
        try:
            async with asyncio.timeout(WRITE_S):
                await self._store.write(points)
        except TimeoutError as error:
            raise Retryable(f"the store took nothing within {WRITE_S:.0f} s") from error
        except (Rejected, TooLarge) as error:
            if len(points) == 1:
                return [(points[0], str(error))]
            half = len(points) // 2
            return await self._write(points[:half]) + await self._write(points[half:])
        self._succeeded("store")
        return []


def _letter(point: Point, detail: str) -> DeadLetter:
    """The message is gone, so the letter holds the reading as plain JSON, which says the same."""
    unit = point.tags[_UNIT]
    return DeadLetter(
        Reason.REFUSED_BY_STORE,
        detail,
        topics.telemetry(point.tags[_COUNTY], point.tags[_ENTERPRISE], unit),
        json_payload.encode([(point.ts_ms, point.fields)]),
        1,
        unit,
        redelivered=True,  # a batch that was shipped halfway is shipped again: its letters are there already
    )
