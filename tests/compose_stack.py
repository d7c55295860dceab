"""The compose stack, built and run by `docker compose` with its own ports and volumes."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

ROOT = Path(__file__).parents[1]
ENGINE = ROOT / "tests" / "compose_engine.sh"
ENGINE_FOLDER = Path(tempfile.gettempdir()) / "qilu-compose-engine"
UNITS = 60
UP_S = 1500  # three images are built, and everything is downloaded the first time
PATIENCE_S = 180.0
BUILDS = 2
"""A registry that answered late does not fail a test."""
OFFLINE = re.compile(
    r"failed to (fetch|download)|error sending request|dns error|name resolution|timed out"
    r"|connection (reset|refused)",
    re.IGNORECASE,
)
"""Messages of pip, uv and apt when a registry or mirror cannot be reached."""


class ComposeLoader(yaml.SafeLoader):
    """Knows compose's tags `!reset` and `!override`."""


def _value(loader: ComposeLoader, node: yaml.Node) -> Any:
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True)
    return loader.construct_sequence(node) if isinstance(node, yaml.SequenceNode) else None


for _tag in ("!reset", "!override"):
    ComposeLoader.add_constructor(_tag, _value)


def services_of(file: str) -> dict[str, Any]:
    """The services of a compose file; a reset value is None."""
    found: dict[str, Any] = yaml.load((ROOT / file).read_text(encoding="utf-8"), ComposeLoader)["services"]
    return found


class Stack:
    """One project of `docker compose`, with separate ports and volumes."""

    def __init__(
        self,
        engine: dict[str, str],
        free_port: Callable[[], int],
        files: Sequence[str] = ("docker-compose.yml",),
    ) -> None:
        """`files`: of compose, each adding to those before."""
        self._files = [word for file in files for word in ("-f", file)]
        self._ports = {
            name: str(free_port())
            for name in (
                *("QILU_PORT", "QILU_MQTT_PORT", "QILU_MQTTS_PORT", "QILU_DEVICES_PORT"),
                *("QILU_INFLUX_PORT", "QILU_GRAFANA_PORT"),
            )
        }
        self._environment = {
            **os.environ,
            **engine,
            **self._ports,
            "QILU_UNITS": str(UNITS),
            "COMPOSE_PROJECT_NAME": f"qilu-test-{secrets.token_hex(4)}",
        }
        self.platform = f"http://127.0.0.1:{self._ports['QILU_PORT']}"
        self.grafana = f"http://127.0.0.1:{self._ports['QILU_GRAFANA_PORT']}"

    def compose(self, *arguments: str, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["docker", "compose", *self._files, *arguments],
            cwd=ROOT,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def docker(self, *arguments: str) -> bytes:
        """Output of `docker`."""
        done = subprocess.run(
            ["docker", *arguments], env=self._environment, capture_output=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def build(self) -> None:
        """Build the images. Skips the test where nothing can be downloaded, with the line that says so."""
        for _ in range(BUILDS):
            done = self.compose("build", timeout_s=UP_S)
            if done.returncode == 0:
                return
            lines = (done.stdout + done.stderr).splitlines()
            offline = [line for line in lines if OFFLINE.search(line)]
            if not offline:
                pytest.fail("compose build:\n" + "\n".join(lines[-60:]), pytrace=False)
        pytest.skip(f"the images cannot be built without their packages: {offline[-1].strip()}")

    def up(self, *options: str) -> None:
        done = self.compose("up", "--wait", *options, timeout_s=UP_S)
        if done.returncode:
            logs = self.compose("logs", "--no-color", "--tail", "30").stdout
            pytest.fail(f"compose up:\n{done.stderr[-3000:]}\n{logs[-6000:]}", pytrace=False)

    def down(self) -> None:
        self.compose("down", "--volumes", "--timeout", "10")

    def inside(self, service: str, *command: str) -> str:
        """Output of a command in a service's container, run as that service's user."""
        done = self.compose("exec", "-T", service, *command)
        assert done.returncode == 0, f"{service}: {' '.join(command)}: {done.stderr}"
        return done.stdout

    def key(self) -> str:
        return self.inside("platform", "cat", "/run/qilu/platform/admin.key").strip()

    def counts(self) -> tuple[int, int]:
        """Units registered, and units on cloud."""
        answer = httpx.get(f"{self.platform}/v1/programme", timeout=30.0, trust_env=False).json()
        [on_cloud] = [one["onboarded"] for one in answer["targets"] if one["name"] == "units_on_cloud"]
        return answer["registered"]["units"], on_cloud

    def wait_for(self, counts: tuple[int, int]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while (found := self.counts()) != counts:
            assert time.monotonic() < deadline, f"{found}, not {counts}, after {PATIENCE_S:.0f} s"
            time.sleep(0.2)

    def rows(self, query: str) -> list[dict[str, Any]]:
        """Series that InfluxDB answers with, asked from inside its container."""
        ask = (
            'curl -fsS -H "Authorization: Token $(cat /run/qilu/influxdb/admin-token)" '
            '"http://127.0.0.1:8086/query?db=qilu&epoch=ms" --data-urlencode "q=$1"'
        )
        [result] = json.loads(self.inside("influxdb", "sh", "-c", ask, "ask", query))["results"]
        series: list[dict[str, Any]] = result.get("series", [])
        return series


@contextlib.contextmanager
def compose_engine() -> Iterator[dict[str, str]]:
    """Environment for `docker`. Starts an engine if none runs and one is installed."""
    for probe in (["docker", "compose", "version"], ["docker", "info"]):
        try:
            usable = subprocess.run(probe, capture_output=True, timeout=60, check=False).returncode == 0
        except FileNotFoundError:
            usable = False
        if not usable:
            break
    if usable:
        yield {}
        return
    if os.environ.get("CI") != "true":
        pytest.skip("`docker compose` is not usable here")
    started = subprocess.run(
        [str(ENGINE), "up", str(ENGINE_FOLDER)], stdout=subprocess.PIPE, text=True, timeout=900, check=False
    )
    try:
        if started.returncode == 3:
            pytest.skip("`docker compose` is not usable here, and there is no kit to start an engine with")
        assert started.returncode == 0, "the engine did not start"
        yield dict(line.split("=", 1) for line in started.stdout.splitlines())
    finally:
        subprocess.run([str(ENGINE), "down", str(ENGINE_FOLDER)], timeout=120, check=False)
