"""The data catalogue: data sets and their quality on a real run with transport faults, products, DCAT and
asset administration shells."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import httpx
import pyshacl
import pytest
import rdflib
from aas_compliance_tool.compliance_check_aasx import check_deserialization
from aas_compliance_tool.state_manager import ComplianceToolStateManager, Status
from basyx.aas import model
from basyx.aas.adapter.aasx import AASXReader, DictSupplementaryFileContainer
from gateway_world import eventually, eventually_async, online
from pydantic import SecretStr
from qilu.cli import app
from qilu.verify import verify
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.errors import Reason
from qilu_contract.storage import Point
from qilu_contract.store import PlatformStore
from qilu_devices.run.config import RunConfig
from qilu_devices.run.manifest import load_manifest
from qilu_devices.run.runner import run
from qilu_devices.scenario import parse_scenario
from qilu_devices.simulation import fleet_of
from qilu_devices.transport.episodes import FILE_NAME
from qilu_gateway.settings import Settings as GatewaySettings
from qilu_platform.service import PlatformService
from qilu_platform.settings import Settings
from qilu_stores import open_store
from typer.testing import CliRunner

SHAPES = Path(__file__).parent / "dcat_ap_required.ttl"
ADMIN = "the-admin-key-of-this-test"
START_MS, MINUTES = 1_509_328_860_000, 6  # whole minutes, as quality has them
UNITS = 20
SCENARIO = """
name: rough
units: 20
seed: 5
classes: {motor: 1, pump: 1, boiler: 1}
cities: {'370200': 1, '370700': 1}
transport:
  missing: {every: 3m, for: 1m}
  late: {every: 3m, for: 90s}
  out_of_order: {every: 3m, for: 1m}
  duplicated: {every: 3m, for: 1m}
  wrong_type: {every: 3m, for: 30s}
  garbage_payload: {every: 3m, for: 30s}
