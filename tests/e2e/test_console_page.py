"""The console in a real browser, on a real platform: what it shows, and what it says when that leaves."""

import contextlib
import itertools
import json
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from console_tour import pages
from console_world import ARGUMENTS
from playwright.async_api import Page, async_playwright, expect
from pydantic import SecretStr
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.catalogue.places import CITIES, COUNTIES
from qilu_contract.storage import MEASUREMENTS, Point
from qilu_contract.store import Store
from qilu_contract.wire.ids import unit_id
from qilu_platform.service import PlatformService
from qilu_platform.settings import Settings
from qilu_stores import open_store

KEY = "a-key-for-the-console-test-only"
PATIENCE_MS = 30_000
KINDS = ("infrastructure", "platform", "business", "equipment")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with open_store(f"duckdb:///{tmp_path}/readings.duckdb", None) as opened:
        yield opened


def platform(tmp_path: Path, store: Store, port: int = 0) -> PlatformService:
    settings = Settings(db_url=f"sqlite:///{tmp_path}/registry.sqlite", port=port, api_key=SecretStr(KEY))
    return PlatformService(settings, store)


@contextlib.asynccontextmanager
async def browsing(chromium: str, **context: object) -> AsyncIterator[Page]:
    expect.set_options(timeout=PATIENCE_MS)
    async with (
        async_playwright() as playwright,
        await playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS) as browser,
    ):
        opened = await browser.new_context(**context)  # type: ignore[arg-type]
        yield await opened.new_page()


def client(url: str) -> httpx.AsyncClient:
    headers = {"Authorization": f"Bearer {KEY}"}
    return httpx.AsyncClient(base_url=url, headers=headers, timeout=60.0, trust_env=False)


async def post(api: httpx.AsyncClient, path: str, *objects: dict[str, str]) -> None:
    """Create objects in bulk, every one of them."""
    lines = "\n".join(json.dumps(one) for one in objects)
    answer = await api.post(path, content=lines, headers={"Content-Type": "application/x-ndjson"})
    assert answer.status_code == 200, answer.text
    assert answer.json()["errors"] == []


async def report_first_readings(api: httpx.AsyncClient, units: list[str]) -> None:
    now_ms = int(time.time() * 1000)
    for start in range(0, len(units), 1000):
        readings = [{"unit": unit, "ts_ms": now_ms} for unit in units[start : start + 1000]]
        answer = await api.post("/v1/ingest/first-readings", json={"readings": readings})
        assert answer.status_code == 200, answer.text
        assert answer.json()["counted"] == len(readings)


async def register_one_of_each(api: httpx.AsyncClient) -> None:
    works = {"id": "works", "name": "Works", "county": "370202", "industry": "C34"}
    await post(api, "/v1/enterprises/bulk", works)
    await post(api, "/v1/providers/bulk", {"id": "cloud", "name": "Cloud"})
    contract = {"id": "contract", "enterprise": "works", "provider": "cloud", "kind": "equipment"}
    await post(api, "/v1/contracts/bulk", contract)
    centre = await api.post("/v1/centres", json={"id": "centre", "name": "Centre", "city": "370200"})
    assert centre.status_code == 201, centre.text
    base = {"id": "base", "kind": "base", "place": "370200"}
    await post(api, "/v1/recognitions/bulk", base)
    units = [{"id": f"motor-{n}", "class": "motor", "enterprise": "works"} for n in range(3)]
    await post(api, "/v1/units/bulk", *units)


async def write_pipeline(store: Store, accepted_per_s: float) -> None:
    values: dict[str, float | int] = {
        name: 0 if type_ == "int" else 0.0 for name, type_ in MEASUREMENTS["pipeline"].fields.items()
    }
    values |= {"accepted_per_s": accepted_per_s, "stored_per_s": accepted_per_s, "lag_ms": 120.0}
    await store.write([Point("pipeline", ("qilu",), int(time.time() * 1000), values)])


