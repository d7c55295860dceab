"""Commands all the way: over HTTP to the platform, over Sparkplug to simulated equipment, and back as data,
with a real broker, gateway, store and platform, and a run that is verified afterwards."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiomqtt
import httpx
import pytest
from gateway_world import Publisher, eventually, eventually_async
from paho.mqtt.subscribeoptions import SubscribeOptions
from pydantic import SecretStr
from qilu.brokers import EmbeddedBroker
from qilu.keyring import Keyring
from qilu.verify import verify
from qilu_contract.store import Store
from qilu_contract.wire import sparkplug, topics
from qilu_contract.wire.commands import Answer, answer_metrics
from qilu_contract.wire.sparkplug import DataType, Metric, Payload
from qilu_devices.run.config import RunConfig, RunReport
from qilu_devices.run.manifest import Manifest, load_manifest
from qilu_devices.run.runner import run
from qilu_devices.scenario import load_scenario
from qilu_devices.simulation import fleet_of
from qilu_gateway.service import GatewayService
from qilu_gateway.settings import Settings as GatewaySettings
from qilu_platform.service import PlatformService
from qilu_platform.settings import Settings
from qilu_stores import open_store

SCENARIO = load_scenario()
UNITS = 40
FLEET = fleet_of(SCENARIO, units=UNITS)
START_MS = 1_717_400_000_000  # a Monday in June, 15:33 in Shandong: everybody is at work
SPEED = 30.0
QILU = Path(sys.executable).parent / "qilu"


@dataclass
class World:
    http: httpx.AsyncClient
    store: Store
    gateway: GatewayService
    broker: Any
    state: Path
    running: asyncio.Task[RunReport]

    async def command(self, unit: str, **body: object) -> dict[str, Any]:
        sent = await self.http.post(f"/v1/units/{unit}/commands", json=body)
        assert sent.status_code == 201, sent.text
        return dict(sent.json())

    async def answered(self, command: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = command

        async def settled() -> bool:
            nonlocal found
            items = (await self.http.get(f"/v1/units/{command['unit']}/commands")).json()["items"]
            found = next(item for item in items if item["id"] == command["id"])
            return bool(found["state"] != "sent")

        await eventually_async(settled, f"an answer to {command}")
        return found

    async def latest(self, unit: str, signal: str) -> tuple[int, Any]:
        row = (await self.http.get(f"/v1/units/{unit}/latest")).json()
        return row.get("ts_ms", 0), row.get("values", {}).get(signal)

    @property
    def manifest(self) -> Manifest:
        return load_manifest(self.state / "devices")


@asynccontextmanager
async def world(mosquitto: Any, tmp_path: Path) -> AsyncIterator[World]:
    """All parts, and a fleet that runs until the end of the context; it is verified there."""
    async with open_store(f"duckdb:///{tmp_path}/readings.duckdb") as store:
        settings = Settings(
            db_url=f"sqlite:///{tmp_path}/registry.sqlite",
            port=0,
            broker=mosquitto.url,
            api_key=SecretStr("admin-key-of-this-test"),
            ingest_key=SecretStr("ingest-key-of-this-test"),
        )
        async with PlatformService(settings, store) as platform:
            gateway_settings = GatewaySettings(
                broker=mosquitto.url, platform=platform.url, state=tmp_path / "gateway", http_port=0
            )
            gateway = GatewayService(gateway_settings, store=store, api_key="ingest-key-of-this-test")
            headers = {"Authorization": "Bearer admin-key-of-this-test"}
            async with (
                gateway,
                httpx.AsyncClient(base_url=platform.url, headers=headers, trust_env=False) as http,
            ):
                stop = asyncio.Event()
                config = RunConfig(
                    mosquitto.url,
                    SCENARIO,
                    platform.url,
                    "admin-key-of-this-test",
                    units=UNITS,
                    start_ms=START_MS,
                    speed=SPEED,
                    state=tmp_path / "devices",
                )
                running = asyncio.create_task(run(config, stop=stop))
                try:
                    await eventually(lambda: gateway.counters.stored >= UNITS, "the fleet speaks")
                    yield World(http, store, gateway, mosquitto, tmp_path, running)
                finally:
                    stop.set()
                    report = await running
                await eventually(lambda: gateway.counters.in_flight == 0, "all is stored")
                assert (report.pending, report.dropped) == (0, 0)
                assert gateway.counters.dead_lettered == 0
                verdict = (await verify(load_manifest(tmp_path / "devices"), store)).total
                assert verdict.expected > UNITS
                assert verdict.good, verdict


def unit_of(class_name: str) -> str:
    return next(unit.id for unit in FLEET if unit.class_name == class_name)


async def hear(listener: aiomqtt.Client, flags: list[tuple[int, bool]]) -> None:
    """Note QoS and retain flag of each message."""
    async for message in listener.messages:
        flags += [(message.qos, message.retain)]


async def test_commands_take_effect_in_stored_telemetry_and_their_answers_come_back(
    mosquitto: Any, tmp_path: Path
) -> None:
    """Also topics-dcmd-mqtt, payloads-dcmd-qos and payloads-dcmd-retain, as published."""
    motor = unit_of("motor")
    flags: list[tuple[int, bool]] = []
    async with (
        world(mosquitto, tmp_path) as all_parts,
        aiomqtt.Client(mosquitto.host, mosquitto.port, protocol=aiomqtt.ProtocolVersion.V5) as listener,
    ):
        as_published = SubscribeOptions(qos=1, retainAsPublished=True)
        await listener.subscribe("spBv1.0/+/DCMD/#", options=as_published)
        hearing = asyncio.create_task(hear(listener, flags))
        stop = await all_parts.answered(await all_parts.command(motor, command="stop"))
        assert (stop["state"], stop["reason"]) == ("accepted", None)
        assert stop["holds_from_ms"] > START_MS

        async def stands() -> bool:
            ts_ms, power = await all_parts.latest(motor, "power_in")
            return bool(ts_ms >= stop["holds_from_ms"] and power == 0.0)

        await eventually_async(stands, "the motor has stopped")
        started = await all_parts.answered(await all_parts.command(motor, command="start"))
        load = await all_parts.answered(
            await all_parts.command(motor, command="set_point", name="load", value=100.0)
        )
        assert (started["state"], load["state"]) == ("accepted", "accepted")
        fault = await all_parts.answered(
            await all_parts.command(motor, command="fault", name="bearing", value=1.0, duration_s=7200.0)
        )
        assert fault["state"] == "accepted"

        # Out of range, unknown, and to a unit that cannot: refused, for a reason, and nothing breaks.
        for body, said in (
            ({"command": "set_point", "name": "load", "value": 500.0}, "takes 15 to 108 %, not 500"),
            ({"command": "set_point", "name": "colour", "value": 1.0}, "no set point 'colour'"),
            ({"command": "fault", "name": "flat_tyre"}, "no fault 'flat_tyre'"),
        ):
            refused = await all_parts.answered(await all_parts.command(motor, **body))
            assert refused["state"] == "refused"
            assert said in refused["reason"]
            assert refused["holds_from_ms"] is None
        # A unit that no edge node speaks for: nobody answers.
        enterprise = next(unit.enterprise for unit in FLEET if unit.id == motor)
        lonely = {"id": "lonely", "class": "motor", "enterprise": enterprise.id}
        assert (await all_parts.http.post("/v1/units", json=lonely)).status_code == 201
        unheard = await all_parts.command("lonely", command="stop")

        async def turns() -> bool:
            _, power = await all_parts.latest(motor, "power_in")
            return bool(power)

        await eventually_async(turns, "the motor turns again")
        await assert_downtime_has_the_stop_command_as_its_reason(all_parts)
        answer = await all_parts.answered(unheard)  # its node exists, and answers that there is no such unit
        assert (answer["state"], "no unit of this edge node" in answer["reason"]) == ("refused", True)
        hearing.cancel()
        assert len(flags) >= 5
        assert set(flags) == {(0, False)}

        # All of it is in the books.
        audit = (await all_parts.http.get("/v1/audit", params={"subject": f"units/{motor}"})).json()
        commanded = [item for item in audit["items"] if item["action"] == "commanded"]
        assert len(commanded) == 7
        assert commanded[-1]["detail"]["command"] == "stop"
    kinds = [given.kind for given in load_manifest(tmp_path / "devices").commands]
    looms = sum(unit.class_name == "loom" for unit in FLEET)
    assert kinds == ["stop", "start", "set_point", "fault", *["stop"] * looms, *["start"] * looms]
    truth = load_manifest(tmp_path / "devices").ground_truth()
    assert (motor, "bearing") in {(case.unit, case.fault) for case in truth}

    # The manifest is enough to have the same samples again, live and as history.
    manifest = load_manifest(tmp_path / "devices")
    span = (manifest.until_ms - manifest.start_ms) // 1000
    words = ["devices", "run", "--digest", "--units", str(UNITS), "--start", "2024-06-03T07:33:20+00:00"]
    digests = set()
    for more in ([], ["--commands", str(tmp_path / "devices" / "run.json")]):
        command = [str(QILU), *words, "--for", f"{span}s", *more]
        said = await asyncio.to_thread(
            subprocess.run, command, capture_output=True, text=True, timeout=120, check=True
        )
        digests.add(said.stdout.strip())
    assert len(digests) == 2


async def assert_downtime_has_the_stop_command_as_its_reason(all_parts: World) -> None:
    looms = [unit.id for unit in FLEET if unit.class_name == "loom"]

    async def command_all(command: str) -> list[int]:
        """The times from which the command holds, once a minute of readings after it is stored."""
        answers = [await all_parts.answered(await all_parts.command(loom, command=command)) for loom in looms]
        assert {answer["state"] for answer in answers} == {"accepted"}
        times_ms = [answer["holds_from_ms"] for answer in answers]

        async def passed() -> bool:
            latest = [(await all_parts.latest(loom, "speed"))[0] for loom in looms]
            return all(ts_ms > since_ms + 60_000 for ts_ms, since_ms in zip(latest, times_ms, strict=True))

        await eventually_async(passed, f"a minute after {command}")
        return times_ms

    stops_ms, starts_ms = await command_all("stop"), await command_all("start")
    reasons = set()
    for loom, stop_ms, start_ms in zip(looms, stops_ms, starts_ms, strict=True):
        window = {"from": stop_ms - 60_000, "to": start_ms}
        found = (await all_parts.http.get(f"/v1/units/{loom}/oee", params=window)).json()["states"]
        assert (found[-1]["state"], found[-1]["to_ms"] - stop_ms >= 60_000) == ("stopped", True)
        # A loom that was stopped already when the command came has the reason of that stop, or none.
        reasons.add((found[-1]["reason_kind"], found[-1]["reason"], found[-1]["from_ms"] >= stop_ms - 10_000))
    assert ("command", "stop", True) in reasons
    assert not {kind for kind, _, began_with_it in reasons if began_with_it} - {"command"}


async def test_sloppy_and_hostile_commands_hurt_nobody(mosquitto: Any, tmp_path: Path) -> None:
    motor = next(unit for unit in FLEET if unit.class_name == "motor")
    async with world(mosquitto, tmp_path) as all_parts:
        publisher = Publisher(mosquitto)
        topic = topics.sparkplug("DCMD", motor.enterprise.county, motor.enterprise.id, motor.id)
        stop = Metric("Device Control/Stop", datatype=DataType.BOOLEAN, value=True)
        for body in (
            b"",
            b"\xff" * 1000,
            sparkplug.encode(Payload(None, None, [])),
            sparkplug.encode(Payload(None, None, [stop, stop])),
            sparkplug.encode(Payload(2**63, 255, [Metric("x" * 1000, value="y" * 1000)])),
        ):
            publisher.send(topic, body)
        publisher.send(topics.sparkplug("DCMD", motor.enterprise.county, motor.enterprise.id, "other"), b"")
        # Without an id, a time and at QoS 1 it is a command all the same.
        publisher.send(topic, sparkplug.encode(Payload(None, None, [stop])))

        async def stands() -> bool:
            return bool((await all_parts.latest(motor.id, "power_in"))[1] == 0.0)

        await eventually_async(stands, "the motor has stopped")
        publisher.close()
        assert [given.kind for given in all_parts.manifest.commands] == ["stop"]
        assert not all_parts.running.done()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"command": "explode"}, "command"),
        ({"command": "set_point", "name": "load"}, "a set point takes a name and a value"),
        ({"command": "stop", "name": "load"}, "stop takes neither name nor value"),
        ({"command": "fault"}, "a fault takes a name"),
        ({"command": "stop", "duration_s": 3.0}, "only a fault takes duration_s"),
        ({"command": "set_point", "name": "load", "value": True}, "value"),
        ({"command": "stop", "now": True}, "now"),
    ],
)
async def test_what_is_no_command_is_not_sent(body: dict[str, Any], said: str, tmp_path: Path) -> None:
    async with bare_platform(tmp_path) as http:
        answer = await http.post("/v1/units/m-1/commands", json=body)
        assert answer.status_code == 422
        assert said in json.dumps(answer.json())


async def test_who_may_command_and_without_a_broker_nothing_is_sent(tmp_path: Path) -> None:
    async with bare_platform(tmp_path) as http:
        for role, status in (("viewer", 403), ("fleet", 403), ("operator", 503)):
            made = (await http.post("/v1/keys", json={"name": role, "role": role})).json()
            headers = {"Authorization": f"Bearer {made['key']}"}
            answer = await http.post("/v1/units/m-1/commands", json={"command": "stop"}, headers=headers)
            assert answer.status_code == status, role
        assert (await http.get("/v1/units/m-1/commands")).json() == {"unit": "m-1", "items": []}
        assert (await http.post("/v1/units/m-2/commands", json={"command": "stop"})).status_code == 404
        assert (await http.post("/v1/units/m-1/retire")).is_success
        assert (await http.post("/v1/units/m-1/commands", json={"command": "stop"})).status_code == 409


@asynccontextmanager
async def bare_platform(tmp_path: Path, broker: str | None = None) -> AsyncIterator[httpx.AsyncClient]:
    """A platform with one unit, and no broker unless given."""
    settings = Settings(
        db_url=f"sqlite:///{tmp_path}/registry.sqlite",
        port=0,
        broker=broker,
        api_key=SecretStr("admin-key-of-this-test"),
    )
    async with PlatformService(settings) as platform:
        headers = {"Authorization": "Bearer admin-key-of-this-test"}
        async with httpx.AsyncClient(base_url=platform.url, headers=headers, trust_env=False) as http:
            body = {"id": "e-1", "name": "A", "county": "370202", "industry": "C31"}
            assert (await http.post("/v1/enterprises", json=body)).is_success
            body = {"id": "m-1", "class": "motor", "enterprise": "e-1"}
            assert (await http.post("/v1/units", json=body)).is_success
            yield http


async def test_only_the_units_own_edge_node_answers_for_it(mosquitto: Any, tmp_path: Path) -> None:
    async with bare_platform(tmp_path, mosquitto.url) as http:

        async def sent() -> httpx.Response:
            return await http.post("/v1/units/m-1/commands", json={"command": "stop"})

        async def connected() -> bool:
            return bool((await sent()).status_code == 201)

        await eventually_async(connected, "the platform is connected")
        command = (await sent()).json()
        answer = Answer(command["id"], "m-1", "stop", True, "", START_MS)
        body = sparkplug.encode(Payload(START_MS, 1, answer_metrics(answer, START_MS)))

        async def states() -> tuple[str, float]:
            found = (await http.get("/v1/units/m-1/commands")).json()["items"]
            [line] = re.findall(
                r"\nqilu_platform_foreign_answers_total (\S+)", (await http.get("/metrics")).text
            )
            return next(each["state"] for each in found if each["id"] == command["id"]), float(line)

        async def are(state: str, foreign: int) -> bool:
            return await states() == (state, foreign)

        publisher = Publisher(mosquitto)
        publisher.send(topics.sparkplug("NDATA", "370202", "e-2"), body)
        publisher.send(topics.sparkplug("NDATA", "370203", "e-1"), body)
        await eventually_async(lambda: are("sent", 2), "others are counted, and not believed")
        events = (await http.get("/v1/security/events?kind=foreign_answer")).json()
        assert events["by_kind"] == {"foreign_answer": 2}
        assert {(each["enterprise"], each["subject"]) for each in events["items"]} == {
            ("e-1", "m-1"),
            ("e-2", "m-1"),
        }
        publisher.send(topics.sparkplug("NDATA", "370202", "e-1"), body)
        await eventually_async(lambda: are("accepted", 2), "its own node is believed")
        publisher.close()


async def test_the_platforms_broker_user_may_command_and_hear_answers_and_nothing_else(
    mosquitto_program: str, tmp_path: Path, free_port: Any
) -> None:
    keyring = Keyring(tmp_path / "keys")
    keyring.make()
    port = free_port()
    async with EmbeddedBroker("mosquitto", port, tmp_path / "broker", keyring, tmp_path / "broker.log", None):

        def client(user: str) -> aiomqtt.Client:
            return aiomqtt.Client(
                "127.0.0.1",
                port,
                username=user,
                password=keyring.password(user),
                protocol=aiomqtt.ProtocolVersion.V5,
            )

        async with (
            client("platform") as platform,
            client("devices") as devices,
            client("operator") as all_of_it,
        ):
            await platform.subscribe("spBv1.0/#", qos=1)
            await devices.publish("spBv1.0/370202/DDATA/e-1/m-1", b"reading", qos=1)
            await devices.publish("spBv1.0/370202/NDATA/e-1", b"answer", qos=1)
            async for message in platform.messages:
                assert message.payload == b"answer"
                break
            await all_of_it.subscribe("spBv1.0/#", qos=1)
            for topic in ("NCMD/e-1", "DDATA/e-1/m-1", "NDATA/e-1"):
                await platform.publish(f"spBv1.0/370202/{topic}", b"not mine to say", qos=1)
            await platform.publish("spBv1.0/370202/DCMD/e-1/m-1", b"stop", qos=1)
            async for message in all_of_it.messages:
                assert message.payload == b"stop"
                break
