"""Who may be stored: registered units only, as the platform says.

Known units are answered at once from memory. Others wait, with their messages, until the platform has
answered; while it is away they wait on, and are never taken for unknown.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog
from qilu_contract.errors import BadReading, Reason
from qilu_contract.storage import UNIT_TAGS

from qilu_gateway.backoff import Backoff
from qilu_gateway.platform_api import MAX_COLUMN_IDS, Barred, PlatformApi, PlatformAway, UnitRecord

log = structlog.get_logger()

MAX_CACHED = 1_000_000
"""Units in memory, about 0.7 kB each; beyond, those silent for longest are asked for again."""
REFRESH_S = 180.0
"""After this an answer is asked for anew, and used until the new one is there."""
WATCH_S = 1.0
"""How often is asked who was suspended or retired, and so about how long such a unit may go on."""
NEGATIVE_S = 2.0
"""How long "unknown" is believed: a unit may be registered at any moment."""
MAX_NEGATIVE = 100_000


@dataclass(slots=True)
class Admitted:
    """A registered unit, and what this process knows beside."""

    unit: str
    class_name: str
    county: str
    enterprise: str
    tags: tuple[str, ...]
    on_cloud: bool
    """Its first reading is known to the platform, or waits in the outbox."""
    checked_s: float
    active_ms: int = 0
    """Time of the last reading whose activity was reported."""
    latest_ms: int = -1
    """Time of its latest reading; a birth repeats readings up to here."""

    def check_owner(self, county: str, enterprise: str) -> None:
        """Raises BadReading(wrong_owner) unless the topic names the unit's own enterprise and county."""
        if (county, enterprise) != (self.county, self.enterprise):
            raise BadReading(
                Reason.WRONG_OWNER,
                f"{self.unit} belongs to {self.county}/{self.enterprise}, not to {county}/{enterprise}",
            )


