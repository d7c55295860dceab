"""The way of a message through the gateway: taken, admitted, stored, spooled or dead-lettered, and only then
acknowledged.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import structlog
from qilu_contract import clock
from qilu_contract.clock import JudgingClock
from qilu_contract.errors import BadReading, Denied, Reason, Rejected, Retryable, TooLarge
from qilu_contract.mqtt import Message
from qilu_contract.readings import Reading
from qilu_contract.storage import Point
from qilu_contract.stores import Store

from qilu_gateway import births, outbox
from qilu_gateway.admission import Admission, Admitted
from qilu_gateway.backoff import Backoff
from qilu_gateway.batching import Batcher
from qilu_gateway.births import Births, BirthTable
from qilu_gateway.dead_letters import Bounds, DeadLetter
from qilu_gateway.decoding import SIGNALS, Decoded, Decoder, check
from qilu_gateway.metrics import Meter
from qilu_gateway.outbox import Outbox
from qilu_gateway.platform_api import PlatformApi
from qilu_gateway.rebirths import Rebirths
from qilu_gateway.rollups import Rollups
from qilu_gateway.session import Session
from qilu_gateway.spool import Spool, Spooled
from qilu_gateway.statefile import StateFile

log = structlog.get_logger()

MAX_HELD_BYTES = 256 * 1024 * 1024
"""Payloads of messages that are not durable yet; at the bound nothing more is taken until some are."""
AFTER_CONNECT_S = 10.0
"""So long after a connection was made a gap in sequence numbers is no reason to ask for a rebirth."""
ACTIVITY_MS = 3600 * 1000
SLOW_S = 4.0
"""A store that takes longer for a batch is slow: the batch is spooled. Less than a stall (`service.py`)."""
LONGEST_REST_S = 60.0
"""However long a store asks to be left alone, it is asked again after this."""
LAG_SAMPLES = 20
"""Readings of a batch whose lag is observed."""


@dataclass(slots=True, eq=False)
class Taken:
    """A message that is ours to bring to an end."""

    topic: str
    payload: bytes
    dup: bool
    county: str
    enterprise: str
    unit: str | None
    mid: int
    """What it is acknowledged by, on the connection `epoch`; 0 when nobody waits for that."""
    epoch: int
    readings: list[Reading]
    count: int
    """Readings, good and bad."""
    birth: BirthTable | None
    received_s: float = field(default_factory=time.monotonic)
    admitted: Admitted | None = None
    points: list[Point] = field(default_factory=list)
    spooled: list[Point] = field(default_factory=list)
    """Those of the points that are in the spool, and no longer in `points`."""
    refused: dict[Reason, tuple[str, int]] = field(default_factory=dict)
    """Readings refused, by reason, with the first one's detail."""
    ended: asyncio.Future[frozenset[Reason]] | None = None
    """Somebody waits for what becomes of it: why readings of it were refused."""
    settled: bool = False
    acknowledged: bool = False

    @property
    def weight(self) -> int:
        return max(1, len(self.points))

    def refuse(self, bad: BadReading, readings: int = 1) -> None:
        detail, count = self.refused.get(bad.reason, (bad.detail, 0))
        self.refused[bad.reason] = (detail, count + readings)

    def letters(self) -> list[DeadLetter]:
        return [
            DeadLetter(reason, detail, self.topic, self.payload, count, self.unit, self.dup)
            for reason, (detail, count) in self.refused.items()
        ]


