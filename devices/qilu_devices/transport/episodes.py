"""Episodes of transport faults: which unit or node is affected, and when; and their ground truth, which
telemetry never contains.

Time is cut, for each kind, into windows of `every`, the same for all. In each window each unit (or edge node)
has one episode, `for` long, at a time that is a hash of (seed, unit or node, kind, window): so episodes do
not depend on the fleet, the shard, the speed or when a run begins. A reconnect storm begins for all nodes at
once. `disturbance` implements its effect on readings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path

import numpy as np

from qilu_devices import parquet
from qilu_devices.noise import Streams, keys_of

FILE_NAME = "transport.parquet"
SHORTEST_WINDOW_MS = 60_000
LARGEST_SHIFT_MS = 240_000
"""A larger skew would be rejected by receivers (ten minutes) or, for a long time, by the gate (five)."""
LARGEST_DRIFT_PPM = 10_000
SHIFT_STEP_MS = 100
"""Units are sampled at multiples of this (`simulation.PHASE_STEP_MS`). A shift is a multiple plus a
remainder, so a shifted timestamp never equals another reading's."""
_RESTS = 49
"""Number of windows until a remainder repeats: longer than any shift."""


class Kind(StrEnum):
    """Kinds of transport faults, in order of precedence where a reading is in several episodes."""

    RECONNECT_STORM = "reconnect_storm"
    GARBAGE_PAYLOAD = "garbage_payload"
    OFFLINE = "offline"
    MISSING = "missing"
    STUCK_SENSOR = "stuck_sensor"
    CLOCK_SKEW = "clock_skew"
    WRONG_TYPE = "wrong_type"
    LATE = "late"
    OUT_OF_ORDER = "out_of_order"
    DUPLICATED = "duplicated"
    ATTACK = "attack"

    @property
    def is_of_node(self) -> bool:
        """Whether it affects edge nodes, not units."""
        return self in (Kind.RECONNECT_STORM, Kind.GARBAGE_PAYLOAD, Kind.CLOCK_SKEW, Kind.ATTACK)


class Attack(StrEnum):
    """Methods of an attacker who has an edge node's credential."""

    SPOOF = "spoof"
    """Publishes for a unit of another enterprise."""
    REPLAY = "replay"
    """Publishes a message once more as it was, with its sequence number."""
    FORGE = "forge"
    """Publishes a message with a sequence number that is not its turn."""
    INJECT = "inject"
    """Replaces the value of a signal."""
    FLOOD = "flood"
    """Publishes many malformed messages."""


@dataclass(frozen=True, slots=True)
class TransportFault:
    """Settings of an enabled kind. For clock skew, `by_ms` is the largest initial shift of an episode, and
    `drift_ppm` its growth; for reconnect storms and attacks, `share` is the share of nodes: of each storm,
    and of the whole run."""

    every_ms: int
    for_ms: int
    by_ms: int = 0
    drift_ppm: int = 0
    share: float = 1.0

    @property
    def largest_shift_ms(self) -> int:
        """Bound of the shift of any timestamp."""
        return self.by_ms + self.drift_ppm * self.for_ms // 1_000_000 + SHIFT_STEP_MS if self.by_ms else 0


TransportPlan = Mapping[Kind, TransportFault]


@dataclass(slots=True)
class Episode:
    """Ground truth of one episode. `readings`: number that it changed, or of messages that it added
    (garbage, attacks); 1 for a storm. A reading in several episodes is counted by each that changed it.
    `signal` is set for stuck sensors, wrong types and injected values; `shift_ms` (at the start) and
    `drift_ppm` for clock skew; `method` for attacks."""

    kind: Kind
    unit: str | None
    node: str
    start_ms: int
    end_ms: int
    readings: int = 0
    signal: str | None = None
    shift_ms: int | None = None
    drift_ppm: int | None = None
    method: Attack | None = None

    def shift_at(self, ts_ms: int) -> int:
        """Shift of the clock at this time."""
        assert self.shift_ms is not None
        assert self.drift_ppm is not None
        grown_ms = self.drift_ppm * (ts_ms - self.start_ms) // 1_000_000 // SHIFT_STEP_MS * SHIFT_STEP_MS
        return self.shift_ms + (grown_ms if self.shift_ms > 0 else -grown_ms)