class Admission:
    def __init__(
        self, platform: PlatformApi, answered: Callable[[str, Admitted | None], Awaitable[None]]
    ) -> None:
        """`answered` is awaited with each unit that was asked for and what came of it (None: unknown)."""
        self._platform = platform
        self._answered = answered
        self._known: OrderedDict[str, Admitted] = OrderedDict()
        self._negative: dict[str, float] = {}
        self._asked: dict[str, None] = {}
        self._stale: dict[str, None] = {}
        self._wake = asyncio.Event()
        self._after = 0
        self._epoch = ""
        self._doubted_s = float("-inf")
        """What the platform said before is used until it is confirmed, or corrected."""
        self._barred_s = float("-inf")
        self.reached = False
        """The platform has answered at least once."""

    def find(self, unit: str) -> Admitted | None:
        """The unit, if it is known to be registered."""
        admitted = self._known.get(unit)
        if admitted is None:
            return None
        self._known.move_to_end(unit)
        if (
            admitted.checked_s < max(time.monotonic() - REFRESH_S, self._doubted_s)
            and unit not in self._stale
        ):
            self._stale[unit] = None
            self._wake.set()
        return admitted

    def is_unknown(self, unit: str) -> bool:
        """The platform said moments ago that there is no such unit."""
        until = self._negative.get(unit)
        if until is None:
            return False
        if time.monotonic() < until:
            return True
        del self._negative[unit]
        return False

    def distrust(self, unit: str) -> None:
        """Ask anew for a unit that was unknown a moment ago."""
        self._negative.pop(unit, None)

    def ask(self, unit: str) -> None:
        """Have `answered` called for the unit, as soon as the platform has said something about it."""
        self._asked[unit] = None
        self._wake.set()

    async def watch(self) -> None:
        """Forget who was suspended or retired, for ever: their next message makes us ask. Notice when the
        platform may have been restored from a backup, and forgotten what we know of it."""
        away = False
        while True:
            await asyncio.sleep(WATCH_S)
            if not self.reached:
                continue
            try:
                barred = await self._platform.barred(self._after)
                if barred.epoch != self._epoch or barred.next < self._after:
                    await self._begin_epoch()
                    log.info(
                        "the platform began anew: its answers are asked for again", units=len(self._known)
                    )
                    continue
            except PlatformAway as error:
                if not away:
                    log.warning("platform away: who is barred is not known", error=str(error))
                away = True
                continue
            away = False
            self._after = barred.next
            if barred.units or barred.enterprises:
                self._forget(barred)

    async def _begin_epoch(self) -> None:
        """Doubt every answer so far. Raises PlatformAway."""
        # First where the list of the barred stands, so that no suspension falls in between.
        barred = await self._platform.barred(None)
        self._after, self._epoch = barred.next, barred.epoch
        self._doubted_s = time.monotonic()
        self._negative.clear()

    def _forget(self, barred: Barred) -> None:
        units, owners = set(barred.units), set(barred.enterprises)
        if owners:
            units.update(unit for unit, known in self._known.items() if known.enterprise in owners)
        for unit in units:
            self._known.pop(unit, None)
        self._barred_s = time.monotonic()
        log.info("barred", units=len(barred.units), enterprises=len(owners), forgotten=len(units))

    async def run(self) -> None:
        """Ask, for ever."""
        backoff = Backoff(most_s=5.0)
        while True:
            try:
                if not self.reached:
                    await self._begin_epoch()
                    self.reached = True
                    log.info("platform reached")
                await self._wake.wait()
                self._wake.clear()
                while self._asked or self._stale:
                    await self._ask_once()
                    backoff.reset()
            except PlatformAway as error:
                log.warning("platform away: units that are not known yet wait", error=str(error))
                self._wake.set()
                await asyncio.sleep(backoff.delay_s())

    async def _ask_once(self) -> None:
        asked = list(self._asked)[:MAX_COLUMN_IDS]
        stale = [unit for unit in list(self._stale)[: MAX_COLUMN_IDS - len(asked)] if unit not in self._asked]
        asked_s = time.monotonic()
        units = asked + stale
        records = (await self._platform.admission(units)).records()
        found = dict(zip(units, records, strict=True))
        # An answer that somebody's suspension overtook is asked for again.
        checked_s = asked_s if self._barred_s < asked_s else asked_s - REFRESH_S
        for unit in stale:
            self._stale.pop(unit, None)
            self._learn(unit, found[unit], checked_s)
        for unit in asked:
            self._asked.pop(unit, None)
            self._stale.pop(unit, None)
            await self._answered(unit, self._learn(unit, found[unit], checked_s))

    def _learn(self, unit: str, record: UnitRecord | None, checked_s: float) -> Admitted | None:
        old = self._known.pop(unit, None)
        if record is None:
            if len(self._negative) >= MAX_NEGATIVE:
                self._negative.clear()
            self._negative[unit] = time.monotonic() + NEGATIVE_S
            return None
        self._negative.pop(unit, None)
        places = {
            "city": record.owner.city,
            "county": record.owner.county,
            "industry": record.owner.industry,
            "enterprise": record.owner.enterprise,
            "unit": unit,
        }
        admitted = Admitted(
            unit,
            record.class_,
            record.owner.county,
            record.owner.enterprise,
            tuple(places[tag] for tag in UNIT_TAGS),
            record.on_cloud,
            checked_s,
        )
        if old is not None and (old.class_name, old.tags) == (admitted.class_name, admitted.tags):
            # Messages on their way hold the old one, and are to report a first reading that the platform
            # has not, or no longer: twice does no harm.
            if old.checked_s < self._doubted_s:
                old.active_ms = 0
            old.on_cloud, old.checked_s = record.on_cloud, checked_s
            admitted = old
        self._known[unit] = admitted
        if len(self._known) > MAX_CACHED:
            self._known.popitem(last=False)
        return admitted
