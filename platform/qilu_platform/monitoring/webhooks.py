"""Notifications of alarms to URLs of the operator's choice, signed, with retries.

Each begin and each end is entered as a row for each URL, once for all replicas; the rows are the queue and
the log at once. One task posts rows that are due. It claims each by moving its next attempt, so that no two
replicas post the same one at a time.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import secrets
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import httpx2
import msgspec
import structlog
from qilu_contract.errors import ConfigError
from qilu_contract.storage import Point
from qilu_contract.store import PlatformStore
from qilu_contract.wire.clock import wall_ms
from sqlalchemy import Connection, delete, func, select, update

from qilu_platform.database.schema import webhook_deliveries as table
from qilu_platform.database.statements import insert_rows
from qilu_platform.database.transactions import Database
from qilu_platform.monitoring import alarms

log = structlog.get_logger()

MAX_WAITING = 1_000
"""Deliveries that wait; further ones are dropped and counted: an URL that takes nothing must not fill the
registry."""
MAX_KEPT = 10_000
"""Rows in all; the oldest that do not wait make room."""
ATTEMPTS = 10
FIRST_RETRY_MS, LAST_RETRY_MS = 1_000, 600_000
"""The time until the next attempt doubles; ten attempts take about a quarter of an hour."""
TIMEOUT_S = 5.0
CLAIM_MS = 30_000
"""Longer than an attempt: a replica that ends in the middle of one leaves it to the others."""
AT_ONCE = 20
MIN_SECRET = 20
MAX_ANSWER = 200
_SHOWN = ("id", "target", "at_ms", "state", "attempts", "answer")


def check_targets(urls: Sequence[str], secret: str | None) -> None:
    """Raises ConfigError for URLs that are not http or https, and without a secret that is long enough."""
    for url in urls:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"QILU_PLATFORM_WEBHOOKS: {shown(url)} is no http or https URL.")
    if urls and (secret is None or len(secret) < MIN_SECRET):
        raise ConfigError(
            f"QILU_PLATFORM_WEBHOOKS needs QILU_WEBHOOK_SECRET, at least {MIN_SECRET} random characters: "
            "receivers check signatures with it."
        )


def shown(url: str) -> str:
    """A URL without what may be secret in it: log-in, query, and all of the path but its beginning."""
    parts = urlsplit(url)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname}{port}{parts.path[:12]}"


def signature(secret: str, at_s: int, body: bytes) -> str:
    """The header `Qilu-Signature` of a body sent at this time (seconds since 1970)."""
    digest = hmac.new(secret.encode(), b"%d." % at_s + body, hashlib.sha256).hexdigest()
    return f"t={at_s},v1={digest}"


def _target(url: str) -> str:
    """Names an URL in the table, which holds none: it may contain a secret."""
    return hashlib.sha256(url.encode()).hexdigest()


class Webhooks:
    def __init__(self, database: Database, urls: Sequence[str], secret: str) -> None:
        self._database, self._secret = database, secret
        self._urls = {_target(url): url for url in urls}
        self._open: dict[tuple[str, str, int], None] | None = None
        self.dropped = 0
        """Notifications that found the queue full, since the start."""

    def urls(self) -> list[str]:
        return [shown(url) for url in self._urls.values()]

    async def hear(self, points: Sequence[Point], store: PlatformStore) -> None:
        """Called with the open alarms every two seconds: note what began and what ended."""
        now = {_key(point): point for point in points}
        before = self._open
        if before is None:
            # Those that were open before a restart are in the table, unless no URL was configured then.
            before = dict.fromkeys(now) if await self._database.read(_is_empty) else {}
        events = [("alarm.opened", point) for key, point in now.items() if key not in before]
        for unit, signal, since_ms in (key for key in before if key not in now):
            tags = {"unit": unit, "signal": signal}
            ended = await store.newest("alarm", tags, since_ms, since_ms + 1, 1)
            events += [("alarm.cleared", point) for point in ended if not point.fields.get("open")]
        if events:
            self.dropped += await self._database.write(lambda found: self._note(found, events))
        self._open = dict.fromkeys(now)

    def _note(self, connection: Connection, events: list[tuple[str, Point]]) -> int:
        shown_ = alarms.with_notes(connection, [point for _, point in events])
        notifications = [
            (event, alarm)
            for (event, _), alarm in zip(events, shown_, strict=True)
            if alarm["shelved_until_ms"] is None
        ]
        return sum(self._enter(connection, event, alarm) for event, alarm in notifications)

    def _enter(self, connection: Connection, event: str, alarm: dict[str, Any] | None) -> int:
        """Enter a row for each URL; returns how many were dropped."""
        waiting = connection.scalar(select(func.count()).select_from(table).where(table.c.state == "waiting"))
        now_ms = wall_ms()
        if (waiting or 0) + len(self._urls) > MAX_WAITING:
            return len(self._urls)
        subject = f"{event}/test/{now_ms}"
        if alarm is not None:
            subject = f"{event}/{alarm['unit']}/{alarm['signal']}/{alarm['since_ms']}"
        for target in self._urls:
            id_ = f"hook-{secrets.token_hex(8)}"
            body = {"id": id_, "event": event, "at_ms": now_ms, "alarm": alarm}
            row = {
                "id": id_,
                "target": target,
                "subject": subject,
                "at_ms": now_ms,
                "body": msgspec.json.encode(body).decode(),
                "state": "waiting",
                "attempts": 0,
                "next_ms": now_ms,
            }
            insert = insert_rows(connection, table, [row])
            connection.execute(insert.on_conflict_do_nothing(index_elements=["target", "subject"]))
        _make_room(connection)
        return 0

    async def test(self) -> None:
        """Notify every URL of nothing: an event `test` without an alarm."""
        await self._database.write(lambda found: self._enter(found, "test", None))

    def newest(self, connection: Connection, limit: int) -> list[dict[str, Any]]:
        """Deliveries as the API shows them, the newest first."""
        rows = connection.execute(select(table).order_by(table.c.at_ms.desc(), table.c.id).limit(limit))
        found = []
        for row in rows:
            event = msgspec.json.decode(row.body)
            url = self._urls.get(row.target)
            found.append(
                {name: row._mapping[name] for name in _SHOWN}
                | {"target": None if url is None else shown(url), "event": event["event"]}
                | {name: (event["alarm"] or {}).get(name) for name in ("unit", "signal", "since_ms")}
            )
        return found

    async def step(self) -> None:
        """Post what is due."""
        due = await self._database.read(self._due)
        if not due:
            return
        async with (
            httpx2.AsyncClient(timeout=TIMEOUT_S, trust_env=False, follow_redirects=False) as http,
            asyncio.TaskGroup() as group,
        ):
            for row in due:
                group.create_task(self._deliver(http, row))

    def _due(self, connection: Connection) -> list[dict[str, Any]]:
        query = select(table).where(
            table.c.state == "waiting", table.c.next_ms <= wall_ms(), table.c.target.in_(self._urls)
        )
        rows = connection.execute(query.order_by(table.c.next_ms).limit(AT_ONCE))
        return [dict(row._mapping) for row in rows]

    async def _deliver(self, http: httpx2.AsyncClient, row: dict[str, Any]) -> None:
        claimed = update(table).where(
            table.c.id == row["id"], table.c.next_ms == row["next_ms"], table.c.state == "waiting"
        )
        claim = claimed.values(next_ms=wall_ms() + CLAIM_MS, attempts=row["attempts"] + 1)
        if not await self._database.write(lambda connection: connection.execute(claim).rowcount):
            return  # another replica has it
        well, answer = await self._post(http, self._urls[row["target"]], row["body"].encode(), row["id"])
        attempts = row["attempts"] + 1
        wait_ms = min(FIRST_RETRY_MS * 2 ** (attempts - 1), LAST_RETRY_MS)
        over = "failed" if attempts >= ATTEMPTS else "waiting"
        values = {
            "state": "delivered" if well else over,
            "answer": answer[:MAX_ANSWER],
            "next_ms": wall_ms() + wait_ms,
        }
        done = update(table).where(table.c.id == row["id"]).values(**values)
        await self._database.write(lambda connection: connection.execute(done).rowcount)
        if values["state"] == "failed":
            log.warning("a webhook took nothing", url=shown(self._urls[row["target"]]), answer=answer)

    async def _post(self, http: httpx2.AsyncClient, url: str, body: bytes, id_: str) -> tuple[bool, str]:
        """Whether the receiver took it, and what it answered."""
        headers = {
            "Content-Type": "application/json",
            "User-Agent": "clouds-in-qilu",
            "Qilu-Delivery": id_,
            "Qilu-Signature": signature(self._secret, wall_ms() // 1000, body),
        }
        try:
            async with asyncio.timeout(TIMEOUT_S):
                answer = await http.post(url, content=body, headers=headers)
        except (httpx2.HTTPError, httpx2.InvalidURL, TimeoutError) as error:
            return False, str(error) or type(error).__name__
        return answer.is_success, f"HTTP {answer.status_code}"


def _key(point: Point) -> tuple[str, str, int]:
    tags = alarms.tags_of(point)
    return tags["unit"], tags["signal"], point.ts_ms


def _is_empty(connection: Connection) -> bool:
    return connection.scalar(select(table.c.id).limit(1)) is None


def _make_room(connection: Connection) -> None:
    kept = select(table.c.at_ms).order_by(table.c.at_ms.desc()).offset(MAX_KEPT).limit(1)
    if (oldest_ms := connection.scalar(kept)) is not None:
        connection.execute(delete(table).where(table.c.at_ms <= oldest_ms, table.c.state != "waiting"))
