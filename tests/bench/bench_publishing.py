"""Publishing readings: encoding, a real Mosquitto, many connections, and the memory of a million units; each
compared with the simple method. On this machine, in one run. Prints; asserts nothing about time."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import secrets
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from bench_simulation import machine
from conftest import Mosquitto
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from qilu_common.broker import BrokerAddress
from qilu_common.mqtt.codec import ConnectOptions
from qilu_common.mqtt.connection import connect
from qilu_contract.wire import topics
from qilu_devices.edge import payloads
from qilu_devices.edge.edge_node import EdgeNode, NodeConfig
from qilu_devices.edge.flow import Flow
from qilu_devices.fleet import Unit
from qilu_devices.run.config import RunConfig
from qilu_devices.run.runner import run
from qilu_devices.scenario import load_scenario
from qilu_devices.simulation import Sample, Simulation, fleet_of
from rich.console import Console
from rich.table import Table

SCENARIO = load_scenario()
BEGIN_MS = 1_509_328_800_000
NODES = 2_000
ROUNDS = 10
MILLION = """
import resource
from qilu_devices.scenario import load_scenario
from qilu_devices.simulation import Simulation, fleet_of
scenario = load_scenario()
units = fleet_of(scenario, units=1_000_000)
moments = Simulation(units, scenario.seed, 0, scenario.faults).moments(10_000)
made = sum(len(moment.samples) for moment in moments)
print(made, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def show(title: str, headings: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    heading = f"{title}\n{machine()}, load {os.getloadavg()[0]:.1f}"
    table = Table(*headings, title=heading, title_justify="left")
    for row in rows:
        table.add_row(*row)
    Console(width=110).print(table)


def data_samples(units: int, seconds: int) -> list[Sample]:
    simulation = Simulation(fleet_of(SCENARIO, units=units), SCENARIO.seed, BEGIN_MS, SCENARIO.faults)
    moments = simulation.moments(BEGIN_MS + seconds * 1000)
    return [sample for moment in moments for sample in moment.samples if sample.ts_ms > BEGIN_MS]


def bench_encoding() -> None:
    made = data_samples(20_000, 20)
    aliases = [number % 40 * 32 for number in range(len(made))]

    def objects() -> int:
        for sample, alias in zip(made[:20_000], aliases, strict=False):
            payloads.data(sample, alias, 7, False)
        return 20_000

    def layouts() -> int:
        for sample, alias in zip(made, aliases, strict=True):
            payloads.layout(sample.unit.class_name, sample.shape, alias, False).encode(sample, 7)
        return len(made)

    rates = []
    for way in (objects, layouts):
        began = time.process_time()
        rates.append(way() / (time.process_time() - began))
    show(
        f"Sparkplug data payloads of the default mix, {len(made)} of {20_000} units",
        ("way", "payloads per CPU second", "ratio"),
        [
            ("protobuf objects", f"{rates[0]:,.0f}", "1.0"),
            (
                "layouts, one a class, shape and place in the node",
                f"{rates[1]:,.0f}",
                f"{rates[1] / rates[0]:.1f}",
            ),
            ("reference: protobuf objects, six metrics", "240,000", ""),
        ],
    )


def plain_publishing(broker: Mosquitto, samples: list[Sample]) -> tuple[float, float]:
    """paho-mqtt, a message at a time, as its examples have it."""
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    client.max_inflight_messages_set(256)
    client.connect(broker.host, broker.port)
    client.loop_start()
    began_s, began_cpu = time.monotonic(), time.process_time()
    sent = [
        client.publish(
            topics.sparkplug("DDATA", "370202", "plain", sample.unit.id),
            payloads.data(sample, 0, 7, False),
            qos=1,
        )
        for sample in samples
    ]
    for info in sent:
        info.wait_for_publish(60)
    took = time.monotonic() - began_s, time.process_time() - began_cpu
    client.disconnect()
    client.loop_stop()
    return len(samples) / took[0], took[1] * 1e6 / len(samples)


async def say_online(broker: Mosquitto) -> None:
    # An offline subscriber, at QoS 0: edge nodes keep messages without a subscriber.
    lasting = Properties(PacketTypes.CONNECT)
    lasting.SessionExpiryInterval = 3600
    subscriber = paho.Client(paho.CallbackAPIVersion.VERSION2, "bench-subscriber", protocol=paho.MQTTv5)
    subscriber.connect(broker.host, broker.port, clean_start=False, properties=lasting)
    subscriber.subscribe("spBv1.0/#", 0)
    subscriber.loop_start()
    await until(lambda: subscriber.is_connected())
    subscriber.disconnect()
    subscriber.loop_stop()
    host = await connect(BrokerAddress.from_url(broker.url), ConnectOptions(f"bench-{secrets.token_hex(4)}"))
    state = {"online": True, "timestamp": int(time.time() * 1000)}
    await host.publish(topics.state(), json.dumps(state).encode(), retain=True)
    await host.disconnect()


def nodes_of(broker: Mosquitto, units: list[Unit], capacity: int = 100_000) -> dict[str, EdgeNode]:
    by_enterprise: dict[str, list[Unit]] = {}
    for unit in units:
        by_enterprise.setdefault(unit.enterprise.id, []).append(unit)
    address, connecting = BrokerAddress.from_url(broker.url), asyncio.Semaphore(64)
    config = NodeConfig(address, capacity, connecting=connecting)
    return {
        id_: EdgeNode(mine[0].enterprise, mine, config, Flow(), lambda: None)
        for id_, mine in by_enterprise.items()
    }


async def until(condition: Any, every_s: float = 0.01) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(every_s)


async def node_publishing(broker: Mosquitto, units: int, seconds: int) -> tuple[float, float, int]:
    """Edge nodes that are handed readings as fast as they send them; born before the clock starts."""
    await say_online(broker)
    fleet = fleet_of(SCENARIO, units=units)
    simulation = Simulation(fleet, SCENARIO.seed, BEGIN_MS, SCENARIO.faults)
    made = [sample for moment in simulation.moments(BEGIN_MS + seconds * 1000) for sample in moment.samples]
    nodes = nodes_of(broker, fleet)
    tasks = [asyncio.create_task(node.run()) for node in nodes.values()]
    for sample in made[:units]:
        nodes[sample.unit.enterprise.id].offer(sample)
    await until(lambda: not any(node.pending for node in nodes.values()))
    data = made[units:]
    began_s, began_cpu = time.monotonic(), time.process_time()
    for start in range(0, len(data), 5000):
        for sample in data[start : start + 5000]:
            nodes[sample.unit.enterprise.id].offer(sample)
        await asyncio.sleep(0)
    await until(lambda: not any(node.pending for node in nodes.values()))
    took = time.monotonic() - began_s, time.process_time() - began_cpu
    for node in nodes.values():
        node.stop()
    await asyncio.gather(*tasks)
    return len(data) / took[0], took[1] * 1e6 / len(data), len(nodes)


async def whole_run(broker: Mosquitto, units: int, seconds: float) -> tuple[float, float]:
    began_s, began_cpu = time.monotonic(), time.process_time()
    config = RunConfig(broker.url, SCENARIO, units=units, start_ms=BEGIN_MS, speed=None, for_s=seconds)
    report = await run(config)
    took = time.monotonic() - began_s, time.process_time() - began_cpu
    return report.readings_acked / took[0], took[1] * 1e6 / report.readings_acked


def bench_publishing(mosquitto: Mosquitto) -> None:
    plain = plain_publishing(mosquitto, data_samples(2_000, 60)[:10_000])
    ours = asyncio.run(node_publishing(mosquitto, 1_000, 1_500))
    whole = asyncio.run(whole_run(mosquitto, 3_000, 600.0))
    rows = [("paho-mqtt, protobuf objects, a message at a time", *plain)]
    rows.append((f"{ours[2]} edge nodes, readings at hand", ours[0], ours[1]))
    rows.append(("a whole run at full speed: 3,000 units simulated, born, published", *whole))
    table = [(way, f"{rate:,.0f}", f"{cpu:.1f}", f"{rate / plain[0]:.1f}") for way, rate, cpu in rows]
    for way, rate in (("paho-mqtt", 5_000), ("mqttium", 54_000), ("gmqtt", 73_000), ("a raw loop", 83_000)):
        table.append((f"reference: {way}, 200 B, no readings, quiet machine", f"{rate:,}", "", ""))
    show(
        "One process publishes at QoS 1 to Mosquitto",
        ("way", "messages/s", "CPU µs per message", "ratio"),
        table,
    )


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


async def many_nodes(broker: Mosquitto) -> list[tuple[str, ...]]:
    await say_online(broker)
    firsts: dict[str, Unit] = {}
    for unit in fleet_of(SCENARIO, units=NODES * 50):
        firsts.setdefault(unit.enterprise.id, unit)
    units = list(firsts.values())[:NODES]
    moments = Simulation(units, SCENARIO.seed, BEGIN_MS).moments(BEGIN_MS)
    first = [sample for moment in moments for sample in moment.samples]
    before, began = _resident(), time.monotonic()
    nodes = nodes_of(broker, units, 500)
    tasks = [asyncio.create_task(node.run()) for node in nodes.values()]
    for sample in first:
        nodes[sample.unit.enterprise.id].offer(sample)
    await until(lambda: all(node.online and not node.pending for node in nodes.values()))
    connected_s, each = time.monotonic() - began, (_resident() - before) / NODES / 1000
    began, cpu = time.monotonic(), time.process_time()
    for number in range(1, ROUNDS + 1):
        for _ in range(5):
            for sample in first:
                node = nodes[sample.unit.enterprise.id]
                node.offer(sample._replace(ts_ms=sample.ts_ms + number * 1000 + _))
            await asyncio.sleep(0.2)
    await until(lambda: not any(node.pending for node in nodes.values()))
    share = (time.process_time() - cpu) / (time.monotonic() - began)
    rate = 5 * ROUNDS * NODES / (time.monotonic() - began)
    for node in nodes.values():
        node.stop()
    await asyncio.gather(*tasks)
    return [
        (f"{NODES} edge nodes, all signals", f"{each:.0f} kB", f"{share:.0%} at {rate:,.0f} messages/s"),
        ("", "", f"connected and born in {connected_s:.1f} s"),
        ("reference: mqttium, 2,000 × 5 messages/s, no readings", "105 kB", "69 %"),
        ("reference: gmqtt, the same", "21 kB", "42 %"),
        ("reference: a bare Protocol, 5,000 × 5 messages/s", "2.8 kB", "49 %"),
    ]


def bench_many_nodes(mosquitto: Mosquitto) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(NODES + 500, hard)), hard))
    rows = asyncio.run(many_nodes(mosquitto))
    show("One process, many connections", ("way", "memory each", "of a core"), rows)


def bench_a_million_units() -> None:
    made, peak_kb = subprocess.check_output([sys.executable, "-c", MILLION], text=True).split()
    rows = [
        ("the simulation of the default mix, 10 s of it", f"{int(made):,}", f"{int(peak_kb) / 1e3:.0f} MB")
    ]
    show("1,000,000 units", ("way", "readings", "most resident memory"), rows)
