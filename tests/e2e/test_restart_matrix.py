"""The restart matrix: each part is stopped or killed before, during and after a burst, while edge nodes that
follow the host's STATE and devices that ignore it publish. Every message that the broker acknowledged is
stored or a dead letter in the end, exactly; what a killed broker forgets is printed.

Mosquitto runs as in the compose stack, with its rules and their reloads; the store is InfluxDB; platform and
gateway are separate processes. Edge nodes' rules change while a part is down, so a reload meets sessions
that came back with the broker. The same is done to `qilu up` as a whole. The short form has each cell once,
`make soak` (QILU_SOAK=1) 200 restarts and more in a random order.
"""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import os
import random
import secrets
import signal
import threading
import time
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import paho.mqtt.client as paho
import paho_clients
import pytest
from compose_broker import ComposeBroker
from conftest import answers
from nursery import Child, Nursery, gateway_figure
from qilu.keyring import Keyring
from qilu_common.broker import BrokerAddress
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.wire import topics
from qilu_devices.edge.edge_node import EdgeNode, NodeConfig
from qilu_devices.edge.flow import Flow
from qilu_devices.edge.sessions import Sessions
from qilu_devices.fleet import Enterprise, Unit
from qilu_devices.simulation import Sample, Shape
from qilu_gateway import statefile
from qilu_gateway.settle import dead_letters
from qilu_platform.client import Platform

SOAK = os.environ.get("QILU_SOAK") == "1"
RESTARTS, STACK_RESTARTS = 200, 30
"""Of the long form."""
SEED = 20260202
PATIENCE_S = 120.0
LOST_S = 3.0
"""A reading is lost if it has not arrived after this time, in which the gateway was healthy and idle."""
COUNTY = "370202"
SPARKPLUG, PLAIN, BYSTANDER = "spark-works", "plain-works", "other-works"
MOTOR = CATALOGUE["motor"]
SHAPE = Shape(tuple(signal.name for signal in MOTOR.signals), tuple(range(len(MOTOR.signals))))
START_MS, HOUR_MS = 1_700_000_000_000, 3_600_000
BURST = 120
"""Messages of each kind of device. Every tenth of a device that ignores STATE is no reading: a dead
letter."""
BEHIND = "broker behind an absent gateway"
PARTS = ("broker", "gateway", "platform", "store", "all", BEHIND)
ENDS = {"stopped": signal.SIGTERM, "killed": signal.SIGKILL}
MOMENTS = ("before", "during", "after")


class Cell(NamedTuple):
    part: str
    end: str
    moment: str


class Lost(NamedTuple):
    """Acknowledged messages that are nowhere."""

    of_nodes: int
    of_devices: int


def eventually(done: Callable[[], Any], what: str, patience_s: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + patience_s
    while not done():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.02)


class Device:
    """A hand-made device: paho-mqtt, plain JSON, a certificate; it ignores STATE. It sends messages again
    that the broker has not acknowledged."""

    def __init__(self, world: World, unit: str, base_ms: int, version: int) -> None:
        self.unit, self._base_ms = unit, base_ms
        self.topic = topics.telemetry(COUNTY, PLAIN, unit)
        self.readings: set[int] = set()
        self.letters: set[bytes] = set()
        self._mids: set[int] = set()
        self._acked: set[int] = set()
        self._client = client = paho.Client(
            paho.CallbackAPIVersion.VERSION2, client_id=PLAIN, protocol=version
        )
        client.on_publish = lambda *given: self._acked.add(given[2])
        client.reconnect_delay_set(1, 1)
        files = world.folder / "bundle" / PLAIN
        client.tls_set(str(files / "ca.crt"), str(files / "node.crt"), str(files / "node.key"))
        client.connect_async("127.0.0.1", world.tls_port)
        client.loop_start()

    def publish(self, first: int, last: int) -> None:
        for number in range(first, last):
            if number % 10:
                ts_ms = self._base_ms + number * 1000
                self.readings.add(ts_ms)
                payload = json.dumps({"ts": ts_ms, "power_in": 1.0 + number}).encode()
            else:
                payload = b"no reading %d" % number
                self.letters.add(payload)
            self._mids.add(self._client.publish(self.topic, payload, 1).mid)

    @property
    def acknowledged(self) -> int:
        return len(self._acked & self._mids)

    def close(self) -> None:
        paho_clients.close(self._client)


