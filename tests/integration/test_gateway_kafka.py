"""Stored readings on Kafka (`--also`): all of them, at least once, none before it is stored."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from fake_influx import STORED, FakeInflux
from gateway_world import (
    START_MS,
    FakePlatform,
    GatewayProcess,
    Publisher,
    birth,
    data,
    eventually,
    eventually_async,
    get,
    motor,
    online,
    stored,
    telemetry,
)
from kafka_servers import ApacheKafka, MockKafka, Topic, reading_of
from qilu_contract.errors import ConfigError
from qilu_contract.storage import BORN, Point
from qilu_gateway.publish.kafka import KafkaAddress, KafkaTopic
from qilu_gateway.publish.messages import messages_of
from qilu_gateway.settings import Settings

UNITS = ("m1", "m2", "m3")
AWAY = (503, {}, '{"error": "away"}')


@pytest.fixture(params=["mock", "apache"])
def kafka(
    request: pytest.FixtureRequest, tmp_path: Path, free_port: Callable[[], int]
) -> Iterator[MockKafka | ApacheKafka]:
    if request.param == "mock":
        yield MockKafka()
        return
    server = ApacheKafka(tmp_path / "kafka", free_port)
    yield server
    server.kill()


@pytest.fixture
def topic(kafka: MockKafka | ApacheKafka) -> Iterator[Topic]:
    topic = Topic(kafka.servers)
    yield topic
    topic.close()


def lines_of(fake: FakeInflux) -> set[tuple[str, int]]:
    """Unit and time (ms) of the stored lines."""
    found = [re.fullmatch(r"motor,.*?unit=(\w+) .* (\d+)", line) for line in set(fake.lines)]
    return {(match[1], int(match[2])) for match in found if match is not None}


async def test_every_stored_reading_is_published_although_the_gateway_is_killed(
    settings: Settings,
    platform: FakePlatform,
    publisher: Publisher,
    fake_influx: FakeInflux,
    kafka: MockKafka | ApacheKafka,
    topic: Topic,
    tmp_path: Path,
) -> None:
    for unit in UNITS:
        platform.register(unit)
    settings = settings.model_copy(update={"store": fake_influx.url, "also": topic.url})
    gateway = GatewayProcess(settings, tmp_path / "gateway.log")
    published: set[tuple[str, int]] = set()

    def poll() -> int:
        new = [reading_of(body) for _, body in topic.poll()]
        assert set(new) <= lines_of(fake_influx)  # none before it is stored
        published.update(new)
        return len(published)

    seconds = count()
    for least in (100, 300):
        gateway.start()
        if least == 100:
            await eventually(lambda: any(state["online"] for state in publisher.states), "subscribed")
        if isinstance(kafka, ApacheKafka) and least == 300:
            kafka.kill()
        while len(lines_of(fake_influx)) < least:  # killed somewhere in the middle of a stream
            some = [next(seconds) for _ in range(20)]
            publisher.send_all([telemetry(unit, motor(second)) for second in some for unit in UNITS])
            if not isinstance(kafka, ApacheKafka) or least != 300:
                await asyncio.to_thread(poll)
        gateway.kill()
        if isinstance(kafka, ApacheKafka) and least == 300:
            kafka.start()
    sent = {(unit, START_MS + second * 1000) for second in range(next(seconds)) for unit in UNITS}
    gateway.start()
    try:
        await eventually(lambda: lines_of(fake_influx) == sent, "all stored")

        async def all_published() -> bool:
            return await asyncio.to_thread(poll) == len(sent)

        await eventually_async(all_published, "all published")
    finally:
        gateway.kill()
    assert {key for key, body in topic.read if key == body["unit"]} == set(UNITS)


async def test_readings_wait_on_disk_for_kafka_and_the_store_first(
    settings: Settings,
    platform: FakePlatform,
    publisher: Publisher,
    fake_influx: FakeInflux,
    free_port: Callable[[], int],
) -> None:
    for unit in UNITS:
        platform.register(unit)
    nowhere = f"kafka://127.0.0.1:{free_port()}/readings"
    settings = settings.model_copy(update={"store": fake_influx.url, "also": nowhere})
    kafka = MockKafka()
    topic = Topic(kafka.servers)
    async with online(settings) as gateway:
        publisher.send_all([telemetry("m1", motor(second)) for second in range(50)])
        await eventually(lambda: gateway.counters.stored == 50, "stored without Kafka")
        await eventually(lambda: gateway.counters.in_flight == 0, "acknowledged without Kafka")
        fake_influx.answer = lambda _: AWAY
        publisher.send_all([telemetry("m2", motor(second)) for second in range(30)])
        await eventually(lambda: gateway.counters.spooled == 30, "spooled")
        assert "qilu_gateway_kafka_waiting 50.0" in (await get(gateway, "/metrics")).text
    async with online(settings.model_copy(update={"also": topic.url})) as gateway:
        publisher.send_all([birth("m3"), data("m3", 1, 12.5)])
        await eventually(lambda: gateway.counters.spooled == 32, "spooled too")
        await eventually_async(lambda: reads(topic, 50), "what was stored is published")
        assert {body["unit"] for _, body in topic.read} == {"m1"}
        fake_influx.answer = lambda _: STORED
        await eventually_async(lambda: reads(topic, 82), "the rest, once it is stored")
        text = (await get(gateway, "/metrics")).text
        await eventually(lambda: gateway.counters.spooled == 0, "shipped")
        assert "qilu_gateway_unpublished_total 0.0" in text
    last = next(body for _, body in topic.read if reading_of(body) == ("m3", START_MS + 1000))
    assert last["values"]["power_in"] == 12.5
    assert all(BORN not in body["values"] for _, body in topic.read)
    topic.close()


async def reads(topic: Topic, count: int) -> bool:
    await asyncio.to_thread(topic.poll)
    return len({reading_of(body) for _, body in topic.read}) == count


async def test_without_room_for_kafka_readings_are_stored_and_counted_as_unpublished(
    settings: Settings, platform: FakePlatform, publisher: Publisher, free_port: Callable[[], int]
) -> None:
    platform.register("m1")
    nowhere = f"kafka://127.0.0.1:{free_port()}/readings"
    update = {"also": nowhere, "also_max_bytes": 5000, "batch_size": 50}
    settings = settings.model_copy(update=update)
    async with online(settings) as gateway:
        for start in range(0, 1000, 100):
            numbers = range(start, start + 100)
            publisher.send_all([telemetry("m1", motor(number, number * 0.123457)) for number in numbers])
        await eventually(lambda: gateway.counters.stored == 1000, "everything stored")
        await eventually(lambda: gateway.counters.in_flight == 0, "everything acknowledged")
        text = (await get(gateway, "/metrics")).text
        counts = {
            name: int(float(value)) for name, value in re.findall(r"^qilu_gateway_(\w+) (\S+)$", text, re.M)
        }
        assert counts["unpublished_total"] > 0
        assert counts["kafka_waiting"] > 0
        assert counts["unpublished_total"] + counts["kafka_waiting"] == 1000
        assert gateway.online
    assert await stored(settings) == 1000


async def test_a_message_has_the_unit_as_its_key_and_the_reading_as_json() -> None:
    tags = ("3702", "370202", "C34", "370202-e00001", "m1")
    point = Point("motor", tags, START_MS, {"speed": 1480.5, BORN: START_MS})
    [message] = messages_of([point, Point("motor", tags, START_MS, {BORN: START_MS})], [])
    assert message["key"] == "m1"
    assert json.loads(message["value"]) == {
        "ts": START_MS,
        "class": "motor",
        "city": "3702",
        "county": "370202",
        "industry": "C34",
        "enterprise": "370202-e00001",
        "unit": "m1",
        "values": {"speed": 1480.5},
    }


def test_an_address_names_servers_and_a_topic() -> None:
    assert KafkaAddress.parse("kafka://a,b:9093/qilu.readings") == KafkaAddress(
        "a:9092,b:9093", "qilu.readings"
    )


@pytest.mark.parametrize(
    "url",
    [
        "kafka://a",
        "kafka:///topic",
        "kafka://a,/topic",
        "mqtt://a/topic",
        "kafka://u:p@a/topic",
        "kafka://a/b/c",
    ],
)
async def test_other_addresses_are_refused_with_a_sentence(url: str, settings: Settings) -> None:
    with pytest.raises(ConfigError, match="use kafka://host"):
        KafkaAddress.parse(url)


@pytest.mark.parametrize("config", ["password", "no.such.setting=1", "security.protocol=MAGIC"])
def test_invalid_settings_of_the_client_are_named_without_their_secrets(config: str) -> None:
    with pytest.raises(ConfigError, match="QILU_KAFKA_CONFIG") as refused:
        KafkaTopic(KafkaAddress("127.0.0.1:9", "t"), f"sasl.password=hidden\n{config}")
    assert "hidden" not in str(refused.value)
