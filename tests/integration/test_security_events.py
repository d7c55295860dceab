"""Security events: gathered from requests, gateways and certificates, counted, and shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
from console_world import browsing, served, sign_in
from gateway_world import eventually_async
from playwright.async_api import expect
from qilu_platform.broker.bundle import new_key
from qilu_platform.registry import security
from qilu_platform.registry.security import MAX_GATHERED, OTHERS, Event, Watch


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
        problems = [wrong, wrong | {"reason": "bad_timestamp"}]
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
            "revoked_certificate": 1,
        }
        assert found["by_city"] == {"370200": 7, "370100": 2}
        assert found["by_enterprise"] == {"a-works": 7, "b-works": 2}
        only = (await api.get("/v1/security/events?city=370100&kind=revoked_certificate")).json()["items"]
        assert [(each["subject"], each["county"]) for each in only] == [(made["id"], "370102")]
        async with httpx.AsyncClient(base_url=url, trust_env=False) as other:
            other.headers["Authorization"] = f"Bearer {own['key']}"
            mine = (await other.get("/v1/security/events")).json()
            assert mine["by_kind"] == {"wrong_topic": 7}
            theirs = (await other.get("/v1/security/events?enterprise=b-works")).json()
            assert theirs["items"] == []

        await sign_in(page, url, api)
        await page.goto(f"{url}/#/pipeline")
        rows = page.locator(".security tbody tr")
        await expect(rows).to_have_count(5)
        await expect(rows.filter(has_text="Wrong topic")).to_contain_text("a-works")
        await page.locator(".security").get_by_label("Kind").select_option("revoked_certificate")
        await expect(rows).to_have_count(1)
        assert said == []


def test_a_flood_of_different_events_needs_bounded_memory() -> None:
    watch = Watch()
    for number in range(MAX_GATHERED + 500):
        watch.see("unknown_key", None, f"address-{number}", "x")
    gathered = watch._gathered
    assert len(gathered) == MAX_GATHERED + 1
    assert gathered["unknown_key", "", OTHERS] == Event("unknown_key", "", OTHERS, "x", count=500)
    assert set(security.BY_REASON.values()) <= set(security.KINDS)
