"""Decodes one message at a time into readings: topic, payload, births. Whether a unit is registered is
checked later (`admission.py`), as are the values (`checking.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

import msgspec
from qilu_contract.errors import BadReading, Reason, Remark
from qilu_contract.wire import clock, sparkplug, topics
from qilu_contract.wire.topics import ClockTopic, DoorTopic, SparkplugTopic, StateTopic, Topic

from qilu_gateway.read.births import HISTORY, Births
from qilu_gateway.read.decoded import Decoded, Delivery
from qilu_gateway.read.sparkplug_decoding import SparkplugDecoder, count_readings

MAX_KEPT_TOPIC = 200
"""Maximum length of a topic in the parser's cache. No unit's topic is longer, and invented ones are not
cached."""


class Decoder:
    """Decoder for single messages. Keeps the state from earlier messages: births, deaths, and each edge
    node's last sequence number."""

    def __init__(self, births: Births, max_payload_bytes: int) -> None:
        self._sparkplug = SparkplugDecoder(births)
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
        may_wait: bool = False,
        refusal: str = "",
    ) -> Decoded:
        """Decode a message. A message that cannot be decoded is returned as one refused reading.

        `dup`: the broker may have delivered this message before. `retained`: the broker kept it, and it may
        be older than anything that is known. `past_ms`: original time of receipt of a message that is
        replayed. Neither a retained nor a replayed message changes births, deaths or sequence numbers; a
        replayed one sets no clock. `lane`: the session on which it came. Order holds within one lane only, so
        the death of a node counts on the lane on which its birth came. `receipt` is called for the time of
        receipt when a reading has no timestamp. `followed`: its sequence number has been checked already.
        `may_wait`: data whose birth is unknown comes back as `unborn` instead of being refused. `refusal`:
        why data that has waited for its birth is refused now.
        """
        delivery = Delivery(dup, retained, past_ms, lane, followed, may_wait, refusal)
        decoded = Decoded()
        try:
            parsed = _identify(decoded, topic)
            if isinstance(parsed, StateTopic):
                decoded.host = parsed.host
            elif isinstance(parsed, SparkplugTopic) and parsed.type in ("NCMD", "DCMD"):
                pass  # from hosts to others
            elif len(payload) > self._max_payload_bytes:
                bound = f"{len(payload)} bytes, and {self._max_payload_bytes} is the bound"
                bad = BadReading(Reason.TOO_LARGE, bound)
                decoded.refused += [bad] * _count_readings(parsed, payload)
            else:
                self._decode(decoded, parsed, payload, delivery, receipt)
        except BadReading as bad:
            if bad.reason is Reason.BAD_TOPIC:
                decoded.county, decoded.enterprise = topics.owner(topic.removeprefix(topics.HISTORY))
            decoded.refused.append(bad)
        decoded.death &= not decoded.history
        return decoded

    def _decode(
        self,
        decoded: Decoded,
        topic: Topic,
        payload: bytes,
        delivery: Delivery,
        receipt: Callable[[], int] | None,
    ) -> None:
        match topic:
            case DoorTopic(door=door, unit=unit):
                # A retained message has an unknown age.
                for item in door.decode(unit, payload, None if delivery.retained else receipt):
                    if item is None:
                        decoded.remark(Remark.NO_VALUE, "every value is null")
                    elif isinstance(item, BadReading):
                        decoded.refused.append(item)
                    else:
                        decoded.readings.append(item)
            case ClockTopic() if payload and delivery.past_ms is None:  # empty: clears a retained one
                decoded.clock = clock.decode(payload)
            case SparkplugTopic():
                if decoded.history:  # history has separate births and aliases: a live run may have others
                    topic = replace(topic, group=HISTORY + topic.group)
                content = sparkplug.decode(payload, self._max_payload_bytes)
                self._sparkplug.decode(decoded, topic, content, delivery)


def _identify(decoded: Decoded, topic: str) -> Topic:
    """Identify the sender. Raises BadReading(bad_topic)."""
    decoded.history = topic.startswith(topics.HISTORY)
    parse = _parse if len(topic) <= MAX_KEPT_TOPIC else topics.parse
    parsed = parse(topic.removeprefix(topics.HISTORY))
    if decoded.history and not isinstance(parsed, SparkplugTopic):
        raise BadReading(Reason.BAD_TOPIC, f"topic {topic[:200]!r}: history comes as Sparkplug alone")
    if isinstance(parsed, SparkplugTopic):
        decoded.county, decoded.enterprise, decoded.unit = parsed.group, parsed.node, parsed.device
    elif isinstance(parsed, DoorTopic):
        decoded.county, decoded.enterprise, decoded.unit = parsed.county, parsed.enterprise, parsed.unit
    return parsed


def _count_readings(topic: Topic, payload: bytes) -> int:
    """Number of readings in a message that is not decoded; one if it cannot be determined."""
    try:
        if isinstance(topic, DoorTopic):
            return topic.door.count(payload)
        if isinstance(topic, SparkplugTopic):
            return count_readings(sparkplug.decode(payload, len(payload)))
    except (BadReading, msgspec.DecodeError, RecursionError):
        pass
    return 1


@lru_cache(maxsize=100_000)
def _parse(topic: str) -> Topic:
    """Parse a topic. Cached, because topics repeat and parsing one costs as much as decoding a metric or
    two."""
    return topics.parse(topic)