class Node:
    """A simulated edge node with one unit, in a separate event loop."""

    def __init__(self, world: World, unit: str, base_ms: int) -> None:
        self._base_ms = base_ms
        self.enterprise = Enterprise(SPARKPLUG, 0, "Works", COUNTY, "C34")
        self.unit = Unit(unit, "motor", self.enterprise)
        self.readings: set[int] = set()
        self._broker, self._sessions = BrokerAddress.from_url(world.node_url), world.sessions
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop
        self._node: EdgeNode
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._thread.start()
        assert self._ready.wait(PATIENCE_S)

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._node = EdgeNode(
            self.enterprise,
            [self.unit],
            NodeConfig(self._broker, 10 * BURST, sessions=self._sessions),
            Flow(),
            lambda: None,
        )
        self._ready.set()
        await self._node.run()

    def publish(self, first: int, last: int) -> None:
        for number in range(first, last):
            ts_ms = self._base_ms + number * 1000
            self.readings.add(ts_ms)
            values = tuple(signal.round(signal.nominal) for signal in MOTOR.signals)
            self._loop.call_soon_threadsafe(self._node.offer, Sample(self.unit, ts_ms, SHAPE, values))

    @property
    def acknowledged(self) -> int:
        return self._node.acked

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._node.stop)
        self._thread.join(PATIENCE_S)


