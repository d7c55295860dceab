"""Reports problems to the owners of units, through the platform: readings that were refused or left out in
part, and why.

Best effort: nothing waits for it, and the counts here are lost when the gateway ends. Every refused reading
is in the dead letters in any case.
"""

from __future__ import annotations

import asyncio
from collections import Counter

import msgspec
import structlog
from qilu_common.backoff import Backoff
from qilu_contract.errors import Reason, Remark
from qilu_contract.wire.clock import wall_ms
from qilu_contract.wire.doors import door_of
from qilu_contract.wire.ids import is_id

from qilu_gateway.admit.platform_api import NotTaken, PlatformApi, PlatformAway
from qilu_gateway.read.in_flight import InFlightMessage

log = structlog.get_logger()

EVERY_S = 2.0
MAX_TOGETHER = 1000
MAX_WAITING = 20_000
"""Maximum number of problems that wait for the platform, some 0.5 kB each; at the bound new ones are
dropped."""
MAX_OF_ENTERPRISE = 1000
"""Maximum number per enterprise; further ones are counted for the enterprise as a whole, so that no
enterprise crowds out others."""
MAX_EXCERPT = 300
MAX_SHOWN = 120
"""Length of a payload excerpt in characters."""
NOT_TAKEN_S = 60.0
"""Retry interval with a platform that predates problem reports."""


class Problem(msgspec.Struct):
    """A problem that occurred `count` times since the last delivery: readings refused, or values left out or
    out of range. The excerpt is of the latest. The unit is the topic's, registered or not; for an edge node's
    own messages, the node."""

    unit: str
    enterprise: str
    county: str
    reason: str
    count: int
    last_ms: int
    excerpt: str


class Problems:
    def __init__(self, platform: PlatformApi) -> None:
        self._platform = platform
        self._waiting: dict[tuple[str, str, str, str], Problem] = {}
        self._of_enterprise: Counter[str] = Counter()
        self._offered = True

    def note_message(self, message: InFlightMessage) -> None:
        """Record all problems with a message."""
        shown = ""
        if door_of(message.topic) is not None:
            shown = ": " + message.payload[:MAX_SHOWN].decode(errors="replace")
        for kind, (detail, count) in (*message.refused.items(), *message.remarks.items()):
            if kind is Reason.WRONG_OWNER:  # do not disclose the owner to the sender
                detail = f"{message.unit} is not a unit of {message.enterprise} in {message.county}"
            unit = message.unit or message.enterprise
            self.note(unit, message.enterprise, message.county, str(kind), detail + shown, count)

    def note_gap(self, node: tuple[str, str]) -> None:
        """Record that messages of an edge node are missing, or were replayed or forged."""
        county, enterprise = node
        self.note(enterprise, enterprise, county, Remark.SEQUENCE_GAP, "sequence numbers were skipped")

    def note(
        self, unit: str, enterprise: str, county: str, reason: str, excerpt: str, readings: int = 1
    ) -> None:
        if not (is_id(unit) and is_id(enterprise) and len(county) == 6 and county.isdecimal()):
            return  # no enterprise to report to
        key = (county, enterprise, unit, reason)
        if key not in self._waiting:
            if self._of_enterprise[enterprise] >= MAX_OF_ENTERPRISE and unit != enterprise:
                self.note(enterprise, enterprise, county, reason, excerpt, readings)
                return
            if len(self._waiting) >= MAX_WAITING:
                return
            self._of_enterprise[enterprise] += 1
            self._waiting[key] = Problem(unit, enterprise, county, reason, 0, 0, "")
        problem = self._waiting[key]
        problem.count += readings
        problem.last_ms = wall_ms()
        problem.excerpt = "".join(c if c.isprintable() else " " for c in excerpt[:MAX_EXCERPT])

    def drain(self) -> list[Problem]:
        """Remove and return the oldest waiting problems, at most MAX_TOGETHER."""
        keys = list(self._waiting)[:MAX_TOGETHER]
        found = [self._waiting.pop(key) for key in keys]
        self._of_enterprise -= Counter(problem.enterprise for problem in found)
        return found

    async def run(self) -> None:
        """Deliver problems, until cancelled."""
        backoff = Backoff(first_s=EVERY_S, most_s=NOT_TAKEN_S)
        while True:
            await asyncio.sleep(EVERY_S)
            batch = self.drain()
            if not batch:
                continue
            try:
                await self._platform.problems(batch)
            except NotTaken as error:
                if self._offered:
                    self._offered = False
                    log.warning("the platform takes no problems of units", error=str(error))
                await asyncio.sleep(NOT_TAKEN_S)
            except PlatformAway:
                for each in batch:
                    self._put_back(each)
                await asyncio.sleep(backoff.delay_s())
            else:
                self._offered = True
                backoff.reset()

    def _put_back(self, old: Problem) -> None:
        key = (old.county, old.enterprise, old.unit, old.reason)
        newer = self._waiting.get(key)
        if newer is not None:
            newer.count += old.count
        elif len(self._waiting) < MAX_WAITING:
            self._of_enterprise[old.enterprise] += 1
            self._waiting[key] = old
