"""A gateway that serves shards: those that it was given (`--shard 2/3`), or its share of all of them
(`--shards 8`), which changes when gateways come and go.

The platform keeps the leases. Each shard is a gateway service with its own session at the broker, state
directory and STATE, so moving it to another gateway loses and repeats nothing: the session at the broker
keeps what arrives meanwhile.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import msgspec
import structlog
from qilu_common.broker import BrokerAddress
from qilu_common.http_server import HttpServer
from qilu_common.private_files import write_private
from qilu_common.secrets import secret
from qilu_contract.errors import ConfigError
from qilu_contract.wire.partitions import Partition
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.types import Receive, Scope, Send

from qilu_gateway.admit.platform_api import PlatformApi, PlatformAway, Shares
from qilu_gateway.endpoint import MAX_CONNECTIONS
from qilu_gateway.service import GatewayService
from qilu_gateway.settings import Settings

log = structlog.get_logger()

ASK_S = 3.0
"""Interval of asking for the shards; a lease is several times as long."""
ANSWER_S = 8.0
"""A late answer is still read: without it a gateway knows neither what it was given nor what it has lost.
Together with the interval it is shorter than a lease."""
LEASE_S = 20.0
"""Longer than a lease: a shard that is still taken then belongs to a gateway that works."""
IN_USE_S = 10.0
"""Shorter than a lease."""
FAREWELL_S = 1.0
NAME_FILE = "gateway-name"
_METRIC = re.compile(rb"^(\w+)(?:\{(.*)\})? (\S+)$")


def name_of(state: Path) -> str:
    """The gateway's name, kept in its state directory. Raises ConfigError when that cannot be written."""
    file = state / NAME_FILE
    try:
        if not file.exists():
            state.mkdir(parents=True, exist_ok=True)
            write_private(file, f"gw-{secrets.token_hex(6)}\n")
        return file.read_text(encoding="ascii").strip()
    except OSError as error:
        raise ConfigError(f"--state {state} cannot be written: {error.strerror}.") from error


def _shards_in(state: Path, of: int) -> set[int]:
    """Shards that have a directory in a gateway's state directory."""
    found = (re.fullmatch(rf"shard-([0-9]+)-of-{of}", folder.name) for folder in state.iterdir())
    return {int(match[1]) for match in found if match is not None}


def _is_in_use(state: Path) -> bool:
    """Whether a state directory was written to so recently that the lease of its shard has not ended."""
    newest_s = 0.0
    for file in state.glob("*"):
        with suppress(FileNotFoundError):  # SQLite removes its journals when it likes
            newest_s = max(newest_s, file.stat().st_mtime)
    return time.time() - newest_s < IN_USE_S


