"""Hand-made devices at a running gateway: readings without a time, and problems reported to owners."""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cut_wire import Wire
from gateway_world import (
    COUNTY,
    ENTERPRISE,
    START_MS,
    FakePlatform,
    GatewayProcess,
    Publisher,
    eventually,
    eventually_async,
    letters,
    motor,
    online,
    stored,
    telemetry,
)
from qilu_contract.errors import Reason
from qilu_contract.wire import topics
from qilu_gateway import statefile
from qilu_gateway.settings import Settings
from qilu_gateway.settle import dead_letters
from qilu_stores import open_store


@pytest.fixture
def wire(mosquitto: Any) -> Iterator[Wire]:
    wire = Wire(mosquitto.port)
    yield wire
    wire.close()


async def test_a_reading_without_a_time_that_is_delivered_again_is_one_reading(
    settings: Settings, platform: FakePlatform, publisher: Publisher, wire: Wire, tmp_path: Path
) -> None:
    platform.register("m1")
    platform.register("m2")
    messages = [telemetry("m1", {"power_in": 11})] * 3
    messages += [
        telemetry("m2", {"values": {"power_in": 11}, "ts": None}),
        *[telemetry("nobody", {"power_in": 1})] * 2,
    ]
    process = GatewayProcess(
        settings.model_copy(update={"broker": f"mqtt://127.0.0.1:{wire.port}"}), tmp_path / "gateway.log"
    )

    async def has_all() -> bool:
        with contextlib.suppress(httpx.HTTPError, OSError):
            address = (settings.state / "endpoint").read_text().strip()
            async with httpx.AsyncClient(trust_env=False) as http:
                text = (await http.get(f"{address}/metrics")).text
            return "qilu_gateway_stored_total 4.0" in text and 'reason="unknown_unit"} 2.0' in text
        return False

    process.start()
    try:
        await eventually(
            lambda: any(state["host"] == settings.host and state["online"] for state in publisher.states),
            "online",
        )
        wire.mute()  # the acknowledgements do not arrive
        publisher.send_all(messages)
        await eventually_async(has_all, "all stored, or refused")
        wire.cut()
    finally:
        process.kill()
    async with online(settings) as gateway:
        await eventually(lambda: gateway.counters.accepted == len(messages), "all delivered again")
        await eventually(lambda: gateway.counters.in_flight == 0, "all brought to an end")
        assert gateway.counters.redelivered_messages >= len(messages)
    assert await stored(settings) == 4
    assert letters(settings) == {Reason.UNKNOWN_UNIT: 2}
    with dead_letters.open_for_reading(settings.state / statefile.FILE_NAME) as connection:
        kept = [json.loads(row.payload) for row in dead_letters.list_rows(connection)]
    assert {row["power_in"] for row in kept} == {1}
    assert len({row["ts"] for row in kept}) == 2  # taken again, they are two readings


@pytest.mark.parametrize("broken", ["connection", "broker"])
async def test_what_breaks_does_not_double_readings_without_a_time(
    settings: Settings, platform: FakePlatform, publisher: Publisher, wire: Wire, mosquitto: Any, broken: str
) -> None:
    platform.register("m1")
    settings = settings.model_copy(update={"broker": f"mqtt://127.0.0.1:{wire.port}"})
    async with online(settings) as gateway:
        wire.mute()
        publisher.send_all([telemetry("m1", {"power_in": 11})] * 5)
        await eventually(lambda: gateway.counters.stored == 5, "stored")
        if broken == "broker":
            mosquitto.stop()
            mosquitto.start()
        wire.cut()
        wire.mend()
        await eventually(lambda: gateway.counters.redelivered_messages >= 5, "delivered again")
        await eventually(lambda: gateway.counters.in_flight == 0, "brought to an end")
    assert await stored(settings) == 5


async def test_owners_are_told_what_was_refused_or_left_out(
    settings: Settings, platform: FakePlatform, publisher: Publisher
) -> None:
    platform.register("m1")
    platform.register("theirs", enterprise="370202-e00002")
    platform.problems = None  # an older platform
    async with online(settings) as gateway:
        publisher.send(*telemetry("m1", {"ts": START_MS // 1000, "power_in": 1}))
        publisher.send(*telemetry("m1", motor()))
        await eventually(lambda: gateway.counters.stored == 1, "stored all the same")
    platform.problems = []
    async with online(settings) as gateway:
        for second in (0, 1):
            publisher.send(*telemetry("m1", {"ts": (START_MS + second) // 1000, "power_in": 1}))
        publisher.send(*telemetry("m1", motor(1) | {"smell": 1, "power_in": 99_999.0}))
        publisher.send(*telemetry("nobody", [motor(), motor(1)]))
        publisher.send(*telemetry("theirs", motor()))
        publisher.send(topics.telemetry(COUNTY, ENTERPRISE, "Motor_1"), b"{}")
        publisher.send("qilu/v1/no/owner", b"{}")
        publisher.send(*telemetry("m1", {"power_in": 5}))
        await eventually(lambda: len({*_counts(platform)}) == 6, "told")
        assert _counts(platform) == {
            ("m1", "bad_timestamp"): 2,
            ("m1", "unknown_signal"): 1,
            ("m1", "out_of_range"): 1,
            ("nobody", "unknown_unit"): 2,
            ("theirs", "wrong_owner"): 1,
            (ENTERPRISE, "bad_topic"): 1,
        }
        by_reason = {each["reason"]: each for each in platform.problems}
        seconds = by_reason["bad_timestamp"]
        assert (seconds["enterprise"], seconds["county"]) == (ENTERPRISE, COUNTY)
        assert seconds["excerpt"] == (
            "ts 1700000000 looks like seconds: send milliseconds since 1970: "
            '{"ts": 1700000000, "power_in": 1}'
        )
        assert "99999" in by_reason["out_of_range"]["excerpt"]
        assert "370202-e00002" not in by_reason["wrong_owner"]["excerpt"]
        assert gateway.counters.stored == 2
        await eventually(lambda: gateway.counters.dead_lettered == 7, "refused")
    async with open_store(settings.store) as store:
        row = await store.latest("motor", {"unit": "m1"})
        assert row is not None
        assert row.values["power_in"] == 5.0


def _counts(platform: FakePlatform) -> dict[tuple[str, str], int]:
    found: Counter[tuple[str, str]] = Counter()
    for each in platform.problems or ():
        found[each["unit"], each["reason"]] += each["count"]
    return found
