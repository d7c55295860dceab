"""The programme as a show in the browser: paused, resumed, over, and begun again with another scenario."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from console_world import browsing
from gateway_world import eventually
from playwright.async_api import Page, expect

QILU = Path(sys.executable).parent / "qilu"


@pytest.mark.skipif(os.environ.get("QILU_SOAK") != "1", reason="half a minute and more: in `make soak`")
async def test_a_run_is_paused_resumed_and_begun_again_in_the_browser(
    tmp_path: Path, chromium: str, free_port: Callable[[], int], mosquitto_program: str
) -> None:
    port, state, output = free_port(), tmp_path / "live", tmp_path / "out"
    url, said = f"http://127.0.0.1:{port}", list[str]()
    command = [str(QILU), "programme", "run", "--live", "--state", str(state), "--port", str(port)]
    command += ["--mqtt-port", str(free_port()), "--scale", "1/5000", "--until", "2017-12"]

    def qilu(*words: str) -> str:
        line = [str(QILU), "programme", *words, "--state", str(state)]
        return subprocess.run(line, capture_output=True, text=True, timeout=60, check=True).stdout

    async with browsing(chromium, said) as page:
        with output.open("wb") as out:
            stack = await asyncio.create_subprocess_exec(
                *command, stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )
        try:
            async with asyncio.timeout(180):  # a machine with much else to do
                while "/#/enter/" not in output.read_text():
                    await asyncio.sleep(0.05)
            key = (state / "keys" / "admin.key").read_text().strip()
            headers = {"Authorization": f"Bearer {key}"}
            async with httpx.AsyncClient(base_url=url, headers=headers, trust_env=False) as api:
                while (await api.post("/v1/programme/replay/pause")).status_code == 409:  # not there yet
                    await asyncio.sleep(0.02)
            link = re.search(r"\S+/#/enter/\S+", output.read_text())
            assert link is not None
            await page.goto(link[0])
            await expect(page.locator("#account")).to_have_text("Administrator")
            await page.get_by_role("link", name="Programme").click()
            show = page.locator(".replay")
            await expect(show).to_contain_text("paused")
            await show.get_by_role("button", name="Resume").click()
            await show.get_by_label("Speed").select_option("0.1 months per second")
            await expect(show.locator(".of")).to_contain_text("0.1 months per second")
            await show.get_by_label("Speed").select_option("as fast as possible")
            await expect(show.locator(".of")).to_contain_text("as fast as possible")
            await show.get_by_role("button", name="Pause").click()
            await expect(show).to_have_attribute("data-state", "paused")
            assert "default: paused" in await asyncio.to_thread(qilu, "status")
            await asyncio.to_thread(qilu, "resume")
            # It is over, and everything is still there.
            await expect(show).to_contain_text("the run is over")
            await expect(show.locator(".number")).to_have_text("December 2017")
            await eventually(lambda: "until Ctrl-C" in output.read_text(), "over")
            counted = page.locator('tr[data-key="enterprises_on_cloud"] td').first
            assert await counted.text_content() != "0"
            said.clear()
            await begin_again(page, state)
            # The browser reports requests that failed meanwhile, and nothing else.
            assert [each for each in said if "Failed to load resource" not in each] == []
            stack.send_signal(signal.SIGINT)
            assert await asyncio.wait_for(stack.wait(), 60) == 0, output.read_text()
        finally:
            if stack.returncode is None:
                stack.kill()
                await stack.wait()


async def begin_again(page: Page, state: Path) -> None:
    """The page finds the platform again, and its visitor is still signed in."""
    show = page.locator(".replay")
    await show.get_by_role("button", name="Play again").click()
    await page.get_by_role("dialog").get_by_label("Scenario").select_option("slow")
    await page.get_by_role("button", name="Begin").click()
    await expect(show).to_contain_text("Scenario slow", timeout=180_000)
    assert (state / "before" / "registry.sqlite").exists()
    await show.get_by_role("button", name="Pause").click()
    await expect(show).to_have_attribute("data-state", "paused")
