"""Admission: accepts readings of registered units only, according to the platform.

Known units are answered from memory at once. Messages of other units wait until the platform has answered.
While it cannot be reached they continue to wait; they are never treated as unknown.
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
"""Age at which an answer is requested again; it stays in use until the new one arrives."""
WATCH_S = 1.0
"""Interval of the requests for suspended and retired units: the longest that such a unit stays admitted,
roughly."""
NEGATIVE_S = 2.0
"""How long the answer "unknown" is cached. Short, because a unit may be registered at any moment."""
MAX_NEGATIVE = 100_000
LONG_AGO_S = 1e-9
"""Marks an admitted unit whose answer is due for renewal at once. (`Units.checked_s` is 0 for units that are
not admitted.)"""


class Admission:
    def __init__(self, platform: PlatformApi, units: Units) -> None:
        self._platform, self.units = platform, units
        self._negative: dict[str, float] = {}
        self._asked: dict[str, None] = {}
        self._stale: dict[str, None] = {}
        self._answers: list[str] = []
        self.answered = asyncio.Event()
        """Set while `pop_answers` has units to return."""
        self._wake = asyncio.Event()
        self._after = 0
        self._epoch = ""
        self._doubted_s = float("-inf")
        """Answers older than this are used until the platform confirms or corrects them."""
        self._barred_s = float("-inf")
        self.reached = False
        """The platform has answered at least once."""

    def find(self, unit: str) -> Admitted | None:
        """The unit if it is known to be registered, else None."""
        number = self.units.numbers.get(unit)
        if number is None or not self.units.is_admitted(number):
            return None
        if self.units.checked_s[number] < self.fresh_s():
            self.refresh([unit])
        return Admitted(self.units, number)

    def fresh_s(self) -> float:
        """Answers older than this (monotonic clock) are requested again."""
        return max(time.monotonic() - REFRESH_S, self._doubted_s)

    def refresh(self, units: Iterable[str]) -> None:
        """Request admitted units again; what is known of them stays in use until the answer."""
        self._stale.update(dict.fromkeys(units))
        self._wake.set()

    def refresh_rows(self, rows: Rows) -> None:
        """Request those of these units, given by number, whose answers are old."""
        stale = self.units.checked_s[rows] < self.fresh_s()
        if stale.any():
            self.refresh(self.units.ids(rows[stale]))

    def is_unknown(self, unit: str) -> bool:
        """Whether the platform answered within NEGATIVE_S that the unit does not exist."""
        until = self._negative.get(unit)
        if until is None:
            return False
        if time.monotonic() < until:
            return True
        del self._negative[unit]
        return False

    def unknown(self, units: Iterable[str]) -> set[str]:
        """Those of these units for which `is_unknown` holds."""
        return {unit for unit in units if self.is_unknown(unit)} if self._negative else set()

    def distrust(self, unit: str) -> None:
        """Discard the cached answer "unknown" of a unit, so that it is requested again."""
        self._negative.pop(unit, None)

    def ask(self, units: Iterable[str]) -> None:
        """Request units from the platform; `pop_answers` returns them once it has answered."""
        self._asked.update(dict.fromkeys(units))
        self._wake.set()

    def pop_answers(self) -> list[str]:
        """Requested units that the platform has answered since the last call; `find` and `is_unknown` give
        the result."""
        found, self._answers = self._answers, []
        self.answered.clear()
        return found

    async def watch(self) -> None:
        """Forget suspended and retired units, so that their next message is checked again; also detect that
        the platform may have been restored from a backup and lost what we know. Runs until cancelled."""
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
                        "the platform started again: its answers are requested again", units=len(self.units)
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
        """Have all answers so far requested again. Raises PlatformAway."""
        # The position in the list of barred units comes first, so that no suspension is missed in between.
        barred = await self._platform.barred(None)
        self._after, self._epoch = barred.next, barred.epoch
        self._doubted_s = time.monotonic()
        self._negative.clear()

    def _forget(self, barred: Barred) -> None:
        owners = set(barred.enterprises)
        numbers = [number for unit in barred.units if (number := self.units.numbers.get(unit)) is not None]
        if owners:
            numbers += self.units.of_enterprises(owners).tolist()
        self.units.checked_s[numbers] = 0.0
        self._barred_s = time.monotonic()
        log.info("barred", units=len(barred.units), enterprises=len(owners), forgotten=len(numbers))

    async def run(self) -> None:
        """Send the requests that are due, until cancelled."""
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
        # A unit may have been suspended while the answer was on its way: request it again.
        checked_s = asked_s if self._barred_s < asked_s else max(asked_s - REFRESH_S, LONG_AGO_S)
        for unit in asked:
            del self._asked[unit]
        if self._stale:
            for unit in asked + stale:
                self._stale.pop(unit, None)
        self._learn(asked + stale, answers, checked_s)
        if asked:
            self._answers += asked
            self.answered.set()

    def _learn(self, asked: Sequence[str], answers: Answers, checked_s: float) -> None:
        units = self.units
        class_, owner = np.array(answers.class_, dtype=np.int64), np.array(answers.owner, dtype=np.int64)
        admitted = class_ >= 0
        for place in np.flatnonzero(~admitted).tolist():
            self._learn_unknown(asked[place])
        # Units of one enterprise and class share a head.
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
        # A first reading that the platform lacks (or has lost) is reported again; reporting it twice is
        # harmless.
        units.active_ms[known[units.checked_s[known] < self._doubted_s]] = 0
        units.on_cloud[known] = np.array(answers.on_cloud, dtype=bool)[admitted]
        units.checked_s[known] = checked_s
        for unit, names in answers.signals.items():
            units.signals.confirm(unit, names)
        if self._negative:
            for unit in asked:
                if unit in units.numbers and units.is_admitted(units.numbers[unit]):
                    self._negative.pop(unit, None)

    def _learn_unknown(self, unit: str) -> None:
        if len(self._negative) >= MAX_NEGATIVE:
            self._negative.clear()
        self._negative[unit] = time.monotonic() + NEGATIVE_S
        number = self.units.numbers.get(unit)
        if number is not None:
            self.units.checked_s[number] = 0.0


def _tags(owner: Owner) -> tuple[str, str, str, str]:
    """The tags of a unit, without its id."""
    return owner.city, owner.county, owner.industry, owner.enterprise
