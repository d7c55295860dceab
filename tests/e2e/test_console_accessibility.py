"""The console for people who use a screen reader or a keyboard, and for those whose platform goes away."""

from __future__ import annotations

import itertools
import os
import time
from pathlib import Path

from axe_playwright_python.async_playwright import Axe
from console_tour import pages, tour
from console_world import browsing, served, sign_in
from qilu_contract.storage import Point

TAGS = ("370200", "370202", "C34", "works", "motor-1")
EVERY_LOOK = list(itertools.product(("en", "zh"), ("light", "dark")))
LOOKS = EVERY_LOOK if os.environ.get("QILU_SOAK") == "1" else [("en", "light")]
WORKS = {"id": "works", "name": "Works", "county": "370202", "industry": "C34"}
MOTOR = {"id": "motor-1", "class": "motor", "enterprise": "works"}


async def test_axe_finds_nothing_serious_on_any_page(tmp_path: Path, chromium: str) -> None:
    """Every language and theme with QILU_SOAK=1."""
    said: list[str] = []
    found: list[str] = []
    async with served(tmp_path) as (url, store, api), browsing(chromium, said) as page:
        for path, body in (("/v1/enterprises", WORKS), ("/v1/units", MOTOR)):
            assert (await api.post(path, json=body)).status_code == 201
        now_ms = int(time.time() * 1000)
        await store.write([Point("motor", TAGS, now_ms - ago, {"power_in": 11.5}) for ago in (9000, 5000)])
        alarm = {"open": 1, "value": 8.0, "limit": 7.1, "worst": 8.2, "ratio": 1.15, "duration_s": 0.0}
        tags = ("370000", *TAGS, "motor", "vibration")
        await store.write([Point("alarm", tags, now_ms - 60_000, alarm)])
        first = {"readings": [{"unit": "motor-1", "ts_ms": now_ms}]}
        assert (await api.post("/v1/ingest/first-readings", json=first)).status_code == 200
        await page.emulate_media(reduced_motion="reduce")
        await sign_in(page, url, api)
        async for language, theme, name in tour(page, url, pages("motor-1", "works", "370202"), LOOKS):
            results = await Axe().run(page)
            found += [
                f"{language} {theme} {name}: {each['impact']} {each['id']} {each['nodes'][0]['target']}"
                for each in results.response["violations"]
            ]
        assert found == []
        assert [each for each in said if "404" not in each] == []
