"""Doors: the ways in for readings besides Sparkplug, each with a topic and a payload format.

The gateway subscribes to every door in DOORS and decodes its messages, and the broker's rules permit its
topics. Admission, batches, store, settlement and dead letters are the same for all doors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from qilu_contract.errors import BadReading
from qilu_contract.readings import Reading
from qilu_contract.wire import json_payload

Receipt = Callable[[], int]
"""Returns the time of receipt (UTC, ms)."""


@dataclass(frozen=True, slots=True)
class Door:
    """Topics `{root}/{county}/{enterprise}/{unit}/{leaf}`, and the functions for their payloads."""

    root: str
    leaf: str
    decode: Callable[[str, bytes, Receipt | None], Iterable[Reading | BadReading | None]]
    """The readings of a unit's payload, each good or refused; None for one without values. It may call the
    last argument at most once, for a reading without a time. Raises BadReading for a malformed payload."""
    count: Callable[[bytes], int]
    """Number of readings in a payload that is too large to decode. May raise BadReading, DecodeError or
    RecursionError."""
    with_time: Callable[[bytes, int], bytes]
    """A payload of one reading without a time, with this time (UTC, ms) written into it."""

    def topic(self, county: str, enterprise: str, unit: str) -> str:
        return f"{self.root}/{county}/{enterprise}/{unit}/{self.leaf}"


JSON = Door("qilu/v1", "telemetry", json_payload.decode, json_payload.count, json_payload.with_time)
"""Plain JSON of hand-made devices."""

DOORS: Sequence[Door] = [
    JSON,
]
"""Every door, one per line."""


def door_of(topic: str) -> Door | None:
    """The door whose root a topic has, even if the rest of the topic is malformed."""
    return next((door for door in DOORS if topic.startswith(f"{door.root}/")), None)
