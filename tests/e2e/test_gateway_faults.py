"""Faults: the gateway and everything around it dies and comes back while equipment publishes. After each run
`qilu verify` finds every acknowledged reading, once and unaltered, and the platform's count is exact.

Gateway, platform and equipment are processes of their own, broker and InfluxDB are real. The short form runs
with all tests; `make soak` (QILU_SOAK=1) runs ten times as many faults. Both are seeded.
"""

from __future__ import annotations

import json
import os
import random
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

QILU = Path(sys.executable).parent / "qilu"
SOAK = os.environ.get("QILU_SOAK") == "1"
KILLS = 200 if SOAK else 20
UNITS = 120
SPEED = 60
SEED = 20260101
PATIENCE_S = 90.0
KEYS = {
    "admin": secrets.token_urlsafe(24),
    "ingest": secrets.token_urlsafe(24),
    "fleet": secrets.token_urlsafe(24),
}


def eventually(done: Callable[[], Any], what: str, patience_s: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + patience_s
    while not done():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.05)


@dataclass
class Part:
    """A process of the system under test: a `qilu` command that can be killed and started again."""

    words: list[str]
    environment: dict[str, str]
    log: Path
    process: subprocess.Popen[bytes] | None = field(default=None)

    def start(self) -> None:
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                [QILU, *self.words],
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            )  # fmt: skip

    def end(self, number: int = signal.SIGTERM) -> int:
        process, self.process = self.process, None
        if process is None:
            return 0
        process.send_signal(number)
        try:
            return process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()


