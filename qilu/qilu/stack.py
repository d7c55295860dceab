"""The embedded stack: broker, gateway, store, platform and simulated equipment on one machine, by one
command.

Gateway and platform share this process (the embedded DuckDB has one owner) and speak HTTP to each other all
the same; the broker and the equipment are child processes, and so is the platform of a stack in which many
units join at once.
"""

from __future__ import annotations

import asyncio
import shlex
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import structlog
from pydantic import SecretStr
from qilu_common.addresses import BROKER_DEVICES_PORT, BROKER_TLS_PORT
from qilu_common.influx_address import without_password
from qilu_common.private_files import write_private
from qilu_common.secrets import secret
from qilu_contract.errors import QiluError
from qilu_contract.store import Store
from qilu_gateway.service import GatewayService
from qilu_gateway.settings import Settings as GatewaySettings
from qilu_platform.broker.authority import Authority
from qilu_platform.broker.rules import write_rules
from qilu_platform.client import Programme
from qilu_platform.service import PlatformService
from qilu_platform.settings import Settings as PlatformSettings
from qilu_stores import open_store
from rich.console import Console

from qilu.brokers import BrokerKind, EmbeddedBroker, NodeListener, choose_broker, free_port, sole_broker
from qilu.children import end
from qilu.keyring import Keyring
from qilu.platform_process import PlatformProcess
from qilu.process import stop_signal
from qilu.progress import SPEED_OVER, slower
from qilu.report import Report
from qilu.settling import read_run, settle
from qilu.settling import report as count_report
from qilu.stack_child import STOP_CHILD_S, StackChild
from qilu.stack_config import StackConfig, make_state, mqtts_address, sole_stack
from qilu.status import Status, StatusLine
from qilu.store_door import StoreDoor

log = structlog.get_logger()

LOOPBACK = "127.0.0.1"
BULK_BATCH = 15_000
"""Points written together: the most that MQTT's receive window allows."""
SUBSCRIBE_S = 10.0
"""For the gateway's session at a broker that answers; a stack at somebody else's broker may have to wait for
it."""


