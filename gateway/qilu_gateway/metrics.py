"""Counters of the gateway, and their Prometheus exposition.

The unit is the reading; a message that cannot be decoded counts as one reading. At every moment
`accepted = stored + spooled + dead_lettered + corrupt + in_flight`, over the life of this process:

- accepted: taken from the broker, each message once, or found in the spool at the start (`recovered`);
- stored, spooled, dead_lettered: the outcomes, counted once they are durable; readings that leave the spool
  become stored or dead_lettered;
- corrupt: were in the spool and have become unreadable;
- in_flight: no outcome yet; their messages are unacknowledged;
- evicted, a part of dead_lettered: readings whose dead letters were evicted at the bound;
- redelivered, separate from all these: readings of messages that the broker redelivered although this
  process had accepted them already. A message that an earlier process had accepted but not acknowledged is
  new to this process, and counts as accepted.

A reading that repeats a stored one (same unit and time, for example after a rebirth) is accepted and stored
again, and adds no point.
"""

from __future__ import annotations

import time
from collections import Counter as Tally
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from qilu_contract.errors import Reason
from qilu_contract.readings import Value

RECENT_LAGS = 500
LAG_BUCKETS_S = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600, 86_400)


@dataclass(slots=True)
class Counters:
    """Counts since the start of the process. They change only between two awaits, so that every reader sees
    the equation hold."""

    accepted: int = 0
    stored: int = 0
    spooled: int = 0
    """Readings in the spool now."""
    dead_lettered: int = 0
    corrupt: int = 0
    in_flight: int = 0
    recovered: int = 0
    shipped: int = 0
    """Readings that have left the spool for the store."""
    redelivered: int = 0
    births: int = 0
    rebirth_requests: int = 0
    sequence_gaps: int = 0
    ignored_deaths: int = 0
    """Deaths without meaning for the present: wills of edge nodes' earlier connections, retained deaths,
    deaths of units that are not (or no longer) registered."""
    messages: int = 0
    redelivered_messages: int = 0
    """Messages that the broker marked as possibly delivered before."""
    evicted: int = 0
    """Readings whose dead letters were evicted at the bound (they stay in dead_lettered)."""
    store_errors: int = 0
    """Writes that failed and are retried."""
    store_refused: int = 0
    """Writes that the store rejected in part or as a whole (400, 413, 422), and that were bisected."""
    store_denied: int = 0
    """Of these, writes with rejected credentials: an operator has to fix the token."""
    first_readings: int = 0
    """First readings that the platform confirmed."""

    def recover(self, readings: int, corrupt: int) -> None:
        """Count the readings that an earlier process left in the spool as accepted."""
        self.recovered = self.spooled = readings
        self.corrupt = corrupt
        self.accepted += readings + corrupt

    @property
    def unaccounted(self) -> int:
        """Readings without a known outcome. Anything but 0 means that the guarantee is broken."""
        durable = self.stored + self.spooled + self.dead_lettered + self.corrupt
        return self.accepted - durable - self.in_flight


@dataclass(slots=True)
class Rates:
    """Readings per second over the last interval, and the median lag from sample to store of recent
    readings."""

    accepted_per_s: float = 0.0
    stored_per_s: float = 0.0
    lag_ms: float = 0.0


class Publishing(NamedTuple):
    """Counts and sizes of the publication to Kafka."""

    published: int
    unpublished: int
    waiting: int
    waiting_bytes: int
    age_s: float


@dataclass(slots=True)
class Meter:
    """The counters and what is derived from them."""

    counters: Counters = field(default_factory=Counters)
    by_reason: Tally[Reason] = field(default_factory=Tally)
    rates: Rates = field(default_factory=Rates)
    spool: Callable[[], tuple[int, int, float]] | None = None
    """Returns the spool's batches, bytes and the age of its oldest batch in seconds. None until the spool is
    open: its content is not known before, and /metrics omits it."""
    publishing: Callable[[], Publishing] | None = None
    """None without `--also`."""
    batch_size: Callable[[], int] = lambda: 0
    shared_groups: Callable[[], int] = lambda: 0
    waiting_for_birth: Callable[[], int] = lambda: 0
    _history_age_ms: float = 0.0
    _lags_ms: deque[int] = field(default_factory=lambda: deque(maxlen=RECENT_LAGS))
    _before: tuple[float, int, int] = field(default_factory=lambda: (time.monotonic(), 0, 0))
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    _lag: Histogram | None = None

    def __post_init__(self) -> None:
        self._lag = Histogram(
            "qilu_gateway_lag_seconds",
            "Time from a reading's sample to its being stored, of a sample of readings",
            buckets=LAG_BUCKETS_S,
            registry=self.registry,
        )
        self.registry.register(_Exporter(self))

    def observe_lags(self, lags_ms: Sequence[int], *, history: bool = False) -> None:
        """Record the ages of readings when they became durable; history has a separate gauge."""
        assert self._lag is not None
        if history:
            self._history_age_ms = float(median(lags_ms)) if lags_ms else self._history_age_ms
            return
        for lag_ms in lags_ms:
            self._lags_ms.append(lag_ms)
            self._lag.observe(max(lag_ms, 0) / 1000)

    @property
    def history_age_s(self) -> float:
        return self._history_age_ms / 1000

    def count_rebirth(self) -> None:
        self.counters.rebirth_requests += 1

    def count_corrupt(self, readings: int) -> None:
        """Count readings in the spool that became unreadable."""
        self.counters.spooled -= readings
        self.counters.corrupt += readings

    def count_first_readings(self, count: int) -> None:
        self.counters.first_readings += count

    def measure(self) -> None:
        """Derive the rates since the last call."""
        now_s, counters = time.monotonic(), self.counters
        then_s, accepted, stored = self._before
        elapsed_s = max(now_s - then_s, 1e-3)
        self.rates = Rates(
            accepted_per_s=(counters.accepted - accepted) / elapsed_s,
            stored_per_s=(counters.stored - stored) / elapsed_s,
            lag_ms=float(median(self._lags_ms)) if self._lags_ms else 0.0,
        )
        self._before = (now_s, counters.accepted, counters.stored)

    def fields(self) -> dict[str, Value]:
        """The fields of a point of the measurement `pipeline`."""
        counters, rates = self.counters, self.rates
        _, spool_bytes, spool_age_s = self.spool() if self.spool is not None else (0, 0, 0.0)
        return {
            "accepted": counters.accepted,
            "stored": counters.stored,
            "spooled": counters.spooled,
            "dead_lettered": counters.dead_lettered,
            "corrupt": counters.corrupt,
            "redelivered": counters.redelivered,
            "in_flight": counters.in_flight,
            "births": counters.births,
            "rebirth_requests": counters.rebirth_requests,
            "accepted_per_s": round(rates.accepted_per_s, 1),
            "stored_per_s": round(rates.stored_per_s, 1),
            "lag_ms": round(rates.lag_ms, 1),
            "spool_bytes": spool_bytes,
            "spool_age_s": round(spool_age_s, 1),
        }

    def exposition(self) -> bytes:
        """The text of /metrics."""
        return generate_latest(self.registry)