async def test_the_page_follows_the_counts(tmp_path: Path, store: Store, chromium: str) -> None:
    async with platform(tmp_path, store) as service, client(service.url) as api, browsing(chromium) as page:
        said, asked = [], []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        await page.goto(service.url)
        await expect(page.locator("#stream-text")).to_have_text("Live")
        await expect(page.locator('[data-counter="units_on_cloud"]')).to_have_text("0")
        await expect(page.locator(".city")).to_have_count(len(CITIES))

        await register_one_of_each(api)
        await expect(page.locator('[data-counter="enterprises_on_cloud"]')).to_have_text("1")
        await expect(page.locator('[data-counter="providers"]')).to_have_text("1")
        await expect(page.locator('[data-counter="centres"]')).to_have_text("1")
        await expect(page.locator('[data-counter="bases"]')).to_have_text("1")
        await expect(page.locator('[data-counter="pilots"]')).to_have_text("0")
        qingdao = page.locator('#cities tr[data-key="370200"] td')
        await expect(qingdao.nth(0)).to_have_text("0 of 3")
        await expect(page.locator(".ticker")).to_contain_text("Qingdao: 1 more enterprises on cloud")

        await report_first_readings(api, ["motor-0", "motor-1"])
        await expect(page.locator('[data-counter="units_on_cloud"]')).to_have_text("2")
        await expect(qingdao.nth(0)).to_have_text("2 of 3")
        await expect(page.locator('#classes tr[data-key="motor"] td')).to_have_text("2 of 3")
        await expect(page.locator('.city[data-step="6"]')).to_have_attribute(
            "aria-label", "Qingdao: 2 units on cloud of 3 registered"
        )
        await write_pipeline(store, 1234.0)
        await expect(page.locator('.facts [data-key="accepted"] dd')).to_have_text("1,234/s")
        await expect(page.locator('.facts [data-key="lag"] dd')).to_have_text("120 ms")

        assert said == [], "the browser's console is quiet"
        assert [url for url in asked if not url.startswith(f"{service.url}/")] == []


async def test_the_map_is_walked_by_keyboard(tmp_path: Path, store: Store, chromium: str) -> None:
    async with platform(tmp_path, store) as service, client(service.url) as api, browsing(chromium) as page:
        await register_one_of_each(api)
        await page.goto(service.url)
        await expect(page.locator(".city[aria-label]")).to_have_count(len(CITIES))
        await page.keyboard.press("Tab")
        await expect(page.locator(".skip")).to_be_focused()
        await page.keyboard.press("Enter")
        await page.keyboard.press("Tab")
        focused = page.locator(".city:focus")
        await expect(focused).to_have_attribute("aria-label", re.compile("^Jinan: "))
        await expect(page.locator(".readout strong")).to_have_text("Jinan")

        # From the capital to the east, until the sea.
        for _ in CITIES:
            await page.keyboard.press("ArrowRight")
        await expect(focused).to_have_attribute("aria-label", re.compile("^Weihai: "))
        await page.keyboard.press("Enter")
        await expect(page.locator("h1")).to_have_text("Weihai")
        await page.go_back()
        await expect(page.locator(".city[aria-label]")).to_have_count(len(CITIES))


async def test_the_page_says_when_the_platform_is_gone_and_comes_back(
    tmp_path: Path, store: Store, chromium: str
) -> None:
    async with browsing(chromium) as page:
        async with platform(tmp_path, store) as service:
            port = int(service.url.rsplit(":", 1)[1])
            await page.goto(service.url)
            await expect(page.locator("#stream-text")).to_have_text("Live")
        await expect(page.locator("#stream-text")).to_have_text("Connection lost, trying again")
        async with platform(tmp_path, store, port) as service, client(service.url) as api:
            await expect(page.locator("#stream-text")).to_have_text("Live")
            await register_one_of_each(api)
            await expect(page.locator('[data-counter="providers"]')).to_have_text("1")