class Stack:
    """`async with` brings everything up, in order; leaving it stops everything, in the opposite order: within
    5 s, unless Mosquitto has a long queue to write."""

    def __init__(self, config: StackConfig, console: Console) -> None:
        self._config = config
        self.console = console
        self._stack = AsyncExitStack()
        self.keyring = Keyring(config.state / "keys")
        self.platform: PlatformService | PlatformProcess
        self.gateway: GatewayService
        self.store: Store
        self.child: StackChild
        self.broker: EmbeddedBroker | None = None
        """Set unless an external broker is used."""
        self._http: httpx2.AsyncClient
        self._moved: list[str] = []
        self._ports: set[int] = set()
        """Notes on ports that were in use, and their replacements."""
        self._metrics_port = self._port(config.metrics_port, "metrics")
        self._batch_age_s = 0.2
        self._speeds: deque[float] = deque(maxlen=SPEED_OVER)  # of the run, a second apart
        self._store_trouble = ""

    async def __aenter__(self) -> Stack:
        async with self._stack as stack:
            await self._start(stack)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._stack.aclose()

    @property
    def platform_pid(self) -> int | None:
        """Process id of the platform, if it has a separate process."""
        return self.platform.pid if isinstance(self.platform, PlatformProcess) else None

    @property
    def broker_pid(self) -> int | None:
        """Process id of our broker."""
        return None if self.broker is None else self.broker.pid

    def _port(self, wanted: int, what: str) -> int:
        port = free_port(wanted, self._ports)
        self._ports.add(port)
        if wanted not in (0, port):
            self._moved.append(f"port {wanted} was taken, using {port} for the {what}")
        return port

    async def _start(self, stack: AsyncExitStack) -> None:
        config, state = self._config, self._config.state
        make_state(state, config.child.name)
        stack.enter_context(sole_stack(state))
        self.keyring.make()
        authority = Authority.open(state / "ca")
        lock = await stack.enter_async_context(sole_broker(state / "broker"))
        nodes = self._node_listener()
        broker_url, broker_note = await self._start_broker(stack, authority, nodes, lock)
        store_url = config.store or f"duckdb:///{state.absolute()}/readings.duckdb"
        self.store = await stack.enter_async_context(open_store(store_url, secret("QILU_INFLUX_TOKEN")))

        self.platform = await self._start_platform(stack, self._platform_settings(broker_url, nodes))
        if self.broker is not None and isinstance(self.platform, PlatformService):
            self.broker.refused = self.platform.refused_certificates
        self._http = await stack.enter_async_context(
            httpx2.AsyncClient(base_url=self.platform.url, timeout=10, trust_env=False)
        )
        gateway = GatewayService(
            self._gateway_settings(broker_url), store=self.store, api_key=self.keyring.key("ingest")
        )
        self.gateway = await stack.enter_async_context(gateway)
        await self._gateway_subscribed()
        self._write_env(broker_url)
        self._tell(broker_note, store_url, await self._console_link())
        user, _ = self._mqtt_login("devices")
        child = StackChild(config.child, state, self.keyring, user, broker_url, self.platform.url)
        self.child = await stack.enter_async_context(child)

    def _platform_settings(self, broker_url: str, nodes: NodeListener) -> PlatformSettings:
        config, state = self._config, self._config.state
        ours = self.broker is not None and self.broker.nodes is not None
        tls = self.broker is None or ours
        return PlatformSettings(
            broker=_with_login(broker_url, *self._mqtt_login("platform")),
            db_url=config.db or f"sqlite:///{state}/registry.sqlite",
            port=self._port(config.port, "platform"),
            ca=state / "ca",
            broker_rules=nodes.rules,
            broker_for_nodes=f"{nodes.names()[0]}:{nodes.port}" if tls else None,
            broker_for_devices=f"{nodes.names()[0]}:{nodes.devices_port}" if ours else None,
            api_key=SecretStr(secret("QILU_API_KEY") or self.keyring.key("admin")),
            ingest_key=SecretStr(self.keyring.key("ingest")),
            fleet_key=SecretStr(self.keyring.key("fleet")),
            viewer_key=SecretStr(self.keyring.key("viewer")),
            assumptions=Path(str(files("qilu_programme").joinpath("data", "figures.csv"))),
            model=(sys.executable, "-m", "qilu_programme.policy"),
            gateway_state=state / "gateway",
            replay_scenarios=config.scenarios,
        )

    def _gateway_settings(self, broker_url: str) -> GatewaySettings:
        settings = GatewaySettings(
            broker=_with_login(broker_url, *self._mqtt_login("gateway")),
            platform=self.platform.url,
            state=self._config.state / "gateway",
            http_port=self._metrics_port,
            batch_age_s=self._batch_age_s,
        )
        return msgspec.structs.replace(settings, batch_size=BULK_BATCH) if self._config.bulk else settings

    async def _start_platform(
        self, stack: AsyncExitStack, settings: PlatformSettings
    ) -> PlatformService | PlatformProcess:
        if not self._config.bulk:
            return await stack.enter_async_context(PlatformService(settings, self.store))
        door = await stack.enter_async_context(StoreDoor(self.store))
        log_file = self._config.state / "log" / "platform.log"
        return await stack.enter_async_context(PlatformProcess(settings, door, log_file))

    async def _gateway_subscribed(self) -> None:
        """Wait, within bounds, until the gateway has its session at the broker: what comes before its first
        one goes to nobody."""
        with suppress(TimeoutError):
            async with asyncio.timeout(SUBSCRIBE_S):
                while {"starting", "broker"} & set(self.gateway.troubles()):
                    await asyncio.sleep(0.02)

    def _node_listener(self) -> NodeListener:
        host, port = mqtts_address(self._config.mqtts)
        devices_port = port + BROKER_DEVICES_PORT - BROKER_TLS_PORT
        if host == LOOPBACK:
            port = self._port(port, "edge nodes")
            devices_port = self._port(devices_port, "devices with a password")
        return NodeListener(host, port, self._config.state / "broker" / "rules", devices_port)

    async def _start_broker(
        self, stack: AsyncExitStack, authority: Authority, nodes: NodeListener, lock: int
    ) -> tuple[str, str]:
        config = self._config
        if "://" in config.broker:
            return config.broker, "as given"
        kind: BrokerKind
        kind, why = choose_broker(config.broker)
        home, log = config.state / "broker", config.state / "log" / "broker.log"
        if kind == "mosquitto":
            authority.ensure_server(home, nodes.names())
            if not (nodes.rules / "crl.pem").exists():  # the platform brings them up to date when it runs
                write_rules(nodes.rules, authority, [], [])
        tls = nodes if kind == "mosquitto" else None
        port = self._port(config.mqtt_port, "broker")
        broker = EmbeddedBroker(kind, port, home, self.keyring, log, tls, (lock,))
        broker.tell = self._note
        self.broker = await stack.enter_async_context(broker)
        if tls is None:
            # It hands over some hundred messages and then waits for their acknowledgements: a batch that
            # waits for more waits for nothing.
            self._batch_age_s = 0.01
            return broker.url, (
                f"built-in (iotcore): {why}; passwords on loopback and no topic rules: "
                "the gateway takes a unit only under its own enterprise's name"
            )
        return broker.url, (
            f"Mosquitto: {why}; passwords on loopback, client certificates on {tls.host}:{tls.port}, "
            f"devices' passwords on {tls.host}:{tls.devices_port}, "
            "topic rules for each"
        )

    def _mqtt_login(self, user: str) -> tuple[str | None, str | None]:
        """Log-in of a user at our broker; that of an external broker is in its URL or the environment."""
        if "://" in self._config.broker:
            return None, None
        return user, self.keyring.password(user)

    def _write_env(self, broker_url: str) -> None:
        """Write variables for a shell that uses this stack: names of secret files, never the secrets."""
        lines = {
            "QILU_PLATFORM": self.platform.url,
            "QILU_BROKER": shlex.quote(broker_url),
            "QILU_API_KEY": _content_of(self.keyring.key_file("admin")),
        }
        if "://" not in self._config.broker:
            lines["QILU_MQTT_USER"] = "operator"
            lines["QILU_MQTT_PASSWORD"] = _content_of(self.keyring.password_file("operator"))
        text = "".join(f"export {name}={value}\n" for name, value in lines.items())
        write_private(self._config.state / "env", text)

    async def _console_link(self) -> str:
        """A one-time link to the console, which signs in its first visitor."""
        admin_key = secret("QILU_API_KEY") or self.keyring.key("admin")
        headers = {"Authorization": f"Bearer {admin_key}"}
        answer = await self._http.post("/v1/session/links", headers=headers)
        answer.raise_for_status()
        return f"{self.platform.url}/#/enter/{answer.json()['link']}"

    def _tell(self, broker_note: str, store_url: str, console: str) -> None:
        state = self._config.state
        lines = [
            f"[bold]Clouds in Qilu[/] is up: [bold cyan]{self.platform.url}[/]  "
            "(live map; Ctrl-C stops everything)",
            f"  sign in  [cyan]{console}[/]   (once, within half an hour)",
            f"  broker   {broker_note}",
            f"  store    {without_password(store_url)}",
            f"  metrics  http://127.0.0.1:{self._metrics_port}/metrics, {self.platform.url}/metrics",
            f"  by hand  . {shlex.quote(f'{state}/env')}   "
            "(addresses and keys for curl, qilu publish, mosquitto_pub)",
            f"  logs     {state}/log/",
        ]
        if self._moved:
            lines.append(f"  ports    {'; '.join(self._moved)}")
        for line in lines:
            self.console.print(line, highlight=False, soft_wrap=True)

    def _note(self, sentence: str) -> None:
        self.console.print(sentence, highlight=False, markup=False, soft_wrap=True)

    def broken(self, part: str, error: BaseException | None) -> QiluError:
        """Error for a part that has ended although it must keep running."""
        if isinstance(error, QiluError):
            return error
        log.error("a part ended by itself", part=part, exc_info=error)
        why = f" ({type(error).__name__}: {error})" if error is not None else ""
        return QiluError(f"The {part} ended by itself{why}: {self._config.state}/log/stack.log says more.")

    async def show(self, line: StatusLine) -> None:
        """Draw the moment's status."""
        reason = self.gateway.store_trouble
        if reason and reason != self._store_trouble:
            self.console.print(
                f"The store takes nothing, readings wait: {reason}", soft_wrap=True, markup=False
            )
        elif self._store_trouble and not reason:
            self.console.print("The store takes readings again.")
        self._store_trouble = reason
        try:
            line.show(await self.status())
        except httpx2.HTTPError as error:
            self.console.log(f"the platform does not answer: {error}")

    async def status(self) -> Status:
        """The moment's status line: counts by the platform, rates by the gateway."""
        counts = await self._programme()
        counters, rates = self.gateway.counters, self.gateway.rates
        missing = [name for name in self.gateway.troubles() if name != "stopping"]
        return Status(
            registered=counts.registered["units"],
            on_cloud=counts.onboarded("units_on_cloud"),
            active=counts.active,
            accepted_per_s=rates.accepted_per_s,
            stored=counters.stored,
            dead_lettered=counters.dead_lettered,
            lag_ms=rates.lag_ms,
            trouble=f"waiting for: {', '.join(missing)}" if missing else self._slow(),
        )

    def _slow(self) -> str:
        """That the equipment's time passes slower than wanted, since the gateway takes no more."""
        if self.gateway.run_speed or self._speeds:  # else it has not begun
            self._speeds.append(self.gateway.run_speed)
        if len(self._speeds) < SPEED_OVER or self.child.process.returncode is not None:
            return ""
        note = slower(sum(self._speeds) / SPEED_OVER, self._config.child.speed)
        builtin = self.broker is not None and self.broker.kind == "builtin"
        return f"{note}: install Mosquitto for more" if note and builtin else note

    async def _programme(self) -> Programme:
        answer = await self._http.get("/v1/programme")
        answer.raise_for_status()
        return msgspec.json.decode(answer.content, type=Programme)

    async def finish(self, started: float, hurry: asyncio.Event) -> Report:
        """After the equipment has ended: wait until what is in flight has arrived and is counted (no longer
        once `hurry` is set), then count what is there."""
        run = read_run(self._config.state / "devices" / "run.json")
        with StatusLine(self.console) as line:
            absent = await settle(run, self.gateway, self.store, hurry, lambda: self.show(line))
        counts = await self._programme()
        return await count_report(run, self.gateway, self.store, counts, absent, time.monotonic() - started)


