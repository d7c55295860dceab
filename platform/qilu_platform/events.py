"""Server-sent events: each topic has one producer, is encoded once, and a slow client loses its oldest
events, nobody else's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import msgspec
from prometheus_client import Gauge

from qilu_platform.problems import Problem

MAX_CLIENTS = 500
"""Open streams of one replica; the next is answered 503."""
MAX_WAITING = 16
"""Events kept for a client that does not read; each tells the whole state, so older ones are worth
nothing."""
HEARTBEAT_S = 15.0
"""A comment this often keeps proxies from closing a silent stream."""


class Hub:
    """Everything here happens in the event loop."""

    def __init__(self, clients: Gauge) -> None:
        self._clients: set[asyncio.Queue[bytes | None]] = set()
        self._latest: dict[str, bytes] = {}
        self._content: dict[str, Mapping[str, Any]] = {}
        self._gauge = clients
        self._closed = False

    def publish(self, topic: str, value: Mapping[str, Any]) -> None:
        """Send `value` to all, unless nothing but its `as_of_ms` changed."""
        content = {name: part for name, part in value.items() if name != "as_of_ms"}
        if self._content.get(topic) == content:
            return
        self._content[topic] = content
        event = b"event: %b\ndata: %b\n\n" % (topic.encode(), msgspec.json.encode(value))
        self._latest[topic] = event
        for queue in self._clients:
            _put(queue, event)

    def check_open(self) -> None:
        """Raises Problem 503 when the platform is stopping."""
        if self._closed:
            raise Problem(503, "The platform is stopping; ask another replica, or again soon.")

    def check_room(self) -> None:
        """Raises Problem 503 when no more clients are taken."""
        if self._closed or len(self._clients) >= MAX_CLIENTS:
            raise Problem(
                503, f"{MAX_CLIENTS} clients listen already; try again later.", headers={"Retry-After": "30"}
            )

    async def stream(self) -> AsyncIterator[bytes]:
        """What one client receives: the latest event of every topic, then what comes, until the hub
        closes."""
        queue: asyncio.Queue[bytes | None] = asyncio.Queue(MAX_WAITING)
        self._clients.add(queue)
        self._gauge.set(len(self._clients))
        try:
            # Taken together with the place in the queue: what comes later stands there, and only there.
            for event in [b"retry: 2000\n\n", *self._latest.values()]:
                yield event
            while not self._closed:
                try:
                    waiting = await asyncio.wait_for(queue.get(), HEARTBEAT_S)
                except TimeoutError:
                    waiting = b": heartbeat\n\n"
                if waiting is not None:
                    yield waiting
        finally:
            self._clients.discard(queue)
            self._gauge.set(len(self._clients))

    def close(self) -> None:
        """End all streams: a server does not stop while one is open."""
        self._closed = True
        for queue in self._clients:
            _put(queue, None)


def _put(queue: asyncio.Queue[bytes | None], event: bytes | None) -> None:
    if queue.full():
        queue.get_nowait()
    queue.put_nowait(event)
