"""The Sparkplug host application's STATE: online only while the gateway can take data, so that edge nodes
keep their readings at home while it cannot.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
import structlog
from qilu_contract import topics
from qilu_contract.clock import wall_ms
from qilu_contract.mqtt import Will

from qilu_gateway.session import Session

log = structlog.get_logger()

CHECK_EVERY_S = 0.1


class HostState:
    def __init__(
        self, session: Session, host_id: str, troubles: Callable[[], list[str]], *, birth_first: bool = False
    ) -> None:
        """`troubles` says, in a word each, why no data can be taken; nothing for fine. `birth_first`: the
        first thing said on a connection is that the host is online, as Sparkplug wants it. Else a host that
        cannot take data says so at once, whatever the broker may have kept of an earlier one."""
        self._birth_first = birth_first
        self._session, self._topic, self._troubles = session, topics.state(host_id), troubles
        self._said: tuple[int, bool] | None = None
        self.online = False
        """What edge nodes were told last, as far as the broker confirmed it."""

    async def run(self) -> None:
        """Say how it stands whenever that changes and on every new connection, for ever."""
        while True:
            await asyncio.sleep(CHECK_EVERY_S)
            if not self._session.subscribed:
                self.online = False
                continue
            troubles = self._troubles()
            epoch = self._session.epoch
            born = self._said is not None and self._said[0] == epoch
            if self._said == (epoch, not troubles) or (troubles and self._birth_first and not born):
                continue
            if await self.say(not troubles):
                log.info("host online" if self.online else "host offline", troubles=troubles)

    def contradicted(self) -> None:
        """Somebody said otherwise: say it again."""
        self._said = None

    async def say(self, online: bool, *, farewell: bool = False) -> bool:
        """Publish the STATE; whether the broker confirmed it."""
        epoch = self._session.epoch
        # All STATEs of a connection bear the will's timestamp: edge nodes ignore one that is older than the
        # last they saw, and the will must count.
        # A farewell is the last of its connection, and may tell its own time.
        payload = state_payload(online, wall_ms() if farewell else self._session.connected_ms)
        if not await self._session.publish(self._topic, payload, retain=True):
            return False
        self._said, self.online = (epoch, online), online
        return True


def state_payload(online: bool, timestamp_ms: int) -> bytes:
    return msgspec.json.encode({"online": online, "timestamp": timestamp_ms})


def will(host_id: str) -> Callable[[int], Will]:
    """The last will of a connection, from its timestamp."""
    return lambda timestamp_ms: Will(topics.state(host_id), state_payload(False, timestamp_ms), retain=True)
