"""Everything that messages say beside readings: STATE of hosts, the run's clock, marks, gaps, births that are
missing.
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
"""So long after a connection was made a gap in sequence numbers is no reason to ask for a rebirth."""


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
        """The clock comes on its own way: what comes of it among the data is older."""
        self._heard: tuple[RunClock, int] | None = None
        """The run's clock, when it is not in the state file yet."""

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
        """What sequence numbers showed."""
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
        """The run's clock, on a way of its own: among the data it would wait behind them, and a broker that
        has a backlog of these may never hand it over."""
        with suppress(BadReading):
            self._hear(clock.decode(payload))
            self._hears_apart = True

    def unsaved_clock(self) -> tuple[RunClock, int] | None:
        """The run's clock, and when it was heard, if the state file is to be told."""
        heard, self._heard = self._heard, None
        return heard

    def _hear(self, announced: RunClock) -> None:
        heard_ms = clock.wall_ms()
        self.clock.hear(announced, heard_ms)
        self._heard = (announced, heard_ms)
