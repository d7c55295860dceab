"""How long Mosquitto is busy with its rules for edge nodes: from SIGHUP until it answers a client again."""

from __future__ import annotations

import os
import queue
import signal
import time
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
from qilu_platform.broker import rules as broker_rules
from qilu_platform.broker.certificates import Node

SIZES = [int(size) for size in os.environ.get("QILU_BENCH_NODES", "1000,3000,10000").split(",")]
SERVICE = "user bench\ntopic readwrite bench\n"


def bench_reload(mosquitto: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rules, configuration = tmp_path / "acl", mosquitto.folder / "mosquitto.conf"
    rules.write_text(SERVICE)
    configuration.write_text(configuration.read_text() + f"acl_file {rules}\n")
    mosquitto.stop()
    mosquitto.start()
    answers: queue.Queue[None] = queue.Queue()
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    client.username_pw_set("bench")
    client.on_publish = lambda *_: answers.put(None)
    client.connect(mosquitto.host, mosquitto.port, keepalive=3600)
    client.loop_start()

    def answered_s() -> float:
        begun = time.perf_counter()
        client.publish("bench", b"", 1)
        answers.get(timeout=600)
        return time.perf_counter() - begun

    # With the time that the broker's process itself took: others run on the same cores.
    def cpu_s() -> float:
        fields = Path(f"/proc/{mosquitto.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    print(f"\nload {os.getloadavg()[0]:.1f}")  # noqa: T201
    print("     nodes  rules, kB  until it answers, s  CPU, s")  # noqa: T201
    bound = broker_rules.MAX_LINES_FOR
    for size, most in [*((size, 10**9) for size in SIZES), (300_000, bound)]:
        monkeypatch.setattr(broker_rules, "MAX_LINES_FOR", most)
        found = [Node(f"{370202 + n % 10}-e{n:05d}", str(370202 + n % 10)) for n in range(size)]
        rules.write_text(SERVICE + broker_rules.acl(found))
        answered_s()
        before_s = cpu_s()
        os.kill(mosquitto.pid, signal.SIGHUP)
        time.sleep(0.01)  # the signal is taken between two events
        seconds = answered_s() + answered_s()
        kilobytes = rules.stat().st_size / 1000
        print(f"{size:>10,} {kilobytes:>10,.1f} {seconds:>20.2f} {cpu_s() - before_s:>7.2f}")  # noqa: T201
    client.disconnect()
    client.loop_stop()