class Timeline:
    """The episodes of one kind, for units or nodes by index. Calls must be in time order."""

    def __init__(self, kind: Kind, fault: TransportFault, seed: int, ids: Sequence[str]) -> None:
        self.fault = fault
        self.is_of_node = kind.is_of_node
        self._name = f"transport/{kind}"
        self._streams = Streams(keys_of(seed, ids))
        self._of_all = Streams(keys_of(seed, [kind])) if kind is Kind.RECONNECT_STORM else None
        self._of_run = kind is Kind.ATTACK
        self._number = -1
        self._starts: list[int] = []

    def start(self, place: int, ts_ms: int) -> int | None:
        """Start of the episode that contains `ts_ms`; None outside of episodes."""
        number = ts_ms // self.fault.every_ms
        if number != self._number:
            self._load(number)
        start_ms = self._starts[place]
        return start_ms if start_ms <= ts_ms < start_ms + self.fault.for_ms else None

    def quiet_until(self, place: int, ts_ms: int) -> int:
        """Time before which no episode begins; `ts_ms` itself within one."""
        if self.start(place, ts_ms) is not None:
            return ts_ms
        start_ms, next_ms = self._starts[place], (self._number + 1) * self.fault.every_ms
        return start_ms if ts_ms < start_ms < next_ms else next_ms

    def draw(self, what: str, place: int, ts_ms: int) -> float:
        """A random number in [0, 1) for the episode."""
        number = np.array([ts_ms // self.fault.every_ms])
        return float(self._streams.chance_of(f"{self._name}/{what}", np.array([place]), number)[0])

    def shift_ms(self, place: int, ts_ms: int) -> int:
        """Shift of the clock at the start of the episode: between half of `by` and `by`, in either direction,
        in whole steps plus a remainder of 2 to 98 ms that the next windows do not have."""
        draw = 2.0 * self.draw("shift", place, ts_ms)
        size_ms = int(self.fault.by_ms * (0.5 + 0.5 * (draw % 1.0))) // SHIFT_STEP_MS * SHIFT_STEP_MS
        rest_ms = 2 * (1 + ts_ms // self.fault.every_ms % _RESTS)
        return (size_ms if draw < 1.0 else -size_ms) + rest_ms

    def _load(self, number: int) -> None:
        self._number = number
        room_ms = self.fault.every_ms - self.fault.for_ms
        chances = (self._of_all or self._streams).chance(f"{self._name}/start", number)
        starts = number * self.fault.every_ms + (chances * room_ms).astype(np.int64)
        if self._of_all is not None or self._of_run:
            takes_part = (
                self._streams.chance(f"{self._name}/share", 0 if self._of_run else number) < self.fault.share
            )
            starts = np.where(takes_part, starts, 2**62)
        self._starts = starts.tolist()


def save(episodes: Sequence[Episode], folder: Path) -> Path:
    """Write the ground truth as `transport.parquet`, whole or not at all: one row an episode that met a
    reading. Blocks. Raises ConfigError when it cannot be written."""
    columns = {
        each.name: np.array([getattr(episode, each.name) for episode in episodes], dtype=object)
        for each in fields(Episode)
    }
    for name in ("start_ms", "end_ms"):
        columns[name] = columns[name].astype("datetime64[ms]")
    query = """
        SELECT kind::VARCHAR AS kind, unit::VARCHAR AS unit, node::VARCHAR AS node, start_ms AS "start",
            end_ms AS "end", readings::BIGINT AS readings, signal::VARCHAR AS signal,
            shift_ms::BIGINT AS shift_ms, drift_ppm::BIGINT AS drift_ppm, method::VARCHAR AS method
        FROM given
    """
    return parquet.write(folder / FILE_NAME, columns, query)
