"""A Kafka topic to which messages are published (extra `kafka`)."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Self

from qilu_common.addresses import split_hosts
from qilu_contract.errors import ConfigError, Retryable

from qilu_gateway.publish.messages import Message

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Producer

PORT = 9092
CONFIG = "QILU_KAFKA_CONFIG"
"""Further settings of librdkafka, such as `security.protocol=SASL_SSL` and a password, a line each."""
TOGETHER = 10_000
"""Messages in the client's queue at most."""
DELIVERY_S = 15.0
"""Kafka counts as unavailable when it has not acknowledged a message after this time."""
POLL_S = 0.2
_DEFAULTS = {
    "compression.type": "lz4",
    "linger.ms": 5,
    # A unit is in the partition in which Java's clients (Flink, Spark, Kafka Streams) look for it.
    "partitioner": "murmur2_random",
}
_REQUIRED: dict[str, Any] = {
    "acks": "all",
    # Retries must not overtake one another within a partition.
    "max.in.flight.requests.per.connection": 1,
    "message.timeout.ms": int(DELIVERY_S * 1000),
    "queue.buffering.max.messages": TOGETHER,
    "delivery.report.only.error": True,
}
_TOPIC = re.compile(r"[A-Za-z0-9._-]{1,249}").fullmatch
_SETTING = re.compile(r"([a-z][a-z0-9._]*)\s*=\s*(.*)").fullmatch


@dataclass(frozen=True, slots=True)
class KafkaAddress:
    """The parts of `kafka://a,b:9093,c/topic`."""

    servers: str
    topic: str

    @classmethod
    def parse(cls, url: str) -> Self:
        """Raises ConfigError."""
        try:
            each = split_hosts(url)
        except ValueError:
            each = []
        topic = each[0].path.strip("/") if each and each[0].scheme == "kafka" else ""
        hosts = [parts.netloc.strip() for parts in each]
        if not _TOPIC(topic) or not all(hosts) or "@" in hosts[0]:
            raise ConfigError(
                f"--also names no Kafka topic: use kafka://host:{PORT},host2/topic. "
                f"A log-in goes into {CONFIG}_FILE."
            )
        return cls(",".join(host if re.search(r":\d+$", host) else f"{host}:{PORT}" for host in hosts), topic)


class KafkaTopic:
    """Publishes to a topic. The methods block; `close` may be called from another thread."""

    def __init__(self, address: KafkaAddress, config: str | None) -> None:
        """`config`: text of CONFIG. Raises ConfigError if it is invalid, or the client is not installed."""
        try:
            import confluent_kafka
        except ModuleNotFoundError as error:
            raise ConfigError(
                "--also needs confluent_kafka, which is not installed: pip install 'clouds-in-qilu[kafka]'."
            ) from error
        silent = logging.getLogger("librdkafka")
        silent.propagate = False  # its troubles are reported once, by `Publisher`
        silent.addHandler(logging.NullHandler())
        self._topic = address.topic
        self._trouble = ""
        self._failed: KafkaError | None = None
        self._closing = threading.Event()
        self._too_large = confluent_kafka.KafkaError.MSG_SIZE_TOO_LARGE
        settings: dict[str, Any] = _DEFAULTS | _parsed(config or "") | _REQUIRED
        settings |= {"bootstrap.servers": address.servers, "error_cb": self._note_trouble}
        try:
            self._producer: Producer = confluent_kafka.Producer(settings, logger=silent)
        except confluent_kafka.KafkaException as error:
            raise ConfigError(f"{CONFIG}: {error.args[0].str()}.") from error

    def send(self, messages: Iterable[Message]) -> int:
        """Returns when Kafka has acknowledged all messages, with the number of those that are too large for
        it. Raises Retryable: some may have been published."""
        rest, refused = iter(messages), 0
        while some := list(islice(rest, TOGETHER)):
            refused += self._send(some)
        return refused

    def _send(self, some: list[Message]) -> int:
        self._failed, self._trouble = None, ""
        batch: list[dict[str, Any]] = [dict(each) for each in some]
        self._producer.produce_batch(self._topic, batch, on_delivery=self._note_failure)
        errors = [error for each in batch if (error := each.get("_error")) is not None]
        while self._producer.flush(POLL_S):
            if self._closing.is_set():
                self._producer.purge()
                raise Retryable("the gateway stops")
        refused = [error for error in errors if error.code() == self._too_large]
        if len(refused) < len(errors):
            self._failed = next(error for error in errors if error not in refused)
        if self._failed is not None:
            raise Retryable(self._trouble or self._failed.str())
        return len(refused)

    def close(self) -> None:
        """Have `send` give up."""
        self._closing.set()

    def _note_trouble(self, error: KafkaError) -> None:
        self._trouble = error.str()

    def _note_failure(self, error: KafkaError | None, _message: object) -> None:
        if error is not None:
            self._failed = error


def _parsed(config: str) -> dict[str, str]:
    found = {}
    for line in map(str.strip, config.splitlines()):
        if not line or line.startswith("#"):
            continue
        setting = _SETTING(line)
        if setting is None:
            raise ConfigError(f"{CONFIG} has a line that is no setting: use name=value, a line each.")
        found[setting[1]] = setting[2]
    return found
