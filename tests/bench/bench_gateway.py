"""How fast the gateway is, in one run on one machine: (a) InfluxDB's own ceiling, pinned to one core,
prepared bodies posted from the other; (b) the same InfluxDB fed by the gateway on the other core from a
prefilled broker queue; (c) the gateway alone against a sink that answers at once. Prints; asserts nothing.

    make bench-gateway [ARGS="--messages 20000 --series 10000"]

CPU seconds are the gateway process's own, less what a start with an empty queue costs. The broker runs on the
gateway's core.
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
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from shutil import which

import httpx
from bench_storage import machine
from conftest import SBIN, Influx, InfluxServer, Mosquitto, Server, _free_port
from gateway_world import COUNTY, ENTERPRISE, MOTOR, RUN, START_MS, FakePlatform
from qilu_contract import json_payload, mqtt, sparkplug, topics
from qilu_contract.mqtt import Login
from qilu_contract.sparkplug import DataType, Metric, Payload
from qilu_contract.storage import Point, line_protocol
from rich.console import Console
from rich.table import Table

LIST = 50
BATCH = 5000
FIELDS = [signal.name for signal in MOTOR.signals][:6]
TICKS = os.sysconf("SC_CLK_TCK")
STORE_CORE, GATEWAY_CORE = (0, 1) if (os.cpu_count() or 1) > 1 else (0, 0)
PATIENCE_S = 120.0
BIRTH_MS = START_MS - 1000

Messages = list[tuple[str, bytes]]


def values(number: int) -> dict[str, float]:
    return {name: 10.0 + place + number % 97 / 10 for place, name in enumerate(FIELDS)}


class World:
    """Units, and what they say: message n of `series` units, with one reading or fifty."""

    def __init__(self, series: int) -> None:
        self.series = series
        self.units = [f"m{number}" for number in range(series)]

    def _unit_and_time(self, number: int, readings: int) -> tuple[str, int]:
        step, place = divmod(number, self.series)
        # Neighbours in the queue are no neighbours in the store.
        return self.units[place * 7919 % self.series], START_MS + step * readings * 1000

    def json(self, number: int, readings: int) -> tuple[str, bytes]:
        unit, ts_ms = self._unit_and_time(number, readings)
        content = [(ts_ms + k * 1000, values(number + k)) for k in range(readings)]
        return topics.telemetry(COUNTY, ENTERPRISE, unit), json_payload.encode(content)

    def sparkplug(self, number: int, readings: int) -> tuple[str, bytes]:
        unit, ts_ms = self._unit_and_time(number, readings)
        metrics = [
            Metric(alias=alias, value=value, ts_ms=ts_ms + k * 1000 if readings > 1 else None)
            for k in range(readings)
            for alias, value in enumerate(values(number + k).values())
        ]
        body = sparkplug.encode(Payload(ts_ms, None, metrics))
        return topics.sparkplug("DDATA", COUNTY, ENTERPRISE, unit), body

    def births(self) -> Messages:
        metrics = [Metric(name, alias, BIRTH_MS, DataType.FLOAT, 1.0) for alias, name in enumerate(FIELDS)]
        body = sparkplug.encode(Payload(BIRTH_MS, None, metrics))
        return [(topics.sparkplug("DBIRTH", COUNTY, ENTERPRISE, unit), body) for unit in self.units]

    def bodies(self, points: int) -> list[bytes]:
        """Line protocol: of each unit a point at its birth, as its gateway would have written it, then the
        readings of the messages of fifty."""
        tags = {unit: (COUNTY[:4], COUNTY, "C34", ENTERPRISE, unit) for unit in self.units}
        made = [Point("motor", tags[unit], BIRTH_MS, values(0)) for unit in self.units]
        for number in range(points // LIST):
            unit, ts_ms = self._unit_and_time(number, LIST)
            made += [Point("motor", tags[unit], ts_ms + k * 1000, values(number + k)) for k in range(LIST)]
        return [line_protocol(made[start : start + BATCH]) for start in range(0, len(made), BATCH)]


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
    """One gateway in a process of its own: the same session and state at each start."""

    def __init__(self, broker: str, platform: str, folder: Path) -> None:
        self.port = _free_port()
        given = {
            "BROKER": broker, "PLATFORM": platform, "STATE": str(folder), "API_KEY": "ingest-key",
            "HOST_ID": f"bench-{secrets.token_hex(4)}", "HTTP_PORT": str(self.port),
        }  # fmt: skip
        self._environment = {**os.environ, **{f"QILU_{name}": value for name, value in given.items()}}
        self._log = folder.with_suffix(".log")
        self._process: subprocess.Popen[bytes]

    def start(self, store: str) -> None:
        with self._log.open("ab") as out:
            environment = {**self._environment, "QILU_STORE": store}
            self._process = subprocess.Popen(
                [sys.executable, "-c", RUN], env=environment, stdout=out, stderr=out
            )
        os.sched_setaffinity(self._process.pid, {GATEWAY_CORE})

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(30)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def metric(self, name: str) -> float:
        with suppress(httpx.TransportError):
            text = httpx.get(f"http://127.0.0.1:{self.port}/metrics", trust_env=False, timeout=20).text
            lines = (line.split() for line in text.splitlines())
            return next(float(line[1]) for line in lines if line[0] == f"qilu_gateway_{name}")
        return -1.0

    def wait(self, name: str, at_least: float, every_s: float = 0.2) -> float:
        """When the figure was reached, on the monotonic clock."""
        deadline = time.monotonic() + PATIENCE_S
        while self.metric(name) < at_least:
            assert self._process.poll() is None, self._log.read_text()[-2000:]
            assert time.monotonic() < deadline, self._log.read_text()[-2000:]
            time.sleep(every_s)
        return time.monotonic()

    def wait_healthy(self) -> float:
        """When it took messages, on the monotonic clock: its session is there, and all else."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            with suppress(httpx.TransportError):
                if httpx.get(f"http://127.0.0.1:{self.port}/healthz", trust_env=False).is_success:
                    return time.monotonic()
            assert time.monotonic() < deadline, self._log.read_text()[-2000:]
            time.sleep(0.02)

    def idle_s(self, store: str) -> float:
        """What a start costs."""
        self.start(store)
        self.wait("messages_total", 0)
        time.sleep(2.0)
        cpu_s = self.cpu_s()
        self.stop()
        return cpu_s


