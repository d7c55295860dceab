"""`qilu edge run`: an edge node that reads an OPC UA or Modbus server instead of the simulation.

Births, sequence numbers and commands are those of `qilu_devices.edge`. Readings are on disk (`journal`) until
the broker has acknowledged them; those that waited for the broker or the gateway are published as historical.
While the server is unavailable nothing is read, and the reader connects again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import structlog
from qilu_common.backoff import Backoff
from qilu_common.broker import BrokerAddress
from qilu_common.private_files import private_folder, sole_user
from qilu_contract.errors import QiluError
from qilu_contract.wire.clock import wall_ms
from qilu_contract.wire.commands import Answer, Command, Refused
from qilu_contract.wire.partitions import of_group

from qilu_devices.commands import received
from qilu_devices.doors import load
from qilu_devices.doors.collector import SETTLE_S, Collector
from qilu_devices.doors.edge_config import EdgeConfig, Source
from qilu_devices.doors.forwarding import Forwarding
from qilu_devices.doors.journal import Journal
from qilu_devices.edge.edge_node import EdgeNode, Later, NodeConfig
from qilu_devices.edge.flow import Flow
from qilu_devices.edge.sessions import Sessions
from qilu_devices.fleet import Unit

CAPACITY = 2_000_000
"""Readings on disk while the broker or the gateway is unavailable, about 200 bytes each."""
AHEAD = 5_000
"""Of these, readings that are in memory as well, to be published next."""
FLUSH_EVERY_S = 0.1
DRAIN_S = 10.0
FAREWELL_S = 2.0
INCOMPLETE_AFTER_S = 30.0
"""A unit that has not all its signals after this time is reported."""

_log = structlog.get_logger(__name__)


class ReadError(QiluError):
    """The server does not answer, or not as expected."""


class Reader(Protocol):
    """Client of a server."""

    async def run(self, collector: Collector) -> None:
        """Reads until cancelled. Raises ReadError when the connection fails, ConfigError when the server
        cannot be used."""

    async def command(self, source: Source, command: Command) -> None:
        """Carries out a command. Raises Refused with the reason."""


@dataclass(frozen=True, slots=True)
class EdgeReport:
    """Readings of an edge node: read from the server, found on disk at the start, acknowledged by the broker,
    waiting on disk, dropped."""

    readings: int
    recovered: int
    acked: int
    pending: int
    dropped: int


class _Edge:
    def __init__(self, config: EdgeConfig, broker: BrokerAddress, state: Path, gateways: int) -> None:
        self._config = config
        self._sources = {source.unit.id: source for source in config.sources}
        self._sessions = Sessions(state, [config.enterprise.id])
        self._progressed = asyncio.Event()
        flow = Flow(of_group(config.enterprise.county, gateways).host_id())
        self.node = EdgeNode(
            config.enterprise,
            config.units,
            NodeConfig(broker, 2 * AHEAD, sessions=self._sessions),
            flow,
            self._progressed.set,
            self._on_command,
        )
        flow.nodes.append(self.node)
        self._forwarding = Forwarding(Journal(state, config.units, CAPACITY), self.node, AHEAD)
        self._collector = Collector(config.units, self._forwarding.take)
        reader: Reader = load(config.protocol, "reader").reader(config, state)
        self._reader = reader
        self._answering: set[asyncio.Task[None]] = set()

    async def run(self, stop: asyncio.Event) -> EdgeReport:
        try:
            await self._forwarding.open(self._collector.restore)
            async with asyncio.TaskGroup() as group:
                node = group.create_task(self.node.run(), name="edge node")
                working = [
                    group.create_task(each, name=name)
                    for name, each in (("reader", self._read()), ("collector", self._flush()))
                ]
                stopping = group.create_task(stop.wait(), name="stop")
                await asyncio.wait([node, *working, stopping], return_when=asyncio.FIRST_COMPLETED)
                for task in working:
                    task.cancel()
                stopping.cancel()
                await asyncio.wait(working)
                self._collector.flush(float("inf"))
                await self._forwarding.step()
                await self._drain()
                self.node.stop()
                await asyncio.wait([node], timeout=FAREWELL_S)
                node.cancel()
        except BaseExceptionGroup as group_error:
            raise group_error.exceptions[0] from None
        finally:
            self._sessions.close()
            await self._forwarding.step()  # what the broker has acknowledged is not published again
            await self._forwarding.close()
        done = self._forwarding
        return EdgeReport(done.readings, done.recovered, done.acked, done.waiting, done.dropped)

    async def _read(self) -> None:
        """Read, and connect again after failures."""
        backoff, logged = Backoff(), ""
        while True:
            before = self._collector.values
            try:
                await self._reader.run(self._collector)
            except ReadError as error:
                if str(error) != logged:
                    _log.warning("server unavailable", server=self._config.url, error=str(error))
                logged = str(error)
            if self._collector.values > before:
                backoff.reset()
                logged = ""
            await asyncio.sleep(backoff.delay_s())

    async def _flush(self) -> None:
        loop = asyncio.get_running_loop()
        report_s: float | None = loop.time() + INCOMPLETE_AFTER_S
        while True:
            await asyncio.sleep(FLUSH_EVERY_S)
            now_s = loop.time()
            self._collector.flush(now_s - SETTLE_S)
            await asyncio.shield(self._forwarding.step())
            if report_s is not None and now_s > report_s:
                report_s = None
                for unit, missing in self._collector.incomplete.items():
                    _log.warning("signals without values", unit=unit, signals=missing[:5], count=len(missing))

    async def _drain(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_S):
                while self._forwarding.waiting and self.node.online:
                    self._progressed.clear()
                    await self._forwarding.step()
                    if self.node.pending:
                        await self._progressed.wait()
                    elif self._forwarding.waiting:  # on disk, and not offered: must not spin
                        await asyncio.sleep(FLUSH_EVERY_S)

    def _on_command(self, unit: Unit | None, id_: str, body: bytes) -> Answer | Later | None:
        return received(unit, id_, body, wall_ms(), self._begin)

    def _begin(self, unit: Unit, command: Command, id_of_command: str) -> Later:
        self._start(self._answer(self._sources[unit.id], command, id_of_command))
        return Later.LATER

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work, name="command")
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _answer(self, source: Source, command: Command, number: str) -> None:
        """Have the server carry out a command, and publish the answer."""
        reason = ""
        try:
            await self._reader.command(source, command)
        except (Refused, ReadError) as error:
            reason = str(error)
        self.node.answer(Answer(number, source.unit.id, str(command), not reason, reason, wall_ms()))


async def run_edge(
    config: EdgeConfig, broker: str, state: Path, stop: asyncio.Event, gateways: int = 1
) -> EdgeReport:
    """Read the server and publish until `stop` is set; then what was read is published, for ten seconds at
    most. Raises ConfigError when the server or the broker cannot be used as configured, or when another
    process uses `state`."""
    address = BrokerAddress.from_url(broker)
    private_folder(state)
    refusal = f"An edge node runs in {state} already: stop it, or choose another directory with --state."
    with sole_user(state / "edge.lock", refusal):
        return await _Edge(config, address, state, gateways).run(stop)
