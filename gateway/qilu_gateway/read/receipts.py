"""Times of receipt for readings without a timestamp, durable before the readings are stored.

A redelivered message must get the same time as before, or one reading would become two. The broker redelivers
it under the same packet identifier, also to the next process of a gateway that was killed.
"""

from __future__ import annotations

import sqlite3
from collections import OrderedDict
from collections.abc import Iterable
from hashlib import blake2b
from typing import NamedTuple

from qilu_contract.wire.clock import wall_ms

SCHEMA = """
CREATE TABLE IF NOT EXISTS receipts (
  packet INTEGER PRIMARY KEY,
  digest BLOB NOT NULL,
  ts_ms INTEGER NOT NULL
);
"""
MAX_TOPICS = 100_000
"""Number of units whose last time of receipt is kept; beyond it, those silent for longest are forgotten, and
two messages of such a unit may get the same millisecond."""

BURST_MS = 10_000
"""How far equal times may push each other ahead of the clock. A time further ahead means that the clock has
gone back since."""


class Receipt(NamedTuple):
    """Time of receipt of the message with this `digest`. `packet` is its MQTT packet identifier (1 to
    65,535)."""

    packet: int
    digest: bytes
    ts_ms: int


class Receipts:
    def __init__(self) -> None:
        self._by_packet: dict[int, Receipt] = {}
        self._last_ms: OrderedDict[str, int] = OrderedDict()

    def load(self, connection: sqlite3.Connection) -> None:
        """Load the receipts that an earlier process saved."""
        for row in connection.execute("SELECT packet, digest, ts_ms FROM receipts"):
            self._by_packet[row[0]] = Receipt(*row)

    def receive(self, topic: str, payload: bytes, packet: int, dup: bool) -> Receipt:
        """Time of receipt: now, or that of the first delivery. Times are unique per topic. `packet` is 0 for
        a message that cannot be redelivered."""
        digest = blake2b(topic.encode() + b"\0" + payload, digest_size=16).digest()
        known = self._by_packet.get(packet)
        if dup and known is not None and known.digest == digest:
            return known
        ts_ms, last_ms = wall_ms(), self._last_ms.pop(topic, 0)
        if ts_ms <= last_ms < ts_ms + BURST_MS:
            ts_ms = last_ms + 1
        self._last_ms[topic] = ts_ms
        if len(self._last_ms) > MAX_TOPICS:
            self._last_ms.popitem(last=False)
        receipt = Receipt(packet, digest, ts_ms)
        if packet:
            self._by_packet[packet] = receipt
        return receipt


def save(connection: sqlite3.Connection, receipts: Iterable[Receipt]) -> None:
    """Save receipts in the caller's transaction."""
    connection.executemany("INSERT OR REPLACE INTO receipts VALUES (?, ?, ?)", receipts)
