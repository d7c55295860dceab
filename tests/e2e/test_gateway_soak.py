"""The gateway's memory stays flat, whatever happens around it: messages in plenty, a store that fails and
comes back, refusals. Half of the units speak JSON, half Sparkplug. Gateway and publisher are separate
processes, the broker is real; the store answers at once.

The short form sends five minutes' worth of messages six times as fast; the long form (QILU_SOAK=1, or
QILU_SOAK_MINUTES=n for another length) sends at a steady rate for an hour. Both print the resident size over
time.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from fake_influx import STORED, Answer, FakeInflux
from gateway_world import COUNTY, ENTERPRISE, FakePlatform
from nursery import Child, Nursery

MINUTES = float(os.environ.get("QILU_SOAK_MINUTES", "60" if os.environ.get("QILU_SOAK") == "1" else "0"))
RATE = 200
"""Messages a second."""
UNITS = 500
SHORT_MESSAGES = 5 * 60 * RATE
SHORT_RATE = 6 * RATE
"""In the short form: slow enough for what roll-ups hold of open minutes, half a minute's readings, to be full
when the warm-up is over."""
WARM_UP_MINUTES = min(10.0, MINUTES / 3)
GROWTH = 1.05
AWAY_EVERY = 5
"""In one of so many minutes, or steps, the store takes nothing."""

FEEDER = f"""
import json, sys, time
import paho.mqtt.client as paho
from qilu_contract.wire import sparkplug, topics
from qilu_contract.wire.sparkplug import DataType, Metric, Payload

host, port, count, rate = sys.argv[1], *map(int, sys.argv[2:])
client = paho.Client(paho.CallbackAPIVersion.VERSION2, "soak", protocol=paho.MQTTv5)
client.max_inflight_messages_set(1000)
client.connect(host, port)
client.loop_start()
node = "{COUNTY}", "{ENTERPRISE}"
pending, sent = [], 0

def say(kind, unit, ts_ms, metrics):
    global sent
    body = sparkplug.encode(Payload(ts_ms, sent % 256, metrics))
    sent += 1
    pending.append(client.publish(topics.sparkplug(kind, *node, unit), body, 1))

say("NBIRTH", None, 1_600_000_000_000, [Metric("bdSeq", None, None, DataType.INT64, 0)])
for number in range(1, {UNITS}, 2):
    first = Metric("power_in", 1, None, DataType.FLOAT, 1.5)
    say("DBIRTH", f"m{{number}}", 1_600_000_000_000, [first])
began = time.monotonic()
for sent in range(count):
    unit = "nobody" if sent % 1000 == 999 else f"m{{sent % {UNITS}}}"
    ts_ms, power_in = 1_700_000_000_000 + sent // {UNITS} * 10_000, sent % 97 + 0.5
    if sent % 2 == 0 or unit == "nobody":
        body = json.dumps({{"ts": ts_ms, "power_in": power_in}}).encode()
        pending.append(client.publish(topics.telemetry(*node, unit), body, 1))
    else:
        say("DDATA", unit, ts_ms, [Metric(alias=1, datatype=DataType.FLOAT, value=power_in)])
    if len(pending) >= 1000 or sent == count - 1:
        for info in pending:
            info.wait_for_publish()
        pending = []
        if rate:
            time.sleep(max(0.0, began + sent / rate - time.monotonic()))
