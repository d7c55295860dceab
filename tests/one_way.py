"""A gateway that is given a random province's messages, and all that becomes of them, as lines of text:

    QILU_CLASSES=FOLDER python tests/one_way.py SEED MESSAGES FOLDER [plain]

`plain`: every message takes the path that decodes one message at a time. The output depends neither on time
nor on how messages fall into batches, so two runs with one seed write the same lines on either path.
"""

from __future__ import annotations

import asyncio
import re
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from gateway_world import FakePlatform, eventually, eventually_async
from message_fuzz import LATEST_MS, NOW_MS, STRANGE_CLASS, Province, Unit
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.catalogue.generic import GENERIC
from qilu_contract.errors import Reason, Rejected, Remark, Retryable
from qilu_contract.wire import topics
from qilu_contract.wire.clock import RunClock
from qilu_gateway import statefile
from qilu_gateway.read import intake, unborn
from qilu_gateway.read.arrivals import Arrival
from qilu_gateway.read.columnar import Reader
from qilu_gateway.read.reads import Found, Read
from qilu_gateway.service import GatewayService
from qilu_gateway.settings import Settings
from qilu_gateway.write import store_gate, writer
from qilu_stores import open_store
from scripted_broker import Delivery, ScriptedBroker

UNITS = 120
MAX_PAYLOAD_BYTES = 20_000
NEVER_S = 1e9
COUNTED = (
    "messages", "redelivered_messages", "accepted", "stored", "dead_lettered", "spooled", "corrupt",
    "in_flight", "redelivered", "births", "sequence_gaps", "ignored_deaths", "evicted",
)  # fmt: skip


class Platform(FakePlatform):
    def __init__(self) -> None:
        super().__init__()
        self.asked_who_is_barred = 0

    def answer(self, path: str, key: str | None, body: dict[str, Any]) -> tuple[int, dict[str, Any] | None]:
        self.asked_who_is_barred += path.startswith("/v1/ingest/barred")
        if path == "/v1/ingest/first-readings":
            known = [
                (unit, ts_ms)
                for unit, ts_ms in zip(body["units"], body["ts_ms"], strict=True)
                if unit in self.units
            ]
            body = {"units": [unit for unit, _ in known], "ts_ms": [ts_ms for _, ts_ms in known]}
        return super().answer(path, key, body)

    def register_all(self, province: Province) -> None:
        for number, unit in enumerate(province.units):
            class_ = GENERIC if number % 10 == 3 else unit.class_.name
            self.register(unit.id, class_, unit.node.id, unit.node.county)
        strange = province.stranger
        self.register(strange.id, STRANGE_CLASS, strange.node.id, strange.node.county)


