"""Publishes stored readings to Kafka, at least once.

They are on disk, in a second spool, before their messages are acknowledged to the broker: storing and
acknowledging never wait for Kafka, and a killed gateway publishes them after its next start. Those for which
the disk has no room are counted as unpublished; they are in the store.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog
from qilu_common.backoff import Backoff
from qilu_contract.columns import Columns
from qilu_contract.errors import Retryable
from qilu_contract.storage import Point

from qilu_gateway.metrics import Publishing
from qilu_gateway.publish.kafka import KafkaTopic
from qilu_gateway.publish.messages import messages_of
from qilu_gateway.write.spool import Spool

log = structlog.get_logger()

SPOOL = "kafka-spool"
MOST_READINGS = 5000
"""Readings that are published together."""
GATHER_S = 0.1
"""Pause after a small batch, so that the disk takes several at once."""


class Publisher:
    """Publishes to a topic what `add` is called with. Opened by `async with`, which raises like Spool."""

    def __init__(self, folder: Path, max_bytes: int, min_free_bytes: int, topic: KafkaTopic) -> None:
        self._spool = Spool(folder, max_bytes, min_free_bytes, self._count_unpublished, SPOOL)
        self._topic = topic
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="gateway-kafka")
        self.published = 0
        """Readings that Kafka has acknowledged, repeated ones included."""
        self.unpublished = 0
        """Stored readings that are not published: there was no room on the disk, they are too large, or they
        cannot be read from the disk any more."""
        self.reason = ""
        """Why nothing is published now; empty while it is."""

    async def __aenter__(self) -> Self:
        await self._spool.__aenter__()
        self._count_unpublished(self._spool.corrupt)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._topic.close()
        self._thread.shutdown()
        await self._spool.__aexit__(kind, error, trace)

    @property
    def waiting(self) -> int:
        """Readings on disk that Kafka has not acknowledged."""
        return self._spool.readings

    def figures(self) -> Publishing:
        spool = self._spool
        return Publishing(self.published, self.unpublished, spool.readings, spool.bytes, spool.age_s())

    def _count_unpublished(self, readings: int) -> None:
        self.unpublished += readings

    async def add(self, points: Sequence[Point], columns: Sequence[Columns]) -> None:
        """Take over stored readings. They are on disk on return, or counted as unpublished."""
        readings = len(points) + sum(map(len, columns))
        if not readings:
            return
        for _ in range(2):  # after the first refusal a damaged file has been set aside
            if await self._spool.append(points, columns, ()):
                return
        self._count_unpublished(readings)

    async def run(self) -> None:
        """Publish, until cancelled."""
        backoff = Backoff(most_s=5.0)
        while True:
            await self._spool.filled.wait()
            try:
                batch = await self._spool.oldest(MOST_READINGS)
                if batch is None:
                    continue
                messages = messages_of(batch.points, batch.columns)
                loop = asyncio.get_running_loop()
                refused = await loop.run_in_executor(self._thread, self._topic.send, messages)
                await self._spool.remove(batch.ids)
            except Retryable as error:
                if not self.reason:
                    log.error("Kafka takes nothing: readings for it wait on disk", error=str(error))
                self.reason = str(error)
                await asyncio.sleep(backoff.delay_s())
            except (sqlite3.OperationalError, OSError) as error:
                log.warning("the spool for Kafka waits for the disk", error=str(error))
                await asyncio.sleep(backoff.delay_s())
            else:
                self._published(batch.readings, refused)
                backoff.reset()
                if batch.readings < MOST_READINGS:
                    await asyncio.sleep(GATHER_S)

    def _published(self, readings: int, refused: int) -> None:
        self.published += readings - refused
        if refused:
            log.error("readings are too large for Kafka", readings=refused)
            self._count_unpublished(refused)
        if self.reason:
            self.reason = ""
            log.info("Kafka takes messages again")