class Pipeline:
    """`take` is called with each message, one after the other; `run` brings batches of them to an end."""

    def __init__(
        self,
        *,
        session: Session,
        store: Store,
        state: StateFile,
        spool: Spool,
        platform: PlatformApi,
        bounds: Bounds,
        outbox: Outbox,
        rebirths: Rebirths,
        meter: Meter,
        rollups: Rollups,
        batch_size: int,
        batch_age_s: float,
        max_payload_bytes: int,
        window: int,
    ) -> None:
        self._session, self._store, self._state, self._spool = session, store, state, spool
        self._bounds, self._outbox, self._rebirths, self._meter = bounds, outbox, rebirths, meter
        self._rollups = rollups
        self._births = Births(state)
        self._decoder = Decoder(self._births, max_payload_bytes)
        self._batcher: Batcher[Taken] = Batcher(batch_size, batch_age_s)
        self._window = window
        self._order: deque[Taken] = deque()
        self._recent: dict[tuple[str, int], Taken] = {}
        self._waiting: dict[str, deque[Taken]] = {}
        self._held_bytes = 0
        self._unfinished = 0
        """Messages taken and not acknowledged."""
        self._progress = asyncio.Event()
        self.admission = Admission(platform, self._answered)
        self.clock = JudgingClock()
        self._failing = {"store"}  # until it has taken something
        self._store_away = False
        self._rest_until_s = 0.0
        self._told: dict[str, type[Exception]] = {}

    def store_rests_s(self) -> float:
        """How long the store still asks to be left alone."""
        return max(0.0, self._rest_until_s - time.monotonic())

    def troubles(self) -> list[str]:
        """What keeps readings from becoming durable: any of store, state file, spool. A store that is away is
        none as long as there is room in the spool."""
        found = [what for what in self._failing if what != "store" or not self._spool.enabled]
        if "store" in self._failing and self._spool.enabled and self._spool.nearly_full:
            found.append("spool")
        return found

    def oldest_s(self) -> float:
        """How long the message that was taken first among those in flight has waited."""
        while self._order and self._order[0].settled:
            self._order.popleft()
        return time.monotonic() - self._order[0].received_s if self._order else 0.0

    async def replay(self, topic: str, payload: bytes) -> frozenset[Reason]:
        """Take a dead letter's message again, as one that may have come before; returns why readings of it
        are refused now, once that and all else of it is durable. Births and sequence numbers of the past are
        not learned from it."""
        decoded = self._decoder.decode(topic, payload, dup=True, past=True)
        if decoded.unit is not None:
            self.admission.distrust(decoded.unit)
        ended = asyncio.get_running_loop().create_future()
        await self._begin(self._make(topic, payload, True, decoded, ended), decoded)
        return await asyncio.shield(ended)

    async def take(self, message: Message, epoch: int) -> None:
        """Take a message over, as the connection `epoch` delivered it. Waits while too much is in flight."""
        topic, payload, dup, mid = message
        counters = self._meter.counters
        counters.messages += 1
        counters.redelivered_messages += dup
        # Python's hash of bytes: 64 bits, keyed anew in each process.
        key = (topic, hash(payload)) if mid else None
        known = self._recent.get(key) if key is not None else None
        if known is not None and known.epoch != epoch and (dup or not known.acknowledged):
            self._take_again(known, mid, epoch)
            return
        while self._held_bytes > MAX_HELD_BYTES:
            self._progress.clear()
            await self._progress.wait()
        decoded = self._decoder.decode(topic, payload, dup=dup)
        taken = self._make(topic, payload, dup, decoded)
        taken.mid, taken.epoch = mid, epoch
        if key is not None:
            self._remember(key, taken)
        self._heed(decoded)
        await self._begin(taken, decoded)

    @staticmethod
    def _make(
        topic: str,
        payload: bytes,
        dup: bool,
        decoded: Decoded,
        ended: asyncio.Future[frozenset[Reason]] | None = None,
    ) -> Taken:
        taken = Taken(
            topic=topic,
            payload=payload,
            dup=dup,
            county=decoded.county,
            enterprise=decoded.enterprise,
            unit=decoded.unit,
            mid=0,
            epoch=0,
            readings=decoded.readings,
            count=len(decoded.readings) + len(decoded.refused),
            birth=decoded.birth,
            ended=ended,
        )
        for bad in decoded.refused:
            taken.refuse(bad)
        return taken

    async def _begin(self, taken: Taken, decoded: Decoded) -> None:
        counters = self._meter.counters
        counters.accepted += taken.count
        counters.in_flight += taken.count
        self._held_bytes += len(taken.payload)
        self._unfinished += 1
        self._order.append(taken)
        if (
            decoded.unit is None
            or not (decoded.readings or decoded.birth)
            or self._admit(taken, decoded.unit)
        ):
            await self._batcher.add(taken)

    def _take_again(self, known: Taken, mid: int, epoch: int) -> None:
        """The connection broke before the broker knew that we have this message."""
        self._meter.counters.redelivered += known.count
        known.mid, known.epoch = mid, epoch
        if known.settled:
            known.acknowledged = self._session.acknowledge(epoch, [mid])

    def _remember(self, key: tuple[str, int], taken: Taken) -> None:
        # The broker can deliver again what it has not seen acknowledged: never more than the window.
        self._recent.pop(key, None)
        self._recent[key] = taken
        if len(self._recent) > 2 * self._window:
            del self._recent[next(iter(self._recent))]

    def _heed(self, decoded: Decoded) -> None:
        """Everything that a message says beside its readings."""
        counters = self._meter.counters
        if decoded.clock is not None:
            self.clock.hear(decoded.clock)
        if decoded.birth is not None:
            counters.births += 1
        if decoded.gap:
            counters.sequence_gaps += 1
            decoded.rebirth |= time.monotonic() - self._session.up_since > AFTER_CONNECT_S
        if decoded.rebirth:
            self._rebirths.ask((decoded.county, decoded.enterprise))

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
        """Make points of the readings that may be stored, and refuse the others."""
        try:
            if admitted is None:
                raise BadReading(Reason.UNKNOWN_UNIT, f"{taken.unit} is not registered, or is retired")
            admitted.check_owner(taken.county, taken.enterprise)
        except BadReading as bad:
            if taken.readings:
                taken.refuse(bad, len(taken.readings))
            if taken.birth is not None:
                self._births.forget(taken.birth)
                taken.birth = None
            return
        taken.admitted = admitted
        latest_ms = self.clock.now_ms() + clock.MAX_AHEAD_MS
        signals = SIGNALS.get(admitted.class_name, {})
        for reading in taken.readings:
            try:
                values = check(reading, signals, latest_ms)
            except BadReading as bad:
                taken.refuse(bad)
            else:
                taken.points.append(Point(admitted.class_name, admitted.tags, reading.ts_ms, values))

    async def run(self) -> None:
        """Bring batches to an end, one after the other, for ever."""
        while True:
            await self._settle(await self._batcher.next())

    async def drain(self) -> None:
        """Return when all that is taken is brought to an end, except what waits for the platform."""
        self._batcher.hurry()
        while self._unfinished > sum(map(len, self._waiting.values())):
            self._progress.clear()
            await self._progress.wait()

    async def _settle(self, batch: list[Taken]) -> None:
        await self._store_points(batch)
        await self._keep(batch)
        self._rollups.add(_not_repeated(batch))
        counters = self._meter.counters
        now_ms = self.clock.now_ms()
        lags_ms: list[int] = []
        for taken in batch:
            counters.stored += len(taken.points)
            counters.spooled += len(taken.spooled)
            for reason, (_, count) in taken.refused.items():
                counters.dead_lettered += count
                self._meter.by_reason[reason] += count
            counters.in_flight -= taken.count
            self._held_bytes -= len(taken.payload)
            taken.settled = True
            if taken.birth is not None:
                self._births.saved(taken.birth)
            if taken.points and taken.admitted is not None:
                last_ms = _latest_ms(taken.points)
                if len(lags_ms) < LAG_SAMPLES:
                    lags_ms.append(now_ms - last_ms)
                if not taken.admitted.on_cloud:
                    taken.admitted.on_cloud = True
                    # The report of a first reading says that the unit was heard then: once is enough.
                    taken.admitted.active_ms = min(point.ts_ms for point in taken.points)
                    self._outbox.notice()
                self._report_activity(taken.admitted, last_ms)
            if taken.ended is not None and not taken.ended.done():
                taken.ended.set_result(frozenset(taken.refused))
            # The window of what may come again holds many of these: they keep no content.
            taken.payload, taken.readings, taken.points, taken.spooled, taken.refused = b"", [], [], [], {}
        self._meter.observe_lags(lags_ms)
        epoch = self._session.epoch
        current = [taken for taken in batch if taken.mid and taken.epoch == epoch]
        if self._session.acknowledge(epoch, [taken.mid for taken in current]):
            for taken in current:
                taken.acknowledged = True
        self._unfinished -= len(batch)
        self._progress.set()

    def _report_activity(self, admitted: Admitted, last_ms: int) -> None:
        if last_ms - admitted.active_ms >= ACTIVITY_MS:
            admitted.active_ms = last_ms
            self._outbox.active(admitted.unit, last_ms)

    def shipped(self, batch: Spooled, refused: int, evicted: int) -> None:
        """What was spooled has reached the store, except readings that it refused, now dead letters."""
        counters = self._meter.counters
        counters.spooled -= len(batch.points)
        counters.stored += len(batch.points) - refused
        counters.dead_lettered += refused
        self._meter.by_reason[Reason.REFUSED_BY_STORE] += refused
        counters.evicted += evicted
        counters.shipped += len(batch.points)
        for unit, _ in batch.firsts:
            admitted = self.admission.find(unit)
            if admitted is not None:
                admitted.on_cloud = True
        if batch.firsts:
            self._outbox.notice()
        for point in batch.points:
            admitted = self.admission.find(point.tags[-1])
            if admitted is not None:
                self._report_activity(admitted, point.ts_ms)

    async def _store_points(self, batch: Sequence[Taken]) -> None:
        """Write the batch's points, or spool them. Those that the store refuses for good become refused
        readings."""
        points = [(taken, point) for taken in batch for point in taken.points]
        for taken, point, detail in await self._write(points):
            taken.points = [kept for kept in taken.points if kept is not point]
            taken.refuse(BadReading(Reason.REFUSED_BY_STORE, detail))

    async def _write(self, points: list[tuple[Taken, Point]]) -> list[tuple[Taken, Point, str]]:
        """Write points, or spool them while the store is away or slow; returns those that are refused even
        alone. Waits as long as neither takes them."""
        if not points:
            return []
        backoff = Backoff()
        while True:
            if self._store_away and await self._to_spool(points):
                return []
            try:
                patient = not self._spool.enabled or self._spool.full
                async with asyncio.timeout(None if patient else SLOW_S):
                    await self._store.write([point for _, point in points])
            except (Retryable, TimeoutError) as error:
                slow = isinstance(error, TimeoutError)
                self.failed("store", Retryable(f"slower than {SLOW_S:.0f} s") if slow else error)
                if patient or self._spool.full:
                    await asyncio.sleep(max(backoff.delay_s(), self.store_rests_s()))
            except (Rejected, TooLarge) as error:
                self._meter.counters.store_errors += 1
                if len(points) == 1:
                    [(taken, point)] = points
                    return [(taken, point, str(error))]
                half = len(points) // 2
                return await self._write(points[:half]) + await self._write(points[half:])
            else:
                self.succeeded("store")
                return []

    async def _to_spool(self, points: Sequence[tuple[Taken, Point]]) -> bool:
        """Whether the points are in the spool now. The reports of first readings go with them: they are made
        when the store has the readings."""
        firsts: dict[str, int] = {}
        for taken, point in points:
            admitted = taken.admitted
            if admitted is not None and not admitted.on_cloud:
                firsts[admitted.unit] = min(point.ts_ms, firsts.get(admitted.unit, point.ts_ms))
        if not await self._spool.append([point for _, point in points], list(firsts.items())):
            return False
        ours = {id(point) for _, point in points}
        for taken in {id(taken): taken for taken, _ in points}.values():
            taken.spooled += [point for point in taken.points if id(point) in ours]
            taken.points = [point for point in taken.points if id(point) not in ours]
        return True

    async def _keep(self, batch: Sequence[Taken]) -> None:
        """Make durable on our own disk what must be before the acknowledgement."""
        letters = [letter for taken in batch if taken.refused for letter in taken.letters()]
        tables = [taken.birth for taken in batch if taken.birth is not None]
        firsts = [
            (taken.admitted.unit, min(point.ts_ms for point in taken.points))
            for taken in batch
            if taken.points and taken.admitted is not None and not taken.admitted.on_cloud
        ]
        if not (letters or tables or firsts):
            return

        def work(connection: sqlite3.Connection) -> int:
            births.save(connection, tables)
            outbox.add(connection, firsts)
            return self._bounds.add(connection, letters, clock.wall_ms())

        backoff = Backoff()
        while True:
            try:
                self._meter.counters.evicted += await self._state.write(work)
            except sqlite3.OperationalError as error:  # the disk is full, or away
                self.failed("state file", error)
                await asyncio.sleep(backoff.delay_s())
            else:
                self.succeeded("state file")
                return

    def failed(self, what: str, error: Exception) -> None:
        """The store or the state file did not take a write, which will be tried again."""
        self._meter.counters.store_errors += 1
        self._meter.counters.store_denied += isinstance(error, Denied)
        self._store_away |= what == "store"
        if isinstance(error, Retryable) and error.retry_after_s:
            rest_s = min(error.retry_after_s, LONGEST_REST_S)
            self._rest_until_s = max(self._rest_until_s, time.monotonic() + rest_s)
        known = self._told.get(what)
        if known is not type(error):  # a token that is refused is another matter than a store that is away
            self._told[what] = type(error)
            self._failing.add(what)
            spooled = what == "store" and self._spool.enabled
            then = "readings are spooled" if spooled else "messages stay unacknowledged"
            log.error(f"{what} takes nothing: {then}", error=str(error))

    def succeeded(self, what: str) -> None:
        """The store or the state file took a write."""
        if what == "store":
            self._store_away = False
        self._told.pop(what, None)
        if what in self._failing:
            self._failing.discard(what)
            log.info(f"{what} takes writes")


def _not_repeated(batch: Sequence[Taken]) -> Iterator[Point]:
    """Points but for those with which a birth repeats what was stored before: sums count nothing twice."""
    for taken in batch:
        admitted = taken.admitted
        if admitted is None or not taken.points:
            continue
        before_ms = admitted.latest_ms if taken.birth is not None else -1
        for point in taken.points:
            if point.ts_ms > before_ms:
                yield point
        admitted.latest_ms = max(admitted.latest_ms, _latest_ms(taken.points))


def _latest_ms(points: Sequence[Point]) -> int:
    if len(points) == 1:  # as nearly always
        return points[0].ts_ms
    return max(point.ts_ms for point in points)
