"""Two cells, each with a broker, a gateway and a database, and one platform that reads from both."""

from __future__ import annotations

import asyncio
import csv
import io
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import Mosquitto
from gateway_world import START_MS, eventually
from pydantic import SecretStr
from qilu.verify_cells import verify_cells
from qilu_common.cells import load_cells
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.storage import Point
from qilu_devices.fleet import Unit
from qilu_devices.run.config import RunConfig
from qilu_devices.run.runner import run
from qilu_devices.scenario import load_scenario
from qilu_gateway.settings import Settings
from qilu_gateway.sharing import Sharing
from qilu_platform.service import PlatformService
from qilu_platform.settings import Settings as PlatformSettings
from qilu_stores import open_store

KEY = "the-key-of-this-test"


@pytest.fixture
def brokers(mosquitto_program: str, tmp_path: Path) -> Iterator[list[Mosquitto]]:
    found = []
    for name in ("east", "west"):
        folder = tmp_path / f"mosquitto-{name}"
        folder.mkdir()
        found.append(Mosquitto(mosquitto_program, folder))
        found[-1].start()
    yield found
    for broker in found:
        broker.kill()


async def test_each_cell_has_its_counties_and_the_platform_finds_them(
    brokers: list[Mosquitto], influxdb_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QILU_API_KEY", KEY)
    at = f"influxdb://{influxdb_server.host}:{influxdb_server.port}/cell_{secrets.token_hex(4)}"
    file = tmp_path / "cells.yaml"
    lines = [
        f'  - {{name: cell{number}, counties: {number}/2, broker: "{broker.url}", store: "{at}_{number}"}}'
        for number, broker in enumerate(brokers, 1)
    ]
    file.write_text("\n".join(["shards: 2", "cells:", *lines, ""]))
    cells = load_cells(file)
    settings = PlatformSettings(
        db_url=f"sqlite:///{tmp_path}/registry.sqlite",
        port=0,
        api_key=SecretStr(KEY),
        cells=file,
        store_url="influxdb://127.0.0.1:1/not_used",
    )
    async with PlatformService(settings) as platform:
        gateways = [
            Sharing(
                Settings(
                    broker=cell.broker,
                    store=cell.store,
                    platform=platform.url,
                    state=tmp_path / cell.name,
                    http_port=0,
                ),
                cells.shards_of(cell),
                cells.all_shards,
                fixed=False,
            )
            for cell in cells.cells
        ]
        serving = [asyncio.create_task(gateway.run()) for gateway in gateways]
        config = RunConfig(
            broker="",
            scenario=load_scenario(),
            platform=platform.url,
            units=150,
            speed=None,
            for_s=60.0,
            gateways=cells.all_shards,
            cells=cells,
            start_ms=START_MS,
            state=tmp_path / "devices",
        )
        report = await run(config)
        assert report.pending == report.dropped == 0
        services = [service for gateway in gateways for service in gateway._services.values()]
        await eventually(
            lambda: sum(each.counters.stored for each in services) >= report.readings_acked, "stored"
        )
        await asyncio.gather(*(_eventually_on_cloud(each) for each in services))
        units = config.fleet()
        await _read(platform.url, units, cells.of)
        for gateway in gateways:
            gateway.stop()
        await asyncio.gather(*serving)
    verdict = await asyncio.to_thread(verify_cells, [tmp_path / "devices"], file)
    assert verdict.total.good, verdict.total
    assert verdict.total.expected == report.readings_acked
    # A reading that is in the other cell's store as well.
    unit = units[0]
    other = next(cell for cell in cells.cells if cell != cells.of(unit.enterprise.county))
    async with open_store(other.store) as store:
        e = unit.enterprise
        tags = (e.county[:4], e.county, e.industry, e.id, unit.id)
        base = CATALOGUE[unit.class_name].base_signal.name
        await store.write([Point(unit.class_name, tags, START_MS + 1000, {base: 1.0})])
    verdict = await asyncio.to_thread(verify_cells, [tmp_path / "devices"], file)
    assert verdict.total.unexpected == 1


async def _eventually_on_cloud(service: Any) -> None:
    while await service.unreported():
        await asyncio.sleep(0.05)


async def _read(url: str, units: list[Unit], cell_of: Any) -> None:
    """Latest, range and export of units in both cells."""
    some = {cell_of(unit.enterprise.county).name: unit for unit in units}
    assert len(some) == 2
    headers = {"Authorization": f"Bearer {KEY}"}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60.0, trust_env=False) as api:
        for unit in some.values():
            latest = await api.get(f"/v1/units/{unit.id}/latest")
            assert latest.status_code == 200, latest.text
            span = {"from": START_MS, "to": START_MS + 120_000}
            rows = (await api.get(f"/v1/units/{unit.id}/readings", params=span)).json()["rows"]
            assert rows[-1][0] == latest.json()["ts_ms"]
            query = {"class": unit.class_name, **span}
            text = (await api.get("/v1/export/readings", params=query)).text
            found = {row["unit"] for row in csv.DictReader(io.StringIO(text))}
            assert found == {each.id for each in units if each.class_name == unit.class_name}
