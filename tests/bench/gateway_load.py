"""Load for the gateway's benchmarks: a fleet and its messages, a publisher, a gateway as a separate process,
and a store that discards everything.
"""

from __future__ import annotations

import asyncio
import http.client
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from conftest import Mosquitto, _free_port
from gateway_world import COUNTY, MOTOR, START_MS, FakePlatform
from qilu_common.broker import BrokerAddress
from qilu_common.mqtt.codec import ConnectOptions
from qilu_common.mqtt.connection import connect
from qilu_contract.storage import Point, line_protocol
from qilu_contract.wire import json_payload, sparkplug, topics
from qilu_contract.wire.sparkplug import Metric, Payload
from qilu_devices.edge import payloads

Kind = Literal["json", "sparkplug"]
Messages = Iterable[tuple[str, bytes]]

OF_NODE = 33
"""Units of an edge node: about as many as an enterprise has in the programme."""
SIGNALS = MOTOR.signals[:6]
VARIANTS = 13
"""Different values; payloads are made of them once and sent by many units."""
EVERY_MS = 10_000
BATCH = 5000
PATIENCE_S = 120.0
TICKS = os.sysconf("SC_CLK_TCK")
BIRTH_MS = START_MS - EVERY_MS


def values(variant: int) -> dict[str, float]:
    """Within their ranges, and as they are stored."""
    return {signal.name: signal.round(signal.nominal * (1 + variant % 97 / 5000)) for signal in SIGNALS}


@lru_cache(maxsize=100_000)
def _json(ts_ms: int, variant: int, readings: int) -> bytes:
    return json_payload.encode([(ts_ms + k * 1000, values(variant + k)) for k in range(readings)])


@lru_cache(maxsize=100_000)
def _sparkplug(alias: int, ts_ms: int, variant: int, readings: int) -> bytes:
    """As our edge nodes say it, up to the sequence number: each value by its alias with its own time."""
    metrics = [
        Metric(alias=alias + place, value=value, ts_ms=ts_ms + k * 1000)
        for k in range(readings)
        for place, value in enumerate(values(variant + k).values())
    ]
    return sparkplug.encode(Payload(ts_ms, None, metrics), datatypes=False)


@lru_cache(maxsize=1000)
def _birth(alias: int) -> bytes:
    last = [(BIRTH_MS, signal.nominal) for signal in MOTOR.signals]
    return payloads.device_birth(MOTOR, alias, last, 0)[:-2]  # up to the sequence number


def _seq(number: int) -> bytes:
    return b"\x18" + (bytes((number,)) if number < 128 else bytes((number & 0x7F | 0x80, 1)))


class Fleet:
    """Motors and their messages, in order: each call of `births` and `messages` continues where the one
    before ended, and each begins with another pass over all units. Neighbours in a pass are no neighbours in
    the store."""

    def __init__(self, kind: Kind, size: int) -> None:
        self.kind, self.size = kind, size
        self.units = [f"{COUNTY}-motor-{number:07d}" for number in range(size)]
        self._seq = [0] * (size // OF_NODE + 1)
        self._now_ms = START_MS

    def node(self, number: int) -> str:
        return f"{COUNTY}-e{number // OF_NODE:05d}"

    def register(self, platform: FakePlatform) -> None:
        for number, unit in enumerate(self.units):
            platform.register(unit, enterprise=self.node(number))

    def births(self) -> Iterator[tuple[str, bytes]]:
        """Of each edge node and its units; none of a fleet that speaks JSON."""
        if self.kind == "json":
            return
        for number, unit in enumerate(self.units):
            if number % OF_NODE == 0:
                yield (
                    topics.sparkplug("NBIRTH", COUNTY, self.node(number)),
                    payloads.node_birth(1, BIRTH_MS, 0),
                )
            body = _birth(number % OF_NODE * len(MOTOR.signals)) + self._next_seq(number)
            yield topics.sparkplug("DBIRTH", COUNTY, self.node(number), unit), body

    def messages(self, count: int, readings: int = 1) -> Iterator[tuple[str, bytes]]:
        for number, ts_ms, variant in self._pass(count, readings):
            unit, node = self.units[number], self.node(number)
            if self.kind == "json":
                yield topics.telemetry(COUNTY, node, unit), _json(ts_ms, variant, readings)
            else:
                alias = number % OF_NODE * len(MOTOR.signals)
                body = _sparkplug(alias, ts_ms, variant, readings) + self._next_seq(number)
                yield topics.sparkplug("DDATA", COUNTY, node, unit), body

    def bodies(self, count: int, readings: int = 1) -> list[bytes]:
        """Line protocol of the readings of so many messages, as the gateway would write it."""
        made: list[Point] = []
        for number, ts_ms, variant in self._pass(count, readings):
            tags = (COUNTY[:4], COUNTY, "C34", self.node(number), self.units[number])
            made += [Point("motor", tags, ts_ms + k * 1000, values(variant + k)) for k in range(readings)]
        return [line_protocol(made[start : start + BATCH]) for start in range(0, len(made), BATCH)]

    def _pass(self, count: int, readings: int) -> Iterator[tuple[int, int, int]]:
        """Unit, time and variant of each message."""
        for place in range(count):
            if place % self.size == 0:
                self._now_ms += max(EVERY_MS, readings * 1000)
            yield place * 7919 % self.size, self._now_ms, place % VARIANTS

    def _next_seq(self, number: int) -> bytes:
        node = number // OF_NODE
        self._seq[node] = (self._seq[node] + 1) % 256
        return _seq(self._seq[node])


async def publish(
    broker: Mosquitto,
    messages: Messages,
    *,
    rate: float | None = None,
    most: int = 1000,
    acked: Callable[[list[Any]], None] = lambda _: None,
) -> None:
    """Returns when the broker has them all. `rate`: messages a second, None for as many as go. `most`:
    how many may be unacknowledged. `acked` is called with those that the broker has acknowledged."""
    moved = asyncio.Event()

    def heard(items: list[Any]) -> None:
        acked(items)
        moved.set()

    address, options = BrokerAddress.from_url(broker.url), ConnectOptions(f"bench-{secrets.token_hex(4)}")
    connection = await connect(address, options, acked=heard, moved=moved.set)
    began_s = time.monotonic()
    for number, (topic, payload) in enumerate(messages):
        if rate is not None and number % 100 == 0:
            connection.flush()
            await asyncio.sleep(max(0.0, began_s + number / rate - time.monotonic()))
        while connection.in_flight >= most or not connection.room:
            moved.clear()
            connection.flush()
            await moved.wait()
        connection.send_qos1(topic, payload, topic)
    connection.flush()
    while connection.in_flight:
        moved.clear()
        await moved.wait()
    await connection.disconnect()


class _Sink(asyncio.Protocol):
    """Says 204 to whatever is posted, as fast as Python can."""

    def __init__(self) -> None:
        self._head, self._left = b"", 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        while data:
            if self._left == 0:
                head, end, data = (self._head + data).partition(b"\r\n\r\n")
                if not end:
                    self._head = head
                    return
                length = head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0]
                self._head, self._left = b"", int(length or b"0")
            used = min(self._left, len(data))
            self._left, data = self._left - used, data[used:]
            if self._left == 0:
                self._transport.write(b"HTTP/1.1 204 No Content\r\nX-Influxdb-Version: 2.sink\r\n\r\n")


