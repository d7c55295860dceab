"""STATE of the Sparkplug host application: online only while the gateway can take data. While it is offline,
edge nodes keep their readings.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable

import structlog
from qilu_common.mqtt.codec import Will
from qilu_contract.readings import MAX_TIME_MS
from qilu_contract.wire import topics
from qilu_contract.wire.clock import wall_ms
from qilu_contract.wire.host_state import State

from qilu_gateway.connect.session import Session
from qilu_gateway.statefile import StateFile

log = structlog.get_logger()

SCHEMA = """
CREATE TABLE IF NOT EXISTS host_state (
  host TEXT PRIMARY KEY,
  timestamp_ms INTEGER NOT NULL
) WITHOUT ROWID;
"""
CHECK_EVERY_S = 0.1
REPEAT_S = 3.0
"""Interval at which STATE is published again. Not every broker delivers retained messages: RabbitMQ keeps
them on one node, and delivers them under another topic."""
SETTLING_S = 10.0
"""Time after the start in which a platform that has not answered yet is no reason for STATE offline: edge
nodes would end their connections, although another gateway served them until now."""
AHEAD_MS = 60_000
"""Timestamps further ahead of the wall clock than this are reported in /healthz; normal clock drift is
smaller."""


class Timestamps:
    """Generates the timestamps of one host's STATE messages. Edge nodes ignore a STATE that is older than the
    last one they saw. So each connection's timestamp is later than every one seen under the host id, even
    after the wall clock went back or another client published one from the future."""

    def __init__(self, latest_ms: int = 0) -> None:
        self.latest_ms = latest_ms

    def next(self) -> int:
        self.latest_ms = min(max(wall_ms(), self.latest_ms + 1), MAX_TIME_MS)
        return self.latest_ms

    def seen(self, timestamp_ms: int) -> bool:
        """Record a timestamp that was seen; returns whether it is the latest so far."""
        later = timestamp_ms > self.latest_ms
        self.latest_ms = max(self.latest_ms, timestamp_ms)
        return later

    @property
    def trouble(self) -> str:
        """A sentence if the timestamps are ahead of the wall clock, else empty."""
        ahead_ms = self.latest_ms - wall_ms()
        if ahead_ms <= AHEAD_MS:
            return ""
        return (
            f"STATE of this host was published with a timestamp {ahead_ms // 1000} s ahead of this machine's "
            "clock, and later ones continue from it: check the clock of this machine."
        )


class HostState:
    def __init__(
        self,
        session: Session,
        host_id: str,
        troubles: Callable[[], list[str]],
        timestamps: Timestamps,
        state: StateFile,
        *,
        birth_first: bool = False,
    ) -> None:
        """`troubles` returns a word for each reason why no data can be taken; empty if all is well.
        `birth_first`: the first STATE of a connection is online, as Sparkplug requires. Otherwise a host that
        cannot take data publishes offline at once, whatever the broker retained from an earlier STATE."""
        self._birth_first = birth_first
        self._session, self._host_id, self._troubles = session, host_id, troubles
        self._timestamps, self._state = timestamps, state
        self._said: tuple[int, bool] | None = None
        self._said_s = 0.0
        self._published: State | None = None
        self._contradicted = False
        """Another client has published under this host id since our last STATE."""
        self._kept_ms = 0
        self._leaving = False
        self._saying = asyncio.Lock()
        self.online = False
        """The last STATE that the broker confirmed."""

    async def run(self) -> None:
        """Publish STATE whenever it changes, on every new connection and every REPEAT_S, until the final one
        is published."""
        settled_s = time.monotonic() + SETTLING_S
        while True:
            await asyncio.sleep(CHECK_EVERY_S)
            if self._leaving:  # the final STATE has been published: do not reconnect
                return
            if not self._session.subscribed:
                self.online = False
                continue
            if self._session.connected_ms < self._timestamps.latest_ms:
                self._session.renew()  # its will would be ignored
                continue
            troubles = self._troubles()
            epoch = self._session.epoch
            born = self._said is not None and self._said[0] == epoch
            changed = self._said != (epoch, not troubles) or self._contradicted
            if not changed and time.monotonic() < self._said_s + REPEAT_S:
                continue
            if troubles and self._birth_first and not born:
                continue
            if troubles == ["platform"] and self._said is None and time.monotonic() < settled_s:
                continue
            if await self._say(not troubles) and changed:
                log.info("host online" if self.online else "host offline", troubles=troubles)

    def hear(self, payload: bytes) -> None:
        """Handle a STATE published under this host id, by us or by another client. The broker retains the
        last one for edge nodes that start later: it must be ours, and newer than all others."""
        heard = State.decode(payload)
        if heard is not None and self._timestamps.seen(heard.timestamp):
            log.warning("STATE from the future under this host id", timestamp_ms=heard.timestamp)
        elif heard != self._published:
            self._contradicted = True

    async def farewell(self) -> None:
        """Publish the final STATE, offline. It has its own timestamp and ends the use of the connection."""
        self._leaving = True
        await self._say(False)

    async def _say(self, online: bool) -> bool:
        """Publish the STATE; returns whether the broker confirmed it."""
        async with self._saying:
            if online and self._leaving:
                return False
            epoch = self._session.epoch
            # All other STATE messages of a connection have the will's timestamp, so that the will is not
            # ignored.
            timestamp_ms = self._timestamps.next() if self._leaving else self._session.connected_ms
            self._published, self._contradicted = State(online, timestamp_ms), False
            payload = self._published.encode()
            if not await self._session.publish(topics.state(self._host_id), payload, retain=True):
                self._contradicted = True  # assume the worst
                return False
            self._said, self._said_s, self.online = (epoch, online), time.monotonic(), online
            await self._keep()  # afterwards, because the final STATE cannot wait for a slow disk
            return True

    async def _keep(self) -> None:
        """Save the latest timestamp, so that it survives a restart: not every broker sends retained messages
        to a resumed session."""
        latest_ms = self._timestamps.latest_ms
        if latest_ms == self._kept_ms:
            return
        try:
            await self._state.write(lambda connection: save(connection, self._host_id, latest_ms))
        except (sqlite3.Error, OSError) as error:  # matters only if the clock goes back as well
            log.warning("STATE's timestamp not kept", error=str(error))
        self._kept_ms = latest_ms


def save(connection: sqlite3.Connection, host_id: str, timestamp_ms: int) -> None:
    connection.execute("REPLACE INTO host_state VALUES (?, ?)", (host_id, timestamp_ms))


def load(connection: sqlite3.Connection, host_id: str) -> int:
    """The latest timestamp that an earlier process published or saw; 0 if there was none."""
    row = connection.execute("SELECT timestamp_ms FROM host_state WHERE host = ?", (host_id,)).fetchone()
    return 0 if row is None else int(row[0])


def will(host_id: str) -> Callable[[int], Will]:
    """Returns a function that makes the last will of a connection from its timestamp."""
    return lambda timestamp_ms: Will(topics.state(host_id), State(False, timestamp_ms).encode(), retain=True)
