"""Last stage: saves, counts, rolls up and reports stored or spooled batches, turns refused readings into dead
letters, and acknowledges the messages.
"""

from __future__ import annotations

import numpy as np
from qilu_contract.columns import of_points
from qilu_contract.storage import BORN

from qilu_gateway.admit.units import Units
from qilu_gateway.read.in_flight import latest_ms
from qilu_gateway.rollups.rollups import Rollups
from qilu_gateway.settle.accounts import Accounts
from qilu_gateway.settle.acknowledging import Acknowledging
from qilu_gateway.settle.keeping import Keeping
from qilu_gateway.settle.problems import Problems
from qilu_gateway.settle.reports import Reports
from qilu_gateway.write.batches import Written
from qilu_gateway.write.firsts import firsts_of
from qilu_gateway.write.spool_file import Spooled


class Settlement:
    """Last stage of the pipeline. `settle` is called with one batch after the other, `shipped` with batches
    that have left the spool."""

    def __init__(
        self,
        units: Units,
        keeping: Keeping,
        accounts: Accounts,
        rollups: Rollups,
        reports: Reports,
        problems: Problems,
        acknowledging: Acknowledging,
    ) -> None:
        self._units, self._keeping, self._accounts, self._rollups = units, keeping, accounts, rollups
        self._reports, self._problems, self._acknowledging = reports, problems, acknowledging

    async def settle(self, written: Written) -> None:
        batch = written.batch
        refused = [message for message in (*batch.plain, *written.refused) if message.refused]
        firsts = {} if written.spooled else firsts_of(self._units, batch.points, written.columns)
        evicted = await self._keeping.keep(written, refused, firsts)
        self._roll_up(written)
        self._accounts.count(written, refused, evicted)
        self._reports.on_cloud(firsts)
        if not written.spooled:
            self._reports.heard_columns(written.columns)
            for message in batch.plain:
                if message.points and message.unit and not message.retained:  # retained: could undo a death
                    self._reports.heard([(message.unit, latest_ms(message.points))])
            self._accounts.observe_stored(written)
        for message in batch.plain:
            if message.death:
                self._reports.died(message)
            if message.ended is not None:
                if not message.ended.done():
                    message.ended.set_result(frozenset(message.refused))
            elif message.refused or message.remarks:
                self._problems.note_message(message)
        for message in written.refused:
            self._problems.note_message(message)
        self._acknowledging.acknowledge(batch)

    def _roll_up(self, written: Written) -> None:
        """Roll up a batch. Points of births and retained messages may repeat earlier ones, which must not be
        summed twice."""
        columns = list(written.columns)
        repeats = [np.ones(len(each), dtype=bool) if BORN in each.names else None for each in columns]
        for may_repeat in (False, True):
            points = [
                point
                for message in written.batch.plain
                if (message.birth is not None or message.retained) is may_repeat
                for point in message.points
            ]
            for each in of_points(points, self._units.series, self._units.numbers, exact=False):
                columns.append(each)
                repeats.append(np.ones(len(each), dtype=bool) if may_repeat else None)
        if columns:
            self._rollups.add_columns(columns, repeats)

    def shipped(self, batch: Spooled, refused: int, evicted: int) -> None:
        """Settle a spooled batch that has reached the store; rejected readings are dead letters now."""
        self._accounts.count_shipped(batch, refused, evicted)
        self._reports.on_cloud(dict(batch.firsts))
        self._reports.heard(batch.heard())
