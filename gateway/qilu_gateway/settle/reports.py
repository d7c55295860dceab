"""Reports to the platform about units: first readings, activity and deaths, for readings stored directly and
those shipped from the spool.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from itertools import repeat

import numpy as np
import structlog
from qilu_common.backoff import Backoff
from qilu_contract.columns import Columns

from qilu_gateway.admit.platform_api import NotTaken, PlatformApi, PlatformAway
from qilu_gateway.admit.units import Units
from qilu_gateway.read.births import Births
from qilu_gateway.read.in_flight import InFlightMessage
from qilu_gateway.settle.outbox import Outbox

log = structlog.get_logger()

ACTIVITY_MS = 3600 * 1000
SIGNALS_EVERY_S = 1.0
MAX_SIGNALS_TOGETHER = 1000
NOT_TAKEN_S = 60.0
"""Retry interval with a platform that predates generic units."""


class Reports:
    def __init__(self, units: Units, births: Births, outbox: Outbox) -> None:
        self._units, self._births, self._outbox = units, births, outbox

    def on_cloud(self, firsts: Mapping[str, int]) -> None:
        """Record that the first readings of these units, at these times (ms), are in the outbox. Their report
        implies activity at that time."""
        if not firsts:
            return
        units, size = self._units, len(firsts)
        numbers = np.fromiter(map(units.numbers.get, firsts, repeat(-1)), dtype=np.int64, count=size)
        known = numbers >= 0
        units.on_cloud[numbers[known]] = True
        units.active_ms[numbers[known]] = np.fromiter(firsts.values(), dtype=np.int64, count=size)[known]
        self._outbox.notice()

    async def run_signals(self, platform: PlatformApi) -> None:
        """Report what generic units send, until cancelled. Nothing waits for it: a signal that was not
        reported before the end is learned again from the unit's next reading."""
        backoff, signals = Backoff(first_s=SIGNALS_EVERY_S, most_s=NOT_TAKEN_S), self._units.signals
        while True:
            await asyncio.sleep(SIGNALS_EVERY_S)
            news = signals.take_news(MAX_SIGNALS_TOGETHER)
            if not news:
                continue
            try:
                await platform.signals(news)
                backoff.reset()
            except PlatformAway as error:
                signals.put_back(news)
                log.warning("signals of generic devices are not reported yet", error=str(error))
                await asyncio.sleep(NOT_TAKEN_S if isinstance(error, NotTaken) else backoff.delay_s())

    def heard(self, readings: Iterable[tuple[str, int]]) -> None:
        """Report activity of units at these times (ms)."""
        units = self._units
        for unit, ts_ms in readings:
            number = units.numbers.get(unit)
            if number is not None and ts_ms - units.active_ms[number] >= ACTIVITY_MS:
                units.active_ms[number] = ts_ms
                self._outbox.active([unit], [ts_ms])

    def heard_columns(self, columns: Sequence[Columns]) -> None:
        """Report activity from columnar readings, numbered by this process."""
        units = self._units
        for each in columns:
            news = each.ts_ms - units.active_ms[each.rows] >= ACTIVITY_MS
            if news.any():
                rows = np.unique(each.rows[news])
                np.maximum.at(units.active_ms, each.rows[news], each.ts_ms[news])
                self._outbox.active(units.ids(rows), units.active_ms[rows].tolist())

    def died(self, message: InFlightMessage) -> None:
        """Report the death of a device, or of an edge node with all of its devices."""
        if message.unit:
            self._gone([message.unit])
        else:
            self.node_died(message.county, message.enterprise)

    def node_died(self, county: str, enterprise: str) -> None:
        """Report the death of an edge node's devices."""
        try:
            self._gone(self._births.devices(county, enterprise))
        except sqlite3.OperationalError as error:  # their next reading reports them as active
            log.warning("state file cannot be read: a death is not reported", error=str(error))

    def _gone(self, units: Iterable[str]) -> None:
        for unit in units:
            self._outbox.died(unit)
            number = self._units.numbers.get(unit)
            if number is not None:
                self._units.active_ms[number] = 0  # its next reading is reported at once
