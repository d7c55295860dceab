"""Tracks received messages until they are acknowledged, and detects redeliveries."""

from __future__ import annotations

import time
from collections import deque
from itertools import count
from typing import NamedTuple

import numpy as np
from qilu_common.mqtt.messages import DUP, RETAINED, Messages
from qilu_contract.columns import Ints

_numbers = count()


class Arrival:
    """Messages that were received together, on the connection `epoch` of the session `lane`."""

    __slots__ = (
        "acknowledged",
        "again",
        "before",
        "bytes",
        "counts",
        "durable",
        "epoch",
        "hashes",
        "lane",
        "messages",
        "number",
        "received_s",
        "unborn",
        "unsettled",
    )  # fmt: skip

    def __init__(self, messages: Messages, lane: int, epoch: int) -> None:
        self.number = next(_numbers)
        """Messages in the order of arrival."""
        self.messages, self.lane, self.epoch = messages, lane, epoch
        self.received_s = time.monotonic()
        self.bytes = messages.payload_bytes
        """Bytes of the payloads that are still needed."""
        self.counts = np.zeros(len(messages), dtype=np.int32)
        """Readings of each message, good and bad."""
        self.unsettled = len(messages)
        """Number of messages that are not durable yet."""
        self.before = 0
        """Number of messages that had arrived on its lane before."""
        self.unborn = 0
        """Number of them that wait for a birth."""
        self.durable = np.zeros(len(messages), dtype=bool)
        self.acknowledged = np.zeros(len(messages), dtype=bool)
        self.again: dict[int, tuple[int, int]] = {}
        """Packet identifier and epoch of redelivered messages, by index."""
        # Python's hash of bytes: 64 bits, with a new random key in each process.
        self.hashes = list(map(hash, messages.payloads))

    def settle(self, places: Ints) -> int:
        """Mark the messages at these indices as durable and release their payloads; returns the bytes
        released."""
        self.unsettled -= len(places)
        self.durable[places] = True
        payloads = self.messages.payloads
        if not self.unsettled:
            freed, self.bytes = self.bytes, 0
            payloads.clear()
            return freed
        freed = 0
        for place in places.tolist():
            freed += len(payloads[place])
            payloads[place] = b""
        self.bytes -= freed
        return freed

    def due(self, epoch: int, places: Ints) -> list[int]:
        """Packet identifiers of those of these messages that the connection `epoch` delivered."""
        mids = self.messages.mids
        if not self.again:
            if epoch != self.epoch:
                return []
            if len(places) == len(mids) and 0 not in mids:
                return mids
            return [mids[place] for place in places.tolist() if mids[place]]
        found = []
        for place in places.tolist():
            mid, of = self.again.get(place, (mids[place], self.epoch))
            if mid and of == epoch:
                found.append(mid)
        return found

    def was_acknowledged(self, epoch: int, places: Ints) -> None:
        """Record that the messages that were due have been acknowledged."""
        if not self.again:
            if epoch == self.epoch:
                self.acknowledged[places] = True
            return
        for place in places.tolist():
            _, of = self.again.get(place, (0, self.epoch))
            if of == epoch:
                self.acknowledged[place] = True


class Known(NamedTuple):
    arrival: Arrival
    place: int


class Window:
    """Window of messages that may be redelivered, because the connection broke before the broker received
    their PUBACKs: never more than the receive maximum. In the steady state nothing is looked up."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._arrivals: deque[Arrival] = deque()
        self._late: list[Arrival] = []
        """Older ones with messages that still wait, for the platform or a birth."""
        self._messages = 0
        self._epochs: dict[int, int] = {}
        self._index: dict[tuple[bytes, int], Known] = {}
        """Set after a new connection, until all messages from before it have left the window."""
        self._index_until = 0
        self._seen = 0

    def add(self, arrival: Arrival) -> None:
        self._arrivals.append(arrival)
        self._messages += len(arrival.messages)
        self._seen += len(arrival.messages)
        while self._messages - len(self._arrivals[0].messages) > 2 * self._size:
            left = self._arrivals.popleft()
            self._messages -= len(left.messages)
            if left.unsettled:
                self._late = [each for each in (*self._late, left) if each.unsettled]
        if self._index and self._seen > self._index_until:
            self._index = {}

    def again(self, messages: Messages, lane: int, epoch: int) -> dict[int, Known]:
        """Redelivered messages among these, by index. From now on they belong to this connection."""
        if self._epochs.get(lane, epoch) != epoch:
            self._build()
        self._epochs[lane] = epoch
        if not self._index:
            return {}
        found: dict[int, Known] = {}
        for place, (topic, payload) in enumerate(zip(messages.topics, messages.payloads, strict=True)):
            mid, flags = messages.mids[place], messages.flags[place]
            known = self._index.get((topic, hash(payload))) if mid and not flags & RETAINED else None
            if known is None:
                continue
            arrival, at = known
            of = arrival.again.get(at, (0, arrival.epoch))[1]
            if of != epoch and (flags & DUP or not arrival.acknowledged[at]):
                arrival.again[at] = mid, epoch
                found[place] = known
        return found

    def _build(self) -> None:
        for arrival in (*self._late, *self._arrivals):
            messages = arrival.messages
            for place, topic in enumerate(messages.topics):
                if messages.mids[place] and not messages.flags[place] & RETAINED:
                    self._index[topic, arrival.hashes[place]] = Known(arrival, place)
        self._index_until = self._seen + 2 * self._size


class Settling:
    """Collects the durable messages of each arrival, to be acknowledged in the order of arrival."""

    def __init__(self) -> None:
        self._places: dict[Arrival, list[Ints]] = {}

    def add(self, arrival: Arrival, places: Ints) -> None:
        self._places.setdefault(arrival, []).append(places)

    def all(self) -> list[tuple[Arrival, Ints]]:
        found = []
        for arrival in sorted(self._places, key=lambda arrival: arrival.number):
            parts = self._places[arrival]
            found.append((arrival, parts[0] if len(parts) == 1 else np.sort(np.concatenate(parts))))
        return found
