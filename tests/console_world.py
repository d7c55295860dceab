"""A platform with its console, and a browser that looks at it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
from playwright.async_api import Page, async_playwright, expect
from pydantic import SecretStr
from qilu_contract.store import Store
from qilu_platform.service import PlatformService
from qilu_platform.settings import Settings
from qilu_stores import open_store

KEY = "a-key-for-the-console-test-only"
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-proxy-server"]


@contextlib.asynccontextmanager
async def served(tmp_path: Path, **settings: Any) -> AsyncIterator[tuple[str, Store, httpx.AsyncClient]]:
    """An empty platform's address, its store, and a client with the admin key."""
    told = Settings(
        db_url=f"sqlite:///{tmp_path}/registry.sqlite", port=0, api_key=SecretStr(KEY), **settings
    )
    headers = {"Authorization": f"Bearer {KEY}"}
    async with (
        open_store(f"duckdb:///{tmp_path}/readings.duckdb", None) as store,
        PlatformService(told, store) as service,
        httpx.AsyncClient(base_url=service.url, headers=headers, timeout=60.0, trust_env=False) as api,
    ):
        yield service.url, store, api


@contextlib.asynccontextmanager
async def browsing(
    chromium: str, said: list[str], width: int = 1440, height: int = 900
) -> AsyncIterator[Page]:
    """A page whose errors and warnings are added to the list."""
    expect.set_options(timeout=30_000)
    async with (
        async_playwright() as playwright,
        await playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS) as browser,
    ):
        page = await (await browser.new_context(viewport={"width": width, "height": height})).new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        yield page


async def sign_in(page: Page, url: str, api: httpx.AsyncClient) -> None:
    link = (await api.post("/v1/session/links")).json()["link"]
    await page.goto(f"{url}/#/enter/{link}")
    await expect(page.locator("#account")).to_have_text("Administrator")
