"""What was taken from the broker and is not durable yet."""

from __future__ import annotations

import asyncio
import time
from collections import deque

from qilu_gateway.read.arrivals import Arrival


class InFlight:
    def __init__(self) -> None:
        self._arrivals: deque[Arrival] = deque()
        self.messages = 0
        """Taken and not settled."""
        self.bytes = 0
        """Of their payloads."""
        self.progress = asyncio.Event()

    def begin(self, arrival: Arrival) -> None:
        self._arrivals.append(arrival)
        self.messages += len(arrival.messages)
        self.bytes += arrival.bytes

    def settle(self, arrival: Arrival, places: list[int]) -> None:
        self.messages -= len(places)
        self.bytes -= arrival.settle(places)
        self.progress.set()

    async def move(self) -> None:
        """Wait until something is settled."""
        self.progress.clear()
        await self.progress.wait()

    def oldest_s(self) -> float:
        """How long the message that was taken first among those in flight has waited."""
        while self._arrivals and not self._arrivals[0].unsettled:
            self._arrivals.popleft()
        return time.monotonic() - self._arrivals[0].received_s if self._arrivals else 0.0
