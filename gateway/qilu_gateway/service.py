"""The gateway as a service: on its own, or in another process's event loop beside the platform."""

from __future__ import annotations

import asyncio
import os
import secrets
import sqlite3
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from types import TracebackType
from typing import Self, TypeVar

import msgspec
import structlog
from qilu_contract import marks, sparkplug, topics
from qilu_contract.broker import BrokerAddress
from qilu_contract.clock import wall_ms
from qilu_contract.errors import ConfigError, Reason
from qilu_contract.hours import Hours
from qilu_contract.http_server import HttpServer
from qilu_contract.interpreter import serve_evenly
from qilu_contract.marks import Mark
from qilu_contract.mqtt_messages import Messages
from qilu_contract.secrets import secret
from qilu_contract.storage import Point
from qilu_contract.stores import Store, open_store
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from qilu_gateway import births, dead_letters, outbox, receipts, rollups, run_clock
from qilu_gateway import host as host_state
from qilu_gateway.admission import Admission
from qilu_gateway.backoff import Backoff
from qilu_gateway.batching import Batcher
from qilu_gateway.births import Births
from qilu_gateway.control import Control
from qilu_gateway.dead_letters import Bounds
from qilu_gateway.endpoint import MAX_CONNECTIONS, leave_address
from qilu_gateway.host import HostState, Timestamps, will
from qilu_gateway.in_flight import InFlight
from qilu_gateway.intake import Intake, Item
from qilu_gateway.letter_office import LetterOffice
from qilu_gateway.metrics import Counters, Meter, Rates
from qilu_gateway.neighbours import Neighbours
from qilu_gateway.outbox import Outbox
from qilu_gateway.platform_api import PlatformApi
from qilu_gateway.problems import Problems
from qilu_gateway.rebirths import Rebirths
from qilu_gateway.reports import Reports
from qilu_gateway.rollups import Rollups
from qilu_gateway.session import HISTORY, Session, Take, filters, history_filters
from qilu_gateway.settings import Settings
from qilu_gateway.settlement import Settlement
from qilu_gateway.shipper import Shipper
from qilu_gateway.spool import Spool
from qilu_gateway.statefile import StateFile
from qilu_gateway.store_gate import StoreGate
from qilu_gateway.units import Units
from qilu_gateway.writer import Writer

log = structlog.get_logger()
_T = TypeVar("_T")

_KEPT = (births, dead_letters, outbox, receipts, rollups, run_clock, host_state)
STATE_SCHEMAS = tuple(part.SCHEMA for part in _KEPT)
"""Every table of the state file."""
STOP_S = 3.0
"""How long a stop may take; what is not durable by then stays unacknowledged and is delivered again."""
MEASURE_EVERY_S = 2.0
LETTERS_EVERY_MS = 10_000
CLOCK_WINDOW = 10
SPARKPLUG = topics.NAMESPACE.encode()
STALLED_S = 5.0
"""A message in flight for longer means that data comes in faster than it can be kept."""
ADDRESS_EVERY_S = 5.0
"""How often it is tried to leave the address there, while the disk takes nothing."""
FLOWING_S = 1.0
"""Only when nothing is in flight for longer than this is a stall over."""


class _Stopped(Exception):
    """Somebody called `stop` before everything was started."""


