"""Dead letters of several gateways in the console: one with a fixed shard, and one that shares shards."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from console_world import KEY, browsing, served, sign_in
from gateway_world import Publisher, eventually, eventually_async, motor, online
from playwright.async_api import expect
from pydantic import SecretStr
from qilu_contract.errors import ConfigError
from qilu_contract.wire import partitions, topics
from qilu_gateway.settings import Settings as GatewaySettings
from qilu_gateway.sharing import Sharing
from qilu_platform.monitoring.dead_letters import Gateways

SECRET = "the-key-of-all-gateways"
COUNTIES = {partitions.of_group(county, 2).index: county for county in ("370202", "370203")}


async def test_dead_letters_of_two_gateways_are_read_and_replayed(
    tmp_path: Path,
    chromium: str,
    mosquitto: Any,
    influxdb: Any,
    free_port: Callable[[], int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("QILU_API_KEY", KEY)
    monkeypatch.setenv("QILU_GATEWAY_KEY", SECRET)
    ports = free_port(), free_port()
    names = [f"127.0.0.1:{ports[0]}", f"127.0.0.1:{ports[1]}/2"]
    known = {"gateways": [f"http://127.0.0.1:{port}" for port in ports], "gateway_key": SecretStr(SECRET)}
    said: list[str] = []
    async with served(tmp_path, **known) as (url, _store, api), browsing(chromium, said) as page:

        def settings(number: int) -> GatewaySettings:
            return GatewaySettings(
                broker=mosquitto.url,
                platform=url,
                state=tmp_path / f"gateway{number}",
                store=influxdb.url,
                http_port=ports[number - 1],
                host_id=f"host{number}-{secrets.token_hex(4)}",
            )

        async def listed(gateway: str) -> list[str]:
            found = await api.get("/v1/dead-letters", params={"gateway": gateway})
            return [each["unit"] for each in found.json()["items"]] if found.status_code == 200 else []

        assert COUNTIES.keys() == {1, 2}
        publisher = Publisher(mosquitto)
        sharing = Sharing(settings(2), [2], 2, fixed=False)
        async with online(settings(1).model_copy(update={"shard": "1/2"})):
            task = asyncio.create_task(sharing.run())
            await eventually(lambda: [each.online for each in sharing._services.values()] == [True], "online")
            for shard, county in COUNTIES.items():
                topic = topics.telemetry(county, f"{county}-e00001", f"late{shard}")
                publisher.send_all([(topic, json.dumps(motor()).encode())])
            for shard, name in enumerate(names, 1):

                async def refused(unit: str = f"late{shard}", name: str = name) -> bool:
                    return await listed(name) == [unit]

                await eventually_async(refused, f"the letter at {name}")
            found = (await api.get("/v1/dead-letters/gateways")).json()["items"]
            assert found == [{"gateway": name, "problem": ""} for name in names]

            county = COUNTIES[2]
            works = {"id": f"{county}-e00001", "name": "Works", "county": county, "industry": "C34"}
            assert (await api.post("/v1/enterprises", json=works)).status_code == 201
            unit = {"id": "late2", "class": "motor", "enterprise": works["id"]}
            assert (await api.post("/v1/units", json=unit)).status_code == 201
            await sign_in(page, url, api)
            await page.goto(f"{url}/#/pipeline")
            row = page.locator(".letters tbody tr")
            await expect(row).to_contain_text("late1")
            await page.locator(".letters").get_by_label("Gateway").select_option(names[1])
            await expect(row).to_contain_text("late2")
            await row.get_by_role("button", name="Replay").click()
            status = page.locator(".letters [role=status]").first
            await expect(status).to_have_text("Accepted: 1. Refused again: 0.")
            await expect(row).to_have_count(0)
            assert await listed(names[0]) == ["late1"]  # the other gateway's are untouched
            log = (await api.get("/v1/audit?subject=dead_letters")).json()["items"]
            assert [(each["detail"]["gateway"], each["detail"]["done"]) for each in log] == [(names[1], 1)]

            await page.goto(f"{url}/#/search?q=late2")
            await expect(page.locator("tbody tr", has_text="late2")).to_have_count(1)
            await page.goto(f"{url}/#/search?q=nobody")  # and no error in the browser's log
            await expect(page.get_by_text("none", exact=True)).to_have_count(2)

            for wrong in ("elsewhere:8081", f"{names[0]}/../purge", "local"):
                answer = await api.get("/v1/dead-letters", params={"gateway": wrong})
                assert (answer.status_code, names[0] in answer.json()["detail"]) == (404, True)
            sharing.stop()
            await task
        found = (await api.get("/v1/dead-letters/gateways")).json()["items"]
        assert [(each["gateway"], bool(each["problem"])) for each in found] == [
            (f"127.0.0.1:{port}", True) for port in ports
        ]
        answer = await api.get("/v1/dead-letters", params={"gateway": names[1]})
        assert (answer.status_code, "unavailable" in answer.json()["detail"]) == (503, True)
        publisher.close()
        assert said == []


@pytest.mark.parametrize(
    ("addresses", "key", "told"),
    [
        (["http://gateway:8081"], None, "QILU_GATEWAY_KEY"),
        (["gateway:8081"], "key", "write http://host:8081"),
        (["http://gateway:port"], "key", "write http://host:8081"),
    ],
)
def test_addresses_of_gateways_that_cannot_work_are_refused(
    addresses: list[str], key: str | None, told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        Gateways(addresses, key, None)
