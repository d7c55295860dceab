"""Hub of server-sent events: each topic has one producer and is encoded once; a slow client loses its oldest
events without an effect on others."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping
from typing import Any

import msgspec
from prometheus_client import Gauge

from qilu_platform.errors import Unavailable
from qilu_platform.event_queue import EventQueue

MAX_STREAMS = 500
"""Open streams of one replica. For the next one the client with the most of them loses one."""
MAX_STREAMS_OF_ONE = 100
"""Open streams of one client address: each tab that is seen has one, and an office may share an address."""


class _Stream:
    """Queue of one client."""

    def __init__(self, client: str) -> None:
        self.client = client
        self.queue = EventQueue()  # each event has the whole state, so it may drop older ones
        self.ended = False

    def end(self) -> None:
        self.ended = True
        self.queue.put(None)


class Hub:
    """Not thread-safe: everything here runs in the event loop."""

    def __init__(self, clients: Gauge) -> None:
        self._streams: dict[_Stream, None] = {}
        """In the order in which they began."""
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
        for stream in self._streams:
            stream.queue.put(event)

    @property
    def followed(self) -> bool:
        """Whether somebody has a stream open."""
        return bool(self._streams)

    def check_open(self) -> None:
        """Raises Unavailable when the platform is stopping."""
        if self._closed:
            raise Unavailable("The platform is stopping; ask another replica, or again soon.")

    def _make_room(self, client: str) -> None:
        """End a stream of a client that has too many, the one that is furthest behind, then the oldest."""
        counts = Counter(stream.client for stream in self._streams)
        if counts[client] < MAX_STREAMS_OF_ONE:
            if len(self._streams) < MAX_STREAMS:
                return
            client = counts.most_common(1)[0][0]
        those = [stream for stream in self._streams if stream.client == client]
        last = max(those, key=lambda stream: len(stream.queue))
        last.end()
        self._streams.pop(last)

    async def stream(self, client: str) -> AsyncIterator[bytes]:
        """The events of one client (by address): the latest event of every topic, then new ones, until the
        hub closes, or the client opens too many other streams."""
        stream = _Stream(client)
        self._make_room(client)
        self._streams[stream] = None
        self._gauge.set(len(self._streams))
        try:
            # Read together with joining the queue: later events are in the queue, and only there.
            for event in [b"retry: 2000\n\n", *self._latest.values()]:
                yield event
            while not (self._closed or stream.ended):
                waiting = await stream.queue.get()
                if waiting is not None:
                    yield waiting
            if stream.ended:
                yield b"retry: 30000\n\n"  # who has too many comes again later
        finally:
            self._streams.pop(stream, None)
            self._gauge.set(len(self._streams))

    def close(self) -> None:
        """End all streams: a server does not stop while one is open."""
        self._closed = True
        for stream in self._streams:
            stream.queue.put(None)
