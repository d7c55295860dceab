"""Health of the gateway: the reasons why it cannot take data, and the endpoint that reports them."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec
import structlog
from qilu_common.backoff import Backoff
from qilu_common.http_server import HttpServer
from qilu_contract.errors import Reason
from qilu_contract.storage import Point
from qilu_contract.wire.clock import wall_ms
from qilu_stores.hours import Hours
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from qilu_gateway.admit.admission import Admission
from qilu_gateway.connect.connections import Connections
from qilu_gateway.connect.host import Timestamps
from qilu_gateway.endpoint import leave_address
from qilu_gateway.metrics import Meter
from qilu_gateway.publish.publisher import Publisher
from qilu_gateway.read.in_flight import InFlight
from qilu_gateway.rollups import rollups
from qilu_gateway.statefile import StateFile
from qilu_gateway.write.spool import Spool
from qilu_gateway.write.store_gate import StoreGate

log = structlog.get_logger()
_T = TypeVar("_T")

STALLED_S = 5.0
"""A message in flight for longer than this means that data arrives faster than it can be made durable."""
FLOWING_S = 1.0
"""A stall is over once no message has been in flight for longer than this."""
LETTERS_EVERY_MS = 10_000
ADDRESS_EVERY_S = 5.0
"""Interval of attempts to write the address file while the disk takes no writes."""


class Stopped(Exception):
    """`stop` was called before the start was complete."""


class Parts(NamedTuple):
    """The parts whose health is checked."""

    connections: Connections
    admission: Admission
    state: StateFile
    gate: StoreGate
    spool: Spool
    publisher: Publisher | None


class Health:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.meter, self.timestamps = Meter(), Timestamps()
        self.in_flight = InFlight(self.meter.counters)
        self.app: Starlette | None = None
        """The endpoint's application; None before the start."""
        self.server: HttpServer | None = None
        self.stopping = asyncio.Event()
        self.started = asyncio.Event()
        self.leaving = asyncio.Event()
        """Another gateway will serve this shard: edge nodes wait for it."""
        self.parts: Parts | None = None
        """None before the start."""
        self._stalled = False
        self._held_up = ""
        """Why the gateway cannot start yet: its disk is full, read-only or unavailable."""

    def troubles(self) -> list[str]:
        """Reasons why no data can be taken now: any of broker, store, state file, spool, platform, stalled,
        stopping. An unavailable store is not a reason as long as the spool has room."""
        if self.parts is None:
            return ["state file"] if self._held_up else ["starting"]
        connections, admission, state, gate, spool, _ = self.parts
        self._stalled = self.in_flight.oldest_s() > (FLOWING_S if self._stalled else STALLED_S)
        wrong = {
            "stopping": self.stopping.is_set() or self.leaving.is_set(),
            "broker": not connections.subscribed,
            "state file": bool(state.failing),
            "store": gate.failing and not spool.enabled,
            "spool": gate.failing and spool.enabled and spool.nearly_full,
            "platform": not admission.reached,
            "stalled": self._stalled,
        }
        return [name for name, is_wrong in wrong.items() if is_wrong]

    def reasons(self) -> dict[str, str]:
        """A sentence for each part that is unavailable, including parts without which the gateway keeps
        working."""
        found = {"state file": self._held_up, "clock": self.timestamps.trouble}
        if self.parts is not None:
            spool, publisher = self.parts.spool, self.parts.publisher
            found["state file"] = self.parts.state.failing
            found["store"] = self.parts.gate.reason
            if spool.full:
                found["spool"] = (
                    f"the spool takes no more ({spool.bytes} bytes): messages stay unacknowledged"
                )
            if publisher is not None and publisher.reason:
                found["kafka"] = f"Kafka takes nothing ({publisher.reason}): readings for it wait on disk"
        return {name: reason for name, reason in found.items() if reason}

    def routes(self) -> list[Route]:
        return [Route("/metrics", self._serve_metrics), Route("/healthz", self._serve_health)]

    async def _serve_metrics(self, _: Request) -> Response:
        return Response(self.meter.exposition(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def _serve_health(self, _: Request) -> Response:
        troubles = self.troubles()
        body: dict[str, object] = {"status": "ok" if not troubles else "degraded", "troubles": troubles}
        if reasons := self.reasons():
            body["reasons"] = reasons
        return Response(msgspec.json.encode(body), 503 if troubles else 200, media_type="application/json")

    async def when_possible(self, enter: Callable[[], Awaitable[_T]]) -> _T:
        """Call `enter` until the disk allows it; returns its result. Raises Stopped."""
        backoff = Backoff(most_s=2.0)
        while not self.stopping.is_set():
            try:
                found = await enter()
            except (sqlite3.OperationalError, OSError) as error:
                if not self._held_up:
                    log.error(
                        "the state folder takes nothing: messages stay with the broker until it does",
                        state=str(self._folder),
                        error=str(error),
                    )
                self._held_up = (
                    f"--state {self._folder} takes nothing ({error}): "
                    "messages stay with the broker until it does"
                )
                self.started.set()  # as far as possible
                with suppress(TimeoutError):
                    async with asyncio.timeout(backoff.delay_s()):
                        await self.stopping.wait()
            else:
                self._held_up = ""
                return found
        raise Stopped

    async def tell_address(self, url: str, key: str) -> None:
        """Write the endpoint's address and key to the state directory, for commands on this machine."""
        while True:
            try:
                await asyncio.to_thread(leave_address, self._folder, url, key)
            except OSError:  # the disk is full: reported elsewhere
                await asyncio.sleep(ADDRESS_EVERY_S)
            else:
                return


class Figures:
    """Makes the points of the gateway's own metrics: counts and rates, and dead letters by reason when there
    are new ones or at an interval."""

    def __init__(self, host: str, meter: Meter) -> None:
        self._host, self._meter = host, meter
        self._hours = Hours()
        self._letters = 0, Counter[Reason]()
        """Time and counts of the last dead letter points."""

    def points(self) -> list[Point]:
        now_ms, by_reason = wall_ms(), self._meter.by_reason
        points = [Point("pipeline", (self._host,), now_ms, self._meter.fields())]
        written_ms, written = self._letters
        if by_reason != written or now_ms >= written_ms + LETTERS_EVERY_MS:
            self._letters = now_ms, by_reason.copy()
            points += rollups.dead_letter_points(self._host, by_reason, now_ms)
        return points + self._hours.fold(points)
