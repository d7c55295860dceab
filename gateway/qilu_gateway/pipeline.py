"""The way of a message through the gateway: taken, admitted, stored, spooled or dead-lettered, and only then
acknowledged.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice

import structlog
from qilu_contract import clock
from qilu_contract.clock import JudgingClock, RunClock
from qilu_contract.errors import BadReading, Reason, Remark, Retryable
from qilu_contract.marks import Mark
from qilu_contract.mqtt_messages import Message, Messages
from qilu_contract.readings import Reading
from qilu_contract.storage import Point

from qilu_gateway import births, outbox, run_clock
from qilu_gateway.admission import Admission, Admitted
from qilu_gateway.backoff import Backoff
from qilu_gateway.batching import Batcher
from qilu_gateway.births import Births
from qilu_gateway.checking import check_all, check_units
from qilu_gateway.dead_letters import Bounds
from qilu_gateway.decoding import Decoded, Decoder
from qilu_gateway.metrics import Meter
from qilu_gateway.neighbours import Neighbours
from qilu_gateway.outbox import Outbox
from qilu_gateway.platform_api import PlatformApi
from qilu_gateway.problems import Problems
from qilu_gateway.rebirths import Rebirths
from qilu_gateway.receipts import Receipt, Receipts
from qilu_gateway.receipts import save as save_receipts
from qilu_gateway.rollups import Rollups
from qilu_gateway.session import Session
from qilu_gateway.spool import Spool, Spooled
from qilu_gateway.statefile import StateFile
from qilu_gateway.store_gate import Refused, StoreGate
from qilu_gateway.taken import Taken, latest_ms

log = structlog.get_logger()

MAX_HELD_BYTES = 256 * 1024 * 1024
"""Payloads of messages that are not durable yet; at the bound nothing more is taken until some are."""
HISTORY = 2
"""The lane of the session for history; 0 is that for all else, 1 the host's of the strict profile."""
AT_ONCE = 256
"""Messages taken in one turn of the event loop: some milliseconds of work."""
AFTER_CONNECT_S = 10.0
"""So long after a connection was made a gap in sequence numbers is no reason to ask for a rebirth."""
ACTIVITY_MS = 3600 * 1000
SLOW_S = 4.0
"""A store that takes longer for a batch is slow: the batch is spooled. Less than a stall (`service.py`)."""
WRITES = 2
"""Batches on their way to the store at once: while it works on one, it receives the next."""
STUBBORN = 3
"""So often a batch may fail while the store takes others, before the points at fault are looked for."""
LAG_SAMPLES = 20
"""Readings of a batch whose lag is observed."""


