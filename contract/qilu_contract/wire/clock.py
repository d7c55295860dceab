"""One clock per run: a simulation announces its time on a retained topic, and ages are judged by the later of
wall and run clock.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import msgspec

from qilu_contract.errors import BadReading, Reason
from qilu_contract.readings import MAX_TIME_MS

MAX_AHEAD_MS = 10 * 60 * 1000
"""A timestamp further ahead than this is not believed: clocks of plants drift by minutes, not by hours."""

MAX_SPEED = 1e9
"""Thirty years a second."""


class RunClock(msgspec.Struct, frozen=True):
    """Payload of the clock topic: the run's time, and its simulated seconds per second of wall time (0:
    stopped).
    """

    now: int
    speed: float

    def encode(self) -> bytes:
        return msgspec.json.encode(self)


def decode(payload: bytes) -> RunClock:
    """Raises BadReading(bad_payload) when it is not such an object, or no time that can be counted with."""
    try:
        clock = msgspec.json.decode(payload, type=RunClock)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadReading(Reason.BAD_PAYLOAD, f"the clock is not {{now, speed}}: {error}") from error
    if not (0 <= clock.now <= MAX_TIME_MS and 0 <= clock.speed <= MAX_SPEED):
        raise BadReading(Reason.BAD_PAYLOAD, f"the clock says {str(clock)[:100]}: no time, or no speed")
    return clock


@dataclass(slots=True)
class JudgingClock:
    """The later of the wall's clock and the run's, as last announced and extrapolated by its speed.

    It is extrapolated by no more than MAX_AHEAD_MS, since a run publishes nothing that lies further ahead of
    what it announced. So the clock of a run without announcements stops.
    """

    _announced: RunClock | None = None
    _heard_at_ms: int = 0

    def hear(self, clock: RunClock, heard_ms: int | None = None) -> None:
        """`heard_ms`: when by the wall's clock, if not now."""
        self._announced, self._heard_at_ms = clock, wall_ms() if heard_ms is None else heard_ms

    @property
    def announced_ms(self) -> int:
        """The run's time as announced last; 0 for none."""
        return 0 if self._announced is None else self._announced.now

    @property
    def announced_speed(self) -> float:
        """At which the run's time passes, as announced last; 0 for none."""
        return 0.0 if self._announced is None else self._announced.speed

    def now_ms(self) -> int:
        return max(self._both_ms())

    def age_ms(self, ts_ms: int) -> int:
        """Age of a reading by its sender's presumed clock, which is the closer one. 0 if it is ahead of
        that."""
        return max(0, min((now_ms - ts_ms for now_ms in self._both_ms()), key=abs))

    def _both_ms(self) -> tuple[int, int]:
        """The wall's clock and the run's; without a run the former twice."""
        wall = wall_ms()
        if self._announced is None:
            return wall, wall
        passed = max(0, wall - self._heard_at_ms) * self._announced.speed
        return wall, self._announced.now + int(min(passed, MAX_AHEAD_MS))


def wall_ms() -> int:
    """UTC now in milliseconds."""
    return time.time_ns() // 1_000_000
