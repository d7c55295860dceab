"""The runtime of a platform: its resources, and its background tasks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

import structlog
from pydantic import SecretStr
from qilu_common.broker import BrokerAddress
from qilu_common.cells import Cells, load_cells
from qilu_contract.errors import StoreError
from qilu_contract.readings import MAX_TIME_MS
from qilu_contract.store import MAX_ROWS, PlatformStore
from qilu_contract.wire.clock import wall_ms
from qilu_stores import open_store
from qilu_stores.cells import CellStores
from qilu_stores.hours import Hours
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from qilu_platform.broker.authority import Authority
from qilu_platform.broker.commanding import Commander
from qilu_platform.broker.rabbitmq import Evictions
from qilu_platform.broker.rules import BrokerRules, RevocationList, ServedRules
from qilu_platform.counting.figures import Milestones, OwnFigures, pipeline_figures
from qilu_platform.counting.programme import points, programme, read_counts
from qilu_platform.database import epoch
from qilu_platform.database.faults import has_no_room, unreachable
from qilu_platform.database.locks import lock_start
from qilu_platform.database.transactions import Database, DatabaseBusy
from qilu_platform.hub import Hub
from qilu_platform.imports.jobs import count_jobs
from qilu_platform.limits import Buckets
from qilu_platform.metrics import Metrics
from qilu_platform.models.fields import Role
from qilu_platform.monitoring import alarms
from qilu_platform.monitoring.dead_letters import Gateways
from qilu_platform.monitoring.live import LiveUnits
from qilu_platform.monitoring.overview import Activity
from qilu_platform.monitoring.policies import PolicyModel
from qilu_platform.monitoring.replay import Show
from qilu_platform.monitoring.ticker import Ticker
from qilu_platform.monitoring.webhooks import Webhooks, check_targets
from qilu_platform.registry import security
from qilu_platform.registry.keys import ensure_keys
from qilu_platform.settings import Settings

log = structlog.get_logger()
_T = TypeVar("_T")

PROGRAMME_S = 1.0
PIPELINE_S = 2.0
RULES_S = 1.0
ALARMS_S = 2.0
ACTIVITY_S = 10.0
WEBHOOKS_S = 0.5
SECURITY_S = 2.0
EXPIRED_S = 600.0
ROLL_UP, ROLL_UP_S = "roll-up", 10
FAREWELL_S = 2.0
ROOM_S = 1.0
"""How often a start looks whether the registry's disk has room now."""
STEP_TIMEOUT_S = 10.0
"""A round of a background task that takes longer has failed: the store or the database hangs."""
_FORESEEN = (StoreError, SQLAlchemyError, DatabaseBusy, TimeoutError, OSError)
"""Store or database are unavailable or slow, or a disk is full: log a line without a traceback."""
GATEWAY_GONE_MS = 15_000
"""Time after which a gateway no longer counts; it writes its metrics every two seconds."""


@dataclass(frozen=True, slots=True)
class Runtime:
    settings: Settings
    database: Database
    store: PlatformStore | None
    hub: Hub
    live: LiveUnits | None
    metrics: Metrics
    buckets: Buckets
    authority: Authority
    revocation_list: RevocationList
    served_rules: ServedRules
    commanders: dict[str, Commander]
    """By broker URL; empty when the platform runs without a broker."""
    cells: Cells | None
    model: PolicyModel | None
    show: Show
    gateways: Gateways
    webhooks: Webhooks | None
    watch: security.Watch
    first_admin_key: str | None
    """An admin key that had to be made now; shown once, kept nowhere."""

    def commander(self, county: str) -> Commander | None:
        """Sends commands to the units of a county."""
        url = self.settings.broker if self.cells is None else self.cells.of(county).broker
        return None if url is None else self.commanders[url]

    def close_streams(self) -> None:
        """A server does not stop while one is open."""
        self.hub.close()
        if self.live is not None:
            self.live.close()


