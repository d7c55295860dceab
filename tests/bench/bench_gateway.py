"""How fast the gateway is: (a) InfluxDB's own ceiling with prepared bodies, (b) InfluxDB fed by the gateway
from a prefilled broker queue, (c) the gateway against a sink that answers at once. Prints; asserts nothing.

    make bench-gateway [ARGS="--messages 50000"]

CPU seconds are the gateway process's own, less what a start with an empty queue costs.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from shutil import which
from typing import Any

import httpx
from bench_storage import machine
from conftest import SBIN, Influx, InfluxServer, Mosquitto, _free_port
from gateway_world import COUNTY, ENTERPRISE, MOTOR, RUN, START_MS, FakePlatform
from mqttium import MQTTProtocolVersion, QoS
from mqttium.api import AsyncClient
from qilu_contract import json_payload, sparkplug, topics
from qilu_contract.sparkplug import DataType, Metric, Payload
from qilu_contract.storage import Point, line_protocol
from rich.console import Console
from rich.table import Table

UNITS = 1000
LIST = 50
BATCH = 5000
FIELDS = [signal.name for signal in MOTOR.signals][:6]
TICKS = os.sysconf("SC_CLK_TCK")


def values(number: int) -> dict[str, float]:
    return {name: 10.0 + place + number % 97 / 10 for place, name in enumerate(FIELDS)}


def one_json(number: int) -> tuple[str, bytes]:
    step, unit = divmod(number, UNITS)
    return topics.telemetry(COUNTY, ENTERPRISE, f"m{unit}"), json_payload.encode(
        [(START_MS + step * 1000, values(number))]
    )


def fifty_json(number: int) -> tuple[str, bytes]:
    step, unit = divmod(number, UNITS)
    readings = [(START_MS + (step * LIST + k) * 1000, values(number + k)) for k in range(LIST)]
    return topics.telemetry(COUNTY, ENTERPRISE, f"m{unit}"), json_payload.encode(readings)


def one_sparkplug(number: int) -> tuple[str, bytes]:
    step, unit = divmod(number, UNITS)
    metrics = [Metric(alias=alias, value=value) for alias, value in enumerate(values(number).values())]
    payload = Payload(START_MS + (step + 1) * 1000, None, metrics)
    return topics.sparkplug("DDATA", COUNTY, ENTERPRISE, f"m{unit}"), sparkplug.encode(payload)


def births() -> list[tuple[str, bytes]]:
    metrics = [Metric(name, alias, START_MS, DataType.FLOAT, 1.0) for alias, name in enumerate(FIELDS)]
    body = sparkplug.encode(Payload(START_MS, None, metrics))
    return [(topics.sparkplug("DBIRTH", COUNTY, ENTERPRISE, f"m{unit}"), body) for unit in range(UNITS)]


class Sink:
    """An HTTP server that says 204 to whatever is posted, as fast as Python can."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.port = _free_port()
        threading.Thread(target=self._run, daemon=True).start()
        self.url = f"influxdb://127.0.0.1:{self.port}/sink"

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=2**24))
        self.loop.run_forever()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, OSError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = head.partition(b"content-length:")[2].split(b"\r\n", 1)[0]
                await reader.readexactly(int(length or b"0"))
                writer.write(b"HTTP/1.1 204 No Content\r\nX-Influxdb-Version: 2.sink\r\n\r\n")


class Gateway:
    def __init__(self, broker: str, store: str, platform: str, folder: Path) -> None:
        self.port = _free_port()
        given = {
            "BROKER": broker, "STORE": store, "PLATFORM": platform, "STATE": str(folder),
            "HOST_ID": f"bench-{secrets.token_hex(4)}", "HTTP_PORT": str(self.port), "API_KEY": "ingest-key",
        }  # fmt: skip
        self._environment = {**os.environ, **{f"QILU_{name}": value for name, value in given.items()}}
        self._log = folder.with_suffix(".log")
        self._process: subprocess.Popen[bytes]

    def start(self) -> None:
        with self._log.open("ab") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-c", RUN], env=self._environment, stdout=out, stderr=out
            )

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(30)

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def metric(self, name: str) -> float:
        with suppress(httpx.TransportError):
            text = httpx.get(f"http://127.0.0.1:{self.port}/metrics", trust_env=False).text
            return float(
                next(line for line in text.splitlines() if line.startswith(f"qilu_gateway_{name} ")).split()[
                    1
                ]
            )
        return -1.0

    def wait(self, name: str, at_least: float) -> float:
        """When the figure was reached, on the monotonic clock."""
        deadline = time.monotonic() + 60
        while self.metric(name) < at_least:
            assert time.monotonic() < deadline, self._log.read_text()[-2000:]
            time.sleep(0.05)
        return time.monotonic()


