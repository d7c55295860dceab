"""A small province whose parts are killed at random, and whose gateways change in number as readings arrive:
three RabbitMQ nodes, gateways that share shards, two platforms on one PostgreSQL, InfluxDB. Edge nodes follow
STATE; two devices ignore it.

`make test` runs the first test with four kills, where RabbitMQ can be had; `make test-cluster` and
`make soak` run all of them, with ten kills. QILU_CLUSTER_KILLS asks for another number.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster_province import WRONG, Province, eventually, time_ms
from conftest import Mosquitto
from nursery import Nursery
from qilu_common.cells import load_cells
from rabbitmq_cluster import Cluster, cluster, divisible_cluster

LONG = "1" in (os.environ.get("QILU_CLUSTER"), os.environ.get("QILU_SOAK"))
long = pytest.mark.skipif(not LONG, reason="some minutes each: make test-cluster")
KILLS = int(os.environ.get("QILU_CLUSTER_KILLS", "10" if LONG else "4"))
SEED = 20261127
PARTED_S = 60.0
SAVING_S = 1.0
"""More than Mosquitto takes to write its messages to disk here."""


@pytest.fixture
def nursery() -> Iterator[Nursery]:
    made = Nursery()
    yield made
    made.close()


@pytest.fixture
def made(
    nursery: Nursery, free_port: Callable[[], int], postgres_url: str, influxdb: Any, tmp_path: Path
) -> Iterator[Callable[..., Province]]:
    found: list[Province] = []

    def make(brokers: list[str], listeners: list[tuple[str, int]]) -> Province:
        found.append(Province(tmp_path, nursery, free_port, postgres_url, influxdb.url, brokers, listeners))
        return found[-1]

    yield make
    for province in found:
        province.close()


@pytest.fixture
def rabbitmq(tmp_path: Path, free_port: Callable[[], int]) -> Iterator[Cluster]:
    with cluster(tmp_path / "rabbitmq", free_port) as found:
        yield found


def test_random_kills_and_other_numbers_of_gateways(rabbitmq: Cluster, made: Callable[..., Province]) -> None:
    province = made([rabbitmq.url], [(node.host, node.mqtt) for node in rabbitmq.nodes])
    province.register()
    province.start_gateway("gateway1", platform=1)
    province.start_gateway("gateway2", platform=2)
    eventually(lambda: province.well({"gateway1": 2, "gateway2": 2}), "two gateways share")
    province.simulate()
    province.press_on(2.0)
    dice = random.Random(SEED)
    kinds = ["node1", "node2", "node3"], ["gateway1", "gateway2"], ["platform1", "platform2"]
    killed = [dice.choice(names) for names in kinds]  # at least one of each
    killed += (dice.choice([name for names in kinds for name in names]) for _ in range(KILLS - len(kinds)))
    dice.shuffle(killed)
    for name in killed:
        if name.startswith("node"):
            node = rabbitmq.nodes[int(name[-1]) - 1]
            node.kill()
            province.press_on(dice.uniform(0.5, 3.0))
            node.start()
            province.press_until(node.answers, "the node is back")
        else:
            province.parts[name].end(signal.SIGKILL)
            province.press_on(dice.uniform(0.1, 2.0))
            province.parts[name].start()
        province.press_on(dice.uniform(0.5, 2.0))
    print("killed:", *killed)  # noqa: T201
    province.press_until(lambda: province.well({"gateway1": 2, "gateway2": 2}), "both are well again")
    province.start_gateway("gateway3")
    three = {"gateway1": 2, "gateway2": 1, "gateway3": 1}
    province.press_until(lambda: province.well(three), "three gateways share")
    for name in ("gateway1", "gateway3"):
        province.parts[name].end(signal.SIGTERM)
        province.press_on(1.0)
    province.press_until(lambda: province.well({"gateway2": 4}), "one gateway has all")
    province.press_on(2.0)
    province.assert_nothing_is_lost()


@long
def test_a_mosquitto_that_is_killed_forgets_what_it_had_not_saved(
    mosquitto_program: str, tmp_path: Path, made: Callable[..., Province]
) -> None:
    """The broker of one of two cells is killed; it saves its messages every second."""
    brokers = []
    for name in ("mosquitto1", "mosquitto2"):
        (tmp_path / name).mkdir()
        brokers.append(Mosquitto(mosquitto_program, tmp_path / name))
        brokers[-1].start()
    mortal = brokers[0]
    province = made([broker.url for broker in brokers], [(broker.host, broker.port) for broker in brokers])
    province.register()
    province.start_gateway("gateway1", cell=1, platform=1)
    province.start_gateway("gateway2", cell=2, platform=2)
    both = {"gateway1": 2, "gateway2": 2}
    eventually(lambda: province.well(both), "each cell has its gateway")
    province.simulate()
    province.press_on(2.0)
    unsaved_s: list[tuple[float, float]] = []

    def kill_broker() -> None:
        mortal.kill()
        unsaved_s.append(((mortal.folder / "mosquitto.db").stat().st_mtime - SAVING_S, time.time()))
        province.press_on(dice.uniform(0.1, 2.0))
        mortal.start()

    dice = random.Random(SEED)
    killed = []
    for _ in range(KILLS):
        name = dice.choice(["broker", "gateway1", "gateway2", "platform1", "platform2"])
        killed.append(name)
        if name == "broker":
            kill_broker()
        else:
            province.parts[name].end(signal.SIGKILL)
            province.press_on(dice.uniform(0.1, 2.0))
            province.parts[name].start()
        province.press_on(dice.uniform(0.5, 2.0))
    # With its gateway: now nobody has what the broker forgets.
    province.parts["gateway1"].end(signal.SIGKILL)
    province.press_on(dice.uniform(1.5, 2.5))
    kill_broker()
    province.parts["gateway1"].start()
    print("killed:", *killed, "gateway1 broker")  # noqa: T201
    province.press_until(lambda: province.well(both), "both are well again")
    province.press_on(1.0)
    province.stop_publishing()
    found: list[dict[str, Any]] = []

    def settled() -> bool:
        found.append(province.verify() | {"letters": province.letters()})
        return len(found) > 1 and found[-1] == found[-2]

    eventually(settled, "the counts do not change any more")
    verdict = found[-1]
    print({name: verdict[name] for name in ("expected", "stored", *WRONG)})  # noqa: T201
    assert [verdict[name] for name in WRONG[1:]] == [0, 0, 0]
    places = load_cells(province.cells)
    losing = {places.of(county).name for county, counts in verdict["by_county"].items() if counts["lost"]}
    assert losing <= {"cell1"}
    for device, gateway in zip(province.devices, ("gateway1", "gateway2"), strict=True):
        stored, acknowledged_s = province.readings(device.unit), device.acknowledged_s()
        missing = [number for number in acknowledged_s if number % 10 and time_ms(number) not in stored]
        unsaved = [
            number
            for number, at_s in acknowledged_s.items()
            if gateway == "gateway1" and any(saved_s < at_s < end_s for saved_s, end_s in unsaved_s)
        ]
        forgotten = device.others - province.letters(gateway)
        print(f"{device.unit}: {len(acknowledged_s)} acknowledged, {len(missing)} + {forgotten} lost")  # noqa: T201
        assert set(missing) <= set(unsaved)
        assert 0 <= forgotten <= sum(number % 10 == 0 for number in unsaved)
    province.assert_audit_is_clean()
    province.close()
    for broker in brokers:
        broker.kill()


@long
def test_a_node_that_is_lost_for_good_is_replaced_by_an_empty_one(
    rabbitmq: Cluster, made: Callable[..., Province]
) -> None:
    first, second, third = rabbitmq.nodes
    province = made([rabbitmq.url], [(first.host, first.mqtt)])
    province.register()
    province.start_gateway("gateway1")
    eventually(lambda: province.well({"gateway1": 4}), "the gateway is well")
    province.simulate()
    province.press_on(3.0)
    third.kill()
    third.lose_disk()
    province.press_on(2.0)
    first.ctl("forget_cluster_node", third.name)
    third.start()
    province.press_until(lambda: Cluster.running_nodes(third) == 3, "the empty node has joined")
    first.ctl("grow", third.name, "all", tool="rabbitmq-queues")
    # With its copies it makes a majority: one of the others may be lost now.
    second.kill()
    province.press_on(5.0)
    second.start()
    province.press_until(second.answers, "the second is back")
    province.assert_nothing_is_lost()


@long
def test_the_smaller_side_of_a_partition_confirms_nothing(
    tmp_path: Path, free_port: Callable[[], int], made: Callable[..., Province]
) -> None:
    with divisible_cluster(tmp_path / "rabbitmq", free_port) as (rabbitmq, wire):
        first, _, third = rabbitmq.nodes
        province = made([rabbitmq.url], [(first.host, first.mqtt), (third.host, third.mqtt)])
        province.register()
        province.start_gateway("gateway1")
        eventually(lambda: province.well({"gateway1": 4}), "the gateway is well")
        province.simulate()
        majority, minority = province.devices
        province.press_until(lambda: minority.acknowledged > 10, "the third node confirms")
        wire.cut()
        province.press_on(1.0)  # what was confirmed before the cut has arrived
        before = majority.acknowledged, minority.acknowledged
        province.press_on(PARTED_S)
        after = majority.acknowledged, minority.acknowledged
        print("confirmed in a partition:", *(b - a for a, b in zip(before, after, strict=True)))  # noqa: T201
        assert after[0] > before[0]
        assert after[1] == before[1]
        wire.mend()
        province.press_until(lambda: Cluster.running_nodes(third) == 3, "one cluster again")
        province.press_on(2.0)
        province.assert_nothing_is_lost()
        province.close()
