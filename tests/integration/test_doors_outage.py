"""Store and forward of `qilu edge run`: broker and edge node are killed; nothing that was read is lost."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import paho.mqtt.client as paho
import paho_clients
from gateway_world import FakePlatform, eventually, eventually_async
from qilu.verify import verify
from qilu_contract.catalogue.places import city_of
from qilu_contract.wire.sparkplug import decode
from qilu_devices.doors import journal
from qilu_devices.doors.opcua.certificates import Pki
from qilu_devices.doors.opcua.reader import URI as CLIENT_URI
from qilu_devices.doors.opcua.server import URI as SERVER_URI
from qilu_devices.doors.opcua.server import OpcuaDoor
from qilu_devices.doors.serving import serve
from qilu_devices.run.config import RunConfig
from qilu_devices.run.manifest import Manifest, load_manifest
from qilu_devices.scenario import load_scenario
from qilu_gateway.service import GatewayService
from qilu_gateway.settings import Settings
from qilu_stores import open_store

START_MS = 1_717_400_000_000
UNITS = 5


class EdgeProcess:
    def __init__(self, config: Path, broker: str, state: Path) -> None:
        self._command = ("-m", "qilu", "edge", "run", str(config), "--broker", broker, "--state", str(state))
        self._file = state / journal.FILE_NAME
        self._log = config.with_suffix(".log")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen([sys.executable, *self._command], stdout=log, stderr=log)

    def end(self, number: int) -> None:
        process, self._process = self._process, None
        if process is not None:
            assert process.poll() is None, self._log.read_text()
            os.kill(process.pid, number)
            process.wait()

    def rows(self) -> list[bytes]:
        """The readings on disk."""
        with contextlib.closing(sqlite3.connect(f"file:{self._file}?mode=ro", uri=True)) as connection:
            return [body for [body] in connection.execute("SELECT body FROM readings ORDER BY id")]

    def newest_ms(self) -> int:
        """Latest time of the readings on disk."""
        return max((msgspec.msgpack.decode(body)[1] for body in self.rows()), default=0)


@contextlib.contextmanager
def listener(broker: Any) -> Iterator[list[tuple[int, bool]]]:
    """Time of each value that units publish, and whether it is marked as historical."""
    heard: list[tuple[int, bool]] = []

    def on_message(_client: object, _data: object, message: paho.MQTTMessage) -> None:
        payload = decode(message.payload)
        heard.extend((each.ts_ms or payload.ts_ms or 0, each.is_historical) for each in payload.metrics)

    client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    client.on_message = on_message
    client.connect(broker.host, broker.port)
    client.loop_start()
    client.subscribe("spBv1.0/+/DDATA/#", 1)
    yield heard
    paho_clients.close(client)


async def trust_each_other(server: Path, client: Path) -> None:
    for folder, uri in ((server, SERVER_URI), (client, CLIENT_URI)):
        await Pki(folder).prepare(uri, socket.gethostname())
    for own, other in ((server, client), (client, server)):
        (other / "trusted" / "peer.der").write_bytes((own / "own" / "certificate.der").read_bytes())


async def test_readings_survive_a_killed_broker_and_a_killed_edge_node(
    settings: Settings,
    platform: FakePlatform,
    mosquitto: Any,
    free_port: Callable[[], int],
    tmp_path: Path,
) -> None:
    mosquitto.start()
    url = f"opc.tcp://127.0.0.1:{free_port()}"
    config = RunConfig(
        "", load_scenario(), seed=3, units=UNITS, start_ms=START_MS, speed=6.0, for_s=30.0, state=tmp_path
    )
    fleet = config.fleet()
    enterprise = fleet[0].enterprise
    units = "".join(f"  - {{unit: {unit.id}, class: {unit.class_name}}}\n" for unit in fleet)
    (tmp_path / "edge.yaml").write_text(
        f'enterprise: {enterprise.id}\ncounty: "{enterprise.county}"\nopcua: {url}\nunits:\n{units}'
    )
    for unit in fleet:
        platform.register(unit.id, unit.class_name, enterprise.id, enterprise.county)
        platform.units[unit.id] |= {"city": city_of(enterprise.county), "industry": enterprise.industry}
    edge = EdgeProcess(tmp_path / "edge.yaml", mosquitto.url, tmp_path / "edge")
    stop, listening = asyncio.Event(), asyncio.Event()
    door = OpcuaDoor(url, tmp_path / "pki")
    await trust_each_other(tmp_path / "pki", tmp_path / "edge" / "pki")
    settings = settings.model_copy(update={"host_id": "qilu"})
    async with open_store(settings.store) as store, GatewayService(settings, store=store) as gateway:
        serving = asyncio.create_task(
            serve(config, [door], stop, wait=True, linger_s=60.0, listening=listening.set)
        )
        try:
            await listening.wait()
            edge.start()
            await eventually(lambda: gateway.counters.stored >= UNITS, "the first readings")
            mosquitto.kill()
            await eventually(lambda: load_manifest(tmp_path).finished, "the run has ended")
            manifest: Manifest = load_manifest(tmp_path)
            await eventually(lambda: edge.newest_ms() == manifest.until_ms, "all read")
            waiting = len(edge.rows())
            edge.end(signal.SIGKILL)
        finally:
            stop.set()
            await serving
        assert waiting > UNITS
        assert not (await verify(manifest, store)).total.good
        mosquitto.start()
        with listener(mosquitto) as heard:
            edge.start()  # its server is gone: what was read is on disk

            async def complete() -> bool:
                return (await verify(manifest, store)).total.good

            await eventually_async(complete, "every reading stored")
            await eventually(lambda: not edge.rows(), "nothing waits")
            edge.end(signal.SIGTERM)
    assert len({ts_ms for ts_ms, _ in heard}) > 1
    assert all(historical for _, historical in heard)
    assert f"0 readings, {waiting} from the last run" in (tmp_path / "edge.log").read_text()