_COUNTED = {
    "messages": "MQTT messages received",
    "redelivered_messages": "MQTT messages that the broker marked as possibly delivered before",
    "accepted": "Readings taken over from the broker",
    "stored": "Readings stored",
    "corrupt": "Readings that were in the spool and cannot be read any more",
    "recovered": "Readings found in the spool at the start",
    "shipped": "Readings that have left the spool for the store",
    "redelivered": "Readings of redelivered messages that were already accepted",
    "births": "Birth messages",
    "rebirth_requests": "Rebirths requested of edge nodes",
    "sequence_gaps": "Gaps in edge nodes' sequence numbers",
    "ignored_deaths": "Deaths of earlier connections, of unregistered units, and retained ones",
    "evicted": "Readings whose dead letters were evicted at the bound",
    "store_errors": "Writes that the store did not take",
    "store_refused": "Writes that the store refused in part or as a whole, and that were split",
    "store_denied": "Writes for which the store refused our credentials",
    "first_readings": "First readings that the platform has confirmed",
}


class _Exporter(Collector):
    """Prometheus collector; takes one snapshot per scrape."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter

    def collect(self) -> Iterator[Metric]:
        counters = self._meter.counters
        for name, help_ in _COUNTED.items():
            yield CounterMetricFamily(f"qilu_gateway_{name}", help_, value=getattr(counters, name))
        dead = CounterMetricFamily(
            "qilu_gateway_dead_lettered", "Readings in the dead letters, by reason", labels=["reason"]
        )
        for reason in Reason:
            dead.add_metric([reason], self._meter.by_reason[reason])
        yield dead
        gauges: dict[str, tuple[str, float]] = {
            "in_flight": ("Readings accepted and not durable yet", counters.in_flight),
            "unaccounted": (
                "accepted - stored - spooled - dead_lettered - corrupt - in_flight, in readings: always 0",
                counters.unaccounted,
            ),
            "waiting_for_birth": (
                "Messages that are held until their birth arrives",
                self._meter.waiting_for_birth(),
            ),
            "shared_groups": ("Counties that another gateway has, too", self._meter.shared_groups()),
            "history_age_seconds": (
                "Age of the history that was stored last; not in qilu_gateway_lag_seconds",
                self._meter.history_age_s,
            ),
            "batch_size": ("Readings that are written together now", self._meter.batch_size()),
        }
        if self._meter.spool is not None:
            batches, size_bytes, age_s = self._meter.spool()
            gauges |= {
                "spooled": ("Readings in the spool", counters.spooled),
                "spool_batches": ("Batches in the spool", batches),
                "spool_bytes": ("Bytes in the spool", size_bytes),
                "spool_age_seconds": ("Age of the oldest batch in the spool", age_s),
            }
        if self._meter.publishing is not None:
            kafka = self._meter.publishing()
            for name, help_, count in (
                (
                    "published",
                    "Readings that Kafka has acknowledged, repeated ones included",
                    kafka.published,
                ),
                ("unpublished", "Stored readings that are not published to Kafka", kafka.unpublished),
            ):
                yield CounterMetricFamily(f"qilu_gateway_{name}", help_, value=count)
            gauges |= {
                "kafka_waiting": ("Readings on disk that Kafka has not acknowledged", kafka.waiting),
                "kafka_waiting_bytes": ("Bytes on disk for Kafka", kafka.waiting_bytes),
                "kafka_age_seconds": ("Age of the oldest batch that waits for Kafka", kafka.age_s),
            }
        for name, (help_, value) in gauges.items():
            yield GaugeMetricFamily(f"qilu_gateway_{name}", help_, value=value)
