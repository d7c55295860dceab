"""Two replicas of the platform on one PostgreSQL, killed again and again, while 24 workers register, report,
suspend, resume, retire, sign and recognise at random: what was acknowledged is there, and the audit is clean
after each kill.

The short form runs one seed for 15 s; the long form (QILU_SOAK=1) twenty seeds for a minute each.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import Server, answers
from qilu_platform.audit import audit
from qilu_platform.counting.activity import HOUR_MS
from qilu_platform.database.engine import open_engine
from qilu_platform.database.schema import enterprises, units
from sqlalchemy import select

SOAK = os.environ.get("QILU_SOAK") == "1"
SEEDS, SECONDS = (range(20), 60.0) if SOAK else (range(1), 15.0)
WORKERS = 24
KILL_EVERY_S = 4.0
KEY = "the-admin-key-of-this-test"
COUNTIES = ("370202", "370203", "370102", "371771")
# Few of each: the workers are to meet.
ENTERPRISES, UNITS, PLATFORMS = 24, 400, 30
PATIENCE_S = 120.0


class Replica(Server):
    def __init__(self, name: str, url: str, port: int, folder: Path) -> None:
        command = [
            str(Path(sys.executable).parent / "qilu"),
            "platform",
            "run",
            "--db",
            url,
            "--port",
            str(port),
        ]
        super().__init__(name, command, port, folder)

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"

    def ready(self) -> bool:
        return answers(f"{self.url}/readyz")


class Workers:
    """Clients that register, and the answers they got."""

    def __init__(self, client: httpx.AsyncClient, replicas: list[Replica], seed: int) -> None:
        self._client, self._replicas, self._seed = client, replicas, seed
        self.until = time.monotonic() + SECONDS
        self.done: Counter[str] = Counter()
        self.registered: set[str] = set()
        self.reported: set[str] = set()

    async def run(self, number: int) -> None:
        dice = random.Random(f"{self._seed}/{number}")
        works = [
            (6, self._register), (2, self._import), (8, self._report), (3, self._deaths),
            (3, self._change_unit), (3, self._change_enterprise),
            (4, self._sign), (2, self._end), (4, self._recognise),
        ]  # fmt: skip
        weights = [weight for weight, _ in works]
        while time.monotonic() < self.until:
            [(_, work)] = dice.choices(works, weights)
            await work(dice)

    async def _send(self, dice: random.Random, method: str, path: str, **content: Any) -> httpx.Response:
        """Until a replica answers; what is sent twice counts once."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            replica = dice.choice(self._replicas)
            try:
                answer = await self._client.request(method, f"{replica.url}{path}", **content)
            except httpx.TransportError:
                self.done["broken"] += 1
            else:
                if answer.status_code < 500:
                    self.done[f"{method} {path.split('/')[2]} {answer.status_code}"] += 1
                    assert answer.status_code in (200, 201, 404, 409, 422), answer.text
                    return answer
                assert answer.status_code == 503, answer.text
                self.done["503"] += 1
            assert time.monotonic() < deadline, f"no answer to {method} {path}"
            await asyncio.sleep(0.05)

    async def _bulk(self, dice: random.Random, book: str, rows: list[dict[str, Any]]) -> None:
        lines = "\n".join(map(json.dumps, rows))
        answer = (await self._send(dice, "POST", f"/v1/{book}/bulk", content=lines)).json()
        refused = {error["line"] for error in answer["errors"]}
        if book in ("units", "enterprises"):
            taken = {row["id"] for line, row in enumerate(rows, start=1) if line not in refused}
            self.registered |= taken

    def _unit(self, dice: random.Random) -> str:
        return f"u{dice.randrange(UNITS)}"

    def _row(self, unit: str) -> dict[str, Any]:
        number = int(unit[1:])
        return {
            "id": unit,
            "class": ["motor", "boiler"][number % 2],
            "enterprise": f"e{number % ENTERPRISES}",
        }

    async def _register(self, dice: random.Random) -> None:
        if dice.random() < 0.3:
            numbers = dice.sample(range(ENTERPRISES), 4)
            rows = [
                {"id": f"e{n}", "name": "E", "county": COUNTIES[n % 4], "industry": "C31"} for n in numbers
            ]
            await self._bulk(dice, "enterprises", rows)
            await self._bulk(dice, "providers", [{"id": "p", "name": "P"}])
        else:
            await self._bulk(dice, "units", [self._row(self._unit(dice)) for _ in range(8)])

    async def _import(self, dice: random.Random) -> None:
        rows = [self._row(self._unit(dice)) for _ in range(12)]
        lines = ["id,class,enterprise", *(f"{row['id']},{row['class']},{row['enterprise']}" for row in rows)]
        headers = {"Content-Type": "text/csv"}
        body = "\n".join(lines) + "\n"
        await self._send(dice, "POST", "/v1/imports?book=units", content=body, headers=headers)

    async def _report(self, dice: random.Random) -> None:
        ids = [self._unit(dice) for _ in range(20)]
        hour = time.time_ns() // 1_000_000 // HOUR_MS - dice.randrange(30)
        readings = [{"unit": id_, "ts_ms": hour * HOUR_MS + dice.randrange(HOUR_MS)} for id_ in ids]
        first = dice.random() < 0.7
        path = "/v1/ingest/first-readings" if first else "/v1/ingest/activity"
        answer = (await self._send(dice, "POST", path, json={"readings": readings})).json()
        if first:
            self.reported |= set(ids) - set(answer["unknown"])

    async def _deaths(self, dice: random.Random) -> None:
        ids = [self._unit(dice) for _ in range(6)]
        await self._send(dice, "POST", "/v1/ingest/deaths", json={"units": ids})

    async def _change_unit(self, dice: random.Random) -> None:
        action = dice.choices(["suspend", "resume", "retire", "rename"], [5, 5, 1, 1])[0]
        path = f"/v1/units/{self._unit(dice)}"
        if action == "rename":
            await self._send(dice, "PATCH", path, json={"name": f"Name {dice.randrange(9)}"})
        else:
            await self._send(dice, "POST", f"{path}/{action}")

    async def _change_enterprise(self, dice: random.Random) -> None:
        action = dice.choice(["suspend", "resume"])
        await self._send(dice, "POST", f"/v1/enterprises/e{dice.randrange(ENTERPRISES)}/{action}")

    def _contract(self, dice: random.Random) -> str:
        return f"c{dice.randrange(ENTERPRISES)}-{dice.randrange(3)}"

    async def _sign(self, dice: random.Random) -> None:
        ids = {self._contract(dice) for _ in range(4)}
        rows = [
            {"id": id_, "enterprise": f"e{id_[1:].split('-')[0]}", "provider": "p", "kind": "business"}
            for id_ in ids
        ]
        await self._bulk(dice, "contracts", rows)

    async def _end(self, dice: random.Random) -> None:
        await self._send(
            dice, "POST", "/v1/contracts/end", json={"contracts": [self._contract(dice) for _ in range(3)]}
        )

    async def _recognise(self, dice: random.Random) -> None:
        kinds = ["enterprise_level", "cross_industry", "comprehensive"]
        chosen = [(f"platform-{dice.randrange(PLATFORMS)}", dice.choice(kinds)) for _ in range(3)]
        rows = [
            {"id": f"{platform}-{kind[:8]}-{dice.randrange(2)}", "kind": kind, "subject": platform}
            | {"place": "370202"}
            for platform, kind in chosen
        ]
        await self._bulk(dice, "recognitions", rows)


