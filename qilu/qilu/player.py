"""Plays the programme into a platform and a broker: each month's registrations by the API, its equipment by
MQTT, until the platform's counts are the model's; then the next month.

Everything is sent with an id (or a unit and a time) that a repetition shares, so an interrupted month is
played again from its beginning, and nothing counts twice. The run's record holds the finished months.
"""

from __future__ import annotations

import asyncio
import resource
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self, TypeVar

from qilu_common.broker import BrokerAddress
from qilu_contract.errors import ConfigError, QiluError
from qilu_devices.run.clock import Announcer
from qilu_programme.months import LABELS, MONTHS

from qilu.month_fleet import Block
from qilu.player_platform import Platform, Target
from qilu.replay import Month, Replay
from qilu.replay_counts import Counts, differences
from qilu.run_record import MonthRecord, RunRecord
from qilu.uplink import Uplink

WINDOW_UNITS = 75_000
"""Maximum number of published units that are not counted yet: enough to keep the gateway busy, and far below
the queue of any broker."""
STUCK_S = 60.0
"""Time without progress of the counts after which the month's equipment is published again, once."""
POLL_MIN_S, POLL_MAX_S = 0.02, 0.1
WISHES_S = 0.5
"""How often the player looks whether viewers want it to pause or to resume."""
_T = TypeVar("_T")
Done = Callable[[Month, int, int], None]
"""Called with the month, and the numbers of the run's units that are published and counted."""
State = Literal["playing", "paused", "stopped", "over"]


