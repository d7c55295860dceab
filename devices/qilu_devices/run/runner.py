"""A run: register the fleet, connect its edge nodes, publish each reading at its time, drain, say goodbye."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import secrets
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from pathlib import Path

import structlog
from qilu_common.broker import BrokerAddress
from qilu_common.secrets import secret
from qilu_contract.errors import ConfigError
from qilu_contract.wire.clock import wall_ms
from qilu_contract.wire.partitions import of_group

from qilu_devices import faults
from qilu_devices.commands import ScheduledCommand, with_commands
from qilu_devices.edge.backlog import made_ms
from qilu_devices.edge.edge_node import EdgeNode, NodeConfig
from qilu_devices.edge.flow import Flow
from qilu_devices.edge.sessions import Sessions
from qilu_devices.fleet import Shard, Unit
from qilu_devices.run.clock import Announcer, Pace
from qilu_devices.run.manifest import Manifest, NodeRecord, ScenarioRecord, class_records
from qilu_devices.run.registration import Registration
from qilu_devices.run.switchboard import Switchboard
from qilu_devices.scenario import Scenario
from qilu_devices.simulation import Sample, Simulation, fleet_of
from qilu_devices.transport import episodes
from qilu_devices.transport.disturbance import Disturbance, Sending

BUFFERED_READINGS = 2_000_000
"""Readings that all nodes together may keep while the broker or the host is away, about half a kilobyte each.
"""
NODE_CAPACITY_MAX, NODE_CAPACITY_MIN = 50_000, 500
HIGH_WATER = 2_000
"""Readings a node may have pending before an online fleet waits for it: simulated time falls behind rather
than lose."""
CONNECTING_AT_ONCE = 64
ONLINE_EVERY_S = 2.0
"""So long is waited for one more edge node to come online before simulated time begins."""
OTHER_FILES = 256  # besides the connections of edge nodes; the embedded stack shares the process
REPORT_EVERY_S = 1.0
SAVE_EVERY_S, SAVE_SHARE = 1.0, 0.02
"""The manifest is saved so often, or more seldom where that would take more than this share of the time."""
YIELD_EVERY = 5_000  # readings between two turns of the event loop: some 20 ms
DRAIN_S = 60.0
STOP_DRAIN_S = 2.0
FOREVER_MS = 2**62
FAREWELL_S = 3.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class RunConfig:
    """What is run against what. `broker` and `platform` are URLs; without `platform` nothing is registered,
    and without `api_key` the secret QILU_API_KEY is used. `seed`, `units` and `start_ms` go before the
    scenario's own; without any start the run begins now. `speed`: simulated seconds a second, None for as
    fast as it goes. `for_s`: simulated duration, None for ever. `state`: the folder of the manifest and of
    the ground truth of faults. `commands`: of an earlier run, to be carried out again at their times.
    `backfill`: the readings are of the past, and no clock is announced. `resume`: the manifest of a run
    like this one that did not come to its end: what it has published is not published again."""

    broker: str
    scenario: Scenario
    platform: str | None = None
    api_key: str | None = None
    seed: int | None = None
    units: int | None = None
    start_ms: int | None = None
    speed: float | None = 1.0
    for_s: float | None = None
    shard: Shard = Shard()  # noqa: RUF009  # frozen
    state: Path | None = None
    drain_s: float = DRAIN_S
    commands: tuple[ScheduledCommand, ...] = ()
    backfill: bool = False
    resume: Manifest | None = None
    gateways: int = 1
    """How many gateways share the counties: each edge node follows the one that has its own."""
    strict: bool = False
    """Sparkplug to the letter, at QoS 0: what the broker loses is lost."""


@dataclass(frozen=True, slots=True)
class RunReport:
    """What a run did, so far or in all. A reading is one unit at one time: `readings_acked` are those that
    the broker acknowledged, counted once, births included; made = acked + dropped + pending."""

    units: int
    enterprises: int
    readings_made: int
    readings_acked: int
    pending: int
    dropped: int
    births: int
    nodes_online: int
    start_ms: int
    until_ms: int
    seconds: float
    speed: float | None
    late_s: float
    """How far simulated time is behind where it would be at that speed: it waits for what a gateway takes."""


@dataclass(frozen=True, slots=True)
class RunProgress:
    """`registering` names what is being registered (with done and total); None once the run publishes. Then
    done and total are readings acknowledged and made; of a backfill, simulated seconds."""

    registering: str | None
    done: int
    total: int
    report: RunReport | None


Progress = Callable[[RunProgress], None]


class _Run:
    def __init__(self, config: RunConfig, progress: Progress) -> None:
        self._config = config
        self._report_to = progress
        scenario = config.scenario
        self._seed = scenario.seed if config.seed is None else config.seed
        self._unit_count = scenario.units if config.units is None else config.units
        if self._unit_count < 1:
            raise ConfigError("A run needs at least one unit: give --units 1 or more.")
        if config.speed is not None and not config.speed > 0.0:
            raise ConfigError("The speed must be above 0, or max.")
        self._broker = BrokerAddress.from_url(config.broker)
        self._units: list[Unit] = fleet_of(scenario, self._seed, self._unit_count, config.shard)
        self._simulation: Simulation
        self._switchboard: Switchboard
        published = {} if config.resume is None else config.resume.nodes
        self._published = {id_: node.acked_through_ms for id_, node in published.items()}
        self._flows: dict[str, Flow] = {}  # by host
        self._flow_of: dict[str, Flow] = {}  # by edge node
        self._pace = Pace(0, config.speed)
        self._moved = asyncio.Event()
        self._ending = asyncio.Event()
        self._nodes: dict[str, EdgeNode] = {}
        self._start_ms = 0
        self._until_ms = 0
        self._whole_until_ms = 0  # every reading up to here was made
        self._since_yield = 0
        self._began_s = 0.0
        self._save_fails = False

    async def execute(self, stop: asyncio.Event) -> RunReport:
        config = self._config
        loop = asyncio.get_running_loop()
        if config.platform is not None:
            key = config.api_key or secret("QILU_API_KEY")
            registration = Registration(
                config.platform,
                key,
                lambda what, done, total: self._report_to(RunProgress(what, done, total, None)),
            )
            self._began_s = loop.time()
            if not await _unless_stopped(registration.register(self._units), stop):
                return self._snapshot()
        self._began_s = loop.time()
        chosen = config.start_ms if config.start_ms is not None else config.scenario.start_ms
        self._start_ms = self._until_ms = wall_ms() if chosen is None else chosen
        self._whole_until_ms = self._start_ms - 1
        self._pace = Pace(self._start_ms, config.speed)
        if chosen is None:  # what begins now goes on with the wall's clock, however long it takes to connect
            self._pace.begin()
        self._disturbance = Disturbance(self._units, self._seed, self._start_ms, config.scenario.transport)
        self._simulation = Simulation(
            self._units, self._seed, self._start_ms, config.scenario.faults, config.commands
        )
        self._switchboard = Switchboard(self._simulation, config.commands, self._command_time_ms, self._keep)
        self._make_nodes()
        _allow_connections(len(self._nodes))
        announcer = Announcer(
            self._broker,
            f"qilu-devices-{secrets.token_hex(4)}",
            self._pace.speed_now,
            self._announced,
        )
        self._save(finished=False)
        announced: asyncio.Task[None] | None = None
        nodes: list[asyncio.Task[None]] = []
        try:
            async with asyncio.TaskGroup() as group:
                # Every shard needs the gate, and announcing the same clock twice says nothing new. The past
                # needs no gate, and must not turn back the clock of a run that goes on now.
                if not config.backfill:
                    announced = group.create_task(announcer.run(), name="run clock")
                nodes = [
                    group.create_task(node.run(), name=f"edge node {node.id}")
                    for node in self._nodes.values()
                ]
                working = [group.create_task(self._report(), name="progress")]
                working += [
                    group.create_task(flow.run(), name=f"flow to {host}")
                    for host, flow in self._flows.items()
                ]
                try:
                    stopped = await self._produce(announcer, stop)
                    await self._drain(STOP_DRAIN_S if stopped else config.drain_s)
                except asyncio.CancelledError:
                    await self._drain(STOP_DRAIN_S)
                    raise
                finally:
                    for task in working:
                        task.cancel()
                    for node in self._nodes.values():
                        node.stop()
                    announcer.stop()
                    saying = nodes if announced is None else [announced, *nodes]
                    for task in (await asyncio.wait(saying, timeout=FAREWELL_S))[1]:
                        task.cancel()
        except BaseExceptionGroup as group_error:
            self._save_end(finished=False)
            wrong, _ = group_error.split(ConfigError)
            if wrong is not None:
                raise _first(wrong) from None
            raise
        except asyncio.CancelledError:
            self._save_end(finished=False)
            raise
        finally:
            self._sessions.close()
        report = self._snapshot()
        self._save_end(finished=not stopped and report.pending == 0)
        return report

    def _make_nodes(self) -> None:
        by_enterprise: dict[str, list[Unit]] = {}
        for unit in self._units:
            by_enterprise.setdefault(unit.enterprise.id, []).append(unit)
        config = self._config
        count = max(1, len(by_enterprise))
        self._capacity = min(max(BUFFERED_READINGS // count, NODE_CAPACITY_MIN), NODE_CAPACITY_MAX)
        self._sessions = Sessions(config.state, by_enterprise)
        node_config = NodeConfig(
            self._broker,
            self._capacity,
            config.strict,
            config.backfill,
            asyncio.Semaphore(CONNECTING_AT_ONCE),
            self._sessions,
        )
        for id_, units in by_enterprise.items():
            host = of_group(units[0].enterprise.county, config.gateways).host_id()
            flow = self._flow_of[id_] = self._flows.setdefault(host, Flow(host, self._flow_moved))
            self._nodes[id_] = node = EdgeNode(
                units[0].enterprise,
                units,
                node_config,
                flow,
                self._moved.set,
                self._switchboard.obey,
            )
            flow.nodes.append(node)

    @property
    def _catching_up(self) -> bool:
        """Simulated time has not come to where an earlier process was."""
        return self._until_ms <= max(self._published.values(), default=-1)

    def _command_time_ms(self) -> int | None:
        return None if self._ending.is_set() or self._catching_up else self._until_ms

    def _announced(self, ms: int) -> None:
        for flow in self._flows.values():
            flow.announced(ms)
        self._flow_moved()

    def _flow_moved(self) -> None:
        """Readings that were too far ahead may be published now, and others made."""
        self._moved.set()
        if self._until_ms > wall_ms():
            for node in self._nodes.values():
                node.wake()

    async def _produce(self, announcer: Announcer, stop: asyncio.Event) -> bool:
        """Make readings until the end of the run; True when `stop` came before."""
        config = self._config
        until_ms = None if config.for_s is None else self._start_ms + round(config.for_s * 1000.0)
        stopping = asyncio.ensure_future(stop.wait())
        making = asyncio.ensure_future(self._make(announcer, until_ms))
        try:
            await asyncio.wait([stopping, making], return_when=asyncio.FIRST_COMPLETED)
            return not making.done()
        finally:
            stopping.cancel()
            self._ending.set()
            self._moved.set()
            await making

    async def _make(self, announcer: Announcer, until_ms: int | None) -> None:
        """Offer each reading at its time, to the end or until `_ending`: then the present millisecond is
        still made whole, so that what was made has no gaps before `_until_ms`."""
        pace = self._pace
        await self._come_online()
        for moment in self._simulation.moments(until_ms):
            await pace.reach(moment.ts_ms, self._ending)
            await self._keep_pace()
            if self._ending.is_set() and moment.ts_ms > self._until_ms:
                break
            announcer.made(moment.ts_ms)
            self._until_ms = moment.ts_ms
            self._whole_until_ms = moment.ts_ms - 1
            await self._offer(self._disturbance.through(moment))
        await self._offer(self._disturbance.rest())
        self._whole_until_ms = self._until_ms
        if until_ms is not None:
            await pace.reach(until_ms, self._ending)
            if not self._ending.is_set():
                announcer.made(until_ms)

    async def _offer(self, readings: Iterable[Sample | Sending]) -> None:
        for reading in readings:
            node = self._nodes[reading.unit.enterprise.id]
            if made_ms(reading) <= self._published.get(node.id, -1):
                node.backlog.skip(reading)
            else:
                node.offer(reading)
                self._flow_of[node.id].made()
            self._since_yield += 1
            if self._since_yield >= YIELD_EVERY:
                self._since_yield = 0
                await asyncio.sleep(0)
            if node.pending > HIGH_WATER:
                await self._make_room(node)

    async def _come_online(self) -> None:
        """Wait while edge nodes come online, one or more in ONLINE_EVERY_S: else the first readings of a
        fleet that takes long to connect would come to its host all at once."""
        online = -1
        while not self._ending.is_set() and online < len(self._nodes):
            before = online
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ONLINE_EVERY_S):
                    while (online := sum(node.online for node in self._nodes.values())) <= before:
                        self._moved.clear()
                        await self._moved.wait()
            if online <= before:
                return

    async def _keep_pace(self) -> None:
        """Hold simulated time while as much is ahead of a host as may be."""
        while any(flow.is_full for flow in self._flows.values()) and not self._ending.is_set():
            self._moved.clear()
            await self._moved.wait()

    async def _make_room(self, node: EdgeNode) -> None:
        """Hold simulated time while a node that can send has much to send. At a given speed time does not
        wait for one that is cut off: its buffer's bound decides. At full speed it does."""
        while (
            node.pending > min(HIGH_WATER, self._capacity // 2)
            and (node.online or self._config.speed is None)
            and not self._ending.is_set()
        ):
            self._moved.clear()
            await self._moved.wait()

    async def _drain(self, timeout_s: float) -> None:
        """Wait until everything is acknowledged, or the time is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while any(node.pending for node in self._nodes.values()):
                    self._moved.clear()
                    await self._moved.wait()

    async def _report(self) -> None:
        loop = asyncio.get_running_loop()
        save_at_s = self._began_s + SAVE_EVERY_S
        while True:
            await asyncio.sleep(REPORT_EVERY_S)
            report = self._snapshot()
            done, total = report.readings_acked, report.readings_made
            if self._config.backfill and self._config.for_s is not None:
                done, total = (self._until_ms - self._start_ms) // 1000, round(self._config.for_s)
            self._report_to(RunProgress(None, done, total, report))
            began_s = loop.time()
            if began_s >= save_at_s:
                self._keep()
                save_at_s = loop.time() + max(SAVE_EVERY_S, (loop.time() - began_s) / SAVE_SHARE)

    def _snapshot(self) -> RunReport:
        nodes = self._nodes.values()
        return RunReport(
            units=len(self._units),
            enterprises=len(self._nodes),
            readings_made=sum(node.backlog.made for node in nodes),
            readings_acked=sum(node.acked for node in nodes),
            pending=sum(node.pending for node in nodes),
            dropped=sum(node.backlog.dropped for node in nodes),
            births=sum(node.backlog.births for node in nodes),
            nodes_online=sum(node.online for node in nodes),
            start_ms=self._start_ms,
            until_ms=self._until_ms,
            seconds=asyncio.get_running_loop().time() - self._began_s,
            speed=self._config.speed,
            late_s=self._pace.late_s,
        )

    def _keep(self) -> None:
        """Save the manifest of a run that goes on, and goes on when the disk takes nothing."""
        try:
            self._save(finished=False)
        except ConfigError as error:
            if not self._save_fails:
                _log.warning("manifest_not_saved", error=str(error))
            self._save_fails = True
        else:
            self._save_fails = False

    def _save(self, *, finished: bool) -> None:
        config = self._config
        if config.state is None or self._catching_up:  # what is there says more
            return
        scenario = config.scenario
        held = self._disturbance.held()
        Manifest(
            scenario=ScenarioRecord(scenario.name, scenario.sha256, scenario.text),
            seed=self._seed,
            start_ms=self._start_ms,
            units=self._unit_count,
            shard=f"{config.shard.index}/{config.shard.count}",
            speed=config.speed,
            until_ms=self._until_ms,
            finished=finished,
            nodes={
                node.id: NodeRecord(
                    min(node.acked_through_ms, self._whole_until_ms, held.get(node.id, FOREVER_MS) - 1),
                    node.backlog.made,
                    node.acked,
                    node.backlog.dropped,
                    node.backlog.unfit,
                )
                for node in self._nodes.values()
            },
            beyond_ms=max((fault.largest_shift_ms for fault in scenario.transport.values()), default=0),
            classes=class_records(scenario),
            commands=self._switchboard.given,
            backfill_until_ms=self._start_ms + round((config.for_s or 0.0) * 1000)
            if config.backfill
            else None,
        ).save(config.state)

    def _save_end(self, *, finished: bool) -> None:
        """The manifest, and beside it which unit truly had which fault until the last sample, and what
        happened on the way."""
        self._save(finished=finished)
        config = self._config
        if config.state is not None and not self._catching_up:
            plan = with_commands(config.scenario.faults, self._switchboard.given)
            units = {unit.id: unit.class_name for unit in self._units}
            truth = faults.ground_truth(units, self._seed, self._start_ms, self._until_ms, plan)
            faults.save(truth, config.state)
            if config.scenario.transport:
                episodes.save(self._disturbance.ground_truth(), config.state)
            else:
                (config.state / episodes.FILE_NAME).unlink(missing_ok=True)  # an earlier run's


def _allow_connections(count: int) -> None:
    """Raise this process's limit of open files where that many connections need it. Raises ConfigError when
    it is not allowed."""
    needed = count + OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if needed <= soft or soft == resource.RLIM_INFINITY:
        return
    if hard != resource.RLIM_INFINITY and needed > hard:
        raise ConfigError(
            f"The fleet needs {needed} open files, one for each of its {count} edge nodes and {OTHER_FILES} "
            f"others, and this process may have {hard}: raise the limit (`ulimit -Hn`), simulate fewer "
            "units, or split the fleet with --shard."
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


async def _unless_stopped(work: Coroutine[None, None, None], stop: asyncio.Event) -> bool:
    """Whether `work` has ended; it is cancelled when `stop` is set before. Raises what it raises."""
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
    cancelled, making ends at once, what is pending has two seconds, and the edge nodes say farewell; a
    cancelled run raises CancelledError afterwards. Raises ConfigError when a setting cannot work, the
    platform refuses the fleet, or the broker refuses us.
    """
    return await _Run(config, progress).execute(stop or asyncio.Event())
