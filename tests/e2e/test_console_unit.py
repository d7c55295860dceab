"""The console's pages of single units, in a real browser on a real platform: live values, alarms, sign-in,
languages."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from console_world import ARGUMENTS, KEY, served, sign_in
from playwright.async_api import Page, async_playwright, expect
from qilu_contract.catalogue.places import PROVINCE
from qilu_contract.storage import Point
from qilu_contract.store import Store

TAGS = ("370200", "370202", "C34", "works", "motor-1")


@contextlib.asynccontextmanager
async def console(tmp_path: Path) -> AsyncIterator[tuple[str, Store, httpx.AsyncClient]]:
    """A platform with one motor, its store, and a client with the admin key."""
    async with served(tmp_path) as (url, store, api):
        works = {"id": "works", "name": "Shinan District Manufacture of metal No. 1", "county": "370202"}
        for path, body in (
            ("/v1/enterprises", {**works, "industry": "C34"}),
            ("/v1/units", {"id": "motor-1", "class": "motor", "enterprise": "works"}),
        ):
            answer = await api.post(path, json=body)
            assert answer.status_code == 201, answer.text
        yield url, store, api


@pytest.fixture
async def page(chromium: str) -> AsyncIterator[Page]:
    expect.set_options(timeout=30_000)
    async with (
        async_playwright() as playwright,
        await playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS) as browser,
    ):
        yield await (await browser.new_context(viewport={"width": 1440, "height": 900})).new_page()


def reading(ts_ms: int, **values: float) -> Point:
    return Point("motor", TAGS, ts_ms, values)


async def test_a_reading_is_on_the_units_page_as_soon_as_it_is_stored(tmp_path: Path, page: Page) -> None:
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    async with console(tmp_path) as (url, store, api):
        now_ms = int(time.time() * 1000)
        await store.write([reading(now_ms - 20_000, power_in=11.5, vibration=1.25, winding_temp=80.0)])
        await sign_in(page, url, api)
        await page.goto(f"{url}/#/unit/motor-1?signal=vibration")
        vibration = page.locator('.now[data-signal="vibration"]')
        await expect(vibration).to_have_text("1.25")
        await expect(page.locator('tr[data-signal="vibration"]')).to_have_attribute("data-level", "")
        await store.write([reading(now_ms - 10_000, power_in=12.0, vibration=9.5)])
        await expect(vibration).to_have_text("9.5")
        await expect(page.locator('tr[data-signal="vibration"]')).to_have_attribute("data-level", "alarm")
        await expect(page.locator(".chart")).to_have_attribute(
            "aria-label", re.compile("1.25 to 9.5, last 9.5")
        )
        # Another signal's history is a click away, and has a separate address.
        await page.get_by_role("button", name="Winding temperature").click()
        await expect(page).to_have_url(re.compile("signal=winding_temp"))
        await expect(page.locator(".chart")).to_have_attribute(
            "aria-label", re.compile("Winding temperature")
        )
        assert said == []


async def test_a_value_outside_a_described_range_is_marked(tmp_path: Path, page: Page) -> None:
    async with console(tmp_path) as (url, store, api):
        body = {"id": "bed-1", "class": "generic", "enterprise": "works"}
        assert (await api.post("/v1/units", json=body)).status_code == 201
        signals = [{"name": "soil", "title": "Soil moisture", "unit": "%", "low": 0, "high": 100}]
        await api.put("/v1/device-types/bed", json={"title": "Bed", "signals": signals})
        assert (await api.put("/v1/units/bed-1/device-type", json={"type": "bed"})).status_code == 204
        now_ms = int(time.time() * 1000)
        await store.write([Point("generic", (*TAGS[:4], "bed-1"), now_ms - 10_000, {"soil": 101.0})])
        await sign_in(page, url, api)
        await page.goto(f"{url}/#/unit/bed-1")
        await expect(page.locator('tr[data-signal="soil"] .outside')).to_have_text("outside the range")
        await store.write([Point("generic", (*TAGS[:4], "bed-1"), now_ms, {"soil": 30.0})])
        await expect(page.locator('.now[data-signal="soil"]')).to_have_text("30")
        await expect(page.locator('tr[data-signal="soil"] .outside')).to_be_hidden()


async def test_a_units_page_shows_when_it_worked_and_why_it_stopped(tmp_path: Path, page: Page) -> None:
    async with console(tmp_path) as (url, store, api):
        body = {"id": "milk-1", "class": "pasteuriser", "enterprise": "works"}
        assert (await api.post("/v1/units", json=body)).status_code == 201
        now_ms = int(time.time() * 1000)
        tags = (*TAGS[:4], "milk-1")
        await store.write(
            [
                Point(
                    "pasteuriser",
                    tags,
                    now_ms - second * 1000,
                    {
                        "product_flow": 0.0 if 600 < second <= 1200 else 10.0,
                        "diversion": 0.0,
                        "hold_temp": 73.0,
                    },
                )
                for second in range(2400, -1, -10)
            ]
        )
        await sign_in(page, url, api)
        await page.goto(f"{url}/#/unit/milk-1")
        await expect(page.locator('[data-factor="oee"] dd')).to_have_text("75%")
        await expect(page.locator('[data-factor="quality"] dd')).to_have_text("100%")
        await expect(page.locator(".states rect.stopped")).to_have_count(1)
        await expect(page.locator(".states svg")).to_have_attribute(
            "aria-label", re.compile("stopped for 10 min")
        )
        await expect(page.locator(".stops li")).to_contain_text("Reason not reported")
        await page.goto(f"{url}/#/unit/motor-1")
        await expect(page.get_by_role("heading", name="motor-1")).to_be_visible()
        await expect(page.locator(".effectiveness")).to_have_count(0)


async def test_an_alarm_is_acknowledged_shelved_and_cleared(tmp_path: Path, page: Page) -> None:
    async with console(tmp_path) as (url, store, api):
        now_ms = int(time.time() * 1000)
        tags = (PROVINCE, *TAGS, "motor", "vibration")
        begun = {"open": 1, "value": 8.0, "limit": 7.1, "worst": 9.0, "ratio": 1.27, "duration_s": 0.0}
        await sign_in(page, url, api)
        await store.write([Point("alarm", tags, now_ms, begun)])
        badge = page.locator('#nav a[href="#/alarms"] .badge')
        await expect(badge).to_have_text("1")
        await page.get_by_role("link", name="Alarms").click()
        row = page.locator("table.alarms tbody tr")
        await expect(row).to_have_attribute("data-state", "open")
        await expect(row).to_contain_text("9 mm/s rms")
        await page.get_by_role("button", name="Acknowledge", exact=True).click()
        await expect(row).to_have_count(0)
        await page.get_by_role("button", name="Acknowledged").click()
        await expect(row).to_have_attribute("data-state", "acknowledged")
        await page.get_by_label("Shelve for").select_option("3600")
        await expect(row).to_have_count(0)
        await page.get_by_role("button", name="Shelved").click()
        await expect(row).to_have_attribute("data-state", "shelved")
        await store.write([Point("alarm", tags, now_ms, {**begun, "open": 0, "duration_s": 12.0})])
        await expect(badge).to_be_hidden()
        await page.get_by_role("button", name="Cleared").click()
        await expect(row).to_have_attribute("data-state", "cleared")
        history = (await api.get("/v1/units/motor-1/history")).json()["items"]
        assert [each["event"] for each in history if "shel" in each["event"]] == ["shelved"]


async def test_who_has_not_signed_in_sees_counts_and_nobodys_units(tmp_path: Path, page: Page) -> None:
    async with console(tmp_path) as (url, _store, api):
        await page.goto(f"{url}/#/unit/motor-1")
        await expect(page.get_by_text("have signed in")).to_be_visible()
        await page.goto(f"{url}/#/sign-in")
        await page.get_by_label("API key").fill("qilu_of-nobody-at-all-whatever")
        await page.get_by_role("main").get_by_role("button", name="Sign in").click()
        await expect(page.get_by_role("alert")).to_contain_text("not known")
        await page.get_by_label("API key").fill(KEY)
        await page.get_by_role("main").get_by_role("button", name="Sign in").click()
        await expect(page.locator("#account")).to_have_text("Administrator")
        # A link is good for one session.
        link = (await api.post("/v1/session/links")).json()["link"]
        assert (await api.post("/v1/session", json={"link": link})).status_code == 200
        await page.goto(f"{url}/#/enter/{link}")
        await expect(page.get_by_role("alert")).to_contain_text("opened already")


async def test_one_language_at_a_time_and_it_is_remembered(tmp_path: Path, page: Page) -> None:
    async with console(tmp_path) as (url, _store, api):
        await sign_in(page, url, api)
        await page.locator("#language").click()
        await expect(page.locator("#nav")).to_contain_text("全省总览")
        await page.goto(f"{url}/#/unit/motor-1")
        await expect(page.locator("h2").first).to_have_text("测点")
        await expect(page.locator('tr[data-signal="winding_temp"] th')).to_contain_text("绕组温度")
        await page.goto(url)
        words = await page.locator("body").inner_text()
        assert re.findall(r"[A-Za-z]{4,}", words.replace("HTTP", "").replace("OpenAPI", "")) == [
            "English",
            "JSON",
        ]


async def test_every_page_shows_without_complaints_and_fits_a_phone(tmp_path: Path, page: Page) -> None:
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    async with console(tmp_path) as (url, _store, api):
        await sign_in(page, url, api)
        await page.set_viewport_size({"width": 390, "height": 844})
        for path in (
            "alarms",
            "connect",
            "pipeline",
            "programme",
            "model",
            "place/370200",
            "enterprise/works",
        ):
            await page.goto(f"{url}/#/{path}")
            await expect(page.locator(f".page-{path.split('/')[0]} .panel").first).to_be_visible()
            assert await page.evaluate("document.documentElement.scrollWidth") <= 390, path
        assert said == []
