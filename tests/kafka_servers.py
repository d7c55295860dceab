"""Kafka for tests: librdkafka's mock cluster, which speaks the protocol and keeps messages in memory, and
Apache Kafka itself from its jars, on Java.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

VERSION = "3.9.1"
CACHE = Path(os.environ.get("QILU_CACHE", Path.home() / ".cache" / "qilu"))
PATIENCE_S = 60.0
POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>test</groupId><artifactId>kafka</artifactId><version>1</version><dependencies><dependency>
<groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{VERSION}</version>
</dependency></dependencies></project>"""


class MockKafka:
    """The mock cluster inside a client of librdkafka. It ends with this object."""

    def __init__(self) -> None:
        self._client = Producer({"test.mock.num.brokers": 3, "log_level": 0})
        found = self._client.list_topics(timeout=PATIENCE_S).brokers.values()
        self.servers = ",".join(f"{broker.host}:{broker.port}" for broker in found)


class ApacheKafka:
    """One broker that is its own controller."""

    def __init__(self, folder: Path, free_port: Callable[[], int]) -> None:
        port, controller = free_port(), free_port()
        self.servers = f"127.0.0.1:{port}"
        self._port, self._folder = port, folder
        self._process: subprocess.Popen[bytes] | None = None
        self._jars = _jars()
        folder.mkdir()
        (folder / "server.properties").write_text(
            f"process.roles=broker,controller\nnode.id=1\nlog.dirs={folder}/data\nnum.partitions=3\n"
            f"controller.quorum.voters=1@127.0.0.1:{controller}\ncontroller.listener.names=CONTROLLER\n"
            f"listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n"
            "offsets.topic.replication.factor=1\n"
        )
        self._java("kafka.tools.StorageTool", "format", "-t", "AAAAAAAAAAAAAAAAAAAAAQ", "-c").wait()
        self.start()

    def _java(self, *arguments: str) -> subprocess.Popen[bytes]:
        program = ["java", "-Xmx256m", "-XX:TieredStopAtLevel=1", "-cp", f"{self._jars}/*", *arguments]
        with (self._folder / "log").open("ab") as log:
            return subprocess.Popen([*program, self._folder / "server.properties"], stdout=log, stderr=log)

    def start(self) -> None:
        self._process = self._java("kafka.Kafka")
        deadline_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline_s:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port), 1.0):
                return
            time.sleep(0.1)
        raise AssertionError((self._folder / "log").read_text())

    def kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGKILL)
            process.wait()


def _jars() -> Path:
    """The folder with Kafka's jars, fetched once."""
    if os.environ.get("QILU_KAFKA") != "1":
        pytest.skip("Apache Kafka itself takes a minute: make test-kafka")
    if shutil.which("java") is None:
        pytest.skip("Apache Kafka needs Java")
    jars = CACHE / f"kafka-{VERSION}"
    if not jars.exists():
        if shutil.which("mvn") is None:
            pytest.skip(f"Maven fetches Apache Kafka, or {jars} holds its jars")
        parts = CACHE / f"kafka-{VERSION}.part"
        parts.mkdir(parents=True, exist_ok=True)
        (parts / "pom.xml").write_text(POM)
        goal = ["dependency:copy-dependencies", f"-DoutputDirectory={parts}"]
        subprocess.run(["mvn", "-q", "-B", "-f", parts / "pom.xml", *goal], check=True)
        parts.rename(jars)
    return jars


class Topic:
    """Reads everything that is published to a new topic."""

    def __init__(self, servers: str) -> None:
        self.name = f"readings-{secrets.token_hex(4)}"
        self.url = f"kafka://{servers}/{self.name}"
        self.read: list[tuple[str, dict[str, Any]]] = []
        """Key and body of each message."""
        settings = {"bootstrap.servers": servers, "group.id": self.name, "enable.auto.commit": False}
        self._consumer = Consumer(settings | {"log_level": 0})
        self._assigned = False

    def poll(self) -> list[tuple[str, dict[str, Any]]]:
        """The messages since the last call, as far as they have arrived."""
        if not self._assigned:
            found = self._consumer.list_topics(self.name, timeout=PATIENCE_S).topics[self.name]
            if not found.partitions:  # no message yet
                return []
            self._consumer.assign([TopicPartition(self.name, each, 0) for each in found.partitions])
            self._assigned = True
        new = [
            (str(message.key(), "utf-8"), json.loads(message.value()))
            for message in self._consumer.consume(1000, timeout=0.05)
            if message.error() is None
        ]
        self.read += new
        return new

    def close(self) -> None:
        self._consumer.close()


def reading_of(body: dict[str, Any]) -> tuple[str, int]:
    """The unit and time of a message."""
    return str(body["unit"]), int(body["ts"])