class GatewayService:
    """Start and stop it with `async with`, or `await run()` until somebody calls `stop()`."""

    def __init__(self, settings: Settings, *, store: Store | None = None, api_key: str | None = None) -> None:
        """An opened `store` that is handed in is used and not closed; else settings.store is opened. The key
        is QILU_API_KEY(_FILE) unless given. Raises ConfigError.
        """
        self._settings = settings
        self._store = store
        self._api_key = api_key if api_key is not None else secret("QILU_API_KEY")
        self._broker = BrokerAddress.from_url(settings.broker)
        if store is None and not settings.store:
            raise ConfigError(
                "The gateway needs a store: give --store duckdb:///path or influxdb://host/database."
            )
        self._meter = Meter()
        self._hours = Hours()
        self._letters = 0, Counter[Reason]()
        """When dead letters were told last, and which."""
        self._stop = asyncio.Event()
        self._started = asyncio.Event()
        self._stalled = False
        self._held_up = ""
        """Why the gateway cannot start yet: its disk is full, read-only or away."""
        self._gate: StoreGate | None = None
        self._spool: Spool | None = None
        self._ousted: ConfigError | None = None
        self._running: asyncio.Task[None] | None = None
        self._control: Control | None = None
        self._admission: Admission | None = None
        self._in_flight = InFlight()
        self._session: Session | None = None
        self._history: Session | None = None
        self._speaker: Session | None = None
        """The connection that speaks for the host: the session itself, but in the strict profile."""
        self._host: HostState | None = None
        self._timestamps = Timestamps()
        self._server: HttpServer | None = None
        self._state: StateFile | None = None

    @property
    def counters(self) -> Counters:
        """Live; see `metrics.py` for what they mean."""
        return self._meter.counters

    @property
    def rates(self) -> Rates:
        """Over the last two seconds."""
        return self._meter.rates

    @property
    def dead_lettered_by_reason(self) -> dict[str, int]:
        """Readings since the start."""
        return {str(reason): count for reason, count in self._meter.by_reason.items()}

    @property
    def online(self) -> bool:
        """Edge nodes are told that data is taken."""
        return self._host is not None and self._host.online

    @property
    def run_speed(self) -> float:
        """Simulated seconds that pass in a second of the run that is going on, as it announced last."""
        return 0.0 if self._control is None else self._control.clock.announced_speed

    async def unreported(self) -> int:
        """First readings that the platform has not confirmed yet; at least one when nobody can say now."""
        try:
            return 0 if self._state is None else await self._state.write(outbox.size)
        except (sqlite3.OperationalError, OSError):
            return 1

    @property
    def http_port(self) -> int:
        """Where /metrics and /healthz are served; 0 before the start."""
        return self._server.port if self._server is not None else 0

    def troubles(self) -> list[str]:
        """Why no data can be taken now: any of broker, store, state file, spool, platform, stalled,
        stopping."""
        session, admission = self._session, self._admission
        if session is None or admission is None:
            return ["state file"] if self._held_up else ["starting"]
        oldest_s = self._in_flight.oldest_s()
        self._stalled = oldest_s > (FLOWING_S if self._stalled else STALLED_S)
        wrong = {
            "stopping": self._stop.is_set(),
            "broker": not all(each.subscribed for each in (session, self._history, self._speaker) if each),
            **dict.fromkeys(self._disk_troubles(), True),
            "platform": not admission.reached,
            "stalled": self._stalled,
        }
        return [name for name, is_wrong in wrong.items() if is_wrong]

    def _disk_troubles(self) -> list[str]:
        """What keeps readings from becoming durable. A store that is away is none as long as there is room in
        the spool."""
        state, gate, spool = self._state, self._gate, self._spool
        assert state is not None
        assert gate is not None
        assert spool is not None
        found = ["state file"] if state.failing else []
        if gate.failing and not spool.enabled:
            found.append("store")
        if gate.failing and spool.enabled and spool.nearly_full:
            found.append("spool")
        return found

    @property
    def store_trouble(self) -> str:
        """Why the store takes nothing now, in a sentence, also while readings are spooled; empty when it
        does."""
        return self._gate.reason if self._gate is not None else ""

    def reasons(self) -> dict[str, str]:
        """A sentence for each part that takes nothing now, also where the gateway works on without it."""
        found = {
            "state file": self._held_up or (self._state.failing if self._state is not None else ""),
            "store": self.store_trouble,
            "clock": self._timestamps.trouble,
        }
        if self._spool is not None and self._spool.full:
            found["spool"] = (
                f"the spool takes no more ({self._spool.bytes} bytes): messages stay unacknowledged"
            )
        return {name: reason for name, reason in found.items() if reason}

    async def __aenter__(self) -> Self:
        """Run in a task of its own. Returns when everything is started, whether or not broker, store and
        platform are there; raises what stops it from starting.
        """
        self._running = asyncio.create_task(self.run(), name="gateway")
        started = asyncio.create_task(self._started.wait(), name="gateway-started")
        await asyncio.wait([self._running, started], return_when=asyncio.FIRST_COMPLETED)
        started.cancel()
        if self._running.done():
            self._running.result()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if self._running is not None:
            try:
                await self._running
            except Exception:
                if error is None:  # else `wait` has told it, and what came of that is on its way
                    raise

    async def wait(self) -> None:
        """Until the service has ended; raises what ended it, if it was not `stop`."""
        assert self._running is not None, "not started"
        await asyncio.shield(self._running)

    def stop(self) -> None:
        """Take nothing more, bring to an end what is in flight, say goodbye: within STOP_S."""
        self._stop.set()

    async def run(self) -> None:
        """Serve until `stop`. Raises ConfigError, or whatever broke a part: then nothing more is
        acknowledged, the broker publishes STATE offline, and a new start goes on where this one was.
        """
        serve_evenly()
        with suppress(_Stopped):
            await self._run()

    async def _run(self) -> None:
        settings = self._settings
        async with AsyncExitStack() as stack:
            app = Starlette(
                routes=[Route("/metrics", self._serve_metrics), Route("/healthz", self._serve_health)]
            )
            server = HttpServer(app, settings.http_host, settings.http_port, MAX_CONNECTIONS)
            self._server = await stack.enter_async_context(server)
            self._state = state = await self._when_possible(
                lambda: stack.enter_async_context(StateFile(settings.state, STATE_SCHEMAS))
            )
            store = self._store
            if store is None:
                store = await stack.enter_async_context(
                    open_store(settings.store, secret("QILU_INFLUX_TOKEN"))
                )
            platform = await stack.enter_async_context(PlatformApi(settings.platform, self._api_key))
            counters = self._meter.counters
            bounds = settings.spool_max_bytes, settings.spool_min_free_bytes
            spool = await self._when_possible(
                lambda: stack.enter_async_context(Spool(settings.state, *bounds, self._count_corrupt))
            )
            self._spool = spool
            self._gate = gate = StoreGate(
                store, counters, self._figures, batch_size=settings.batch_size, spooling=spool.enabled
            )
            self._meter.spool = lambda: (spool.batches, spool.bytes, spool.age_s())
            self._meter.batch_size = lambda: gate.batch_size
            counters.recovered = spool.readings
            counters.accepted += spool.readings + spool.corrupt
            counters.spooled, counters.corrupt = spool.readings, spool.corrupt
            if spool.readings:
                log.info("found in the spool", readings=spool.readings)
            # Two batches in the pipeline, one on its way in, one on its way out as acknowledgements; small
            # batches get a window that a round trip does not exhaust.
            window = min(max(4 * settings.batch_size, 1000), 65_535)
            self._timestamps.seen(
                await self._when_possible(
                    lambda: state.write(lambda connection: host_state.load(connection, settings.host))
                )
            )
            session = self._make_session(window)
            history = self._make_history_session(settings.batch_size)
            # With a certificate the broker takes its name for the client id: one session is all there can be.
            alone = "QILU_MQTT_CERTIFICATE_FILE" in os.environ
            self._history = None if alone else history
            speaker = session if settings.profile == "reliable" else self._make_host_session(window)
            rebirths = Rebirths(speaker.command, self._count_rebirth, settings.reorder_timeout_s)
            shipping = Outbox(state, platform, self._count_first_readings)
            problems, received = Problems(platform), receipts.Receipts()
            letters = Bounds()
            rolling = Rollups(settings.host, state, gate)
            await self._when_possible(rolling.open)
            self._session, self._speaker = session, speaker
            self._host = host = HostState(
                speaker,
                settings.host,
                self.troubles,
                self._timestamps,
                state,
                birth_first=settings.profile == "strict",
            )
            neighbours = Neighbours(settings.host_id, settings.partition, host.hear)
            self._meter.shared_groups = lambda: neighbours.shared_groups
            sessions = {0: session, HISTORY: history}
            units = Units()
            table = Births(state, units)
            batcher: Batcher[Item] = Batcher(settings.batch_size, settings.batch_age_s)
            control = Control(
                session,
                counters,
                neighbours,
                rebirths,
                lambda node, mark: _answer_mark(speaker, node, mark),
            )
            self._control, self._admission = control, Admission(platform, units)
            admission = self._admission
            intake = Intake(
                sessions,
                units,
                table,
                admission,
                control,
                received,
                counters,
                self._in_flight,
                batcher,
                max_payload_bytes=settings.max_payload_bytes,
                window=window + settings.batch_size,
            )
            writer = Writer(batcher, gate, spool, state, control.clock)
            settlement = Settlement(
                sessions=sessions,
                state=state,
                bounds=letters,
                units=units,
                births=table,
                reports=Reports(units, table, shipping),
                problems=problems,
                rollups=rolling,
                meter=self._meter,
                in_flight=self._in_flight,
                control=control,
            )
            await self._when_possible(
                lambda: state.write(lambda connection: run_clock.load(connection, control.clock))
            )
            await self._when_possible(lambda: state.write(received.load))
            shipper = Shipper(
                spool=spool,
                gate=gate,
                state=state,
                bounds=letters,
                problems=problems,
                shipped=settlement.shipped,
            )
            key = secrets.token_urlsafe(32)
            app.routes.extend(LetterOffice(state, letters, intake.replay).routes(key))
            try:
                async with asyncio.TaskGroup() as group:
                    parts = {
                        "http": server.wait(),
                        "address": self._tell_address(server.url, key),
                        "session": self._hold(session, self._acknowledged_only(intake)),
                        "released": intake.release(),
                        "writer": writer.run(units, settlement.settle),
                        "shipper": shipper.run(),
                        "admission": admission.run(),
                        "barred": admission.watch(),
                        "outbox": shipping.run(),
                        "activity": shipping.run_activity(),
                        "problems": problems.run(),
                        "rebirths": rebirths.run(),
                        "host-state": host.run(),
                        "rollups": rolling.run(),
                        "measure": self._measure(gate, state),
                    }
                    if not alone:
                        parts["clock"] = self._hold_clock(control)
                        parts["history"] = self._hold(
                            history, lambda messages, epoch: intake.take(messages, epoch, HISTORY)
                        )
                    if speaker is not session:
                        parts["host-session"] = self._hold(speaker, self._unacknowledged_only(intake))
                    tasks = [group.create_task(part, name=f"gateway-{name}") for name, part in parts.items()]
                    self._started.set()
                    await self._stop.wait()
                    await self._wind_down(session, history, speaker, intake, host)
                    await rolling.finish()
                    for task in tasks:
                        task.cancel()
            except* OSError as errors:
                raise ConfigError(f"The gateway cannot run: {errors.exceptions[0]}.") from errors
            if self._ousted is not None:
                raise self._ousted
            log.info("gateway stopped", **{"accepted": counters.accepted, "stored": counters.stored})

    def _make_session(self, window: int) -> Session:
        settings, broker = self._settings, self._broker
        return Session(
            broker,
            f"qilu-gateway-{settings.host}",
            tls=broker.tls_context(),
            window=window,
            will=will(settings.host) if settings.profile == "reliable" else None,
            filters=filters(settings.partition)
            + (history_filters(settings.partition) if "QILU_MQTT_CERTIFICATE_FILE" in os.environ else ()),
            stamp=self._timestamps.next if settings.profile == "reliable" else wall_ms,
        )

    def _make_history_session(self, window: int) -> Session:
        """For history alone, with a window of its own: what is going on never waits behind more of it than
        one batch."""
        settings, broker = self._settings, self._broker
        return Session(
            broker,
            f"qilu-gateway-{settings.host}-history",
            tls=broker.tls_context(),
            window=min(window, 65_535),
            will=None,
            filters=history_filters(settings.partition),
        )

    async def _hold_clock(self, control: Control) -> None:
        """The run's clock has a session of its own, which needs no memory: the clock is retained."""
        broker = self._broker
        session = Session(
            broker,
            f"qilu-gateway-{self._settings.host}-clock",
            tls=broker.tls_context(),
            window=CLOCK_WINDOW,
            will=None,
            filters=[topics.CLOCK],
            persistent=False,
        )

        async def take(messages: Messages, epoch: int) -> None:
            session.acknowledge(epoch, messages.mids)
            for payload in filter(None, messages.payloads):
                control.hear_clock(payload)

        await self._hold(session, take)

    def _make_host_session(self, window: int) -> Session:
        """Sparkplug to the letter: clean, with the STATE's will, subscribed to the namespace."""
        settings, broker = self._settings, self._broker
        return Session(
            broker,
            f"qilu-host-{settings.host}",
            tls=broker.tls_context(),
            window=window,
            will=will(settings.host),
            filters=[topic for topic in filters(settings.partition) if topic.startswith(topics.NAMESPACE)],
            persistent=False,
            stamp=self._timestamps.next,
        )

    def _acknowledged_only(self, intake: Intake) -> Take:
        """In the strict profile, the persistent session leaves to the host's what came at QoS 0."""
        if self._settings.profile == "reliable":
            return intake.take

        async def take(messages: Messages, epoch: int) -> None:
            own = [
                place
                for place, (mid, topic) in enumerate(zip(messages.mids, messages.topics, strict=True))
                if mid or not topic.startswith(SPARKPLUG)
            ]
            await intake.take(messages.take(own), epoch)

        return take

    def _unacknowledged_only(self, intake: Intake) -> Take:
        """What came at QoS 1 is the persistent session's, which acknowledges it once it is durable. But
        an edge node's will comes at QoS 1 even when all else of it comes at QoS 0, and must not overtake it.
        """

        async def take(messages: Messages, epoch: int) -> None:
            if self._speaker is not None:
                self._speaker.acknowledge(epoch, [mid for mid in messages.mids if mid])
            own = messages.take(
                place
                for place, (mid, topic) in enumerate(zip(messages.mids, messages.topics, strict=True))
                if not mid or b"/NDEATH/" in topic
            )
            own.mids = [0] * len(own)
            await intake.take(own, epoch, lane=1)

        return take

    async def _wind_down(
        self, session: Session, history: Session, speaker: Session, intake: Intake, host: HostState
    ) -> None:
        try:
            async with asyncio.timeout(STOP_S):
                for each in (session, history):
                    each.stop_intake()
                speaker.stop_intake()
                if speaker.subscribed:
                    await host.farewell()
                await intake.drain()
        except TimeoutError:
            log.warning("stopped with readings in flight: they come again", in_flight=self.counters.in_flight)
        for each in {session, history, speaker}:
            await each.close()

    async def _when_possible(self, enter: Callable[[], Awaitable[_T]]) -> _T:
        """What `enter` returns, tried until the disk allows it. Raises _Stopped."""
        backoff = Backoff(most_s=2.0)
        while not self._stop.is_set():
            try:
                found = await enter()
            except (sqlite3.OperationalError, OSError) as error:
                if not self._held_up:
                    log.error(
                        "the state folder takes nothing: messages stay with the broker until it does",
                        state=str(self._settings.state),
                        error=str(error),
                    )
                self._held_up = (
                    f"--state {self._settings.state} takes nothing ({error}): "
                    "messages stay with the broker until it does"
                )
                self._started.set()  # as far as it goes
                with suppress(TimeoutError):
                    async with asyncio.timeout(backoff.delay_s()):
                        await self._stop.wait()
            else:
                self._held_up = ""
                return found
        raise _Stopped

    async def _measure(self, gate: StoreGate, state: StateFile) -> None:
        """Rates, and their points in the store; which also shows whether the store, and the state file, take
        anything while nothing else is to be written.
        """
        while True:
            self._meter.measure()
            await gate.answers()
            await state.look_after()
            await asyncio.sleep(MEASURE_EVERY_S)

    def _figures(self) -> list[Point]:
        """Points of the gateway's own; of dead letters when there are new ones, else now and then."""
        host, now_ms, by_reason = self._settings.host, wall_ms(), self._meter.by_reason
        points = [Point("pipeline", (host,), now_ms, self._meter.fields())]
        told_ms, told = self._letters
        if by_reason != told or now_ms >= told_ms + LETTERS_EVERY_MS:
            self._letters = now_ms, by_reason.copy()
            points += rollups.dead_letter_points(host, by_reason, now_ms)
        return points + self._hours.fold(points)

    async def _hold(self, session: Session, take: Take) -> None:
        try:
            await session.run(take)
        except ConfigError as error:
            self._ousted = error
            self.stop()

    async def _tell_address(self, url: str, key: str) -> None:
        """Leave the endpoint's address and key in the state folder, for commands on this machine."""
        while True:
            try:
                await asyncio.to_thread(leave_address, self._settings.state, url, key)
            except OSError:  # the disk is full: said elsewhere
                await asyncio.sleep(ADDRESS_EVERY_S)
            else:
                return

    def _count_rebirth(self) -> None:
        self._meter.counters.rebirth_requests += 1

    def _count_corrupt(self, readings: int) -> None:
        self._meter.counters.spooled -= readings
        self._meter.counters.corrupt += readings

    def _count_first_readings(self, count: int) -> None:
        self._meter.counters.first_readings += count

    async def _serve_metrics(self, _: Request) -> Response:
        return Response(self._meter.exposition(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def _serve_health(self, _: Request) -> Response:
        troubles = self.troubles()
        body: dict[str, object] = {"status": "ok" if not troubles else "degraded", "troubles": troubles}
        if reasons := self.reasons():
            body["reasons"] = reasons
        return Response(msgspec.json.encode(body), 503 if troubles else 200, media_type="application/json")


def _answer_mark(session: Session, node: tuple[str, str], mark: Mark) -> None:
    now_ms = wall_ms()
    payload = sparkplug.Payload(now_ms, None, marks.metrics(mark, now_ms))
    session.post(topics.sparkplug("NCMD", *node), sparkplug.encode(payload, datatypes=False))
