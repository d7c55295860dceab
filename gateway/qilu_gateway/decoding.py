"""From a message to readings: topic, payload, births. Whether a unit is registered, and what its class says
about the values, comes later (`admission.py`, `checking.py`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import msgspec
from qilu_contract import clock, json_payload, sparkplug, sparkplug_floats, topics
from qilu_contract.errors import BadReading, Reason
from qilu_contract.readings import MAX_TIME_MS, Reading, Value
from qilu_contract.topics import ClockTopic, JsonTopic, SparkplugTopic, StateTopic, Topic

from qilu_gateway.births import Aliases, Births, BirthTable, is_information

MAX_NODES = 200_000
"""Edge nodes whose sequence numbers are followed; beyond, the ones silent for longest are forgotten."""


class Decoded(msgspec.Struct):
    """What one message says. Without readings, refusals and birth it is a control message."""

    unit: str | None = None
    county: str = ""
    enterprise: str = ""
    readings: list[Reading] = []
    refused: list[BadReading] = []
    birth: BirthTable | None = None
    clock: clock.RunClock | None = None
    gap: bool = False
    """The edge node's sequence number shows that a message is missing."""
    host: str = ""
    """Whose STATE it is."""
    death: bool = False
    """The unit is gone, or the edge node with all its units."""
    rebirth: bool = False
    """The aliases are not known: the edge node is to say its births again."""


