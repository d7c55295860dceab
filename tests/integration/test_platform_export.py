"""Stored readings of many units as a file, from both kinds of store."""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import duckdb
import httpx
import pytest
from pydantic import SecretStr
from qilu_common.http_server import HttpServer
from qilu_contract.errors import Retryable
from qilu_contract.storage import Point
from qilu_contract.store import PlatformStore, Store
from qilu_platform.app import create_app
from qilu_platform.client import KeyRefused, Platform
from qilu_platform.settings import Settings

ADMIN = "the-admin-key-of-this-test"
START = 1_654_041_600_000
PLACES = (("370200", "370202", "C34", "370202-e00001"), ("370100", "370112", "C34", "370112-e00001"))
MOTORS = [
    Point("motor", (*place, f"m{n}-{unit}"), START + 10_000 * at, {"power_in": 1.25 + at, "slip": 0.5})
    for n, place in enumerate(PLACES)
    for unit in range(3)
    for at in range(20)
]
SLOW = [Point("motor", (*PLACES[0], "m0-0"), START + 5_000, {"winding_temp": 61.5})]
LOOMS = [Point("loom", (*PLACES[0], "l0"), START, {"speed": 600.0, "picks": 7})]
TWO = ("m0-1", "m1-2")
SPAN = {"class": "motor", "from": str(START), "to": str(START + 200_000)}
Stored = dict[tuple[str, int], dict[str, Any]]


def expected(*points: Point) -> Stored:
    return {(point.tags[-1], point.ts_ms): dict(point.fields) for point in points}


def of_csv(text: str) -> Stored:
    found = {}
    for row in csv.DictReader(io.StringIO(text)):
        at = duckdb.sql(f"SELECT epoch_ms('{row.pop('ts').removesuffix('Z')}'::TIMESTAMP)").fetchall()[0][0]
        unit = row.pop("unit")
        found[unit, at] = {name: float(value) for name, value in row.items() if value}
    return found


def of_parquet(file: Path) -> Stored:
    reader = duckdb.sql(f"SELECT unit, epoch_ms(ts), * EXCLUDE (unit, ts) FROM '{file}'")
    names = reader.columns[2:]
    return {
        row[:2]: {name: value for name, value in zip(names, row[2:], strict=True) if value is not None}
        for row in reader.fetchall()
    }


@pytest.fixture
async def store(store: Store) -> Store:
    await store.write([*MOTORS, *SLOW, *LOOMS])
    return store


@asynccontextmanager
async def platform(folder: Path, store: PlatformStore | None) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(Settings(db_url=f"sqlite:///{folder}/platform.db", api_key=SecretStr(ADMIN)), store)
    headers = {"Authorization": f"Bearer {ADMIN}"}
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://platform", headers=headers
        ) as http,
    ):
        yield http


async def test_readings_are_exported_as_they_are_stored(store: PlatformStore, tmp_path: Path) -> None:
    async with platform(tmp_path, store) as http:
        for filters, chosen in (
            ({}, [*MOTORS, *SLOW]),
            ({"city": "370100"}, [each for each in MOTORS if each.tags[0] == "370100"]),
            ({"county": "370202", "to": str(START + 100_000)}, [*SLOW, *(
                each for each in MOTORS if each.tags[1] == "370202" and each.ts_ms < START + 100_000
            )]),
            ({"enterprise": "370112-e00001"}, [each for each in MOTORS if each.tags[3] == "370112-e00001"]),
            ({"unit": ["m0-1", "m1-2", "nobody"]}, [each for each in MOTORS if each.tags[4] in TWO]),
            ({"unit": ["nobody"]}, []),
            ({"class": "loom"}, LOOMS),
        ):  # fmt: skip
            answer = await http.get("/v1/export/readings", params=SPAN | filters)
            assert answer.status_code == 200, answer.text
            assert of_csv(answer.text) == expected(*chosen), filters
            answer = await http.get("/v1/export/readings", params=SPAN | filters | {"format": "parquet"})
            file = tmp_path / "export.parquet"
            file.write_bytes(answer.content)
            assert of_parquet(file) == expected(*chosen), filters


async def test_a_client_writes_a_file_and_an_enterprise_sees_its_own(
    store: PlatformStore, tmp_path: Path
) -> None:
    app = create_app(Settings(db_url=f"sqlite:///{tmp_path}/platform.db", api_key=SecretStr(ADMIN)), store)
    async with app.router.lifespan_context(app), HttpServer(app, "127.0.0.1", 0, 10) as server:

        def work() -> None:
            with Platform(server.url, ADMIN) as admin:
                for name in ("all.csv", "all.parquet"):
                    size = admin.export_readings(tmp_path / name, "motor", START, START + 200_000)
                    assert size == (tmp_path / name).stat().st_size > 0
                assert of_csv((tmp_path / "all.csv").read_text()) == expected(*MOTORS, *SLOW)
                assert of_parquet(tmp_path / "all.parquet") == expected(*MOTORS, *SLOW)
                admin.create_enterprise("Jinan Works", "370112", "C34", id="370112-e00001")
                own = admin.create_key("own", "enterprise", "370112-e00001").key
                gateway = admin.create_key("gateway", "ingest").key
            with Platform(server.url, own) as caller:
                caller.export_readings(tmp_path / "own.csv", "motor", START, START + 200_000)
            found = of_csv((tmp_path / "own.csv").read_text())
            assert found == expected(*(each for each in MOTORS if each.tags[3] == "370112-e00001"))
            with Platform(server.url, gateway) as caller, pytest.raises(KeyRefused):
                caller.export_readings(tmp_path / "no.csv", "motor", START, START + 200_000)
            assert not list(tmp_path.glob("no.csv*"))

        await asyncio.to_thread(work)


async def test_what_cannot_be_exported_is_refused_in_a_sentence(tmp_path: Path) -> None:
    class Away:
        def scan(self, measurement: str, start_ms: int, end_ms: int) -> Any:
            raise Retryable("the store is unavailable")

    async with platform(tmp_path, None) as http:
        for wrong, status, word in (
            ({}, 503, "--store"),
            ({"to": str(START)}, 422, "before"),
            ({"from": "yesterday"}, 422, "from"),
            ({"class": "teapot"}, 422, "class"),
        ):
            answer = await http.get("/v1/export/readings", params=SPAN | wrong)
            assert (answer.status_code, word in answer.text) == (status, True), answer.text
        assert (await http.get("/v1/export/units")).status_code == 200
    (tmp_path / "other").mkdir()
    async with platform(tmp_path / "other", Away()) as http:  # type: ignore[arg-type]
        for format_ in ("csv", "parquet"):
            answer = await http.get("/v1/export/readings", params=SPAN | {"format": format_})
            assert (answer.status_code, "the store is unavailable" in answer.text) == (503, True), answer.text
