"""Fixtures for tests of gateway and platform."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_influx import FakeInflux
from gateway_world import PATIENCE_S, FakePlatform, Publisher, gateway_settings
from qilu_contract.wire import topics
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
    return gateway_settings(mosquitto, platform, tmp_path)


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


class RuledBroker:
    """A broker whose rules change while it runs."""

    host = "127.0.0.1"

    def __init__(self, program: str, port: int, folder: Path) -> None:
        self.port, self._rules = port, folder / "acl"
        self.allow("NBIRTH", "DBIRTH", "DDATA", "NDEATH")
        (folder / "mosquitto.conf").write_text(
            f"listener {port} {self.host}\nallow_anonymous true\nuser root\nacl_file {self._rules}\n"
        )
        self.process = subprocess.Popen(
            [program, "-c", str(folder / "mosquitto.conf")], stderr=subprocess.DEVNULL
        )

    @property
    def url(self) -> str:
        return f"mqtt://{self.host}:{self.port}"

    def allow(self, *types: str) -> None:
        """Nothing of the other types may be published from now on."""
        lines = ["topic read #", f"topic write {topics.CLOCK}", "topic write spBv1.0/STATE/#"]
        lines += [f"topic write spBv1.0/+/{type_}/#" for type_ in types]
        self._rules.write_text("\n".join(lines) + "\n")

    def reload(self) -> None:
        self.process.send_signal(signal.SIGHUP)

    def answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection((self.host, self.port)):
            return True
        return False


@pytest.fixture
def ruled(mosquitto_program: str, free_port: Callable[[], int], tmp_path: Path) -> Iterator[RuledBroker]:
    broker = RuledBroker(mosquitto_program, free_port(), tmp_path)
    deadline = time.monotonic() + PATIENCE_S
    while not broker.answers():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    yield broker
    broker.process.terminate()
    broker.process.wait(PATIENCE_S)
