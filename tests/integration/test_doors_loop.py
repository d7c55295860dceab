"""The whole loop: a fleet behind an OPC UA or Modbus server, `qilu edge run` as its client, Mosquitto,
gateway and store. The store must hold exactly the simulated readings."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
from gateway_world import FakePlatform, eventually, online
from qilu.verify import verify
from qilu_contract.catalogue.places import city_of
from qilu_contract.wire import topics
from qilu_contract.wire.commands import Answer, Command, command_payload, parse_answer
from qilu_contract.wire.sparkplug import decode, encode
from qilu_devices.doors.edge_config import load_edge_config
from qilu_devices.doors.modbus.server import ModbusDoor
from qilu_devices.doors.opcua.server import OpcuaDoor
from qilu_devices.doors.registers import Format
from qilu_devices.doors.serving import Door, serve
from qilu_devices.doors.southbound import run_edge
from qilu_devices.run.config import RunConfig
from qilu_devices.run.manifest import load_manifest
from qilu_devices.scenario import load_scenario
from qilu_gateway.settings import Settings
from qilu_stores import open_store

START_MS = 1_717_400_000_000  # a Monday in June, 15:33 in Shandong: everybody is at work
SCENARIO = load_scenario()
UNITS = 10


def opcua(port: int, folder: Path) -> tuple[Door, str]:
    url = f"opc.tcp://127.0.0.1:{port}"
    return OpcuaDoor(url, folder / "serve" / "pki", insecure=True), f"opcua: {url}\ninsecure: true"


def modbus(port: int, folder: Path) -> tuple[Door, str]:
    address = f"127.0.0.1:{port}"
    return ModbusDoor(address, Format("CDAB", "scaled")), f"modbus: {address}\nevery: 50ms"


async def answer_to(broker: Any, place: tuple[str, str, str], command: Command) -> Answer:
    """Send a command to a unit; returns its answer."""
    group, node, unit = place
    async with aiomqtt.Client(broker.host, broker.port) as client:
        await client.subscribe(topics.sparkplug("NDATA", group, node))
        payload = encode(command_payload(command, "c1", START_MS))
        await client.publish(topics.sparkplug("DCMD", group, node, unit), payload, 1)
        async for message in client.messages:
            answer = parse_answer(decode(bytes(message.payload)))
            if answer is not None:
                return answer
    raise AssertionError("the connection ended")


@pytest.mark.parametrize("door", [opcua, modbus], ids=["opcua", "modbus"])
async def test_what_an_edge_node_reads_is_stored_without_loss_and_its_commands_arrive(
    door: Callable[[int, Path], tuple[Door, str]],
    settings: Settings,
    platform: FakePlatform,
    mosquitto: Any,
    free_port: Callable[[], int],
    tmp_path: Path,
) -> None:
    mosquitto.start()
    settings = settings.model_copy(update={"host_id": "qilu"})  # which edge nodes listen to
    config = RunConfig(
        "", SCENARIO, seed=3, units=UNITS, start_ms=START_MS, speed=2.0, for_s=20.0, state=tmp_path / "serve"
    )
    fleet = config.fleet()
    enterprise = fleet[0].enterprise
    server, line = door(free_port(), tmp_path)
    modbus_format = "" if line.startswith("opcua") else ', format: "CDAB,scaled"'
    units = "".join(f"  - {{unit: {unit.id}, class: {unit.class_name}{modbus_format}}}\n" for unit in fleet)
    (tmp_path / "edge.yaml").write_text(
        f'enterprise: {enterprise.id}\ncounty: "{enterprise.county}"\n{line}\nunits:\n{units}'
    )
    for unit in fleet:
        platform.units[unit.id] = {
            "class": unit.class_name,
            "enterprise": enterprise.id,
            "county": enterprise.county,
            "city": city_of(enterprise.county),
            "industry": enterprise.industry,
            "on_cloud": False,
        }
    stop_server, stop_edge, listening = asyncio.Event(), asyncio.Event(), asyncio.Event()
    async with online(settings) as gateway:
        serving = asyncio.create_task(
            serve(config, [server], stop_server, wait=True, linger_s=60.0, listening=listening.set)
        )
        await listening.wait()
        edge = asyncio.create_task(
            run_edge(load_edge_config(tmp_path / "edge.yaml"), settings.broker, tmp_path / "edge", stop_edge)
        )
        try:
            await eventually(lambda: gateway.counters.stored >= UNITS, "the first readings")
            motor = next(unit for unit in fleet if unit.class_name == "motor")
            group, node = enterprise.county, enterprise.id
            answer = await answer_to(mosquitto, (group, node, motor.id), Command("stop"))
            assert (answer.id, answer.accepted, answer.reason) == ("c1", True, "")
            end_ms = START_MS + 20_000
            await eventually(lambda: load_manifest(tmp_path / "serve").finished, "the run has ended")
            made = sum(node.readings_made for node in load_manifest(tmp_path / "serve").nodes.values())
            await eventually(lambda: gateway.counters.stored >= made, "all of it")
        finally:
            stop_edge.set()
            report = await edge
            stop_server.set()
            await serving
    assert (report.readings, report.acked, report.pending, report.dropped) == (made, made, 0, 0)
    manifest = load_manifest(tmp_path / "serve")
    assert [given.kind for given in manifest.commands] == ["stop"]
    async with open_store(settings.store) as store:
        verdict = await verify(manifest, store)
    assert verdict.total.expected == made > UNITS
    assert verdict.total.good, verdict.total
    assert manifest.until_ms <= end_ms
