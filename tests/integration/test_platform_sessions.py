"""Sessions of browsers: what a cookie may do, and how it ends."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr
from qilu_platform.registry import sessions
from qilu_platform.service import PlatformService
from qilu_platform.settings import Settings

KEY = "an-admin-key-for-session-tests"
CONSOLE = {"X-Qilu-Console": "1"}
PROVIDER = {"id": "cloud", "name": "Cloud"}


@pytest.fixture
async def url(tmp_path: Path) -> AsyncIterator[str]:
    settings = Settings(db_url=f"sqlite:///{tmp_path}/registry.sqlite", port=0, api_key=SecretStr(KEY))
    async with PlatformService(settings) as service:
        yield service.url


def browser(url: str, key: str = "") -> httpx.AsyncClient:
    """With a key, or with the cookies that it gets."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return httpx.AsyncClient(base_url=url, headers=headers, timeout=60.0, trust_env=False)


async def test_a_session_has_the_rights_of_its_key_and_a_script_cannot_read_it(url: str) -> None:
    async with browser(url) as page, browser(url, KEY) as admin:
        assert (await page.get("/v1/session")).json()["signed_in"] is False
        assert (await page.get("/v1/units")).status_code == 401
        made = (await admin.post("/v1/keys", json={"name": "a viewer", "role": "viewer"})).json()
        answer = await page.post("/v1/session", json={"key": made["key"]})
        assert answer.json()["role"] == "viewer"
        cookie = answer.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert made["key"] not in cookie
        assert (await page.get("/v1/units")).status_code == 200
        assert (await page.post("/v1/providers", json=PROVIDER, headers=CONSOLE)).status_code == 403
        await admin.delete(f"/v1/keys/{made['id']}")
        assert (await page.get("/v1/units")).status_code == 401
        assert (await page.get("/v1/session")).json()["signed_in"] is False


async def test_a_change_needs_a_header_that_no_other_origin_can_send(url: str) -> None:
    async with browser(url) as page:
        await page.post("/v1/session", json={"key": KEY})
        assert (await page.post("/v1/providers", json=PROVIDER)).status_code == 403
        assert (await page.post("/v1/providers", json=PROVIDER, headers=CONSOLE)).status_code == 201
        assert (await page.delete("/v1/session")).status_code == 204
        assert (await page.post("/v1/providers", json=PROVIDER, headers=CONSOLE)).status_code == 401


async def test_a_link_opens_one_session_and_not_for_ever(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with browser(url) as page, browser(url, KEY) as admin:
        link = (await admin.post("/v1/session/links")).json()["link"]
        assert (await page.post("/v1/session", json={"link": link})).json()["role"] == "admin"
        assert (await page.post("/v1/session", json={"link": link})).status_code == 401
        assert (await page.post("/v1/session", json={"key": link})).status_code == 401
        monkeypatch.setattr(sessions, "LINK_MS", 0)
        late = (await admin.post("/v1/session/links")).json()["link"]
        assert (await page.post("/v1/session", json={"link": late})).status_code == 401
        assert (await page.post("/v1/session", json={"link": late, "key": KEY})).status_code == 422


async def test_under_a_prefix_and_behind_tls_the_cookie_says_so(url: str) -> None:
    proxy = {"X-Forwarded-Prefix": "/qilu", "X-Forwarded-Proto": "https"}
    async with browser(url) as page:
        cookie = (await page.post("/v1/session", json={"key": KEY}, headers=proxy)).headers["set-cookie"]
        assert "Path=/qilu" in cookie
        assert "Secure" in cookie
