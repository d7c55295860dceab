"""Commands for dead letters: list, show, replay, purge."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
from gateway_world import (
    START_MS,
    FakePlatform,
    Publisher,
    birth,
    data,
    eventually,
    get,
    letters,
    motor,
    online,
    stored,
    telemetry,
)
from qilu_contract.errors import Reason
from qilu_gateway.settings import Settings

QILU = Path(sys.executable).parent / "qilu"


def command(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [QILU, "gateway", "dead-letters", *map(str, words)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


async def run(*words: str | Path) -> dict[str, Any]:
    said = await asyncio.to_thread(command, *words, "--json")
    assert said.returncode == 0, said.stderr
    found: dict[str, Any] = json.loads(said.stdout)
    return found


async def test_letters_are_taken_again_once_their_cause_is_mended(
    settings: Settings, platform: FakePlatform, publisher: Publisher
) -> None:
    platform.register("m1")
    async with online(settings) as gateway:
        mixed = [motor(2), {"ts": START_MS, "smell": 1}]
        publisher.send_all([telemetry("late", [motor(second), motor(second + 1)]) for second in (0, 2, 4)])
        publisher.send_all([telemetry("m1", mixed), ("qilu/v1/nowhere", b"x")])
        publisher.send_all([data("late", second, 7.0, seq=(second + 245) % 256) for second in (10, 11)])
        await eventually(lambda: gateway.counters.dead_lettered == 6 + 1 + 1 + 2, "refused")
        assert letters(settings) == {
            Reason.UNKNOWN_UNIT: 6 + 2,
            Reason.UNKNOWN_SIGNAL: 1,
            Reason.BAD_TOPIC: 1,
        }
        state = settings.state
        # Not fixed yet: nothing changes, and nothing is counted twice.
        assert await run("replay", "--state", state, "--all") == {
            "done": 0, "readings": 0, "kept": 7, "before_id": None,
        }  # fmt: skip
        assert sum(letters(settings).values()) == 10
        platform.register("late")
        done = await run("replay", "--state", state, "--unit", "late")
        assert (done["done"], done["readings"], done["kept"]) == (5, 8, 0)
        assert letters(settings)[Reason.NO_BIRTH] == 2  # it is registered, and its birth is still missing
        before = gateway.counters.stored
        publisher.send(*birth("late", 9))
        await eventually(lambda: gateway.counters.stored == before + 1, "born")
        done = await run("replay", "--state", state, "--reason", "no_birth")
        assert (done["done"], done["readings"], done["kept"]) == (2, 2, 0)
        assert letters(settings) == {Reason.UNKNOWN_SIGNAL: 1, Reason.BAD_TOPIC: 1}
        assert gateway.counters.rebirth_requests <= 1  # of the live messages; what is replayed asks for none
        assert gateway.counters.sequence_gaps == 0
        await eventually(lambda: "late" in platform.first, "reported")
        assert platform.first["late"] <= START_MS + 9000

        refused = await asyncio.to_thread(command, "purge", "--state", state)
        assert (refused.returncode, "--all" in refused.stderr) == (2, True)
        assert (await run("purge", "--state", state, "--reason", "bad_topic"))["done"] == 1
        assert letters(settings) == {Reason.UNKNOWN_SIGNAL: 1}
    assert await stored(settings) == 1 + 6 + 1 + 2
    # No gateway runs: there is nobody to take letters again, but they can be thrown away.
    alone = await asyncio.to_thread(command, "replay", "--state", state, "--all")
    assert (alone.returncode, len(alone.stderr.strip().splitlines())) == (1, 1)
    assert await run("purge", "--state", state, "--all") == {
        "done": 1, "readings": 1, "kept": 0, "before_id": None,
    }  # fmt: skip
    assert letters(settings) == {}


async def test_a_letter_is_listed_and_shown(
    settings: Settings, platform: FakePlatform, publisher: Publisher
) -> None:
    async with online(settings) as gateway:
        publisher.send_all([telemetry("nobody", motor(0)), ("qilu/v1/nowhere", b"\xff")])
        await eventually(lambda: gateway.counters.dead_lettered == 2, "refused")
        one = await run("list", "--state", settings.state, "--reason", "unknown_unit")
        assert json.loads(one["payload"]) == motor(0)
        shown = await run("show", one["id"], "--state", settings.state)
        assert shown == one
        key = (settings.state / "endpoint.key").read_text().strip()
        served = (await get(gateway, "/dead-letters?unit=nobody&limit=5", key)).json()
        assert served == [one]
        assert (await get(gateway, "/dead-letters?reason=none", key)).status_code == 400
        assert (await asyncio.to_thread(command, "show", "99", "--state", settings.state)).returncode == 1
        plain = await asyncio.to_thread(command, "list", "--state", settings.state)
        assert "unknown_unit" in plain.stdout


async def test_letters_are_shown_and_moved_only_for_the_key_of_the_state_folder(
    settings: Settings, platform: FakePlatform, publisher: Publisher
) -> None:
    async with online(settings) as gateway:
        publisher.send(*telemetry("nobody", motor(0)))
        await eventually(lambda: gateway.counters.dead_lettered == 1, "refused")
        base = f"http://127.0.0.1:{gateway.http_port}"
        key_file = settings.state / "endpoint.key"
        assert key_file.stat().st_mode & 0o077 == 0
        assert settings.state.stat().st_mode & 0o077 == 0
        right = {"Authorization": f"Bearer {key_file.read_text().strip()}"}
        async with httpx.AsyncClient(base_url=base, trust_env=False) as http:
            for headers in ({}, {"Authorization": "Bearer x"}, {"Authorization": "Bearer qilu_guess"}):
                for method, path in (
                    ("GET", "/dead-letters"),
                    ("POST", "/dead-letters/purge"),
                    ("POST", "/dead-letters/replay"),
                ):
                    answer = await http.request(method, path, headers=headers)
                    assert answer.status_code == 401, (method, path, headers)
                    assert "endpoint.key" in answer.text
            unclear = await http.post("/dead-letters/purge", json={"everything": True}, headers=right)
            wrong = await http.get("/dead-letters/purge", headers=right)
            large = await http.post("/dead-letters/purge", content=b" " * 2**21, headers=right)
            listed = await http.get("/dead-letters", headers=right)
            unknown = await http.get("/nothing", headers=right)
        answers = (unclear, wrong, large, listed, unknown)
        assert [answer.status_code for answer in answers] == [400, 405, 413, 200, 404]
        assert len(listed.json()) == 1
    assert letters(settings) == {Reason.UNKNOWN_UNIT: 1}


async def test_a_message_that_was_too_large_is_taken_again_once_the_bound_is_raised(
    settings: Settings, platform: FakePlatform, publisher: Publisher
) -> None:
    platform.register("m1")
    topic, payload = telemetry("m1", [motor(second) for second in range(5000)])
    assert len(payload) > settings.max_payload_bytes
    async with online(settings) as gateway:
        publisher.send(topic, payload)
        await eventually(lambda: gateway.counters.dead_lettered == 5000, "counted in readings")
    async with online(settings.model_copy(update={"max_payload_bytes": len(payload)})):
        done = await run("replay", "--state", settings.state, "--reason", "too_large")
        assert (done["done"], done["readings"]) == (1, 5000)
    assert await stored(settings) == 5000
    assert letters(settings) == {}