async def _kill_again_and_again(
    replicas: list[Replica], until: float, dice: random.Random, check: Callable[[], Awaitable[None]]
) -> int:
    kills = 0
    while time.monotonic() < until - KILL_EVERY_S:
        await asyncio.sleep(dice.uniform(0.5, 1.0) * KILL_EVERY_S)
        replica = dice.choice(replicas)
        await asyncio.to_thread(replica.kill)
        kills += 1
        await check()
        await asyncio.to_thread(replica.start)
    return kills


@pytest.mark.parametrize("seed", SEEDS)
async def test_counts_agree_while_replicas_are_killed_under_24_workers(
    postgres_url: str,
    free_port: Callable[[], int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
) -> None:
    monkeypatch.setenv("QILU_API_KEY", KEY)
    monkeypatch.setenv("QILU_PLATFORM_RATE_PER_S", "0")
    replicas = [Replica(f"replica-{n}", postgres_url, free_port(), tmp_path) for n in range(2)]
    engine = open_engine(postgres_url)

    async def check() -> None:
        assert list(map(str, await asyncio.to_thread(audit, engine))) == []

    try:
        # At once: one of them makes the schema, and the other one waits.
        await asyncio.gather(*(asyncio.to_thread(replica.start) for replica in replicas))
        limits = httpx.Limits(max_connections=WORKERS)
        headers = {"Authorization": f"Bearer {KEY}"}
        async with httpx.AsyncClient(headers=headers, limits=limits, timeout=60, trust_env=False) as client:
            workers = Workers(client, replicas, seed)
            async with asyncio.TaskGroup() as group:
                for number in range(WORKERS):
                    group.create_task(workers.run(number))
                killing = group.create_task(
                    _kill_again_and_again(replicas, workers.until, random.Random(seed), check)
                )
        await check()
        with engine.connect() as connection:
            known = {*connection.scalars(select(units.c.id)), *connection.scalars(select(enterprises.c.id))}
            on_cloud = set(connection.scalars(select(units.c.id).where(units.c.on_cloud_ms.is_not(None))))
        assert workers.registered <= known
        assert workers.reported == on_cloud
        assert killing.result() > 0
        if SOAK:
            calls = sum(workers.done.values())
            print(f"\nseed {seed}: {calls} calls, {killing.result()} kills, {dict(workers.done)}")  # noqa: T201
    finally:
        for replica in replicas:
            replica.kill()
        engine.dispose()