async def publish(broker: Mosquitto, messages: Messages) -> None:
    moved = asyncio.Event()
    connection = await mqtt.connect(
        broker.host,
        broker.port,
        Login(f"bench-{secrets.token_hex(4)}"),
        acked=lambda _: moved.set(),
        moved=moved.set,
    )
    for topic, payload in messages:
        while connection.in_flight >= 1000 or not connection.room:
            moved.clear()
            connection.flush()
            await moved.wait()
        connection.send(topic, payload, topic)
    connection.flush()
    while connection.in_flight:
        moved.clear()
        await moved.wait()
    await connection.disconnect()


def measure(
    gateway: Gateway, broker: Mosquitto, store: str, messages: Messages, readings: int, idle_s: float
) -> tuple[float, float]:
    """Readings a second, and CPU seconds of the gateway for a million; all waits when the gateway starts."""
    asyncio.run(publish(broker, messages))
    gateway.start(store)
    gateway.wait("stored_total", 1, 0.02)
    began, before = time.monotonic(), gateway.metric("stored_total")
    ended = gateway.wait("stored_total", readings)
    cpu_s = gateway.cpu_s() - idle_s
    gateway.stop()
    return (readings - before) / (ended - began), cpu_s * 1_000_000 / readings


async def post(influx: Influx, bodies: list[bytes]) -> float:
    """Seconds for prepared bodies, on two connections."""
    async with httpx.AsyncClient(base_url=influx.http, timeout=60, trust_env=False) as http:
        await http.post("/query", data={"q": f'CREATE DATABASE "{influx.database}"'})
        began = time.monotonic()

        async def mine(some: list[bytes]) -> None:
            for body in some:
                answer = await http.post(
                    "/write", params={"db": influx.database, "precision": "ms"}, content=body
                )
                answer.raise_for_status()

        await asyncio.gather(mine(bodies[::2]), mine(bodies[1::2]))
        return time.monotonic() - began


