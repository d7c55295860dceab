"""The console's map of a city, and charts that have little to show."""

from __future__ import annotations

import time
from pathlib import Path

import httpx
from console_world import browsing, served, sign_in
from playwright.async_api import expect
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.catalogue.places import COUNTIES
from qilu_contract.storage import MEASUREMENTS, Point

TAGS = ("370200", "370202", "C34", "works", "motor-1")
HOUR_MS = 3_600_000


async def one_motor(api: httpx.AsyncClient) -> None:
    works = {"id": "works", "name": "Works", "county": "370202", "industry": "C34"}
    for path, body in (
        ("/v1/enterprises", works),
        ("/v1/units", {"id": "motor-1", "class": "motor", "enterprise": "works"}),
    ):
        answer = await api.post(path, json=body)
        assert answer.status_code == 201, answer.text


def rolled_up(measurement: str, signal: str, ts_ms: int, **fields: float) -> Point:
    """A roll-up of the motors in Shinan District."""
    tags = {"level": "county", "place": "370202", "class": "motor", "signal": signal}
    about = MEASUREMENTS[measurement]
    return Point(measurement, tuple(tags.get(tag, "test") for tag in about.tags), ts_ms, dict(fields))


async def test_a_city_shows_its_counties_and_where_something_arrives(tmp_path: Path, chromium: str) -> None:
    said: list[str] = []
    async with served(tmp_path) as (url, store, api), browsing(chromium, said) as page:
        await one_motor(api)
        now_ms = int(time.time() * 1000)
        await page.goto(f"{url}/?lang=en#/place/370200")
        counties = [each for each in COUNTIES.values() if each.city == "370200"]
        await expect(page.locator(".city[aria-label]")).to_have_count(len(counties))
        await expect(page.get_by_text("These are not its borders")).to_be_visible()
        base = CATALOGUE["motor"].base_signal.name
        minute_ms = now_ms // 60_000 * 60_000
        province = rolled_up("fleet", base, minute_ms, n=5)
        at = MEASUREMENTS["fleet"].tags
        tags = tuple(
            "province" if tag == "level" else value for tag, value in zip(at, province.tags, strict=True)
        )
        await store.write([Point("fleet", tags, minute_ms, {"n": 5}), province])
        await page.locator(".pulse.reading").first.wait_for(state="attached")

        await page.locator('.city[tabindex="0"]').focus()
        await page.keyboard.press("ArrowUp")
        focused = page.locator(".city:focus")
        code = await focused.get_attribute("data-code")
        assert code != "370202"
        await page.keyboard.press("Enter")
        await expect(page.locator("h1")).to_have_text(COUNTIES[str(code)].name)
        assert said == []


async def test_a_single_value_is_shown_and_lines_are_there_at_first_paint(
    tmp_path: Path, chromium: str
) -> None:
    said: list[str] = []
    async with served(tmp_path) as (url, store, api), browsing(chromium, said) as page:
        await one_motor(api)
        now_ms = int(time.time() * 1000)
        hour_ms = now_ms // HOUR_MS * HOUR_MS
        await store.write(
            [
                Point("motor", TAGS, now_ms - 60_000, {"power_in": 11.5, "vibration": 1.0}),
                Point("motor", TAGS, now_ms - 30_000, {"power_in": 12.5}),
                # Two gateways began their row of this hour at different seconds: one hour all the same.
                rolled_up("fleet_hourly", "energy_kWh", hour_ms + 7_003, sum=30.0),
                rolled_up("fleet_hourly", "energy_kWh", hour_ms + 9_411, sum=12.0),
            ]
        )
        await sign_in(page, url, api)
        await page.goto(f"{url}/#/unit/motor-1?signal=vibration")
        await expect(page.locator(".chart .point")).to_have_count(1)
        await expect(page.locator('tr[data-signal="power_in"] .spark path[d*="L"]')).to_have_count(1)
        assert (await api.get("/v1/places/370202/energy")).json()["rows"] == [[hour_ms, 42.0, 0.0]]
        await page.goto(f"{url}/#/place/370202")
        await expect(page.locator(".chart .point")).to_have_count(2)
        await expect(page.locator(".card").nth(2)).to_contain_text("42")
        assert said == []
