"""Handles everything in messages besides readings: STATE of hosts, the run's clock, marks, sequence gaps, and
missing births.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import suppress

from qilu_contract.errors import BadReading
from qilu_contract.wire import clock
from qilu_contract.wire.clock import JudgingClock, RunClock
from qilu_contract.wire.marks import Mark

from qilu_gateway.connect.neighbours import Neighbours
from qilu_gateway.connect.session import Session
from qilu_gateway.metrics import Counters
from qilu_gateway.read.births import HISTORY
from qilu_gateway.read.decoded import Decoded
from qilu_gateway.read.edge_nodes import Followed
from qilu_gateway.read.rebirths import Rebirths

AFTER_CONNECT_S = 10.0
"""Time after a connection was made during which a sequence gap does not trigger a rebirth request."""


class Control:
    def __init__(
        self,
        session: Session,
        counters: Counters,
        neighbours: Neighbours,
        rebirths: Rebirths,
        answer_mark: Callable[[tuple[str, str], Mark], None],
    ) -> None:
        self._session, self._counters = session, counters
        self._neighbours, self._rebirths, self._answer_mark = neighbours, rebirths, answer_mark
        self.clock = JudgingClock()
        self._hears_apart = False
        """The clock has a separate session; clock messages among the data are older and ignored."""
        self._heard: tuple[RunClock, int] | None = None
        """The run's clock, if it is not in the state file yet."""

    def heed(self, decoded: Decoded, payload: bytes) -> None:
        counters = self._counters
        if decoded.host:
            self._neighbours.hear(decoded.host, payload)
        overtaken = self._hears_apart and decoded.clock and decoded.clock.now <= self.clock.announced_ms
        if decoded.clock is not None and not overtaken:
            self._hear(decoded.clock)
        node = (decoded.county, decoded.enterprise)
        if decoded.mark is not None:
            self._answer_mark(node, decoded.mark._replace(clock_ms=self.clock.announced_ms))
        if decoded.birth is not None:
            counters.births += 1
            if decoded.unit is None:
                self._rebirths.born(node)
        counters.ignored_deaths += decoded.ignored_death
        self._follow(node, decoded.gap, decoded.complete)
        if decoded.rebirth:
            self._rebirths.ask(node)

    def follow(self, found: Iterable[Followed]) -> None:
        """Act on sequence gaps and on gaps that have closed."""
        for node, gap, complete in found:
            self._follow((node.county.removeprefix(HISTORY), node.name), gap, complete)

    def _follow(self, node: tuple[str, str], gap: bool, complete: bool) -> None:
        if gap:
            self._counters.sequence_gaps += 1
            if time.monotonic() - self._session.up_since > AFTER_CONNECT_S:
                self._rebirths.skipped(node)
        if complete:
            self._rebirths.complete(node)

    def hear_clock(self, payload: bytes) -> None:
        """Take the run's clock from its separate session: among the data it would wait behind them, and a
        broker with a backlog might never deliver it."""
        with suppress(BadReading):
            self._hear(clock.decode(payload))
            self._hears_apart = True

    def unsaved_clock(self) -> tuple[RunClock, int] | None:
        """The run's clock and its time of receipt, if they are not in the state file yet."""
        heard, self._heard = self._heard, None
        return heard

    def _hear(self, announced: RunClock) -> None:
        heard_ms = clock.wall_ms()
        self.clock.hear(announced, heard_ms)
        self._heard = (announced, heard_ms)
