"""The API answers as /openapi.json says, whatever it is sent: no failure of ours, no undocumented answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import schemathesis
from conftest import InfluxServer
from hypothesis import HealthCheck, Phase, settings
from pydantic import BaseModel, SecretStr
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.catalogue.places import BRANCHES, COUNTIES
from qilu_platform.app import create_app
from qilu_platform.models import answers, bodies, catalogue, device_types, letters, policy, reports
from qilu_platform.service import PlatformService
from qilu_platform.settings import Settings
from schemathesis import Case
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

ADMIN = "the-admin-key-of-this-test"
OWNER, UNIT = "370202-e00007", "370202-motor-0000123"
EXAMPLES = int(os.environ.get("QILU_TEST_EXAMPLES", "8"))
"""Examples per operation: few, because there are many operations; raise it to test more."""
NEEDS_MORE = {
    *("/v1/dead-letters/replay", "/v1/what-if"),
    *("/v1/programme/replay/again", "/v1/programme/replay/speed"),
}
"""Operations that a platform alone cannot do: they ask a gateway, the model, the stack, or a player."""
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]

# Describing does not touch the database that the settings name.
schema = schemathesis.openapi.from_dict(create_app(Settings(db_url="sqlite:///nothing.db")).openapi())


@schemathesis.serializer("application/x-ndjson", "text/csv")
def as_it_is(_context: object, value: object) -> bytes:
    """Whatever text was made up, as the file."""
    return value if isinstance(value, bytes) else str(value).encode()


@pytest.fixture(scope="module")
def address(
    tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int], influxdb_server: InfluxServer
) -> Iterator[str]:
    """Of a platform with a unit and its readings."""
    influxdb_server.start()
    store = f"influxdb://{influxdb_server.host}:{influxdb_server.port}/described"
    query = {"q": "CREATE DATABASE described"}
    httpx.post(f"{influxdb_server.http}/query", data=query, timeout=60, trust_env=False).raise_for_status()
    row = f"motor,city=370200,county=370202,industry=C31,enterprise={OWNER},unit={UNIT} power_in=1.5"
    write = f"{influxdb_server.http}/write?db=described"
    httpx.post(write, content=row, timeout=60, trust_env=False).raise_for_status()
    folder, port = tmp_path_factory.mktemp("platform"), free_port()
    environment = os.environ | {"QILU_API_KEY": ADMIN, "QILU_PLATFORM_RATE_PER_S": "0"}
    command = [
        *(str(Path(sys.executable).parent / "qilu"), "platform", "run"),
        *("--db", f"sqlite:///{folder}/registry.sqlite", "--port", str(port), "--store", store),
    ]
    with (folder / "platform.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                httpx.get(f"{url}/readyz", trust_env=False)
                break
            except httpx.TransportError:
                assert process.poll() is None, (folder / "platform.log").read_text()
                time.sleep(0.05)
        headers = {"Authorization": f"Bearer {ADMIN}"}
        owner = {"id": OWNER, "name": "Qingdao Iron", "county": "370202", "industry": "C31"}
        for path, body in [
            ("/v1/enterprises", owner),
            ("/v1/units", {"id": UNIT, "class": "motor", "enterprise": OWNER}),
        ]:
            made = httpx.post(f"{url}{path}", json=body, headers=headers, timeout=60, trust_env=False)
            assert made.status_code == 201, made.text
        yield url
    finally:
        process.terminate()
        process.wait(30)


LOOKED_AT = settings(
    max_examples=EXAMPLES,
    database=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)


MAX_URL_BYTES = 60_000
"""Our HTTP server refuses longer ones itself, before the API sees them."""


# Streams without an end are read below.
@schema.exclude(path_regex="/events$").parametrize()
@LOOKED_AT
def test_no_answer_is_ours_to_be_ashamed_of(case: Case, address: str) -> None:
    answer = case.call(base_url=address, headers={"Authorization": f"Bearer {ADMIN}"}, timeout=60)
    if len(answer.request.url or "") < MAX_URL_BYTES:
        case.validate_response(answer, checks=CHECKS)


@schema.include(path_regex="/latest$|/readings$").parametrize()
@LOOKED_AT
def test_readings_of_a_unit_that_has_some_are_described_too(case: Case, address: str) -> None:
    case.path_parameters["id"] = UNIT
    answer = case.call(base_url=address, headers={"Authorization": f"Bearer {ADMIN}"}, timeout=60)
    case.validate_response(answer, checks=CHECKS)


OPERATIONS = {
    f"{method.upper()} {path}": operation
    for path, methods in schema.raw_schema["paths"].items()
    for method, operation in methods.items()
}


def test_operations_have_short_names_of_their_own() -> None:
    names = [operation["operationId"] for operation in OPERATIONS.values()]
    assert len(set(names)) == len(names)
    assert {"create_unit", "list_units", "get_unit", "rename_unit", "create_many", "whoami"} <= set(names)
    assert not [name for name in names if len(name) > 30 or "v1" in name]


def test_every_answer_has_a_schema_and_problems_have_one_together() -> None:
    for name, operation in OPERATIONS.items():
        for status, response in operation["responses"].items():
            kinds = response.get("content", {})
            assert kinds or status == "204", (name, status)
            for kind, content in kinds.items():
                assert content["schema"], (name, status, kind)
                of_problems = {"$ref": "#/components/schemas/Problem"}
                assert (kind == "application/problem+json") == (content["schema"] == of_problems), (
                    name,
                    status,
                )
        assert "422" in operation["responses"], name


def test_examples_are_what_their_models_take_and_name_signals_that_there_are() -> None:
    seen = 0
    for module in (answers, bodies, catalogue, device_types, letters, policy, reports):
        for model in vars(module).values():
            if isinstance(model, type) and issubclass(model, BaseModel):
                config = model.model_config.get("json_schema_extra")
                for example in config.get("examples", []) if isinstance(config, dict) else []:
                    model.model_validate(example)
                    seen += 1
    assert seen > 30
    motor = {signal.name for signal in CATALOGUE["motor"].signals}
    (latest,) = schema.raw_schema["components"]["schemas"]["LatestOut"]["examples"]
    (readings,) = schema.raw_schema["components"]["schemas"]["ReadingsOut"]["examples"]
    assert {*latest["values"], *readings["columns"][1:]} <= motor
    (county,) = schema.raw_schema["components"]["schemas"]["CountyOut"]["examples"]
    assert county == {name: getattr(COUNTIES[county["code"]], name) for name in county}
    (industry,) = schema.raw_schema["components"]["schemas"]["IndustryOut"]["examples"]
    assert industry == {name: getattr(BRANCHES[industry["code"]], name) for name in industry}


def test_events_are_what_the_description_says(address: str) -> None:
    described = schema["/v1/events"]["GET"].definition.raw["responses"]["200"]["content"]
    with httpx.stream("GET", f"{address}/v1/events", timeout=60, trust_env=False) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].partition(";")[0] in described
        assert "event: programme" in answer.iter_lines()


async def test_the_examples_of_the_description_run_as_they_are(tmp_path: Path) -> None:
    """One after the other, on an empty registry; what is registered comes before what refers to it."""
    books = ["enterprises", "providers", "units", "contracts", "centres", "recognitions", "disbursements"]
    described = schema.raw_schema
    platform = Settings(db_url=f"sqlite:///{tmp_path}/platform.db", port=0, api_key=SecretStr(ADMIN))
    ran = set()
    async with PlatformService(platform) as service, httpx.AsyncClient(trust_env=False) as client:
        paths = [*(f"/v1/{book}" for book in books), *sorted(described["paths"])]
        for path in dict.fromkeys(paths):
            body = described["paths"][path].get("post", {}).get("requestBody", {"content": {}})
            if "{" in path.replace("{book}", "") or path in NEEDS_MORE:
                continue
            for kind, content in body["content"].items():
                model = content["schema"].get("$ref", "").rpartition("/")[2]
                described_by = described["components"]["schemas"].get(model, content["schema"])
                example = content.get("example", *described_by.get("examples", [])[:1])
                url = service.url + path.replace("{book}", "enterprises")
                headers = {"Authorization": f"Bearer {ADMIN}", "Content-Type": kind}
                is_file = path == "/v1/imports"
                query = {"book": "units"} if is_file else {}
                sent = example if isinstance(example, str) else json.dumps(example, ensure_ascii=False)
                sent = sent.replace('"key": "qilu_…"', f'"key": "{ADMIN}"')
                answer = await client.post(url, content=sent, headers=headers, params=query, timeout=60)
                assert answer.is_success, (path, answer.text)
                if answer.status_code != 204:
                    assert not answer.json().get("bad" if is_file else "errors"), (path, answer.text)
                ran.add(path)
    assert ran >= {f"/v1/{book}" for book in books} | {"/v1/{book}/bulk", "/v1/imports", "/v1/keys"}
