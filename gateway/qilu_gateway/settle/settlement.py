"""Last stage: what is stored or spooled is counted, reported and rolled up, what is refused becomes dead
letters, and the messages are acknowledged.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from itertools import islice

import numpy as np
from qilu_contract.columns import of_points
from qilu_contract.errors import Reason
from qilu_contract.storage import BORN
from qilu_contract.wire import clock

from qilu_gateway.admit.units import Units
from qilu_gateway.connect.session import HISTORY, Session
from qilu_gateway.metrics import Meter
from qilu_gateway.read import run_clock
from qilu_gateway.read.arrivals import Settling
from qilu_gateway.read.births import Births, Change
from qilu_gateway.read.control import Control
from qilu_gateway.read.in_flight import InFlight
from qilu_gateway.read.reads import Read
from qilu_gateway.read.taken import Taken, latest_ms
from qilu_gateway.rollups.rollups import Rollups
from qilu_gateway.settle import outbox
from qilu_gateway.settle.dead_letters import Bounds
from qilu_gateway.settle.firsts import firsts_of
from qilu_gateway.settle.problems import Problems
from qilu_gateway.settle.reports import Reports
from qilu_gateway.statefile import StateFile
from qilu_gateway.write.batches import Written
from qilu_gateway.write.spool import Spooled

LAG_SAMPLES = 20
"""Readings of a batch whose lag is observed."""


class Settlement:
    """`settle` is called with one batch after the other."""

    def __init__(
        self,
        *,
        sessions: dict[int, Session],
        state: StateFile,
        bounds: Bounds,
        units: Units,
        births: Births,
        reports: Reports,
        problems: Problems,
        rollups: Rollups,
        meter: Meter,
        in_flight: InFlight,
        control: Control,
    ) -> None:
        self._sessions, self._state, self._bounds = sessions, state, bounds
        self._units, self._births = units, births
        self._reports, self._problems, self._rollups = reports, problems, rollups
        self._meter, self._in_flight, self._control = meter, in_flight, control

    async def settle(self, written: Written) -> None:
        batch = written.batch
        refused = [taken for taken in (*batch.taken, *written.refused) if taken.refused]
        firsts = {} if written.spooled else firsts_of(self._units, batch.points, written.columns)
        await self._keep(written, refused, firsts)
        self._roll_up(written)
        self._count(written, refused)
        self._reports.on_cloud(firsts)
        if not written.spooled:
            self._report(written)
        for taken in batch.taken:
            if taken.birth is not None:
                self._births.saved(taken.birth)
            if taken.death:
                self._reports.died(taken)
            if taken.ended is not None:
                if not taken.ended.done():
                    taken.ended.set_result(frozenset(taken.refused))
            elif taken.refused or taken.remarks:
                self._problems.note_message(taken)
        for taken in written.refused:
            self._problems.note_message(taken)
        self._acknowledge(written)

    async def _keep(self, written: Written, refused: list[Taken], firsts: dict[str, int]) -> None:
        """Make durable on our own disk what must be before the acknowledgement."""
        letters = [letter for taken in refused for letter in taken.letters()]
        changes: list[Change] = []
        for item in written.batch.items:
            if isinstance(item, Read):
                changes += item.born
                continue
            changes += item.sessions
            if item.birth is not None:
                changes.append(item.birth)
        heard = self._control.unsaved_clock()
        if not (letters or changes or firsts or heard):
            return

        def work(connection: sqlite3.Connection) -> int:
            self._births.save(connection, changes)
            outbox.add(connection, list(firsts), list(firsts.values()))
            if heard is not None:
                run_clock.save(connection, *heard)
            return self._bounds.add(connection, letters, clock.wall_ms())

        self._meter.counters.evicted += await self._state.hold(work)

    def _roll_up(self, written: Written) -> None:
        """Of points with which a birth or a retained message repeats what came before sums count nothing
        twice."""
        columns = list(written.columns)
        repeats = [np.ones(len(each), dtype=bool) if BORN in each.names else None for each in columns]
        for may_repeat in (False, True):
            points = [
                point
                for taken in written.batch.taken
                if (taken.birth is not None or taken.retained) is may_repeat
                for point in taken.points
            ]
            for each in of_points(points, self._units.series, self._units.numbers, exact=False):
                columns.append(each)
                repeats.append(np.ones(len(each), dtype=bool) if may_repeat else None)
        if columns:
            self._rollups.add_columns(columns, repeats)

    def _count(self, written: Written, refused: list[Taken]) -> None:
        counters = self._meter.counters
        readings = len(written.batch.points) + sum(map(len, written.columns))
        if written.spooled:
            counters.spooled += readings
        else:
            counters.stored += readings
        for taken in refused:
            for reason, (_, count) in taken.refused.items():
                counters.dead_lettered += count
                self._meter.by_reason[reason] += count
        counters.in_flight -= sum([taken.count for taken in written.batch.taken])
        counters.in_flight -= sum([read.weight for read in written.batch.reads])

    def _report(self, written: Written) -> None:
        self._reports.heard_columns(written.columns)
        for taken in written.batch.taken:
            if taken.points and taken.unit and not taken.retained:  # else who has died would be active again
                self._reports.heard([(taken.unit, latest_ms(taken.points))])
        for history in (False, True):
            times = islice(_times(written, history=history), LAG_SAMPLES)
            ages_ms = [self._control.clock.age_ms(ts_ms) for ts_ms in times]
            self._meter.observe_lags(ages_ms, history=history)

    def _acknowledge(self, written: Written) -> None:
        settling = Settling()
        for taken in written.batch.taken:
            if taken.arrival is not None:
                settling.add(taken.arrival, [taken.place])
        for read in written.batch.reads:
            settling.add(read.arrival, read.places)
        due: dict[int, list[int]] = {}
        arrivals = settling.all()
        for arrival, places in arrivals:
            self._in_flight.settle(arrival, places)
            session = self._sessions.get(arrival.lane)
            if session is not None:
                due.setdefault(arrival.lane, []).extend(arrival.due(session.epoch, places))
        for lane, mids in due.items():
            session = self._sessions[lane]
            if mids and session.acknowledge(session.epoch, mids):
                for arrival, places in arrivals:
                    if arrival.lane == lane:
                        arrival.was_acknowledged(session.epoch, places)

    def shipped(self, batch: Spooled, refused: int, evicted: int) -> None:
        """What was spooled has reached the store, except readings that it refused, now dead letters."""
        counters = self._meter.counters
        counters.spooled -= batch.readings
        counters.stored += batch.readings - refused
        counters.dead_lettered += refused
        self._meter.by_reason[Reason.REFUSED_BY_STORE] += refused
        counters.evicted += evicted
        counters.shipped += batch.readings
        self._reports.on_cloud(dict(batch.firsts))
        self._reports.heard(batch.heard())
        lags = [self._control.clock.age_ms(ts_ms) for _, ts_ms in islice(batch.heard(), LAG_SAMPLES)]
        self._meter.observe_lags(lags)


def _times(written: Written, *, history: bool) -> Iterator[int]:
    """Of the newest reading of each message, or of some of those that came by column."""
    for taken in written.batch.taken:
        if taken.points and taken.history is history:
            yield latest_ms(taken.points)
    for read in written.batch.reads:
        if (read.arrival.lane == HISTORY) is history:
            for group in read.groups:
                yield from group.columns.ts_ms[:LAG_SAMPLES].tolist()
