"""Who may be stored: registered units only, as the platform says.

Known units are answered at once from memory. Others wait, with their messages, until the platform has
answered; while it is away they wait on, and are never taken for unknown.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from itertools import islice

import numpy as np
import structlog
from qilu_common.backoff import Backoff
from qilu_contract.columns import Rows

from qilu_gateway.admit.platform_api import MAX_COLUMN_IDS, Answers, Barred, Owner, PlatformApi, PlatformAway
from qilu_gateway.admit.units import Admitted, Units

log = structlog.get_logger()

REFRESH_S = 180.0
"""After this an answer is asked for anew, and used until the new one is there."""
WATCH_S = 1.0
"""How often is asked who was suspended or retired, and so about how long such a unit may go on."""
NEGATIVE_S = 2.0
"""How long "unknown" is believed: a unit may be registered at any moment."""
MAX_NEGATIVE = 100_000
LONG_AGO_S = 1e-9
"""Admitted, and to be asked for anew at once: `Units.checked_s` has 0 for units that are not admitted."""


class Admission:
    def __init__(self, platform: PlatformApi, units: Units) -> None:
        self._platform, self._units = platform, units
        self._negative: dict[str, float] = {}
        self._asked: dict[str, None] = {}
        self._stale: dict[str, None] = {}
        self._answers: list[str] = []
        self.answered = asyncio.Event()
        """`pop_answers` has some."""
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
        number = self._units.numbers.get(unit)
        if number is None or not self._units.is_admitted(number):
            return None
        if self._units.checked_s[number] < self.fresh_s():
            self.refresh([unit])
        return Admitted(self._units, number)

    def fresh_s(self) -> float:
        """Answers from before then are asked for anew."""
        return max(time.monotonic() - REFRESH_S, self._doubted_s)

    def refresh(self, units: Iterable[str]) -> None:
        """Ask anew for units that are admitted, and go on with what is known until there is an answer."""
        self._stale.update(dict.fromkeys(units))
        self._wake.set()

    def refresh_rows(self, rows: Rows) -> None:
        """The same for those of these units, by number, whose answers are old."""
        stale = self._units.checked_s[rows] < self.fresh_s()
        if stale.any():
            self.refresh(self._units.ids(rows[stale]))

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

    def ask(self, units: Iterable[str]) -> None:
        """Have the units among the answers, as soon as the platform has said something about them."""
        self._asked.update(dict.fromkeys(units))
        self._wake.set()

    def pop_answers(self) -> list[str]:
        """Units that were asked for and about which the platform has said something since the last call: now
        `find` or `is_unknown` tells what."""
        found, self._answers = self._answers, []
        self.answered.clear()
        return found

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
                        "the platform began anew: its answers are asked for again", units=len(self._units)
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
        owners = set(barred.enterprises)
        numbers = [number for unit in barred.units if (number := self._units.numbers.get(unit)) is not None]
        if owners:
            numbers += self._units.of_enterprises(owners).tolist()
        self._units.checked_s[numbers] = 0.0
        self._barred_s = time.monotonic()
        log.info("barred", units=len(barred.units), enterprises=len(owners), forgotten=len(numbers))

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
        asked = list(islice(self._asked, MAX_COLUMN_IDS))
        room = MAX_COLUMN_IDS - len(asked)
        stale = [unit for unit in islice(self._stale, room) if unit not in self._asked]
        asked_s = time.monotonic()
        answers = await self._platform.admission(asked + stale)
        # An answer that somebody's suspension overtook is asked for again.
        checked_s = asked_s if self._barred_s < asked_s else max(asked_s - REFRESH_S, LONG_AGO_S)
        for unit in asked + stale:
            self._asked.pop(unit, None)
            self._stale.pop(unit, None)
        self._learn(asked + stale, answers, checked_s)
        if asked:
            self._answers += asked
            self.answered.set()

    def _learn(self, asked: Sequence[str], answers: Answers, checked_s: float) -> None:
        units = self._units
        class_, owner = np.array(answers.class_, dtype=np.int64), np.array(answers.owner, dtype=np.int64)
        admitted = class_ >= 0
        for place in np.flatnonzero(~admitted).tolist():
            self._learn_unknown(asked[place])
        # Units of one enterprise and class have a head in common.
        pairs, which = np.unique(
            class_[admitted] * len(answers.owners) + owner[admitted], return_inverse=True
        )
        heads = [
            units.series.head(
                answers.classes[pair // len(answers.owners)],
                _tags(answers.owners[pair % len(answers.owners)]),
            )
            for pair in pairs.tolist()
        ]
        ids = (
            list(asked)
            if admitted.all()
            else [unit for unit, good in zip(asked, admitted.tolist(), strict=True) if good]
        )
        known = units.add_many(ids, np.array(heads, dtype=np.int32)[which])
        # A first reading that the platform has not, or no longer, is reported again: twice does no harm.
        units.active_ms[known[units.checked_s[known] < self._doubted_s]] = 0
        units.on_cloud[known] = np.array(answers.on_cloud, dtype=bool)[admitted]
        units.checked_s[known] = checked_s
        if self._negative:
            for unit in asked:
                if unit in units.numbers and units.is_admitted(units.numbers[unit]):
                    self._negative.pop(unit, None)

    def _learn_unknown(self, unit: str) -> None:
        if len(self._negative) >= MAX_NEGATIVE:
            self._negative.clear()
        self._negative[unit] = time.monotonic() + NEGATIVE_S
        number = self._units.numbers.get(unit)
        if number is not None:
            self._units.checked_s[number] = 0.0


def _tags(owner: Owner) -> tuple[str, str, str, str]:
    """Of a unit, but for its id."""
    return owner.city, owner.county, owner.industry, owner.enterprise
