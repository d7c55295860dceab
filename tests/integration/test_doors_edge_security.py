"""Certificates of `qilu edge run` as an OPC UA client: nobody is trusted before he is admitted, nothing is
unencrypted unless the configuration says so; and a server that shares no code with our client.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from asyncua import Server, ua
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from gateway_world import eventually
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_devices.doors.collector import Collector
from qilu_devices.doors.edge_config import load_edge_config
from qilu_devices.doors.opcua.certificates import Pki
from qilu_devices.doors.opcua.reader import URI, reader
from qilu_devices.doors.opcua.server import OpcuaDoor
from qilu_devices.doors.southbound import ReadError
from qilu_devices.fleet import Enterprise, Unit
from qilu_devices.simulation import Sample

ENTERPRISE = Enterprise("my-works", 0, "my-works", "370202", "")
MOTOR = Unit("m1", "motor", ENTERPRISE)
SIGNALS = [signal.name for signal in CATALOGUE["motor"].signals]
SCRIPT = Path(__file__).parents[1] / "node_opcua_server.js"


def config_of(folder: Path, url: str, nodes: dict[str, str] | None = None) -> Path:
    lines = [f"enterprise: {ENTERPRISE.id}", 'county: "370202"', f"opcua: {url}", "units:"]
    lines += [f"  - unit: {MOTOR.id}", "    class: motor"]
    if nodes is not None:
        lines += ["    signals:", *(f"      {name}: '{node}'" for name, node in nodes.items())]
    file = folder / "edge.yaml"
    file.write_text("\n".join(lines) + "\n")
    return file


async def test_server_and_client_must_trust_each_other(free_port: Callable[[], int], tmp_path: Path) -> None:
    url = f"opc.tcp://127.0.0.1:{free_port()}"
    client = reader(load_edge_config(config_of(tmp_path, url)), tmp_path / "edge")
    found: list[Sample] = []
    collector = Collector([MOTOR], found.append)
    async with OpcuaDoor(url, tmp_path / "serve").opened([MOTOR], lambda *_: pytest.fail("no command")):
        for here, there in (("serve", "edge/pki"), ("edge/pki", "serve")):
            with pytest.raises(ReadError):  # first the client's certificate is unknown, then the server's
                await client.run(collector)
            (rejected,) = (tmp_path / here / "rejected").iterdir()
            own = tmp_path / there / "own" / "certificate.der"
            assert rejected.read_bytes() == own.read_bytes()
            shutil.move(rejected, tmp_path / here / "trusted")
        reading = asyncio.create_task(client.run(collector))
        await eventually(lambda: client._client is not None or reading.done(), "connected")
        assert not reading.done()
        reading.cancel()
        await asyncio.wait([reading])


async def test_a_server_without_encryption_is_refused_by_default(
    free_port: Callable[[], int], tmp_path: Path
) -> None:
    url = f"opc.tcp://127.0.0.1:{free_port()}"
    server = Server()
    await server.init()
    server.set_endpoint(url)
    server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
    client = reader(load_edge_config(config_of(tmp_path, url)), tmp_path / "edge")
    async with server:
        with pytest.raises(ReadError):
            await client.run(Collector([MOTOR], pytest.fail))


async def test_a_server_of_other_makers_is_read_with_signature_and_encryption(
    free_port: Callable[[], int], tmp_path: Path
) -> None:
    modules = os.environ.get("QILU_NODE_OPCUA")
    if modules is None:
        pytest.skip("QILU_NODE_OPCUA names no folder in which `npm install node-opcua-server` was run")
    port = free_port()
    pki = Pki(tmp_path / "edge" / "pki", "servers")
    await pki.prepare(URI, socket.gethostname())
    nodes = {name: f"ns=1;s=Press.{name}" for name in SIGNALS}
    config = load_edge_config(config_of(tmp_path, f"opc.tcp://127.0.0.1:{port}", nodes))
    environment = os.environ | {"NODE_PATH": f"{modules}/node_modules", "HOME": str(tmp_path)}
    command = ["node", SCRIPT, str(port), tmp_path / "node", pki.certificate, *SIGNALS]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as server:  # noqa: ASYNC220
        try:
            assert server.stdout is not None
            line = b""
            while b"listening" not in line:
                line = await asyncio.to_thread(server.stdout.readline)
                assert line, "the server ended"
            [theirs, *_] = x509.load_pem_x509_certificates(
                (tmp_path / "node" / "server-certificate.pem").read_bytes()
            )
            client = reader(config, tmp_path / "edge")
            found: list[Sample] = []
            collector = Collector([MOTOR], found.append)
            with pytest.raises(ReadError):
                await client.run(collector)
            (rejected,) = (tmp_path / "edge" / "pki" / "rejected").iterdir()
            assert rejected.read_bytes() == theirs.public_bytes(Encoding.DER)
            trusted = tmp_path / "edge" / "pki" / "trusted" / "node.der"
            trusted.write_bytes(theirs.public_bytes(Encoding.DER))
            reading = asyncio.create_task(client.run(collector))

            def arrived() -> bool:
                collector.flush(float("inf"))
                return len(found) > 20 or reading.done()

            await eventually(arrived, "readings")
            assert not reading.done(), reading.exception()
            reading.cancel()
            await asyncio.wait([reading])
        finally:
            server.kill()
    assert {name for each in found for name in each.shape.names} == set(SIGNALS)
