"""Second stage: checks batches and writes them to the store, or to the spool while the store is unavailable
or slow."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import numpy as np
from qilu_common.backoff import Backoff
from qilu_contract.catalogue.generic import GENERIC
from qilu_contract.columns import Ints
from qilu_contract.errors import BadReading, Remark, Retryable
from qilu_contract.readings import Reading
from qilu_contract.storage import Point
from qilu_contract.wire import clock
from qilu_contract.wire.clock import JudgingClock

from qilu_gateway.admit.learned_signals import LearnedSignals
from qilu_gateway.admit.units import Units
from qilu_gateway.read.batching import Batcher
from qilu_gateway.read.checking import check_all, check_units
from qilu_gateway.read.generic_checking import check_all_generic, learn_units
from qilu_gateway.read.in_flight import InFlightMessage
from qilu_gateway.read.intake import Item
from qilu_gateway.read.receipts import save as save_receipts
from qilu_gateway.statefile import StateFile
from qilu_gateway.write.batches import Batch, Written
from qilu_gateway.write.firsts import firsts_of
from qilu_gateway.write.spool import Spool
from qilu_gateway.write.store_gate import StoreGate

SLOW_S = 4.0
"""Write timeout: if the store takes longer for a batch, the batch is spooled. Less than a stall
(`health.py`)."""
WRITES = 2
"""Concurrent writes: while the store processes one batch, it receives the next."""
STUBBORN = 3
"""Failures before a batch is bisected to find the rejected points, while the store takes others."""

Settle = Callable[[Written], Awaitable[None]]


class Writer:
    def __init__(
        self,
        batcher: Batcher[Item],
        gate: StoreGate,
        spool: Spool,
        state: StateFile,
        judging: JudgingClock,
    ) -> None:
        self._batcher, self._gate, self._spool, self._state = batcher, gate, spool, state
        self._clock = judging

    async def run(self, units: Units, settle: Settle) -> None:
        """Process batches, until cancelled. WRITES are written concurrently, unless both hold a reading of
        the same unit and time, of which the last must win. Each is passed to `settle` once the one before it
        is settled."""
        writing: dict[asyncio.Task[Written], Ints] = {}
        last: asyncio.Task[None] | None = None
        async with asyncio.TaskGroup() as group:
            while True:
                batch = Batch.of(await self._batcher.next())
                while len(writing) >= WRITES:
                    await asyncio.wait(writing, return_when=asyncio.FIRST_COMPLETED)
                self._check(batch.plain, units.signals)
                parts = batch.keys(units)
                keys = np.sort(np.concatenate(parts))
                while before := [task for task, theirs in writing.items() if _meet(keys, theirs)]:
                    await asyncio.wait(before)
                task = group.create_task(self._write(batch.agree(parts), units), name="gateway-write")
                writing[task] = keys
                task.add_done_callback(writing.pop)
                last = group.create_task(_settle(settle, task, last), name="gateway-settle")

    async def _write(self, batch: Batch, units: Units) -> Written:
        receipts = [receipt for message in batch.plain if (receipt := message.receipt) and receipt.packet]
        if receipts:
            await self._state.hold(lambda connection: save_receipts(connection, receipts))
        written = await self._write_or_spool(batch, units)
        self._batcher.size = self._gate.batch_size
        return written

    def _check(self, batch: Sequence[InFlightMessage], signals: LearnedSignals) -> None:
        """Convert accepted readings to points, and refuse the others."""
        by_class: dict[str, tuple[list[InFlightMessage], list[Reading]]] = {}
        for message in batch:
            if message.admitted is not None:
                messages, readings = by_class.setdefault(message.admitted.class_name, ([], []))
                messages += [message] * len(message.readings)
                readings += message.readings
        latest_ms = self._clock.now_ms() + clock.MAX_AHEAD_MS
        for name, (messages, readings) in by_class.items():
            remark = partial(_remark, messages)
            if name == GENERIC:
                found = check_all_generic(readings, signals, latest_ms, remark)
            else:
                found = check_all(name, readings, latest_ms, remark)
            for message, reading, values in zip(messages, readings, found, strict=True):
                if isinstance(values, BadReading):
                    message.refuse(values)
                elif message.admitted is not None:
                    message.points.append(Point(name, message.admitted.tags, reading.ts_ms, values))
        for message in batch:
            if message.birth is not None:
                message.mark_birth(message.birth, latest_ms)
                if message.admitted is not None and message.admitted.class_name == GENERIC:
                    learn_units(message.admitted.tags.unit, message.units, signals)
                elif message.admitted is not None:
                    check_units(message.admitted.class_name, message.units, message.remark)

    async def _write_or_spool(self, batch: Batch, units: Units) -> Written:
        """Write the batch; waits while neither store nor spool takes it."""
        points, columns = batch.points, batch.columns
        if not points and not columns:
            return Written(batch, [])
        backoff = Backoff()
        failed = False
        stubborn = 0
        while True:
            if (failed or self._gate.away) and await self._to_spool(points, batch, units):
                return Written(batch, columns, spooled=True)
            patient = not self._spool.enabled or self._spool.full
            try:
                if stubborn >= STUBBORN:
                    refused = await self._gate.sift(points, columns)
                else:
                    within_s = None if patient else SLOW_S
                    refused = await self._gate.write_good(points, columns, within_s=within_s)
                return Written.without(batch, refused) if refused else Written(batch, columns)
            except Retryable:
                failed = True
                if patient or self._spool.full:
                    stubborn = stubborn + 1 if await self._gate.answers() else 0
                    await asyncio.sleep(max(backoff.delay_s(), self._gate.rests_s()))

    async def _to_spool(self, points: Sequence[Point], batch: Batch, units: Units) -> bool:
        """Append the batch to the spool; returns whether it is there now. First readings are spooled with it,
        and reported when the store has the readings."""
        firsts = firsts_of(units, points, batch.columns)
        return await self._spool.append(points, batch.columns, list(firsts.items()))


def _meet(keys: Ints, others: Ints) -> bool:
    """Whether two sorted arrays share a number."""
    if not len(keys) or not len(others):
        return False
    places = np.minimum(np.searchsorted(others, keys), len(others) - 1)
    return bool((others[places] == keys).any())


async def _settle(settle: Settle, writing: asyncio.Task[Written], before: asyncio.Task[None] | None) -> None:
    written = await writing
    if before is not None:
        await before
    await settle(written)


def _remark(messages: Sequence[InFlightMessage], place: int, kind: Remark, detail: str) -> None:
    messages[place].remark(kind, detail)
