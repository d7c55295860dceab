"""A platform that is restored from a backup forgets what came after: the gateway notices, and neither leaves
units that send off the cloud nor lets those in that are suspended again.
"""

from __future__ import annotations

import asyncio
import secrets
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx
import pytest
from gateway_world import COUNTY, ENTERPRISE, FakePlatform, Publisher, eventually, motor, online, telemetry
from pydantic import SecretStr
from qilu_contract.errors import Reason
from qilu_gateway.settings import Settings
from qilu_platform.database.backup import back_up
from qilu_platform.service import PlatformService
from qilu_platform.settings import Settings as PlatformSettings

ADMIN = "the-admin-key-of-this-test"
INGEST = "the-ingest-key-of-this-test"


@pytest.fixture
def copy(database_url: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[[], str]]:
    """Backs the registry up while it serves, and returns the URL of the restored one."""
    if database_url.startswith("sqlite"):

        def of_sqlite() -> str:
            back_up(database_url, tmp_path / "copy.sqlite")
            return f"sqlite:///{tmp_path}/copy.sqlite"

        yield of_sqlite
        return
    postgres = request.getfixturevalue("postgres")
    name = f"restored_{secrets.token_hex(4)}"

    def of_postgres() -> str:
        dump = f"{tmp_path}/registry.dump"
        subprocess.run(["pg_dump", "--format=custom", f"--file={dump}", database_url], check=True)
        postgres.execute(f'CREATE DATABASE "{name}"')
        url = str(postgres.url(name))
        subprocess.run(["pg_restore", f"--dbname={url}", "--exit-on-error", dump], check=True)
        return url

    yield of_postgres
    postgres.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


@asynccontextmanager
async def serve(url: str, port: int) -> AsyncIterator[httpx.AsyncClient]:
    settings = PlatformSettings(db_url=url, port=port, api_key=SecretStr(ADMIN), ingest_key=SecretStr(INGEST))
    async with PlatformService(settings) as service:
        headers = {"Authorization": f"Bearer {ADMIN}"}
        async with httpx.AsyncClient(base_url=service.url, headers=headers, trust_env=False) as client:
            yield client


async def do(client: httpx.AsyncClient, path: str, body: object = None) -> None:
    answer = await client.post(f"/v1/{path}", json=body)
    assert answer.is_success, answer.text


async def on_cloud(client: httpx.AsyncClient, *units: str) -> bool:
    found = [(await client.get(f"/v1/units/{unit}")).json() for unit in units]
    return all(unit["on_cloud_ms"] is not None for unit in found)


async def test_units_that_send_are_on_cloud_again_and_suspended_ones_are_refused(
    settings: Settings,
    publisher: Publisher,
    database_url: str,
    copy: Callable[[], str],
    free_port: Callable[[], int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("QILU_API_KEY", INGEST)
    port = free_port()
    settings = settings.model_copy(update={"platform": f"http://127.0.0.1:{port}"})
    seconds = iter(range(1_000_000))

    async def send_until(condition: Callable[[], Awaitable[bool]], *units: str) -> None:
        """Devices send on and on, and know nothing of it all."""
        async with asyncio.timeout(60):
            while not await condition():
                second = next(seconds)
                for unit in units:
                    publisher.send(*telemetry(unit, motor(second)))
                await asyncio.sleep(0.1)

    async with AsyncExitStack() as stack:
        async with serve(database_url, port) as client:
            await do(
                client, "enterprises", {"id": ENTERPRISE, "name": "E", "county": COUNTY, "industry": "C34"}
            )
            for unit in ("m1", "m2", "m3"):
                await do(client, "units", {"id": unit, "class": "motor", "enterprise": ENTERPRISE})
            await do(client, "units/m2/suspend")
            restored = await asyncio.to_thread(copy)
            await do(client, "units/m2/resume")
            for _ in range(5):  # the list of the barred grows far beyond the backup's
                await do(client, "units/m3/suspend")
                await do(client, "units/m3/resume")
            gateway = await stack.enter_async_context(online(settings))
            await send_until(lambda: on_cloud(client, "m1", "m2"), "m1", "m2")
            assert gateway.counters.dead_lettered == 0
        # Readings that arrived meanwhile are stored, also without the platform.
        before = gateway.counters.stored
        publisher.send(*telemetry("m1", motor(next(seconds))))
        await eventually(lambda: gateway.counters.stored == before + 1, "stored")
        async with serve(restored, port) as client:
            assert not await on_cloud(client, "m1")
            await send_until(lambda: on_cloud(client, "m1"), "m1", "m2")

            async def refused(more_than: int = 0) -> bool:
                return gateway.dead_lettered_by_reason.get(Reason.UNKNOWN_UNIT, 0) > more_than

            await send_until(refused, "m1", "m2")
            assert not await on_cloud(client, "m2")
            # The list of the barred is read from where it ends now.
            known = gateway.dead_lettered_by_reason[Reason.UNKNOWN_UNIT]
            await do(client, "units/m1/suspend")
            await send_until(lambda: refused(known), "m1")
            assert gateway.online


async def test_a_platform_that_went_back_without_a_restart_is_noticed_by_its_list(
    settings: Settings, platform: FakePlatform, publisher: Publisher
) -> None:
    platform.register("m1")
    platform.barred += [("units", "m9")] * 7
    async with online(settings) as gateway:
        publisher.send(*telemetry("m1", motor()))
        await eventually(lambda: platform.counted == 1, "counted")
        del platform.barred[3:]
        platform.units["m1"]["on_cloud"] = False
        seconds = iter(range(1, 10_000))

        def counted_again() -> bool:
            publisher.send(*telemetry("m1", motor(next(seconds))))
            return platform.counted == 2

        await eventually(counted_again, "counted again")
        assert gateway.counters.dead_lettered == 0
