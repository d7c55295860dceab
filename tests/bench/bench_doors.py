"""Cost of the doors: an OPC UA server with 10,000 nodes that change once a second, and a Modbus server whose
2,000 registers are read ten times a second. The client is another process. On a busy machine the server falls
behind, and its CPU time for each value still holds.

    python tests/bench/bench_doors.py [seconds]
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import platform
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from asyncua import Client, ua
from pymodbus.client import AsyncModbusTcpClient
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_devices.doors.modbus.server import ModbusDoor
from qilu_devices.doors.opcua.address_space import NAMESPACE
from qilu_devices.doors.opcua.server import OpcuaDoor
from qilu_devices.doors.registers import RegisterMap
from qilu_devices.doors.serving import Door, serve
from qilu_devices.run.config import RunConfig
from qilu_devices.scenario import load_scenario
from rich.console import Console

NODES, REGISTERS, POLLS_HZ = 10_000, 2_000, 10.0
MOTOR = CATALOGUE["motor"]
MOTORS = replace(load_scenario(), classes={"motor": 1.0})


def say(text: str) -> None:
    Console().print(text, highlight=False, soft_wrap=True)


def config(units: int, speed: float, for_s: float) -> RunConfig:
    return RunConfig("", MOTORS, seed=3, units=units, speed=speed, for_s=for_s * speed)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Counter:
    values = 0

    def datachange_notification(self, _node: object, _value: object, _data: object) -> None:
        self.values += 1


async def subscribe(port: int, units: int, for_s: float) -> int:
    """Subscribe to every signal; returns the number of values received."""
    counter = Counter()
    client = Client(f"opc.tcp://127.0.0.1:{port}", timeout=600, watchdog_intervall=600)
    async with client:
        namespace = await client.get_namespace_index(NAMESPACE)
        subscription = await client.create_subscription(500, counter)
        by_time = ua.DataChangeFilter(ua.DataChangeTrigger.StatusValueTimestamp, 0, 0.0)
        ids = [f"{unit.id}.{each.name}" for unit in config(units, 1.0, 1.0).fleet() for each in MOTOR.signals]
        items = [
            ua.MonitoredItemCreateRequest(
                ua.ReadValueId(ua.NodeId(id_, namespace), ua.AttributeIds.Value),
                ua.MonitoringMode.Reporting,
                ua.MonitoringParameters(handle, 0.0, by_time, 10, True),
            )
            for handle, id_ in enumerate(ids, 1)
        ]
        for begin in range(0, len(items), 1_000):
            await subscription.create_monitored_items(items[begin : begin + 1_000])
        await asyncio.sleep(3.0)  # initial values
        counter.values = 0
        await asyncio.sleep(for_s)
    return counter.values


async def poll(port: int, units: int, for_s: float) -> int:
    """Read every unit ten times a second; returns the number of registers read."""
    client = AsyncModbusTcpClient("127.0.0.1", port=port, timeout=30)
    await client.connect()
    size, read = RegisterMap(MOTOR).size, 0
    began_s = due_s = time.monotonic()
    while due_s < began_s + for_s:
        for number in range(1, units + 1):
            read += len((await client.read_input_registers(0, count=size, device_id=number)).registers)
        due_s += 1.0 / POLLS_HZ
        await asyncio.sleep(max(0.0, due_s - time.monotonic()))
    client.close()
    return read


def client_process(work: Callable[..., Any], port: int, units: int, for_s: float, results: Any) -> None:
    began_s = time.process_time()
    found = asyncio.run(work(port, units, for_s))
    results.put((found, time.process_time() - began_s))


async def measure(
    door: Door, work: Callable[..., Any], port: int, fleet: tuple[int, float], demand: int, for_s: float
) -> None:
    """`fleet`: units and speed. `demand`: values that are to be delivered in a second."""
    units, speed = fleet
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    stop, listening = asyncio.Event(), asyncio.Event()
    began_s = time.process_time()
    running = asyncio.create_task(
        serve(config(units, speed, 1e6), [door], stop, wait=True, linger_s=30.0, listening=listening.set)
    )
    await listening.wait()
    say(f"  start: {time.process_time() - began_s:.1f} CPU-s")
    process = context.Process(target=client_process, args=(work, port, units, for_s, results))
    process.start()
    await door.read_whole.wait()
    cpu_s, wall_s = time.process_time(), time.monotonic()
    found, client_cpu_s = await asyncio.to_thread(results.get)
    cpu_s, wall_s = time.process_time() - cpu_s, time.monotonic() - wall_s
    process.join()
    stop.set()
    await running
    say(f"  server: {cpu_s:.2f} CPU-s in {wall_s:.1f} s, {cpu_s / wall_s:.0%} of one core")
    say(f"  received {found / for_s:,.0f} a second of {demand:,}")
    say(f"  = {cpu_s / wall_s / max(1.0, found / for_s) * demand:.2f} CPU-s for the {demand:,} of one second")
    say(f"  client: {client_cpu_s:.1f} CPU-s with its start")


async def main(for_s: float) -> None:
    load = os.getloadavg()[0]
    say(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, load {load:.1f}")
    units = NODES // len(MOTOR.signals)
    rate = sum(1.0 / signal.interval_s for signal in MOTOR.signals)
    speed = len(MOTOR.signals) / rate
    say(f"OPC UA: {units * len(MOTOR.signals):,} nodes, each changes once a second")
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        door = OpcuaDoor(f"opc.tcp://127.0.0.1:{port}", Path(folder), insecure=True)
        await measure(door, subscribe, port, (units, speed), NODES, for_s)
    size = RegisterMap(MOTOR).size
    units = -(-REGISTERS // size)
    say(f"Modbus: {units} units, {units * size:,} registers, read {POLLS_HZ:g} times a second")
    port = free_port()
    demand = round(REGISTERS * POLLS_HZ)
    await measure(ModbusDoor(f"127.0.0.1:{port}"), poll, port, (units, 1.0), demand, for_s)


def bench_doors() -> None:
    asyncio.run(main(20.0))


if __name__ == "__main__":
    asyncio.run(main(float(sys.argv[1]) if len(sys.argv) > 1 else 30.0))
