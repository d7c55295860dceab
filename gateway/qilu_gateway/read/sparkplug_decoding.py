"""Decodes single Sparkplug messages: births, deaths, and data with the aliases of the births."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from qilu_contract.errors import BadReading, Reason, Remark
from qilu_contract.readings import Reading
from qilu_contract.wire import marks, sparkplug
from qilu_contract.wire.sparkplug import UNIT
from qilu_contract.wire.sparkplug_structures import Template
from qilu_contract.wire.topics import SparkplugTopic

from qilu_gateway.read.births import DEAD, Births, BirthTable
from qilu_gateway.read.decoded import Decoded, Delivery
from qilu_gateway.read.edge_nodes import EdgeNode, SessionRow
from qilu_gateway.read.layouts import Aliases, is_information
from qilu_gateway.read.structures import open_metric, opened, reason_to_omit, with_members

BD_SEQ = "bdSeq"
"""The metric that ties a birth or death to a connection of its edge node."""
_NOT_A_NODES = "an edge node has no signals, publish them as a device's"


class SparkplugDecoder:
    """Decoder for single Sparkplug messages. Keeps births, deaths, and each edge node's last sequence
    number."""

    def __init__(self, births: Births) -> None:
        self._births = births

    def decode(
        self,
        decoded: Decoded,
        topic: SparkplugTopic,
        payload: sparkplug.Payload,
        delivery: Delivery,
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
                    payload = payload._replace(metrics=opened(payload.metrics))
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
                try:
                    self._read_data(decoded, node, table, topic, payload, delivery)
                except BadReading as bad:
                    if bad.reason is not Reason.NO_BIRTH:
                        raise
                    decoded.refused += [bad] * count_readings(payload)

    def _learn(
        self, decoded: Decoded, topic: SparkplugTopic, payload: sparkplug.Payload, node: EdgeNode
    ) -> None:
        if topic.device is None:
            bd_seq = _bd_seq(payload.metrics)
            if node.bd_seq not in (None, bd_seq):  # a new connection: the previous one has ended
                node.end_session()
            node.bd_seq = bd_seq
            decoded.sessions = [node.row()]
        for metric in with_members(payload.metrics):
            unit = metric.properties.get(UNIT)
            if isinstance(unit, str):
                decoded.units[metric.name or ""] = unit
        key = (topic.group, topic.node, topic.device or "")
        decoded.birth = self._births.learn(
            key, _aliases(with_members(payload.metrics)), payload.ts_ms, node.session
        )

    def _die(
        self,
        decoded: Decoded,
        topic: SparkplugTopic,
        payload: sparkplug.Payload,
        node: EdgeNode,
        table: BirthTable | None,
    ) -> None:
        """Handle a death: it closes the alias tables, because the next birth may give the aliases other
        meanings."""
        if topic.device is not None:
            decoded.death = True
            if table is not None:
                self._births.died(table)
                decoded.sessions = [SessionRow(topic.group, topic.node, topic.device, DEAD)]
            return
        bd_seq = _bd_seq(payload.metrics, table)
        if node.bd_seq is not None and bd_seq is None:
            raise BadReading(
                Reason.BAD_PAYLOAD, "an NDEATH without bdSeq: which connection has ended is unknown"
            )
        if node.bd_seq not in (None, bd_seq):
            # The will of an older connection may arrive after the birth on a newer one.
            decoded.ignored_death = True
            return
        decoded.death = True
        node.end_session()
        node.count_anew()
        decoded.sessions = [node.row()]

    def _read_data(
        self,
        decoded: Decoded,
        node: EdgeNode,
        table: BirthTable | None,
        topic: SparkplugTopic,
        payload: sparkplug.Payload,
        delivery: Delivery,
    ) -> None:
        """Raises BadReading and sets `unborn` as `_names` does."""
        if delivery.refusal:
            raise BadReading(Reason.NO_BIRTH, delivery.refusal)
        named = self._names(decoded, node, table, topic, payload.metrics, delivery)
        if decoded.unborn:
            return
        if topic.device is not None:
            named = self._opened(decoded, node, table, topic, named, delivery)
            self._group(decoded, topic.device, payload, named)
        elif strange := [name for name, _ in named if not is_information(name)]:
            raise BadReading(Reason.UNKNOWN_SIGNAL, f"{strange[0]!r:.60}: {_NOT_A_NODES}")
        elif delivery.present:
            decoded.mark = marks.parse(payload)

    def _names(
        self,
        decoded: Decoded,
        node: EdgeNode,
        table: BirthTable | None,
        topic: SparkplugTopic,
        metrics: Sequence[sparkplug.Metric],
        delivery: Delivery,
    ) -> list[tuple[str | None, sparkplug.Metric]]:
        """Each metric with its name. Raises BadReading(no_birth) when an alias is unknown, or may have had
        another meaning when the message was published. When no birth is in use and the message may wait for
        one, sets `unborn` instead."""
        dup, retained, past_ms = delivery.dup, delivery.retained, delivery.past_ms
        if table is not None and table.ambiguous and dup and past_ms is None:
            raise BadReading(
                Reason.NO_BIRTH,
                "delivered again around a birth that gave aliases another meaning: not guessed",
            )
        # A redelivered message may have been published before the death.
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
            if not (by_alias or by_type):  # it is self-describing
                named.append((name, metric))
                continue
            if retained:
                raise BadReading(
                    Reason.NO_BIRTH, f"{where}: a retained message with aliases, whose birth is unknown"
                )
            if (closed or table is None) and delivery.may_wait and delivery.present:
                decoded.unborn = decoded.rebirth = True
                return []
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

    def _opened(
        self,
        decoded: Decoded,
        node: EdgeNode,
        table: BirthTable | None,
        topic: SparkplugTopic,
        named: Iterable[tuple[str | None, sparkplug.Metric]],
        delivery: Delivery,
    ) -> list[tuple[str | None, sparkplug.Metric]]:
        """The metrics with Templates and DataSets parsed; members of Templates get their names and datatypes
        like metrics. Raises BadReading and sets `unborn` as `_names` does."""
        found: list[tuple[str | None, sparkplug.Metric]] = []
        for name, packed in named:
            metric = open_metric(name or "", packed)
            if isinstance(metric.value, Template) and not is_information(name):
                members = self._names(decoded, node, table, topic, metric.value.members, delivery)
                if decoded.unborn:
                    return []
                own = [member._replace(name=path) for path, member in members]
                metric = metric._replace(value=metric.value._replace(members=own))
            found.append((name, metric))
        return found

    @staticmethod
    def _group(
        decoded: Decoded,
        unit: str,
        payload: sparkplug.Payload,
        named: Iterable[tuple[str | None, sparkplug.Metric]],
    ) -> None:
        """Group metrics into readings by their timestamps, or else the payload's. Null metrics are skipped.
        Values that the edge node marks as bad or transient are left out."""
        by_time: dict[int | None, dict[str, Any]] = {}
        nulls = False
        for name, metric in named:
            if is_information(name):
                continue
            if metric.value is None:
                nulls = True
                continue
            if omitted := reason_to_omit(name, metric):
                decoded.remark(*omitted)
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


def count_readings(payload: sparkplug.Payload) -> int:
    """Number of readings in a message that is refused before its metrics have names: one for each time, and
    at least one."""
    times = {
        payload.ts_ms if metric.ts_ms is None else metric.ts_ms
        for metric in payload.metrics
        if metric.value is not None
        and not is_information(metric.name)
        and reason_to_omit(metric.name, metric) is None
    }
    return max(1, len(times))


def _follow(decoded: Decoded, node: EdgeNode, seq: int | None, delivery: Delivery) -> None:
    if seq is not None and not delivery.followed:
        decoded.gap, decoded.complete = node.follow(seq, delivery.dup)


def _aliases(metrics: Iterable[sparkplug.Metric]) -> Aliases:
    """Aliases of a birth; an alias shared by several metrics has no meaning."""
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
    """The bdSeq of a birth or death: the connection of its edge node. A death may give the metric by the
    alias from its birth."""
    aliases = birth.aliases if birth is not None else {}
    for metric in metrics:
        name = metric.name
        if name is None and metric.alias is not None:
            name = aliases.get(metric.alias, ("", 0))[0]
        if name == BD_SEQ and type(metric.value) is int:
            return metric.value
    return None
