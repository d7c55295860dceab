"""The end of a run of the embedded stack: waiting for what is in flight, and counting what has arrived."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
from qilu_contract.errors import QiluError
from qilu_contract.store import Store
from qilu_gateway.service import GatewayService
from qilu_platform.client import Programme

from qilu.report import Report, count_duplicates, count_stored

SETTLE_S = 30.0
"""Time that the end of a run waits for readings in flight without progress, for example while the store is
unavailable."""
QUIET_S = 5.0
"""Time without readings in flight or arrivals after which none are expected."""


class Node(msgspec.Struct):
    readings_acked: int
    dropped: int
    unfit: int = 0


class RunFile(msgspec.Struct):
    """The part of the manifest of `qilu devices run` that is used here: readings that the broker
    acknowledged, by edge node."""

    start_ms: int
    until_ms: int
    nodes: dict[str, Node]
    beyond_ms: int = 0

    @property
    def span_ms(self) -> tuple[int, int]:
        """Time span of its readings."""
        return self.start_ms - self.beyond_ms, self.until_ms + self.beyond_ms


def read_run(file: Path) -> RunFile:
    """Empty when the equipment ended before it began. Raises QiluError."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=RunFile)
    except FileNotFoundError:
        return RunFile(0, 0, {})
    except (OSError, msgspec.DecodeError, msgspec.ValidationError) as error:
        raise QiluError(f"{file} cannot be read: {error}.") from error


async def settle(
    run: RunFile,
    gateway: GatewayService,
    store: Store,
    hurry: asyncio.Event,
    show: Callable[[], Awaitable[None]],
) -> int:
    """Wait while something is in flight, as long as it moves or until `hurry`; returns how many readings that
    the broker took over from the equipment the store does not hold. `show` is awaited now and then."""
    last_change = time.monotonic()
    before: tuple[int, int] | None = None
    while True:
        began = time.monotonic()
        counters = gateway.counters
        under_way = counters.in_flight or counters.spooled or await gateway.unreported()
        stored = await count_stored(store, *run.span_ms)
        absent = sum(max(0, node.readings_acked - stored[name]) for name, node in run.nodes.items())
        missing = max(0, absent - counters.dead_lettered - counters.spooled)
        now = time.monotonic()
        if (missing, counters.accepted) != before:
            before, last_change = (missing, counters.accepted), now
        patience = SETTLE_S if under_way else QUIET_S
        if hurry.is_set() or now - last_change > patience or not (missing or under_way):
            return absent
        await show()
        # Counting takes the store's time, which it needs for what is in flight.
        await asyncio.sleep(max(0.2, 4 * (now - began)))


async def report(
    run: RunFile, gateway: GatewayService, store: Store, counts: Programme, absent: int, seconds: float
) -> Report:
    """Count the readings of a run that have arrived. `absent`: the result of `settle`."""
    counters = gateway.counters
    stored = await count_stored(store, *run.span_ms)
    unfit = sum(node.unfit for node in run.nodes.values())
    return Report(
        accepted=counters.accepted,
        stored=sum(stored[name] for name in run.nodes),
        spooled=counters.spooled,
        dead_lettered=counters.dead_lettered,
        duplicates=await count_duplicates(store),
        lost=max(0, absent - counters.dead_lettered - counters.spooled),
        refused=max(0, min(absent, counters.dead_lettered) - unfit),
        taken=counters.stored,
        units_registered=counts.registered["units"],
        units_on_cloud=counts.onboarded("units_on_cloud"),
        enterprises_on_cloud=counts.onboarded("enterprises_on_cloud"),
        seconds=round(seconds, 1),
        redelivered=counters.redelivered,
        acknowledged=sum(node.readings_acked for node in run.nodes.values()),
        dropped_at_the_edge=sum(node.dropped for node in run.nodes.values()),
    )
