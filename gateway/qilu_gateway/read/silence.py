"""Ages out edge nodes whose death was never published: a will can be lost with the broker's node that had it.

An edge node that has been silent for long is asked for a rebirth. One that does not answer counts as dead:
its units are reported as inactive until their next reading.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import numpy as np
import structlog

from qilu_gateway.read.births import HISTORY
from qilu_gateway.read.edge_nodes import EdgeNode, EdgeNodes

log = structlog.get_logger()

SILENT_S = 900.0
"""Three times the longest usual interval between two readings."""
ANSWER_S = 180.0
"""Time to answer: a rebirth request may be delayed by a minute and a half, and sent twice."""
CHECK_EVERY_S = 10.0


class Silence:
    def __init__(
        self,
        nodes: EdgeNodes,
        up_since_s: Callable[[], float],
        ask: Callable[[tuple[str, str]], None],
        died: Callable[[str, str], None],
    ) -> None:
        """`up_since_s`: when the present connection was subscribed (monotonic), infinity without one. `ask`
        requests a rebirth; `died` is called with the county and the name of a node that did not answer."""
        self._nodes, self._up_since_s, self._ask, self._died = nodes, up_since_s, ask, died
        self._asked_s: dict[int, float] = {}

    async def run(self) -> None:
        """Check until cancelled."""
        while True:
            await asyncio.sleep(CHECK_EVERY_S)
            self.check(time.monotonic())

    def check(self, now_s: float) -> None:
        """Ask nodes that have become silent, and give up those that did not answer. Silence counts only
        while the gateway could hear."""
        since_s = self._up_since_s()
        heard_s = self._nodes.heard_s
        quiet = np.flatnonzero((heard_s > 0) & (np.maximum(heard_s, since_s) < now_s - SILENT_S))
        still_quiet = set(quiet.tolist())
        self._asked_s = {number: s for number, s in self._asked_s.items() if number in still_quiet}
        gone = 0
        for number in quiet.tolist():
            node = self._nodes[number]
            asked_s = self._asked_s.setdefault(number, now_s)
            if asked_s == now_s and not _is_history(node):
                self._ask((node.county, node.name))
            elif asked_s < now_s - ANSWER_S or _is_history(node):
                heard_s[number] = 0.0
                del self._asked_s[number]
                if not _is_history(node):
                    gone += 1
                    self._died(node.county, node.name)
        if gone:
            log.warning("edge nodes are silent and do not answer: their units are inactive", nodes=gone)


def _is_history(node: EdgeNode) -> bool:
    return node.county.startswith(HISTORY)