def serve_sink(port: int) -> None:
    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(_Sink, "127.0.0.1", port)
        await server.serve_forever()

    asyncio.run(serve())


class Sink:
    """A store that keeps nothing, in a separate process."""

    def __init__(self) -> None:
        port = _free_port()
        code = f"import gateway_load; gateway_load.serve_sink({port})"
        self._process = subprocess.Popen([sys.executable, "-c", code])
        self.pid = self._process.pid
        self.url = f"influxdb://127.0.0.1:{port}/sink"

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


def cpu_s(pid: int) -> float:
    """That a process and all its threads have used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def pin(pid: int, core: int | None) -> None:
    """All threads of a process to one core, or to any."""
    cores = {core} if core is not None else set(range(os.cpu_count() or 1))
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with suppress(ProcessLookupError):
            os.sched_setaffinity(int(thread.name), cores)


class Gateway:
    """One gateway in a separate process: the same session and state at each start."""

    def __init__(self, broker: str, platform: str, folder: Path) -> None:
        self._port = _free_port()
        self._words = [sys.executable, "-m", "qilu", "gateway", "run", "--broker", broker]
        self._words += ["--platform", platform, "--state", str(folder), "--port", str(self._port)]
        self._environment = {
            **os.environ,
            "QILU_API_KEY": "ingest-key",
            "QILU_HOST_ID": f"bench-{secrets.token_hex(4)}",
        }
        self._log = folder.with_suffix(".log")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    def start(self, store: str, core: int | None = None) -> None:
        words = [*self._words, "--store", store]
        with self._log.open("ab") as out:
            self._process = subprocess.Popen(words, env=self._environment, stdout=out, stderr=out)
        pin(self.pid, core)

    def subscribe(self, store: str) -> None:
        """Leave a session at the broker, which keeps from now on what is published."""
        self.start(store)
        self.wait_healthy()
        self.stop()

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def _end(self, number: int) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(number)
            process.wait(60)

    def metric(self, name: str) -> float:
        """A figure of /metrics; -1 while the gateway does not answer."""
        for line in (self._get("/metrics")[1]).splitlines():
            if line.startswith(f"qilu_gateway_{name} "):
                return float(line.split()[1])
        return -1.0

    def wait(self, name: str, at_least: float, every_s: float = 0.2) -> float:
        """When the figure was reached, on the monotonic clock."""
        deadline = time.monotonic() + PATIENCE_S
        while self.metric(name) < at_least:
            self.check(deadline)
            time.sleep(every_s)
        return time.monotonic()

    def wait_healthy(self) -> float:
        """When it took messages, on the monotonic clock: its session is there, and all else."""
        deadline = time.monotonic() + PATIENCE_S
        while self._get("/healthz")[0] != 200:
            self.check(deadline)
            time.sleep(0.02)
        return time.monotonic()

    def check(self, deadline: float) -> None:
        """Assert that it runs and that `deadline` has not passed."""
        assert self._process is not None, "not started"
        assert self._process.poll() is None, self._log.read_text()[-2000:]
        assert time.monotonic() < deadline, self._log.read_text()[-2000:]

    def _get(self, path: str) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except (OSError, http.client.HTTPException):
            return 0, ""
        finally:
            connection.close()
