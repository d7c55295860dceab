"""Actions in the console: dead letters, files, policies."""

from __future__ import annotations

import re
import secrets
import sys
from pathlib import Path
from typing import Any

import pytest
from console_world import KEY, browsing, served, sign_in
from gateway_world import Publisher, eventually, motor, online, telemetry
from playwright.async_api import expect
from qilu_gateway.settings import Settings as GatewaySettings


async def test_a_dead_letter_is_read_and_replayed(
    tmp_path: Path, chromium: str, mosquitto: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QILU_API_KEY", KEY)
    mosquitto.start()
    said: list[str] = []
    state = tmp_path / "gateway"
    async with served(tmp_path, gateway_state=state) as (url, _store, api), browsing(chromium, said) as page:
        settings = GatewaySettings(
            broker=mosquitto.url,
            platform=url,
            state=state,
            store=f"duckdb:///{tmp_path}/gateway.duckdb",
            http_port=0,
            host_id=f"host-{secrets.token_hex(4)}",
        )
        works = {"id": "370202-e00001", "name": "Works", "county": "370202", "industry": "C34"}
        assert (await api.post("/v1/enterprises", json=works)).status_code == 201
        publisher = Publisher(mosquitto)
        async with online(settings) as gateway:
            publisher.send_all([telemetry("late", [motor(0), motor(1)])])
            await eventually(lambda: gateway.counters.dead_lettered == 2, "refused")
            await sign_in(page, url, api)
            await page.goto(f"{url}/#/pipeline")
            row = page.locator(".letters tbody tr")
            await expect(row).to_contain_text("The unit is not registered")
            await row.locator("summary").click()
            await expect(row.locator("pre")).to_contain_text('"power_in"')

            unit = {"id": "late", "class": "motor", "enterprise": works["id"]}
            assert (await api.post("/v1/units", json=unit)).status_code == 201
            await row.get_by_role("button", name="Replay").click()
            await expect(page.locator(".letters [role=status]").first).to_have_text(
                "Accepted: 1. Refused again: 0."
            )
            await expect(row).to_have_count(0)
            await eventually(lambda: gateway.counters.stored == 2, "stored")
            log = (await api.get("/v1/audit?subject=dead_letters")).json()["items"]
            assert [each["detail"]["done"] for each in log] == [1]
        # The gateway is down, and the files of its endpoint give its last address.
        answer = await api.get("/v1/dead-letters")
        assert (answer.status_code, "gateway is unavailable" in answer.json()["detail"]) == (503, True)
        publisher.close()
        assert said == []


async def test_two_policies_are_compared(tmp_path: Path, chromium: str) -> None:
    said: list[str] = []
    model = (sys.executable, "-m", "qilu_programme.policy")
    async with served(tmp_path, model=model) as (url, _store, api), browsing(chromium, said) as page:
        await sign_in(page, url, api)
        await page.goto(f"{url}/#/programme")
        await page.get_by_role("link", name="What if").click()
        county = page.get_by_label("Voucher share of the county").last
        await expect(county).to_have_value("10")  # as in the plan
        await county.focus()
        await page.keyboard.press("Home")
        await page.get_by_role("button", name="Compare").click()
        row = page.locator("tbody tr", has_text="Enterprises on cloud")
        await expect(row).to_contain_text("340,470")
        # Fewer enterprises for less money, and the address says how.
        await expect(page.locator(".verdict")).to_contain_text("Money saved per enterprise fewer")
        await expect(page).to_have_url(re.compile("a=10-10-10-100-30&b=10-10-0-100-30"))
        # The rules of another province, with the same money.
        rules = page.get_by_label("Voucher rules").last
        await rules.select_option(label="As in Guangdong")
        second = page.locator("form .panel").last
        await expect(second).to_contain_text(
            "Only industry claims; of small enterprises 40%, micro enterprises 0%; claims from May to Sep"
        )
        await page.get_by_role("button", name="Compare").click()
        await expect(page).to_have_url(re.compile("b=10-10-0-100-30.guangdong-rules"))
        await expect(page.locator(".verdict")).to_contain_text("Money saved per unit fewer")
        await page.reload()
        await expect(page.get_by_label("Voucher rules").last).to_have_value("guangdong-rules")
        too_much = {"shares": {"province": 0.5, "city": 0.4}}
        assert (await api.post("/v1/what-if", json=too_much)).status_code == 422
        assert (await api.post("/v1/what-if", json={"rules": "slow"})).status_code == 422
        assert said == []


async def test_a_file_with_bad_rows_is_uploaded_in_pieces(tmp_path: Path, chromium: str) -> None:
    said: list[str] = []
    rows = ["id,class,enterprise,name", *(f"motor-{n},motor,works,{'Pump-' * 20}" for n in range(12_000))]
    rows[7] = "motor-x,motor,nobody,Pump"
    rows[11_000] = "motor-y,turnip,works,Pump"
    file = tmp_path / "units.csv"
    file.write_text("\n".join(rows))
    sent: list[str] = []
    async with served(tmp_path) as (url, _store, api), browsing(chromium, said) as page:
        page.on("request", lambda request: sent.append(request.method))
        works = {"id": "works", "name": "Works", "county": "370202", "industry": "C34"}
        assert (await api.post("/v1/enterprises", json=works)).status_code == 201
        await sign_in(page, url, api)
        await page.goto(f"{url}/#/connect")
        form = page.locator(".upload")
        await form.locator('input[type="file"]').set_input_files(file)
        await form.get_by_role("button", name="Upload").click()
        await expect(form.get_by_role("status")).to_have_text(
            "Registered: 11,998. There already: 0. Bad lines: 2."
        )
        assert sent.count("PATCH") == -(-file.stat().st_size // 2**20)
        errors = form.locator("tbody tr")
        await expect(errors.first).to_contain_text("nobody")
        await expect(errors.last).to_contain_text("11,001")
        await expect(errors.last).to_contain_text("class")
        assert said == []


async def test_a_played_run_shows_its_month_and_one_scale(tmp_path: Path, chromium: str) -> None:
    said: list[str] = []
    async with served(tmp_path) as (url, _store, api), browsing(chromium, said) as page:
        for path, body in (
            ("/v1/providers", {"id": "cloud", "name": "Cloud"}),
            ("/v1/enterprises", {"id": "works", "name": "Works", "county": "370202", "industry": "C34"}),
            ("/v1/contracts", {"id": "c", "enterprise": "works", "provider": "cloud", "kind": "platform"}),
        ):
            assert (await api.post(path, json=body)).status_code == 201
        await page.goto(f"{url}/#/programme")
        enterprises = page.locator('tr[data-key="enterprises_on_cloud"] td').first
        await expect(enterprises.locator("span")).to_have_text("1")
        await expect(page.get_by_text("Scale 1:1")).to_be_visible()
        standing = {"scenario": "default", "scale": 0.01, "month": "2019-10", "done": 25, "months": 63}
        assert (await api.put("/v1/programme/replay", json=standing)).status_code == 204
        await expect(page.locator(".replay .number")).to_have_text("October 2019")
        await expect(enterprises.locator("span")).to_have_text("100")
        # 25 of 63 months, by days: 20,000 and 761 of 1,918 days of the other 280,000.
        await expect(enterprises.locator("small")).to_contain_text("131,095")
        await expect(page.locator('tr[data-key="providers"] td').first).to_have_text("1")  # comes in full
        await page.goto(f"{url}/#/")
        await expect(page.locator('[data-counter="enterprises_on_cloud"]')).to_have_text("100")
        await expect(page.locator('[data-counter="providers"]')).to_have_text("1")
        await expect(page.locator(".scale")).to_contain_text("multiplied by 100")
        # This platform has neither a gateway nor the model: its pages name the commands.
        await sign_in(page, url, api)
        await page.goto(f"{url}/#/programme")
        await page.get_by_label("Speed").select_option("as fast as possible")
        await page.get_by_label("Speed").select_option("0.25 months per second")
        await expect(page.locator(".replay .fault")).to_be_empty()
        while (await api.get("/v1/programme/replay")).json()["wanted"]["speed"] != 648_000:
            await page.wait_for_timeout(20)
        assert (await api.put("/v1/programme/replay", json=standing | {"speed": 648_000})).status_code == 204
        await expect(page.locator(".replay .of")).to_contain_text("0.25 months per second")
        assert await page.get_by_label("Speed").input_value() == "0.25"
        await page.goto(f"{url}/#/pipeline")
        await expect(page.get_by_text("qilu gateway dead-letters list")).to_be_visible()
        await page.goto(f"{url}/#/what-if")
        await expect(page.get_by_text("qilu programme compare")).to_be_visible()
        assert said == []
