"""The compose file of a cluster on one host: its promises. By `make test-cluster` the whole of it, with a
node, a gateway and a platform killed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from compose_stack import PATIENCE_S, UNITS, Stack, compose_engine, services_of

ROOT = Path(__file__).parents[2]
FILES = ("docker-compose.yml", "docker-compose.cluster.yml")
NODES = ("rabbitmq1", "rabbitmq2", "rabbitmq3")


def test_nodes_have_the_shared_settings_few_rights_and_a_health_check() -> None:
    for name in NODES:
        node = services_of(FILES[1])[name]
        assert {
            f"./deploy/rabbitmq/{file}"
            for file in ("rabbitmq.conf", "log-in.conf", "advanced.config", "enabled_plugins")
        } <= {volume.split(":")[0] for volume in node["volumes"]}
        assert node["cap_drop"] == ["ALL"]
        assert node["security_opt"] == ["no-new-privileges:true"]
        assert node["read_only"]
        assert {"healthcheck", "mem_limit", "restart"} <= node.keys()
        assert re.fullmatch(r"rabbitmq:\d+\.\d+\.\d+", node["image"])
        assert all(port.startswith("127.0.0.1:") for port in node.get("ports", []))


def test_services_log_in_by_certificate_alone() -> None:
    for name in ("gateway", "gateway2", "devices", "platform", "platform2"):
        environment = services_of(FILES[1])[name]["environment"]
        assert environment["QILU_BROKER"] == "mqtts://" + ",".join(NODES)
        assert {"QILU_MQTT_CA_FILE", "QILU_MQTT_CERTIFICATE_FILE", "QILU_MQTT_KEY_FILE"} <= environment.keys()
        for without in ("QILU_MQTT_USER", "QILU_MQTT_PASSWORD_FILE"):
            assert environment[without] is None, name


@pytest.fixture(scope="module")
def stack(free_port: Callable[[], int]) -> Iterator[Stack]:
    if os.environ.get("QILU_CLUSTER") != "1":
        pytest.skip("three RabbitMQ nodes in containers: make test-cluster")
    with compose_engine() as engine:
        image = [ROOT / "tests" / "rabbitmq_image.sh"]
        subprocess.run(image, env=os.environ | engine, check=False, timeout=900)
        running = Stack(engine, free_port, FILES)
        try:
            running.build()
            running.up()
            running.wait_for((UNITS, UNITS))
            yield running
        finally:
            running.down()


def _running(stack: Stack, node: str) -> int:
    done = stack.compose("exec", "-T", node, "rabbitmqctl", "-q", "cluster_status", "--formatter", "json")
    return len(json.loads(done.stdout)["running_nodes"]) if done.returncode == 0 else 0


def test_every_unit_comes_on_cloud_and_readings_go_on_after_kills(stack: Stack) -> None:
    deadline = time.monotonic() + PATIENCE_S
    assert _running(stack, NODES[0]) == len(NODES)
    for victim in (NODES[1], "gateway2", "platform2"):
        done = stack.compose("kill", "-s", "KILL", victim)
        assert done.returncode == 0, done.stderr
        before = _stored(stack)
        while _stored(stack) <= before:
            assert time.monotonic() < deadline, victim
            time.sleep(1)
        stack.compose("start", victim)
    while _running(stack, NODES[0]) < len(NODES):
        assert time.monotonic() < deadline
        time.sleep(1)


def _stored(stack: Stack) -> int:
    """Readings of all motors."""
    series = stack.rows('SELECT count("power_in") FROM "motor"')
    return int(series[0]["values"][0][1]) if series else 0
