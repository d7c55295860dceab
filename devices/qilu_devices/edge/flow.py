"""Flow control to a host: measures how far it is behind, and how many more readings may be made.

A broker acknowledges long before the host has a reading, so a PUBACK tells nothing about the host's pace.
Marks do (`qilu_contract.wire.marks`): they are published among the data, and the host returns them when it
reaches them.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from typing import Protocol

from qilu_contract.wire.clock import MAX_AHEAD_MS, wall_ms
from qilu_contract.wire.marks import Mark
from qilu_contract.wire.topics import HOST_ID

AHEAD_S = 1.0
"""Readings in transit are limited to what the host takes in this time."""
AHEAD_MIN = 250
"""Readings that may always be in transit: enough to keep a host busy between two marks."""
TICK_S = 0.1
RATE_OVER_S = 3.0
REPEAT_S = 2.0
"""Interval of marks without new readings, because a mark may be lost."""
UNANSWERED_S = 10.0
"""A host that answers none of the first marks within this time does not support marks, and its run clock is
unknown."""
EXPECTED_S = 2.0
"""Time to hold back readings while waiting for the first answer."""
MAX_OPEN = 1_000


class Marker(Protocol):
    """The part of an edge node that flow control needs."""

    @property
    def acked(self) -> int:
        """Readings that the broker acknowledged."""

    @property
    def online(self) -> bool: ...

    @property
    def pending(self) -> int:
        """Readings made, and neither acknowledged nor dropped."""

    def mark(self, number: int) -> None:
        """Publish a mark after all messages published so far."""


class Flow:
    """Flow control to one host, for the `nodes` that follow it. `moved` is called when the host has
    advanced."""

    def __init__(self, host: str = HOST_ID, moved: Callable[[], None] = lambda: None) -> None:
        self.host = host
        self.nodes: list[Marker] = []
        self._moved = moved
        self._announced_ms = 0
        self._heard_ms = 0  # the run's clock, as last reported by the host
        self._answers = False
        self._first_mark_s = float("inf")
        # From anywhere: a mark of an earlier process may still come back.
        self._number = random.randrange(2**48)
        self._sent_s = float("-inf")
        self._open: deque[tuple[int, int]] = deque(maxlen=MAX_OPEN)  # unanswered: number, acknowledged before
        self._taken = 0  # acknowledged before the last mark that was answered
        self._answered: deque[tuple[float, int]] = deque()  # lately: when, and `_taken`
        self._ahead = 0
        self._acked = self._marked = 0  # at the last look, and before the last mark
        self._some_online = False
        self._next_node = 0

    def limit_ms(self) -> int:
        """Time up to which readings may be published. A receiver judges the future by the later of wall clock
        and announced clock, so a reading waits until its host has a clock that is late enough."""
        known_ms = self._announced_ms
        if self._answers or not self._unanswered_s > UNANSWERED_S:
            known_ms = min(known_ms, self._heard_ms)
        # Half of what a receiver allows; the other half is for a late clock of the receiver.
        return max(wall_ms(), known_ms) + MAX_AHEAD_MS // 2

    def announced(self, ms: int) -> None:
        """Record that the broker has the announcement of this time."""
        self._announced_ms = ms
        if ms > wall_ms():
            self._mark()

    def made(self) -> None:
        """Count a reading that was passed to one of the nodes."""
        self._ahead += 1

    @property
    def is_full(self) -> bool:
        """Whether readings must wait until the host has advanced. An offline host blocks nothing."""
        if not self._some_online or not (self._answers or 0.0 < self._unanswered_s < EXPECTED_S):
            return False
        return self._ahead > max(AHEAD_MIN, AHEAD_S * self._rate)

    @property
    def _unanswered_s(self) -> float:
        """Time since the first mark was sent; below 0 before that."""
        return asyncio.get_running_loop().time() - self._first_mark_s

    @property
    def _rate(self) -> float:
        """Readings per second that the host took recently."""
        if len(self._answered) < 2:
            return 0.0
        (first_s, first), (last_s, last) = self._answered[0], self._answered[-1]
        return (last - first) / max(last_s - first_s, TICK_S)

    async def run(self) -> None:
        """Send marks, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(TICK_S)
            self._look()
            if self._acked != self._marked or loop.time() > self._sent_s + REPEAT_S:
                self._mark()

    def _look(self) -> None:
        """Count the readings in transit: those that wait in online nodes, and those that the broker has and
        the host is not known to have."""
        online = [node for node in self.nodes if node.online]
        self._acked = sum([node.acked for node in self.nodes])
        self._some_online = bool(online)
        self._ahead = self._acked - self._taken + sum([node.pending for node in online])
        self._moved()

    def _mark(self) -> None:
        for _ in self.nodes:
            self._next_node = (self._next_node + 1) % len(self.nodes)
            node = self.nodes[self._next_node]
            if node.online:
                self._sent_s = asyncio.get_running_loop().time()
                self._first_mark_s = min(self._first_mark_s, self._sent_s)
                self._number += 1
                self._marked = sum([node.acked for node in self.nodes])
                self._open.append((self._number, self._marked))
                node.mark(self._number)
                return

    def answered(self, mark: Mark) -> None:
        """Record that the host has reached this mark."""
        self._answers = True
        self._heard_ms = mark.clock_ms
        acked = dict(self._open).get(mark.number)
        if acked is not None:
            while self._open.popleft()[0] != mark.number:
                pass
            now_s = asyncio.get_running_loop().time()
            self._taken = acked
            self._answered.append((now_s, acked))
            while self._answered[0][0] < now_s - RATE_OVER_S and len(self._answered) > 2:
                self._answered.popleft()
        self._look()

    def forget(self) -> None:
        """Reset after the host went offline: its state must be learned again when it returns."""
        self._heard_ms = 0
