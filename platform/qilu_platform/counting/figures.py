"""Points that the platform writes besides the counts: its own metrics and the programme's milestones."""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Mapping, Sequence

from qilu_contract.catalogue.targets import TARGETS
from qilu_contract.storage import Point
from qilu_contract.store import Row

from qilu_platform.counting.programme import counted_by
from qilu_platform.metrics import Metrics

SHARES = (0.25, 0.5, 0.75, 1.0)
"""Parts of a target that are milestones; so are the powers of ten."""


def pipeline_figures(rows: Sequence[Row]) -> dict[str, float | int | None] | None:
    """The latest row of each gateway as one pipeline: their rates and counts together, the longest lag."""
    if not rows:
        return None
    together: dict[str, float | int | None] = {"as_of_ms": max(row.ts_ms for row in rows)}
    for name in ("accepted_per_s", "stored_per_s", "dead_lettered", "spooled", "in_flight", "lag_ms"):
        values = [value for row in rows if isinstance(value := row.values.get(name), int | float)]
        together[name] = None if not values else max(values) if name == "lag_ms" else sum(values)
    return together


class OwnFigures:
    """Points of the measurement `platform`: totals of `/metrics`, and their rates since the point before."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._host = socket.gethostname() or "platform"
        self._before = (time.monotonic(), 0.0, 0.0, 0.0)

    def point(self, ts_ms: int, counts_read_s: float, jobs: Mapping[str, int]) -> Point:
        """`counts_read_s`: how long the database took to give all counts; `jobs`: what `count_jobs` says."""
        total: Counter[str] = Counter()
        for metric in self._metrics.registry.collect():
            for sample in metric.samples:
                total[sample.name] += sample.value  # type: ignore[assignment]  # floats add up as well
                failed = sample.labels.get("status", "").startswith("5")
                if failed and sample.name == "qilu_platform_requests_total":
                    total["errors"] += sample.value  # type: ignore[assignment]
        now = (
            time.monotonic(),
            total["qilu_platform_requests_total"],
            total["qilu_platform_request_seconds_sum"],
            total["qilu_platform_request_seconds_count"],
        )
        elapsed_s, requests, seconds, answered = (a - b for a, b in zip(now, self._before, strict=True))
        self._before = now
        fields: dict[str, float | int] = {
            "requests": int(now[1]),
            "errors": int(total["errors"]),
            "requests_per_s": round(requests / max(elapsed_s, 1e-3), 3),
            "task_failures": int(total["qilu_platform_task_failures_total"]),
            "event_clients": int(total["qilu_platform_event_clients"]),
            "counts_read_ms": round(counts_read_s * 1000, 2),
            **jobs,
        }
        if answered:
            fields["latency_ms"] = round(seconds / answered * 1000, 2)
        return Point("platform", (self._host,), ts_ms, fields)


class Milestones:
    """Counts that have passed a milestone since they were looked at last. The first look finds none: nobody
    knows when what it sees was passed."""

    def __init__(self) -> None:
        self._before: dict[str, int] | None = None

    def points(self, counts: Mapping[tuple[str, str, str], int], ts_ms: int) -> list[Point]:
        """A point for each count that passed at least one: the highest."""
        now = {name: counts.get(counted_by(target)[0], 0) for name, target in TARGETS.items()}
        before, self._before = self._before, now
        if before is None:
            return []
        found = []
        for name, count in now.items():
            target = TARGETS[name].target
            passed = [step for step in milestones(target) if before[name] < step <= count]
            if passed:
                fields = {"reached": passed[-1], "share": passed[-1] / target}
                found.append(Point("milestone", (name,), ts_ms, fields))
        return found


def milestones(target: int) -> list[int]:
    """The counts that are worth a mark on a chart, up to the target."""
    tens = {10**power for power in range(len(str(target)))}
    return sorted(tens | {round(share * target) for share in SHARES})
