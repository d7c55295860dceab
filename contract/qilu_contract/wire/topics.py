"""The topic grammar: Sparkplug B 3.0 (`spBv1.0/…`), and the doors (`qilu/v1/…` for plain JSON)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from qilu_contract.errors import BadReading, Reason
from qilu_contract.wire.doors import DOORS, JSON, Door, door_of
from qilu_contract.wire.ids import is_id

NAMESPACE = "spBv1.0"
HOST_ID = "qilu"
CLOCK = "qilu/v1/clock"
"""Retained: the clock of the current run."""

HISTORY = "qilu/history/"
"""Prefix of the topics of edge nodes that publish history, which a host takes in a separate session."""

MessageType = Literal["NBIRTH", "NDEATH", "DBIRTH", "DDEATH", "NDATA", "DDATA", "NCMD", "DCMD"]
_TYPES = frozenset(get_args(MessageType))


@dataclass(frozen=True, slots=True)
class SparkplugTopic:
    """`spBv1.0/{group}/{type}/{node}[/{device}]`: group is a county's code, node an enterprise's id, device a
    unit's id.
    """

    group: str
    type: MessageType
    node: str
    device: str | None


@dataclass(frozen=True, slots=True)
class StateTopic:
    """`spBv1.0/STATE/{host}`: of any host, whose id need not be one of ours."""

    host: str


@dataclass(frozen=True, slots=True)
class DoorTopic:
    """`{root}/{county}/{enterprise}/{unit}/{leaf}` of a door."""

    door: Door
    county: str
    enterprise: str
    unit: str


@dataclass(frozen=True, slots=True)
class ClockTopic:
    """`qilu/v1/clock`"""


Topic = SparkplugTopic | StateTopic | DoorTopic | ClockTopic


def sparkplug(type: MessageType, group: str, node: str, device: str | None = None) -> str:
    if device is None:
        return f"{NAMESPACE}/{group}/{type}/{node}"
    return f"{NAMESPACE}/{group}/{type}/{node}/{device}"


def state(host: str = HOST_ID) -> str:
    return f"{NAMESPACE}/STATE/{host}"


def telemetry(county: str, enterprise: str, unit: str) -> str:
    return JSON.topic(county, enterprise, unit)


def parse(topic: str) -> Topic:
    """The topic's parts; raises BadReading(bad_topic) unless it follows the grammar to the letter."""
    if topic == CLOCK:
        return ClockTopic()
    match topic.split("/"):
        case ["spBv1.0", "STATE", host] if host:
            return StateTopic(host)
        case ["spBv1.0", group, type_, node] if type_ in _TYPES and type_[0] == "N" and _ids(group, node):
            return SparkplugTopic(group, type_, node, None)  # type: ignore[arg-type]  # one of _TYPES
        case ["spBv1.0", group, type_, node, device] if (
            type_ in _TYPES and type_[0] == "D" and _ids(group, node, device)
        ):
            return SparkplugTopic(group, type_, node, device)  # type: ignore[arg-type]  # one of _TYPES
    door = door_of(topic)
    if door is not None:
        match topic.removeprefix(door.root).split("/"):
            case ["", county, enterprise, unit, door.leaf] if _ids(county, enterprise, unit):
                return DoorTopic(door, county, enterprise, unit)
    known = " nor ".join(each.topic("<county>", "<enterprise>", "<unit>") for each in DOORS)
    raise BadReading(
        Reason.BAD_TOPIC,
        f"topic {topic[:200]!r} is neither spBv1.0/<county>/<type>/<enterprise>[/<unit>] nor "
        f"{known} with ids of a-z, 0-9 and -",
    )


def owner(topic: str) -> tuple[str, str]:
    """County and enterprise of a topic that `parse` refuses, as far as it names them; else empty."""
    door = door_of(topic)
    match topic.removeprefix(door.root if door else "").split("/"):
        case ["", county, enterprise, *_] if door and _ids(county, enterprise):
            return county, enterprise
        case ["spBv1.0", group, _, node, *_] if _ids(group, node):
            return group, node
    return "", ""


def _ids(*values: str) -> bool:
    return all(is_id(value) for value in values)
