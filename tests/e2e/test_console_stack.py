"""The console on a whole embedded stack, as `qilu up` starts it: a newcomer's way from the printed link to
the first reading of a new device, and a fault from the click to the cleared alarm."""

from __future__ import annotations

import asyncio
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from console_up import Up, working_hour
from console_world import ARGUMENTS
from playwright.async_api import Locator, Page, async_playwright, expect

SCENARIO = 'name: pumps\nunits: 6\nseed: 5\nclasses: {pump: 1}\ncities: {"370200": 1}\n'


@pytest.fixture
def up(tmp_path: Path, free_port: Callable[[], int]) -> Iterator[Up]:
    scenario = tmp_path / "pumps.yaml"
    scenario.write_text(SCENARIO)
    ports = {name: free_port() for name in ("--port", "--mqtt-port", "--metrics-port")}
    running = Up(tmp_path / "state", ports, "--start", working_hour(), "--scenario", scenario)
    yield running
    running.process.send_signal(signal.SIGINT)
    running.process.wait(60)


async def test_a_newcomer_connects_a_device_and_breaks_a_pump(up: Up, chromium: str) -> None:
    expect.set_options(timeout=60_000)
    said: list[str] = []
    asked: list[str] = []
    link = up.link()
    async with (
        async_playwright() as playwright,
        await playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS) as browser,
    ):
        page = await (await browser.new_context(viewport={"width": 1440, "height": 900})).new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.on("response", lambda r: said.append(f"{r.status} {r.url}") if r.status >= 400 else None)
        await page.goto(link)
        await expect(page.locator("#account")).to_have_text("Administrator")
        await connects_a_device(up, page)
        await connects_a_generic_device(up, page)
        await breaks_a_pump(page)
        url = link.split("/#")[0]
        await page.goto(f"{url}/#/pipeline")
        await expect(page.locator(".letters tbody tr").first).to_contain_text("looks like seconds")
        assert await page.evaluate("fetch('v1/what-if').then((answer) => answer.json())") == {
            "available": True
        }
        assert said == []
        assert [each for each in asked if not each.startswith((f"{url}/", f"blob:{url}/"))] == []


async def registers(page: Page, enterprise: str, name: str) -> Locator:
    """Registers a device of a new enterprise; returns the code that the page shows then."""
    await page.locator('select[name="which"]').select_option("+")
    await page.locator('input[name="new-enterprise"]').fill(enterprise)
    await page.locator('input[name="name"]').fill(name)
    await page.get_by_role("button", name="Register").click()
    return page.locator("pre code")


async def connects_a_device(up: Up, page: Page) -> None:
    await page.get_by_role("link", name="Connect a device").click()
    code = await registers(page, "Newcomer Ltd", "My motor")
    await expect(code).to_contain_text("mosquitto_pub")
    await expect(page.get_by_text("Waiting for the first reading")).to_be_visible()
    found = re.search(r"-t (\S+)", await code.inner_text())
    assert found is not None
    up.publish(found[1], {"ts": int(time.time()), "power_in": 11.2})
    await expect(page.locator(".problems")).to_contain_text("looks like seconds")
    # With the password of this device, by the program that the page shows.
    await page.get_by_role("button", name="Make a password for this device").click()
    await expect(page.locator(".device-password .secret")).to_be_visible()
    await page.get_by_role("button", name="Python").click()
    program = await code.inner_text()
    device = await asyncio.create_subprocess_exec(sys.executable, "-c", program)
    try:
        await expect(page.get_by_text("the device is on cloud")).to_be_visible()
    finally:
        device.kill()
        await device.wait()
    await page.get_by_role("button", name="Revoke the password").click()
    await expect(page.locator(".device-password")).to_contain_text("is revoked")
    await expect(code).to_contain_text("QILU_MQTT_PASSWORD")
    up.publish(found[1], {"ts": int(time.time() * 1000), "power_in": 11.2})
    await page.get_by_role("link", name="See it live").click()
    await expect(page.locator("h1")).to_have_text("My motor")
    await expect(page.locator('.now[data-signal="power_in"]')).to_have_text("11.2")