class World:
    """Broker, store, platform, gateway; equipment is started by `run`."""

    def __init__(self, mosquitto: Any, influxdb: Any, folder: Path, free_port: Callable[[], int]) -> None:
        self.mosquitto, self.influxdb, self.folder = mosquitto, influxdb, folder
        platform_port, self.gateway_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{platform_port}"
        self.platform = Part(
            ["platform", "run", "--db", f"sqlite:///{folder}/registry.sqlite", "--port", str(platform_port)],
            {
                f"QILU_{name.upper()}_KEY" if name != "admin" else "QILU_API_KEY": key
                for name, key in KEYS.items()
            },
            folder / "platform.log",
        )
        words = ["gateway", "run", "--broker", mosquitto.url, "--store", influxdb.url, "--platform", self.url]
        words += ["--state", f"{folder}/gateway", "--port", str(self.gateway_port)]
        self.gateway = Part(words, {"QILU_API_KEY": KEYS["ingest"]}, folder / "gateway.log")
        self.devices: Part | None = None

    def start(self) -> None:
        self.platform.start()
        eventually(self.platform_answers, "the platform answers")
        self.gateway.start()

    def platform_answers(self) -> bool:
        with suppress(httpx.TransportError):
            return httpx.get(f"{self.url}/v1/programme", trust_env=False).is_success
        return False

    def run(self, seconds: int, *, seed: int = SEED) -> None:
        """Start equipment that makes readings for so many seconds of ours."""
        words = ["devices", "run", "--broker", self.mosquitto.url, "--platform", self.url]
        words += ["--state", f"{self.folder}/devices", "--units", str(UNITS), "--seed", str(seed)]
        words += [
            "--speed",
            str(SPEED),
            "--for",
            f"{seconds * SPEED}s",
            "--report",
            f"{self.folder}/report.json",
        ]
        self.devices = Part(words, {"QILU_API_KEY": KEYS["fleet"]}, self.folder / "devices.log")
        self.devices.start()
        eventually(lambda: self.metric("stored") > 0 or self.metric("spooled") > 0, "readings arrive")

    @property
    def running(self) -> bool:
        """Equipment still publishes."""
        return (
            self.devices is not None
            and self.devices.process is not None
            and self.devices.process.poll() is None
        )

    def metric(self, name: str) -> float:
        """A figure of the gateway's; -1 while it does not answer."""
        with suppress(httpx.TransportError):
            text = httpx.get(f"http://127.0.0.1:{self.gateway_port}/metrics", trust_env=False).text
            for line in text.splitlines():
                if line.startswith((f"qilu_gateway_{name} ", f"qilu_gateway_{name}_total ")):
                    return float(line.split()[1])
        return -1.0

    def finish(self) -> dict[str, Any]:
        """The equipment ends by itself, everything arrives; returns what `verify` says."""
        assert self.devices is not None
        assert self.devices.process is not None
        eventually(lambda: not self.running, "the equipment ends", 240)
        assert self.devices.process.returncode == 0, self.devices.log.read_text()[-2000:]
        report = json.loads((self.folder / "report.json").read_text())
        assert (report["pending"], report["dropped"]) == (0, 0)
        eventually(self.quiet, "everything has arrived")
        eventually(lambda: self.on_cloud() == UNITS, "every unit is counted")
        assert self.on_cloud() == UNITS
        verdict = self.verify()
        assert verdict["expected"] == report["readings_acked"]
        return verdict

    def quiet(self) -> bool:
        """Nothing waits, at the broker or in the gateway."""
        before = self.metric("messages")
        time.sleep(1.0)
        waiting = (self.metric("in_flight"), self.metric("spooled"))
        return before >= 0 and waiting == (0.0, 0.0) and self.metric("messages") == before

    def on_cloud(self) -> int:
        targets = httpx.get(f"{self.url}/v1/programme", trust_env=False).json()["targets"]
        return int(next(target["onboarded"] for target in targets if target["name"] == "units_on_cloud"))

    def verify(self) -> dict[str, Any]:
        said = subprocess.run(
            [QILU, "verify", "--run", f"{self.folder}/devices", "--store", self.influxdb.url, "--json"],
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert said.stdout, said.stderr
        verdict: dict[str, Any] = json.loads(said.stdout)
        return verdict

    def close(self) -> None:
        for part in (self.devices, self.gateway, self.platform):
            if part is not None:
                part.end()


@pytest.fixture
def world(mosquitto: Any, influxdb: Any, tmp_path: Path, free_port: Callable[[], int]) -> Iterator[World]:
    mosquitto.start()
    world = World(mosquitto, influxdb, tmp_path, free_port)
    try:
        world.start()
        yield world
    finally:
        world.close()


def assert_nothing_is_wrong(verdict: dict[str, Any]) -> None:
    wrong = {name: verdict[name] for name in ("lost", "duplicated", "altered", "unexpected")}
    assert wrong == dict.fromkeys(wrong, 0), verdict
    assert verdict["expected"] == verdict["stored"] > 0
    assert verdict["dropped_at_the_edge"] == 0


def test_a_gateway_that_is_killed_again_and_again_loses_nothing(world: World) -> None:
    chance = random.Random(SEED)
    world.run(KILLS * 2 + 5)
    for _ in range(KILLS):
        # Anywhere between its start and full flow.
        time.sleep(chance.uniform(0.2, 2.6))
        world.gateway.end(signal.SIGKILL)
        world.gateway.start()
    verdict = world.finish()
    print(f"\n{KILLS} kills: {verdict['stored']:,} stored, {verdict['lost']} lost")  # noqa: T201
    assert_nothing_is_wrong(verdict)


def test_a_broker_a_store_and_a_platform_that_go_away_and_come_back_cost_nothing(world: World) -> None:
    chance = random.Random(SEED + 1)
    rounds = 10 if SOAK else 1
    world.run(rounds * 22)
    spooled = 0.0
    for _ in range(rounds):
        world.mosquitto.stop()
        time.sleep(chance.uniform(0.2, 1.0))
        world.mosquitto.start()
        time.sleep(chance.uniform(1.0, 2.0))
        world.influxdb.stop()
        eventually(lambda: world.metric("spooled") > 0 or not world.running, "something is spooled")
        time.sleep(chance.uniform(1.0, 3.0))
        spooled = max(spooled, world.metric("spooled"))
        # Killed with a spool that holds something, and a platform that nobody can ask.
        world.platform.end(signal.SIGTERM)
        world.gateway.end(signal.SIGKILL)
        world.gateway.start()
        time.sleep(chance.uniform(1.0, 2.0))
        world.influxdb.start()
        time.sleep(chance.uniform(1.0, 2.0))
        world.platform.start()
        eventually(world.platform_answers, "the platform answers")
    assert spooled > 0
    assert_nothing_is_wrong(world.finish())


def test_a_corrupted_spool_costs_no_more_than_what_was_set_aside_and_counted(world: World) -> None:
    world.run(20)
    world.influxdb.stop()
    eventually(lambda: world.metric("spooled") > 3000, "a spool with something in it")
    world.gateway.end(signal.SIGTERM)  # cleanly: all is in the file itself
    file = world.folder / "gateway" / "spool.sqlite"
    with file.open("r+b") as out:
        size = file.stat().st_size
        out.seek(size * 2 // 5)
        out.write(random.Random(SEED).randbytes(size * 3 // 10))
    world.gateway.start()
    world.influxdb.start()
    eventually(lambda: world.metric("spooled") == 0, "the spool is drained")
    corrupt = int(world.metric("corrupt"))
    assert corrupt > 0
    assert list(file.parent.glob("spool.damaged-*"))
    eventually(lambda: not world.running, "the equipment ends", 240)
    eventually(world.quiet, "everything has arrived")
    verdict = world.verify()
    # A rebirth repeats readings: those count each time in the spool, and are one point in the store. So no
    # more is lost than was set aside, and what is lost is told.
    assert 0 < verdict["lost"] <= corrupt
    assert (verdict["duplicated"], verdict["altered"], verdict["unexpected"]) == (0, 0, 0)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MB where the gateway keeps its state."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    folder = tmp_path / "gateway"
    folder.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], capture_output=True
    ).returncode:
        pytest.skip("a small disk cannot be mounted here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_disk_that_is_full_stalls_and_loses_nothing(small_disk: Path, world: World) -> None:
    world.gateway.end()
    world.gateway.environment["QILU_SPOOL_MIN_FREE_BYTES"] = "0"
    world.gateway.start()
    world.run(15)
    world.influxdb.stop()
    eventually(lambda: world.metric("spooled") > 0, "something is spooled")
    # Somebody else fills the disk.
    ballast = small_disk / "ballast"
    with suppress(OSError), ballast.open("wb", buffering=0) as out:
        while True:
            out.write(bytes(4096))
    eventually(lambda: world.metric("in_flight") > 0 or not world.running, "no more is acknowledged")
    time.sleep(2)
    world.gateway.end(signal.SIGKILL)
    world.gateway.start()
    time.sleep(2)
    ballast.unlink()
    world.influxdb.start()
    assert_nothing_is_wrong(world.finish())
