"""Producer of a run's readings, each at its time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from qilu_devices.run.clock import Announcers, Pace
from qilu_devices.run.config import Reached
from qilu_devices.run.nodes import Nodes
from qilu_devices.simulation import Sample, Simulation
from qilu_devices.transport.disturbance import Disturbance, Sending

YIELD_EVERY = 5_000  # readings between two turns of the event loop: some 20 ms


class Producer:
    """Passes readings from the simulation through transport faults to the edge nodes. `ending` is set when it
    has ended."""

    def __init__(
        self,
        simulation: Simulation,
        disturbance: Disturbance,
        nodes: Nodes,
        pace: Pace,
        reached: Reached,
        ending: asyncio.Event,
    ) -> None:
        self._simulation, self._disturbance, self._nodes = simulation, disturbance, nodes
        self._pace, self._reached, self._ending = pace, reached, ending
        self._since_yield = 0

    async def run(self, announcer: Announcers, until_ms: int | None, stop: asyncio.Event) -> bool:
        """Make readings up to `until_ms` (None: no end); returns True if `stop` was set earlier."""
        stopping = asyncio.ensure_future(stop.wait())
        making = asyncio.ensure_future(self._make(announcer, until_ms))
        try:
            await asyncio.wait([stopping, making], return_when=asyncio.FIRST_COMPLETED)
            return not making.done()
        finally:
            stopping.cancel()
            self._ending.set()
            self._nodes.moved.set()
            await making

    async def _make(self, announcer: Announcers, until_ms: int | None) -> None:
        """Offer each reading at its time, to the end or until `ending`. The present millisecond is still
        completed, so that the readings have no gaps before `until_ms`."""
        pace, reached, ending = self._pace, self._reached, self._ending
        await self._nodes.come_online()
        for moment in self._simulation.moments(until_ms):
            await pace.reach(moment.ts_ms, ending)
            await self._nodes.keep_pace()
            if ending.is_set() and moment.ts_ms > reached.until_ms:
                break
            announcer.made(moment.ts_ms)
            reached.until_ms = moment.ts_ms
            reached.whole_until_ms = moment.ts_ms - 1
            await self._offer(self._disturbance.through(moment))
        await self._offer(self._disturbance.rest())
        reached.whole_until_ms = reached.until_ms
        if until_ms is not None:
            await pace.reach(until_ms, ending)
            if not ending.is_set():
                announcer.made(until_ms)

    async def _offer(self, readings: Iterable[Sample | Sending]) -> None:
        for reading in readings:
            await self._nodes.offer(reading)
            self._since_yield += 1
            if self._since_yield >= YIELD_EVERY:
                self._since_yield = 0
                await asyncio.sleep(0)
