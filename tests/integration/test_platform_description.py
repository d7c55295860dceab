"""The API answers as /openapi.json says, whatever it is sent: no failure of ours, no undocumented answer."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from qilu_platform.app import create_app
from qilu_platform.settings import Settings
from schemathesis import Case
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

ADMIN = "the-admin-key-of-this-test"
EXAMPLES = int(os.environ.get("QILU_TEST_EXAMPLES", "8"))
"""Of each operation: few, for they are many operations; raise it to look harder."""
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
def address(tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]) -> Iterator[str]:
    folder, port = tmp_path_factory.mktemp("platform"), free_port()
    environment = os.environ | {"QILU_API_KEY": ADMIN, "QILU_PLATFORM_RATE_PER_S": "0"}
    command = [
        *(str(Path(sys.executable).parent / "qilu"), "platform", "run"),
        *("--db", f"sqlite:///{folder}/registry.sqlite", "--port", str(port)),
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
        yield url
    finally:
        process.terminate()
        process.wait(30)


# /v1/events never ends, and the readings need a store.
@schema.exclude(path_regex="^/v1/events|/latest$|/readings$").parametrize()
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_no_answer_is_ours_to_be_ashamed_of(case: Case, address: str) -> None:
    answer = case.call(base_url=address, headers={"Authorization": f"Bearer {ADMIN}"}, timeout=60)
    case.validate_response(answer, checks=CHECKS)
