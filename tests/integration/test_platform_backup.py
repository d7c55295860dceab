"""A backup taken while the platform serves is complete: its counts agree, and a platform starts on it."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from qilu_contract.errors import ConfigError
from qilu_platform.audit import audit
from qilu_platform.database.backup import back_up
from qilu_platform.database.engine import open_engine
from qilu_platform.service import PlatformService
from qilu_platform.settings import Settings

ADMIN = "the-admin-key-of-this-test"
OWNER = "370202-e00007"
HUNG_S = 120


def client_of(service: PlatformService) -> httpx.AsyncClient:
    headers = {"Authorization": f"Bearer {ADMIN}"}
    return httpx.AsyncClient(base_url=service.url, headers=headers, timeout=60, trust_env=False)


def serve(url: str) -> PlatformService:
    return PlatformService(Settings(db_url=url, port=0, api_key=SecretStr(ADMIN)))


async def write_without_end(client: httpx.AsyncClient, stop: asyncio.Event) -> int:
    """Units in bulk and their first readings; how many."""
    number = 0
    while not stop.is_set():
        ids = [f"370202-motor-{n:07d}" for n in range(number, number + 500)]
        lines = "\n".join(f'{{"id":"{id_}","class":"motor","enterprise":"{OWNER}"}}' for id_ in ids)
        assert (await client.post("/v1/units/bulk", content=lines)).status_code == 200
        readings = [{"unit": id_, "ts_ms": 1} for id_ in ids]
        await client.post("/v1/ingest/first-readings", json={"readings": readings})
        number += 500
    return number


async def registered(client: httpx.AsyncClient) -> int:
    units: int = (await client.get("/v1/programme")).json()["registered"]["units"]
    return units


async def check(url: str, least: int, most: int) -> None:
    engine = open_engine(url)
    try:
        assert audit(engine) == []
    finally:
        engine.dispose()
    async with serve(url) as service, client_of(service) as client:
        assert least <= await registered(client) <= most
        assert (await client.get("/v1/units?limit=1")).status_code == 200


async def run(*command: str) -> None:
    await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True, timeout=HUNG_S)


async def copied_while_it_serves(url: str, copying: Coroutine[Any, Any, None]) -> tuple[int, int]:
    """Units that were registered before the copy, and after it."""
    async with serve(url) as service, client_of(service) as client:
        body = {"id": OWNER, "name": "E", "county": "370202", "industry": "C31"}
        await client.post("/v1/enterprises", json=body)
        stop = asyncio.Event()
        writing = asyncio.create_task(write_without_end(client, stop))
        while (before := await registered(client)) < 1_000:
            await asyncio.sleep(0.02)
        await copying
        stop.set()
        return before, await writing


async def test_an_embedded_registry_is_copied_while_it_serves(tmp_path: Path) -> None:
    url, copy = f"sqlite:///{tmp_path}/registry.sqlite", tmp_path / "copy.sqlite"
    async with asyncio.timeout(HUNG_S):
        before, total = await copied_while_it_serves(url, asyncio.to_thread(back_up, url, copy))
        await check(f"sqlite:///{copy}", before, total)
        with pytest.raises(ConfigError, match="exists: name a new file"):
            back_up(url, copy)
    with pytest.raises(ConfigError, match="pg_dump"):
        back_up("postgresql://host/name", tmp_path / "other")
    with pytest.raises(ConfigError, match="is no file"):
        back_up(f"sqlite:///{tmp_path}/none", tmp_path / "other")


async def test_a_dump_of_postgresql_is_restored(tmp_path: Path, postgres: Any, postgres_url: str) -> None:
    dump = str(tmp_path / "registry.dump")
    postgres.execute("DROP DATABASE IF EXISTS restored")
    async with asyncio.timeout(HUNG_S):
        dumping = run("pg_dump", "--format=custom", f"--file={dump}", postgres_url)
        before, total = await copied_while_it_serves(postgres_url, dumping)
        await asyncio.to_thread(postgres.execute, "CREATE DATABASE restored")
        restored = postgres.url("restored")
        await run("pg_restore", f"--dbname={restored}", "--exit-on-error", dump)
        try:
            await check(restored, before, total)
        finally:
            await asyncio.to_thread(postgres.execute, "DROP DATABASE restored WITH (FORCE)")