client.disconnect()
"""
BIRTHS = 1 + UNITS // 2
"""Of the edge node, and of the units that speak Sparkplug; the others speak JSON."""


class Gateway:
    def __init__(self, child: Child, port: int) -> None:
        self.child, self._port = child, port

    def metrics(self) -> dict[str, float]:
        """Figures by name, without labels; none while it does not answer."""
        try:
            text = httpx.get(f"http://127.0.0.1:{self._port}/metrics", trust_env=False, timeout=10).text
        except httpx.TransportError:
            return {}
        pairs = (line.split() for line in text.splitlines() if not line.startswith("#") and "{" not in line)
        return {
            name.removeprefix("qilu_gateway_").removesuffix("_total"): float(value) for name, value in pairs
        }

    def resident_mb(self) -> float:
        status = Path(f"/proc/{self.child.pid}/status").read_text()
        return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:"))) / 1024


@pytest.fixture
def surroundings(monkeypatch: pytest.MonkeyPatch) -> Any:
    platform, store, nursery = FakePlatform(), FakeInflux(), Nursery()
    for number in range(UNITS):
        platform.register(f"m{number}")
    store.keeps = False
    yield platform, store, nursery
    platform.stop()
    store.close()
    nursery.close()


def test_resident_memory_stays_flat(
    surroundings: Any, mosquitto: Any, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    platform, store, nursery = surroundings
    messages = int(MINUTES * 60 * RATE) or SHORT_MESSAGES
    port = free_port()
    words = ["gateway", "run", "--broker", mosquitto.url, "--store", store.url, "--platform", platform.url]
    words += ["--state", str(tmp_path / "state"), "--port", str(port)]
    # Batches, and with them the receive window, are small enough for the short form to fill them many times.
    environment = {"QILU_API_KEY": "ingest-key", "QILU_BATCH_SIZE": "500"}
    gateway = Gateway(nursery.start(words, environment, tmp_path / "gateway.log"), port)
    feeder = None
    samples: list[tuple[float, float, float, float]] = []
    try:
        deadline = time.monotonic() + 60
        while not gateway.metrics():
            assert time.monotonic() < deadline, "the gateway does not answer"
            time.sleep(0.1)
        feeder = _feed(mosquitto, messages, RATE if MINUTES else SHORT_RATE)
        began_s = time.monotonic()
        done, step = 0.0, 0
        while done < messages + BIRTHS:
            assert feeder.poll() in (None, 0), "the feeder broke"
            figures = gateway.metrics()
            done = figures.get("messages", done)
            if "spooled" in figures and done >= step * messages / max(MINUTES, 20):
                samples.append(
                    ((time.monotonic() - began_s) / 60, done, gateway.resident_mb(), figures["spooled"])
                )
                if step % 10 == 0:
                    print("\n minute   messages   resident MB    spooled", flush=True)  # noqa: T201
                print("{:7.1f} {:10,.0f} {:13.1f} {:10,.0f}".format(*samples[-1]), flush=True)  # noqa: T201
                step += 1
                away = step % AWAY_EVERY == 0
                store.answer = _away if away else _taken
            assert time.monotonic() - began_s < MINUTES * 60 + 900, "the feeder's messages do not arrive"
            time.sleep(0.05)
        store.answer = _taken
        while gateway.metrics().get("spooled", 1) or gateway.metrics().get("in_flight", 1):
            assert time.monotonic() - began_s < MINUTES * 60 + 900, "the spool is not drained"
            time.sleep(0.1)
        figures = gateway.metrics()
        assert figures["unaccounted"] == 0
        assert figures["accepted"] == figures["stored"] + messages // 1000
        assert figures["shipped"] > 0
    finally:
        if feeder is not None and feeder.poll() is None:
            feeder.kill()
        gateway.child.end(signal.SIGTERM)
        if feeder is not None:
            feeder.wait(30)
    # The first part has every peak of memory: full windows, a full batch, an outage.
    warm = [resident for minute, count, resident, _ in samples if count <= _warm_up(messages)]
    later = [resident for minute, count, resident, _ in samples if count > _warm_up(messages)]
    assert max(later) <= max(warm) * GROWTH, samples


def _warm_up(messages: int) -> float:
    return messages * (WARM_UP_MINUTES / MINUTES if MINUTES else 0.75)


def _taken(_: list[str]) -> Answer:
    return STORED


def _away(_: list[str]) -> Answer:
    return 503, {"Retry-After": "1"}, "away"


def _feed(broker: Any, messages: int, rate: int) -> Any:
    return subprocess.Popen(
        [sys.executable, "-c", FEEDER, broker.host, str(broker.port), str(messages), str(rate)]
    )
