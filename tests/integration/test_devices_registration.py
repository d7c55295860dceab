"""Registration of a fleet against an HTTP server that keeps to the platform's bulk contract."""

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from qilu_contract.errors import ConfigError
from qilu_contract.wire.ids import is_id
from qilu_devices.run.config import RunConfig, RunProgress
from qilu_devices.run.registration import CHUNK_LINES, PROVIDERS, Registration
from qilu_devices.run.runner import run
from qilu_devices.scenario import load_scenario
from qilu_devices.simulation import fleet_of

SCENARIO = load_scenario()
KEY = "a-fleets-key"


class Registry(ThreadingHTTPServer):
    """Takes bulk lines and keeps them; `away` calls are answered 503 first."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.kept: dict[str, dict[str, dict[str, Any]]] = {}
        self.calls: list[tuple[str, int]] = []
        self.away = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Registry

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        registry = self.server
        if registry.away:
            registry.away -= 1
            self._answer(503, {})
        elif self.headers.get("Authorization") != f"Bearer {KEY}":
            self._answer(401, {})
        else:
            _, version, what, bulk = self.path.split("/")
            assert (version, bulk) == ("v1", "bulk")
            lines = [json.loads(line) for line in body.splitlines()]
            registry.calls.append((what, len(lines)))
            kept = registry.kept.setdefault(what, {})
            fresh = [line for line in lines if line["id"] not in kept]
            errors = [
                {"line": i, "detail": f"{line['id']} is there with other content."}
                for i, line in enumerate(lines, 1)
                if kept.get(line["id"], line) != line
            ]
            kept.update({line["id"]: line for line in fresh})
            created = len(fresh)
            self._answer(
                200, {"created": created, "existing": len(lines) - created - len(errors), "errors": errors}
            )

    def _answer(self, status: int, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def registry() -> Iterator[Registry]:
    server = Registry()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


async def register(registry: Registry, units: int, key: str | None = KEY) -> list[tuple[str, int, int]]:
    seen: list[tuple[str, int, int]] = []
    registration = Registration(registry.url, key, lambda what, done, total: seen.append((what, done, total)))
    await registration.register(fleet_of(SCENARIO, units=units))
    return seen


async def test_a_fleet_is_registered_with_a_contract_for_every_enterprise(registry: Registry) -> None:
    units = fleet_of(SCENARIO, units=300)
    seen = await register(registry, 300)
    enterprises = {unit.enterprise.id: unit.enterprise for unit in units}
    assert set(registry.kept["enterprises"]) == set(enterprises)
    assert registry.kept["units"] == {
        unit.id: {"id": unit.id, "class": unit.class_name, "enterprise": unit.enterprise.id} for unit in units
    }
    assert set(registry.kept["providers"]) == {id_ for id_, _ in PROVIDERS}
    contracts = registry.kept["contracts"].values()
    assert {c["enterprise"] for c in contracts if c["kind"] == "equipment"} == set(enterprises)
    assert len({c["kind"] for c in contracts}) > 1
    assert all(is_id(c["id"]) and c["provider"] in registry.kept["providers"] for c in contracts)
    assert [what for what, done, total in seen if done == total] == [
        "enterprises",
        "providers",
        "contracts",
        "units",
    ]


async def test_registering_again_and_a_grown_fleet_changes_nothing_that_is_there(registry: Registry) -> None:
    await register(registry, 100)
    before = {what: dict(lines) for what, lines in registry.kept.items()}
    await register(registry, 100)
    assert registry.kept == before
    await register(registry, 250)
    for what, lines in before.items():
        assert {id_: registry.kept[what][id_] for id_ in lines} == lines


async def test_large_fleets_come_in_chunks(registry: Registry) -> None:
    await register(registry, CHUNK_LINES + 1)
    assert [count for what, count in registry.calls if what == "units"] == [CHUNK_LINES, 1]


async def test_a_platform_that_is_starting_is_waited_for(registry: Registry) -> None:
    registry.away = 3
    await register(registry, 10)
    assert len(registry.kept["units"]) == 10


@pytest.mark.parametrize("key", ["wrong", None])
async def test_a_refused_key_is_told_in_one_sentence(registry: Registry, key: str | None) -> None:
    with pytest.raises(ConfigError, match="refuses our key") as caught:
        await register(registry, 10, key)
    assert "QILU_API_KEY" in str(caught.value)


async def test_a_line_that_the_platform_refuses_is_told(registry: Registry) -> None:
    await register(registry, 10)
    unit = next(iter(registry.kept["units"]))
    registry.kept["units"][unit]["enterprise"] = "370100-e99999"
    with pytest.raises(ConfigError, match=f"{unit} is there with other content"):
        await register(registry, 10)


@pytest.mark.parametrize("url", ["127.0.0.1:1", "ftp://127.0.0.1"])
async def test_a_url_that_is_none_is_told(url: str) -> None:
    with pytest.raises(ConfigError, match="is no address"):
        await Registration(url, KEY, lambda *_: None).register(fleet_of(SCENARIO, units=1))


async def test_a_run_registers_first_with_the_key_from_the_secret(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, free_port: Any
) -> None:
    monkeypatch.setenv("QILU_API_KEY", KEY)
    seen: list[RunProgress] = []
    report = await run(
        RunConfig(
            broker=f"mqtt://127.0.0.1:{free_port()}",  # nobody there: nothing can be acknowledged
            platform=registry.url,
            scenario=SCENARIO,
            units=20,
            speed=None,
            for_s=30.0,
            drain_s=0.1,
        ),
        seen.append,
    )
    assert len(registry.kept["units"]) == 20
    assert seen[0].registering == "enterprises"
    assert (report.readings_acked, report.pending, report.dropped) == (0, report.readings_made, 0)


async def test_a_run_that_is_stopped_while_the_platform_is_away_ends_at_once(registry: Registry) -> None:
    registry.away = 10**6
    stop = asyncio.Event()
    config = RunConfig("mqtt://127.0.0.1:9", SCENARIO, registry.url, KEY, units=5)
    async with asyncio.timeout(30):
        running = asyncio.create_task(run(config, stop=stop))
        while registry.away == 10**6:
            await asyncio.sleep(0.01)
        stop.set()
        report = await running
    assert (report.readings_made, report.nodes_online) == (0, 0)
