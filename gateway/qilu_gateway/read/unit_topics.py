"""Parser for received topics (bytes): which node or unit a birth, death or data message belongs to."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

import msgspec
from qilu_contract.wire import topics

from qilu_gateway.read.births import HISTORY

LIVE, HISTORIC, JSON = 0, 1, 2
BIRTH = 4
"""Flag that is added to LIVE or HISTORIC."""
_ID = r"([a-z0-9-]{1,32})"
_OF_UNIT = re.compile(
    rf"^(?:({re.escape(topics.HISTORY)})?spBv1\.0/{_ID}/D(DATA|BIRTH)/{_ID}/{_ID}"
    rf"|qilu/v1/{_ID}/{_ID}/{_ID}/telemetry|.*)$",
    re.MULTILINE,
)
"""Matches each line once, with empty groups for any other topic."""
_BEFORE = re.escape(topics.HISTORY.encode())
_BIRTH_OR_DEATH = re.compile(rb"(?:%b)?spBv1\.0/([^/]+)/[ND](?:BIRTH|DEATH)/([^/]+)" % _BEFORE)
_SPARKPLUG = re.compile(rb"(?:%b)?spBv1\.0/([^/]+)/([^/]+)/([^/]+)(?:/([^/]+))?" % _BEFORE)
_NAMESPACE = topics.NAMESPACE.encode() + b"/"
_NODE = re.compile(rb"(?:%b)?spBv1\.0/([^/]+)/[^/]+/([^/]+)" % _BEFORE)


class Topic(msgspec.Struct, frozen=True, gc=False):
    """Topic of a unit's data or birth; `kind` is LIVE or HISTORIC, with or without BIRTH, or JSON."""

    kind: int
    county: str
    enterprise: str
    unit: str

    @property
    def group(self) -> str:
        """The group under which births and nodes are known."""
        return HISTORY + self.county if self.kind & 3 == HISTORIC else self.county


def parse(names: Sequence[bytes]) -> list[Topic | None]:
    """None for anything but a unit's data and birth."""
    found = _OF_UNIT.findall(b"\n".join(names).decode("latin-1")) if names else []
    if len(found) != len(names):  # a line break in a topic: no topic of ours has one
        return [topic for name in names for topic in parse([name.replace(b"\n", b" ")])]
    parsed: list[Topic | None] = []
    for history, group, said, node, device, county, enterprise, unit in found:
        if unit:
            parsed.append(Topic(JSON, county, enterprise, unit))
        elif device:
            kind = (HISTORIC if history else LIVE) + (BIRTH if said == "BIRTH" else 0)
            parsed.append(Topic(kind, group, node, device))
        else:
            parsed.append(None)
    return parsed


def leading_births(names: Sequence[bytes]) -> list[int]:
    """Indices of edge node births that come before every other message of their node, if the node is neither
    born again nor dies among these topics: all its later messages then belong to that birth."""
    found: dict[tuple[bytes, bytes], int] = {}
    seen: set[tuple[bytes, bytes]] = set()
    for place, name in enumerate(names):
        if not name.startswith(_NAMESPACE):
            continue
        _, group, type_, node, *_ = *name.split(b"/", 4), b"", b"", b""
        key = group, node
        if type_ == b"NBIRTH" and key not in seen:
            found[key] = place
        elif type_ in (b"NBIRTH", b"NDEATH"):
            found.pop(key, None)
        seen.add(key)
    return list(found.values())


def node(name: bytes) -> tuple[str, str] | None:
    """The edge node of the topic, as group and name."""
    return _node(_NODE, name)


def born_or_dead(names: Collection[bytes]) -> set[tuple[str, str]]:
    """Nodes with a birth or death among these topics, as group and name."""
    together = b"\n".join(names)
    if b"BIRTH/" not in together and b"DEATH/" not in together:  # as nearly always
        return set()
    some = (name for name in names if b"BIRTH/" in name or b"DEATH/" in name)
    return {key for name in some if (key := _node(_BIRTH_OR_DEATH, name)) is not None}


def sparkplug(name: bytes) -> tuple[str, tuple[str, str, str]] | None:
    """The type of a Sparkplug message with this topic, and its sender: group, node and device (empty for the
    node's own). None for other topics."""
    match = _SPARKPLUG.match(name)
    if match is None:
        return None
    group, type_, node, device = (part.decode("utf-8", "replace") for part in match.groups(b""))
    return type_, (HISTORY + group if name.startswith(b"qilu/") else group, node, device)


def units(names: Collection[bytes]) -> set[str]:
    """Units with a birth or data among these topics."""
    return {topic.unit for topic in parse(list(names)) if topic is not None}


def _node(pattern: re.Pattern[bytes], name: bytes) -> tuple[str, str] | None:
    match = pattern.match(name)
    if match is None:
        return None
    county, found = (part.decode("utf-8", "replace") for part in match.groups())
    return HISTORY + county if name.startswith(b"qilu/") else county, found
