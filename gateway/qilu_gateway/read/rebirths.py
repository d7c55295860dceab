"""Rebirth requests to edge nodes, rate-limited: at most one per node in an interval, and a limited number per
second in total. Requests beyond the limit are delayed, not dropped, until the node is born.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable

import structlog
from qilu_contract.wire import sparkplug, topics
from qilu_contract.wire.clock import wall_ms

log = structlog.get_logger()

Node = tuple[str, str]
"""County and enterprise."""
JITTER_S = 1.0
QUIET_S = 60.0
"""Minimum interval for a node that does not answer; jitter adds up to half of it."""
ANSWERED_S = 5.0
"""Minimum interval for a node that answered with its birth; assumed."""
TICK_S = 0.1
MOST_PER_TICK = 20
MAX_WAITING = 100_000
"""Maximum number of pending nodes, and of recently asked nodes. Further requests are dropped: a node that
still sends unknown aliases triggers a request with its next message.
"""


class Rebirths:
    def __init__(
        self,
        send: Callable[[str, bytes], bool],
        sent: Callable[[], None],
        reorder_timeout_s: float = 0.0,
        lost: Callable[[Node], None] = lambda _node: None,
    ) -> None:
        """`send` returns whether the request was sent; `sent` is called after each request, `lost` when
        skipped messages have not arrived in time.
        `reorder_timeout_s`: time in which skipped messages may still arrive before a rebirth is requested."""
        self._send, self._sent, self._lost = send, sent, lost
        self._reorder_timeout_s = reorder_timeout_s
        self._due: dict[Node, float] = {}
        self._skipped: dict[Node, float] = {}
        """Deadline for the missing messages, by node."""
        self._quiet_until: dict[Node, float] = {}

    def ask(self, node: Node) -> None:
        """Request the births of a node."""
        if node not in self._due and len(self._due) < MAX_WAITING:
            soon_s = time.monotonic() + random.uniform(0, JITTER_S)
            self._due[node] = max(soon_s, self._quiet_until.get(node, 0.0))

    def skipped(self, node: Node) -> None:
        """Request a rebirth unless the missing messages of the node arrive in time."""
        if len(self._skipped) < MAX_WAITING:
            self._skipped.setdefault(node, time.monotonic() + self._reorder_timeout_s)

    def complete(self, node: Node) -> None:
        """Cancel the request: the missing messages have arrived."""
        self._skipped.pop(node, None)

    def born(self, node: Node) -> None:
        """Cancel the request: the node has published its birth, and those of its devices follow."""
        self._due.pop(node, None)
        self._skipped.pop(node, None)
        if node in self._quiet_until:
            self._quiet_until[node] = min(self._quiet_until[node], time.monotonic() + ANSWERED_S)

    async def run(self) -> None:
        """Send the requests that are due, until cancelled."""
        while True:
            await asyncio.sleep(TICK_S)
            now_s = time.monotonic()
            for node in [node for node, until_s in self._skipped.items() if until_s <= now_s]:
                del self._skipped[node]
                self._lost(node)
                self.ask(node)
            for node in [node for node, due_s in self._due.items() if due_s <= now_s][:MOST_PER_TICK]:
                del self._due[node]
                if self._send(topics.sparkplug("NCMD", *node), sparkplug.rebirth_request(wall_ms())):
                    self._sent()
                    if len(self._quiet_until) >= MAX_WAITING:
                        self._quiet_until.clear()
                    self._quiet_until[node] = now_s + QUIET_S * random.uniform(1, 1.5)
