"""What tests of gateway and platform stand in, for those that want it."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_influx import FakeInflux
from gateway_world import FakePlatform, Publisher
from qilu_gateway.settings import Settings


@pytest.fixture
def platform(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakePlatform]:
    monkeypatch.setenv("QILU_API_KEY", "ingest-key")
    fake = FakePlatform()
    yield fake
    with contextlib.suppress(OSError):
        fake.stop()


@pytest.fixture
def publisher(mosquitto: Any) -> Iterator[Publisher]:
    mosquitto.start()
    publisher = Publisher(mosquitto)
    yield publisher
    publisher.close()


@pytest.fixture
def settings(mosquitto: Any, platform: FakePlatform, tmp_path: Path) -> Settings:
    return Settings(
        broker=mosquitto.url,
        store=f"duckdb:///{tmp_path / 'store.duckdb'}",
        platform=platform.url,
        state=tmp_path / "state",
        host_id=f"host-{secrets.token_hex(4)}",  # its own session and STATE at the broker
        http_port=0,
    )


@pytest.fixture
def fake_influx() -> Iterator[FakeInflux]:
    fake = FakeInflux()
    yield fake
    fake.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A registry's empty database, of either kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/platform.db"
    url: str = request.getfixturevalue("postgres_url")
    return url
