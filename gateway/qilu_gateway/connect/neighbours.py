"""Detects other gateways at the broker by their STATE. If two gateways share a county, its readings are
stored once but counted twice in rates and roll-ups, so the overlap is logged.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog
from qilu_contract.wire import partitions
from qilu_contract.wire.host_state import State
from qilu_contract.wire.partitions import Partition

log = structlog.get_logger()

MAX_HOSTS = 1000


class Neighbours:
    def __init__(self, base: str, own: Partition, hear_own: Callable[[bytes], None]) -> None:
        """`base` is the host id before a partition is added to it. `hear_own` is called with each STATE of
        this host."""
        self._base, self._own = base, own
        self._hear_own = hear_own
        self._sharing: dict[str, int] = {}

    @property
    def shared_groups(self) -> int:
        """Number of counties that another gateway also serves."""
        return sum(self._sharing.values())

    def hear(self, host: str, payload: bytes) -> None:
        """Handle the STATE of a host; hosts that are not gateways are ignored."""
        if host == self._own.host_id(self._base):
            self._hear_own(payload)
            return
        other = partitions.of_host(host, self._base)
        state = State.decode(payload)
        if other is None or state is None:
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
