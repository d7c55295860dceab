"""From a message to readings: topic, payload, births. Whether a unit is registered, and what its class says
about the values, comes later (`admission.py`, `checking.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec
from qilu_contract.errors import BadReading, Reason, Remark
from qilu_contract.readings import Reading, Value
from qilu_contract.wire import clock, json_payload, marks, sparkplug, sparkplug_floats, topics
from qilu_contract.wire.marks import Mark
from qilu_contract.wire.sparkplug import GOOD, QUALITY, UNIT
from qilu_contract.wire.topics import ClockTopic, JsonTopic, SparkplugTopic, StateTopic, Topic

from qilu_gateway.read.births import DEAD, HISTORY, Births, BirthTable
from qilu_gateway.read.edge_nodes import EdgeNode, SessionRow
from qilu_gateway.read.layouts import Aliases, is_information

MAX_KEPT_TOPIC = 200
"""Characters of a topic that is kept, taken apart: no unit's is longer, and what people make up is not."""
BD_SEQ = "bdSeq"
"""The metric that says to which connection of its edge node a birth or death belongs."""


class _Delivery(NamedTuple):
    """How a message came: see `Decoder.decode`."""

    dup: bool
    retained: bool
    past_ms: int | None
    lane: int
    followed: bool

    @property
    def present(self) -> bool:
        """It changes births, deaths and sequence numbers."""
        return not self.retained and self.past_ms is None


_NOT_A_NODES = "an edge node has no signals of its own, publish them as a device's"


class Decoded(msgspec.Struct):
    """What one message says. Without readings, refusals and birth it is a control message."""

    unit: str | None = None
    county: str = ""
    enterprise: str = ""
    readings: list[Reading] = []
    refused: list[BadReading] = []
    remarks: dict[Remark, tuple[str, int]] = {}
    """What was left out, with the first one's detail and how many there were."""
    birth: BirthTable | None = None
    units: dict[str, str] = {}
    """Units of measurement that a birth gives, by name."""
    clock: clock.RunClock | None = None
    sessions: list[SessionRow] = []
    """What a birth or death changes about the edge node or device."""
    gap: bool = False
    """The edge node's sequence number shows that a message is missing."""
    complete: bool = False
    """It is the last of the messages that were missing."""
    history: bool = False
    """It came on the topics of history, and says nothing about who is there now."""
    host: str = ""
    """Whose STATE it is."""
    death: bool = False
    """The unit is gone, or the edge node with all its units."""
    ignored_death: bool = False
    """The will of an earlier connection of the edge node, or a retained death."""
    mark: Mark | None = None
    """The edge node wants to know that we have come to here."""
    rebirth: bool = False
    """The aliases are not known: the edge node is to say its births again."""

    def remark(self, kind: Remark, detail: str) -> None:
        first, count = self.remarks.get(kind, (detail, 0))
        self.remarks[kind] = first, count + 1


