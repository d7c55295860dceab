"""The OPC UA door, read by the library's own client: values, methods, alarms and security."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import socket
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from asyncua import Client, ua
from asyncua.crypto import security_policies
from asyncua.crypto.cert_gen import setup_self_signed_certificate
from cryptography.x509.oid import ExtendedKeyUsageOID
from gateway_world import eventually
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.errors import ConfigError
from qilu_devices.commands import ScheduledCommand
from qilu_devices.doors.opcua.address_space import DI, MACHINERY, NAMESPACE
from qilu_devices.doors.opcua.server import OpcuaDoor
from qilu_devices.doors.serving import ServeReport, serve
from qilu_devices.run.config import RunConfig
from qilu_devices.run.manifest import load_manifest
from qilu_devices.scenario import load_scenario
from qilu_devices.simulation import fleet_of, samples

SCENARIO = load_scenario()
SOAK = os.environ.get("QILU_SOAK") == "1"
START_MS = 1_717_400_000_000  # a Monday in June, 15:33 in Shandong: everybody is at work
CLIENT_URI = "urn:clouds-in-qilu:test-client"


@dataclass
class Served:
    url: str
    pki: Path
    running: asyncio.Task[ServeReport]
    stop: asyncio.Event


@asynccontextmanager
async def served(
    port: int, folder: Path, config: RunConfig, *, insecure: bool = True, wait: bool = True
) -> AsyncIterator[Served]:
    url = f"opc.tcp://127.0.0.1:{port}"
    door = OpcuaDoor(url, folder / "pki", insecure)
    stop, listening = asyncio.Event(), asyncio.Event()
    running = asyncio.create_task(
        serve(config, [door], stop, wait=wait, linger_s=60.0, listening=listening.set)
    )
    try:
        # Starting takes seconds of processor time, so it has no deadline of its own here.
        ready = asyncio.create_task(listening.wait())
        await asyncio.wait([ready, running], return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if running.done():
            running.result()
        yield Served(url, folder / "pki", running, stop)
    finally:
        stop.set()
        await running


class Changes:
    """Handler of a subscription: values by node and source time, and events."""

    def __init__(self) -> None:
        self.values: dict[str, dict[int, Any]] = defaultdict(dict)
        self.events: list[Any] = []

    def datachange_notification(self, node: Any, value: Any, data: Any) -> None:
        found = data.monitored_item.Value
        if found.StatusCode.is_good():
            ts_ms = round(found.SourceTimestamp.timestamp() * 1000)
            self.values[node.nodeid.Identifier][ts_ms] = value

    def event_notification(self, event: Any) -> None:
        self.events.append(event)


async def subscribe(client: Client, config: RunConfig, changes: Changes) -> None:
    """Every signal of every unit, by value and time."""
    namespace = await client.get_namespace_index(NAMESPACE)
    nodes = [
        client.get_node(ua.NodeId(f"{unit.id}.{signal.name}", namespace))
        for unit in config.fleet()
        for signal in CATALOGUE[unit.class_name].signals
    ]
    subscription = await client.create_subscription(50, changes)
    by_time = ua.DataChangeFilter(ua.DataChangeTrigger.StatusValueTimestamp, 0, 0.0)
    items = [
        ua.MonitoredItemCreateRequest(
            ua.ReadValueId(node.nodeid, ua.AttributeIds.Value),
            ua.MonitoringMode.Reporting,
            ua.MonitoringParameters(place, 0.0, by_time, 10_000, True),
        )
        for place, node in enumerate(nodes)
    ]
    created = await subscription.create_monitored_items(items)
    assert all(isinstance(each, int) for each in created)


async def test_every_value_is_the_simulations_sample_and_a_method_stops_a_motor(
    free_port: Callable[[], int], tmp_path: Path
) -> None:
    for_s, speed = (60.0, 1.0) if SOAK else (60.0, 12.0)
    config = RunConfig(
        "", SCENARIO, seed=3, units=10, start_ms=START_MS, speed=speed, for_s=for_s, state=tmp_path / "run"
    )
    motor = next(unit for unit in config.fleet() if unit.class_name == "motor")
    changes = Changes()
    async with (
        served(free_port(), tmp_path, config) as server,
        Client(server.url) as client,
    ):
        namespace = await client.get_namespace_index(NAMESPACE)
        di = await client.get_namespace_index(DI)
        machinery = await client.get_namespace_index(MACHINERY)

        # The unit is found by the standard names.
        unit = await client.nodes.objects.get_child([f"{machinery}:Machines", f"{namespace}:{motor.id}"])
        plate = await unit.get_child(f"{di}:Identification")
        assert await plate.read_type_definition() == ua.NodeId(1012, machinery)  # MachineIdentificationType
        [component] = await client.get_node(await unit.read_type_definition()).get_referenced_nodes(
            ua.ObjectIds.HasSubtype, ua.BrowseDirection.Inverse
        )
        assert component.nodeid == ua.NodeId(15063, di)  # ComponentType
        assert await (await plate.get_child(f"{di}:SerialNumber")).read_value() == motor.id
        assert (await (await plate.get_child(f"{di}:Model")).read_value()).Text == CATALOGUE["motor"].title
        power = await unit.get_child([f"{di}:ParameterSet", f"{namespace}:power_in"])
        unit_of_power = await (await power.get_child("0:EngineeringUnits")).read_value()
        assert unit_of_power.DisplayName.Text == CATALOGUE["motor"].signal("power_in").unit

        methods = await unit.get_child(f"{di}:MethodSet")
        accepted, reason, _ = await methods.call_method(f"{namespace}:Stop")
        assert (accepted, reason) == (False, "The run has not begun yet.")

        await subscribe(client, config, changes)
        await eventually(lambda: len(changes.values) >= 100, "the first sample")
        accepted, reason, holds_from = await methods.call_method(f"{namespace}:Stop")
        assert (accepted, reason) == (True, "")
        refused = await methods.call_method(f"{namespace}:SetPoint", "load", 500.0)
        assert (refused[0], "takes 15 to 108 %, not 500" in refused[1]) == (False, True)
        commands = load_manifest(tmp_path / "run").commands
        expected = samples(SCENARIO, 3, START_MS, 10, None, START_MS + round(for_s * 1000), commands)
        wanted = {
            (f"{unit}.{name}", ts_ms): value
            for unit, readings in expected.items()
            for ts_ms, values in readings
            for name, value in values.items()
        }
        await eventually(
            lambda: sum(map(len, changes.values.values())) >= len(wanted), "every value has arrived"
        )
    found = {(id_, ts_ms): value for id_, by in changes.values.items() for ts_ms, value in by.items()}
    assert found == wanted
    stopped = [
        value
        for ts_ms, value in changes.values[f"{motor.id}.power_in"].items()
        if ts_ms >= round(holds_from.timestamp() * 1000)
    ]
    assert stopped
    assert set(stopped) == {0.0}


async def test_an_alarm_is_raised_acknowledged_and_cleared(
    free_port: Callable[[], int], tmp_path: Path
) -> None:
    pumps = replace(SCENARIO, classes={"pump": 1.0})
    pump = fleet_of(pumps, 3, 1)[0]
    fault = ScheduledCommand(pump.id, START_MS + 5_000, "fault", "cavitation", 1.0, 60_000, 0)
    config = RunConfig(
        "", pumps, seed=3, units=1, start_ms=START_MS, speed=15.0, for_s=600.0, commands=(fault,)
    )
    changes = Changes()
    async with served(free_port(), tmp_path, config) as server, Client(server.url) as client:
        events = await client.create_subscription(50, changes)
        await events.subscribe_alarms_and_conditions(evtypes=ua.NodeId(ua.ObjectIds.ExclusiveLevelAlarmType))
        await subscribe(client, config, changes)
        await eventually(lambda: changes.events, "an alarm")
        raised = changes.events[0]
        assert (raised.SourceName, raised.ConditionName) == (pump.id, "Casing vibration")
        assert (getattr(raised, "ActiveState/Id"), getattr(raised, "AckedState/Id")) == (True, False)
        assert raised.Retain

        condition = client.get_node(raised.NodeId)
        acknowledge = ua.NodeId(ua.ObjectIds.AcknowledgeableConditionType_Acknowledge)
        comment = ua.LocalizedText("seen")
        with pytest.raises(ua.uaerrors.BadEventIdUnknown):
            await condition.call_method(acknowledge, b"another", comment)
        await condition.call_method(acknowledge, raised.EventId, comment)
        await eventually(lambda: len(changes.events) > 1, "the acknowledgement")
        seen = changes.events[1]
        assert (getattr(seen, "ActiveState/Id"), getattr(seen, "AckedState/Id")) == (True, True)
        assert seen.Comment == comment
        with pytest.raises(ua.uaerrors.BadConditionBranchAlreadyAcked):
            await condition.call_method(acknowledge, seen.EventId, comment)

        await eventually(lambda: len(changes.events) > 2, "the end of the alarm")
        cleared = changes.events[2]
        assert (getattr(cleared, "ActiveState/Id"), cleared.Retain) == (False, False)
        assert raised.Time < cleared.Time


async def test_only_trusted_clients_with_a_safe_policy_are_admitted(
    free_port: Callable[[], int], tmp_path: Path
) -> None:
    logging.getLogger("asyncua").setLevel(logging.CRITICAL)
    key, certificate = tmp_path / "client-key.pem", tmp_path / "client.der"
    await setup_self_signed_certificate(
        key, certificate, CLIENT_URI, socket.gethostname(), [ExtendedKeyUsageOID.CLIENT_AUTH], {}
    )
    config = RunConfig("", SCENARIO, seed=3, units=2, start_ms=START_MS)
    async with served(free_port(), tmp_path, config, insecure=False, wait=False) as server:

        async def read(policy: type[Any] | None) -> str:
            client = Client(server.url)
            client.application_uri = CLIENT_URI
            if policy is not None:
                await client.set_security(
                    policy,
                    certificate,
                    key,
                    server_certificate=server.pki / "own" / "certificate.der",
                    mode=ua.MessageSecurityMode.SignAndEncrypt,
                )
            async with client:
                return str(await client.nodes.server.read_browse_name())

        for unsafe in (
            None,
            security_policies.SecurityPolicyBasic128Rsa15,
            security_policies.SecurityPolicyBasic256,
        ):
            with pytest.raises((ua.UaError, ConnectionError, TimeoutError)):
                await read(unsafe)
        safe = security_policies.SecurityPolicyBasic256Sha256
        with pytest.raises(ua.uaerrors.BadCertificateUntrusted):
            await read(safe)
        (rejected,) = (server.pki / "rejected").iterdir()
        assert rejected.read_bytes() == certificate.read_bytes()

        shutil.move(rejected, server.pki / "trusted")
        assert "Server" in await read(safe)


def test_insecure_is_for_loopback_only(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="loopback address only"):
        OpcuaDoor("opc.tcp://0.0.0.0:4840", tmp_path, insecure=True)
    for url in ("http://127.0.0.1:4840", "opc.tcp://", "opc.tcp://host:port"):
        with pytest.raises(ConfigError, match="is no address"):
            OpcuaDoor(url, tmp_path)
