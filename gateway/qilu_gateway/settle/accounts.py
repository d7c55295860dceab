"""Counts the outcomes of readings, and observes the lag of a sample of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from qilu_contract.errors import Reason
from qilu_contract.wire.clock import JudgingClock

from qilu_gateway.connect.session import HISTORY
from qilu_gateway.metrics import Meter
from qilu_gateway.read.in_flight import InFlightMessage, latest_ms
from qilu_gateway.write.batches import Written
from qilu_gateway.write.spool_file import Spooled

LAG_SAMPLES = 20
"""Number of readings per batch whose lag is observed."""


class Accounts:
    def __init__(self, meter: Meter, clock: JudgingClock) -> None:
        self._meter, self._clock = meter, clock

    def count(self, written: Written, refused: Sequence[InFlightMessage], evicted: int) -> None:
        """Count a durable batch; `refused`: messages with readings that are dead letters now."""
        counters = self._meter.counters
        counters.evicted += evicted
        readings = len(written.batch.points) + sum(map(len, written.columns))
        if written.spooled:
            counters.spooled += readings
        else:
            counters.stored += readings
        for message in refused:
            for reason, (_, count) in message.refused.items():
                counters.dead_lettered += count
                self._meter.by_reason[reason] += count
        counters.in_flight -= sum([message.count for message in written.batch.plain])
        counters.in_flight -= sum([read.weight for read in written.batch.reads])

    def count_shipped(self, batch: Spooled, refused: int, evicted: int) -> None:
        """Count a spooled batch that has reached the store, except for rejected readings."""
        counters = self._meter.counters
        counters.spooled -= batch.readings
        counters.stored += batch.readings - refused
        counters.dead_lettered += refused
        self._meter.by_reason[Reason.REFUSED_BY_STORE] += refused
        counters.evicted += evicted
        counters.shipped += batch.readings
        self._observe([ts_ms for _, ts_ms in islice(batch.heard(), LAG_SAMPLES)])

    def observe_stored(self, written: Written) -> None:
        for history in (False, True):
            self._observe(islice(_times(written, history=history), LAG_SAMPLES), history=history)

    def _observe(self, times: Sequence[int] | Iterator[int], *, history: bool = False) -> None:
        self._meter.observe_lags([self._clock.age_ms(ts_ms) for ts_ms in times], history=history)


def _times(written: Written, *, history: bool) -> Iterator[int]:
    """Times of the newest reading of each message, or of some of the columnar readings."""
    for message in written.batch.plain:
        if message.points and message.history is history:
            yield latest_ms(message.points)
    for read in written.batch.reads:
        if (read.arrival.lane == HISTORY) is history:
            for group in read.groups:
                yield from group.columns.ts_ms[:LAG_SAMPLES].tolist()
