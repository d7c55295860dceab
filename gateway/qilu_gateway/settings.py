"""What a gateway is told: by flags, by `QILU_…` variables, or by the process that embeds it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic_settings import BaseSettings, SettingsConfigDict
from qilu_contract import partitions
from qilu_contract.broker import MAX_PAYLOAD_BYTES
from qilu_contract.ids import check_id
from qilu_contract.partitions import Partition
from qilu_contract.topics import HOST_ID


def _host_id(value: str) -> str:
    return check_id(value, "the host id")


class Settings(BaseSettings):
    """Secrets are not here: QILU_API_KEY, QILU_INFLUX_TOKEN, QILU_MQTT_USER and QILU_MQTT_PASSWORD are read
    by name (or `…_FILE`) when the service starts, unless the URL or the embedding process gives them.
    """

    model_config = SettingsConfigDict(env_prefix="QILU_", extra="forbid", frozen=True)

    broker: str = "mqtt://127.0.0.1:1883"
    store: str = ""
    """Empty only when an opened store is handed in."""
    platform: str = "http://127.0.0.1:8000"
    state: Path = Path("var/gateway")
    host_id: Annotated[str, AfterValidator(_host_id)] = HOST_ID
    shard: str = "1/1"
    """i/n: which of n gateways this is; each has every n-th county, and a host id of its own made of
    `host_id`: `qilu-1-of-2`."""
    profile: Literal["reliable", "strict"] = "reliable"
    """`strict`: a second connection, to Sparkplug's letter, speaks for the host and takes what edge nodes
    publish at QoS 0; the first one goes on taking what is acknowledged."""
    http_host: str = "127.0.0.1"
    http_port: Annotated[int, Field(ge=0, le=65535)] = 8081
    """/metrics and /healthz; 0 takes a free port."""
    batch_size: Annotated[int, Field(ge=1, le=15_000)] = 5000
    """Points written together. Four batches must fit into MQTT's receive window of 65,535 messages."""
    batch_age_s: Annotated[float, Field(gt=0, le=10)] = 0.2
    spool_max_bytes: Annotated[int, Field(ge=0)] = 4 * 1024**3
    """What the spool may hold while the store is away, some 30 bytes a reading; 0: no spool, then messages
    stay unacknowledged.
    """
    spool_min_free_bytes: Annotated[int, Field(ge=0)] = 512 * 1024**2
    """Disk space that the spool leaves to others."""
    reorder_timeout_s: Annotated[float, Field(ge=0, le=60)] = 2.0
    """How long messages of an edge node that were skipped may still come before it is asked for a rebirth."""
    max_payload_bytes: Annotated[int, Field(ge=1024, le=16 * 1024 * 1024)] = MAX_PAYLOAD_BYTES

    @property
    def partition(self) -> Partition:
        """Raises ConfigError."""
        return partitions.parse(self.shard)

    @property
    def host(self) -> str:
        """The host id of this gateway."""
        return self.partition.host_id(self.host_id)
