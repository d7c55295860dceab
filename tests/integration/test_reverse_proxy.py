"""The platform under a path and behind TLS, at a real reverse proxy set up as docs/operations.md says."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from console_world import ARGUMENTS
from playwright.async_api import async_playwright, expect
from pydantic import SecretStr
from qilu_platform.broker.authority import Authority
from qilu_platform.service import PlatformService
from qilu_platform.settings import Settings

ROOT = Path(__file__).parents[2]
ADMIN = "the-admin-key-of-this-test"
HUNG_S = 60.0

CONF = """\
daemon off; pid {home}/pid; error_log stderr warn; {user}
events {{}}
http {{
  access_log off;
  client_body_temp_path {home}/body; proxy_temp_path {home}/proxy; fastcgi_temp_path {home}/fastcgi;
  uwsgi_temp_path {home}/uwsgi; scgi_temp_path {home}/scgi;
  server {{
    listen 127.0.0.1:{port} ssl;
    ssl_certificate {home}/tls/server.crt; ssl_certificate_key {home}/tls/server.key;
{location}
  }}
}}
"""


def documented_location(port: int) -> str:
    """The lines of docs/operations.md, with the platform's port."""
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    found = re.search(r"```nginx\n(.*?)```", text, re.DOTALL)
    assert found is not None
    return found[1].replace("127.0.0.1:8000", f"127.0.0.1:{port}")


@asynccontextmanager
async def behind_nginx(tmp_path: Path, port: int) -> AsyncIterator[httpx.AsyncClient]:
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        if os.environ.get("CI") == "true":
            pytest.fail("nginx is not installed", pytrace=False)
        pytest.skip("nginx is not installed")
    Authority.open(tmp_path / "ca").ensure_server(tmp_path / "tls", ["127.0.0.1"])
    given = Settings(
        db_url=f"sqlite:///{tmp_path}/platform.db",
        store_url=f"duckdb:///{tmp_path}/readings.duckdb",
        port=0,
        api_key=SecretStr(ADMIN),
    )
    async with asyncio.timeout(HUNG_S), PlatformService(given) as service:
        location = documented_location(int(service.url.rsplit(":", 1)[1]))
        user = "user root;" if os.geteuid() == 0 else ""
        conf = tmp_path / "nginx.conf"
        conf.write_text(CONF.format(home=tmp_path, port=port, location=location, user=user))
        proxy = subprocess.Popen([program, "-c", str(conf), "-p", str(tmp_path)])  # noqa: ASYNC220
        try:
            async with httpx.AsyncClient(
                base_url=f"https://127.0.0.1:{port}",
                verify=ssl.create_default_context(cafile=tmp_path / "tls" / "ca.crt"),
                headers={"Authorization": f"Bearer {ADMIN}"},
                timeout=HUNG_S,
                trust_env=False,
            ) as client:
                while True:
                    try:
                        await client.get("/qilu/healthz")
                        break
                    except httpx.ConnectError:
                        assert proxy.poll() is None
                        await asyncio.sleep(0.02)
                yield client
        finally:
            proxy.terminate()
            proxy.wait()


async def test_page_api_and_events_work_under_a_path_and_tls(
    tmp_path: Path, free_port: Callable[[], int], chromium: str
) -> None:
    async with behind_nginx(tmp_path, free_port()) as client:
        page = await client.get("/qilu", follow_redirects=True)
        assert (page.status_code, page.url.path) == (200, "/qilu/")
        async with client.stream("GET", "/qilu/v1/events") as events:
            async for line in events.aiter_lines():
                if line.startswith("data:") and "registered" in json.loads(line.removeprefix("data:")):
                    break
        assert (await client.get("/qilu/openapi.json")).json()["servers"][0]["url"] == "/qilu"
        body = {"name": "Works", "county": "370202", "industry": "C31"}
        made = await client.post("/qilu/v1/enterprises", json=body)
        assert made.headers["location"] == f"/qilu/v1/enterprises/{made.json()['id']}"
        assert (await client.get(made.headers["location"])).json()["name"] == "Works"
        await _is_live(str(page.url), chromium)


async def _is_live(url: str, chromium: str) -> None:
    """In a browser: everything comes from below the path, and the counts by the event stream."""
    asked: list[str] = []
    failed: list[str] = []
    async with (
        async_playwright() as playwright,
        await playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS) as browser,
        await browser.new_context(ignore_https_errors=True) as context,
    ):
        page = await context.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: failed.append(str(error)))
        page.on("console", lambda message: failed.append(message.text))
        await page.goto(url)
        await expect(page.get_by_text("Live", exact=True)).to_be_visible(timeout=HUNG_S * 1000)
        for name in ("Alarms", "Programme"):
            await page.get_by_role("link", name=name).click()
            await expect(page.locator("h1")).to_be_visible()
    assert [each for each in asked if not each.startswith(url)] == []
    assert any("/v1/events" in each for each in asked)
    assert failed == []