async def publish(broker: Mosquitto, messages: list[tuple[str, bytes]]) -> None:
    client = AsyncClient(f"bench-{secrets.token_hex(4)}", protocol=MQTTProtocolVersion.MQTTv5)
    await client.connect(broker.host, broker.port)
    receipts: list[Any] = []
    for topic, payload in messages:
        receipts.append(await client.publish(topic, payload, qos=QoS.AT_LEAST_ONCE))
        if len(receipts) >= 1000:
            for receipt in receipts:
                await receipt.wait()
            receipts.clear()
    for receipt in receipts:
        await receipt.wait()
    await client.disconnect()


def measure(
    broker: Mosquitto,
    store: str,
    platform: FakePlatform,
    folder: Path,
    messages: list[tuple[str, bytes]],
    readings: int,
) -> tuple[float, float]:
    """Readings a second, and CPU seconds of the gateway for a million, all waiting at the start."""
    gateway = Gateway(broker.url, store, platform.url, folder)
    gateway.start()
    gateway.wait("messages_total", 0)
    asyncio.run(publish(broker, births()))
    gateway.wait("stored_total", UNITS)
    gateway.stop()
    gateway.start()  # what a start costs
    gateway.wait("messages_total", 0)
    time.sleep(1.5)
    idle_s = gateway.cpu_s()
    gateway.stop()
    asyncio.run(publish(broker, messages))
    gateway.start()
    gateway.wait("stored_total", 1)
    began, before = time.monotonic(), gateway.metric("stored_total")
    ended = gateway.wait("stored_total", readings)
    cpu_s = gateway.cpu_s() - idle_s
    gateway.stop()
    return (readings - before) / (ended - began), cpu_s * 1_000_000 / readings


async def ceiling(influx: Influx, points: int) -> float:
    """Points a second with prepared bodies, two connections."""
    tags = [("3702", COUNTY, "C34", ENTERPRISE, f"m{unit}") for unit in range(UNITS)]
    made = [Point("motor", tags[n % UNITS], START_MS + n // UNITS * 1000, values(n)) for n in range(points)]
    bodies = [line_protocol(made[start : start + BATCH]) for start in range(0, points, BATCH)]
    async with httpx.AsyncClient(base_url=influx.http, timeout=60, trust_env=False) as http:
        await http.post("/query", data={"q": f'CREATE DATABASE "{influx.database}"'})
        began = time.monotonic()

        async def post(mine: list[bytes]) -> None:
            for body in mine:
                answer = await http.post(
                    "/write", params={"db": influx.database, "precision": "ms"}, content=body
                )
                answer.raise_for_status()

        await asyncio.gather(post(bodies[::2]), post(bodies[1::2]))
        return points / (time.monotonic() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=50_000, help="of one reading")
    parser.add_argument("--only", default="", help="ways whose name holds this")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    one, lists = given.messages, given.messages // 10
    shapes = {
        "JSON, one reading a message": ([one_json(n) for n in range(one)], one),
        "Sparkplug, one reading a message": ([one_sparkplug(n) for n in range(one)], one),
        "JSON, fifty readings a message": ([fifty_json(n) for n in range(lists)], lists * LIST),
    }
    rows: list[tuple[str, float, float | None]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        programs = which("mosquitto", path=SBIN), which("influxd", path=SBIN)
        assert all(programs), "Mosquitto and InfluxDB are needed: make servers"
        for part in ("broker", "influx"):
            (folder / part).mkdir()
        broker = Mosquitto(str(programs[0]), folder / "broker")
        server = InfluxServer(str(programs[1]), folder / "influx")
        platform = FakePlatform()
        for unit in range(UNITS):
            platform.register(f"m{unit}")
        broker.start()
        server.start()
        try:
            prepared = asyncio.run(ceiling(Influx(server), lists * LIST))
            rows.append(("(a) InfluxDB, prepared bodies", prepared, None))
            for kind, store_of in (
                ("(b) InfluxDB", lambda: Influx(server).url),
                ("(c) sink", lambda: Sink().url),
            ):
                for shape, (messages, readings) in shapes.items():
                    way = f"{kind}, {shape}"
                    if given.only not in way:
                        continue
                    sys.stderr.write(f"{way} …\n")
                    state = folder / secrets.token_hex(4)
                    rows.append((way, *measure(broker, store_of(), platform, state, messages, readings)))
        finally:
            broker.kill()
            server.kill()
            platform.stop()
    if given.json:
        print(json.dumps({"machine": machine(), "load": os.getloadavg(), "rows": rows}))  # noqa: T201
        return
    table = Table(
        "way", "points/s", "CPU s per million", "of (a)", title=f"{machine()}, load {os.getloadavg()[0]:.1f}"
    )
    for way, rate, cpu_s in rows:
        ratio = f"{rate / prepared:.0%}" if way.startswith("(b)") else ""
        table.add_row(way, f"{rate:,.0f}", "" if cpu_s is None else f"{cpu_s:.1f}", ratio)
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
