"""Received messages, many at once, and the order in which they are acknowledged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

MOST_HELD_BACK = 1_000
"""Acknowledgements that may wait for earlier ones. The built-in broker closes a connection that acknowledges
out of order, and delivers a hundred messages at once; Mosquitto does not mind."""
DUP, RETAINED = 0x08, 0x01
"""Bits of `Messages.flags`."""
_TIDY = 4096


class Message(NamedTuple):
    topic: str
    payload: bytes
    dup: bool
    mid: int
    """Packet identifier, by which the message is acknowledged; 0 at QoS 0."""
    retained: bool = False
    """The broker kept it for new subscribers, so it may be old."""


@dataclass(slots=True, eq=False)
class Messages:
    """Messages in order of arrival, in columns. Iterating yields a `Message` for each. Topics are the bytes
    that came."""

    topics: list[bytes] = field(default_factory=list)
    payloads: list[bytes] = field(default_factory=list)
    mids: list[int] = field(default_factory=list)
    flags: list[int] = field(default_factory=list)
    """The first byte of each packet, which holds DUP and RETAINED."""

    def __len__(self) -> int:
        return len(self.mids)

    @property
    def payload_bytes(self) -> int:
        return sum(map(len, self.payloads))

    def __iter__(self) -> Iterator[Message]:
        for topic, payload, mid, flags in zip(self.topics, self.payloads, self.mids, self.flags, strict=True):
            # A connection that ends over a topic that is not UTF-8 would end over it again and again.
            name = topic.decode("utf-8", "replace")
            yield Message(name, payload, flags & DUP != 0, mid, flags & RETAINED != 0)

    def extend(self, more: Messages) -> None:
        self.topics += more.topics
        self.payloads += more.payloads
        self.mids += more.mids
        self.flags += more.flags

    def take(self, places: Iterable[int]) -> Messages:
        """The messages at these places."""
        places = list(places)
        return Messages(
            [self.topics[place] for place in places],
            [self.payloads[place] for place in places],
            [self.mids[place] for place in places],
            [self.flags[place] for place in places],
        )


class Acknowledgements:
    """Sends acknowledgements in the order of the messages, as MQTT requires. One that is early waits for
    those before it, up to a bound: one slow message must not hold up all others."""

    def __init__(self, window: int) -> None:
        """`window`: the receive maximum, which bounds the unacknowledged messages."""
        self._most_held_back = min(MOST_HELD_BACK, window // 2)
        self._owed: list[int] = []
        self._start = 0
        self._done: set[int] = set()

    def came(self, mids: Sequence[int]) -> None:
        self._owed += [mid for mid in mids if mid] if 0 in mids else mids

    def ready(self, mids: Sequence[int]) -> Sequence[int]:
        """The acknowledgements to send now that `mids` are done, in order."""
        owed, done, start = self._owed, self._done, self._start
        if not done and owed[start : start + len(mids)] == mids:  # as nearly always
            found: Sequence[int] = mids
            self._start = start + len(mids)
        else:
            done.update(mids)
            end = start
            while end < len(owed) and owed[end] in done:
                end += 1
            found = owed[start:end]
            self._start = end
            if len(done) - len(found) > self._most_held_back:
                rest = owed[end:]
                found += [mid for mid in rest if mid in done]
                self._owed, self._start = [mid for mid in rest if mid not in done], 0
            done.difference_update(found)
        if self._start > _TIDY and 2 * self._start > len(self._owed):
            del self._owed[: self._start]
            self._start = 0
        return found