async def connects_a_generic_device(up: Up, page: Page) -> None:
    """Its signals appear on its page with the readings that have them; nothing is restarted."""
    await page.get_by_role("link", name="Connect a device").click()
    await page.locator('select[name="class"]').select_option("generic")
    await expect(page.get_by_text("it sends any numbers and booleans")).to_be_visible()
    # A class made here: its titles, units and ranges are on the page with the first reading.
    await page.locator('select[name="class"]').select_option("+")
    form = page.get_by_role("group", name="Describe the class")
    await form.get_by_label("Title (English)").first.fill("Greenhouse")
    await form.get_by_label("Field in the message").fill("Soil moisture")
    await form.get_by_label("Title (English)").nth(1).fill("Moisture of the soil")
    await form.get_by_label("Unit", exact=True).fill("%")
    await form.get_by_label("Lowest").fill("20")
    await form.get_by_label("Highest").fill("80")
    code = await registers(page, "Tinkerer Ltd", "Greenhouse")
    await expect(code).to_contain_text('"soil_moisture":50')
    found = re.search(r"-t (\S+)", await code.inner_text())
    assert found is not None
    up.publish(found[1], {"Soil moisture": 0.31, "vent": True, "firmware": "1.2"})
    await expect(page.locator(".problems")).to_contain_text("a generic device sends numbers and booleans")
    await page.get_by_role("link", name="See it live").click()
    await expect(page.locator("h1")).to_have_text("Greenhouse")
    await expect(page.locator('.now[data-signal="soil_moisture"]')).to_have_text("0.31")
    soil = page.locator('tr[data-signal="soil_moisture"]')
    await expect(soil).to_contain_text("Moisture of the soil")
    await expect(soil).to_have_attribute("data-level", "outside")
    await expect(page.get_by_text("Greenhouse").nth(1)).to_be_visible()
    await expect(page.locator('.now[data-signal="vent"]')).to_have_text("1")
    up.publish(found[1], {"Soil moisture": 0.3, "lux": 5400})
    await expect(page.locator('.now[data-signal="lux"]')).to_have_text("5,400")
    await page.get_by_role("button", name="lux").click()
    await expect(page.get_by_role("heading", name="lux")).to_be_visible()
    await page.reload()
    await expect(page.locator('.now[data-signal="lux"]')).to_have_text("5,400")


async def breaks_a_pump(page: Page) -> None:
    await page.locator(".brand").click()
    await page.locator("#cities a").first.wait_for()
    await page.get_by_label("Search").fill("37")
    units = await page.evaluate("fetch('v1/units?class=pump').then((answer) => answer.json())")
    pump = units["items"][0]["id"]
    await page.goto(f"{page.url.split('#')[0]}#/unit/{pump}?signal=casing_accel")
    await expect(page.locator('.now[data-signal="casing_accel"]')).not_to_have_text("–")
    await page.get_by_label("Fault", exact=True).select_option("cavitation")
    await page.get_by_role("button", name="Now").click()
    await expect(page.locator(".commands li").first).to_contain_text("Accepted")
    alarm = page.locator("table.alarms tbody tr", has_text="Casing acceleration")
    await expect(alarm).to_have_attribute("data-state", "open")
    # The truth beside it: the fault that was played, and how long the limit took.
    truth = page.locator('.truth li[data-fault="cavitation"]')
    await expect(truth.locator(".seen").first).to_contain_text("alarm after")
    await alarm.get_by_role("button", name="Acknowledge").click()
    await expect(alarm).to_have_attribute("data-state", "acknowledged")
    await page.get_by_role("button", name="Repair").click()
    await expect(alarm).to_have_attribute("data-state", "cleared")