def pin(server: Server, core: int) -> None:
    for thread in Path(f"/proc/{server.pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), {core})


Row = tuple[str, int, float, float | None, float | None]
"""Way, series, points a second, CPU seconds for a million, ratio to (a)."""


def run(
    series: int, count: int, only: str, broker: Mosquitto, server: InfluxServer, folder: Path
) -> list[Row]:
    world = World(series)
    platform = FakePlatform()
    for unit in world.units:
        platform.register(unit)
    lists = count // 10
    shapes: dict[str, tuple[Callable[[int, int], tuple[str, bytes]], int, int]] = {
        "JSON, one reading a message": (world.json, count, 1),
        "Sparkplug, one reading a message": (world.sparkplug, count, 1),
        "JSON, fifty readings a message": (world.json, lists, LIST),
        "Sparkplug, fifty readings a message": (world.sparkplug, lists, LIST),
    }
    births = -(-series // BATCH)
    os.sched_setaffinity(0, {GATEWAY_CORE})
    influx = Influx(server)
    bodies = world.bodies(lists * LIST)
    asyncio.run(post(influx, bodies[:births]))
    ceiling = lists * LIST / asyncio.run(post(influx, bodies[births:]))
    rows: list[Row] = [("(a) InfluxDB, prepared bodies", series, ceiling, None, None)]
    os.sched_setaffinity(0, {STORE_CORE})
    gateway = Gateway(broker.url, platform.url, folder / secrets.token_hex(4))
    try:
        gateway.start(Sink().url)
        gateway.wait_healthy()
        asyncio.run(publish(broker, world.births()))
        gateway.wait("stored_total", series)
        gateway.stop()
        idle_s = gateway.idle_s(Sink().url)
        for kind in ("(b) InfluxDB", "(c) sink"):
            for shape, (make, number, readings) in shapes.items():
                way = f"{kind}, {shape}"
                if only not in way:
                    continue
                sys.stderr.write(f"{way}, {series} series …\n")
                if kind == "(c) sink":
                    store = Sink().url
                else:
                    fresh = Influx(server)
                    asyncio.run(post(fresh, bodies[:births]))
                    store = fresh.url
                messages = [make(place, readings) for place in range(number)]
                rate, cpu_s = measure(gateway, broker, store, messages, number * readings, idle_s)
                ratio = rate / ceiling if kind == "(b) InfluxDB" else None
                rows.append((way, series, rate, cpu_s, ratio))
    finally:
        gateway.kill()
        platform.stop()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=50_000, help="of one reading")
    parser.add_argument("--series", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--only", default="", help="ways whose name holds this")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    rows: list[Row] = []
    loads = [os.getloadavg()[0]]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        programs = which("mosquitto", path=SBIN), which("influxd", path=SBIN)
        assert all(programs), "Mosquitto and InfluxDB are needed: make servers"
        for part in ("broker", "influx"):
            (folder / part).mkdir()
        broker = Mosquitto(str(programs[0]), folder / "broker")
        config = folder / "broker/mosquitto.conf"  # saving a full queue every second is not what is measured
        config.write_text(config.read_text().replace("autosave_interval 1\n", ""))
        server = InfluxServer(str(programs[1]), folder / "influx")
        broker.start()
        server.start()
        try:
            pin(broker, GATEWAY_CORE)
            pin(server, STORE_CORE)
            for series in given.series:
                rows += run(series, given.messages, given.only, broker, server, folder)
                loads.append(os.getloadavg()[0])
        finally:
            broker.kill()
            server.kill()
    if given.json:
        print(json.dumps({"machine": machine(), "loads": loads, "rows": rows}))  # noqa: T201
        return
    title = f"{machine()}, load {' '.join(f'{load:.1f}' for load in loads)}"
    table = Table("way", "series", "points/s", "CPU s per million", "of (a)", title=title)
    for way, series, rate, cpu_s, ratio in rows:
        cpu = "" if cpu_s is None else f"{cpu_s:.1f}"
        table.add_row(way, f"{series:,}", f"{rate:,.0f}", cpu, "" if ratio is None else f"{ratio:.0%}")
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
