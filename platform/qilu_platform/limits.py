"""Rate limits: a token bucket for each key, in this replica's memory."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable

MAX_KEYS = 10_000
"""Buckets kept; the one that was not used for longest is forgotten, and would have filled up again anyway."""
BURST_S = 2.0
"""Seconds' worth of requests that may come at once."""


class Buckets:
    """`per_s` requests a second for each key, 0 for no limit. Everything here happens in the event loop."""

    def __init__(self, per_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s = per_s
        self._most = max(1.0, per_s * BURST_S)
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str) -> int:
        """0 if the request is allowed, else the seconds (at least 1) until the next one is."""
        if not self._per_s:
            return 0
        now = self._clock()
        tokens, since = self._buckets.pop(key, (self._most, now))
        tokens = min(self._most, tokens + (now - since) * self._per_s)
        wait_s = 0 if tokens >= 1 else max(1, math.ceil((1 - tokens) / self._per_s))
        self._buckets[key] = (tokens if wait_s else tokens - 1, now)
        if len(self._buckets) > MAX_KEYS:
            self._buckets.popitem(last=False)
        return wait_s