class Pipeline:
    """`take` is called with what came, one part after the other; `run` brings batches of them to an end."""

    def __init__(
        self,
        *,
        session: Session,
        history: Session,
        gate: StoreGate,
        state: StateFile,
        spool: Spool,
        platform: PlatformApi,
        bounds: Bounds,
        outbox: Outbox,
        rebirths: Rebirths,
        meter: Meter,
        rollups: Rollups,
        neighbours: Neighbours,
        problems: Problems,
        receipts: Receipts,
        answer_mark: Callable[[tuple[str, str], Mark], None],
        batch_size: int,
        batch_age_s: float,
        max_payload_bytes: int,
        window: int,
    ) -> None:
        self._session, self._gate, self._state, self._spool = session, gate, state, spool
        self._sessions = {0: session, HISTORY: history}
        self._bounds, self._outbox, self._rebirths, self._meter = bounds, outbox, rebirths, meter
        self._rollups, self._neighbours = rollups, neighbours
        self._problems, self._receipts = problems, receipts
        self._answer_mark = answer_mark
        self._births = Births(state)
        self._decoder = Decoder(self._births, max_payload_bytes)
        self._batcher: Batcher[Taken] = Batcher(batch_size, batch_age_s)
        self._window = window
        self._order: deque[Taken] = deque()
        # Not a dict: to find its first key, that steps over every one that was ever taken out before it.
        self._recent: OrderedDict[tuple[str, int], Taken] = OrderedDict()
        self._waiting: dict[str, deque[Taken]] = {}
        self._held_bytes = 0
        self._unfinished = 0
        """Messages taken and not acknowledged."""
        self._progress = asyncio.Event()
        self.admission = Admission(platform, self._answered)
        self.clock = JudgingClock()
        self._hears_apart = False
        """The clock comes on its own way: what comes of it among the data is older."""
        self._heard: tuple[RunClock, int] | None = None
        """The run's clock, when it is not in the state file yet."""

    def troubles(self) -> list[str]:
        """What keeps readings from becoming durable: any of store, state file, spool. A store that is away is
        none as long as there is room in the spool."""
        found = ["state file"] if self._state.failing else []
        if self._gate.failing and not self._spool.enabled:
            found.append("store")
        if self._gate.failing and self._spool.enabled and self._spool.nearly_full:
            found.append("spool")
        return found

    def oldest_s(self) -> float:
        """How long the message that was taken first among those in flight has waited."""
        while self._order and self._order[0].settled:
            self._order.popleft()
        return time.monotonic() - self._order[0].received_s if self._order else 0.0

    async def replay(self, topic: str, payload: bytes, past_ms: int) -> frozenset[Reason]:
        """Take the message of a dead letter that first came at `past_ms` again, as one that may have come
        before; returns why readings of it are refused now, once that and all else of it is durable. Births
        and sequence numbers of the past are not learned from it."""
        decoded = await self._when_readable(
            lambda: self._decoder.decode(topic, payload, dup=True, past_ms=past_ms)
        )
        if decoded.unit is not None:
            self.admission.distrust(decoded.unit)
        ended = asyncio.get_running_loop().create_future()
        taken = Taken.of(topic, payload, True, decoded, ended)
        if self._begin(taken, decoded):
            await self._batcher.add(taken)
        return await asyncio.shield(ended)

    async def take(self, messages: Messages, epoch: int, lane: int = 0) -> None:
        """Take messages over, as the connection `epoch` delivered them; `lane` tells the sessions apart whose
        connections these are. Waits while too much is in flight."""
        for place, message in enumerate(messages):
            if place % AT_ONCE == AT_ONCE - 1:
                await asyncio.sleep(0)
            await self._take_one(message, epoch, lane)

    async def _take_one(self, message: Message, epoch: int, lane: int) -> None:
        topic, payload, dup, mid, retained = message
        counters = self._meter.counters
        counters.messages += 1
        counters.redelivered_messages += dup
        # Python's hash of bytes: 64 bits, keyed anew in each process.
        key = (topic, hash(payload)) if mid and not retained else None
        known = self._recent.get(key) if key is not None else None
        if known is not None and known.epoch != epoch and (dup or not known.acknowledged):
            self._take_again(known, mid, epoch)
            return
        while self._held_bytes > MAX_HELD_BYTES:
            self._progress.clear()
            await self._progress.wait()
        receipts: list[Receipt] = []

        def receive() -> int:
            receipts.append(self._receipts.receive(topic, payload, mid, dup))
            return receipts[0].ts_ms

        decoded = await self._when_readable(
            lambda: self._decoder.decode(
                topic, payload, dup=dup, retained=retained, lane=lane, receipt=receive
            )
        )
        taken = Taken.of(topic, payload, dup, decoded)
        taken.receipt = receipts[0] if receipts else None
        taken.mid, taken.epoch, taken.lane, taken.retained = mid, epoch, lane, retained
        if key is not None:
            self._remember(key, taken)
        self._heed(decoded, payload)
        if self._begin(taken, decoded):
            await self._batcher.add(taken)

    async def _when_readable(self, decode: Callable[[], Decoded]) -> Decoded:
        """What `decode` returns, tried until births can be read: what an alias means is not guessed."""
        backoff = Backoff(most_s=2.0)
        while True:
            try:
                return decode()
            except sqlite3.OperationalError as error:
                log.warning("state file cannot be read: messages wait", error=str(error))
                await asyncio.sleep(backoff.delay_s())

    def _begin(self, taken: Taken, decoded: Decoded) -> bool:
        """Whether it can go into a batch: else it waits for the platform's word on its unit."""
        counters = self._meter.counters
        counters.accepted += taken.count
        counters.in_flight += taken.count
        self._held_bytes += len(taken.payload)
        self._unfinished += 1
        self._order.append(taken)
        if decoded.unit is None or not (decoded.readings or decoded.birth or decoded.death):
            return True
        return self._admit(taken, decoded.unit)

    def _take_again(self, known: Taken, mid: int, epoch: int) -> None:
        """The connection broke before the broker knew that we have this message."""
        self._meter.counters.redelivered += known.count
        known.mid, known.epoch = mid, epoch
        if known.settled:
            known.acknowledged = self._sessions[known.lane].acknowledge(epoch, [mid])

    def _remember(self, key: tuple[str, int], taken: Taken) -> None:
        # The broker can deliver again what it has not seen acknowledged: never more than the window.
        self._recent.pop(key, None)
        self._recent[key] = taken
        if len(self._recent) > 2 * self._window:
            self._recent.popitem(last=False)

    def hear_clock(self, payload: bytes) -> None:
        """The run's clock, on a way of its own: among the data it would wait behind them, and a broker that
        has a backlog of these may never hand it over."""
        with suppress(BadReading):
            self._hear(clock.decode(payload))
            self._hears_apart = True

    def _hear(self, announced: RunClock) -> None:
        heard_ms = clock.wall_ms()
        self.clock.hear(announced, heard_ms)
        self._heard = (announced, heard_ms)

    def _heed(self, decoded: Decoded, payload: bytes) -> None:
        """Everything that a message says beside its readings."""
        counters = self._meter.counters
        if decoded.host:
            self._neighbours.hear(decoded.host, payload)
        overtaken = self._hears_apart and decoded.clock and decoded.clock.now <= self.clock.announced_ms
        if decoded.clock is not None and not overtaken:
            self._hear(decoded.clock)
        node = (decoded.county, decoded.enterprise)
        if decoded.mark is not None:
            answer = decoded.mark._replace(clock_ms=self.clock.announced_ms)
            self._answer_mark(node, answer)
        if decoded.birth is not None:
            counters.births += 1
            if decoded.unit is None:
                self._rebirths.born(node)
        counters.ignored_deaths += decoded.ignored_death
        if decoded.gap:
            counters.sequence_gaps += 1
            if time.monotonic() - self._session.up_since > AFTER_CONNECT_S:
                self._rebirths.skipped(node)
        if decoded.complete:
            self._rebirths.complete(node)
        if decoded.rebirth:
            self._rebirths.ask(node)

    def _admit(self, taken: Taken, unit: str) -> bool:
        """Whether it is judged: else it waits for the platform's answer."""
        waiting = self._waiting.get(unit)
        if waiting is not None:  # behind its predecessors
            waiting.append(taken)
            return False
        admitted = self.admission.find(unit)
        if admitted is None and not self.admission.is_unknown(unit):
            self._waiting[unit] = deque([taken])
            self.admission.ask(unit)
            return False
        self._judge(taken, admitted)
        return True

    async def _answered(self, unit: str, admitted: Admitted | None) -> None:
        waiting = self._waiting[unit]
        while waiting:
            taken = waiting.popleft()
            self._judge(taken, admitted)
            await self._batcher.add(taken)
        del self._waiting[unit]

    def _judge(self, taken: Taken, admitted: Admitted | None) -> None:
        """Whether its readings may be stored, and its birth or death believed, as far as that hangs on whose
        they are."""
        try:
            if admitted is None:
                raise BadReading(Reason.UNKNOWN_UNIT, f"{taken.unit} is not registered, or is retired")
            admitted.check_owner(taken.county, taken.enterprise)
        except BadReading as bad:
            counters = self._meter.counters
            if taken.readings:
                taken.refuse(bad, len(taken.readings))
            elif taken.death and bad.reason is Reason.UNKNOWN_UNIT:
                counters.ignored_deaths += 1  # a unit that was retired says farewell
            elif not taken.count:  # it counts as one reading, like what cannot be decoded
                taken.refuse(bad)
                taken.count = 1
                counters.accepted += 1
                counters.in_flight += 1
            if taken.birth is not None:
                self._births.forget(taken.birth)
                taken.birth = None
            taken.death, taken.sessions = False, []
            return
        taken.admitted = admitted

    async def run(self) -> None:
        """Bring batches to an end, for ever: WRITES are written at once, and what follows is done for one
        after the other."""
        room = asyncio.Semaphore(WRITES)
        last: asyncio.Task[None] | None = None
        async with asyncio.TaskGroup() as group:
            while True:
                batch = await self._batcher.next()
                await room.acquire()
                storing = group.create_task(self._store_points(batch), name="gateway-store")
                storing.add_done_callback(lambda _: room.release())
                last = group.create_task(self._end(batch, storing, last), name="gateway-end")

    async def drain(self) -> None:
        """Return when all that is taken is brought to an end, except what waits for the platform."""
        self._batcher.hurry()
        while self._unfinished > sum(map(len, self._waiting.values())):
            self._progress.clear()
            await self._progress.wait()

    async def _end(
        self, batch: list[Taken], storing: asyncio.Task[None], before: asyncio.Task[None] | None
    ) -> None:
        """What follows when the points are durable, and the batch before has come to its end: all else is
        made so, and the batch is acknowledged."""
        await storing
        if before is not None:
            await before
        await self._keep(batch)
        self._rollups.add(_not_repeated(batch))
        counters = self._meter.counters
        stored = spooled = count = held_bytes = 0
        for taken in batch:
            stored += len(taken.points)
            spooled += len(taken.spooled)
            count += taken.count
            held_bytes += len(taken.payload)
            for reason, (_, refused) in taken.refused.items():
                counters.dead_lettered += refused
                self._meter.by_reason[reason] += refused
            if taken.birth is not None:
                self._births.saved(taken.birth)
            if taken.death:
                self._report_death(taken)
            if taken.points and taken.admitted is not None:
                self._report_readings(taken.admitted, taken.points, taken.retained)
            if taken.ended is not None:
                if not taken.ended.done():
                    taken.ended.set_result(frozenset(taken.refused))
            elif taken.refused or taken.remarks:
                self._problems.note_message(taken)
        counters.stored += stored
        counters.spooled += spooled
        counters.in_flight -= count
        self._held_bytes -= held_bytes
        for history in (False, True):
            of_it = (taken.points for taken in batch if taken.points and taken.history is history)
            ages_ms = [self.clock.age_ms(latest_ms(points)) for points in islice(of_it, LAG_SAMPLES)]
            self._meter.observe_lags(ages_ms, history=history)
        for taken in batch:
            taken.settle()
        for lane, session in self._sessions.items():
            epoch = session.epoch
            current = [taken for taken in batch if taken.mid and taken.lane == lane and taken.epoch == epoch]
            if current and session.acknowledge(epoch, [taken.mid for taken in current]):
                for taken in current:
                    taken.acknowledged = True
        self._unfinished -= len(batch)
        self._progress.set()

    def _report_readings(self, admitted: Admitted, points: Sequence[Point], retained: bool) -> None:
        last_ms = latest_ms(points)
        if not admitted.on_cloud:
            admitted.on_cloud = True
            # The report of a first reading says that the unit was heard then: once is enough.
            admitted.active_ms = min(point.ts_ms for point in points)
            self._outbox.notice()
        if not retained:  # else a unit that has died would be active again
            self._report_activity(admitted, last_ms)

    def _report_death(self, taken: Taken) -> None:
        try:
            units = [taken.unit] if taken.unit else self._births.devices(taken.county, taken.enterprise)
        except sqlite3.OperationalError as error:  # their next reading tells that they are there
            log.warning("state file cannot be read: a death is not reported", error=str(error))
            return
        for unit in units:
            self._outbox.died(unit)
            admitted = self.admission.find(unit)
            if admitted is not None:
                admitted.active_ms = 0  # its next reading is worth a report

    def _report_activity(self, admitted: Admitted, last_ms: int) -> None:
        if last_ms - admitted.active_ms >= ACTIVITY_MS:
            admitted.active_ms = last_ms
            self._outbox.active(admitted.unit, last_ms)

    def shipped(self, batch: Spooled, refused: int, evicted: int) -> None:
        """What was spooled has reached the store, except readings that it refused, now dead letters."""
        counters = self._meter.counters
        counters.spooled -= batch.readings
        counters.stored += batch.readings - refused
        counters.dead_lettered += refused
        self._meter.by_reason[Reason.REFUSED_BY_STORE] += refused
        counters.evicted += evicted
        counters.shipped += batch.readings
        for unit, _ in batch.firsts:
            admitted = self.admission.find(unit)
            if admitted is not None:
                admitted.on_cloud = True
        if batch.firsts:
            self._outbox.notice()
        for unit, ts_ms in batch.heard():
            admitted = self.admission.find(unit)
            if admitted is not None:
                self._report_activity(admitted, ts_ms)
        lags = [self.clock.age_ms(ts_ms) for _, ts_ms in islice(batch.heard(), LAG_SAMPLES)]
        self._meter.observe_lags(lags)

    def _check(self, batch: Sequence[Taken]) -> None:
        """Make points of the readings that may be stored, and refuse the others."""
        by_class: dict[str, tuple[list[Taken], list[Reading]]] = {}
        for taken in batch:
            if taken.admitted is not None:
                takens, readings = by_class.setdefault(taken.admitted.class_name, ([], []))
                takens += [taken] * len(taken.readings)
                readings += taken.readings
        latest_ms = self.clock.now_ms() + clock.MAX_AHEAD_MS
        for name, (takens, readings) in by_class.items():
            found = check_all(name, readings, latest_ms, partial(_remark, takens))
            for taken, reading, values in zip(takens, readings, found, strict=True):
                if isinstance(values, BadReading):
                    taken.refuse(values)
                elif taken.admitted is not None:
                    taken.points.append(Point(name, taken.admitted.tags, reading.ts_ms, values))
        for taken in batch:
            if taken.birth is not None:
                taken.mark_birth(taken.birth, latest_ms)
                if taken.admitted is not None:
                    check_units(taken.admitted.class_name, taken.units, taken.remark)

    async def _store_points(self, batch: Sequence[Taken]) -> None:
        """Write the batch's points, or spool them. Those that the store refuses for good become refused
        readings."""
        self._check(batch)
        receipts = [taken.receipt for taken in batch if taken.receipt is not None and taken.mid]
        if receipts:
            await self._state.hold(lambda connection: save_receipts(connection, receipts))
        refused = await self._write(batch)
        if refused:
            owners = {id(point): taken for taken in batch for point in taken.points}
            for point, detail, *_ in refused:
                taken = owners[id(point)]
                taken.points = [kept for kept in taken.points if kept is not point]
                taken.refuse(BadReading(Reason.REFUSED_BY_STORE, detail))
        self._batcher.size = self._gate.batch_size

    async def _write(self, batch: Sequence[Taken]) -> list[Refused]:
        """Write the batch's points, or spool them while the store is away or slow; returns those that are
        refused even alone. Waits as long as neither takes them."""
        points = [point for taken in batch for point in taken.points]
        if not points:
            return []
        backoff = Backoff()
        failed = False
        stubborn = 0
        while True:
            if (failed or self._gate.away) and await self._to_spool(batch, points):
                return []
            patient = not self._spool.enabled or self._spool.full
            try:
                if stubborn >= STUBBORN:
                    return await self._gate.sift(points)
                return await self._gate.write_good(points, within_s=None if patient else SLOW_S)
            except Retryable:
                failed = True
                if patient or self._spool.full:
                    stubborn = stubborn + 1 if await self._gate.answers() else 0
                    await asyncio.sleep(max(backoff.delay_s(), self._gate.rests_s()))

    async def _to_spool(self, batch: Sequence[Taken], points: list[Point]) -> bool:
        """Whether the batch's points are in the spool now. The reports of first readings go with them: they
        are made when the store has the readings."""
        firsts: dict[str, int] = {}
        for taken in batch:
            admitted = taken.admitted
            if taken.points and admitted is not None and not admitted.on_cloud:
                first_ms = min(point.ts_ms for point in taken.points)
                firsts[admitted.unit] = min(first_ms, firsts.get(admitted.unit, first_ms))
        if not await self._spool.append(points, (), list(firsts.items())):
            return False
        for taken in batch:
            taken.spooled, taken.points = taken.points, []
        return True

    async def _keep(self, batch: Sequence[Taken]) -> None:
        """Make durable on our own disk what must be before the acknowledgement."""
        letters = [letter for taken in batch if taken.refused for letter in taken.letters()]
        tables = [taken.birth for taken in batch if taken.birth is not None]
        sessions = [row for taken in batch for row in taken.sessions]
        firsts = [
            (taken.admitted.unit, min(point.ts_ms for point in taken.points))
            for taken in batch
            if taken.points and taken.admitted is not None and not taken.admitted.on_cloud
        ]
        heard, self._heard = self._heard, None
        if not (letters or tables or sessions or firsts or heard):
            return

        def work(connection: sqlite3.Connection) -> int:
            births.save(connection, tables, sessions)
            outbox.add(connection, [unit for unit, _ in firsts], [ts_ms for _, ts_ms in firsts])
            if heard is not None:
                run_clock.save(connection, *heard)
            return self._bounds.add(connection, letters, clock.wall_ms())

        self._meter.counters.evicted += await self._state.hold(work)


def _remark(takens: Sequence[Taken], place: int, kind: Remark, detail: str) -> None:
    takens[place].remark(kind, detail)


def _not_repeated(batch: Sequence[Taken]) -> Iterator[Point]:
    """Points, stored or spooled, but for those with which a birth or a retained message repeats what came
    before: sums count nothing twice."""
    for taken in batch:
        admitted, points = taken.admitted, taken.points or taken.spooled
        if admitted is None or not points:
            continue
        before_ms = admitted.latest_ms if taken.birth is not None or taken.retained else -1
        for point in points:
            if point.ts_ms > before_ms:
                yield point
        admitted.latest_ms = max(admitted.latest_ms, latest_ms(points))