@asynccontextmanager
async def open_runtime(
    settings: Settings, store: PlatformStore | None, metrics: Metrics
) -> AsyncIterator[Runtime]:
    """Open the database (migrated), the store if `settings` names one and none was given, and start the
    tasks.

    Raises ConfigError for settings that cannot work.
    """
    hook_secret = settings.webhook_secret
    check_targets(settings.webhooks, None if hook_secret is None else _open(hook_secret))
    gateway_key = settings.gateway_key
    gateways = Gateways(
        settings.gateways, None if gateway_key is None else _open(gateway_key), settings.gateway_state
    )
    async with AsyncExitStack() as stack:
        password = None if settings.db_password is None else settings.db_password.get_secret_value()
        database = await _open_database(stack, settings.db_url, password)
        made = await _when_it_has_room(
            lambda: database.write(lambda connection: _begin(connection, settings))
        )
        cells = None if settings.cells is None else load_cells(settings.cells)
        token = None if settings.store_token is None else settings.store_token.get_secret_value()
        if store is None and cells is not None:
            store = await stack.enter_async_context(CellStores(cells, token))
        elif store is None and settings.store_url is not None:
            store = await stack.enter_async_context(open_store(settings.store_url, token))
        authority = await asyncio.to_thread(Authority.open, settings.ca_folder)
        hub = Hub(metrics.clients)
        commanders = {
            url: Commander(BrokerAddress.from_url(url), database, metrics, settings.port)
            for url in _brokers(settings, cells)
        }
        runtime = Runtime(
            settings,
            database,
            store,
            hub,
            None if store is None else LiveUnits(store),
            metrics,
            Buckets(settings.rate_per_s),
            authority,
            RevocationList(authority),
            ServedRules(authority),
            commanders,
            cells,
            PolicyModel(settings.model) if settings.model else None,
            Show(settings.replay_scenarios),
            gateways,
            _webhooks(settings, database),
            security.Watch(),
            made,
        )
        steps = _steps(runtime)
        tasks = [
            asyncio.create_task(_repeat(name, interval_s, step, metrics), name=f"platform {name}")
            for name, interval_s, step in steps
        ]
        tasks += [
            asyncio.create_task(commander.run(), name="platform commands")
            for commander in commanders.values()
        ]
        try:
            yield runtime
        finally:
            runtime.close_streams()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            # The counts since the last round are in the roll-ups, too.
            for name, _, step in steps:
                if name == ROLL_UP:
                    await _farewell(name, step)


def _webhooks(settings: Settings, database: Database) -> Webhooks | None:
    """None where no URL is to be notified."""
    if not settings.webhooks or settings.webhook_secret is None:
        return None
    return Webhooks(database, settings.webhooks, _open(settings.webhook_secret))


def _brokers(settings: Settings, cells: Cells | None) -> list[str]:
    """URLs, once each."""
    if cells is not None:
        return list(dict.fromkeys(cell.broker for cell in cells.cells))
    return [] if settings.broker is None else [settings.broker]


async def _open_database(stack: AsyncExitStack, url: str, password: str | None) -> Database:
    try:
        return await _when_it_has_room(lambda: stack.enter_async_context(Database(url, password)))
    except (DBAPIError, OSError) as error:
        raise unreachable(url, error) from error


async def _when_it_has_room(work: Callable[[], Awaitable[_T]]) -> _T:
    """Run `work`, retrying while the registry's disk is full; returns its result."""
    logged = False
    while True:
        try:
            return await work()
        except (DBAPIError, OSError) as error:
            if not has_no_room(error):
                raise
            if not logged:
                logged = True
                log.error(
                    "the registry's disk is full: the platform starts when there is room", error=str(error)
                )
        await asyncio.sleep(ROOM_S)


def _begin(connection: Connection, settings: Settings) -> str | None:
    lock_start(connection)
    epoch.begin(connection)
    given = {
        Role.ADMIN: settings.api_key,
        Role.INGEST: settings.ingest_key,
        Role.FLEET: settings.fleet_key,
        Role.VIEWER: settings.viewer_key,
    }
    return ensure_keys(connection, {role: _open(key) for role, key in given.items() if key is not None})


def _open(secret: SecretStr) -> str:
    return secret.get_secret_value()


Step = Callable[[], Awaitable[None]]
Steps = list[tuple[str, float, Step]]
"""Background tasks: name, seconds between rounds, a round."""


