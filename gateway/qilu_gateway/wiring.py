"""Assembles the parts of the gateway. The path of a message is described in docs/architecture.md."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any, NamedTuple

import structlog
from qilu_common.broker import BrokerAddress
from qilu_common.http_server import HttpServer
from qilu_common.secrets import secret
from qilu_contract.store import Store
from qilu_stores import open_store
from starlette.applications import Starlette

from qilu_gateway.admit.admission import Admission
from qilu_gateway.admit.platform_api import PlatformApi
from qilu_gateway.admit.units import Units
from qilu_gateway.connect import host
from qilu_gateway.connect.connections import Connections
from qilu_gateway.connect.host import HostState
from qilu_gateway.connect.neighbours import Neighbours
from qilu_gateway.endpoint import KEY, MAX_CONNECTIONS
from qilu_gateway.health import Figures, Health, Parts
from qilu_gateway.metrics import Meter
from qilu_gateway.publish.kafka import CONFIG, KafkaAddress, KafkaTopic
from qilu_gateway.publish.publisher import Publisher
from qilu_gateway.read import births, births_upgrade, receipts, run_clock
from qilu_gateway.read.batching import Batcher
from qilu_gateway.read.births import Births
from qilu_gateway.read.columnar import Reader
from qilu_gateway.read.control import Control
from qilu_gateway.read.decoding import Decoder
from qilu_gateway.read.intake import Intake, Item
from qilu_gateway.read.plain import PlainReader
from qilu_gateway.read.rebirths import Rebirths
from qilu_gateway.read.receipts import Receipts
from qilu_gateway.read.silence import Silence
from qilu_gateway.rollups import rollups
from qilu_gateway.rollups.rollups import Rollups
from qilu_gateway.settings import Settings
from qilu_gateway.settle import dead_letters, outbox
from qilu_gateway.settle.accounts import Accounts
from qilu_gateway.settle.acknowledging import Acknowledging
from qilu_gateway.settle.dead_letters import Bounds
from qilu_gateway.settle.keeping import Keeping
from qilu_gateway.settle.letter_office import LetterOffice
from qilu_gateway.settle.outbox import Outbox
from qilu_gateway.settle.problems import Problems
from qilu_gateway.settle.reports import Reports
from qilu_gateway.settle.settlement import Settlement
from qilu_gateway.settle.shipper import Shipper
from qilu_gateway.statefile import StateFile
from qilu_gateway.write.spool import NEARLY_FREE, Spool
from qilu_gateway.write.store_gate import StoreGate
from qilu_gateway.write.writer import Writer

log = structlog.get_logger()

_KEPT = (births, dead_letters, outbox, receipts, rollups, run_clock, host)
STATE_SCHEMAS = tuple(part.SCHEMA for part in _KEPT)
"""Schemas of all tables in the state file."""
MEASURE_EVERY_S = 2.0


class Wired(NamedTuple):
    """The parts that the service uses, and the tasks that run until cancelled, by name."""

    connections: Connections
    intake: Intake
    host: HostState
    rollups: Rollups
    control: Control
    spool: Spool
    publisher: Publisher | None
    heard_s: Callable[[], float]
    """When an edge node was heard last (monotonic clock); 0 if none was."""
    tasks: dict[str, Coroutine[Any, Any, None]]


class _Disk(NamedTuple):
    """Resources opened once the disk allows it, and the parts that use them."""

    state: StateFile
    store: Store
    spool: Spool
    gate: StoreGate
    rollups: Rollups
    bounds: Bounds
    publisher: Publisher | None


class _Connected(NamedTuple):
    """The connections to the broker, and what is sent and heard on them besides readings."""

    connections: Connections
    host: HostState
    rebirths: Rebirths
    control: Control


async def put_together(
    stack: AsyncExitStack,
    settings: Settings,
    health: Health,
    broker: BrokerAddress,
    *,
    store: Store | None,
    api_key: str | None,
    inherited: bool,
) -> Wired:
    """Open all parts on `stack`, as soon as the disk allows it. `inherited`: see `GatewayService`. Raises
    ConfigError, health.Stopped."""
    app = health.app = Starlette(routes=health.routes())
    server = HttpServer(app, settings.http_host, settings.http_port, MAX_CONNECTIONS)
    health.server = await stack.enter_async_context(server)
    disk = await _open_disk(stack, settings, health, store)
    state, spool, gate, rolling, publisher = disk.state, disk.spool, disk.gate, disk.rollups, disk.publisher
    platform = await stack.enter_async_context(PlatformApi(settings.platform, api_key))
    meter, when_possible = health.meter, health.when_possible
    problems = Problems(platform)
    connected = await _connect(settings, health, broker, state, problems)
    connections, control = connected.connections, connected.control
    units = Units()
    admission, born = Admission(platform, units), Births(state, units)
    await when_possible(lambda: state.write(births_upgrade.upgrade))
    if inherited:
        await when_possible(lambda: state.write(births_upgrade.forget))
    intake, batcher = await _read(settings, health, connected, admission, born, state)
    meter.waiting_for_birth = lambda: intake.unborn.messages
    writer = Writer(batcher, gate, spool, state, control.clock)
    shipping = Outbox(state, platform, meter.count_first_readings)
    reports = Reports(units, born, shipping)
    silence = Silence(born.nodes, connections.hearing_since_s, connected.rebirths.ask, reports.node_died)
    settlement = Settlement(
        units,
        Keeping(state, disk.bounds, born, control, publisher),
        Accounts(meter, control.clock),
        rolling,
        reports,
        problems,
        Acknowledging(connections.by_lane, health.in_flight),
    )
    shipper = Shipper(
        spool=spool,
        gate=gate,
        state=state,
        bounds=disk.bounds,
        problems=problems,
        shipped=settlement.shipped,
        publisher=publisher,
    )
    key = secret(KEY) or secrets.token_urlsafe(32)
    app.routes.extend(LetterOffice(state, disk.bounds, intake.replay).routes(key))
    health.parts = Parts(connections, admission, state, gate, spool, publisher)
    tasks = {
        **connections.parts(intake.take, control.hear_clock),
        "released": intake.release(),
        "given-up": intake.give_up(),
        "writer": writer.run(units, settlement.settle),
        "shipper": shipper.run(),
        "admission": admission.run(),
        "barred": admission.watch(),
        "outbox": shipping.run(),
        "activity": shipping.run_activity(),
        "problems": problems.run(),
        "signals": reports.run_signals(platform),
        "rebirths": connected.rebirths.run(),
        "host-state": connected.host.run(),
        "silence": silence.run(),
        "rollups": rolling.run(),
        "http": server.wait(),
        "address": health.tell_address(server.url, key),
        "measure": _measure(meter, gate, state),
    }
    if publisher is not None:
        tasks["kafka"] = publisher.run()
    heard_s = born.nodes.last_heard_s
    return Wired(connections, intake, connected.host, rolling, control, spool, publisher, heard_s, tasks)


async def _open_disk(stack: AsyncExitStack, settings: Settings, health: Health, store: Store | None) -> _Disk:
    """Open the state directory, the store, and the parts between them."""
    meter, when_possible = health.meter, health.when_possible
    state = await when_possible(lambda: stack.enter_async_context(StateFile(settings.state, STATE_SCHEMAS)))
    if store is None:
        store = await stack.enter_async_context(open_store(settings.store, secret("QILU_INFLUX_TOKEN")))
    room = settings.spool_max_bytes, settings.spool_min_free_bytes
    spool = await when_possible(
        lambda: stack.enter_async_context(Spool(settings.state, *room, meter.count_corrupt))
    )
    meter.counters.recover(spool.readings, spool.corrupt)
    if spool.readings:
        log.info("found in the spool", readings=spool.readings)
    meter.spool = lambda: (spool.batches, spool.bytes, spool.age_s())
    figures = Figures(settings.host, meter)
    gate = StoreGate(
        store, meter.counters, figures.points, batch_size=settings.batch_size, spooling=spool.enabled
    )
    meter.batch_size = lambda: gate.batch_size
    name = f"{settings.host}@{settings.holder}" if settings.holder else settings.host
    rolling = Rollups(name, state, gate)
    await when_possible(rolling.open)
    return _Disk(state, store, spool, gate, rolling, Bounds(), await _publisher(stack, settings, health))


async def _publisher(stack: AsyncExitStack, settings: Settings, health: Health) -> Publisher | None:
    if not settings.also:
        return None
    topic = KafkaTopic(KafkaAddress.parse(settings.also), secret(CONFIG))
    # The store's spool has no more room below this: what is spooled for Kafka must not take it.
    free_bytes = NEARLY_FREE * settings.spool_min_free_bytes
    publisher = await health.when_possible(
        lambda: stack.enter_async_context(
            Publisher(settings.state, settings.also_max_bytes, free_bytes, topic)
        )
    )
    health.meter.publishing = publisher.figures
    return publisher


async def _connect(
    settings: Settings, health: Health, broker: BrokerAddress, state: StateFile, problems: Problems
) -> _Connected:
    meter, when_possible = health.meter, health.when_possible
    latest_ms = await when_possible(lambda: state.write(lambda opened: host.load(opened, settings.host)))
    health.timestamps.seen(latest_ms)
    connections = Connections(settings, broker, health.timestamps, health.stopping.set)
    speaking = HostState(
        connections.speaker,
        settings.host,
        health.troubles,
        health.timestamps,
        state,
        birth_first=settings.profile == "strict",
    )
    neighbours = Neighbours(settings.host_id, settings.partition, speaking.hear)
    meter.shared_groups = lambda: neighbours.shared_groups
    rebirths = Rebirths(
        connections.speaker.send_qos0, meter.count_rebirth, settings.reorder_timeout_s, problems.note_gap
    )
    control = Control(connections.main, meter.counters, neighbours, rebirths, connections.answer_mark)
    await when_possible(lambda: state.write(lambda opened: run_clock.load(opened, control.clock)))
    return _Connected(connections, speaking, rebirths, control)


async def _read(
    settings: Settings,
    health: Health,
    connected: _Connected,
    admission: Admission,
    born: Births,
    state: StateFile,
) -> tuple[Intake, Batcher[Item]]:
    """The stage that decodes messages, and the batcher into which it puts them."""
    connections, most = connected.connections, settings.max_payload_bytes
    batcher: Batcher[Item] = Batcher(settings.batch_size, settings.batch_age_s)
    received = Receipts()
    await health.when_possible(lambda: state.write(received.load))
    plain = PlainReader(Decoder(born, most), born, connected.control, received, health.in_flight)
    intake = Intake(
        connections.by_lane,
        admission,
        Reader(admission.units, born, most),
        plain,
        health.in_flight,
        batcher,
        connections.windows,
    )
    return intake, batcher


async def _measure(meter: Meter, gate: StoreGate, state: StateFile) -> None:
    """Measure rates and write the gateway's own points. This also shows whether the store and the state file
    take writes while there is nothing else to write.
    """
    while True:
        meter.measure()
        await gate.answers()
        await state.look_after()
        await asyncio.sleep(MEASURE_EVERY_S)
