"""Other gateways at the broker, by their STATE: a county that two of them have is stored once, but counted
twice in rates and roll-ups. So it is said.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import structlog
from qilu_contract import partitions
from qilu_contract.partitions import Partition

log = structlog.get_logger()

MAX_HOSTS = 1000


class _State(msgspec.Struct):
    online: bool
    timestamp: int


class Neighbours:
    def __init__(self, base: str, own: Partition, contradicted: Callable[[], None]) -> None:
        """`base` is the host id before a partition is added to it. `contradicted` is called when somebody
        else says that this host is offline."""
        self._base, self._own = base, own
        self._contradicted = contradicted
        self._sharing: dict[str, int] = {}

    @property
    def shared_groups(self) -> int:
        """Counties that another gateway has, too."""
        return sum(self._sharing.values())

    def hear(self, host: str, payload: bytes) -> None:
        """A STATE message. What is none says nothing."""
        try:
            state = msgspec.json.decode(payload, type=_State)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return
        if host == self._own.host_id(self._base):
            if not state.online:
                self._contradicted()
            return
        other = partitions.of_host(host, self._base)
        if other is None:
            return
        shared = set(other.groups) & set(self._own.groups)
        if not state.online or not shared:
            self._sharing.pop(host, None)
        elif host not in self._sharing and len(self._sharing) < MAX_HOSTS:
            self._sharing[host] = len(shared)
            log.error(
                "another gateway has counties of ours: give every gateway its own --shard of one number",
                other=host,
                counties=len(shared),
                one_of_them=min(shared),
            )
