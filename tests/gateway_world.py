"""The world around a gateway under test: a platform (a fake: a small HTTP server that speaks the ingest API
and keeps units in a dictionary), a publisher, readings, and a gateway as a separate process.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import msgspec
import paho.mqtt.client as paho
import paho_clients
from json_server import JsonServer
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.errors import Reason
from qilu_contract.wire import sparkplug, topics
from qilu_contract.wire.sparkplug import DataType, Metric, Payload
from qilu_gateway import statefile
from qilu_gateway.service import GatewayService
from qilu_gateway.settings import Settings
from qilu_gateway.settle import dead_letters
from qilu_stores import open_store

COUNTY = "370202"
ENTERPRISE = "370202-e00001"
MOTOR = CATALOGUE["motor"]
OWNER = ("enterprise", "county", "city", "industry")
START_MS = 1_700_000_000_000
PATIENCE_S = 300.0


async def eventually(condition: Callable[[], Any], what: str) -> None:
    """Wait until the condition holds."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"never: {what}"
        await asyncio.sleep(0.02)


async def eventually_async(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not await condition():
        assert time.monotonic() < deadline, f"never: {what}"
        await asyncio.sleep(0.05)


class FakePlatform:
    """Units by id; first readings and activity as they were reported. `stop` and `start` keep the port."""

    def __init__(self) -> None:
        self.units: dict[str, dict[str, Any]] = {}
        self.first: dict[str, int] = {}
        self.counted = 0
        self.active: dict[str, int] = {}
        self.gone: list[str] = []
        self.asked = 0
        self.barred: list[tuple[str, str]] = []
        self.signals: set[tuple[str, str, str]] = set()
        """Of generic units, as reported: unit, name, unit of measurement."""
        self.problems: list[dict[str, Any]] | None = []
        """As they were reported; None for an older platform, which does not know of them."""
        self.epoch = "one"
        self._server: JsonServer | None = None
        self._port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def register(self, unit: str, class_: str = "motor", enterprise: str = "", county: str = COUNTY) -> None:
        """`enterprise` is the county's first unless given."""
        self.units[unit] = {
            "class": class_,
            "enterprise": enterprise or f"{county}-e00001",
            "county": county,
            "city": county[:4],
            "industry": "C34",
            "on_cloud": False,
        }

    def start(self) -> None:
        self._server = JsonServer(
            lambda asked: self.answer(asked.path, asked.headers["Authorization"], asked.body or {}),
            port=self._port,
        )
        self._port = self._server.port

    def stop(self) -> None:
        assert self._server is not None
        self._server.close()

    def answer(self, path: str, key: str | None, body: dict[str, Any]) -> tuple[int, dict[str, Any] | None]:
        if key != "Bearer ingest-key":
            return 401, {"title": "no such key"}
        if path == "/v1/ingest/admission-columns":
            self.asked += 1
            return 200, self._admission([self.units.get(unit) for unit in body["units"]])
        if path.startswith("/v1/ingest/barred"):
            after = int(path.partition("after=")[2] or len(self.barred))
            new = self.barred[after:]
            names = {book: [id_ for kind, id_ in new if kind == book] for book in ("units", "enterprises")}
            return 200, {"epoch": self.epoch, "next": len(self.barred), **names}
        if path == "/v1/ingest/shards":
            return 404, {"title": "Not Found"}
        if path == "/v1/ingest/deaths":
            self.gone += body["units"]
            return 200, {"stale": len(body["units"])}
        if path == "/v1/ingest/signals":
            self.signals |= {(each["unit"], each["name"], each["measured_in"]) for each in body["signals"]}
            return 204, None
        if path == "/v1/problems":
            if self.problems is None:
                return 404, {"title": "Not Found"}
            self.problems += body["problems"]
            return 204, None
        reported = dict(zip(body["units"], body["ts_ms"], strict=True))
        # A first reading tells of activity as well.
        self.active.update(reported)
        if path == "/v1/ingest/activity":
            return 200, {"updated": len(reported)}
        counted = [unit for unit in reported if not self.units[unit]["on_cloud"]]
        for unit in counted:
            self.units[unit]["on_cloud"] = True
            self.first[unit] = reported[unit]
        self.counted += len(counted)
        return 200, {"counted": len(counted), "already": len(body["units"]) - len(counted), "unknown": []}

    @staticmethod
    def _admission(found: list[dict[str, Any] | None]) -> dict[str, Any]:
        known = [unit for unit in found if unit is not None]
        classes = sorted({unit["class"] for unit in known})
        owners = sorted({tuple(unit[name] for name in OWNER) for unit in known})
        places = {owner: place for place, owner in enumerate(owners)}
        return {
            "classes": classes,
            "owners": owners,
            "class": [-1 if unit is None else classes.index(unit["class"]) for unit in found],
            "owner": [-1 if unit is None else places[tuple(unit[name] for name in OWNER)] for unit in found],
            "on_cloud": [unit is not None and unit["on_cloud"] for unit in found],
        }


def gateway_settings(broker: Any, platform: FakePlatform, folder: Path) -> Settings:
    return Settings(
        broker=broker.url,
        store=f"duckdb:///{folder / 'store.duckdb'}",
        platform=platform.url,
        state=folder / "state",
        host_id=f"host-{secrets.token_hex(4)}",  # its own session and STATE at the broker
        http_port=0,
    )


class Publisher:
    """An MQTT client that has nothing to do with ours."""

    def __init__(self, broker: Any) -> None:
        self.states: list[dict[str, Any]] = []
        self.commands: list[str] = []
        self._client = paho.Client(
            paho.CallbackAPIVersion.VERSION2, client_id=f"test-{secrets.token_hex(4)}", protocol=paho.MQTTv5
        )
        self._client.max_inflight_messages_set(1000)
        self._client.on_message = self._on_message
        self._client.connect(broker.host, broker.port)
        self._client.loop_start()
        self._client.subscribe("spBv1.0/STATE/#", 1)
        self._client.subscribe("spBv1.0/+/NCMD/#", 1)

    def _on_message(self, _client: object, _data: object, message: paho.MQTTMessage) -> None:
        if "/STATE/" in message.topic:
            with contextlib.suppress(ValueError):  # not every host says its STATE in JSON
                self.states.append({"host": message.topic.split("/")[-1], **json.loads(message.payload)})
        else:
            self.commands.append(message.topic)

    def send(self, topic: str, payload: bytes, qos: int = 1, retain: bool = False) -> None:
        """Returns when the broker has it."""
        self._client.publish(topic, payload, qos, retain).wait_for_publish(PATIENCE_S)

    def send_all(self, messages: Sequence[tuple[str, bytes]]) -> None:
        sent = [self._client.publish(topic, payload, 1) for topic, payload in messages]
        for info in sent:
            info.wait_for_publish(PATIENCE_S)

    def close(self) -> None:
        paho_clients.close(self._client)


@contextlib.asynccontextmanager
async def online(settings: Settings) -> AsyncIterator[GatewayService]:
    async with GatewayService(settings) as gateway:
        await eventually(lambda: gateway.online, "online")
        yield gateway
        assert_adds_up(gateway)


async def get(gateway: GatewayService, path: str, key: str = "") -> httpx.Response:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    async with httpx.AsyncClient(trust_env=False) as http:
        return await http.get(f"http://127.0.0.1:{gateway.http_port}{path}", headers=headers)


def assert_adds_up(gateway: GatewayService) -> None:
    counters = gateway.counters
    durable = counters.stored + counters.spooled + counters.dead_lettered + counters.corrupt
    assert counters.accepted == durable + counters.in_flight


def motor(seconds: int = 0, power: float = 11.0) -> dict[str, Any]:
    """A full reading of a motor as JSON telemetry."""
    values = {signal.name: signal.nominal for signal in MOTOR.signals} | {"power_in": power}
    return {"ts": START_MS + seconds * 1000, **values}


def telemetry(unit: str, content: object) -> tuple[str, bytes]:
    return topics.telemetry(COUNTY, ENTERPRISE, unit), json.dumps(content).encode()


async def stored(settings: Settings, measurement: str = "motor") -> int:
    async with open_store(settings.store) as store:
        return await store.count(measurement)


def letters(settings: Settings) -> dict[Reason, int]:
    with dead_letters.open_for_reading(settings.state / statefile.FILE_NAME) as connection:
        return dead_letters.count_readings(connection)


def birth(unit: str, seconds: int = 0, first_alias: int = 1) -> tuple[str, bytes]:
    ts_ms = START_MS + seconds * 1000
    metrics = [
        Metric(signal.name, alias, ts_ms, DataType.FLOAT, signal.nominal, {"engUnit": signal.unit})
        for alias, signal in enumerate(MOTOR.signals, first_alias)
    ]
    return topics.sparkplug("DBIRTH", COUNTY, ENTERPRISE, unit), sparkplug.encode(Payload(ts_ms, 1, metrics))


def data(unit: str, seconds: int, power: float, seq: int = 2, first_alias: int = 1) -> tuple[str, bytes]:
    values = [power if signal.name == "power_in" else signal.nominal for signal in MOTOR.signals]
    metrics = [
        Metric(alias=alias, datatype=DataType.FLOAT, value=value)
        for alias, value in enumerate(values, first_alias)
    ]
    payload = sparkplug.encode(Payload(START_MS + seconds * 1000, seq, metrics))
    return topics.sparkplug("DDATA", COUNTY, ENTERPRISE, unit), payload


RUN = """
import asyncio
from qilu_gateway.service import GatewayService
from qilu_gateway.settings import Settings
asyncio.run(GatewayService(Settings.load()).run())
"""


class GatewayProcess:
    """A gateway of its own process, to be killed without warning."""

    def __init__(self, settings: Settings, log: Path) -> None:
        given = msgspec.to_builtins(settings, enc_hook=str)
        self._environment = os.environ | {f"QILU_{name.upper()}": str(value) for name, value in given.items()}
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-c", RUN], env=self._environment, stdout=out, stderr=out
            )

    def kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            assert process.poll() is None, self._log.read_text()
            process.send_signal(signal.SIGKILL)
            process.wait()


async def has(store: Any, count: int) -> bool:
    return bool(await store.count("motor") >= count)