def _steps(runtime: Runtime) -> Steps:
    ticker = Ticker()

    async def show_programme() -> None:
        counts = await runtime.database.read(read_counts)
        for (scope, _code, name), value in counts.items():
            if scope == "province":
                runtime.metrics.programme.labels(name).set(value)
        runtime.hub.publish("programme", programme(counts))
        ticker.hear_counts(counts)
        runtime.hub.publish("ticker", ticker.value())

    found: Steps = [("programme", PROGRAMME_S, show_programme)]
    if runtime.settings.broker_rules is not None:
        rules = BrokerRules(runtime.settings.broker_rules, runtime.authority)
        found.append(("broker rules", RULES_S, lambda: rules.step(runtime.database)))
    if addresses := runtime.settings.rabbitmq:
        password = runtime.settings.rabbitmq_password
        evictions = Evictions(addresses, None if password is None else _open(password), runtime.authority)
        found.append(("evictions", RULES_S, lambda: evictions.step(runtime.database)))
    found.append(("security", SECURITY_S, lambda: runtime.watch.step(runtime.database)))
    found.append(("expired", EXPIRED_S, lambda: runtime.database.write(security.record_expired)))
    if runtime.webhooks is not None:
        found.append(("webhooks", WEBHOOKS_S, runtime.webhooks.step))
    if runtime.store is not None:
        found += _steps_with_store(runtime, runtime.store, ticker)
    return found


def _steps_with_store(runtime: Runtime, store: PlatformStore, ticker: Ticker) -> Steps:
    async def show_pipeline() -> None:
        now_ms = wall_ms()
        writing = await store.count_by(
            "pipeline", "gateway", now_ms - GATEWAY_GONE_MS, now_ms + GATEWAY_GONE_MS
        )
        # When none writes, the last one that did: the page says how old its figures are.
        gateways: list[dict[str, str]] = [{"gateway": name} for name in sorted(writing)] or [{}]
        rows = [await store.latest("pipeline", gateway) for gateway in gateways]
        if (value := pipeline_figures([row for row in rows if row is not None])) is not None:
            runtime.hub.publish("pipeline", value)

    own, milestones, hours = OwnFigures(runtime.metrics), Milestones(), Hours(shared=True)
    situation = security.Situation()

    async def roll_up() -> None:
        # Replicas write the same point at the same time, so one of them is enough and more do no harm.
        ts_ms = wall_ms() // (ROLL_UP_S * 1000) * (ROLL_UP_S * 1000)
        begun = time.perf_counter()
        counts = await runtime.database.read(read_counts)
        took_s = time.perf_counter() - begun
        figures = own.point(ts_ms, took_s, await runtime.database.read(count_jobs))
        seen = await runtime.database.read(
            lambda connection: situation.points(connection, ts_ms, ts_ms - ROLL_UP_S * 1000)
        )
        fine = [*points(counts, ts_ms), figures, *seen]
        passed = milestones.points(counts, ts_ms)
        ticker.hear_milestones(passed)
        await store.write([*fine, *hours.fold(fine), *passed])

    activity = Activity(store)

    async def show_alarms() -> None:
        points = await store.newest("alarm", {"open": 1}, 0, MAX_TIME_MS, MAX_ROWS)
        ticker.hear_alarms(points)
        if runtime.webhooks is not None:
            await runtime.webhooks.hear(points, store)
        runtime.hub.publish("alarms", alarms.counts(points))

    async def show_activity() -> None:
        # Hundreds of rows: only for somebody who looks.
        if runtime.hub.followed and (value := await activity.value()) is not None:
            runtime.hub.publish("activity", value)

    return [
        ("pipeline", PIPELINE_S, show_pipeline),
        (ROLL_UP, ROLL_UP_S, roll_up),
        ("alarms", ALARMS_S, show_alarms),
        ("activity", ACTIVITY_S, show_activity),
    ]


async def _repeat(name: str, interval_s: float, step: Step, metrics: Metrics) -> None:
    """Run `step` repeatedly, until cancelled. Failures are counted, logged when they begin and end, and harm
    nothing else."""
    well = True
    while True:
        try:
            async with asyncio.timeout(STEP_TIMEOUT_S):
                await step()
        except Exception as error:
            metrics.failures.labels(name).inc()
            if well:
                foreseen = isinstance(error, _FORESEEN)
                log.warning("task fails, will try again", task=name, error=repr(error), exc_info=not foreseen)
            well = False
        else:
            if not well:
                log.info("task works again", task=name)
            well = True
        await asyncio.sleep(interval_s)


async def _farewell(name: str, step: Step) -> None:
    try:
        async with asyncio.timeout(FAREWELL_S):
            await step()
    except Exception as error:
        log.warning(
            "task fails at the end", task=name, error=repr(error), exc_info=not isinstance(error, _FORESEEN)
        )