class World(ABC):
    """Broker, store, platform and gateway; `play` is a burst with a restart in it."""

    def __init__(
        self, influxdb: Any, folder: Path, free_port: Callable[[], int], nursery: Nursery, keyring: Keyring
    ) -> None:
        self.influxdb, self.folder, self.nursery, self.keyring = influxdb, folder, nursery, keyring
        self.database = f"restarts_{secrets.token_hex(6)}"
        self.store_url = f"influxdb://{influxdb.host}:{influxdb.port}/{self.database}"
        self.http_port, self.metrics_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.http_port}"
        self.sessions = Sessions(None, [SPARKPLUG])
        self.port = self.tls_port = 0
        self.state = folder / "gateway"
        self.platform: Platform
        self._played, self._barred = 0, False

    @abstractmethod
    def down(self, part: str, number: int) -> None: ...

    @abstractmethod
    def up(self, part: str, meanwhile: Callable[[], None]) -> None:
        """`meanwhile` is to be called after the broker has read its rules again, and before a gateway that is
        down is started."""

    @property
    def node_url(self) -> str:
        return f"mqtt://devices:{self.keyring.password('devices')}@127.0.0.1:{self.port}"

    def register(self) -> None:
        """The enterprises, certificates of those who need one; returns when the broker lets them in."""
        self.platform = Platform(self.url, self.keyring.key("admin"))
        for enterprise in (SPARKPLUG, PLAIN, BYSTANDER):
            self.platform.create_enterprise("Works", COUNTY, "C34", id=enterprise)
        for enterprise in (PLAIN, BYSTANDER):
            bundle = zipfile.ZipFile(io.BytesIO(self.platform.certificate_bundle(enterprise)))
            bundle.extractall(self.folder / "bundle")
        eventually(lambda: PLAIN in self.rules, "the platform has written the rules")

    @property
    def rules(self) -> str:
        """Edge nodes' rules that the broker loaded last."""
        raise NotImplementedError

    def change_rules(self) -> None:
        """Suspend or resume another enterprise. Returns when the broker has the new rules."""
        self._barred = not self._barred
        (self.platform.suspend_enterprise if self._barred else self.platform.resume_enterprise)(BYSTANDER)
        eventually(lambda: (BYSTANDER in self.rules) is not self._barred, "the broker has the new rules")

    def metric(self, name: str) -> float:
        return gateway_figure(self.metrics_port, name)

    def platform_answers(self) -> bool:
        return answers(f"{self.url}/readyz")

    def stored(self, unit: str) -> set[int]:
        """Times of the readings that the store has of a unit."""
        query = {"db": self.database, "epoch": "ms", "q": f"SELECT power_in FROM motor WHERE unit='{unit}'"}
        answer = httpx.get(f"{self.influxdb.http}/query", params=query, timeout=60.0, trust_env=False)
        series = answer.json()["results"][0].get("series", [])
        return {int(row[0]) for each in series for row in each["values"]}

    def letters(self, topic: str) -> set[bytes]:
        with dead_letters.open_for_reading(self.state / statefile.FILE_NAME) as connection:
            rows = connection.execute("SELECT payload FROM dead_letters WHERE topic = ?", (topic,))
            return {bytes(payload) for (payload,) in rows}

    def idle(self) -> bool:
        """The gateway takes messages, and none comes or waits."""
        before = self.metric("messages")
        time.sleep(0.5)
        waiting = (self.metric("in_flight"), self.metric("spooled"))
        return self.gateway_is_well() and waiting == (0.0, 0.0) and self.metric("messages") == before

    def gateway_is_well(self) -> bool:
        with suppress(httpx.TransportError):
            answer = httpx.get(f"http://127.0.0.1:{self.metrics_port}/healthz", trust_env=False)
            return answer.is_success
        return False

    def play(self, cell: Cell) -> Lost:
        """A burst of each kind of device, with the restart. Asserts that nothing more is stored or refused
        than what was sent."""
        self._played += 1
        base_ms = START_MS + self._played * HOUR_MS
        units = [f"{kind}-{self._played}-{secrets.token_hex(3)}" for kind in ("node", "device")]
        for unit, enterprise in zip(units, (SPARKPLUG, PLAIN), strict=True):
            self.platform.create_unit("motor", enterprise, id=unit)
        node = Node(self, units[0], base_ms)
        device = Device(self, units[1], base_ms, (paho.MQTTv311, paho.MQTTv5)[self._played % 2])
        both: tuple[Node | Device, ...] = (node, device)

        def publish(first: int, last: int) -> None:
            for each in both:
                each.publish(first, last)

        def acknowledged(count: int) -> None:
            eventually(
                lambda: all(each.acknowledged >= count for each in both),
                f"{cell}: {count} of each kind are acknowledged",
            )

        def finish() -> None:
            publish(middle, BURST)
            eventually(
                lambda: device.acknowledged == BURST, f"{cell}: the device need not wait for a gateway"
            )

        first, aim = {"before": (0, 0), "during": (BURST // 2, BURST // 4), "after": (BURST, BURST)}[
            cell.moment
        ]
        middle = (first + BURST) // 2
        try:
            publish(0, first)
            acknowledged(aim)
            self.down(cell.part, ENDS[cell.end])
            publish(first, middle)
            self.up(cell.part, finish)
            acknowledged(BURST)
            lost, moved_s = self._missing(node, device), time.monotonic()
            while any(lost):
                is_over = time.monotonic() - moved_s > LOST_S and self.idle()
                before, lost = lost, self._missing(node, device)
                if lost != before:
                    moved_s = time.monotonic()
                elif is_over:
                    break
                time.sleep(0.05)
            assert self.stored(units[0]) <= node.readings
            assert self.stored(units[1]) <= device.readings
            assert self.letters(device.topic) <= device.letters
            eventually(lambda: self.metric("unaccounted") == 0, "the gateway's accounts balance")
        finally:
            for each in both:
                each.close()
        return lost

    def _missing(self, node: Node, device: Device) -> Lost:
        of_device = len(device.readings - self.stored(device.unit))
        of_device += len(device.letters - self.letters(device.topic))
        return Lost(len(node.readings - self.stored(node.unit.id)), of_device)

    def close(self) -> None:
        self.platform.__exit__()
        self.influxdb.start()
        query = {"q": f'DROP DATABASE "{self.database}"'}
        httpx.post(f"{self.influxdb.http}/query", data=query, timeout=60.0, trust_env=False)


class Compose(World):
    """As the compose stack runs them."""

    def __init__(self, influxdb: Any, folder: Path, free_port: Callable[[], int], nursery: Nursery) -> None:
        self.broker = ComposeBroker(folder, free_port)
        super().__init__(influxdb, folder, free_port, nursery, self.broker.keyring)
        self.port, self.tls_port = self.broker.port, self.broker.tls_port
        self._children: dict[str, Child] = {}
        self.broker.prepare()
        self.broker.start()
        self._start_platform()
        self._start_gateway()
        self.register()

    def _start_platform(self) -> None:
        words = ["platform", "run", "--db", f"sqlite:///{self.folder}/registry.sqlite"]
        environment = {
            "QILU_API_KEY": self.keyring.key("admin"),
            "QILU_INGEST_KEY": self.keyring.key("ingest"),
            "QILU_PLATFORM_CA": str(self.folder / "platform"),
            "QILU_PLATFORM_BROKER_RULES": str(self.broker.rules),
            "QILU_PLATFORM_BROKER_FOR_NODES": f"127.0.0.1:{self.tls_port}",
        }
        self._start("platform", [*words, "--port", str(self.http_port)], environment)
        eventually(self.platform_answers, "the platform answers")

    def _start_gateway(self) -> None:
        words = ["gateway", "run", "--broker", f"mqtt://127.0.0.1:{self.port}", "--store", self.store_url]
        words += ["--platform", self.url, "--state", str(self.state), "--port", str(self.metrics_port)]
        environment = {
            "QILU_API_KEY": self.keyring.key("ingest"),
            "QILU_MQTT_USER": "gateway",
            "QILU_MQTT_PASSWORD": self.keyring.password("gateway"),
        }
        self._start("gateway", words, environment)

    def _start(self, name: str, words: list[str], environment: dict[str, str]) -> None:
        self._children[name] = self.nursery.start(words, environment, self.folder / f"{name}.log")

    @property
    def rules(self) -> str:
        return (self.folder / "own" / "nodes.acl").read_text()

    def _end(self, part: str, number: int) -> None:
        if part == "broker":
            self.broker.end(number)
        elif part == "store":
            self.influxdb.kill() if number == signal.SIGKILL else self.influxdb.stop()
        else:
            self._children[part].end(number)

    def down(self, part: str, number: int) -> None:
        if part == BEHIND:
            self._end("gateway", number)
            self._end("broker", number)
        elif part == "all":  # at once, as a machine that goes down
            with ThreadPoolExecutor() as threads:
                list(threads.map(lambda each: self._end(each, number), PARTS[:4]))
        else:
            self._end(part, number)

    def up(self, part: str, meanwhile: Callable[[], None]) -> None:
        if part in ("broker", "all", BEHIND):
            self.broker.start()
        if part in ("store", "all"):
            self.influxdb.start()
        if part in ("platform", "all"):
            self._start_platform()
        self.change_rules()
        meanwhile()
        if part in ("gateway", "all", BEHIND):
            self._start_gateway()

    def close(self) -> None:
        for child in self._children.values():
            child.end()
        self.broker.end()
        super().close()


class Embedded(World):
    """`qilu up`."""

    def __init__(self, influxdb: Any, folder: Path, free_port: Callable[[], int], nursery: Nursery) -> None:
        super().__init__(influxdb, folder, free_port, nursery, Keyring(folder / "state" / "keys"))
        self.port, self.tls_port = free_port(), free_port()
        self.state = folder / "state" / "gateway"
        self._stack: Child
        self.up("all", lambda: None)
        self.register()

    @property
    def rules(self) -> str:
        return (self.folder / "state" / "broker" / "nodes.acl").read_text()

    def down(self, part: str, number: int) -> None:
        assert part == "all"
        self._stack.end(number, PATIENCE_S)

    def up(self, part: str, meanwhile: Callable[[], None]) -> None:
        words = ["up", "--state", f"{self.folder}/state", "--store", self.store_url, "--units", "3"]
        words += ["--port", str(self.http_port), "--mqtt-port", str(self.port)]
        words += ["--mqtts", f"127.0.0.1:{self.tls_port}", "--metrics-port", str(self.metrics_port)]
        self._stack = self.nursery.start(words, {}, self.folder / "up.log")
        eventually(lambda: self.platform_answers() or self._stack.code is not None, "the platform answers")
        assert self._stack.code is None, (self.folder / "up.log").read_text()[-2000:]
        if self._played:
            self.change_rules()
        meanwhile()

    def close(self) -> None:
        self._stack.end(signal.SIGTERM, PATIENCE_S)
        super().close()


@pytest.fixture(params=[Compose, Embedded])
def world(
    request: pytest.FixtureRequest,
    mosquitto_program: str,
    influxdb_server: Any,
    tmp_path: Path,
    free_port: Callable[[], int],
) -> Iterator[World]:
    influxdb_server.start()
    nursery = Nursery()
    made: World = request.param(influxdb_server, tmp_path, free_port, nursery)
    try:
        yield made
    finally:
        made.close()
        nursery.close()


def cells(world: World) -> list[Cell]:
    """All, or as many as the long form wants, in random order."""
    parts = PARTS if isinstance(world, Compose) else ("all",)
    found = [Cell(*cell) for cell in itertools.product(parts, ENDS, MOMENTS)]
    chance = random.Random(SEED)
    if SOAK:
        return chance.choices(found, k=RESTARTS if isinstance(world, Compose) else STACK_RESTARTS)
    chance.shuffle(found)
    return found


@pytest.mark.filterwarnings("ignore:.*SSLSocket:pytest.PytestUnraisableExceptionWarning")  # of paho-mqtt
def test_nothing_acknowledged_is_lost_whatever_restarts(world: World) -> None:
    outcome: dict[Cell, Lost] = {}
    for cell in cells(world):
        lost = world.play(cell)
        print(f"{type(world).__name__}: {', '.join(cell)}: lost {lost}", flush=True)  # noqa: T201
        outcome[cell] = Lost(*map(sum, zip(outcome.get(cell, Lost(0, 0)), lost, strict=True)))
    # The stack's broker gets SIGTERM when the stack is killed; a machine's is killed with it.
    forgetful = ("broker", "all", BEHIND) if isinstance(world, Compose) else ()
    wrong = {
        cell: lost
        for cell, lost in outcome.items()
        if any(lost) and not (cell.part in forgetful and cell.end == "killed" and cell.moment != "before")
    }
    assert wrong == {}
