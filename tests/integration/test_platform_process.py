"""The platform of a stack in a separate process: serves, uses the stack's store, and its end is reported."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr
from qilu.platform_process import PlatformProcess
from qilu.store_door import StoreDoor
from qilu_contract.errors import QiluError
from qilu_platform.settings import Settings
from qilu_stores import open_store

KEY = "the-admin-key-of-this-test"


def shown_to_others(pid: int) -> bytes:
    """A process's arguments and environment."""
    return Path(f"/proc/{pid}/cmdline").read_bytes() + Path(f"/proc/{pid}/environ").read_bytes()


async def test_it_serves_until_it_is_killed_and_writes_into_the_stacks_store(tmp_path: Path) -> None:
    settings = Settings(
        db_url=f"sqlite:///{tmp_path}/registry.sqlite", port=0, api_key=SecretStr(KEY), ca=tmp_path / "ca"
    )
    log = tmp_path / "platform.log"
    async with open_store(f"duckdb:///{tmp_path}/store.duckdb") as store, StoreDoor(store) as door:
        async with PlatformProcess(settings, door, log) as platform:
            headers = {"Authorization": f"Bearer {KEY}"}
            async with httpx.AsyncClient(base_url=platform.url, headers=headers, trust_env=False) as client:
                assert (await client.post("/v1/providers", json={"name": "P"})).is_success
            assert KEY.encode() not in shown_to_others(platform.pid)
        assert await store.latest("programme", {}) is not None  # its last round goes through the door
        async with PlatformProcess(settings, door, log) as platform:
            os.kill(platform.pid, signal.SIGKILL)
            with pytest.raises(QiluError, match=r"ended by itself \(killed by SIGKILL\)"):
                await platform.wait()


async def test_why_it_cannot_start_is_told_in_its_own_words(tmp_path: Path) -> None:
    settings = Settings(db_url=f"sqlite:///{tmp_path}", port=0, ca=tmp_path / "ca")
    async with open_store(f"duckdb:///{tmp_path}/store.duckdb") as store, StoreDoor(store) as door:
        with pytest.raises(QiluError, match="cannot be opened"):
            async with PlatformProcess(settings, door, tmp_path / "platform.log"):
                pass
