"""The gateway against a real broker and real stores. The platform is a fake: a small HTTP server that speaks
the ingest API and keeps units in a dictionary.
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
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import paho.mqtt.client as paho
import pytest
from qilu_contract import sparkplug, topics
from qilu_contract.catalogue import CATALOGUE
from qilu_contract.errors import ConfigError, Reason
from qilu_contract.sparkplug import DataType, Metric, Payload
from qilu_contract.stores import open_store
from qilu_gateway import dead_letters, statefile
from qilu_gateway.service import GatewayService
from qilu_gateway.settings import Settings

COUNTY = "370202"
ENTERPRISE = "370202-e00001"
MOTOR = CATALOGUE["motor"]
START_MS = 1_700_000_000_000
PATIENCE_S = 60.0


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
        self.asked = 0
        self._server: ThreadingHTTPServer | None = None
        self._port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def register(self, unit: str, class_: str = "motor", enterprise: str = ENTERPRISE) -> None:
        self.units[unit] = {
            "class": class_,
            "enterprise": enterprise,
            "county": COUNTY,
            "city": COUNTY[:4],
            "industry": "C34",
            "on_cloud": False,
        }

    def start(self) -> None:
        platform = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status, answer = platform.answer(self.path, self.headers["Authorization"], body)
                content = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        assert self._server is not None
        self._server.shutdown()
        self._server.server_close()

    def answer(self, path: str, key: str | None, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if key != "Bearer ingest-key":
            return 401, {"title": "no such key"}
        if path == "/v1/ingest/admission":
            self.asked += 1
            return 200, {"units": {unit: self.units[unit] for unit in body["units"] if unit in self.units}}
        if path == "/v1/ingest/activity":
            self.active.update((item["unit"], item["ts_ms"]) for item in body["readings"])
            return 200, {"updated": len(body["readings"])}
        counted = [item for item in body["readings"] if not self.units[item["unit"]]["on_cloud"]]
        for item in counted:
            self.units[item["unit"]]["on_cloud"] = True
            self.first[item["unit"]] = item["ts_ms"]
        self.counted += len(counted)
        return 200, {"counted": len(counted), "already": len(body["readings"]) - len(counted), "unknown": []}


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
            self.states.append(json.loads(message.payload))
        else:
            self.commands.append(message.topic)

    def send(self, topic: str, payload: bytes, qos: int = 1) -> None:
        """Returns when the broker has it."""
        self._client.publish(topic, payload, qos).wait_for_publish(PATIENCE_S)

    def send_all(self, messages: Sequence[tuple[str, bytes]]) -> None:
        sent = [self._client.publish(topic, payload, 1) for topic, payload in messages]
        for info in sent:
            info.wait_for_publish(PATIENCE_S)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()
        socket = self._client.socket()
        if socket is not None:
            socket.close()  # the client leaves it to the garbage collector


@pytest.fixture
def platform(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakePlatform]:
    monkeypatch.setenv("QILU_API_KEY", "ingest-key")
    fake = FakePlatform()
    yield fake
    with contextlib.suppress(OSError):
        fake.stop()


@pytest.fixture
def publisher(mosquitto: Any) -> Iterator[Publisher]:
    mosquitto.start()
    publisher = Publisher(mosquitto)
    yield publisher
    publisher.close()


@pytest.fixture
def settings(mosquitto: Any, platform: FakePlatform, tmp_path: Path) -> Settings:
    return Settings(
        broker=mosquitto.url,
        store=f"duckdb:///{tmp_path / 'store.duckdb'}",
        platform=platform.url,
        state=tmp_path / "state",
        host_id=f"host-{secrets.token_hex(4)}",  # its own session and STATE at the broker
        http_port=0,
    )


@contextlib.asynccontextmanager
async def online(settings: Settings) -> AsyncIterator[GatewayService]:
    async with GatewayService(settings) as gateway:
        await eventually(lambda: gateway.online, "online")
        yield gateway
        assert_adds_up(gateway)


async def get(gateway: GatewayService, path: str) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False) as http:
        return await http.get(f"http://127.0.0.1:{gateway.http_port}{path}")


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


async def test_telemetry_is_stored_and_the_unit_reported_once(
    settings: Settings, platform: FakePlatform, publisher: Publisher
) -> None:
    platform.register("m1")
    async with online(settings) as gateway:
        publisher.send(*telemetry("m1", motor(0, 11.25)))
        publisher.send(*telemetry("m1", [motor(1), motor(2)]))
        await eventually(lambda: gateway.counters.stored == 3, "three readings stored")
        await eventually(lambda: platform.first, "the first reading reported")
        await eventually(lambda: platform.active, "activity reported")
        text = (await get(gateway, "/metrics")).text
        assert "qilu_gateway_accepted_total 3.0" in text
        assert "qilu_gateway_in_flight 0.0" in text
        assert (await get(gateway, "/healthz")).json() == {"status": "ok", "troubles": []}
    assert platform.first == {"m1": START_MS}
    assert platform.counted == 1
    async with open_store(settings.store) as store:
        assert await store.count("motor") == 3
        row = await store.latest("motor", {"unit": "m1"})
        assert row is not None
        assert row.values == {k: v for k, v in motor(2).items() if k != "ts"}
        assert await store.series("motor", {"unit": "m1"}, ["power_in"], START_MS, START_MS + 1)


async def test_bad_input_becomes_dead_letters_and_the_stream_goes_on(
    settings: Settings, platform: FakePlatform, publisher: Publisher
) -> None:
    platform.register("m1")
    platform.register("other", enterprise="370202-e00002")
    soon_ms = time.time_ns() // 1_000_000 + 3_600_000
    sparkplug_topic = topics.sparkplug("DDATA", COUNTY, ENTERPRISE, "m1")
    no_time = sparkplug.encode(Payload(None, 1, [Metric("power_in", 1, None, DataType.FLOAT, 1.0)]))
    infinite = [Metric("power_in", 1, START_MS, DataType.FLOAT, float("inf"))]
    bad = [
        ("qilu/v1/too/short", b"{}", Reason.BAD_TOPIC, 1),
        ("spBv1.0/370202/DDATA/UPPER/m1", b"", Reason.BAD_TOPIC, 1),
        (sparkplug_topic, b"\xff not protobuf", Reason.BAD_PAYLOAD, 1),
        (*telemetry("m1", [])[:1], b"not JSON", Reason.BAD_PAYLOAD, 1),
        (topics.CLOCK, b"noon", Reason.BAD_PAYLOAD, 1),
        (*telemetry("m1", motor())[:1], b"x" * 1_000_000, Reason.TOO_LARGE, 1),
        (*telemetry("nobody", [motor(), motor(1)]), Reason.UNKNOWN_UNIT, 2),
        (*telemetry("other", motor()), Reason.WRONG_OWNER, 1),
        (topics.telemetry("370203", ENTERPRISE, "m1"), json.dumps(motor()).encode(), Reason.WRONG_OWNER, 1),
        (*telemetry("m1", {"ts": START_MS, "smell": 1}), Reason.UNKNOWN_SIGNAL, 1),
        (*telemetry("m1", {"ts": START_MS, "power_in": "much"}), Reason.WRONG_TYPE, 1),
        (*telemetry("m1", {"ts": START_MS, "power_in": True}), Reason.WRONG_TYPE, 1),
        (telemetry("m1", 0)[0], b'{"ts": 1, "power_in": NaN}', Reason.NOT_FINITE, 1),
        (sparkplug_topic, sparkplug.encode(Payload(START_MS, 1, infinite)), Reason.NOT_FINITE, 1),
        (*telemetry("m1", {"power_in": 1.0}), Reason.BAD_TIMESTAMP, 1),
        (*telemetry("m1", {"ts": soon_ms, "power_in": 1.0}), Reason.BAD_TIMESTAMP, 1),
        (sparkplug_topic, no_time, Reason.BAD_TIMESTAMP, 1),
        (*data("m1", 0, 1.0), Reason.NO_BIRTH, 1),
    ]
    # One list with good and bad readings: each is judged by itself.
    mixed = [motor(0), {"ts": START_MS, "smell": 1}, "reading", motor(1)]
    expected = {Reason.UNKNOWN_SIGNAL: 1, Reason.BAD_PAYLOAD: 1}
    for _, _, reason, readings in bad:
        expected[reason] = expected.get(reason, 0) + readings
    async with online(settings) as gateway:
        for number, (topic, payload, _, _) in enumerate(bad):
            publisher.send(topic, payload)
            publisher.send(*telemetry("m1", motor(100 + number)))
        publisher.send(*telemetry("m1", mixed))
        good = len(bad) + 2
        await eventually(lambda: gateway.counters.stored == good, "all good readings stored")
        await eventually(lambda: gateway.counters.dead_lettered == sum(expected.values()), "all dead letters")
        assert gateway.dead_lettered_by_reason == {str(reason): n for reason, n in expected.items()}
        text = (await get(gateway, "/metrics")).text
        assert 'qilu_gateway_dead_lettered_total{reason="too_large"} 1.0' in text
    assert letters(settings) == expected
    assert await stored(settings) == good
    with dead_letters.open_for_reading(settings.state / statefile.FILE_NAME) as connection:
        [large] = dead_letters.list_rows(connection, reason=Reason.TOO_LARGE)
        assert (large.unit, large.payload_bytes) == ("m1", 1_000_000)
        assert large.payload == b"x" * dead_letters.MAX_KEPT_PAYLOAD
        [unknown] = dead_letters.list_rows(connection, reason=Reason.UNKNOWN_UNIT)
        assert json.loads(unknown.payload) == [motor(), motor(1)]
        assert unknown.readings == 2


async def test_the_runs_clock_moves_the_future(
    settings: Settings, platform: FakePlatform, publisher: Publisher
) -> None:
    platform.register("m1")
    later_ms = time.time_ns() // 1_000_000 + 30 * 86_400_000
    async with online(settings) as gateway:
        publisher.send(topics.CLOCK, json.dumps({"now": later_ms, "speed": 1.0}).encode())
        publisher.send(*telemetry("m1", motor() | {"ts": later_ms}))
        await eventually(lambda: gateway.counters.stored == 1, "a reading of the run's present")


async def test_aliases_survive_a_restart_and_births_are_readings(
    settings: Settings, platform: FakePlatform, publisher: Publisher
) -> None:
    platform.register("m1")
    async with online(settings) as gateway:
        publisher.send(*birth("m1", 0, first_alias=40))
        publisher.send(*data("m1", 1, 12.345, first_alias=40))
        await eventually(lambda: gateway.counters.stored == 2, "birth and data stored")
        assert gateway.counters.births == 1
    async with online(settings) as gateway:
        publisher.send(*data("m1", 2, 0.1, seq=3, first_alias=40))
        await eventually(lambda: gateway.counters.stored == 1, "data after the restart")
        assert gateway.counters.rebirth_requests == 0
    assert letters(settings) == {}
    async with open_store(settings.store) as store:
        rows = await store.series("motor", {"unit": "m1"}, ["power_in"], START_MS, START_MS + 60_000)
    # float32 on the wire comes back as the decimal that was sent
    assert [(row.ts_ms, row.values["power_in"]) for row in rows] == [
        (START_MS, 11.0),
        (START_MS + 1000, 12.345),
        (START_MS + 2000, 0.1),
    ]


async def test_data_without_a_birth_asks_for_one_rebirth(
    settings: Settings, platform: FakePlatform, publisher: Publisher
) -> None:
    platform.register("m1")
    async with online(settings) as gateway:
        for second in range(20):
            publisher.send(*data("m1", second, 1.0, seq=second))
        await eventually(lambda: gateway.counters.dead_lettered == 20, "dead letters")
        await eventually(lambda: publisher.commands, "a command to the edge node")
        publisher.send(*birth("m1", 20))
        publisher.send(*data("m1", 21, 2.0))
        await eventually(lambda: gateway.counters.stored == 2, "birth and data stored")
        assert gateway.counters.rebirth_requests == 1
    assert publisher.commands == [topics.sparkplug("NCMD", COUNTY, ENTERPRISE)]
    assert letters(settings) == {Reason.NO_BIRTH: 20}


async def test_without_a_spool_a_store_that_is_away_stalls_and_loses_nothing(
    settings: Settings, platform: FakePlatform, publisher: Publisher, influxdb: Any
) -> None:
    platform.register("m1")
    settings = settings.model_copy(update={"store": influxdb.url, "spool_max_bytes": 0})
    state = topics.state(settings.host_id)
    async with online(settings) as gateway:
        publisher.send(*telemetry("m1", motor(0)))
        await eventually(lambda: gateway.counters.stored == 1, "the first stored")
        influxdb.kill()
        publisher.send_all([telemetry("m1", motor(second)) for second in range(1, 501)])
        await eventually(lambda: not gateway.online, "offline")
        await eventually(lambda: publisher.states and not publisher.states[-1]["online"], f"{state} offline")
        assert gateway.counters.stored == 1
        assert gateway.counters.dead_lettered == 0
        assert "store" in gateway.troubles()
        assert_adds_up(gateway)
        influxdb.start()
        await eventually(lambda: gateway.counters.stored == 501, "everything stored")
        await eventually(lambda: gateway.online, "online again")
        assert gateway.counters.redelivered == 0
    assert await stored(settings) == 501
    assert publisher.states[-1]["online"] is False  # said goodbye


async def test_without_a_spool_a_store_that_is_away_at_the_start_is_waited_for(
    settings: Settings, platform: FakePlatform, publisher: Publisher, influxdb: Any
) -> None:
    platform.register("m1")
    influxdb.stop()
    settings = settings.model_copy(update={"store": influxdb.url, "spool_max_bytes": 0})
    async with GatewayService(settings) as gateway:
        await eventually(lambda: gateway.troubles() == ["store"], "everything but the store")
        publisher.send(*telemetry("m1", motor()))
        assert not gateway.online
        influxdb.start()
        await eventually(lambda: gateway.online and gateway.counters.stored == 1, "stored")


async def test_points_that_the_store_refuses_are_dead_letters_and_the_others_are_stored(
    settings: Settings, platform: FakePlatform, publisher: Publisher, influxdb: Any
) -> None:
    platform.register("m1")
    platform.register("b1", "boiler")
    boiler = {signal.name: signal.nominal for signal in CATALOGUE["boiler"].signals}
    async with httpx.AsyncClient(base_url=influxdb.http, trust_env=False) as http:
        await http.post("/query", data={"q": f"CREATE DATABASE {influxdb.database}"})
        line = f'motor,unit=x power_in="text" {START_MS}'  # so that numbers conflict with the field's type
        answer = await http.post(
            "/write", params={"db": influxdb.database, "precision": "ms"}, content=line.encode()
        )
        assert answer.status_code == 204
    settings = settings.model_copy(update={"store": influxdb.url})
    async with online(settings) as gateway:
        publisher.send_all(
            [telemetry("b1", {"ts": START_MS + second, **boiler}) for second in range(50)]
            + [telemetry("m1", motor(second)) for second in range(3)]
            + [telemetry("b1", {"ts": START_MS + second, **boiler}) for second in range(50, 100)]
        )
        await eventually(lambda: gateway.counters.stored == 100, "the boiler's readings stored")
        await eventually(lambda: gateway.counters.dead_lettered == 3, "the motor's readings refused")
        await eventually(lambda: platform.counted == 1, "the boiler reported")
    assert letters(settings) == {Reason.REFUSED_BY_STORE: 3}
    assert await stored(settings, "boiler") == 100
    assert list(platform.first) == ["b1"]


async def test_a_platform_that_is_away_means_wait(
    settings: Settings, platform: FakePlatform, publisher: Publisher
) -> None:
    platform.register("m1")
    platform.register("m2")
    async with online(settings) as gateway:
        publisher.send(*telemetry("m1", motor(0)))
        await eventually(lambda: platform.counted == 1, "the first unit reported")
        platform.stop()
        publisher.send_all([telemetry("m2", motor(second)) for second in range(10)])
        publisher.send_all([telemetry("m1", motor(second)) for second in range(1, 10)])
        await eventually(lambda: gateway.counters.stored == 10, "the known unit's readings stored")
        assert gateway.counters.in_flight == 10
        assert gateway.counters.dead_lettered == 0
        assert_adds_up(gateway)
        platform.start()
        await eventually(lambda: gateway.counters.stored == 20, "the waiting readings stored")
        await eventually(lambda: platform.counted == 2, "both units reported")
    assert letters(settings) == {}
    assert await stored(settings) == 20


async def test_a_refused_key_keeps_the_gateway_offline(
    settings: Settings, platform: FakePlatform, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QILU_API_KEY", "another")
    platform.register("m1")
    async with GatewayService(settings) as gateway:
        await eventually(lambda: gateway.troubles() == ["platform"], "everything but the platform")
        publisher.send(*telemetry("m1", motor()))
        await eventually(lambda: gateway.counters.in_flight == 1, "the reading held")
        assert not gateway.online
        assert (await get(gateway, "/healthz")).status_code == 503


async def test_a_broker_that_restarts_is_found_again(
    settings: Settings, platform: FakePlatform, mosquitto: Any, publisher: Publisher
) -> None:
    platform.register("m1")
    async with online(settings) as gateway:
        publisher.send_all([telemetry("m1", motor(second)) for second in range(100)])
        await eventually(lambda: gateway.counters.stored == 100, "stored")
        mosquitto.stop()
        await eventually(lambda: not gateway.online, "offline")
        mosquitto.start()
        await eventually(lambda: gateway.online, "online")
        again = Publisher(mosquitto)
        again.send_all([telemetry("m1", motor(second)) for second in range(100, 200)])
        await eventually(lambda: gateway.counters.stored == 200, "stored")
        await eventually(lambda: again.states and again.states[-1]["online"], "STATE online")
        again.close()
    assert await stored(settings) == 200


async def test_what_comes_again_while_in_flight_counts_once(
    settings: Settings, platform: FakePlatform, mosquitto: Any, publisher: Publisher, influxdb: Any
) -> None:
    platform.register("m1")
    settings = settings.model_copy(update={"store": influxdb.url, "spool_max_bytes": 0})
    async with online(settings) as gateway:
        influxdb.stop()
        publisher.send_all([telemetry("m1", motor(second)) for second in range(100)])
        await eventually(lambda: gateway.counters.in_flight == 100, "in flight")
        mosquitto.stop()
        await eventually(lambda: "broker" in gateway.troubles(), "the broker away")
        mosquitto.start()
        await eventually(lambda: gateway.counters.redelivered == 100, "delivered again")
        assert gateway.counters.accepted == 100
        assert_adds_up(gateway)
        influxdb.start()
        await eventually(lambda: gateway.counters.stored == 100, "stored")
        await eventually(lambda: gateway.online, "online")
    # Everything was acknowledged: a new start finds nothing.
    async with online(settings) as gateway:
        publisher = Publisher(mosquitto)
        publisher.send(*telemetry("m1", motor(100)))
        await eventually(lambda: gateway.counters.stored == 1, "the new one stored")
        publisher.close()
        assert gateway.counters.accepted == 1
    assert await stored(settings) == 101


async def test_one_state_folder_serves_one_gateway(settings: Settings, platform: FakePlatform) -> None:
    async with GatewayService(settings):
        second = settings.model_copy(update={"store": "duckdb:///elsewhere.duckdb"})
        with pytest.raises(ConfigError, match="used by another gateway"):
            async with GatewayService(second):
                pass


RUN = """
import asyncio
from qilu_gateway.service import GatewayService
from qilu_gateway.settings import Settings
asyncio.run(GatewayService(Settings()).run())
"""


class GatewayProcess:
    """A gateway of its own process, to be killed without warning."""

    def __init__(self, settings: Settings, log: Path) -> None:
        given = settings.model_dump(mode="json", exclude_none=True)
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


async def test_kill_9_loses_nothing_and_counts_nothing_twice(
    settings: Settings,
    platform: FakePlatform,
    publisher: Publisher,
    influxdb: Any,
    tmp_path: Path,
) -> None:
    units = [f"m{number}" for number in range(20)]
    for unit in units:
        platform.register(unit)
    settings = settings.model_copy(update={"store": influxdb.url, "batch_size": 200})
    gateway = GatewayProcess(settings, tmp_path / "gateway.log")
    gateway.start()
    try:
        await eventually(lambda: publisher.states and publisher.states[-1]["online"], "online")
        sent = 0
        bad = 0
        publisher.send_all([birth(unit, 0) for unit in units[:10]])
        async with open_store(influxdb.url) as store:

            async def at_least(count: int) -> bool:
                return await store.count("motor") >= count

            for life in range(4):
                messages = []
                for second in range(life * 100 + 1, life * 100 + 101):
                    messages += [data(unit, second, 1.0 + second) for unit in units[:10]]
                    messages += [telemetry(unit, motor(second)) for unit in units[10:]]
                    messages.append(telemetry("nobody", motor(second)))
                sending = asyncio.create_task(asyncio.to_thread(publisher.send_all, messages))
                before = sent
                await eventually_async(lambda before=before: at_least(before + 300), "some stored")
                gateway.kill()
                gateway.start()
                await sending
                sent += 2000
                bad += 100
            await eventually_async(lambda: at_least(sent + 10), "everything stored")
            assert await store.count("motor") == sent + 10
            assert await store.count_duplicates("motor") == 0
        await eventually(lambda: platform.counted == 20, "every unit reported")
        await eventually(lambda: letters(settings).get(Reason.UNKNOWN_UNIT) == bad, "every refusal kept")
    finally:
        gateway.kill()
    assert letters(settings) == {Reason.UNKNOWN_UNIT: bad}
    assert platform.counted == 20
    # The will speaks for a gateway that cannot.
    await eventually(lambda: not publisher.states[-1]["online"], "STATE offline")


async def test_while_the_store_is_away_readings_are_spooled_and_reported_only_once_they_are_stored(
    settings: Settings, platform: FakePlatform, publisher: Publisher, influxdb: Any
) -> None:
    for unit in ("m1", "m2", "m3"):
        platform.register(unit)
    settings = settings.model_copy(update={"store": influxdb.url})
    async with online(settings) as gateway:
        publisher.send(*telemetry("m1", motor(0)))
        await eventually(lambda: platform.counted == 1, "the first reported")
        influxdb.stop()
        publisher.send_all([telemetry("m1", motor(second)) for second in range(1, 301)])
        publisher.send_all([telemetry("m2", [motor(second) for second in range(30, 10, -1)])])
        await eventually(lambda: gateway.counters.spooled == 320, "spooled")
        assert_adds_up(gateway)
        assert gateway.online
        assert gateway.troubles() == []
        text = (await get(gateway, "/metrics")).text
        assert "qilu_gateway_spooled 320.0" in text
        assert gateway.counters.in_flight == 0
    assert platform.counted == 1  # nothing is counted before it is stored
    # Another process goes on with what it finds.
    async with online(settings) as gateway:
        assert gateway.counters.recovered == gateway.counters.spooled == 320
        publisher.send(*telemetry("m3", motor(0)))
        await eventually(lambda: gateway.counters.spooled == 321, "spooled too")
        influxdb.start()
        await eventually(lambda: gateway.counters.stored == 321, "all stored")
        await eventually(lambda: platform.counted == 3, "all reported")
        publisher.send(*telemetry("m2", motor(40)))
        await eventually(lambda: gateway.counters.stored == 322, "live data goes straight to the store")
        assert gateway.counters.spooled == 0
    assert platform.first == {"m1": START_MS, "m2": START_MS + 11_000, "m3": START_MS}
    assert await stored(settings) == 1 + 300 + 20 + 1 + 1


async def test_a_full_spool_stalls_and_loses_nothing(
    settings: Settings, platform: FakePlatform, publisher: Publisher, influxdb: Any
) -> None:
    platform.register("m1")
    update = {"store": influxdb.url, "spool_max_bytes": 20_000, "spool_min_free_bytes": 0, "batch_size": 50}
    settings = settings.model_copy(update=update)
    async with online(settings) as gateway:
        publisher.send(*telemetry("m1", motor(0)))
        await eventually(lambda: gateway.counters.stored == 1, "the first stored")
        influxdb.stop()
        for start in range(1, 3001, 100):
            numbers = range(start, start + 100)
            publisher.send_all([telemetry("m1", motor(number, number * 0.123457)) for number in numbers])
        await eventually(lambda: "spool" in gateway.troubles(), "the spool nearly full")
        await eventually(lambda: not gateway.online, "offline")
        await eventually(lambda: gateway.counters.in_flight > 0, "no more acknowledged")
        assert 0 < gateway.counters.spooled < 3000
        assert_adds_up(gateway)
        influxdb.start()
        await eventually(lambda: gateway.counters.stored == 3001, "everything stored")
        await eventually(lambda: gateway.online, "online again")
        assert gateway.counters.spooled == 0
    assert await stored(settings) == 3001


async def test_spooled_readings_that_the_store_refuses_become_dead_letters_that_can_be_published_again(
    settings: Settings, platform: FakePlatform, publisher: Publisher, influxdb: Any
) -> None:
    platform.register("m1")
    platform.register("b1", "boiler")
    boiler = {signal.name: signal.nominal for signal in CATALOGUE["boiler"].signals}
    async with open_store(influxdb.url) as store:
        await store.ping()
    async with httpx.AsyncClient(base_url=influxdb.http, trust_env=False) as http:
        line = f'motor,unit=x power_in="text" {START_MS}'
        await http.post("/write", params={"db": influxdb.database, "precision": "ms"}, content=line.encode())
    settings = settings.model_copy(update={"store": influxdb.url})
    async with online(settings) as gateway:
        influxdb.stop()
        publisher.send_all([telemetry("m1", motor(second)) for second in range(3)])
        publisher.send_all([telemetry("b1", {"ts": START_MS + second, **boiler}) for second in range(100)])
        await eventually(lambda: gateway.counters.spooled == 103, "spooled")
        influxdb.start()
        await eventually(lambda: gateway.counters.stored == 100, "the boiler's readings stored")
        assert gateway.counters.dead_lettered == 3
        await eventually(lambda: platform.counted == 1, "the boiler reported")
    assert list(platform.first) == ["b1"]
    with dead_letters.open_for_reading(settings.state / statefile.FILE_NAME) as connection:
        rows = dead_letters.list_rows(connection)
    assert [row.reason for row in rows] == [Reason.REFUSED_BY_STORE] * 3
    assert (rows[-1].topic, json.loads(rows[-1].payload)) == (telemetry("m1", 0)[0], motor(0))


async def test_kill_9_loses_nothing_of_the_spool(
    settings: Settings, platform: FakePlatform, publisher: Publisher, influxdb: Any, tmp_path: Path
) -> None:
    platform.register("m1")
    settings = settings.model_copy(update={"store": influxdb.url, "batch_size": 100})
    gateway = GatewayProcess(settings, tmp_path / "gateway.log")
    gateway.start()
    try:
        await eventually(lambda: publisher.states and publisher.states[-1]["online"], "online")
        influxdb.stop()
        for life in range(3):
            numbers = range(life * 1000, life * 1000 + 1000)
            sending = asyncio.to_thread(publisher.send_all, [telemetry("m1", motor(n)) for n in numbers])
            await sending
            gateway.kill()
            gateway.start()
        influxdb.start()
        async with open_store(influxdb.url) as store:
            await eventually_async(lambda: _has(store, 3000), "everything stored")
            assert await store.count_duplicates("motor") == 0
        await eventually(lambda: platform.counted == 1, "reported")
    finally:
        gateway.kill()
    assert platform.first == {"m1": START_MS}
    assert await stored(settings) == 3000


async def _has(store: Any, count: int) -> bool:
    return bool(await store.count("motor") >= count)
