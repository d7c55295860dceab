"""Security events: gathered from requests, gateways and certificates, counted, and shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from console_world import browsing, served, sign_in
from gateway_world import eventually_async
from playwright.async_api import expect
from qilu_contract.security import SECURITY_KINDS
from qilu_platform.broker.bundle import new_key
from qilu_platform.database.engine import open_engine, writing
from qilu_platform.database.migrating import migrate
from qilu_platform.database.schema import certificates, enterprises, security_events
from qilu_platform.registry import security
from qilu_platform.registry.security import (
    BURST,
    MAX_GATHERED,
    MAX_OF_KIND,
    OTHERS,
    Event,
    Situation,
    Watch,
    record,
    record_expired,
)
from sqlalchemy import func, insert, select


async def test_events_are_counted_by_kind_city_and_enterprise(tmp_path: Path, chromium: str) -> None:
    said: list[str] = []
    async with served(tmp_path, broker=None) as (url, _store, api), browsing(chromium, said) as page:
        for id_, county in (("a-works", "370202"), ("b-works", "370102")):
            body = {"id": id_, "name": "Works", "county": county, "industry": "C34"}
            assert (await api.post("/v1/enterprises", json=body)).status_code == 201

        async def key(role: str, **more: str) -> dict[str, Any]:
            return dict((await api.post("/v1/keys", json={"name": role, "role": role, **more})).json())

        keys = {role: await key(role) for role in ("viewer", "ingest")}
        own = await key("enterprise", enterprise="a-works")
        revoked = await key("enterprise", enterprise="b-works")
        assert (await api.delete(f"/v1/keys/{revoked['id']}")).status_code == 204

        async def ask(key_: str, method: str, path: str, **more: Any) -> int:
            headers = {"Authorization": f"Bearer {key_}"}
            async with httpx.AsyncClient(base_url=url, headers=headers, trust_env=False) as other:
                return (await other.request(method, path, **more)).status_code

        for _ in range(3):
            assert await ask("qilu_nobody-has-this-key", "GET", "/v1/units") == 401
        assert await ask(revoked["key"], "GET", "/v1/units") == 401
        assert await ask(keys["viewer"]["key"], "POST", "/v1/units", json={}) == 403
        wrong: dict[str, Any] = {
            "unit": "u",
            "enterprise": "a-works",
            "county": "370202",
            "reason": "wrong_owner",
        }
        wrong |= {"count": 7, "last_ms": 1767225600000, "excerpt": "u belongs to b-works"}
        problems = [wrong, wrong | {"reason": "bad_timestamp"}, wrong | {"reason": "out_of_range"}]
        problems += [wrong | {"reason": "sequence_gap", "unit": "a-works", "count": 1}]
        problems += [wrong | {"reason": "bad_payload", "unit": "a-works", "count": BURST}]
        assert await ask(keys["ingest"]["key"], "POST", "/v1/problems", json={"problems": problems}) == 204
        _private, csr = new_key()
        made = (await api.post("/v1/enterprises/b-works/certificates", json={"csr": csr})).json()
        assert (await api.post(f"/v1/certificates/{made['id']}/revoke")).status_code == 200

        async def written() -> bool:
            return "forbidden" in (await api.get("/v1/security/events")).json()["by_kind"]

        await eventually_async(written, "gathered events are written")
        found = (await api.get("/v1/security/events")).json()
        assert found["by_kind"] == {
            "unknown_key": 3,
            "revoked_key": 1,
            "forbidden": 1,
            "wrong_topic": 7,
            "unusual_value": 7,
            "sequence": 1,
            "dead_letter_burst": 1,
            "revoked_certificate": 1,
        }
        assert found["by_city"] == {"370200": 16, "370100": 2}
        assert found["by_enterprise"] == {"a-works": 16, "b-works": 2}
        only = (await api.get("/v1/security/events?city=370100&kind=revoked_certificate")).json()["items"]
        assert [(each["subject"], each["county"]) for each in only] == [(made["id"], "370102")]
        async with httpx.AsyncClient(base_url=url, trust_env=False) as other:
            other.headers["Authorization"] = f"Bearer {own['key']}"
            mine = (await other.get("/v1/security/events")).json()
            assert set(mine["by_enterprise"]) == {"a-works"}
            theirs = (await other.get("/v1/security/events?enterprise=b-works")).json()
            assert theirs["items"] == []

        await sign_in(page, url, api)
        await page.goto(f"{url}/#/pipeline")
        rows = page.locator(".security tbody tr")
        await expect(rows).to_have_count(8)
        await expect(page.locator(".security").get_by_text("b-works").first).to_be_visible()
        await expect(rows.filter(has_text="Wrong topic")).to_contain_text("a-works")
        await page.locator(".security").get_by_label("Kind").select_option("revoked_certificate")
        await expect(rows).to_have_count(1)
        assert said == []


def test_the_situation_in_the_store_begins_with_nothing_and_adds_up_by_kind_and_city(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path}/registry.sqlite")
    situation = Situation()
    with writing(engine) as connection:
        migrate(connection)
        assert situation.points(connection, 20_000, 10_000) == []
        events = [
            Event("wrong_topic", "a-works", "a", "x", "370202", 2),
            Event("wrong_topic", "b-works", "b", "x", "370203", 3),
            Event("unknown_key", "", "192.0.2.1", "x"),
            Event("sequence", "c-works", "c", "x", "999999"),
        ]
        record(connection, events)
        wrong, unknown, sequence = (
            ("wrong_topic", "370200"),
            ("unknown_key", "unknown"),
            ("sequence", "unknown"),
        )
        first = {(p.tags, p.ts_ms): p.fields["events"] for p in situation.points(connection, 30_000, 20_000)}
        assert first == {(key, 20_000): 0 for key in (wrong, unknown, sequence)} | {
            (wrong, 30_000): 5,
            (unknown, 30_000): 1,
            (sequence, 30_000): 1,
        }
        record(connection, events[:1])
        second = {(p.tags, p.ts_ms): p.fields["events"] for p in situation.points(connection, 40_000, 30_000)}
        assert second == {(wrong, 40_000): 7, (unknown, 40_000): 1, (sequence, 40_000): 1}
    engine.dispose()


def test_rows_are_bounded_by_kind_and_counts_never_decrease(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path}/registry.sqlite")
    situation = Situation()
    with writing(engine) as connection:
        migrate(connection)
        record(connection, [Event("refused_certificate", "", "broker", "x")])
        for begin in range(0, MAX_OF_KIND + 2_000, 1_000):
            counties = ("370202", "370302", "999999")
            units = [(f"u-{n}", counties[n % 3]) for n in range(begin, begin + 1_000)]
            record(connection, [Event("unusual_value", "a-works", unit, "x", at, 2) for unit, at in units])
            points = situation.points(connection, 20_000, 10_000)
            counted = {point.tags: point.fields["events"] for point in points if point.ts_ms == 20_000}
            of_cities = [("370200", 0), ("370300", 1), ("unknown", 2)]
            assert counted == {("refused_certificate", "unknown"): 1} | {
                ("unusual_value", city): 2 * len(range(place, begin + 1_000, 3)) for city, place in of_cities
            }
        kind = security_events.c.kind
        found = connection.execute(select(kind, func.count()).group_by(kind))
        rows_of_cities = 3
        assert dict(map(tuple, found)) == {
            "refused_certificate": 1,
            "unusual_value": MAX_OF_KIND + rows_of_cities,
        }
        shown = security.events(connection, "unusual_value", "370200", None, 1_000)
        assert shown["by_kind"] == {"unusual_value": 2 * len(range(0, MAX_OF_KIND + 2_000, 3))}
    engine.dispose()


def test_a_certificate_that_has_ended_counts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(security, "MAX_OF_KIND", 3)
    engine = open_engine(f"sqlite:///{tmp_path}/registry.sqlite")
    with writing(engine) as connection:
        migrate(connection)
        connection.execute(
            insert(enterprises).values(
                id="a-works", name="A", county="370202", industry="C34", registered_ms=0, contracts_current=0
            )
        )
        for number in range(10):
            connection.execute(
                insert(certificates).values(
                    id=f"{number:040x}", enterprise="a-works", issued_ms=0, ends_ms=1_000 + number
                )
            )
            for _ in range(3):
                record_expired(connection)
            assert security.events(connection, None, None, None, 100)["by_kind"] == {
                "expired_certificate": number + 1
            }
    engine.dispose()


def test_a_flood_of_different_events_needs_bounded_memory() -> None:
    watch = Watch()
    for number in range(MAX_GATHERED + 500):
        watch.see("unknown_key", None, f"address-{number}", "x")
    gathered = watch._gathered
    assert len(gathered) == MAX_GATHERED + 1
    assert gathered["unknown_key", "", OTHERS] == Event("unknown_key", "", OTHERS, "x", count=500)
    assert set(security.BY_REASON.values()) <= set(SECURITY_KINDS)
