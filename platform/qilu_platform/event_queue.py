"""Queue of server-sent events for one client."""

from __future__ import annotations

import asyncio

MAX_WAITING = 16
"""Events kept for a client that does not read. Newer events replace older ones, so the oldest are dropped."""
HEARTBEAT_S = 15.0
"""A comment at this interval keeps proxies from closing a silent stream."""


class EventQueue:
    """Not thread-safe: for use in the event loop."""

    def __init__(self) -> None:
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue(MAX_WAITING)

    def __len__(self) -> int:
        return self._queue.qsize()

    def put(self, event: bytes | None) -> None:
        """Add an event, or None for the end of the stream; drops the oldest if the queue is full."""
        if self._queue.full():
            self._queue.get_nowait()
        self._queue.put_nowait(event)

    async def get(self) -> bytes | None:
        """The next event, a heartbeat if there is none for HEARTBEAT_S, or None at the end."""
        try:
            return await asyncio.wait_for(self._queue.get(), HEARTBEAT_S)
        except TimeoutError:
            return b": heartbeat\n\n"