class MoodyStore:
    """A store that is sometimes unavailable, and refuses all points of some units permanently."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.away = False
        self.refused: set[str] = set()

    async def write(self, points: Sequence[Any], columns: Sequence[Any] = ()) -> None:
        if self.away:
            raise Retryable("the store is unavailable")
        if self.refused:
            every = [*points, *(point for each in columns for point in each.points())]
            if any(point.tags[-1] in self.refused for point in every):
                raise Rejected("field type conflict")
        await (self._store.write(points, columns) if columns else self._store.write(points))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


class World:
    """A gateway and all around it."""

    def __init__(self, seed: int, folder: Path, broker: ScriptedBroker, store: MoodyStore) -> None:
        self.province = Province(seed, UNITS)
        self.platform = Platform()
        self.platform.register_all(self.province)
        self.broker, self.store = broker, store
        self.settings = Settings(
            broker=f"mqtt://127.0.0.1:{broker.port}",
            platform=self.platform.url,
            state=folder / "state",
            host_id="two-ways",
            http_port=0,
            batch_size=500,
            batch_age_s=0.01,
            max_payload_bytes=MAX_PAYLOAD_BYTES,
        )
        self.gateway: GatewayService
        self.counted: Counter[str] = Counter()
        self.most_held = 0
        """Messages that waited for a birth at once."""

    async def start(self) -> None:
        self.gateway = GatewayService(self.settings, store=self.store, api_key="ingest-key")  # type: ignore[arg-type]
        await self.gateway.__aenter__()
        clock = RunClock(NOW_MS, 0.0).encode()
        await self.broker.deliver([Delivery(topics.CLOCK.encode(), clock, retain=True, session="-clock")])
        await self.broker.settled()
        await eventually(lambda: self.gateway.online, "online")

    def is_settled(self) -> bool:
        """Whether all is durable, except what waits for a birth."""
        assert self.gateway._wired is not None
        held = self.gateway._wired.intake.unborn.messages
        self.most_held = max(self.most_held, held)
        return self.gateway._health.in_flight.messages == held

    async def _give_up(self) -> None:
        """Have the gateway refuse what waits for a birth."""
        unborn.WAIT_S = 0.0
        await self.broker.settled()
        unborn.WAIT_S = NEVER_S

    async def stop(self) -> None:
        await self._give_up()
        await eventually(lambda: self.gateway.counters.in_flight == 0, "all is durable")
        await self._until_reported()
        self.count()
        await self.gateway.__aexit__(None, None, None)

    def count(self) -> None:
        self.counted.update({name: getattr(self.gateway.counters, name) for name in COUNTED})
        self.counted.update(
            {f"refused {reason}": n for reason, n in self.gateway.dead_lettered_by_reason.items() if n}
        )

    async def _until_reported(self) -> None:
        """First readings are reported at once, problems one after the other: the last one is known."""
        await eventually_async(self._is_reported, "first readings are reported")
        last = f"last-{self.counted['stops']}"
        self.counted["stops"] += 1
        topic = topics.telemetry("370202", "370202-e99999", last).encode()
        await self.give([Delivery(topic, b"no payload")])
        await eventually(lambda: any(each["unit"] == last for each in self.platform.problems or ()), last)

    async def _is_reported(self) -> bool:
        return await self.gateway.unreported() == 0

    async def give(self, messages: Sequence[Delivery]) -> list[int]:
        """Returns when all of it is durable."""
        counters = self.gateway.counters
        expected = counters.messages + len(messages)
        mids = await self.broker.deliver(messages)
        await eventually(
            lambda: counters.messages == expected and self.is_settled(), "all but the unborn is durable"
        )
        return mids

    async def give_again(self, messages: Sequence[Delivery], mids: Sequence[int]) -> None:
        """On a new connection, as after one that broke before the broker had the acknowledgements."""
        counters = self.gateway.counters
        expected = counters.messages + len(messages)
        self.broker.cut()
        await self.broker.deliver([message._replace(dup=True) for message in messages], mids)
        await eventually(
            lambda: counters.messages == expected and self.is_settled(), "all but the unborn is durable"
        )
        await eventually(lambda: self.gateway.online, "online")

    async def bar(self, unit: Unit) -> None:
        """Returns when the gateway knows."""
        self.platform.barred.append(("units", unit.id))
        asked = self.platform.asked_who_is_barred
        await eventually(lambda: self.platform.asked_who_is_barred >= asked + 2, "asked who is barred")


async def run(seed: int, messages: int, folder: Path, out: Any) -> None:
    began_ms = time.time_ns() // 1_000_000
    async with (
        open_store(f"duckdb:///{folder / 'store.duckdb'}") as opened,
        ScriptedBroker(["-history", "-clock"]) as broker,
    ):
        store = MoodyStore(opened)
        world = World(seed, folder, broker, store)
        await world.start()
        await play(world, messages)
        await world.stop()
        world.platform.stop()
        lines = [line async for line in stored(opened)]
    ended_ms = time.time_ns() // 1_000_000
    lines += letters(folder / "state")
    lines += told(world, lines)
    plainly = without_receipts(began_ms, ended_ms)
    out.writelines(sorted(plainly(line) + "\n" for line in lines))


async def play(world: World, messages: int) -> None:
    """All there is, now and then with something else between."""
    chance, province, platform = world.province.chance, world.province, world.platform
    strokes = {
        0.25: "again",
        0.4: "restart",
        0.5: "bar",
        0.6: "away",
        0.7: "refuse",
        0.8: "move",
        0.9: "again",
    }
    done = 0
    for chunk in province.chunks(messages):
        due = [part for part in strokes if done >= part * messages]
        stroke = strokes.pop(due[0]) if due else ""
        done += len(chunk)
        unit = chance.choice(province.units)
        if stroke == "restart":
            await world.stop()
            await world.start()
        elif stroke in ("bar", "move"):
            known = platform.units.pop(unit.id)
            if stroke == "move":
                platform.units[unit.id] = {**known, "class": "pump", "industry": "C35"}
            await world.bar(unit)
        elif stroke == "refuse":
            world.store.refused = {unit.id, chance.choice(province.units).id}
        world.store.away = stroke == "away"
        if world.store.away:  # of two writes of one point by way of the spool, either may be the last
            chunk = list({message.topic.rpartition(b"-u")[2][:5]: message for message in chunk}.values())
        mids = await world.give(chunk)
        if stroke == "away":
            world.store.away = False
            await eventually(lambda: not world.gateway.counters.spooled, "the spool is empty")
        elif stroke == "again":
            known_before = [(m, mid) for m, mid in zip(chunk, mids, strict=True) if mid and not m.session]
            if known_before:
                again, before = zip(*known_before, strict=True)
                await world.give_again(again, before)
        world.store.refused = set()


async def stored(store: Any) -> Any:
    for measurement in (*CATALOGUE, GENERIC):
        async for chunk in store.scan(measurement, 0, LATEST_MS + 10**9):
            for point in chunk.all():
                fields = sorted(point.fields.items())
                yield f"point {measurement} {point.tags} {point.ts_ms} {fields!r}"


def letters(state: Path) -> Iterator[str]:
    with closing(sqlite3.connect(state / statefile.FILE_NAME)) as connection:
        rows = connection.execute(
            "SELECT reason, detail, topic, unit, payload, payload_bytes, readings FROM dead_letters"
        )
        for reason, detail, topic, unit, *rest in rows:
            # Data of a unit that does not exist waits for a birth until the platform has answered.
            cause = "" if reason == Reason.NO_BIRTH and (unit or "").startswith("nobody") else detail
            yield f"letter {(reason, cause, topic, unit, *rest)!r}"


def told(world: World, lines: Sequence[str]) -> Iterator[str]:
    """Reports to the platform, the counters, and the gateway's messages to nodes."""
    for name, count in world.counted.items():
        yield f"counter {name} {count}"
    problems: dict[tuple[str, ...], tuple[int, str]] = {}
    for each in world.platform.problems or ():
        if each["reason"] == Remark.SEQUENCE_GAP:  # a gap is reported if it lasts: this depends on wall time
            continue
        key = (each["county"], each["enterprise"], each["unit"], each["reason"])
        problems[key] = problems.get(key, (0, ""))[0] + each["count"], each["excerpt"]
    for key, (count, excerpt) in problems.items():
        # Of one batch's refusals any may be the latest; for units that do not exist see `letters`.
        if "refused_by_store" in key or ("no_birth" in key and key[2].startswith("nobody")):
            excerpt = ""
        yield f"problem {key} {count} {excerpt!r}"
    units = "\n".join(lines)
    for unit, ts_ms in world.platform.first.items():
        assert f"'{unit}') {ts_ms} [" in units, f"the first reading of {unit}, {ts_ms}, is not stored"
        yield f"first {unit}"
    for unit, name, _ in world.platform.signals:
        yield f"signal {unit} {name}"
    for topic, payload in world.broker.published:
        if b"Run Clock" in payload:
            yield f"mark {topic}"