def _content_of(file: Path) -> str:
    """A shell expression for the content of a file."""
    return f'"$(cat {shlex.quote(str(file.resolve()))})"'


def _with_login(url: str, user: str | None, password: str | None) -> str:
    return url if user is None else url.replace("mqtt://", f"mqtt://{user}:{password}@", 1)


async def attend(
    stack: Stack,
    stopping: asyncio.Event,
    each: Callable[[], Awaitable[None]] | None = None,
    child: bool = True,
) -> None:
    """Wait until a stop is requested, or (with `child`) until the child has ended. `each` is awaited every
    second. Raises QiluError with the reason when another part ends by itself."""
    stop = asyncio.create_task(stopping.wait(), name="stop")
    parts = [
        asyncio.create_task(stack.gateway.wait(), name="gateway"),
        asyncio.create_task(stack.platform.wait(), name="platform"),
    ]
    if stack.broker is not None:
        parts.append(asyncio.create_task(stack.broker.wait(), name="broker"))
    waiting: list[asyncio.Task[Any]] = [stop, *parts]
    if child:
        waiting.append(asyncio.create_task(stack.child.process.wait(), name="child"))
    try:
        while not any(task.done() for task in waiting):
            if each is not None:
                await each()
            await asyncio.wait(waiting, timeout=1, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
    for part in parts:
        if part.done() and not part.cancelled():
            raise stack.broken(part.get_name(), part.exception())


async def run_stack(config: StackConfig, console: Console) -> Report:
    """Run until the equipment's time is over (`--for`), a signal arrives, or the equipment fails; returns the
    report. Raises QiluError when there can be no report."""
    started, stopping = time.monotonic(), stop_signal()
    async with Stack(config, console) as stack:
        with StatusLine(console) as line:
            await attend(stack, stopping, lambda: stack.show(line))
        stopped = stopping.is_set()
        if stopped:
            console.print("Stopping: what is on its way is stored first (Ctrl-C again: no longer) …")
            stopping.clear()
            await end(stack.child.process, STOP_CHILD_S)
        report = await stack.finish(started, stopping)
        return report if stopped else replace(report, failure=stack.child.failure())
