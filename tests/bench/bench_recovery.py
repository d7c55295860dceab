"""How fast a gateway that was killed is back: seconds from its start until it stores something new, and how
long the rest takes. A publisher continues at its own pace while the gateway is killed again and again.
Prints; asserts only that nothing is lost.

    make bench-recovery ARGS="--messages 200000 --rate 7000 --kills 5 --units 2000"
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from shutil import which

from conftest import SBIN, Influx, InfluxServer, Mosquitto
from gateway_load import Fleet, Gateway, cpu_s, publish
from gateway_world import FakePlatform
from qilu_stores import open_store


def since_start(gateway: Gateway) -> dict[str, float]:
    """Seconds from the start until the process serves, has taken a message, and has stored one; and what it
    had computed by then (CPU seconds)."""
    began = time.monotonic()
    found: dict[str, float] = {}
    while len(found) < 3 and time.monotonic() < began + 120:
        for name, metric, least in (
            ("serving", "messages_total", 0),
            ("took", "messages_total", 1),
            ("stored", "stored_total", 1),
        ):
            if name not in found and gateway.metric(metric) >= least:
                found[name] = round(time.monotonic() - began, 2)
        time.sleep(0.02)
    return found | {"cpu_s": cpu_s(gateway.pid)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=200_000)
    parser.add_argument("--rate", type=float, default=7000)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--units", type=int, default=2000)
    parser.add_argument("--every", type=float, default=5.0, help="seconds between two kills")
    parser.add_argument("--store", default="influxdb", choices=["influxdb", "duckdb"])
    parser.add_argument("--shape", default="sparkplug", choices=["sparkplug", "json"])
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("broker", "influx"):
            (folder / part).mkdir()
        mosquitto, influxd = which("mosquitto", path=SBIN), which("influxd", path=SBIN)
        assert mosquitto is not None, "Mosquitto is needed"
        assert influxd is not None, "InfluxDB is needed"
        broker, server = Mosquitto(mosquitto, folder / "broker"), InfluxServer(influxd, folder / "influx")
        broker.start()
        server.start()
        try:
            run(given, broker, server, folder)
        finally:
            broker.kill()
            server.kill()


def run(given: argparse.Namespace, broker: Mosquitto, server: InfluxServer, folder: Path) -> None:
    fleet, platform = Fleet(given.shape, given.units), FakePlatform()
    fleet.register(platform)
    store = Influx(server).url if given.store == "influxdb" else f"duckdb:///{folder}/store.duckdb"
    gateway = Gateway(broker.url, platform.url, folder / "state")
    born = given.units if given.shape == "sparkplug" else 0
    gateway.start(store)
    began = time.monotonic()
    print(f"first start: healthy after {gateway.wait_healthy() - began:.1f} s", flush=True)  # noqa: T201
    asyncio.run(publish(broker, fleet.births()))
    gateway.wait("stored_total", born)
    messages = list(fleet.messages(given.messages))
    sent = [0]

    def acked(items: list[object]) -> None:
        sent[0] += len(items)

    said = partial(publish, broker, messages, rate=given.rate, most=5000, acked=acked)
    publishing = threading.Thread(target=lambda: asyncio.run(said()))
    publishing.start()
    for kill in range(given.kills):
        time.sleep(given.every)
        gateway.kill()
        time.sleep(0.2)
        gateway.start(store)
        times = since_start(gateway)
        print(f"kill {kill + 1}: sent {sent[0]:,}, {times}", flush=True)  # noqa: T201
    began = time.monotonic()
    before = max(0.0, gateway.metric("stored_total"))
    publishing.join()
    last_s = time.monotonic() - began
    quiet, at = before, time.monotonic()
    while time.monotonic() < at + 2.0:
        now = gateway.metric("stored_total")
        if now != quiet or gateway.metric("in_flight") > 0:
            quiet, at = now, time.monotonic()
        time.sleep(0.1)
    took_s = at - began
    print(  # noqa: T201
        f"after the last kill: publisher done after {last_s:.1f} s, all stored after {took_s:.1f} s "
        f"({(quiet - before) / max(took_s, 0.1):,.0f} readings/s)"
    )
    with suppress(Exception):
        gateway.stop()
    stored = asyncio.run(count(store))
    print(f"stored {stored:,} of {given.messages + born:,}")  # noqa: T201
    platform.stop()
    assert stored == given.messages + born, "lost"
    sys.stdout.flush()


async def count(store: str) -> int:
    async with open_store(store) as opened:
        return await opened.count("motor")


if __name__ == "__main__":
    main()
