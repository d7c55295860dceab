"""Settings of the gateway, from flags, `QILU_…` variables or the embedding process."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import msgspec
from msgspec import Meta
from qilu_common.addresses import GATEWAY_PORT, LOCAL_BROKER, LOCAL_PLATFORM
from qilu_common.broker import MAX_PAYLOAD_BYTES
from qilu_contract.errors import ConfigError
from qilu_contract.wire import partitions
from qilu_contract.wire.ids import check_id
from qilu_contract.wire.partitions import Partition
from qilu_contract.wire.topics import HOST_ID


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings without secrets. QILU_API_KEY, QILU_INFLUX_TOKEN, QILU_MQTT_USER and QILU_MQTT_PASSWORD are
    read by name (or `…_FILE`) when the service starts, unless the URL or the embedding process provides them.

    Not pydantic: its import alone takes a sixth of the CPU time that a killed gateway needs until it stores
    again.
    """

    broker: str = LOCAL_BROKER
    store: str = ""
    """Store URL; empty only if an open store is passed."""
    platform: str = LOCAL_PLATFORM
    state: Path = Path("var/gateway")
    host_id: str = HOST_ID
    shard: str = "1/1"
    """Partition i/n: this is gateway i of n. Each serves every n-th county, and its host id is derived from
    `host_id`: `qilu-1-of-2`."""
    holder: str = ""
    """Name of the gateway that serves this shard now. Its roll-ups carry it: a shard that moves is summed up
    by two gateways in the same minute."""
    profile: Literal["reliable", "strict"] = "reliable"
    """`strict`: a second connection, which follows Sparkplug to the letter, speaks for the host and takes
    messages at QoS 0; the first one continues to take messages at QoS 1."""
    http_host: str = "127.0.0.1"
    http_port: Annotated[int, Meta(ge=0, le=65535)] = GATEWAY_PORT
    """Port of /metrics and /healthz; 0 takes a free port."""
    batch_size: Annotated[int, Meta(ge=1, le=15_000)] = 5000
    """Points per batch. Four batches must fit into MQTT's receive maximum of 65,535 messages."""
    batch_age_s: Annotated[float, Meta(gt=0, le=10)] = 0.2
    spool_max_bytes: Annotated[int, Meta(ge=0)] = 4 * 1024**3
    """Maximum size of the spool, some 30 bytes per reading; used while the store is unavailable. 0: no spool,
    messages stay unacknowledged.
    """
    spool_min_free_bytes: Annotated[int, Meta(ge=0)] = 512 * 1024**2
    """Disk space that the spool leaves free."""
    also: str = ""
    """Kafka topic to which stored readings are published as well: `kafka://a,b,c/topic`."""
    also_max_bytes: Annotated[int, Meta(gt=0)] = 4 * 1024**3
    """Maximum size of the second spool, of readings that Kafka has not acknowledged."""
    reorder_timeout_s: Annotated[float, Meta(ge=0, le=60)] = 2.0
    """Time in which skipped messages of an edge node may still arrive before a rebirth is requested."""
    max_payload_bytes: Annotated[int, Meta(ge=1024, le=16 * 1024 * 1024)] = MAX_PAYLOAD_BYTES

    def __post_init__(self) -> None:
        check_id(self.host_id, "the host id")

    @classmethod
    def load(cls, **given: object) -> Self:
        """The `given` settings, and others from the environment. Raises ConfigError for an invalid value."""
        names = {name: f"QILU_{name.upper()}" for name in cls.__struct_fields__}
        found: dict[str, object] = {
            name: os.environ[variable] for name, variable in names.items() if variable in os.environ
        }
        found |= given
        try:
            return msgspec.convert(found, cls, strict=False, dec_hook=_path)
        except msgspec.ValidationError as error:
            place = re.search(r" - at `\$\.(\w+)`$", str(error))
            if place is None:
                raise ConfigError(f"Settings of the gateway: {error}.") from error
            name = place[1]
            wrong = str(error).removesuffix(place[0])
            raise ConfigError(f"The setting {name} ({names[name]}) is {found[name]!r}: {wrong}.") from error

    def model_copy(self, *, update: Mapping[str, Any]) -> Self:
        """A copy with some settings changed; named like the method of the platform's settings."""
        return msgspec.structs.replace(self, **update)

    @property
    def partition(self) -> Partition:
        """Raises ConfigError."""
        return partitions.parse(self.shard)

    @property
    def host(self) -> str:
        """The host id of this gateway."""
        return self.partition.host_id(self.host_id)


def _path(wanted: type, value: object) -> object:
    if wanted is Path and isinstance(value, (str, Path)):
        return Path(value)
    raise NotImplementedError(f"{wanted.__name__} expected")
