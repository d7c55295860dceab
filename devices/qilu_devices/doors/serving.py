"""A run whose readings clients fetch: the same simulation as a run that publishes, at the same pace, behind
servers instead of edge nodes.

The run's manifest says that everything up to the last sample is expected. So `qilu verify` scores what a
client delivers to a store.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from typing import Protocol

from qilu_contract.errors import ConfigError
from qilu_contract.wire.commands import Answer, Command

from qilu_devices.fleet import Unit
from qilu_devices.run.clock import Pace
from qilu_devices.run.config import Reached, RunConfig
from qilu_devices.run.manifest import NodeRecord
from qilu_devices.run.recorder import Recorder
from qilu_devices.run.switchboard import Switchboard
from qilu_devices.simulation import Sample, Simulation
from qilu_devices.transport.disturbance import Disturbance

SAVE_EVERY_S = 5.0
"""Interval at which the manifest is saved."""
LINGER_S = 5.0
"""How long clients may fetch the last values after the run has ended."""
STOP_LINGER_S = 2.0
"""The same for a run that was stopped."""

Obey = Callable[[Unit, Command], Answer]
"""Carries out a command to a unit, or refuses it with a reason. To be called from the event loop."""


class Door(Protocol):
    """A server of simulated equipment."""

    @property
    def address(self) -> str:
        """URL for clients."""

    @property
    def read_whole(self) -> asyncio.Event:
        """Set when clients subscribe to, or have read, every unit."""

    def opened(self, units: Sequence[Unit], obey: Obey) -> AbstractAsyncContextManager[None]:
        """Listens while the context lasts. Raises ConfigError when it cannot."""

    async def take(self, samples: Sequence[Sample]) -> None:
        """Show these samples, which have the same time."""


@dataclass(frozen=True, slots=True)
class ServeReport:
    """Report of a served run: units, readings made, and the times of the first and last sample (UTC, ms)."""

    units: int
    readings_made: int
    start_ms: int
    until_ms: int


class _Serving:
    """A served run, from its first sample on."""

    def __init__(self, config: RunConfig, units: Sequence[Unit]) -> None:
        self._reached = Reached.beginning(config)
        self._pace = Pace(self._reached.start_ms, config.speed)
        self._until_ms = (
            None if config.for_s is None else self._reached.start_ms + round(config.for_s * 1000.0)
        )
        self._units = units
        self._made = dict.fromkeys((unit.enterprise.id for unit in units), 0)
        commands = list(config.commands)
        seed, start_ms = config.run_seed, self._reached.start_ms
        self._simulation = Simulation(units, seed, start_ms, config.scenario.faults, config.commands)
        self._ending = asyncio.Event()
        self.switchboard = Switchboard(
            self._simulation, commands, self._command_time_ms, lambda: self._recorder.keep()
        )
        self._recorder = Recorder(
            config, self._reached, units, self._accounts, Disturbance(units, seed, start_ms, {}), commands
        )

    def _command_time_ms(self) -> int | None:
        return None if self._ending.is_set() else self._reached.until_ms

    def _accounts(self) -> dict[str, NodeRecord]:
        until_ms = self._reached.until_ms
        return {id_: NodeRecord(until_ms, made, made, 0) for id_, made in self._made.items()}

    async def run(self, doors: Sequence[Door], stop: asyncio.Event) -> ServeReport:
        self._recorder.save(finished=False)
        saving = asyncio.create_task(self._save(), name="manifest")
        stopping = asyncio.create_task(stop.wait(), name="stop")
        stopping.add_done_callback(lambda _: self._ending.set())
        try:
            await self._make(doors)
        finally:
            self._ending.set()
            saving.cancel()
            stopping.cancel()
            self._recorder.save_end(finished=True)
        made = sum(self._made.values())
        return ServeReport(len(self._units), made, self._reached.start_ms, self._reached.until_ms)

    async def _make(self, doors: Sequence[Door]) -> None:
        """Show each reading at its time. The present millisecond is still completed."""
        reached = self._reached
        for moment in self._simulation.moments(self._until_ms):
            await self._pace.reach(moment.ts_ms, self._ending)
            if self._ending.is_set() and moment.ts_ms > reached.until_ms:
                break
            reached.until_ms = moment.ts_ms
            reached.whole_until_ms = moment.ts_ms - 1
            for sample in moment.samples:
                self._made[sample.unit.enterprise.id] += 1
            for door in doors:
                await door.take(moment.samples)
            await asyncio.sleep(0)  # clients are served between two moments, however late the run is
        reached.whole_until_ms = reached.until_ms
        if self._until_ms is not None:
            await self._pace.reach(self._until_ms, self._ending)

    async def _save(self) -> None:
        while True:
            await asyncio.sleep(SAVE_EVERY_S)
            self._recorder.keep()


async def serve(
    config: RunConfig,
    doors: Sequence[Door],
    stop: asyncio.Event,
    *,
    wait: bool = False,
    linger_s: float = LINGER_S,
    listening: Callable[[], None] = lambda: None,
) -> ServeReport:
    """Serve a fleet until `for_s` is over or `stop` is set. The configuration's broker and platform are not
    used.

    `linger_s`: how long the doors stay open after `for_s`, unless `stop` is set.
    `wait`: simulated time begins when a client subscribes to, or has read, every unit at one of the doors.
    `listening` is called once all doors listen. Raises ConfigError for settings that cannot work.
    """
    config.check()
    if config.scenario.transport:
        raise ConfigError("Doors serve readings without transport faults: remove the scenario's 'transport'.")
    units = config.fleet()
    serving: _Serving | None = None

    def obey(unit: Unit, command: Command) -> Answer:
        if serving is None:
            return Answer("", unit.id, str(command), False, "The run has not begun yet.", 0)
        return serving.switchboard.carry_out(unit, command)

    async with AsyncExitStack() as stack:
        for door in doors:
            await stack.enter_async_context(door.opened(units, obey))
        listening()
        if wait:
            await _any([*(door.read_whole for door in doors), stop])
        if stop.is_set():
            return ServeReport(len(units), 0, 0, 0)
        serving = _Serving(config, units)
        report = await serving.run(doors, stop)
        if stop.is_set():
            await asyncio.sleep(STOP_LINGER_S)
        else:
            await _any([stop], linger_s)
        return report


async def _any(events: Sequence[asyncio.Event], timeout_s: float | None = None) -> None:
    """Wait until one of these is set, or until the timeout."""
    waiting = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waiting, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
