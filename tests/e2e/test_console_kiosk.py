"""The console on a video wall."""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path

import httpx
from console_world import browsing, served
from playwright.async_api import Page, expect
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.catalogue.places import CITIES, COUNTIES

VIEWS = 5
WALLS = ((1920, 1080), (3840, 1080))


async def test_nothing_on_a_wall_is_cut_or_below_the_fold(tmp_path: Path, chromium: str) -> None:
    said: list[str] = []
    found: list[tuple[int, str, int, str]] = []
    async with served(tmp_path) as (url, _store, api), browsing(chromium, said) as page:
        await fill(api)
        for (width, height), language in itertools.product(WALLS, ("en", "zh")):
            await page.set_viewport_size({"width": width, "height": height})
            await page.goto(f"{url}/?kiosk&lang={language}")
            await expect(page.locator(".view").first).to_be_visible()
            await expect(page.locator("#map [data-step='6']").first).to_be_visible()
            for view in range(VIEWS):
                found += [(width, language, view, each) for each in await cut(page)]
                await page.keyboard.press("ArrowRight")
        assert found == []
        assert said == []


async def test_views_come_in_turn_and_can_be_stopped(tmp_path: Path, chromium: str) -> None:
    said: list[str] = []
    async with served(tmp_path) as (url, _store, _api), browsing(chromium, said, 1920, 1080) as page:
        await page.clock.install()
        await page.goto(f"{url}/?kiosk&lang=en")
        title = page.locator(".view h2").first
        await expect(title).to_have_text("Units over time")
        await page.clock.run_for(12_100)
        await expect(title).to_have_text("What happens")
        await page.get_by_role("button", name="Pause").click()
        await page.clock.run_for(30_000)
        await expect(title).to_have_text("What happens")
        await page.get_by_role("link", name="Leave").click()
        await expect(page.locator("#nav")).to_be_visible()
        assert said == []


async def cut(page: Page) -> list[str]:
    """Elements that extend beyond the window, or beyond their panel."""
    found: list[str] = await page.evaluate(
        """() => {
          const wrong = [];
          for (const panel of document.querySelectorAll(".page-kiosk .panel, .page-kiosk .card")) {
            const box = panel.getBoundingClientRect();
            const name = panel.getAttribute("aria-label") ?? panel.className;
            if (box.bottom > innerHeight || box.right > innerWidth) wrong.push(`${name} leaves the window`);
            if (panel.scrollHeight > panel.clientHeight + 1) wrong.push(`${name} is cut`);
            if (panel.scrollWidth > panel.clientWidth + 1) wrong.push(`${name} is too wide`);
          }
          return wrong;
        }"""
    )
    return found


async def fill(api: httpx.AsyncClient) -> None:
    """Enterprises in every city, units of every class, most of them on cloud."""
    places = [next(each for each in COUNTIES.values() if each.city == city) for city in CITIES]
    works = [
        {"id": f"works-{place.city}", "name": "Works", "county": place.code, "industry": "C31"}
        for place in places
    ]
    kinds = ("infrastructure", "platform", "business", "equipment")
    contracts = [
        {"id": f"c-{n}", "enterprise": each["id"], "provider": "cloud", "kind": kinds[n % 4]}
        for n, each in enumerate(works)
    ]
    units = [
        {"id": f"{city}-{name}-{n}".replace("_", "-"), "class": name, "enterprise": f"works-{city}"}
        for at, city in enumerate(CITIES)
        for name in CATALOGUE
        for n in range(1 + at % 5)
    ]
    for path, lines in (
        ("/v1/enterprises/bulk", works),
        ("/v1/providers/bulk", [{"id": "cloud", "name": "Cloud"}]),
        ("/v1/contracts/bulk", contracts),
        ("/v1/units/bulk", units),
    ):
        body = "\n".join(json.dumps(line) for line in lines)
        answer = await api.post(path, content=body, headers={"Content-Type": "application/x-ndjson"})
        assert answer.json()["errors"] == []
    now_ms = int(time.time() * 1000)
    readings = [{"unit": each["id"], "ts_ms": now_ms} for each in units[: len(units) * 3 // 4]]
    answer = await api.post("/v1/ingest/first-readings", json={"readings": readings})
    assert answer.status_code == 200, answer.text
