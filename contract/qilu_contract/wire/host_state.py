"""STATE of a Sparkplug host application: online or offline."""

from __future__ import annotations

from typing import Self

import msgspec

from qilu_contract.readings import MAX_TIME_MS


class State(msgspec.Struct, frozen=True):
    """`timestamp` in ms. Receivers ignore a STATE that is older than one they have seen."""

    online: bool
    timestamp: int

    def encode(self) -> bytes:
        return msgspec.json.encode(self)

    @classmethod
    def decode(cls, payload: bytes) -> Self | None:
        """None for a malformed payload, and for a timestamp after which no host could publish a later one."""
        try:
            state = msgspec.json.decode(payload, type=cls)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        return state if 0 <= state.timestamp <= MAX_TIME_MS else None
