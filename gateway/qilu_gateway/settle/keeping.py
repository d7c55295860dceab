"""Saves to the state file what must be durable before messages are acknowledged, besides readings: dead
letters, births, first readings, the run's clock; to the spool for Kafka, stored readings.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence

from qilu_contract.errors import Reason
from qilu_contract.wire import clock
from qilu_contract.wire.doors import door_of

from qilu_gateway.publish.publisher import Publisher
from qilu_gateway.read import run_clock
from qilu_gateway.read.births import Births, Change
from qilu_gateway.read.control import Control
from qilu_gateway.read.in_flight import InFlightMessage
from qilu_gateway.read.reads import Read
from qilu_gateway.settle import outbox
from qilu_gateway.settle.dead_letters import Bounds, DeadLetter
from qilu_gateway.statefile import StateFile
from qilu_gateway.write.batches import Batch, Written


class Keeping:
    def __init__(
        self,
        state: StateFile,
        bounds: Bounds,
        births: Births,
        control: Control,
        publisher: Publisher | None = None,
    ) -> None:
        self._state, self._bounds, self._births, self._control = state, bounds, births, control
        self._publisher = publisher

    async def keep(
        self, written: Written, refused: Sequence[InFlightMessage], firsts: Mapping[str, int]
    ) -> int:
        """Save in one transaction per file; returns how many readings were evicted from the dead letters to
        make room. `firsts`: times (ms) of first readings by unit."""
        batch = written.batch
        if self._publisher is not None and not written.spooled:
            await self._publisher.add(batch.points, written.columns)
        letters = [letter for message in refused for letter in _letters(message)]
        changes = _changes(batch)
        heard = self._control.unsaved_clock()
        if not (letters or changes or firsts or heard):
            return 0

        def work(connection: sqlite3.Connection) -> int:
            self._births.save(connection, changes)
            outbox.add(connection, list(firsts), list(firsts.values()))
            if heard is not None:
                run_clock.save(connection, *heard)
            return self._bounds.add(connection, letters, clock.wall_ms())

        evicted = await self._state.hold(work)
        for message in batch.plain:
            if message.birth is not None:
                self._births.saved(message.birth)
        return evicted


def _letters(message: InFlightMessage) -> list[DeadLetter]:
    """A dead letter for each reason why readings of the message were refused."""
    payload, door = message.payload, door_of(message.topic)
    if message.receipt is not None and door is not None:  # a replay must use the same time
        payload = door.with_time(payload, message.receipt.ts_ms)
    return [
        DeadLetter(
            reason,
            detail,
            message.topic,
            payload,
            count,
            message.unit,
            message.dup,
            replayable=not (message.retained and reason is Reason.NO_BIRTH),
        )
        for reason, (detail, count) in message.refused.items()
    ]


def _changes(batch: Batch) -> list[Change]:
    """Changes by births and deaths, in their order."""
    found: list[Change] = []
    for item in batch.items:
        if isinstance(item, Read):
            found += item.born
            continue
        found += item.sessions
        if item.birth is not None:
            found.append(item.birth)
    return found
