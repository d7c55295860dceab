"""Topics as they come, in bytes: whose births, deaths and data they are."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from qilu_contract.wire import topics

from qilu_gateway.read.births import HISTORY

LIVE, HISTORIC, JSON = 0, 1, 2
_ID = rb"([a-z0-9-]{1,32})"
_BEFORE = re.escape(topics.HISTORY.encode())
_DATA = re.compile(rb"(?:(%b)?spBv1\.0/%b/DDATA/%b/%b|qilu/v1/%b/%b/%b/telemetry)" % (_BEFORE, *(_ID,) * 6))
_DEVICE_BIRTH = re.compile(rb"(?:%b)?spBv1\.0/[^/]+/DBIRTH/[^/]+/%b" % (_BEFORE, _ID))
_BIRTH_OR_DEATH = re.compile(rb"(?:%b)?spBv1\.0/([^/]+)/[ND](?:BIRTH|DEATH)/([^/]+)" % _BEFORE)
_NODE = re.compile(rb"(?:%b)?spBv1\.0/([^/]+)/[^/]+/([^/]+)" % _BEFORE)


class Topic(NamedTuple):
    """Of data of a unit; `kind`: LIVE, HISTORIC, JSON."""

    kind: int
    county: str
    enterprise: str
    unit: str

    @property
    def group(self) -> str:
        """Under which births and nodes are known."""
        return HISTORY + self.county if self.kind == HISTORIC else self.county


def parse(name: bytes) -> Topic | None:
    """None for anything but a unit's data."""
    match = _DATA.fullmatch(name)
    if match is None:
        return None
    history, *parts = (each.decode() for each in match.groups(b""))
    if parts[0]:
        return Topic(HISTORIC if history else LIVE, *parts[:3])
    return Topic(JSON, *parts[3:])


def node(name: bytes) -> tuple[str, str] | None:
    """The edge node, by group and name, whose topic it is."""
    return _node(_NODE, name)


def born_or_dead(names: Iterable[bytes]) -> set[tuple[str, str]]:
    """Nodes of which a birth or death is among these topics, by group and name."""
    return {key for name in names if (key := _node(_BIRTH_OR_DEATH, name)) is not None}


def units(names: Iterable[bytes]) -> set[str]:
    """Units of which births or data are among these topics."""
    found = set()
    for name in names:
        topic, birth = parse(name), _DEVICE_BIRTH.fullmatch(name)
        if topic is not None:
            found.add(topic.unit)
        elif birth is not None:
            found.add(birth[1].decode())
    return found


def _node(pattern: re.Pattern[bytes], name: bytes) -> tuple[str, str] | None:
    match = pattern.match(name)
    if match is None:
        return None
    county, found = (part.decode("utf-8", "replace") for part in match.groups())
    return HISTORY + county if name.startswith(b"qilu/") else county, found