class Decoder:
    """Keeps what decoding needs from earlier messages: births and deaths, and each edge node's last sequence
    number."""

    def __init__(self, births: Births, max_payload_bytes: int) -> None:
        self._births = births
        self._max_payload_bytes = max_payload_bytes

    def decode(
        self,
        topic: str,
        payload: bytes,
        *,
        dup: bool,
        retained: bool = False,
        past_ms: int | None = None,
        lane: int = 0,
        receipt: Callable[[], int] | None = None,
        followed: bool = False,
    ) -> Decoded:
        """`dup`: the broker may have delivered this message before. `retained`: the broker kept it, and it
        may be older than anything that is known. `past_ms`: it came then, and is taken again. Neither a
        retained message nor one of the past changes births, deaths or sequence numbers; one of the past sets
        no clock. `lane`: which connection of ours it came on; no two keep the order of each other's messages,
        so the death of a node counts on the one on which its birth came. `receipt` is asked for the time of
        receipt when a reading has no time of its own. `followed`: its sequence number is known already. What
        cannot be decoded comes back as one refused reading.
        """
        delivery = _Delivery(dup, retained, past_ms, lane, followed)
        decoded = Decoded()
        try:
            decoded.history = topic.startswith(topics.HISTORY)
            parse = _parse if len(topic) <= MAX_KEPT_TOPIC else topics.parse
            parsed = parse(topic.removeprefix(topics.HISTORY))
            if decoded.history and not isinstance(parsed, SparkplugTopic):
                raise BadReading(Reason.BAD_TOPIC, f"topic {topic[:200]!r}: history comes as Sparkplug alone")
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
                bad = BadReading(
                    Reason.TOO_LARGE, f"{len(payload)} bytes, and {self._max_payload_bytes} is the bound"
                )
                decoded.refused += [bad] * _count_readings(parsed, payload)
                return decoded
            match parsed:
                case JsonTopic(unit=unit):
                    # The broker kept a retained message for nobody knows how long.
                    found = json_payload.decode(unit, payload, None if retained else receipt)
                    for item in found:
                        if item is None:
                            decoded.remark(Remark.NO_VALUE, "every value is null")
                        elif isinstance(item, BadReading):
                            decoded.refused.append(item)
                        else:
                            decoded.readings.append(item)
                case ClockTopic() if payload and past_ms is None:  # an empty one clears the retained message
                    decoded.clock = clock.decode(payload)
                case SparkplugTopic():
                    if decoded.history:  # its births and aliases are its own: a live run may have others
                        parsed = replace(parsed, group=HISTORY + parsed.group)
                    if not delivery.present or not self._plain_data(decoded, parsed, payload, delivery):
                        self._sparkplug(
                            decoded, parsed, sparkplug.decode(payload, self._max_payload_bytes), delivery
                        )
        except BadReading as bad:
            if bad.reason is Reason.BAD_TOPIC:
                decoded.county, decoded.enterprise = topics.owner(topic.removeprefix(topics.HISTORY))
            decoded.refused.append(bad)
        decoded.death &= not decoded.history
        return decoded

    def _plain_data(self, decoded: Decoded, topic: SparkplugTopic, body: bytes, delivery: _Delivery) -> bool:
        """The short way for what nearly every message is: floats of a known device, of one time or each with
        its own. False for anything else, which `_sparkplug` takes apart with care; both come to the same."""
        if topic.type != "DDATA" or topic.device is None:
            return False
        table = self._births.find((topic.group, topic.node, topic.device))
        node = self._births.node(topic.group, topic.node)
        if table is None or table.ambiguous or table.session != node.session:
            return False
        plain = sparkplug_floats.decode(body)
        if plain is None:
            return False
        ts_ms, seq, aliases, floats, times_ms = plain
        try:
            names = [table.names[alias] for alias in aliases]
        except KeyError:  # no alias of its birth, or nothing measured
            return False
        _follow(decoded, node, seq, delivery)
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
        self,
        decoded: Decoded,
        topic: SparkplugTopic,
        payload: sparkplug.Payload,
        delivery: _Delivery,
    ) -> None:
        node = self._births.node(topic.group, topic.node)
        table = self._births.find((topic.group, topic.node, topic.device or ""))
        if delivery.present:
            if topic.type == "NBIRTH":
                node.count_anew()
            if topic.type != "NDEATH":
                _follow(decoded, node, payload.seq, delivery)
        match topic.type:
            case "NBIRTH" | "DBIRTH":
                if not any(metric.name for metric in payload.metrics):
                    raise BadReading(
                        Reason.BAD_PAYLOAD, f"{topic.type} without metrics: the birth before it stays in use"
                    )
                if topic.device is not None:
                    self._group(decoded, topic.device, payload, [(m.name, m) for m in payload.metrics])
                for name in [m.name for m in payload.metrics if type(m.value) in (int, float, bool)]:
                    if topic.device is None and not is_information(name):
                        decoded.remark(Remark.UNKNOWN_SIGNAL, f"{name!r:.60}: {_NOT_A_NODES}")
                if delivery.present:
                    node.lane = delivery.lane
                    self._learn(decoded, topic, payload, node)
                elif delivery.retained:
                    decoded.rebirth = table is None or table.session != node.session
            case "DDEATH" | "NDEATH":
                if delivery.retained:
                    decoded.ignored_death = True
                elif delivery.present and (topic.device or node.lane in (None, delivery.lane)):
                    self._die(decoded, topic, payload, node, table)
            case "DDATA" | "NDATA":
                if not payload.metrics:
                    raise BadReading(Reason.BAD_PAYLOAD, "a data message without a metric")
                named = self._names(decoded, node, table, topic, payload.metrics, delivery)
                if topic.device is not None:
                    self._group(decoded, topic.device, payload, named)
                elif strange := [name for name, _ in named if not is_information(name)]:
                    raise BadReading(Reason.UNKNOWN_SIGNAL, f"{strange[0]!r:.60}: {_NOT_A_NODES}")
                elif delivery.present:
                    decoded.mark = marks.parse(payload)

    def _learn(
        self, decoded: Decoded, topic: SparkplugTopic, payload: sparkplug.Payload, node: EdgeNode
    ) -> None:
        if topic.device is None:
            bd_seq = _bd_seq(payload.metrics)
            if node.bd_seq not in (None, bd_seq):  # another connection: the one before has ended
                node.end_session()
            node.bd_seq = bd_seq
            decoded.sessions = [node.row()]
        for metric in payload.metrics:
            unit = metric.properties.get(UNIT)
            if isinstance(unit, str):
                decoded.units[metric.name or ""] = unit
        key = (topic.group, topic.node, topic.device or "")
        decoded.birth = self._births.learn(key, _aliases(payload.metrics), payload.ts_ms, node.session)

    def _die(
        self,
        decoded: Decoded,
        topic: SparkplugTopic,
        payload: sparkplug.Payload,
        node: EdgeNode,
        table: BirthTable | None,
    ) -> None:
        """A death closes the alias tables: what is born next may give the aliases other meanings."""
        if topic.device is not None:
            decoded.death = True
            if table is not None:
                self._births.died(table)
                decoded.sessions = [SessionRow(topic.group, topic.node, topic.device, DEAD)]
            return
        bd_seq = _bd_seq(payload.metrics, table)
        if node.bd_seq is not None and bd_seq is None:
            raise BadReading(
                Reason.BAD_PAYLOAD, "an NDEATH without bdSeq: which connection has ended cannot be told"
            )
        if node.bd_seq not in (None, bd_seq):
            # The will of an older connection may come after the birth on a newer one.
            decoded.ignored_death = True
            return
        decoded.death = True
        node.end_session()
        node.count_anew()
        decoded.sessions = [node.row()]

    def _names(
        self,
        decoded: Decoded,
        node: EdgeNode,
        table: BirthTable | None,
        topic: SparkplugTopic,
        metrics: Sequence[sparkplug.Metric],
        delivery: _Delivery,
    ) -> list[tuple[str | None, sparkplug.Metric]]:
        """Each metric with its name; raises BadReading(no_birth) when an alias is not known, or may have had
        another meaning when the message was published."""
        dup, retained, past_ms = delivery.dup, delivery.retained, delivery.past_ms
        if table is not None and table.ambiguous and dup and past_ms is None:
            raise BadReading(
                Reason.NO_BIRTH,
                "delivered again around a birth that gave aliases another meaning: not guessed",
            )
        # What comes again may have been published before the death.
        closed = table is not None and table.session != node.session and not dup
        unborn = (table is None or closed) and not dup
        decoded.rebirth = closed or (retained and unborn)
        where = "/".join(filter(None, (topic.group, topic.node, topic.device)))
        aliases, types = (table.aliases, table.types) if table is not None else ({}, {})
        named: list[tuple[str | None, sparkplug.Metric]] = []
        for metric in metrics:
            name, value = metric.name or "", metric.value
            by_alias = not name and metric.alias is not None
            address: int | str | None = metric.alias if by_alias else name
            if by_alias and metric.alias in aliases:
                name = aliases[metric.alias][0]
            by_type = type(value) is int and not metric.datatype and not is_information(name)
            if not (by_alias or by_type):  # it says all by itself
                named.append((name, metric))
                continue
            if retained:
                raise BadReading(
                    Reason.NO_BIRTH, f"{where}: a retained message of aliases, whose birth cannot be told"
                )
            if closed:
                raise BadReading(Reason.NO_BIRTH, f"{where}: it has died, and no birth came since")
            if address not in (aliases if by_alias else types):
                decoded.rebirth = not dup
                what = f"alias {address}" if by_alias else f"{address!r:.60}"
                what = "no birth of it is known" if table is None else f"{what} is not in its birth"
                raise BadReading(Reason.NO_BIRTH, f"{where}: {what}")
            if not name:
                raise BadReading(
                    Reason.NO_BIRTH, f"{where}: alias {address} stands for several metrics of its birth"
                )
            if table is not None and past_ms is not None and table.redefined_ms > past_ms:
                raise BadReading(
                    Reason.NO_BIRTH, f"{where}: a later birth gave aliases another meaning: not guessed"
                )
            if by_type and isinstance(value, int):
                datatype = types[name]
                metric = metric._replace(datatype=datatype, value=sparkplug.integer(value, datatype))
            named.append((name, metric))
        return named

    @staticmethod
    def _group(
        decoded: Decoded,
        unit: str,
        payload: sparkplug.Payload,
        named: Iterable[tuple[str | None, sparkplug.Metric]],
    ) -> None:
        """Readings by the metrics' own timestamps, else the payload's. Null metrics say nothing, and a value
        that its own edge node does not trust, or wants not to be stored, is left out."""
        by_time: dict[int | None, dict[str, Any]] = {}
        nulls = False
        for name, metric in named:
            if is_information(name):
                continue
            if metric.value is None:
                nulls = True
                continue
            if metric.is_transient:
                detail = f"{name!r:.60} is transient: its sender wants it not to be stored"
                decoded.remark(Remark.TRANSIENT, detail)
                continue
            quality = metric.properties.get(QUALITY, GOOD)
            if quality != GOOD:
                detail = f"{name!r:.60} has the quality {quality!r:.40}, and only {GOOD} is good"
                decoded.remark(Remark.BAD_QUALITY, detail)
                continue
            if type(metric.value) is int and not metric.datatype:
                metric = metric._replace(value=sparkplug.integer(metric.value, metric.datatype))
            ts_ms = payload.ts_ms if metric.ts_ms is None else metric.ts_ms
            by_time.setdefault(ts_ms, {})[name or ""] = metric.value
        if nulls and not by_time:
            decoded.remark(Remark.NO_VALUE, "every value is null")
        for ts_ms, values in by_time.items():
            if ts_ms is None:
                decoded.refused.append(BadReading(Reason.BAD_TIMESTAMP, "the timestamp is missing"))
            else:
                decoded.readings.append(Reading(unit, ts_ms, values))