def without_receipts(began_ms: int, ended_ms: int) -> Callable[[str], str]:
    """Takes times of receipt out of lines."""

    def plainly(match: re.Match[str]) -> str:
        return "<receipt>" if began_ms <= int(match[0]) <= ended_ms + 10_000 else match[0]

    return lambda line: re.sub(r"\b\d{13}\b", plainly, line)


def read_nothing(
    _: Reader,
    arrival: Arrival,
    which: Sequence[int] | None,
    latest_ms: int,
    unknown: Callable[[Iterable[str]], set[str]],
    *,
    followed: bool = False,
) -> Found:
    """In place of `Reader.read`: nothing goes the fast way."""
    places = range(len(arrival.messages)) if which is None else which
    return Found(
        Read(arrival, np.array([], dtype=np.int64), []), [(place, followed) for place in places], [], None
    )


def main() -> None:
    # On a busy machine, too, only an unavailable store sends anything to the spool.
    unborn.WAIT_S = unborn.SILENT_S = NEVER_S
    intake.LOOK_EVERY_S = 0.05
    writer.SLOW_S = store_gate.PROBE_S = store_gate.SIFT_WRITE_S = 600.0
    seed, messages, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    if sys.argv[4:] == ["plain"]:
        Reader.read = read_nothing  # type: ignore[method-assign]
    with (folder / "lines").open("w") as out:
        asyncio.run(run(seed, messages, folder, out))


if __name__ == "__main__":
    main()