class Player:
    """Plays a replay from the position of its record. `paused` is called when it pauses or resumes."""

    def __init__(
        self, replay: Replay, record: RunRecord, target: Target, folder: Path, speed: float | None, done: Done
    ) -> None:
        self._replay, self._record, self._folder, self._speed = replay, record, folder, speed
        self._platform = Platform(target)
        self._uplink = Uplink(target.broker)
        self._announcer = Announcer(
            BrokerAddress.from_url(target.broker),
            f"qilu-programme-clock-{secrets.token_hex(4)}",
            lambda: self._speed or 0.0,
        )
        self._done = done
        self._seconds_before = record.seconds
        self._cpu_before = record.cpu_s
        self._began_s = time.monotonic()
        self._published = 0
        self._counted = 0
        self._running = asyncio.Event()
        self._running.set()
        self.paused: Callable[[bool], None] = lambda _: None
        self._wishes = asyncio.Lock()

    async def play(self, until: int, stop: asyncio.Event) -> None:
        """Play months up to and including number `until`, or until `stop`. Raises QiluError when a service
        stays unavailable or counts differ from the model."""
        await self._tell("playing")
        announcing = asyncio.create_task(self._announcer.run(), name="programme clock")
        following = asyncio.create_task(self._follow(), name="wishes")
        playing = asyncio.create_task(self._play(until), name="programme")
        stopping = asyncio.create_task(stop.wait(), name="stop")
        state: State = "stopped"
        try:
            await asyncio.wait((playing, stopping), return_when=asyncio.FIRST_COMPLETED)
            if playing.done():
                playing.result()
                state = "over"
        finally:
            self._announcer.stop()
            for task in (following, playing, stopping):
                task.cancel()
            await asyncio.wait((announcing, following, playing, stopping), timeout=5.0)
            await self._tell(state)
            announcing.cancel()
            await self._uplink.__aexit__(None, None, None)
            await self._platform.close()

    async def toggle(self) -> None:
        """Pause or resume, as a viewer may: the platform is informed, so that all viewers see it."""
        async with self._wishes:
            paused = self._running.is_set()
            await self._pause(paused)
            await self._platform.ask_pause(paused)

    async def _follow(self) -> None:
        while True:
            async with self._wishes:
                wanted = await self._platform.wishes() or {}
                if (paused := wanted.get("paused")) is not None and paused == self._running.is_set():
                    await self._pause(paused)
                if (speed := wanted.get("speed")) is not None and (speed or None) != self._speed:
                    self._speed = speed or None
                    await self._tell(self._state())
            await asyncio.sleep(WISHES_S)

    async def _pause(self, paused: bool) -> None:
        (self._running.clear if paused else self._running.set)()
        self.paused(paused)
        await self._tell(self._state())

    def _state(self) -> State:
        return "playing" if self._running.is_set() else "paused"

    async def _tell(self, state: State) -> None:
        await self._platform.tell(self._standing(state))

    async def _play(self, until: int) -> None:
        first = len(self._record.months)
        for month in self._replay.months(first):
            if month.month > until:
                return
            if month.month == first:
                await self._check_empty(month)
            await self._running.wait()
            began_s = time.monotonic()
            self._announcer.made(month.start_ms)
            self._published = self._counted = month.expected["units_on_cloud"] - month.fleet.units
            with self._stage("registering"):
                await self._register_enterprises(month)
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._register_others(month), name="registering")
                    group.create_task(self._speak(month), name="speaking")
            except* QiluError as errors:
                raise errors.exceptions[0] from None
            with self._stage("settling"):
                counts = await self._settle(month)
            self._keep(month, counts)
            await self._tell(self._state())
            self._done(month, self._published, self._counted)
            with self._stage("pacing"):
                await self._pace(began_s, (month.end_ms - month.start_ms) / 1000)

    async def _pace(self, began_s: float, simulated_s: float) -> None:
        """Wait until the month that began then has taken its time, at the speed that is wanted meanwhile."""
        while (
            self._speed is not None and (left_s := began_s + simulated_s / self._speed - time.monotonic()) > 0
        ):
            await asyncio.sleep(min(left_s, WISHES_S))

    async def _check_empty(self, month: Month) -> None:
        """Raises ConfigError when the platform holds more than this run can have brought."""
        found = await self._platform.counts()
        for name in ("enterprises_registered", "units_registered", "providers", "centres", "applications"):
            if found[name] > month.expected[name]:
                raise ConfigError(
                    f"The platform counts {found[name]:,} {name.replace('_', ' ')}, more than this run has "
                    f"brought by {month.label}: play into an empty platform, or continue the run (--state) "
                    "that filled it."
                )

    async def _register_enterprises(self, month: Month) -> None:
        """Register enterprises, before their units."""
        if lines := month.enterprises:
            await self._platform.load("enterprises", _ENTERPRISE, _csv(lines, _ENTERPRISE))

    async def _register_others(self, month: Month) -> None:
        platform = self._platform
        await platform.bulk("providers", month.providers)
        for centre in month.centres:
            await platform.create("centres", centre)
        await platform.bulk("contracts", month.contracts)
        await platform.end(month.ended)
        await platform.bulk("recognitions", month.recognitions)
        await platform.bulk("disbursements", month.disbursements)

    async def _speak(self, month: Month) -> None:
        """Register the month's equipment and publish its readings, block by block. While one block is
        published, the next is registered, and the one after that computed."""
        async with aclosing(ahead(self._registered(month))) as blocks:
            while True:
                with self._stage("computing and registering units"):
                    block = await anext(blocks, None)
                if block is None:
                    return
                await self._running.wait()
                with self._stage("waiting for the gateway"):
                    await self._hold(month, len(block.topics))
                with self._stage("publishing"):
                    await self._uplink.publish(block.topics, block.payloads)
                self._published += len(block.topics)
                self._done(month, self._published, self._counted)

    async def _registered(self, month: Month) -> AsyncGenerator[_Spoken, None]:
        async with aclosing(ahead(self._computed(month))) as blocks:
            async for block in blocks:
                await self._platform.load("units", _UNIT, block.lines)
                yield block

    async def _computed(self, month: Month) -> AsyncGenerator[_Spoken, None]:
        for block in month.fleet.blocks():
            await self._running.wait()
            yield await asyncio.to_thread(_Spoken.of, block, self._record.seed)

    async def _hold(self, month: Month, more: int) -> None:
        """Wait until the number of units in flight is within the limit."""
        seen, moved_s = -1, time.monotonic()
        while self._published + more - self._counted > max(WINDOW_UNITS, more):
            self._counted = (await self._platform.counts())["units_on_cloud"]
            now_s = time.monotonic()
            if self._counted != seen:
                seen, moved_s = self._counted, now_s
            elif now_s - moved_s > 2 * STUCK_S:
                return  # missing units are checked at the month's end
            self._done(month, self._published, self._counted)
            await asyncio.sleep(POLL_MAX_S)

    async def _settle(self, month: Month) -> Counts:
        """Wait until every count equals the model's. Messages that a broker lost are published once more."""
        for again in (False, True):
            if again:
                await self._speak(month)
            found: Counts = {}
            moved_s, delay_s = time.monotonic(), POLL_MIN_S
            while time.monotonic() - moved_s < STUCK_S:
                before, found = found, await self._platform.counts()
                wrong = differences(month.expected, found)
                if not wrong:
                    self._counted = found["units_on_cloud"]
                    return found
                if found != before:
                    moved_s = time.monotonic()
                    self._counted = found["units_on_cloud"]
                    self._done(month, self._published, self._counted)
                await asyncio.sleep(delay_s)
                delay_s = min(1.5 * delay_s, POLL_MAX_S)
        more = f", and {len(wrong) - 3} counts more" if len(wrong) > 3 else ""
        raise QiluError(
            f"{month.label}: the counts differ from the model: {'; '.join(wrong[:3])}{more}. Look at the "
            "gateway's dead letters and log; the same command plays the month again."
        )

    def _standing(self, state: State) -> dict[str, Any]:
        record = self._record
        months = record.months
        return {
            "scenario": record.scenario,
            "scale": record.scale,
            "month": months[-1].month if months else LABELS[0],
            "done": LABELS.index(months[-1].month) + 1 if months else 0,
            "months": MONTHS,
            "speed": self._speed,
            "state": state,
        }

    def _keep(self, month: Month, counts: Counts) -> None:
        record = self._record
        record.seconds = round(self._seconds_before + time.monotonic() - self._began_s, 3)
        record.cpu_s = round(self._cpu_before + time.process_time(), 3)
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        record.peak_rss_mb = max(record.peak_rss_mb, peak_mb)
        record.months.append(MonthRecord(month.label, counts, record.seconds))
        record.save(self._folder)

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        began_s = time.monotonic()
        try:
            yield
        finally:
            stages = self._record.stages
            stages[name] = round(stages.get(name, 0.0) + time.monotonic() - began_s, 3)


_ENTERPRISE = ("id", "name", "county", "industry")
_UNIT = ("id", "class", "enterprise")


def _csv(lines: Sequence[dict[str, Any]], columns: Sequence[str]) -> bytes:
    def cell(value: str) -> str:
        return f'"{value}"' if "," in value else value

    return "".join(",".join(cell(line[name]) for name in columns) + "\n" for line in lines).encode()


class _Spoken(NamedTuple):
    """A block in the form in which registry and gateway receive it."""

    lines: bytes
    topics: list[str]
    payloads: list[bytes]

    @classmethod
    def of(cls, block: Block, seed: int) -> Self:
        return cls(block.lines(), block.topics(), block.payloads(seed))


async def ahead(items: AsyncGenerator[_T, None]) -> AsyncGenerator[_T, None]:
    """The items of an async generator, prefetching one: the next begins as soon as one is passed on."""
    async with aclosing(items):
        coming = asyncio.create_task(_next_of(items))
        try:
            while (item := await coming) is not None:
                coming = asyncio.create_task(_next_of(items))
                yield item
        finally:
            coming.cancel()
            await asyncio.gather(coming, return_exceptions=True)


async def _next_of(items: AsyncGenerator[_T, None]) -> _T | None:
    return await anext(items, None)
