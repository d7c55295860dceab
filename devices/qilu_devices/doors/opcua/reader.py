"""OPC UA client of an edge node: subscribes to the signals of all units, by value and time."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from asyncua import Client, ua
from asyncua.common.node import Node
from asyncua.common.subscription import Subscription
from asyncua.crypto.security_policies import SecurityPolicyBasic256Sha256
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.errors import ConfigError
from qilu_contract.wire.commands import Command, Refused

from qilu_devices.doors.collector import Collector
from qilu_devices.doors.edge_config import EdgeConfig, Source
from qilu_devices.doors.opcua.address_space import NAMESPACE
from qilu_devices.doors.opcua.certificates import Pki
from qilu_devices.doors.southbound import ReadError

URI = "urn:clouds-in-qilu:edge"
PUBLISHING_MS = 100
QUEUE = 1_000
"""Values of a signal that the server keeps between two notifications."""
ITEMS_AT_ONCE = 1_000
CHECK_EVERY_S = 5.0


def reader(config: EdgeConfig, state: Path) -> OpcuaReader:
    """The reader of a configuration. Raises ConfigError when the address is not one of OPC UA."""
    if not config.url.startswith("opc.tcp://"):
        raise ConfigError(f"opcua: {config.url!r} is no address: write opc.tcp://127.0.0.1:4840.")
    return OpcuaReader(config, Pki(state / "pki", "servers"))


class _Receiver:
    """Handler of a subscription. The library calls it for all values of a notification in one turn of the
    event loop, so that a reading is not divided."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        self.places: dict[ua.NodeId, tuple[str, int]] = {}
        """Unit and position of each signal, by node."""
        self.closed = asyncio.Event()

    def datachange_notification(self, node: Node, value: Any, data: Any) -> None:
        found = data.monitored_item.Value
        at = found.SourceTimestamp or found.ServerTimestamp
        if value is not None and at is not None and found.StatusCode.is_good():
            unit, position = self.places[node.nodeid]
            now_s = asyncio.get_running_loop().time()
            self._collector.take(unit, position, round(at.timestamp() * 1000), float(value), now_s)

    def status_change_notification(self, _status: Any) -> None:
        self.closed.set()


class OpcuaReader:
    """Reads one server; commands use its connection."""

    def __init__(self, config: EdgeConfig, pki: Pki) -> None:
        self._config, self._pki = config, pki
        self._client: Client | None = None
        self._namespace = 0
        logging.getLogger("asyncua").setLevel(logging.CRITICAL)  # errors are raised as well

    async def run(self, collector: Collector) -> None:
        try:
            async with self._connected() as client:
                receiver = _Receiver(collector)
                subscription = await client.create_subscription(PUBLISHING_MS, receiver)
                await self._subscribe(subscription, receiver)
                while not receiver.closed.is_set():
                    await client.check_connection()
                    with suppress(TimeoutError):
                        async with asyncio.timeout(CHECK_EVERY_S):
                            await receiver.closed.wait()
                raise ReadError("the server has closed the subscription")
        except (ua.UaError, OSError, TimeoutError) as error:
            raise ReadError(f"{str(error) or type(error).__name__}") from error
        except AssertionError as error:  # of the library, when a server closes the secure channel
            raise ReadError(
                f"the server closed the connection: it may not trust {self._pki.certificate}"
            ) from error

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Client]:
        client = Client(self._config.url)
        client.application_uri = URI
        if not self._config.insecure:
            await self._pki.prepare(URI, socket.gethostname())
            client.certificate_validator = self._pki.validate
            await client.set_security(SecurityPolicyBasic256Sha256, self._pki.certificate, self._pki.key)
        async with client:
            if any(not source.nodes for source in self._config.sources):
                self._namespace = await self._own_namespace(client)
            self._client = client
            try:
                yield client
            finally:
                self._client = None

    async def _own_namespace(self, client: Client) -> int:
        try:
            return int(await client.get_namespace_index(NAMESPACE))
        except ValueError as error:
            raise ConfigError(
                f"{self._config.url} is no server of `qilu devices serve`: give the node id of each signal "
                "under 'signals'."
            ) from error

    async def _subscribe(self, subscription: Subscription, receiver: _Receiver) -> None:
        places = receiver.places
        for source in self._config.sources:
            for position, signal in enumerate(CATALOGUE[source.unit.class_name].signals):
                places[self._node(source, signal.name)] = (source.unit.id, position)
        by_time = ua.DataChangeFilter(ua.DataChangeTrigger.StatusValueTimestamp, 0, 0.0)
        items = [
            ua.MonitoredItemCreateRequest(
                ua.ReadValueId(node, ua.AttributeIds.Value),
                ua.MonitoringMode.Reporting,
                ua.MonitoringParameters(handle, 0.0, by_time, QUEUE, True),
            )
            for handle, node in enumerate(places, 1)
        ]
        for begin in range(0, len(items), ITEMS_AT_ONCE):
            part = items[begin : begin + ITEMS_AT_ONCE]
            for item, result in zip(part, await subscription.create_monitored_items(part), strict=True):
                if isinstance(result, ua.StatusCode):
                    node = item.ItemToMonitor.NodeId.to_string()
                    raise ReadError(f"the server refuses node {node}: {result.name}")

    def _node(self, source: Source, signal: str) -> ua.NodeId:
        if not source.nodes:
            return ua.NodeId(f"{source.unit.id}.{signal}", self._namespace)
        try:
            return ua.NodeId.from_string(source.nodes[signal])
        except ua.UaError as error:
            raise ConfigError(
                f"signal {signal} of {source.unit.id}: {source.nodes[signal]!r} is no node id: write "
                "'ns=2;s=Press.Power' or 'ns=2;i=17'."
            ) from error

    async def command(self, source: Source, command: Command) -> None:
        client = self._client
        if client is None:
            raise Refused("The server is unavailable.")
        if source.nodes or command.kind not in ("start", "stop", "reset", "set_point"):
            raise Refused(f"The edge node has no method for {command}.")
        methods = client.get_node(ua.NodeId(f"{source.unit.id}.MethodSet", self._namespace))
        name = "SetPoint" if command.kind == "set_point" else command.kind.capitalize()
        arguments = (command.name, float(command.value)) if command.kind == "set_point" else ()
        try:
            answer = await methods.call_method(f"{self._namespace}:{name}", *arguments)
        except (ua.UaError, OSError, TimeoutError) as error:
            raise Refused(f"The server refuses {command}: {error}.") from error
        if not answer[0]:
            raise Refused(str(answer[1]))
