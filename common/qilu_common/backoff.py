"""Exponential backoff with jitter."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(slots=True)
class Backoff:
    """Delays in seconds: doubling from `first_s` to `most_s`, each less a random part of up to half."""

    first_s: float = 0.25
    most_s: float = 10.0
    _next_s: float = 0.0

    def delay_s(self, at_least_s: float | None = None) -> float:
        base = self._next_s or self.first_s
        self._next_s = min(base * 2, self.most_s)
        return max(base * random.uniform(0.5, 1.0), at_least_s or 0.0)

    def reset(self) -> None:
        self._next_s = 0.0