class Decoder:
    """Keeps what decoding needs from earlier messages: births, and each edge node's last sequence number."""

    def __init__(self, births: Births, max_payload_bytes: int) -> None:
        self._births = births
        self._max_payload_bytes = max_payload_bytes
        self._last_seq: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._bd_seq: dict[tuple[str, str], object] = {}

    def decode(self, topic: str, payload: bytes, *, dup: bool, past: bool = False) -> Decoded:
        """`dup`: the broker may have delivered this message before. `past`: its births, clocks and sequence
        numbers are of long ago, and nothing is learned from them. What cannot be decoded comes back as one
        refused reading.
        """
        decoded = Decoded()
        try:
            parsed = _parse(topic)
            if isinstance(parsed, SparkplugTopic):
                decoded.county, decoded.enterprise, decoded.unit = parsed.group, parsed.node, parsed.device
            elif isinstance(parsed, JsonTopic):
                decoded.county, decoded.enterprise, decoded.unit = (
                    parsed.county,
                    parsed.enterprise,
                    parsed.unit,
                )
            if isinstance(parsed, StateTopic):
                decoded.host = parsed.host
                return decoded
            if isinstance(parsed, SparkplugTopic) and parsed.type in ("NCMD", "DCMD"):
                return decoded  # said by hosts, to others
            if len(payload) > self._max_payload_bytes:
                raise BadReading(
                    Reason.TOO_LARGE, f"{len(payload)} bytes, and {self._max_payload_bytes} is the bound"
                )
            match parsed:
                case JsonTopic(unit=unit):
                    for item in json_payload.decode(unit, payload):
                        if isinstance(item, BadReading):
                            decoded.refused.append(item)
                        else:
                            decoded.readings.append(item)
                case ClockTopic() if payload and not past:  # an empty one takes the retained message back
                    decoded.clock = clock.decode(payload)
                case SparkplugTopic():
                    if not self._plain_data(decoded, parsed, payload, dup, past):
                        self._sparkplug(decoded, parsed, sparkplug.decode(payload), dup, past)
        except BadReading as bad:
            decoded.refused.append(bad)
        return decoded

    def _plain_data(
        self, decoded: Decoded, topic: SparkplugTopic, body: bytes, dup: bool, past: bool
    ) -> bool:
        """The short way for what nearly every message is: floats of a known device, of one time or each with
        its own. False for anything else, which `_sparkplug` takes apart with care; both come to the same."""
        if topic.type != "DDATA" or topic.device is None:
            return False
        table = self._births.find((topic.group, topic.node, topic.device))
        plain = None if table is None or table.ambiguous else sparkplug_floats.decode(body)
        if table is None or plain is None:
            return False
        ts_ms, seq, aliases, floats, times_ms = plain
        try:
            names = [table.names[alias] for alias in aliases]
        except KeyError:  # no alias of its birth, or nothing measured
            return False
        decoded.gap = not past and self._follow(topic, seq) and not dup
        if times_ms is None:
            decoded.readings.append(Reading(topic.device, ts_ms, dict(zip(names, floats, strict=True))))
            return True
        by_time: dict[int, dict[str, Value]] = {}
        for own_ms, name, value in zip(times_ms, names, floats, strict=True):
            values = by_time.get(own_ms)
            if values is None:
                by_time[own_ms] = {name: value}
            else:
                values[name] = value
        decoded.readings += [Reading(topic.device, own_ms, values) for own_ms, values in by_time.items()]
        return True

    def _sparkplug(
        self, decoded: Decoded, topic: SparkplugTopic, payload: sparkplug.Payload, dup: bool, past: bool
    ) -> None:
        decoded.gap = not past and self._follow(topic, payload.seq) and not dup
        key = (topic.group, topic.node, topic.device or "")
        match topic.type:
            case "NBIRTH" | "DBIRTH":
                if topic.device is not None:
                    self._group(decoded, topic.device, payload, [(m.name, m) for m in payload.metrics])
                if past:
                    return
                aliases: Aliases = {
                    metric.alias: (metric.name, metric.datatype)
                    for metric in payload.metrics
                    if metric.alias is not None and metric.name is not None
                }
                decoded.birth = self._births.learn(key, aliases, payload.ts_ms)
                if topic.device is None and len(self._bd_seq) < MAX_NODES:
                    self._bd_seq[topic.group, topic.node] = _bd_seq(payload)
            case "DDEATH":
                decoded.death = not past
            case "NDEATH":
                # The will of an older connection may come after the birth on a newer one.
                known = self._bd_seq.get((topic.group, topic.node))
                decoded.death = not past and known in (None, _bd_seq(payload))
            case "DDATA" | "NDATA":
                named = self._names(decoded, key, payload.metrics, dup)
                if topic.device is not None:
                    self._group(decoded, topic.device, payload, named)
                elif strange := [name for name, _ in named if not is_information(name)]:
                    raise BadReading(
                        Reason.UNKNOWN_SIGNAL,
                        f"{strange[0]!r}: an edge node has no signals of its own, publish them as a device's",
                    )

    def _names(
        self, decoded: Decoded, key: tuple[str, str, str], metrics: Iterable[sparkplug.Metric], dup: bool
    ) -> list[tuple[str | None, sparkplug.Metric]]:
        """Each metric with its name; raises BadReading(no_birth) when an alias is not known."""
        table = self._births.find(key)
        if table is not None and table.ambiguous and dup:
            raise BadReading(
                Reason.NO_BIRTH,
                "delivered again around a birth that gave aliases another meaning: not guessed",
            )
        aliases = table.aliases if table is not None else {}
        named: list[tuple[str | None, sparkplug.Metric]] = []
        for metric in metrics:
            if metric.name is not None or metric.alias is None:
                named.append((metric.name, metric))
                continue
            meaning = aliases.get(metric.alias)
            if meaning is None:
                decoded.rebirth = not dup
                what = (
                    "no birth of it is known"
                    if table is None
                    else f"alias {metric.alias} is not in its birth"
                )
                raise BadReading(Reason.NO_BIRTH, f"{'/'.join(filter(None, key))}: {what}")
            name, datatype = meaning
            if metric.datatype == 0 and type(metric.value) is int:
                metric = metric._replace(value=sparkplug.as_signed(metric.value, datatype))
            named.append((name, metric))
        return named

    @staticmethod
    def _group(
        decoded: Decoded,
        unit: str,
        payload: sparkplug.Payload,
        named: Iterable[tuple[str | None, sparkplug.Metric]],
    ) -> None:
        """Readings by the metrics' own timestamps, else the payload's. Null metrics say nothing."""
        by_time: dict[int | None, dict[str, Any]] = {}
        for name, metric in named:
            if metric.value is None or is_information(name):
                continue
            ts_ms = payload.ts_ms if metric.ts_ms is None else metric.ts_ms
            by_time.setdefault(ts_ms, {})[name or ""] = metric.value
        for ts_ms, values in by_time.items():
            if ts_ms is None or ts_ms > MAX_TIME_MS:
                what = "missing" if ts_ms is None else f"{ts_ms} ms"
                decoded.refused.append(BadReading(Reason.BAD_TIMESTAMP, f"the timestamp is {what}"))
            else:
                decoded.readings.append(Reading(unit, ts_ms, values))

    def _follow(self, topic: SparkplugTopic, seq: int | None) -> bool:
        """Whether sequence numbers were skipped."""
        node = (topic.group, topic.node)
        if topic.type == "NDEATH":
            self._last_seq.pop(node, None)
            return False
        if seq is None:
            return False
        last = self._last_seq.get(node)
        self._last_seq[node] = seq
        if last is None and len(self._last_seq) > MAX_NODES:
            self._last_seq.popitem(last=False)
        return last is not None and topic.type != "NBIRTH" and seq != (last + 1) % 256


@lru_cache(maxsize=100_000)
def _parse(topic: str) -> Topic:
    """Topics come again and again, and taking one apart costs as much as decoding a metric or two."""
    return topics.parse(topic)


def _bd_seq(payload: sparkplug.Payload) -> object:
    """Which connection of its edge node a birth or death belongs to."""
    return next((metric.value for metric in payload.metrics if metric.name == "bdSeq"), None)
