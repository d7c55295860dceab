"""The edge nodes of a run, and the flows to their hosts."""

from __future__ import annotations

import asyncio
import contextlib
import resource
from collections.abc import Sequence

from qilu_common.broker import BrokerAddress
from qilu_contract.errors import ConfigError
from qilu_contract.wire.clock import wall_ms
from qilu_contract.wire.partitions import of_group

from qilu_devices.edge.backlog import made_ms
from qilu_devices.edge.edge_node import CommandHandler, EdgeNode, NodeConfig
from qilu_devices.edge.flow import Flow
from qilu_devices.edge.sessions import Sessions
from qilu_devices.fleet import Unit
from qilu_devices.run.config import Brokers, Reached, RunConfig
from qilu_devices.run.manifest import NodeRecord
from qilu_devices.simulation import Sample
from qilu_devices.transport.disturbance import Sending

BUFFERED_READINGS = 2_000_000
"""Maximum number of readings that all nodes together keep while the broker or the host is unavailable, about
half a kilobyte each.
"""
NODE_CAPACITY_MAX, NODE_CAPACITY_MIN = 50_000, 500
HIGH_WATER = 2_000
"""Pending readings of a node at which an online fleet waits for it: simulated time falls behind, and no
readings are lost."""
CONNECTING_AT_ONCE = 64
ONLINE_EVERY_S = 2.0
"""How long to wait for one more edge node to come online before simulated time begins."""
OTHER_FILES = 256  # besides the connections of edge nodes; the embedded stack shares the process


class Nodes:
    """The edge nodes of a run. `ending` is set when the run ends; then nothing waits any more."""

    def __init__(
        self,
        config: RunConfig,
        brokers: Brokers,
        units: Sequence[Unit],
        reached: Reached,
        ending: asyncio.Event,
        on_command: CommandHandler,
    ) -> None:
        """Raises ConfigError when the bdSeq file cannot be kept, or this process may not open enough
        files."""
        self._reached, self._ending = reached, ending
        self._full_speed = config.speed is None
        resumed = {} if config.resume is None else config.resume.nodes
        self._published = {id_: node.acked_through_ms for id_, node in resumed.items()}
        self.moved = asyncio.Event()
        """Set when a reading was acknowledged, a node came online, or a host has advanced."""
        self.flows: dict[str, Flow] = {}  # by host
        self._flow_of: dict[str, Flow] = {}  # by edge node
        self._nodes: dict[str, EdgeNode] = {}
        by_enterprise: dict[str, list[Unit]] = {}
        for unit in units:
            by_enterprise.setdefault(unit.enterprise.id, []).append(unit)
        share = BUFFERED_READINGS // max(1, len(by_enterprise))
        self._capacity = min(max(share, NODE_CAPACITY_MIN), NODE_CAPACITY_MAX)
        _allow_connections(len(by_enterprise))
        self._sessions = Sessions(config.state, by_enterprise)
        connecting = asyncio.Semaphore(CONNECTING_AT_ONCE)
        settings = {
            broker: NodeConfig(
                broker, self._capacity, config.strict, config.backfill, connecting, self._sessions
            )
            for broker in brokers.all
        }
        self._flows_at: dict[BrokerAddress, set[Flow]] = {broker: set() for broker in brokers.all}
        for id_, mine in by_enterprise.items():
            host = of_group(mine[0].enterprise.county, config.gateways).host_id()
            flow = self._flow_of[id_] = self.flows.setdefault(host, Flow(host, self.flow_moved))
            broker = brokers.of(mine[0].enterprise.county)
            self._flows_at[broker].add(flow)
            node = EdgeNode(mine[0].enterprise, mine, settings[broker], flow, self.moved.set, on_command)
            self._nodes[id_] = node
            flow.nodes.append(node)

    @property
    def all(self) -> Sequence[EdgeNode]:
        return list(self._nodes.values())

    def accounts(self) -> dict[str, NodeRecord]:
        """Progress of each node."""
        return {
            node.id: NodeRecord(
                node.acked_through_ms,
                node.backlog.made,
                node.acked,
                node.backlog.dropped,
                node.backlog.unfit,
            )
            for node in self._nodes.values()
        }

    def close(self) -> None:
        self._sessions.close()

    def announced(self, broker: BrokerAddress, ms: int) -> None:
        """Record that a broker has the announcement of this time."""
        for flow in self._flows_at[broker]:
            flow.announced(ms)
        self.flow_moved()

    def flow_moved(self) -> None:
        """Publish readings that had to wait for the host, and allow new ones."""
        self.moved.set()
        if self._reached.until_ms > wall_ms():
            for node in self._nodes.values():
                node.wake()

    async def offer(self, reading: Sample | Sending) -> None:
        """Pass a reading to its node, unless an earlier process has published it; wait while the node has
        many pending."""
        node = self._nodes[reading.unit.enterprise.id]
        if made_ms(reading) <= self._published.get(node.id, -1):
            node.backlog.skip(reading)
        else:
            node.offer(reading)
            self._flow_of[node.id].made()
        if node.pending > HIGH_WATER:
            await self._make_room(node)

    async def come_online(self) -> None:
        """Wait while edge nodes come online, at least one every ONLINE_EVERY_S. Otherwise a fleet that takes
        long to connect would send all its first readings to the host at once."""
        online = -1
        while not self._ending.is_set() and online < len(self._nodes):
            before = online
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ONLINE_EVERY_S):
                    while (online := sum(node.online for node in self._nodes.values())) <= before:
                        self.moved.clear()
                        await self.moved.wait()
            if online <= before:
                return

    async def keep_pace(self) -> None:
        """Hold simulated time while a host has the maximum number of readings in transit."""
        while any(flow.is_full for flow in self.flows.values()) and not self._ending.is_set():
            self.moved.clear()
            await self.moved.wait()

    async def _make_room(self, node: EdgeNode) -> None:
        """Hold simulated time while an online node has many pending readings. At a given speed, time does not
        wait for a disconnected node, whose buffer drops readings at its bound. At full speed it does."""
        while (
            node.pending > min(HIGH_WATER, self._capacity // 2)
            and (node.online or self._full_speed)
            and not self._ending.is_set()
        ):
            self.moved.clear()
            await self.moved.wait()

    async def drain(self, timeout_s: float) -> None:
        """Wait until everything is acknowledged, or until the timeout."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while any(node.pending for node in self._nodes.values()):
                    self.moved.clear()
                    await self.moved.wait()


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
