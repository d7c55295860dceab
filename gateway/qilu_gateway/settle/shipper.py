"""Ships batches from the spool to the store, oldest first, while new data is written directly."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import structlog
from qilu_common.backoff import Backoff
from qilu_contract.errors import Reason, Retryable
from qilu_contract.storage import BORN, Point
from qilu_contract.wire import json_payload, topics
from qilu_contract.wire.clock import wall_ms

from qilu_gateway.admit.units import Tags
from qilu_gateway.publish.publisher import Publisher
from qilu_gateway.settle import outbox
from qilu_gateway.settle.dead_letters import Bounds, DeadLetter
from qilu_gateway.settle.problems import Problems
from qilu_gateway.statefile import StateFile
from qilu_gateway.write.batches import without_refused
from qilu_gateway.write.spool import Spool
from qilu_gateway.write.spool_file import Spooled
from qilu_gateway.write.store_gate import StoreGate

log = structlog.get_logger()

WRITE_S = 60.0
"""Timeout of a write from the spool; it may be long, because nothing waits for it."""
STUBBORN = 3
"""Failures before a batch is bisected to find the rejected readings, while the store takes others."""
SIFT_S = 60.0
APART_S = 300.0
"""A batch whose faulty readings are not found within SIFT_S is postponed by this time, so that others go
first."""
IDLE_S = 1.0


class Shipper:
    def __init__(
        self,
        *,
        spool: Spool,
        gate: StoreGate,
        state: StateFile,
        bounds: Bounds,
        problems: Problems,
        shipped: Callable[[Spooled, int, int], None],
        publisher: Publisher | None = None,
    ) -> None:
        """`shipped` is called with batches that have left the spool, the number of their readings that the
        store rejected, and the number evicted from the dead letters to make room."""
        self._spool, self._gate, self._state, self._bounds = spool, gate, state, bounds
        self._problems, self._shipped, self._publisher = problems, shipped, publisher
        self._apart: dict[int, float] = {}

    async def run(self) -> None:
        """Ship spooled batches, until cancelled. A batch with which the store fails repeatedly does not block
        others."""
        backoff = Backoff(most_s=5.0)
        stubborn = 0
        while True:
            await self._spool.filled.wait()
            await asyncio.sleep(self._gate.rests_s())
            now_s = time.monotonic()
            self._apart = {id_: until_s for id_, until_s in self._apart.items() if until_s > now_s}
            try:
                batch = await self._spool.oldest(self._gate.batch_size, self._apart)
                if batch is None:
                    await asyncio.sleep(IDLE_S if self._apart else 0.0)
                    continue
                await self._ship(batch, sift=stubborn >= STUBBORN)
                backoff.reset()
                stubborn = 0
            except Retryable:
                stubborn = stubborn + 1 if await self._gate.answers() else 0
                await asyncio.sleep(backoff.delay_s())
            except (sqlite3.OperationalError, OSError) as error:
                log.warning("the spool waits for the disk", error=str(error))
                await asyncio.sleep(backoff.delay_s())

    async def _ship(self, batch: Spooled, *, sift: bool) -> None:
        if sift:
            log.warning("the store fails with a spooled batch: sifting it", readings=batch.readings)
            try:
                async with asyncio.timeout(SIFT_S):
                    refused = await self._gate.sift(batch.points, batch.columns)
            except TimeoutError:
                log.error("a spooled batch is set apart: it waits behind others", readings=batch.readings)
                self._apart.update(dict.fromkeys(batch.ids, time.monotonic() + APART_S))
                return
        else:
            refused = await self._gate.write_good(batch.points, batch.columns, within_s=WRITE_S)
        letters = [_letter(each.point, each.detail) for each in refused]
        firsts = batch.firsts
        if refused:  # a unit with all readings rejected is not on cloud by them
            stored = Counter(unit for unit, _ in batch.heard())
            stored.subtract(Tags(*each.point.tags).unit for each in refused)
            firsts = [(unit, ts_ms) for unit, ts_ms in firsts if stored[unit] > 0]
        if self._publisher is not None:  # before the batch leaves the spool
            await self._publisher.add(*without_refused(batch.points, batch.columns, refused))

        def work(connection: sqlite3.Connection) -> int:
            outbox.add(connection, [unit for unit, _ in firsts], [ts_ms for _, ts_ms in firsts])
            return self._bounds.add(connection, letters, wall_ms())

        evicted = await self._state.write(work) if firsts or letters else 0
        await self._spool.remove(batch.ids)
        for point, detail, *_ in refused:
            tags = Tags(*point.tags)
            self._problems.note(tags.unit, tags.enterprise, tags.county, Reason.REFUSED_BY_STORE, detail)
        self._shipped(replace(batch, firsts=firsts), len(refused), evicted)


def _letter(point: Point, detail: str) -> DeadLetter:
    """Dead letter for a point. The original message is gone, so the letter holds the equivalent plain
    JSON."""
    tags = Tags(*point.tags)
    return DeadLetter(
        Reason.REFUSED_BY_STORE,
        detail,
        topics.telemetry(tags.county, tags.enterprise, tags.unit),
        json_payload.encode(
            [(point.ts_ms, {name: value for name, value in point.fields.items() if name != BORN})]
        ),
        1,
        tags.unit,
        redelivered=True,  # a batch that was shipped in part is shipped again: its letters exist already
    )
