"""Interpreter settings of service processes: imports at the start, thread switching, garbage collection."""

from __future__ import annotations

import gc
import sys
from importlib import import_module
from typing import Any

SWITCH_S = 0.0005
"""How long a thread computes while others wait for the interpreter. Python's own 5 ms are paid again at every
statement to a database, of which a request makes several."""
GARBAGE = (20_000, 50, 50)
"""Thresholds of Python's garbage collector. Messages in flight in a gateway are some hundred thousand objects
without cycles, and traversing them at every seven hundredth new object took a third of its time; traversing
all objects of a platform delays every request by a tenth of a second. Requests leave no cycles behind
(decision 077), but asyncio's exceptions and other errors do, so it is not disabled."""


def serve_evenly() -> None:
    """Set both for this process, as gateway and platform do when they start."""
    sys.setswitchinterval(SWITCH_S)
    gc.set_threshold(*GARBAGE)


def import_lean(*libraries: str) -> None:
    """Import libraries without rich and pygments, which structlog would load for colourful tracebacks and
    httpx2 for its command line: a sixth of what a start of a gateway computes. Both can be imported
    as ever afterwards."""
    modules: dict[str, Any] = sys.modules  # None there: an import fails as if it were not installed
    hidden = [name for name in ("rich", "pygments") if name not in modules]
    modules.update(dict.fromkeys(hidden))
    try:
        for library in libraries:
            import_module(library)
    finally:
        for name in hidden:
            del modules[name]
