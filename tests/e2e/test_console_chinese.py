"""The console in Chinese: what is left in English are identifiers, units of measure and proper names."""

from __future__ import annotations

import re
import time
from importlib.resources import files
from pathlib import Path

from console_tour import pages, visit
from console_world import browsing, served, sign_in
from playwright.async_api import Page, expect
from qilu_contract.catalogue.generic import REGISTRABLE
from qilu_contract.catalogue.places import PROVINCE
from qilu_contract.storage import Point

ASSUMPTIONS = Path(str(files("qilu_programme").joinpath("data", "figures.csv")))
TAGS = ("370200", "370202", "C34", "9001")
WORKS = {"id": "9001", "name": "青岛海风机械厂", "county": "370202", "industry": "C34"}
SOIL = {"name": "soil", "title": "Soil", "title_zh": "土壤", "unit": "%", "low": 0, "high": 100}
VENT = {"name": "vent", "title": "Vent", "title_zh": "通风"}
GREENHOUSE = {"title": "Greenhouse", "title_zh": "温室", "signals": [SOIL, VENT]}

TEXTS = """() => {
  const foreign = 'code, pre, script, style, noscript, [lang|="en"]';
  const found = [document.title];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const { data, parentElement } = walker.currentNode;
    if (!parentElement.closest(foreign)) found.push(data);
  }
  for (const name of ["aria-label", "title", "placeholder"]) {
    for (const node of document.querySelectorAll(`[${name}]`)) {
      if (!node.closest(foreign)) found.push(node.getAttribute(name));
    }
  }
  return found;
}"""
"""Every text that a reader or a screen reader finds, hidden ones included. Not what is marked as English: the
button for that language, and the API's or a gateway's words about a mistake, beside a reason in Chinese."""

UNITS = "Hz kW kWh MPa kPa Nm kg km mg mm cm ms min rpm deg dB vol mol kscmh MJ GJ CO NOx SO cos dT UTC rms"
PROTOCOLS = """API HTTP OpenAPI JSON NDJSON CSV UTF MQTT TLS YAML ESP Node RED Sparkplug Python mosquitto pub
APP Mosquitto Webhook webhook OEE qilu up docs own classes md zip Esc"""
STANDARDS = "ISO IEC GB DB NEMA MG ASME PTC ABMA IEA Task IF"
NAMES = """La Haute Borne Tautz Weinert Watson WES OpenOA Pandit Geerdes steelguru ifactoryapp Bloedt CWRU ABB
Sin AI TWF HDF PWF OSF RNF Forbes Marshall civilengineeringhandbook unitecd Liu PHME US Downs Vogel
midstreamly McKee SKAB other valve Albraik Haque helene BPFO BPFI IDV Bass Krishnan Jain"""
ALLOWED = frozenset(f"{UNITS} {PROTOCOLS} {STANDARDS} {NAMES}".split())


async def english(page: Page) -> list[str]:
    texts = await page.evaluate(TEXTS)
    return [
        f"{word}: {text.strip()}"
        for text in texts
        for word in re.findall(r"[A-Za-z]{2,}", text)
        if word not in ALLOWED
    ]


async def test_no_english_is_left_on_a_page_in_chinese(tmp_path: Path, chromium: str) -> None:
    said: list[str] = []
    found: dict[str, list[str]] = {}
    now_ms = int(time.time() * 1000)
    async with (
        served(tmp_path, assumptions=ASSUMPTIONS) as (url, store, api),
        browsing(chromium, said) as page,
    ):
        assert (await api.post("/v1/enterprises", json=WORKS)).status_code == 201
        for name in ("motor", "cnc", "generic"):
            unit = {"id": f"9001-{len(name)}", "class": name, "enterprise": "9001"}
            assert (await api.post("/v1/units", json=unit)).status_code == 201
        assert (await api.put("/v1/device-types/1", json=GREENHOUSE)).status_code == 200
        assert (await api.put("/v1/units/9001-7/device-type", json={"type": "1"})).status_code == 204
        await store.write([Point("motor", (*TAGS, "9001-5"), now_ms, {"power_in": 11.5, "vibration": 9.0})])
        running = {"spindle_speed": 1500.0, "parts": 1, "quality": 0, "failure": 0}
        await store.write([Point("cnc", (*TAGS, "9001-3"), now_ms - ago, running) for ago in (9000, 0)])
        alarm = {"open": 1, "value": 9.0, "limit": 7.1, "worst": 9.2, "ratio": 1.3, "duration_s": 0.0}
        tags = (PROVINCE, *TAGS, "9001-5", "motor", "vibration")
        await store.write([Point("alarm", tags, now_ms - 60_000, alarm)])
        first = {"readings": [{"unit": "9001-5", "ts_ms": now_ms}]}
        assert (await api.post("/v1/ingest/first-readings", json=first)).status_code == 200
        await api.get("/v1/units", headers={"Authorization": "Bearer nobody"})  # a security event
        seconds = 'ts 1764000000 looks like seconds: send milliseconds since 1970: {"ts": 1764000000}'
        problem = {"unit": "9001-5", "enterprise": "9001", "county": "370202", "reason": "bad_timestamp"}
        problem |= {"count": 1, "last_ms": now_ms, "excerpt": seconds}
        assert (await api.post("/v1/problems", json={"problems": [problem]})).status_code == 204
        standing = {"scenario": "1", "scale": 0.01, "month": "2019-10", "done": 25, "months": 63}
        assert (await api.put("/v1/programme/replay", json=standing)).status_code == 204
        await sign_in(page, url, api)
        addresses = pages("9001-5", "9001", "370202") | {"machine": "unit/9001-3", "generic": "unit/9001-7"}
        for name, path in addresses.items():
            await visit(page, url, path, "zh")
            if name == "machine":
                await expect(page.locator(".effectiveness details li").first).to_be_attached()
            if name == "unit":
                refused = 'ts 1764000000 像是秒：请发送 1970 年以来的毫秒数: {"ts": 1764000000}'
                await expect(page.locator(".problems code")).to_have_text(refused)
            found[name] = await english(page)
        await visit(page, url, "model", "zh")
        for name in REGISTRABLE:
            await page.get_by_label("数据范围").select_option(name)
            found[f"model of {name}"] = await english(page)
        await page.goto(f"{url}/?kiosk&lang=zh")
        await expect(page.locator(".view").first).to_be_visible()
        found["kiosk"] = await english(page)
    assert {name: each for name, each in found.items() if each} == {}
    assert [each for each in said if "404" not in each] == []
