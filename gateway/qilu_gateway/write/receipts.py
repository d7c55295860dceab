"""Times of receipt of readings that have no time of their own, durable before the readings are stored.

A message that the broker delivers again must get the time that it got before: else one reading becomes two.
The broker delivers it again under its packet identifier, also to the next process of a gateway that was
killed.
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
"""Units whose last time of receipt is known; beyond, those silent for longest are forgotten, and two messages
of one of them may get the same millisecond."""

BURST_MS = 10_000
"""How far equal times may push each other ahead of the clock. A time further ahead is of a clock that has
gone back since."""


class Receipt(NamedTuple):
    """`packet` is the identifier under which the broker delivers the message `digest`; there are 65,535."""

    packet: int
    digest: bytes
    ts_ms: int


class Receipts:
    def __init__(self) -> None:
        self._by_packet: dict[int, Receipt] = {}
        self._last_ms: OrderedDict[str, int] = OrderedDict()

    def load(self, connection: sqlite3.Connection) -> None:
        """What an earlier process kept."""
        for row in connection.execute("SELECT packet, digest, ts_ms FROM receipts"):
            self._by_packet[row[0]] = Receipt(*row)

    def receive(self, topic: str, payload: bytes, packet: int, dup: bool) -> Receipt:
        """Now, or when the message came first; no two messages of a topic have one time. `packet` is 0 for a
        message that is not delivered again."""
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
    """In the caller's transaction."""
    connection.executemany("INSERT OR REPLACE INTO receipts VALUES (?, ?, ?)", receipts)
