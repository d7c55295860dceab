"""Two platforms on one PostgreSQL, gateways, a fleet, and devices that ignore STATE, for tests of one cell or
several: every part is a process that can be killed and started again."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import paho.mqtt.client as paho
from nursery import Child, Nursery
from qilu_contract.catalogue.places import COUNTIES
from qilu_contract.wire import topics
from qilu_gateway import statefile
from rabbitmq_cluster import PASSWORD, USER

UNITS = 1000
SHARDS = 4
PATIENCE_S = 240.0
WRONG = ("lost", "duplicated", "altered", "unexpected")
KEY = "the-key-of-this-test"
QILU = str(Path(sys.executable).parent / "qilu")
SILENT = sorted(COUNTIES)[:2]
"""Counties of the devices that ignore STATE."""
START_MS = 1_700_000_000_000


def eventually(done: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not done():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.2)


class Part:
    """A `qilu` command that can be killed and started again."""

    def __init__(self, nursery: Nursery, words: list[str], environment: dict[str, str], log: Path) -> None:
        self._nursery, self._words, self._environment, self._log = nursery, words, environment, log
        self.child: Child | None = None

    def start(self) -> None:
        self.child = self._nursery.start(self._words, self._environment, self._log)

    def end(self, number: int) -> None:
        assert self.child is not None
        self.child.end(number, PATIENCE_S)
        self.child = None

    def ended(self) -> bool:
        return self.child is None or self.child.code is not None


def time_ms(number: int) -> int:
    return START_MS + number * 1000


class Device:
    """Plain JSON by paho-mqtt, with no idea of STATE; every tenth message is no reading."""

    def __init__(self, host: str, port: int, county: str) -> None:
        self.unit = f"{county}-device"
        self._topic = topics.telemetry(county, f"{county}-works", self.unit)
        self._client = client = paho.Client(
            paho.CallbackAPIVersion.VERSION2, self.unit, protocol=paho.MQTTv311, clean_session=False
        )
        client.username_pw_set(USER, PASSWORD)
        client.reconnect_delay_set(1, 1)
        client.on_publish = lambda *given: self._acked.setdefault(given[2], time.time())
        self._acked: dict[int, float] = {}
        self._mids: dict[int, int] = {}
        self.readings = self.others = 0
        client.connect_async(host, port, keepalive=10)
        client.loop_start()

    def publish(self) -> None:
        number = self.readings + self.others
        if number % 10:
            payload = json.dumps({"ts": time_ms(number), "power_in": 1.0 + number}).encode()
            self.readings += 1
        else:
            payload = b"no reading %d" % number
            self.others += 1
        self._mids[self._client.publish(self._topic, payload, 1).mid] = number

    @property
    def waiting(self) -> int:
        return len(self._mids.keys() - self._acked)

    @property
    def acknowledged(self) -> int:
        return len(self._acked)

    def acknowledged_s(self) -> dict[int, float]:
        """When the PUBACK of each message was seen (wall clock), by the number of the message."""
        return {self._mids[mid]: at_s for mid, at_s in list(self._acked.items())}

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


class Province:
    """Everything but the brokers. `brokers`: a URL for each cell; `listeners`: where the devices connect."""

    def __init__(
        self,
        folder: Path,
        nursery: Nursery,
        free_port: Callable[[], int],
        database: str,
        store: str,
        brokers: list[str],
        listeners: list[tuple[str, int]],
    ) -> None:
        self.folder, self._nursery, self.database = folder, nursery, database
        self.cells = folder / "cells.yaml"
        shards = SHARDS // len(brokers)
        lines = [
            f'  - {{name: cell{number}, counties: {number}/{len(brokers)}, broker: "{broker}", '
            f'store: "{store}_{number}"}}'
            for number, broker in enumerate(brokers, 1)
        ]
        self.cells.write_text("\n".join([f"shards: {shards}", "cells:", *lines, ""]))
        self._environment = {"QILU_API_KEY": KEY, "QILU_PLATFORM_CA": str(folder / "ca")}
        self._ports = {name: free_port() for name in ("platform1", "platform2")}
        self._free_port = free_port
        self.parts: dict[str, Part] = {}
        for name, port in self._ports.items():
            words = ["platform", "run", "--db", database, "--cells", str(self.cells), "--port", str(port)]
            self._add(name, words)
        self.devices = [
            Device(*listeners[place % len(listeners)], county) for place, county in enumerate(SILENT)
        ]

    def _add(self, name: str, words: list[str]) -> Part:
        part = self.parts[name] = Part(self._nursery, words, self._environment, self.folder / f"{name}.log")
        part.start()
        return part

    def platform(self, number: int = 1) -> str:
        return f"http://127.0.0.1:{self._ports[f'platform{number}']}"

    def start_gateway(self, name: str, cell: int = 1, platform: int = 1) -> None:
        self._ports[name] = self._free_port()
        words = ["gateway", "run", "--cells", str(self.cells), "--cell", f"cell{cell}"]
        words += ["--platform", self.platform(platform), "--state", str(self.folder / name)]
        self._add(name, [*words, "--port", str(self._ports[name])])

    def shards(self, name: str) -> dict[str, list[str]]:
        """The shards that a gateway serves, with the reasons why one takes nothing now."""
        try:
            found = httpx.get(f"http://127.0.0.1:{self._ports[name]}/healthz", timeout=5, trust_env=False)
            return dict(found.json()["shards"])
        except httpx.TransportError:
            return {}

    def well(self, counts: dict[str, int]) -> bool:
        """Whether these gateways serve so many shards each, and all of them take readings."""
        found = {name: self.shards(name) for name in counts}
        healthy = not any(troubles for shards in found.values() for troubles in shards.values())
        served = sorted(len(shards) for shards in found.values())
        return healthy and served == sorted(counts.values())

    def register(self) -> None:
        eventually(self._answers, "both platforms answer")
        headers = {"Authorization": f"Bearer {KEY}"}
        with httpx.Client(base_url=self.platform(), headers=headers, timeout=60, trust_env=False) as api:
            for device, county in zip(self.devices, SILENT, strict=True):
                works = {"id": f"{county}-works", "name": "Works", "county": county, "industry": "C34"}
                api.post("/v1/enterprises", json=works).raise_for_status()
                unit = {"id": device.unit, "class": "motor", "enterprise": works["id"]}
                api.post("/v1/units", json=unit).raise_for_status()

    def _answers(self) -> bool:
        try:
            return all(
                httpx.get(f"{self.platform(number)}/readyz", timeout=5, trust_env=False).status_code == 200
                for number in (1, 2)
            )
        except httpx.TransportError:
            return False

    def simulate(self) -> None:
        words = ["devices", "run", "--units", str(UNITS), "--cells", str(self.cells)]
        words += ["--platform", self.platform(), "--state", str(self.folder / "devices")]
        self._add("devices", words)
        eventually((self.folder / "devices" / "run.json").exists, "the fleet runs")

    def press_on(self, seconds: float) -> None:
        """The devices that ignore STATE publish."""
        until_s = time.monotonic() + seconds
        while time.monotonic() < until_s:
            for device in self.devices:
                device.publish()
            time.sleep(0.1)

    def press_until(self, done: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not done():
            assert time.monotonic() < deadline, f"never: {what}"
            self.press_on(0.5)

    def letters(self, gateway: str = "*") -> int:
        """Dead letters of a gateway or of all, messages that are no readings."""
        total = 0
        for file in self.folder.glob(f"{gateway}/shard-*/{statefile.FILE_NAME}"):
            with sqlite3.connect(f"file:{file}?mode=ro", uri=True) as connection:
                query = "SELECT count(*) FROM dead_letters WHERE reason = 'bad_payload'"
                total += connection.execute(query).fetchone()[0]
            connection.close()
        return total

    def readings(self, unit: str) -> set[int]:
        """Times (ms) at which the store has a reading of the unit."""
        headers = {"Authorization": f"Bearer {KEY}"}
        query = {"from": START_MS, "to": START_MS + 86_400_000, "signal": "power_in"}
        found = httpx.get(
            f"{self.platform()}/v1/units/{unit}/readings",
            params=query,
            headers=headers,
            trust_env=False,
            timeout=60,
        )
        found.raise_for_status()
        return {row[0] for row in found.json()["rows"]}

    def stop_publishing(self) -> None:
        """Returns when all is acknowledged."""
        self.parts["devices"].end(signal.SIGTERM)
        eventually(lambda: not any(device.waiting for device in self.devices), "all is acknowledged")

    def verify(self) -> dict[str, Any]:
        words = ["verify", "--run", f"{self.folder}/devices", "--cells", str(self.cells), "--json"]
        done = subprocess.run([QILU, *words], capture_output=True, text=True, check=False)
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def assert_nothing_is_lost(self) -> None:
        """Stop publishing: everything acknowledged is stored once, or a dead letter."""
        self.stop_publishing()
        others = sum(device.others for device in self.devices)
        eventually(lambda: self.letters() >= others, "the dead letters are there")
        for device in self.devices:
            eventually(lambda device=device: len(self.readings(device.unit)) >= device.readings, "stored")
            assert len(self.readings(device.unit)) == device.readings
        assert self.letters() == others
        found: dict[str, Any] = {}

        def good() -> bool:
            found.update(self.verify())
            return not any(found[name] for name in WRONG)

        eventually(good, "verified")
        print({name: found[name] for name in ("expected", "stored", *WRONG)})  # noqa: T201
        assert found["expected"] > UNITS
        self.assert_audit_is_clean()

    def assert_audit_is_clean(self) -> None:
        audit = subprocess.run(
            [QILU, "platform", "audit", "--db", self.database], capture_output=True, text=True, check=False
        )
        assert audit.returncode == 0, audit.stdout + audit.stderr

    def close(self) -> None:
        for device in self.devices:
            device.close()
        for part in self.parts.values():
            if not part.ended():
                part.end(signal.SIGKILL)