class Sharing:
    """Runs a service for each shard that the platform assigns; `stop` ends it."""

    def __init__(self, settings: Settings, wanted: Sequence[int], of: int, *, fixed: bool) -> None:
        """`wanted`: the shards, of `of`, that this gateway serves (`fixed`: all of them or none) or shares.
        Raises ConfigError."""
        BrokerAddress.from_url(settings.broker)  # a mistake shows before the platform is asked
        if not fixed and settings.store.startswith("duckdb:"):
            raise ConfigError(
                "Gateways that share shards need InfluxDB: only one process can use a DuckDB file."
            )
        self._settings, self._wanted, self._of, self._fixed = settings, list(wanted), of, fixed
        self._pool = f"{settings.host_id}/{of}"
        self._name = name_of(settings.state)
        self._platform = PlatformApi(settings.platform, secret("QILU_API_KEY"))
        self._services: dict[int, GatewayService] = {}
        self._running: dict[int, asyncio.Task[None]] = {}
        self._leaving: dict[int, asyncio.Task[None]] = {}
        self._inherited = set[int]()
        """Shards whose births another gateway has received since this one served them."""
        self._stopping = asyncio.Event()
        self._left = set[int]() if fixed else _shards_in(settings.state, of) & set(wanted)
        """Shards that other gateways may serve now, with readings in the spool of this one."""
        self._emptying: dict[int, tuple[GatewayService, asyncio.Task[None]]] = {}
        self._asked_s: float | None = None
        self._unanswered = ""
        """Why the platform's answer is missing."""

    @property
    def shards(self) -> list[int]:
        """Shards that it serves or still hands over."""
        return sorted(shard for shard, running in self._running.items() if not running.done())

    def stop(self) -> None:
        self._stopping.set()

    async def run(self) -> None:
        """Serve until `stop`. Raises ConfigError when another gateway has a shard that is `fixed`."""
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._platform)
            if not self._fixed:
                routes = [
                    Route("/metrics", self._metrics),
                    Route("/healthz", self._health),
                    Mount("/shards/{shard:int}", self._endpoint_of),
                ]
                app = Starlette(routes=routes)
                settings = self._settings
                server = HttpServer(app, settings.http_host, settings.http_port, MAX_CONNECTIONS)
                await stack.enter_async_context(server)
            try:
                while not self._stopping.is_set():
                    await self._ask()
                    await self._pause(ASK_S, self._running.values())
                    if self._look_after():
                        await self._pause(ASK_S)
            finally:
                await self._stop_all()

    async def _pause(self, seconds: float, watched: Iterable[asyncio.Task[None]] = ()) -> None:
        stopped = asyncio.create_task(self._stopping.wait())
        await asyncio.wait([stopped, *watched], timeout=seconds, return_when="FIRST_COMPLETED")
        stopped.cancel()

    async def _ask(self) -> None:
        try:
            async with asyncio.timeout(ANSWER_S):
                shares = await self._platform.shards(
                    self._pool, self._name, self._wanted, self.shards, fixed=self._fixed
                )
        except (PlatformAway, TimeoutError) as error:
            if not self._unanswered and not self._fixed:
                log.warning("the platform assigns no shards", reason=str(error) or "no answer in time")
            self._unanswered = str(error) or "no answer in time"
            self._doubt_births()
            # Another gateway gets no lease meanwhile, and the broker gives a session to one gateway only.
            if self._fixed and not self._running:
                self._serve(self._wanted)
            return
        self._unanswered = ""
        if self._fixed and shares.taken:
            self._give_way(shares)
            return
        self._asked_s = None
        self._inherited |= set(shares.inherited)
        for shard in self._inherited & self._services.keys() if not self._fixed else ():
            self._services[shard].stop()  # it had lost the lease without noticing; it starts again
        self._serve([shard for shard in shares.shards if shard not in self._running])
        for shard in self.shards:
            # A spool that cannot be emptied stays with its shard.
            stays = shard in shares.shards or self._services[shard].store_trouble
            if not stays and shard not in self._leaving:
                self._leaving[shard] = asyncio.create_task(self._hand_over(shard), name=f"hand over {shard}")
        self._empty()

    def _doubt_births(self) -> None:
        """The answer that was lost may have been the one that says which shards are inherited."""
        if not self._fixed:
            idle = (shard for shard in self._wanted if shard not in self._running)
            self._inherited.update(shard for shard in idle if not _is_in_use(self._settings_of(shard).state))

    def _empty(self) -> None:
        """Ship what is left of shards that others serve, one after the other."""
        for shard in sorted(self._left - self._running.keys()):
            if not self._emptying:
                service = GatewayService(self._settings_of(shard))
                self._emptying[shard] = service, asyncio.create_task(service.empty(), name=f"left of {shard}")

    def _give_way(self, shares: Shares) -> None:
        """Wait until a lease of an earlier gateway has ended. Raises ConfigError when it was renewed."""
        now_s = asyncio.get_running_loop().time()
        if self._asked_s is None:
            self._asked_s = now_s
            log.warning("another gateway has the shard: waiting for its lease to end", shards=shares.taken)
        if self._running or now_s > self._asked_s + LEASE_S:
            part = f"{shares.taken[0]}/{self._of}"
            raise ConfigError(
                f"Another gateway has the shard {part} of the host id {self._settings.host_id!r}: "
                "run one gateway for a --shard and host id."
            )

    def _serve(self, shards: Sequence[int]) -> None:
        for shard in shards:
            if shard in self._emptying:  # served as soon as the state directory is free
                self._emptying[shard][0].stop()
                continue
            self._left.discard(shard)
            inherited = shard in self._inherited
            self._inherited.discard(shard)
            service = GatewayService(self._settings_of(shard), inherited=inherited)
            self._services[shard] = service
            self._running[shard] = asyncio.create_task(service.run(), name=f"shard {shard}")
            if not self._fixed:
                log.info("serving a shard", shard=f"{shard}/{self._of}")

    def _settings_of(self, shard: int) -> Settings:
        settings = self._settings.model_copy(update={"shard": f"{shard}/{self._of}"})
        if self._fixed:
            return settings
        state = settings.state / f"shard-{shard}-of-{self._of}"
        more = {"state": state, "http_port": 0, "http_host": "127.0.0.1", "holder": self._name}
        return settings.model_copy(update=more)

    async def _hand_over(self, shard: int) -> None:
        service, running = self._services[shard], self._running[shard]
        handing = asyncio.create_task(service.hand_over(), name=f"hand-over of {shard}")
        await asyncio.wait([handing, running], return_when="FIRST_COMPLETED")
        service.stop()
        await asyncio.wait([running])
        handing.cancel()
        (outcome,) = await asyncio.gather(handing, return_exceptions=True)
        complete = outcome is True
        if not complete:
            self._left.add(shard)
        log.info("handed a shard over", shard=f"{shard}/{self._of}", complete=complete)

    def _look_after(self) -> bool:
        """Forget shards whose service has ended; returns whether one ended with an error. Raises that, unless
        another gateway has taken the shard over and this one has others."""
        failed = False
        for shard, (_, emptied) in list(self._emptying.items()):
            if emptied.done():
                del self._emptying[shard]
                self._left.discard(shard)
                if (error := emptied.exception()) is not None:
                    log.error("what is left of a shard stays", shard=f"{shard}/{self._of}", error=str(error))
        for shard, task in list(self._running.items()):
            if not task.done():
                continue
            del self._running[shard], self._services[shard]
            self._leaving.pop(shard, None)
            error = task.exception()
            if error is not None and (self._fixed or not isinstance(error, ConfigError)):
                raise error
            if error is not None:
                failed = True
                self._inherited.add(shard)  # another gateway may have taken the session
                log.error("a shard ended", shard=f"{shard}/{self._of}", error=str(error))
            elif self._fixed:
                self._stopping.set()
        return failed

    async def _stop_all(self) -> None:
        """Hand shared shards over: other gateways take them at once. A given one is continued from here."""
        if self._fixed:
            for service in self._services.values():
                service.stop()
        else:
            for shard in self.shards:
                if shard not in self._leaving:
                    self._leaving[shard] = asyncio.create_task(self._hand_over(shard))
        while True:
            held = self.shards  # a hand-over may take longer than a lease
            with suppress(PlatformAway, TimeoutError):  # otherwise the leases end by themselves
                async with asyncio.timeout(FAREWELL_S):
                    await self._platform.shards(self._pool, self._name, [], held, fixed=self._fixed)
            if not held:
                break
            running = [self._running[shard] for shard in held]
            await asyncio.wait(running, timeout=ASK_S, return_when="FIRST_COMPLETED")
        for service, _ in self._emptying.values():
            service.stop()
        emptying = [task for _, task in self._emptying.values()]
        await asyncio.gather(*self._leaving.values(), *emptying, return_exceptions=True)
        for task in self._running.values():
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                log.error("a shard ended", error=str(error))

    async def _endpoint_of(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The endpoint of one shard, with its dead letters."""
        service = self._services.get(scope["path_params"]["shard"])
        absent = PlainTextResponse("This gateway does not serve that shard now.\n", 404)
        await ((service and service.endpoint) or absent)(scope, receive, send)

    async def _metrics(self, _: Request) -> Response:
        """The metrics of all shards, each with its label."""
        found: dict[bytes, None] = {}
        for shard, service in sorted(self._services.items()):
            label = b'shard="%d"' % shard
            for line in service.metrics().splitlines():
                match = _METRIC.match(line)
                if match is not None:
                    line = b"%b{%b} %b" % (match[1], b",".join(filter(None, (match[2], label))), match[3])
                found[line] = None
        return Response(b"\n".join([*found, b""]), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def _health(self, _: Request) -> Response:
        troubles = {f"{shard}/{self._of}": service.troubles() for shard, service in self._services.items()}
        well = not any(troubles.values()) and (bool(troubles) or not self._unanswered)
        body = {
            "status": "ok" if well else "degraded",
            "gateway": self._name,
            "shards": troubles,
            "platform": self._unanswered or "ok",
        }
        return Response(msgspec.json.encode(body), 200 if well else 503, media_type="application/json")


def of_partition(settings: Settings) -> Sharing:
    """A gateway with the one shard that its settings name. Raises ConfigError."""
    part: Partition = settings.partition
    return Sharing(settings, [part.index], part.count, fixed=True)
