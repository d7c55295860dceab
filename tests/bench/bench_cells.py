"""CPU cost of a message at broker, gateway and store, with 1, 2 and 4 cells on one machine.

    make bench ARGS=tests/bench/bench_cells.py

The same number of units and messages is spread over the cells; each has its own Mosquitto, gateway and
InfluxDB. The messages wait in the brokers' queues before the gateways start. 1, 2 and 4 cells take turns;
figures are medians of the rounds, in CPU seconds per million messages. Those of gateways and stores begin
when each unit's first reading is stored; a broker's figure is that of the whole round, messages in and out.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from itertools import chain
from pathlib import Path
from shutil import which
from statistics import median

import pytest
from bench_storage import machine
from conftest import SBIN, Influx, InfluxServer, Mosquitto
from gateway_load import Fleet, Gateway, cpu_s, publish
from gateway_world import FakePlatform
from rich.console import Console

UNITS = 20_000
MESSAGES = 300_000
"""After the first pass over all units."""
CELLS = (1, 2, 4)
ROUNDS = int(os.environ.get("QILU_BENCH_ROUNDS", "3"))
PARTS = ("broker", "gateway", "store")
show = Console(width=110, highlight=False).print


class BenchCell:
    def __init__(
        self, mosquitto: str, influxd: str, platform: FakePlatform, folder: Path, units: int
    ) -> None:
        for name in ("broker", "influx"):
            (folder / name).mkdir(parents=True)
        self.fleet = Fleet("json", units)
        self.fleet.register(platform)
        self.broker = Mosquitto(mosquitto, folder / "broker")
        config = folder / "broker/mosquitto.conf"  # saving a full queue every second is not what is measured
        config.write_text(config.read_text().replace("autosave_interval 1\n", ""))
        self.broker.start()
        self.influx = InfluxServer(influxd, folder / "influx")
        self.influx.start()
        self.store = Influx(self.influx).url
        self.gateway = Gateway(self.broker.url, platform.url, folder / "gateway")
        self.gateway.subscribe(self.store)

    def used_s(self) -> tuple[float, float]:
        """CPU seconds of gateway and store so far."""
        return cpu_s(self.gateway.pid), cpu_s(self.influx.pid)

    def close(self) -> None:
        self.gateway.kill()
        self.broker.kill()
        self.influx.kill()


async def _publish(cells: list[BenchCell], count: int) -> None:
    await asyncio.gather(
        *(
            publish(cell.broker, chain(cell.fleet.messages(cell.fleet.size), cell.fleet.messages(count)))
            for cell in cells
        )
    )


def _measure(number: int, folder: Path, programs: tuple[str, str]) -> dict[str, float]:
    """CPU seconds per million messages of each part, with so many cells."""
    platform = FakePlatform()
    units, count = UNITS // number, MESSAGES // number
    cells = [BenchCell(*programs, platform, folder / secrets.token_hex(4), units) for _ in range(number)]
    try:
        idle_s = sum(cpu_s(cell.broker.pid) for cell in cells)
        asyncio.run(_publish(cells, count))
        for cell in cells:
            cell.gateway.start(cell.store)
        begun: dict[BenchCell, tuple[float, tuple[float, float]]] = {}
        ended: dict[BenchCell, tuple[float, tuple[float, float]]] = {}
        while len(ended) < number:
            for cell in cells:
                stored = cell.gateway.metric("stored_total")
                if cell not in begun and stored >= units:
                    begun[cell] = stored, cell.used_s()
                if cell not in ended and stored >= units + count:
                    ended[cell] = stored, cell.used_s()
                cell.gateway.check(time.monotonic() + 60)
            time.sleep(0.1)
        messages = sum(ended[cell][0] - begun[cell][0] for cell in cells)
        spent = [sum(ended[cell][1][part] - begun[cell][1][part] for cell in cells) for part in (0, 1)]
        of_brokers_s = sum(cpu_s(cell.broker.pid) for cell in cells) - idle_s
        figures = (of_brokers_s / (UNITS + MESSAGES), *(each / messages for each in spent))
        return {part: each * 1e6 for part, each in zip(PARTS, figures, strict=True)}
    finally:
        for cell in cells:
            cell.close()
        platform.stop()


@pytest.fixture
def programs() -> tuple[str, str]:
    mosquitto, influxd = which("mosquitto", path=SBIN), which("influxd", path=SBIN)
    assert mosquitto is not None, "Mosquitto is needed: make servers"
    assert influxd is not None, "InfluxDB is needed: make servers"
    return mosquitto, influxd


def bench_the_cost_of_a_message_with_more_cells(programs: tuple[str, str], tmp_path: Path) -> None:
    show(f"\n{machine()}; {UNITS:,} units, {MESSAGES:,} messages of one reading, six fields")
    found: dict[int, list[dict[str, float]]] = {number: [] for number in CELLS}
    for round_ in range(ROUNDS):
        for number in CELLS if round_ % 2 == 0 else reversed(CELLS):
            found[number].append(_measure(number, tmp_path, programs))
            show(number, found[number][-1], "load", round(os.getloadavg()[0], 1))
    for number in CELLS:
        middle = {part: median(each[part] for each in found[number]) for part in PARTS}
        one = {part: median(each[part] for each in found[1]) for part in PARTS}
        total, base = sum(middle.values()), sum(one.values())
        shown = ", ".join(f"{part} {middle[part]:.1f} ({middle[part] / one[part]:.2f})" for part in PARTS)
        show(f"{number} cells: {shown}, together {total:.1f} ({total / base:.2f})")
