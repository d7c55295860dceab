"""History through the whole pipeline: killed, taken up again, verified; and what it must not touch."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiomqtt
import httpx
import paho.mqtt.client as paho
import paho_clients
import pytest
from gateway_world import eventually, eventually_async
from pydantic import SecretStr
from qilu.verify import verify
from qilu_contract.errors import ConfigError
from qilu_contract.store import Store
from qilu_contract.wire import sparkplug, topics
from qilu_devices.run.config import RunConfig
from qilu_devices.run.manifest import load_manifest
from qilu_devices.run.runner import run
from qilu_devices.scenario import parse_scenario
from qilu_devices.simulation import fleet_of
from qilu_gateway.service import GatewayService
from qilu_gateway.settings import Settings as GatewaySettings
from qilu_platform.service import PlatformService
from qilu_platform.settings import Settings
from qilu_stores import open_store

QILU = Path(sys.executable).parent / "qilu"
KEY = "admin-key-of-this-test"
SCENARIO = """
name: history
units: 5
seed: 7
classes: {motor: 1, wind_turbine: 1}
cities: {"370200": 1}
faults: {rate: 20}
"""


class Listener:
    """Messages of edge nodes and clocks, received by an independent client."""

    def __init__(self, broker: Any) -> None:
        self.data: list[tuple[str, bytes]] = []
        self.clocks = 0
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
        self._client.on_message = self._take
        self._client.connect(broker.host, broker.port)
        self._client.loop_start()
        self._client.subscribe([(f"{topics.HISTORY}spBv1.0/+/DDATA/+/+", 0), (topics.CLOCK, 0)])

    def _take(self, _client: object, _data: object, message: paho.MQTTMessage) -> None:
        if message.topic == topics.CLOCK:
            self.clocks += 1
        else:
            self.data.append((message.topic.removeprefix(topics.HISTORY).split("/")[3], message.payload))

    def close(self) -> None:
        paho_clients.close(self._client)


@asynccontextmanager
async def receivers(
    mosquitto: Any, tmp_path: Path
) -> AsyncIterator[tuple[GatewayService, Store, httpx.AsyncClient]]:
    async with open_store(f"duckdb:///{tmp_path}/readings.duckdb") as store:
        settings = Settings(db_url=f"sqlite:///{tmp_path}/registry.sqlite", port=0, api_key=SecretStr(KEY))
        async with PlatformService(settings, store) as platform:
            gateway_settings = GatewaySettings(
                broker=mosquitto.url, platform=platform.url, state=tmp_path / "gateway", http_port=0
            )
            headers = {"Authorization": f"Bearer {KEY}"}
            async with (
                GatewayService(gateway_settings, store=store, api_key=KEY) as gateway,
                httpx.AsyncClient(base_url=platform.url, headers=headers, trust_env=False) as http,
            ):
                yield gateway, store, http


async def qilu(*words: object) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(
        subprocess.run,
        [str(QILU), *map(str, words)],
        env=os.environ | {"QILU_API_KEY": KEY},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


async def test_a_killed_backfill_goes_on_where_it_stood(mosquitto: Any, tmp_path: Path) -> None:
    scenario, state = tmp_path / "history.yaml", tmp_path / "backfill"
    scenario.write_text(SCENARIO)
    start = "2024-06-02T16:00:00+00:00"
    flags = ["--scenario", scenario, "--start", start, "--days", 1, "--state", state]
    async with receivers(mosquitto, tmp_path) as (gateway, store, http):
        places = ["--broker", mosquitto.url, "--platform", str(http.base_url)]
        words = [str(QILU), *map(str, ["devices", "backfill", *flags, *places])]
        killed = await asyncio.create_subprocess_exec(
            *words, env=os.environ | {"QILU_API_KEY": KEY}, stderr=asyncio.subprocess.DEVNULL
        )

        def under_way() -> bool:
            assert killed.returncode is None
            if not (state / "run.json").exists():
                return False
            return any(node.readings_acked > 500 for node in load_manifest(state).nodes.values())

        try:
            await eventually(under_way, "a manifest that shows progress")
        finally:
            killed.send_signal(signal.SIGKILL)
            await killed.wait()
        stood = load_manifest(state)
        assert not stood.finished
        listener = Listener(mosquitto)  # hears what is published from now on

        # Not with other flags, which would be another history.
        other = await qilu("devices", "backfill", *flags, *places, "--seed", 8)
        assert (other.returncode, "with another seed" in other.stderr) == (2, True), other.stderr

        went_on = await qilu("devices", "backfill", *flags, *places)
        assert went_on.returncode == 0, went_on.stderr
        manifest = load_manifest(state)
        assert manifest.finished
        await eventually(lambda: gateway.counters.in_flight == 0, "all is stored")
        # Readings that the manifest records as acknowledged are not published again.
        heard = [(node, sparkplug.decode(body)) for node, body in listener.data]
        assert heard
        for node, payload in heard:
            assert payload.ts_ms is not None
            assert stood.nodes[node].acked_through_ms < payload.ts_ms <= manifest.until_ms
        verdict = (await verify(manifest, store)).total
        made = sum(node.readings_made for node in manifest.nodes.values())
        assert (verdict.expected, verdict.stored, verdict.good) == (made, made, True), verdict
        assert gateway.counters.dead_lettered == 0
        assert (state / "faults.parquet").stat().st_size > 0

        # It says of itself that it is history, and moves no clock and nothing that is about now.
        assert all(metric.is_historical for _, payload in heard for metric in payload.metrics)
        assert listener.clocks == 0
        listener.close()

        async def counted() -> bool:
            programme = (await http.get("/v1/programme")).json()
            return bool(programme["by_class"]["motor"]["units_on_cloud"])

        await eventually_async(counted, "its units are on cloud")
        assert (await http.get("/v1/programme")).json()["active"] == 0
        [unit, *_] = (await http.get("/v1/units", params={"class": "motor"})).json()["items"]
        assert unit["active"] is False

    again = await qilu("devices", "backfill", *flags, *places)
    assert (again.returncode, "complete" in again.stdout) == (0, True), again.stderr


async def test_history_has_the_samples_of_a_run_that_goes_live_at_that_time(tmp_path: Path) -> None:
    scenario = tmp_path / "history.yaml"
    scenario.write_text(SCENARIO.replace("motor: 1", "reactor: 1"))
    flags = ["--scenario", scenario, "--start", "2024-06-02T16:00:00+00:00", "--digest"]
    live = await qilu("devices", "run", *flags, "--for", "1d", "--speed", "1000")
    history = await qilu("devices", "backfill", *flags, "--days", 1)
    assert len(live.stdout.strip()) == 64, live.stderr
    assert live.stdout == history.stdout


async def test_a_backfill_gives_way_to_a_run_of_the_same_fleet(mosquitto: Any, tmp_path: Path) -> None:
    scenario = parse_scenario(SCENARIO, "history")
    node = fleet_of(scenario)[0].enterprise.id
    config = RunConfig(mosquitto.url, scenario, start_ms=0, speed=None, for_s=60.0, backfill=True)
    going = asyncio.create_task(run(config))
    while not going.done():
        async with aiomqtt.Client(
            mosquitto.host, mosquitto.port, identifier=node, protocol=aiomqtt.ProtocolVersion.V5
        ):
            await asyncio.wait([going], timeout=0.5)
    with pytest.raises(ConfigError, match=f"Another process publishes as edge node {node}"):
        await going


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--days", "3", "--start", "2099-01-01T00:00:00+00:00"], "are not over yet"),
        (["--days", "0"], "--days"),
    ],
)
async def test_a_backfill_that_cannot_be_is_refused(flags: list[str], said: str, tmp_path: Path) -> None:
    refused = await qilu("devices", "backfill", *flags, "--state", tmp_path)
    assert refused.returncode == 2
    assert said in refused.stderr
    assert os.listdir(tmp_path) == []