"""


@asynccontextmanager
async def platform(
    folder: Path, store: PlatformStore | None = None, **settings: Any
) -> AsyncIterator[tuple[str, httpx.AsyncClient]]:
    told = Settings(
        db_url=f"sqlite:///{folder}/registry.sqlite", port=0, api_key=SecretStr(ADMIN), **settings
    )
    headers = {"Authorization": f"Bearer {ADMIN}"}
    async with (
        PlatformService(told, store) as service,
        httpx.AsyncClient(base_url=service.url, headers=headers, timeout=60.0, trust_env=False) as api,
    ):
        yield service.url, api


async def get(api: httpx.AsyncClient, path: str, **query: Any) -> Any:
    answer = await api.get(path, params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def quality(api: httpx.AsyncClient, id_: str) -> dict[str, Any]:
    window = {"from": START_MS, "to": START_MS + 60_000 * MINUTES}
    return dict(await get(api, f"/v1/catalogue/datasets/{id_}/quality", **window))


async def test_quality_is_what_verify_finds_on_a_run_with_transport_faults(
    mosquitto: Any, influxdb: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QILU_API_KEY", ADMIN)
    mosquitto.start()
    scenario = parse_scenario(SCENARIO, "rough.yaml")
    folder, names = tmp_path / "run", sorted({unit.class_name for unit in fleet_of(scenario)})
    async with platform(tmp_path, store_url=influxdb.url) as (url, api):
        gateway_settings = GatewaySettings(
            broker=mosquitto.url,
            store=influxdb.url,
            platform=url,
            state=tmp_path / "state",
            host_id="qilu",
            http_port=0,
        )
        async with online(gateway_settings) as gateway:
            config = RunConfig(mosquitto.url, scenario, url, start_ms=START_MS, speed=None, state=folder)
            report = await run(replace(config, for_s=60.0 * MINUTES - 1))
            counters, made = gateway.counters, report.readings_acked
            await eventually(lambda: counters.in_flight == 0 and counters.accepted >= made, "all of it")

            async def reported() -> bool:
                """Units on cloud and refused readings, which gateways report every two seconds."""
                sets = [await get(api, f"/v1/catalogue/datasets/{name}.370000") for name in names]
                assert all(each["lineage"]["measured"] == 0 for each in sets)
                told = (await refused(api, names)).total()
                return sum(each["units"] for each in sets) == UNITS and told >= counters.dead_lettered

            await eventually_async(reported, "units and refused readings at the platform")
        async with open_store(influxdb.url) as store:
            verdict = await verify(load_manifest(folder), store)
        found = {name: await quality(api, f"{name}.370000") for name in names}
        assert {name: each["stored"] for name, each in found.items()} == {
            name: counts.stored for name, counts in verdict.by(0).items()
        }
        cities = Counter(f"{county[:4]}00" for county in verdict.by(1))
        for city in cities:
            wanted = sum(counts.stored for county, counts in verdict.by(1).items() if county[:4] == city[:4])
            assert sum([(await quality(api, f"{name}.{city}"))["stored"] for name in names]) == wanted
        assert await refused(api, names) == {str(reason): count for reason, count in verdict.refused.items()}
        # Every scheduled reading was stored, refused, or never sent; garbage comes beside it. A unit's
        # first reading need not be on its grid, so each may have one more than is due.
        truth = duckdb.read_parquet(str(folder / FILE_NAME)).filter("kind = 'missing'")
        missing = truth.aggregate("sum(readings)").fetchall()[0][0]
        total = verdict.total
        assert total.expected == total.stored > UNITS
        assert missing > 0
        scheduled = total.expected + verdict.refused[Reason.WRONG_TYPE] + missing
        assert 0 <= scheduled - sum(each["due"] for each in found.values()) <= UNITS
        for each in found.values():
            assert each["completeness"] == each["stored"] / each["due"] < 1.0
            assert (each["late"], each["timeliness"]) == (0, 1.0)  # faster than minutes are closed


async def refused(api: httpx.AsyncClient, names: list[str]) -> Counter[str]:
    found = [await quality(api, f"{name}.370000") for name in names]
    return sum((Counter(each["refused"]) for each in found), Counter(found[0]["refused_unassigned"]))


OWNER = {"id": "my-works", "name": "Works", "county": "370202", "industry": "C34"}
PRODUCT = {
    "name": "Motors of my works",
    "version": "1.0",
    "owner": "my-works",
    "dataset": "motor.370202",
    "description": "Readings of two motors.",
    "terms": "For research.",
    "licence": "https://creativecommons.org/licenses/by/4.0/",
    "from_ms": START_MS,
    "until_ms": START_MS + 60_000,
}


@asynccontextmanager
async def two_motors(folder: Path) -> AsyncIterator[httpx.AsyncClient]:
    """One of a fleet and one that somebody registered; a minute, of which two readings came late."""
    ids = ("370202-motor-0000001", "my-motor")
    tags = ("370200", "370202", "C34", "my-works")
    async with (
        open_store(f"duckdb:///{folder}/readings.duckdb") as store,
        platform(folder, store, data_licence="https://example.org/licence") as (_, api),
    ):
        assert (await api.post("/v1/enterprises", json=OWNER)).status_code == 201
        for id_ in ids:
            body = {"id": id_, "class": "motor", "enterprise": "my-works"}
            assert (await api.post("/v1/units", json=body)).status_code == 201
        first = {"readings": [{"unit": id_, "ts_ms": START_MS} for id_ in ids]}
        assert (await api.post("/v1/ingest/first-readings", json=first)).status_code == 200
        step_ms = CATALOGUE["motor"].base_interval_s * 1000
        base = CATALOGUE["motor"].base_signal.name
        times = range(START_MS, START_MS + 60_000, step_ms)
        await store.write(
            [Point("motor", (*tags, id_), ts_ms, {base: 1.0}) for id_ in ids for ts_ms in times]
        )
        rolled = {"units": 2, "n": 2 * len(times) - 2, "sum": 1.0}
        await store.write(
            [Point("fleet", ("county", "370202", "370200", "motor", base, "gateway"), START_MS, rolled)]
        )
        yield api


async def test_a_data_set_has_columns_lineage_licence_and_late_readings(tmp_path: Path) -> None:
    async with two_motors(tmp_path) as api:
        for place in ("370000", "370200", "370202"):
            [item] = (await get(api, "/v1/catalogue/datasets", place=place))["items"]
            assert item["id"] == f"motor.{place}"
        assert (await get(api, "/v1/catalogue/datasets", place="370100"))["items"] == []
        whole = await get(api, "/v1/catalogue/datasets/motor.370202")
        assert (whole["units"], whole["lineage"]) == (2, {"simulated": 1, "measured": 1})
        assert (whole["first_ms"], whole["licence"]) == (START_MS, "https://example.org/licence")
        file = await api.get(f"{whole['export']}&from={START_MS}&to={START_MS + 60_000}")
        (tmp_path / "file.parquet").write_bytes(file.content)
        rows = duckdb.read_parquet(str(tmp_path / "file.parquet"))
        assert rows.columns == [column["name"] for column in whole["columns"]]
        found = await get(api, whole["quality"])  # the day up to the latest reading
        assert found["to_ms"] == START_MS + 60_000
        assert found["due"] == found["stored"] == len(rows)
        assert (found["completeness"], found["late"]) == (1.0, 2)
        assert found["timeliness"] == 1 - 2 / len(rows)
        for wrong in ("motor.110000", "nothing.370202", "motor"):
            assert (await api.get(f"/v1/catalogue/datasets/{wrong}")).status_code == 404
        long = await api.get(whole["quality"], params={"from": 0, "to": START_MS})
        assert (long.status_code, "31 days" in long.json()["detail"]) == (422, True)


async def test_versions_of_a_data_product_never_change(tmp_path: Path) -> None:
    async with two_motors(tmp_path) as api:
        made = await api.post("/v1/catalogue/products", json=PRODUCT)
        assert made.status_code == 201, made.text
        product = made.json()
        assert (product["id"], product["version"]) == ("dp-000001", "1.0")
        again = PRODUCT | {"id": product["id"]}
        assert (await api.post("/v1/catalogue/products", json=again)).status_code == 200
        other = again | {"terms": "For all."}
        refused = await api.post("/v1/catalogue/products", json=other)
        assert (refused.status_code, "never change" in refused.json()["detail"]) == (409, True)
        assert (await api.post("/v1/catalogue/products", json=other | {"version": "1.1"})).status_code == 201
        page = await get(api, "/v1/catalogue/products", limit=1)
        rest = await get(api, "/v1/catalogue/products", limit=1, cursor=page["next"])
        assert [each["version"] for each in page["items"] + rest["items"]] == ["1.0", "1.1"]
        assert rest["next"] is None
        assert await get(api, made.headers["Location"]) == product
        (tmp_path / "product.parquet").write_bytes((await api.get(product["export"])).content)
        units = duckdb.read_parquet(str(tmp_path / "product.parquet")).aggregate("count(DISTINCT unit)")
        assert units.fetchall() == [(2,)]

        rival = OWNER | {"id": "rival"}
        assert (await api.post("/v1/enterprises", json=rival)).status_code == 201
        body = {"name": "k", "role": "enterprise", "enterprise": "rival"}
        headers = {"Authorization": f"Bearer {(await api.post('/v1/keys', json=body)).json()['key']}"}
        theirs = await api.post("/v1/catalogue/products", json=PRODUCT, headers=headers)
        assert theirs.status_code == 403
        mine = again | {"owner": "rival", "version": "2"}
        assert (await api.post("/v1/catalogue/products", json=mine, headers=headers)).status_code == 409
        assert (await api.get(product["export"], headers=headers)).status_code == 404
        for change, status in (
            ({"dataset": "motor.1"}, 404),
            ({"owner": "nobody"}, 422),
            ({"licence": "free"}, 422),
        ):
            assert (await api.post("/v1/catalogue/products", json=PRODUCT | change)).status_code == status


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # rdflib and pyshacl use what rdflib deprecates
async def test_the_catalogue_is_dcat_with_all_that_dcat_ap_requires(tmp_path: Path) -> None:
    async with two_motors(tmp_path) as api:
        assert (await api.post("/v1/catalogue/products", json=PRODUCT)).status_code == 201
        answer = await api.get("/v1/catalogue", params={"place": "370202"})
    assert answer.headers["Content-Type"] == "application/ld+json"
    graph = rdflib.Graph().parse(data=answer.text, format="json-ld")
    titles = set(map(str, graph.objects(None, rdflib.DCTERMS.title)))
    assert {"Motors of my works", "Clouds in Qilu: data assets"} < titles
    conforms, _, text = pyshacl.validate(graph, shacl_graph=str(SHAPES), shacl_graph_format="turtle")
    assert conforms, text
    for required in (rdflib.DCTERMS.title, rdflib.DCTERMS.publisher, rdflib.DCAT.accessURL):
        short = rdflib.Graph() + graph
        short.remove((None, required, None))
        assert not pyshacl.validate(short, shacl_graph=str(SHAPES), shacl_graph_format="turtle")[0], required


async def test_the_shell_of_a_unit_passes_the_compliance_tool(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QILU_API_KEY", ADMIN)
    file = tmp_path / "motor.aasx"
    async with two_motors(tmp_path) as api:
        command = [
            "unit",
            "aas",
            "my-motor",
            "--to",
            str(file),
            "--records",
            "5",
            "--platform",
            str(api.base_url),
        ]
        done = await asyncio.to_thread(CliRunner().invoke, app, command)
        assert done.exit_code == 0, done.output
        assert (await api.get("/v1/units/nobody/aas")).status_code == 404
        generic = {"id": "odd", "class": "generic", "enterprise": "my-works"}
        assert (await api.post("/v1/units", json=generic)).status_code == 201
        refused = await api.get("/v1/units/odd/aas")
        assert (refused.status_code, "generic unit" in refused.json()["detail"]) == (422, True)
        none = await api.get("/v1/catalogue/datasets?place=370200&class=generic")
        assert none.json() == {"items": []}
    manager = ComplianceToolStateManager()
    check_deserialization(str(file), manager)
    assert manager.status is Status.SUCCESS, [manager.format_step(n, 2) for n in range(len(manager.steps))]

    objects: Any = model.DictIdentifiableStore()
    with AASXReader(file) as reader:
        reader.read_into(objects, DictSupplementaryFileContainer())
    by_name = {each.id_short: each for each in objects}
    assert set(by_name) == {"my_motor", "Nameplate", "TechnicalData", "TimeSeries"}
    [shell] = (each for each in objects if isinstance(each, model.AssetAdministrationShell))
    assert shell.asset_information.global_asset_id == "urn:88.370200.my-works/my-motor"
    assert {reference.resolve(objects).id_short for reference in shell.submodel} == {*by_name} - {"my_motor"}
    properties = by_name["TechnicalData"].get_referable("TechnicalProperties")
    for signal in CATALOGUE["motor"].signals:
        if signal.type != "bool":
            limits = properties.get_referable(signal.name).get_referable("PhysicalRange")
            assert (limits.min, limits.max) == (signal.low, signal.high)
    records = by_name["TimeSeries"].get_referable(["Segments", "InternalSegment", "Records"])
    base = CATALOGUE["motor"].base_signal.name
    assert [each.get_referable(base).value for each in records] == [1.0] * 5
