"""Partitions: several gateways share one platform; each serves every n-th county and is a separate Sparkplug
host."""

from __future__ import annotations

import re
from dataclasses import dataclass

from qilu_contract.catalogue.places import COUNTIES
from qilu_contract.errors import ConfigError
from qilu_contract.wire import topics

_GROUPS = sorted(COUNTIES)
_PLACE = {group: place for place, group in enumerate(_GROUPS)}


@dataclass(frozen=True, slots=True)
class Partition:
    """`index` of `count` gateways, from 1."""

    index: int = 1
    count: int = 1

    @property
    def whole(self) -> bool:
        return self.count == 1

    @property
    def groups(self) -> tuple[str, ...]:
        """The counties whose Sparkplug groups, and plain topics, this gateway has."""
        return tuple(_GROUPS[self.index - 1 :: self.count])

    def host_id(self, base: str = topics.HOST_ID) -> str:
        """The host id of this gateway: `qilu`, or `qilu-1-of-2`."""
        return base if self.whole else f"{base}-{self.index}-of-{self.count}"


def parse(text: str) -> Partition:
    """`2/3`: the second of three. Raises ConfigError."""
    found = re.fullmatch(r"(\d{1,3})/(\d{1,3})", text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]) <= len(_GROUPS):
        raise ConfigError(f"--shard {text!r} is no part of the gateway: write 1/3 for the first of three.")
    return Partition(int(found[1]), int(found[2]))


def of_group(group: str, count: int) -> Partition:
    """The partition, of `count`, that has the county."""
    return Partition(_PLACE[group] % count + 1, count)


def of_host(host_id: str, base: str = topics.HOST_ID) -> Partition | None:
    """The partition that goes with a host id; None for a host that is no gateway of this base."""
    if host_id == base:
        return Partition()
    found = re.fullmatch(r"-(\d{1,3})-of-(\d{1,3})", host_id.removeprefix(base))
    if found is None or not 1 <= int(found[1]) <= int(found[2]) <= len(_GROUPS):
        return None
    return Partition(int(found[1]), int(found[2]))
