"""Asks edge nodes for their births, without a storm: each node at most once in a while, and a limited number
a second in all. What is asked for in between is put off, not forgotten, until the node is born.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable

import structlog
from qilu_contract.wire import sparkplug, topics
from qilu_contract.wire.sparkplug import DataType, Metric, Payload

log = structlog.get_logger()

Node = tuple[str, str]
"""County and enterprise."""
JITTER_S = 1.0
QUIET_S = 60.0
"""A node that does not answer is asked again no sooner than this, and up to half as much later."""
ANSWERED_S = 5.0
"""A node that has answered by its birth is asked again no sooner than this; assumed."""
TICK_S = 0.1
MOST_PER_TICK = 20
MAX_WAITING = 100_000
"""Nodes that are to be asked, and nodes that were asked lately; beyond, requests are dropped: whoever still
sends unknown aliases comes back with its next message.
"""


class Rebirths:
    def __init__(
        self,
        send: Callable[[str, bytes], bool],
        sent: Callable[[], None],
        reorder_timeout_s: float = 0.0,
    ) -> None:
        """`send` returns whether the request was sent; `sent` is called after each request.
        `reorder_timeout_s`: how long messages that were skipped may still come before their node is asked."""
        self._send, self._sent = send, sent
        self._reorder_timeout_s = reorder_timeout_s
        self._due: dict[Node, float] = {}
        self._skipped: dict[Node, float] = {}
        """When the time ends in which the missing messages of a node may come."""
        self._quiet_until: dict[Node, float] = {}

    def ask(self, node: Node) -> None:
        """The node's births are needed."""
        if node not in self._due and len(self._due) < MAX_WAITING:
            soon_s = time.monotonic() + random.uniform(0, JITTER_S)
            self._due[node] = max(soon_s, self._quiet_until.get(node, 0.0))

    def skipped(self, node: Node) -> None:
        """Messages of the node are missing: its births are needed, unless they come in time."""
        if len(self._skipped) < MAX_WAITING:
            self._skipped.setdefault(node, time.monotonic() + self._reorder_timeout_s)

    def complete(self, node: Node) -> None:
        """What was missing has come."""
        self._skipped.pop(node, None)

    def born(self, node: Node) -> None:
        """The node has said its birth, and those of its devices follow: nothing is needed any more."""
        self._due.pop(node, None)
        self._skipped.pop(node, None)
        if node in self._quiet_until:
            self._quiet_until[node] = min(self._quiet_until[node], time.monotonic() + ANSWERED_S)

    async def run(self) -> None:
        """Send the requests that are due, for ever."""
        while True:
            await asyncio.sleep(TICK_S)
            now_s = time.monotonic()
            for node in [node for node, until_s in self._skipped.items() if until_s <= now_s]:
                del self._skipped[node]
                self.ask(node)
            for node in [node for node, due_s in self._due.items() if due_s <= now_s][:MOST_PER_TICK]:
                del self._due[node]
                if self._send(topics.sparkplug("NCMD", *node), _command()):
                    self._sent()
                    if len(self._quiet_until) >= MAX_WAITING:
                        self._quiet_until.clear()
                    self._quiet_until[node] = now_s + QUIET_S * random.uniform(1, 1.5)


def _command() -> bytes:
    metric = Metric(name="Node Control/Rebirth", datatype=DataType.BOOLEAN, value=True)
    return sparkplug.encode(Payload(time.time_ns() // 1_000_000, None, [metric]), datatypes=False)
