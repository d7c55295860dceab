"""The gateway's connections to the broker, one for each purpose, and what each hands on.

- main: a persistent session for all live messages, at QoS 1;
- history: a separate session with a window of one batch, so that live data never waits for more than that;
- clock: a session without state, for the retained clock of a run;
- host (strict profile only): a clean session that follows Sparkplug to the letter, at QoS 0.
"""

from __future__ import annotations

import math
import os
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from qilu_common.broker import BrokerAddress
from qilu_common.mqtt.messages import Messages
from qilu_contract.errors import ConfigError
from qilu_contract.wire import marks, sparkplug, topics
from qilu_contract.wire.clock import wall_ms
from qilu_contract.wire.marks import Mark

from qilu_gateway.connect.host import Timestamps, will
from qilu_gateway.connect.session import HISTORY, HOST, Session, Take, filters, history_filters
from qilu_gateway.settings import Settings

CLOCK_WINDOW = 10
SPARKPLUG = topics.NAMESPACE.encode()
Intake = Callable[[Messages, int, int], Awaitable[None]]
"""Takes messages, the epoch of their connection, and the lane of its session."""


_SPLIT, _WHOLE = (f"{topics.HISTORY}{name}/".encode() for name in ("spBv1/0", topics.NAMESPACE))


def as_published(messages: Messages) -> Messages:
    """Messages with the topics of history as the edge nodes published them: RabbitMQ delivers the dot in
    `qilu/history/spBv1.0` as a slash."""
    messages.topics = [
        _WHOLE + topic[len(_SPLIT) :] if topic.startswith(_SPLIT) else topic for topic in messages.topics
    ]
    return messages


class Connections:
    def __init__(
        self, settings: Settings, broker: BrokerAddress, timestamps: Timestamps, oust: Callable[[], None]
    ) -> None:
        """`timestamps` are those of the host's STATE. `oust` is called when another gateway takes over a
        session; `ousted` then gives the reason."""
        self._settings, self._broker, self._oust = settings, broker, oust
        self.ousted: ConfigError | None = None
        # Two batches being written, one being read and one being acknowledged; small batches get a window
        # that a round trip does not exhaust.
        window = min(max(4 * settings.batch_size, 1000), 65_535)
        self.windows = {0: window, HISTORY: min(settings.batch_size, 65_535)}
        """The receive maximum by lane."""
        # With a client certificate the broker uses its name as the client id, so only one session is
        # possible.
        self._alone = "QILU_MQTT_CERTIFICATE_FILE" in os.environ
        self._strict = settings.profile == "strict"
        host, own = settings.host, filters(settings.partition)
        of_history = history_filters(settings.partition)
        self.main = Session(
            broker,
            f"qilu-gateway-{host}",
            window=window,
            will=None if self._strict else will(host),
            filters=own + (of_history if self._alone else ()),
            stamp=wall_ms if self._strict else timestamps.next,
        )
        self._history = Session(
            broker,
            f"qilu-gateway-{host}-history",
            window=self.windows[HISTORY],
            will=None,
            filters=of_history,
        )
        self._clock = Session(
            broker,
            f"qilu-gateway-{host}-clock",
            window=CLOCK_WINDOW,
            will=None,
            filters=[topics.CLOCK],
            persistent=False,
        )
        self.speaker = self.main
        """The session that publishes STATE for the host."""
        if self._strict:
            self.windows[HOST] = window
            self.speaker = Session(
                broker,
                f"qilu-host-{host}",
                window=window,
                will=will(host),
                filters=[topic for topic in own if topic.startswith(topics.NAMESPACE)],
                persistent=False,
                stamp=timestamps.next,
            )
        self.by_lane = {0: self.main, HISTORY: self._history}
        """Sessions whose messages are acknowledged once they are durable."""

    @property
    def subscribed(self) -> bool:
        """Whether all sessions are subscribed."""
        return all(session.subscribed for session in self._held())

    def hearing_since_s(self) -> float:
        """When the present connection was subscribed (monotonic clock); infinity without one."""
        return self.main.up_since if self.main.subscribed else math.inf

    def _held(self) -> set[Session]:
        return {self.main, self.speaker} if self._alone else {self.main, self.speaker, self._history}

    def parts(
        self, intake: Intake, hear_clock: Callable[[bytes], None]
    ) -> dict[str, Coroutine[Any, Any, None]]:
        """The tasks that hold the connections, by name; each runs until cancelled. `hear_clock` is called
        with announcements of a run's clock."""
        found = {"session": self._hold(self.main, self._acknowledged_only(intake))}
        if not self._alone:
            found["clock"] = self._hold(self._clock, self._hear_clock(hear_clock))
            found["history"] = self._hold(
                self._history,
                lambda messages, epoch: intake(as_published(messages), epoch, HISTORY),
            )
        if self._strict:
            found["host-session"] = self._hold(self.speaker, self._unacknowledged_only(intake))
        return found

    async def _hold(self, session: Session, take: Take) -> None:
        try:
            await session.run(take)
        except ConfigError as error:
            self.ousted = error
            self._oust()

    def _hear_clock(self, hear_clock: Callable[[bytes], None]) -> Take:
        async def take(messages: Messages, epoch: int) -> None:
            self._clock.acknowledge(epoch, messages.mids)
            for payload in filter(None, messages.payloads):
                hear_clock(payload)

        return take

    def _acknowledged_only(self, intake: Intake) -> Take:
        """In the strict profile, the persistent session leaves messages at QoS 0 to the host session."""
        if not self._strict and not self._alone:
            return lambda messages, epoch: intake(messages, epoch, 0)
        if not self._strict:
            return lambda messages, epoch: intake(as_published(messages), epoch, 0)

        async def take(messages: Messages, epoch: int) -> None:
            own = [
                place
                for place, (mid, topic) in enumerate(zip(messages.mids, messages.topics, strict=True))
                if mid or not topic.startswith(SPARKPLUG)
            ]
            await intake(messages.take(own), epoch, 0)

        return take

    def _unacknowledged_only(self, intake: Intake) -> Take:
        """The host session leaves messages at QoS 1 to the persistent session, which acknowledges them once
        they are durable. An edge node's will is the exception: it comes at QoS 1 even when all other messages
        of the node come at QoS 0, and must not overtake them.
        """

        async def take(messages: Messages, epoch: int) -> None:
            self.speaker.acknowledge(epoch, [mid for mid in messages.mids if mid])
            own = messages.take(
                place
                for place, (mid, topic) in enumerate(zip(messages.mids, messages.topics, strict=True))
                if not mid or b"/NDEATH/" in topic
            )
            own.mids = [0] * len(own)
            await intake(own, epoch, HOST)

        return take

    def answer_mark(self, node: tuple[str, str], mark: Mark) -> None:
        """Answer a mark of this node: every message before it has been received."""
        now_ms = wall_ms()
        payload = sparkplug.Payload(now_ms, None, marks.metrics(mark, now_ms))
        self.speaker.send_qos0(topics.sparkplug("NCMD", *node), sparkplug.encode(payload, datatypes=False))

    def stop_intake(self) -> None:
        for session in (self.main, self._history, self.speaker):
            session.stop_intake()

    async def close(self) -> None:
        for session in {self.main, self._history, self.speaker}:
            await session.close()