def _count_readings(topic: Topic, payload: bytes) -> int:
    """How many readings a message holds that is not taken apart; one if that cannot be told."""
    try:
        if isinstance(topic, JsonTopic):
            content = msgspec.json.decode(payload, type=list[msgspec.Raw] | msgspec.Raw)
            return max(1, len(content)) if isinstance(content, list) else 1
        if isinstance(topic, SparkplugTopic):
            return max(1, len({metric.ts_ms for metric in sparkplug.decode(payload, len(payload)).metrics}))
    except (BadReading, msgspec.DecodeError, RecursionError):
        pass
    return 1


@lru_cache(maxsize=100_000)
def _parse(topic: str) -> Topic:
    """Topics come again and again, and taking one apart costs as much as decoding a metric or two."""
    return topics.parse(topic)


def _follow(decoded: Decoded, node: EdgeNode, seq: int | None, delivery: _Delivery) -> None:
    if seq is not None and not delivery.followed:
        decoded.gap, decoded.complete = node.follow(seq, delivery.dup)


def _aliases(metrics: Iterable[sparkplug.Metric]) -> Aliases:
    """What a birth says about aliases; one that it gives to several metrics means none of them."""
    aliases: Aliases = {}
    for metric in metrics:
        if not metric.name:
            continue
        meaning = (metric.name, metric.datatype)
        if metric.alias is None:
            if aliases.setdefault(metric.name, meaning) != meaning:
                aliases[metric.name] = (metric.name, 0)
        elif (before := aliases.setdefault(metric.alias, meaning)) != meaning:
            aliases[metric.alias] = ("", 0)
            aliases.update({each[0]: each for each in (before, meaning) if each[0]})
    return aliases


def _bd_seq(metrics: Iterable[sparkplug.Metric], birth: BirthTable | None = None) -> int | None:
    """Which connection of its edge node a birth or death belongs to; a death may name the metric by the alias
    that its birth gave it."""
    aliases = birth.aliases if birth is not None else {}
    for metric in metrics:
        name = metric.name
        if name is None and metric.alias is not None:
            name = aliases.get(metric.alias, ("", 0))[0]
        if name == BD_SEQ and type(metric.value) is int:
            return metric.value
    return None
