"""The host's STATE as edge nodes follow it, whatever else is published under its id and whatever its clock
does: on both brokers, in both profiles.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import paho_clients
import pytest
from gateway_world import GatewayProcess, eventually, get, online
from qilu_contract.wire import topics
from qilu_contract.wire.clock import wall_ms
from qilu_gateway.settings import Settings

HOUR_MS = 3_600_000


@pytest.fixture(params=["reliable", "strict"])
def profile(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def settings(settings: Settings, any_broker: Any, profile: str) -> Settings:
    return settings.model_copy(update={"broker": any_broker.url, "profile": profile})


class Follower:
    """An edge node, as far as it follows the STATE of its host (Sparkplug 3.0, chapter 5)."""

    def __init__(self, broker: Any, host_id: str) -> None:
        self.topic = topics.state(host_id)
        self.online = False
        self.since_ms = -1
        self._client = paho.Client(
            paho.CallbackAPIVersion.VERSION2, f"follower-{secrets.token_hex(4)}", protocol=paho.MQTTv5
        )
        self._client.on_message = self._follow
        self._client.connect(broker.host, broker.port)
        self._client.loop_start()
        self._client.subscribe(self.topic, 1)

    def _follow(self, _client: object, _data: object, message: paho.MQTTMessage) -> None:
        with contextlib.suppress(ValueError, KeyError):
            state = json.loads(message.payload)
            if state["timestamp"] >= self.since_ms:
                self.since_ms, self.online = state["timestamp"], state["online"]

    def publish(self, payload: bytes) -> None:
        self._client.publish(self.topic, payload, 1, retain=True).wait_for_publish(30)

    def close(self) -> None:
        paho_clients.close(self._client)


@pytest.fixture
def follower(any_broker: Any, settings: Settings) -> Iterator[Follower]:
    with contextlib.closing(Follower(any_broker, settings.host_id)) as follower:
        yield follower


async def settled(broker: Any, follower: Follower, wanted: bool) -> None:
    """An earlier subscriber and a new one receive the same state."""
    await eventually(lambda: follower.online == wanted, f"online is {wanted}")
    # The last message may still be on its way: ask until the broker delivers the right one.
    deadline = time.monotonic() + 60
    while True:
        with contextlib.closing(Follower(broker, follower.topic.rpartition("/")[2])) as late:
            await eventually(lambda: late.since_ms >= 0 or time.monotonic() > deadline, "a retained STATE")
            if late.online == wanted and late.since_ms == follower.since_ms:
                return
        assert time.monotonic() < deadline, f"retained: {late.online} {late.since_ms}"


async def test_what_others_publish_under_the_hosts_id_is_put_right(
    any_broker: Any, settings: Settings, follower: Follower
) -> None:
    """tck-id-message-flow-hid-sparkplug-state-message-delivered."""
    async with online(settings):
        await settled(any_broker, follower, True)
        # The retained message cleared, overwritten, and by an older host's will.
        for junk in (b"", b"OFFLINE", b'{"online": true}', b'{"online": false, "timestamp": 17}'):
            follower.publish(junk)
            await settled(any_broker, follower, True)
        ahead_ms = wall_ms() + HOUR_MS
        follower.publish(json.dumps({"online": False, "timestamp": ahead_ms}).encode())
        await settled(any_broker, follower, True)
        assert follower.since_ms > ahead_ms
        # Also when it says nothing wrong: the will has to be newer than that.
        follower.publish(json.dumps({"online": True, "timestamp": ahead_ms + HOUR_MS}).encode())
        await eventually(lambda: follower.since_ms > ahead_ms + HOUR_MS, "newer than all")
        await settled(any_broker, follower, True)
    await settled(any_broker, follower, False)


async def test_a_gateway_whose_clock_was_ahead_is_followed_after_it_was_corrected(
    any_broker: Any, settings: Settings, follower: Follower, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("qilu_gateway.connect.host.wall_ms", lambda: wall_ms() + 2 * HOUR_MS)
        async with online(settings) as gateway:
            await settled(any_broker, follower, True)
            assert "reasons" not in (await get(gateway, "/healthz")).json()
        await settled(any_broker, follower, False)
    async with online(settings) as gateway:
        await settled(any_broker, follower, True)
        health = (await get(gateway, "/healthz")).json()
        assert (health["status"], list(health["reasons"])) == ("ok", ["clock"])
        assert "check the clock" in health["reasons"]["clock"]
    await settled(any_broker, follower, False)


@pytest.mark.parametrize(
    ("any_broker", "profile"), [("mosquitto", "reliable"), ("builtin", "strict")], indirect=True
)
async def test_the_will_of_a_gateway_that_is_killed_counts_after_all_that(
    any_broker: Any, settings: Settings, follower: Follower, tmp_path: Path
) -> None:
    """tck-id-host-topic-phid-birth-payload-timestamp, host-topic-phid-death-payload. Its state is lost, too,
    and the one that comes next finds its place by what the broker kept."""
    ahead_ms = wall_ms() + HOUR_MS
    follower.publish(json.dumps({"online": False, "timestamp": ahead_ms}).encode())
    gateway = GatewayProcess(settings, tmp_path / "gateway.log")
    gateway.start()
    try:
        await settled(any_broker, follower, True)
        born_ms = follower.since_ms
        assert born_ms > ahead_ms
    finally:
        gateway.kill()
    await settled(any_broker, follower, False)
    assert follower.since_ms == born_ms  # the will has the timestamp of the birth
    async with online(settings.model_copy(update={"state": tmp_path / "another"})):
        await settled(any_broker, follower, True)