async def test_pages_asked_for_while_the_platform_is_gone_come_with_it(
    tmp_path: Path, store: Store, chromium: str
) -> None:
    async with browsing(chromium) as page:
        async with platform(tmp_path, store) as service:
            port = int(service.url.rsplit(":", 1)[1])
            await page.goto(f"{service.url}/?lang=en")
            await expect(page.locator("#stream-text")).to_have_text("Live")
        for name, path in pages("motor-1", "works", "370202").items():
            if name in ("sign-in", "connect-unit"):  # needs nothing; is the page of another
                continue
            await page.evaluate("path => { location.hash = `#/${path}`; }", path)
            asking = name in (
                "province",
                "city",
                "county",
                "enterprise",
                "unit",
                "pipeline",
                "programme",
                "model",
            )
            if asking:
                await expect(page.locator(f".page-{page_of(path)}")).to_contain_text("does not answer")
            await expect(page.locator("#stream-text")).to_have_text("Connection lost, trying again")
        await page.evaluate("location.hash = '#/place/370202'")
        await expect(page.locator(".page-place")).to_contain_text("does not answer")
        async with platform(tmp_path, store, port):
            await expect(page.locator("h1")).to_have_text("Shinan District")
            await expect(page.locator("#stream-text")).to_have_text("Live")


def page_of(path: str) -> str:
    """The page's class, by its address."""
    return path.split("/")[0].split("?")[0] or "province"


async def test_nothing_sticks_out_of_a_narrow_page_and_a_picture_is_taken(
    tmp_path: Path, store: Store, chromium: str
) -> None:
    wide, narrow = tmp_path / "console.png", tmp_path / "console-narrow.png"
    async with platform(tmp_path, store) as service, client(service.url) as api:
        units = await register_a_province(api)
        await report_first_readings(api, units)
        for width, picture in ((360, narrow), (1360, wide)):
            view = {"width": width, "height": 900}
            async with browsing(chromium, viewport=view, reduced_motion="reduce") as page:
                await page.goto(service.url)
                await expect(page.locator('[data-counter="units_on_cloud"]')).to_have_text(f"{len(units):,}")
                await write_pipeline(store, 1437.0 + width)
                rate = page.locator('.facts [data-key="accepted"] dd')
                await expect(rate).to_have_text(f"{1437 + width:,}/s")
                assert await page.evaluate("document.documentElement.scrollWidth") <= width
                await page.screenshot(path=picture, full_page=True)
                assert picture.stat().st_size > 10_000


async def register_a_province(api: httpx.AsyncClient) -> list[str]:
    """Some units of every class all over the province; returns those that are to come on cloud."""
    counties = [county for county in COUNTIES.values() if county.kind != "zone"]
    names = {county.code: f"{county.code}-works" for county in counties}
    enterprises = [
        {
            "id": names[county.code],
            "name": f"Works of {county.name}",
            "county": county.code,
            "industry": "C31",
        }
        for county in counties
    ]
    await post(api, "/v1/enterprises/bulk", *enterprises)
    await post(api, "/v1/providers/bulk", *({"id": f"cloud-{n}", "name": f"Cloud {n}"} for n in range(12)))
    contracts = [
        {
            "id": f"c-{n}",
            "enterprise": names[county.code],
            "provider": f"cloud-{n % 12}",
            "kind": KINDS[n % 4],
        }
        for n, county in enumerate(counties)
        if n % 5
    ]
    await post(api, "/v1/contracts/bulk", *contracts)
    units, coming = [], []
    for county, (position, name) in itertools.product(counties, enumerate(CATALOGUE)):
        city = list(CITIES).index(county.city)
        few = {"blast_furnace": 1, "wind_turbine": 2, "motor": 4 + city % 7 * 3}
        how_many = few.get(name, 2 + (city + position) % 3)
        for number in range(how_many):
            unit = unit_id(county.code, name, number)
            units.append({"id": unit, "class": name, "enterprise": names[county.code]})
            if number % 4 < 3:
                coming.append(unit)
    await post(api, "/v1/units/bulk", *units)
    return coming
