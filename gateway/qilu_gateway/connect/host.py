"""The Sparkplug host application's STATE: online only while the gateway can take data, so that edge nodes
keep their readings at home while it cannot.
"""

from __future__ import annotations

import asyncio
import sqlite3
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
AHEAD_MS = 60_000
"""Timestamps that lie further ahead of the wall clock are mentioned in /healthz: clocks drift by less."""


class Timestamps:
    """Timestamps of one host's STATEs. Edge nodes ignore a STATE that is older than one they have seen, so
    each connection's is later than every one that was seen under the host id: also after the wall clock went
    back, and after somebody else wrote one of the future."""

    def __init__(self, latest_ms: int = 0) -> None:
        self.latest_ms = latest_ms

    def next(self) -> int:
        self.latest_ms = min(max(wall_ms(), self.latest_ms + 1), MAX_TIME_MS)
        return self.latest_ms

    def seen(self, timestamp_ms: int) -> bool:
        """Whether this is the latest so far."""
        later = timestamp_ms > self.latest_ms
        self.latest_ms = max(self.latest_ms, timestamp_ms)
        return later

    @property
    def trouble(self) -> str:
        """A sentence while the timestamps run ahead of the wall clock, else empty."""
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
        """`troubles` says, in a word each, why no data can be taken; nothing for fine. `birth_first`: the
        first thing said on a connection is that the host is online, as Sparkplug wants it. Else a host that
        cannot take data says so at once, whatever the broker may have kept of an earlier one."""
        self._birth_first = birth_first
        self._session, self._host_id, self._troubles = session, host_id, troubles
        self._timestamps, self._state = timestamps, state
        self._said: tuple[int, bool] | None = None
        self._published: State | None = None
        self._contradicted = False
        """Since the last STATE was published, something else was published under this host id."""
        self._kept_ms = 0
        self._leaving = False
        self._saying = asyncio.Lock()
        self.online = False
        """What edge nodes were told last, as far as the broker confirmed it."""

    async def run(self) -> None:
        """Say how it stands whenever that changes and on every new connection, until the farewell."""
        while True:
            await asyncio.sleep(CHECK_EVERY_S)
            if self._leaving:  # its timestamp is the connection's last, and no reason for another connection
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
            if self._said == (epoch, not troubles) and not self._contradicted:
                continue
            if troubles and self._birth_first and not born:
                continue
            if await self._say(not troubles):
                log.info("host online" if self.online else "host offline", troubles=troubles)

    def hear(self, payload: bytes) -> None:
        """What was published under this host id, by somebody else or by us. The broker keeps the last one for
        edge nodes that start later: it must be ours, and newer than all others."""
        heard = State.decode(payload)
        if heard is not None and self._timestamps.seen(heard.timestamp):
            log.warning("STATE from the future under this host id", timestamp_ms=heard.timestamp)
        elif heard != self._published:
            self._contradicted = True

    async def farewell(self) -> None:
        """Say that the host goes offline. It is the last STATE of its connection, and tells its own time."""
        self._leaving = True
        await self._say(False)

    async def _say(self, online: bool) -> bool:
        """Publish the STATE; whether the broker confirmed it."""
        async with self._saying:
            if online and self._leaving:
                return False
            epoch = self._session.epoch
            # All other STATEs of a connection bear the will's timestamp, so that the will counts as well.
            timestamp_ms = self._timestamps.next() if self._leaving else self._session.connected_ms
            self._published, self._contradicted = State(online, timestamp_ms), False
            payload = self._published.encode()
            if not await self._session.publish(topics.state(self._host_id), payload, retain=True):
                self._contradicted = True  # for all that we know
                return False
            self._said, self.online = (epoch, online), online
            await self._keep()  # not before: a farewell cannot wait for a slow disk
            return True

    async def _keep(self) -> None:
        """Have the latest timestamp outlive this process: not every broker hands out what it has kept to a
        session that goes on."""
        latest_ms = self._timestamps.latest_ms
        if latest_ms == self._kept_ms:
            return
        try:
            await self._state.write(lambda connection: save(connection, self._host_id, latest_ms))
        except (sqlite3.Error, OSError) as error:  # it matters only if the clock goes back as well
            log.warning("STATE's timestamp not kept", error=str(error))
        self._kept_ms = latest_ms


def save(connection: sqlite3.Connection, host_id: str, timestamp_ms: int) -> None:
    connection.execute("REPLACE INTO host_state VALUES (?, ?)", (host_id, timestamp_ms))


def load(connection: sqlite3.Connection, host_id: str) -> int:
    """The latest timestamp that an earlier process published or saw; 0 if there was none."""
    row = connection.execute("SELECT timestamp_ms FROM host_state WHERE host = ?", (host_id,)).fetchone()
    return 0 if row is None else int(row[0])


def will(host_id: str) -> Callable[[int], Will]:
    """The last will of a connection, from its timestamp."""
    return lambda timestamp_ms: Will(topics.state(host_id), State(False, timestamp_ms).encode(), retain=True)
