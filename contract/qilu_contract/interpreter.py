"""How Python's interpreter shares its time out in a process that serves."""

from __future__ import annotations

import gc
import sys

SWITCH_S = 0.0005
"""How long a thread computes while others wait for the interpreter. Python's own 5 ms are paid again at every
statement to a database, of which a request makes several."""
GARBAGE = (20_000, 50, 50)
"""How often Python looks for cycles. What is in flight in a gateway is some hundred thousand objects without
any, and going through them at every seven hundredth new one took a third of its time; going through all
that a platform holds keeps every request waiting for a tenth of a second. Each request to a store leaves a
cycle of some forty objects, so that it cannot be left off either."""


def serve_evenly() -> None:
    """Set both for this process, as gateway and platform do when they start."""
    sys.setswitchinterval(SWITCH_S)
    gc.set_threshold(*GARBAGE)
