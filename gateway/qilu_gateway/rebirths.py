"""Asking edge nodes to say their births again, without a storm: each node at most once in a while, and a
limited number a second in all.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable

import structlog
from qilu_contract import sparkplug, topics
from qilu_contract.sparkplug import DataType, Metric, Payload

log = structlog.get_logger()

Node = tuple[str, str]
"""County and enterprise."""
JITTER_S = 1.0
QUIET_S = 60.0
"""A node is asked again no sooner than this, and up to half as much later."""
TICK_S = 0.1
MOST_PER_TICK = 20
MAX_WAITING = 100_000
"""Nodes that are to be asked, and nodes that were asked lately; beyond, requests are dropped: whoever still
sends unknown aliases comes back with its next message.
"""


class Rebirths:
    def __init__(self, publish: Callable[[str, bytes], Awaitable[bool]], sent: Callable[[], None]) -> None:
        """`publish` says whether the broker took it; `sent` is called after each request."""
        self._publish, self._sent = publish, sent
        self._due: dict[Node, float] = {}
        self._quiet_until: dict[Node, float] = {}

    def ask(self, node: Node) -> None:
        """The node's births are needed."""
        now_s = time.monotonic()
        if node in self._due or now_s < self._quiet_until.get(node, 0.0) or len(self._due) >= MAX_WAITING:
            return
        self._due[node] = now_s + random.uniform(0, JITTER_S)

    async def run(self) -> None:
        """Send the requests that are due, for ever."""
        while True:
            await asyncio.sleep(TICK_S)
            now_s = time.monotonic()
            for node in [node for node, due_s in self._due.items() if due_s <= now_s][:MOST_PER_TICK]:
                del self._due[node]
                if await self._publish(topics.sparkplug("NCMD", *node), _command()):
                    self._sent()
                    if len(self._quiet_until) >= MAX_WAITING:
                        self._quiet_until.clear()
                    self._quiet_until[node] = now_s + QUIET_S * random.uniform(1, 1.5)


def _command() -> bytes:
    metric = Metric(name="Node Control/Rebirth", datatype=DataType.BOOLEAN, value=True)
    return sparkplug.encode(Payload(time.time_ns() // 1_000_000, None, [metric]), datatypes=False)
