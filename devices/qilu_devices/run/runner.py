"""A run: register the fleet, connect its edge nodes, publish each reading at its time, drain, disconnect."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Coroutine

from qilu_common.secrets import secret
from qilu_contract.errors import ConfigError

from qilu_devices.fleet import Unit
from qilu_devices.run.clock import Announcers, Pace
from qilu_devices.run.config import Brokers, Progress, Reached, RunConfig, RunProgress, RunReport
from qilu_devices.run.nodes import Nodes
from qilu_devices.run.producer import Producer
from qilu_devices.run.recorder import Recorder
from qilu_devices.run.registration import Registration
from qilu_devices.run.switchboard import Switchboard
from qilu_devices.simulation import Simulation
from qilu_devices.transport.disturbance import Disturbance

REPORT_EVERY_S = 1.0
SAVE_EVERY_S, SAVE_SHARE = 1.0, 0.02
"""Interval of saving the manifest; longer if saving would take more than this share of the time."""
STOP_DRAIN_S = 2.0
FAREWELL_S = 3.0


class _Run:
    """A run, from its first simulated moment on."""

    def __init__(self, config: RunConfig, progress: Progress, brokers: Brokers, units: list[Unit]) -> None:
        self._config, self._report_to, self._units = config, progress, units
        self._began_s = asyncio.get_running_loop().time()
        self._reached = Reached.beginning(config)
        self._pace = Pace(self._reached.start_ms, config.speed)
        if config.fixed_start_ms is None:  # follow the wall clock, however long connecting takes
            self._pace.begin()
        self._ending = asyncio.Event()
        seed, start_ms, scenario = config.run_seed, self._reached.start_ms, config.scenario
        commands = list(config.commands)
        disturbance = Disturbance(self._units, seed, start_ms, scenario.transport)
        simulation = Simulation(self._units, seed, start_ms, scenario.faults, config.commands)
        switchboard = Switchboard(simulation, commands, self._command_time_ms, lambda: self._recorder.keep())
        self._nodes = Nodes(config, brokers, self._units, self._reached, self._ending, switchboard.obey)
        self._recorder = Recorder(
            config, self._reached, self._units, self._nodes.accounts, disturbance, commands
        )
        self._producer = Producer(
            simulation, disturbance, self._nodes, self._pace, self._reached, self._ending
        )
        name = f"qilu-devices-{secrets.token_hex(4)}"
        self._announcer = Announcers(brokers.all, name, self._pace.speed_now, self._nodes.announced)

    async def execute(self, stop: asyncio.Event) -> RunReport:
        self._recorder.save(finished=False)
        try:
            stopped = await self._live(stop)
        except BaseExceptionGroup as group_error:
            self._recorder.save_end(finished=False)
            wrong, _ = group_error.split(ConfigError)
            if wrong is not None:
                raise _first(wrong) from None
            raise
        except asyncio.CancelledError:
            self._recorder.save_end(finished=False)
            raise
        finally:
            self._nodes.close()
        report = self._snapshot()
        self._recorder.save_end(finished=not stopped and report.pending == 0)
        return report

    async def _live(self, stop: asyncio.Event) -> bool:
        """Run from the first connection to the last; returns True if `stop` was set before the end."""
        config, nodes = self._config, self._nodes
        until_ms = None if config.for_s is None else self._reached.start_ms + round(config.for_s * 1000.0)
        async with asyncio.TaskGroup() as group:
            connections = [group.create_task(node.run(), name=f"edge node {node.id}") for node in nodes.all]
            # Every shard needs the announcement, and the same clock may be announced twice. A backfill needs
            # none, and must not turn back the clock of a run in the present.
            if not config.backfill:
                connections.insert(0, group.create_task(self._announcer.run(), name="run clock"))
            working = [group.create_task(self._report(), name="progress")]
            working += [
                group.create_task(flow.run(), name=f"flow to {host}") for host, flow in nodes.flows.items()
            ]
            try:
                stopped = await self._producer.run(self._announcer, until_ms, stop)
                await nodes.drain(STOP_DRAIN_S if stopped else config.drain_s)
            except asyncio.CancelledError:
                await nodes.drain(STOP_DRAIN_S)
                raise
            finally:
                for task in working:
                    task.cancel()
                for node in nodes.all:
                    node.stop()
                self._announcer.stop()
                for task in (await asyncio.wait(connections, timeout=FAREWELL_S))[1]:
                    task.cancel()
        return stopped

    def _command_time_ms(self) -> int | None:
        return None if self._ending.is_set() or self._reached.catching_up else self._reached.until_ms

    async def _report(self) -> None:
        loop = asyncio.get_running_loop()
        save_at_s = self._began_s + SAVE_EVERY_S
        while True:
            await asyncio.sleep(REPORT_EVERY_S)
            report = self._snapshot()
            done, total = report.readings_acked, report.readings_made
            if self._config.backfill and self._config.for_s is not None:
                done = (self._reached.until_ms - self._reached.start_ms) // 1000
                total = round(self._config.for_s)
            self._report_to(RunProgress(None, done, total, report))
            began_s = loop.time()
            if began_s >= save_at_s:
                self._recorder.keep()
                save_at_s = loop.time() + max(SAVE_EVERY_S, (loop.time() - began_s) / SAVE_SHARE)

    def _snapshot(self) -> RunReport:
        nodes = self._nodes.all
        return RunReport(
            units=len(self._units),
            enterprises=len(nodes),
            readings_made=sum(node.backlog.made for node in nodes),
            readings_acked=sum(node.acked for node in nodes),
            pending=sum(node.pending for node in nodes),
            dropped=sum(node.backlog.dropped for node in nodes),
            births=sum(node.backlog.births for node in nodes),
            nodes_online=sum(node.online for node in nodes),
            start_ms=self._reached.start_ms,
            until_ms=self._reached.until_ms,
            seconds=asyncio.get_running_loop().time() - self._began_s,
            speed=self._config.speed,
            late_s=self._pace.late_s,
        )


async def _unless_stopped(work: Coroutine[None, None, None], stop: asyncio.Event) -> bool:
    """Run `work`, and cancel it when `stop` is set; returns whether it ended. Raises its errors."""
    working, stopping = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
        ended = working.done()
        working.cancel()
        await asyncio.wait((working,))
    if ended:
        working.result()
    return ended


def _first(group: BaseException) -> BaseException:
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    return group


async def run(
    config: RunConfig, progress: Progress = lambda _: None, stop: asyncio.Event | None = None
) -> RunReport:
    """Simulate until `for_s` is over and everything is acknowledged, or until `stop` is set.

    `progress` is called about once a second, from the event loop. When `stop` is set, or the task is
    cancelled, no more readings are made, pending ones have two seconds, and the edge nodes disconnect; a
    cancelled run raises CancelledError afterwards. Raises ConfigError when a setting cannot work, the
    platform refuses the fleet, or the broker rejects the log-in.
    """
    config.check()
    brokers = config.brokers()
    units, stop = config.fleet(), stop or asyncio.Event()
    if config.platform is not None:
        began_s = asyncio.get_running_loop().time()
        registration = Registration(
            config.platform,
            config.api_key or secret("QILU_API_KEY"),
            lambda what, done, total: progress(RunProgress(what, done, total, None)),
        )
        if not await _unless_stopped(registration.register(units), stop):
            seconds = asyncio.get_running_loop().time() - began_s
            return RunReport(units=len(units), seconds=seconds, speed=config.speed)
    return await _Run(config, progress, brokers, units).execute(stop)
