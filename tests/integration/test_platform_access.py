"""Rights and rate limits, repeated requests, the audit log; and the life of a unit."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from qilu_contract.wire.clock import wall_ms
from qilu_contract.wire.identity import uscc_check_character
from qilu_platform.app import create_app
from qilu_platform.audit import audit
from qilu_platform.limits import Buckets
from qilu_platform.settings import Settings
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

ADMIN = "the-admin-key-of-this-test"
OWNER = "370202-e00007"
HOUR_MS = 3_600_000


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@asynccontextmanager
async def platform(database_url: str, **more: Any) -> AsyncIterator[tuple[httpx.AsyncClient, Any]]:
    app = create_app(Settings(db_url=database_url, api_key=SecretStr(ADMIN), **more))
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://platform", headers=bearer(ADMIN)) as client,
    ):
        body = {"id": OWNER, "name": "Qingdao Iron", "county": "370202", "industry": "C31"}
        await client.post("/v1/enterprises", json=body)
        yield client, app.state.runtime.database.engine
        assert audit(app.state.runtime.database.engine) == []


def uscc(first: str = "91370200MA3C0AB12") -> str:
    return first + uscc_check_character(first)


async def test_no_two_enterprises_share_a_credit_code(database_url: str) -> None:
    async with platform(database_url) as (client, _):
        body = {"id": "e-1", "name": "A", "county": "370202", "industry": "C31", "uscc": uscc()}
        for _ in range(2):
            assert (await client.post("/v1/enterprises", json=body)).is_success
        taken = await client.post("/v1/enterprises", json=body | {"id": "e-2"})
        assert taken.status_code == 409
        assert uscc() in taken.json()["detail"]
        lines = [body | {"id": f"e-{n}"} for n in (3, 4)]
        lines += [body | {"id": f"e-{n}", "uscc": uscc("91370200MA3C0AB13")} for n in (5, 6)]
        content = "\n".join(httpx.Request("POST", "http://x", json=line).content.decode() for line in lines)
        outcome = (await client.post("/v1/enterprises/bulk", content=content)).json()
        assert outcome["created"] == 1
        assert [error["line"] for error in outcome["errors"]] == [1, 2, 4]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"uscc": "91370200MI3C0AB12X"}, "character 10 is 'I'"),
        ({"uscc": uscc()[:17] + "0"}, "character 18, the check character"),
        ({"county": "370299"}, "Qingdao has 370202"),
        ({"county": "110101"}, "3702 Qingdao"),
        ({"industry": "Z99"}, "there are B06, C13"),
    ],
)
async def test_a_wrong_field_is_told_what_is_possible(
    tmp_path: Path, change: dict[str, str], said: str
) -> None:
    async with platform(f"sqlite:///{tmp_path}/platform.db") as (client, _):
        body = {"name": "A", "county": "370202", "industry": "C31"} | change
        answer = await client.post("/v1/enterprises", json=body)
        assert answer.status_code == 422
        assert said in answer.json()["detail"]


async def test_a_unit_is_found_by_its_identifier_and_enterprises_by_how_their_name_begins(
    database_url: str,
) -> None:
    async with platform(database_url) as (client, _):
        unit = (await client.post("/v1/units", json={"class": "motor", "enterprise": OWNER})).json()
        assert unit["identifier"] == f"88.370200.{OWNER}/{unit['id']}"

        async def found(path: str, **query: str) -> list[str]:
            answer = await client.get(f"/v1/{path}", params=query)
            assert answer.status_code == 200, answer.text
            return [item["id"] for item in answer.json()["items"]]

        assert await found("units", identifier=unit["identifier"]) == [unit["id"]]
        assert await found("units", identifier=f"88.370100.{OWNER}/{unit['id']}") == []
        assert await found("units", identifier=f"88.370200.other/{unit['id']}") == []
        wrong = await client.get("/v1/units", params={"identifier": "88.1"})
        assert wrong.status_code == 422
        for number, name in enumerate(["青岛钢铁", "青岛啤酒", "济南钢铁", "Qing"]):
            body = {"id": f"e-{number}", "name": name, "county": "370202", "industry": "C31"}
            await client.post("/v1/enterprises", json=body)
        assert await found("enterprises", name="青岛") == ["e-0", "e-1"]
        assert await found("enterprises", name="Qing") == [OWNER, "e-3"]
        await client.post(
            "/v1/units", json={"id": "p-3", "name": "Pump 3", "class": "motor", "enterprise": OWNER}
        )
        assert await found("units", name="Pump") == ["p-3"]


async def test_a_suspended_unit_is_neither_admitted_nor_current_until_it_is_resumed(
    database_url: str,
) -> None:
    async with platform(database_url) as (client, _):
        for id_ in ("u-1", "u-2"):
            await client.post("/v1/units", json={"id": id_, "class": "motor", "enterprise": OWNER})

        async def hear(unit: str, ts_ms: int) -> None:
            body = {"readings": [{"unit": unit, "ts_ms": ts_ms}]}
            assert (await client.post("/v1/ingest/first-readings", json=body)).status_code == 200

        async def change(unit: str, what: str) -> str:
            answer = await client.post(f"/v1/units/{unit}/{what}")
            assert answer.status_code == 200, answer.text
            return str(answer.json()["state"])

        async def counts() -> tuple[int, int, int]:
            shown = (await client.get("/v1/programme")).json()
            target = next(each for each in shown["targets"] if each["name"] == "units_on_cloud")
            # The reported count is beside the same proven count, and does not change.
            (claim,) = (each for each in shown["claims"] if each["name"] == "units_on_cloud")
            assert (claim["reported"], claim["month"]) == (30_000_000, "2020-10")
            assert claim["proven"] == target["onboarded"]
            return target["onboarded"], target["current"], shown["active"]

        async def admitted() -> set[str]:
            answer = await client.post("/v1/ingest/admission", json={"units": ["u-1", "u-2"]})
            return set(answer.json()["units"])

        now = wall_ms()
        await hear("u-1", now)
        shown = (await client.get("/v1/units/u-1")).json()
        assert (shown["state"], shown["active"]) == ("on_cloud", True)
        assert await counts() == (1, 1, 1)
        for _ in range(2):
            assert await change("u-1", "suspend") == "suspended"
            assert await counts() == (1, 0, 0)
        assert await admitted() == {"u-2"}
        listed = (await client.get("/v1/units?state=suspended")).json()["items"]
        assert [each["id"] for each in listed] == ["u-1"]
        # Stored before the unit was suspended, reported after: onboarded, not current.
        await change("u-2", "suspend")
        await hear("u-2", now)
        assert await counts() == (2, 0, 0)
        for _ in range(2):
            assert await change("u-1", "resume") == "on_cloud"
            assert await counts() == (2, 1, 1)
        assert await admitted() == {"u-1"}
        await change("u-2", "retire")
        assert await counts() == (2, 1, 1)
        for what in ("suspend", "resume"):
            refused = await client.post(f"/v1/units/u-2/{what}")
            assert refused.status_code == 409
            assert "permanently" in refused.json()["detail"]
            assert (await client.post(f"/v1/units/nothing/{what}")).status_code == 404
        history = (await client.get("/v1/units/u-1/history")).json()["items"]
        assert [each["event"] for each in history] == ["registered", "on_cloud", "suspended", "resumed"]
        assert all(each["key"] for each in history if each["event"] != "on_cloud")
        assert (await client.get("/v1/units/nothing/history")).status_code == 404
        # A day without a reading makes it stale; the ledger does not mind.
        await hear("u-1", now + 30 * HOUR_MS)
        await client.post("/v1/units", json={"id": "u-3", "class": "motor", "enterprise": OWNER})
        await hear("u-3", now)
        shown = (await client.get("/v1/units/u-3")).json()
        assert (shown["state"], shown["active"]) == ("on_cloud", False)


async def test_a_suspended_enterprise_and_its_units_are_out_until_it_is_resumed(database_url: str) -> None:
    async with platform(database_url) as (client, _):
        now = wall_ms()

        async def do(path: str, body: Any = None) -> Any:
            answer = await client.post(f"/v1/{path}", json=body)
            assert answer.is_success, answer.text
            return answer.json()

        await do("providers", {"id": "p-1", "name": "Cloud"})
        await do("contracts", {"id": "c-1", "enterprise": OWNER, "provider": "p-1", "kind": "platform"})
        for unit in ("u-1", "u-2", "u-3"):
            await do("units", {"id": unit, "class": "motor", "enterprise": OWNER})
            await do("ingest/first-readings", {"readings": [{"unit": unit, "ts_ms": now}]})
        await do("units/u-2/suspend")
        start = (await client.get("/v1/ingest/barred")).json()["next"]

        async def counts() -> tuple[int, int, int, int]:
            shown = (await client.get("/v1/programme")).json()
            enterprises, units = (
                next(each for each in shown["targets"] if each["name"] == name)
                for name in ("enterprises_on_cloud", "units_on_cloud")
            )
            return enterprises["current"], units["onboarded"], units["current"], shown["active"]

        async def admitted() -> set[str]:
            return set((await do("ingest/admission", {"units": ["u-1", "u-2", "u-3", "u-4"]}))["units"])

        assert await counts() == (1, 3, 2, 2)
        for _ in range(2):
            assert (await do(f"enterprises/{OWNER}/suspend"))["suspended_ms"]
            assert await counts() == (0, 3, 0, 0)
        assert await admitted() == set()
        told = (await client.get("/v1/ingest/barred", params={"after": start})).json()
        assert (told["units"], told["enterprises"]) == ([], [OWNER])
        nothing = (await client.get("/v1/ingest/barred", params={"after": told["next"]})).json()
        assert nothing == told | {"enterprises": []}
        beyond = (await client.get("/v1/ingest/barred", params={"after": told["next"] + 10})).json()
        assert beyond == nothing  # who had got further knows that the registry has gone back
        # A unit that is registered and retired meanwhile is counted correctly, too.
        await do("units", {"id": "u-4", "class": "motor", "enterprise": OWNER})
        assert await admitted() == set()
        await do("contracts/c-1/end")
        await do("contracts", {"id": "c-2", "enterprise": OWNER, "provider": "p-1", "kind": "business"})
        assert await counts() == (0, 3, 0, 0)
        assert (await client.post("/v1/units/u-1/resume")).status_code == 409
        await do("units/u-3/retire")
        for _ in range(2):
            assert (await do(f"enterprises/{OWNER}/resume"))["suspended_ms"] is None
            assert await counts() == (1, 3, 1, 1)
        assert await admitted() == {"u-1", "u-4"}  # u-2 was suspended by itself, and stays so
        history = (await client.get("/v1/units/u-1/history")).json()["items"]
        assert [each["event"] for each in history[2:]] == ["enterprise_suspended", "enterprise_resumed"]
        assert (await client.post("/v1/enterprises/nothing/suspend")).status_code == 404


async def test_every_change_is_noted_with_who_and_when_and_the_log_takes_no_change(database_url: str) -> None:
    async with platform(database_url) as (client, engine):
        before = wall_ms()
        made = (await client.post("/v1/keys", json={"name": "line 3", "role": "operator"})).json()
        operator = bearer(made["key"])
        body = {"id": "u-1", "class": "motor", "enterprise": OWNER}
        for _ in range(2):  # the second changes nothing, and is not noted
            await client.post("/v1/units", json=body, headers=operator)
        await client.post(
            "/v1/units/bulk", content=b'{"id":"u-2","class":"motor","enterprise":"%b"}' % OWNER.encode()
        )
        await client.post("/v1/units/u-1/retire", headers=operator)
        answer = await client.get("/v1/audit")
        noted = [(each["action"], each["subject"]) for each in answer.json()["items"]]
        assert noted[:4] == [
            ("retired", "units/u-1"),
            ("registered", "units"),
            ("registered", "units/u-1"),
            ("created", f"keys/{made['id']}"),
        ]
        assert made["key"] not in answer.text
        assert all(before <= each["at_ms"] <= wall_ms() for each in answer.json()["items"][:4])
        mine = (await client.get("/v1/audit", params={"key": made["id"], "limit": 1})).json()
        assert [each["action"] for each in mine["items"]] == ["retired"]
        rest = await client.get("/v1/audit", params={"key": made["id"], "cursor": mine["next"]})
        assert [each["action"] for each in rest.json()["items"]] == ["registered"]
        assert (await client.get("/v1/audit", headers=operator)).status_code == 403
        for statement in ("UPDATE audit_log SET key = 'x'", "DELETE FROM audit_log"):
            with pytest.raises(DBAPIError, match="append-only"), engine.begin() as connection:
                connection.execute(text(statement))


async def test_a_rotated_key_works_until_its_grace_ends(database_url: str) -> None:
    async with platform(database_url) as (client, _):
        old = (await client.post("/v1/keys", json={"name": "gateway", "role": "viewer"})).json()

        async def works(key: str) -> bool:
            return (await client.get("/v1/units", headers=bearer(key))).status_code == 200

        new = (await client.post(f"/v1/keys/{old['id']}/rotate", json={"grace_s": 3600})).json()
        assert await works(old["key"])
        assert await works(new["key"])
        again = await client.post(f"/v1/keys/{old['id']}/rotate")
        assert again.status_code == 409
        assert (await client.delete(f"/v1/keys/{old['id']}")).status_code == 204
        assert not await works(old["key"])
        last = (await client.post(f"/v1/keys/{new['id']}/rotate")).json()
        assert not await works(new["key"])
        assert await works(last["key"])
        assert (await client.post("/v1/keys/nothing/rotate")).status_code == 404


async def test_a_create_with_an_idempotency_key_is_done_once(database_url: str) -> None:
    async with platform(database_url) as (client, _):
        body = {"class": "motor", "enterprise": OWNER}

        async def create(key: str, **more: str) -> httpx.Response:
            return await client.post("/v1/units", json=body | more, headers={"Idempotency-Key": key})

        answers = await asyncio.gather(*(create("order 66") for _ in range(5)))
        assert {answer.status_code for answer in answers} == {201}
        assert len({answer.text for answer in answers}) == 1
        assert len({answer.headers["location"] for answer in answers}) == 1
        other = await create("order 66", name="Pump")
        assert other.status_code == 422
        assert "Idempotency-Key" in other.json()["detail"]
        failed = await create("order 67", enterprise="nobody")
        assert failed.status_code == 422
        assert (await create("order 67")).status_code == 201  # what failed was not kept
        assert (await client.get("/v1/programme")).json()["registered"]["units"] == 2


async def test_a_key_that_asks_too_often_is_told_when_to_come_again(tmp_path: Path) -> None:
    async with platform(f"sqlite:///{tmp_path}/platform.db", rate_per_s=2) as (client, _):
        answers = [await client.get("/v1/units") for _ in range(10)]
        refused = [answer for answer in answers if answer.status_code == 429]
        assert refused
        assert int(refused[0].headers["retry-after"]) >= 1
        assert refused[0].headers["content-type"] == "application/problem+json"
        # A request that needs no key is not limited by one.
        assert (await client.get("/v1/programme")).status_code == 200


def test_a_bucket_fills_with_time() -> None:
    now = 0.0
    buckets = Buckets(10, lambda: now)
    assert sum(buckets.take("a") == 0 for _ in range(30)) == 20
    assert buckets.take("b") == 0
    now = 0.5
    assert sum(buckets.take("a") == 0 for _ in range(30)) == 5
    assert all(Buckets(0).take("a") == 0 for _ in range(5000))


async def test_no_other_origin_is_let_in_and_readiness_is_told(tmp_path: Path) -> None:
    async with platform(f"sqlite:///{tmp_path}/platform.db") as (client, _):
        origin = {"Origin": "https://elsewhere.example", "Access-Control-Request-Method": "GET"}
        for answer in (
            await client.options("/v1/units", headers=origin),
            await client.get("/v1/programme", headers=origin),
        ):
            assert not [name for name in answer.headers if name.startswith("access-control")]
        assert (await client.get("/readyz")).json() == {"status": "ready"}


async def owner_key(client: httpx.AsyncClient, enterprise: str) -> dict[str, str]:
    body = {"name": "its own", "role": "enterprise", "enterprise": enterprise}
    return bearer((await client.post("/v1/keys", json=body)).json()["key"])


async def test_an_enterprise_does_not_undo_what_an_operator_decided(database_url: str) -> None:
    async with platform(database_url) as (client, _):
        mine = await owner_key(client, OWNER)
        await client.post("/v1/units", json={"id": "u-1", "class": "motor", "enterprise": OWNER})

        async def change(what: str, headers: dict[str, str]) -> int:
            return (await client.post(f"/v1/units/u-1/{what}", headers=headers)).status_code

        operator = bearer(ADMIN)
        assert [await change("suspend", mine), await change("resume", mine)] == [200, 200]
        assert [await change("suspend", operator), await change("resume", mine)] == [200, 409]
        # Suspended already, by the operator: the owner's own suspension changes nothing about that.
        assert [await change("suspend", mine), await change("resume", mine)] == [200, 409]
        assert [await change("resume", operator), await change("suspend", mine)] == [200, 200]
        # Suspended already, by its owner: the operator's suspension is from then on what holds.
        assert [await change("suspend", operator), await change("resume", mine)] == [200, 409]
        unit = (await client.get("/v1/units/u-1", headers=mine)).json()
        assert unit["state"] == "suspended"
        assert await change("resume", operator) == 200


async def test_an_enterprise_neither_learns_of_nor_occupies_what_is_not_its_own(database_url: str) -> None:
    async with platform(database_url) as (client, _):
        other = {"id": "other", "name": "Rival", "county": "370102", "industry": "C34"}
        await client.post("/v1/enterprises", json=other)
        secret = {"id": "u-1", "class": "blast_furnace", "enterprise": "other", "name": "secret"}
        await client.post("/v1/units", json=secret)
        mine = await owner_key(client, OWNER)

        async def register(id_: str | None, class_: str = "motor") -> httpx.Response:
            body = {"id": id_, "class": class_, "enterprise": OWNER}
            return await client.post("/v1/units", json=body, headers=mine)

        taken = await register("u-1")
        assert taken.status_code == 409
        assert taken.json()["detail"] == "id u-1 is taken: choose another one, or leave it out."
        for id_ in ("370102-motor-5000001", "370202-motor-5000001", "370102-x"):
            assert (await register(id_)).status_code == 403
        assert (await register("mine")).status_code == 201
        assert "class is 'motor', not 'pump'" in (await register("mine", "pump")).json()["detail"]
        assert (await register(None)).json()["id"] == "370202-motor-5000001"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/v1/enterprises?name=%00", None),
        ("GET", "/v1/units?name=a%00b", None),
        ("GET", "/v1/audit?subject=%00", None),
        ("GET", "/v1/audit?key=%00", None),
        ("GET", "/v1/audit?cursor=9223372036854775808", None),
        ("GET", "/v1/ingest/barred?after=9223372036854775808", None),
        ("POST", "/v1/enterprises", {"name": "a\x00b", "county": "370202", "industry": "C31"}),
        ("POST", "/v1/contracts/end", {"contracts": ["a\x00b"]}),
        ("POST", "/v1/ingest/admission", {"units": ["\x00"]}),
        ("POST", "/v1/ingest/deaths", {"units": ["\x00"]}),
        ("POST", "/v1/ingest/first-readings", {"readings": [{"unit": "\x00", "ts_ms": 1}]}),
        ("POST", "/v1/ingest/activity", {"readings": [{"unit": "\x00", "ts_ms": 1}]}),
        ("POST", "/v1/keys", {"name": "\x00", "role": "viewer"}),
    ],
)
async def test_what_no_database_takes_is_refused_at_the_door(
    database_url: str, method: str, path: str, body: dict[str, Any] | None
) -> None:
    async with platform(database_url) as (client, _):
        answer = await client.request(method, path, json=body)
        assert answer.status_code == 422, answer.text


async def test_problems_add_up_and_belong_to_the_enterprise_that_sent(database_url: str) -> None:
    async with platform(database_url) as (client, _):
        mine = await owner_key(client, OWNER)
        await client.post("/v1/units", json={"id": "u-1", "class": "motor", "enterprise": OWNER})

        def problem(unit: str, reason: str, count: int, last_ms: int, by: str = OWNER) -> dict[str, Any]:
            excerpt = f"{reason} at {last_ms}"
            row = {"unit": unit, "enterprise": by, "county": "370202", "reason": reason}
            return row | {"count": count, "last_ms": last_ms, "excerpt": excerpt}

        async def report(*problems: dict[str, Any]) -> int:
            return (await client.post("/v1/problems", json={"problems": problems})).status_code

        async def shown(path: str, headers: dict[str, str]) -> list[tuple[str, str, int]]:
            items = (await client.get(path, headers=headers)).json()["items"]
            return [(each["unit"], each["reason"], each["count"]) for each in items]

        two = [problem("u-1", "bad_timestamp", 2, 50), problem("u-1", "bad_timestamp", 1, 40)]
        assert await report(*two, problem("u-2", "unknown_unit", 1, 70)) == 204
        assert await report(problem("u-1", "bad_timestamp", 4, 90)) == 204
        assert await report(problem("u-1", "not_owner", 5, 80, by="stranger")) == 204
        assert await shown("/v1/units/u-1/problems", mine) == [("u-1", "bad_timestamp", 7)]
        assert await shown("/v1/units/u-2/problems", mine) == [("u-2", "unknown_unit", 1)]
        everything = [("u-1", "bad_timestamp", 7), ("u-1", "not_owner", 5)]
        assert await shown("/v1/units/u-1/problems", bearer(ADMIN)) == everything
        whole = [("u-1", "bad_timestamp", 7), ("u-2", "unknown_unit", 1)]
        assert await shown(f"/v1/enterprises/{OWNER}/problems", mine) == whole
        item = (await client.get("/v1/units/u-1/problems", headers=mine)).json()["items"][0]
        assert (item["first_ms"], item["last_ms"], item["excerpt"]) == (40, 90, "bad_timestamp at 90")
        for path in ("/v1/units/nobody/problems", "/v1/enterprises/stranger/problems"):
            assert (await client.get(path, headers=mine)).status_code == 404
        assert (await client.post("/v1/problems", json={"problems": []}, headers=mine)).status_code == 403
        for base in range(0, 1_200, 400):
            many = [problem(f"v-{n}", "bad_json", 1, 1_000) for n in range(base, base + 400)]
            assert await report(*many) == 204
        assert len(await shown(f"/v1/enterprises/{OWNER}/problems", mine)) == 1_000


async def test_an_identifier_resolves_to_its_unit_nameplate_and_links(tmp_path: Path) -> None:
    async with platform(f"sqlite:///{tmp_path}/platform.db") as (client, _):
        body = {"class": "blast_furnace", "enterprise": OWNER, "name": "No. 1"}
        unit = (await client.post("/v1/units", json=body)).json()
        identifier = unit["identifier"]
        found = await client.get(f"/v1/resolve/{identifier}")
        assert found.status_code == 200, found.text
        assert found.json()["unit"] == unit
        plate = found.json()["nameplate"]
        assert plate["identifier"] == identifier
        assert (plate["designation_zh"], plate["county"], plate["city"]) == (
            "高炉",
            "Shinan District",
            "Qingdao",
        )
        links = found.json()["links"]
        assert links["self"] == f"/v1/resolve/{identifier}"
        for name in ("self", "unit", "enterprise", "problems", "commands"):
            assert (await client.get(links[name])).status_code == 200, name

        for other in (
            identifier.replace("370200", "370100", 1),
            identifier.replace(OWNER, "other"),
            "88.1.a/b",
        ):
            assert (await client.get(f"/v1/resolve/{other}")).status_code == 404
        generic = (await client.post("/v1/units", json={"class": "generic", "enterprise": OWNER})).json()
        found = await client.get(f"/v1/resolve/{generic['identifier']}")
        assert found.json()["nameplate"]["designation"] == "Generic device"
        wrong = await client.get("/v1/resolve/99.370200.a/b")
        assert (wrong.status_code, "is no identifier" in wrong.json()["detail"]) == (422, True)
        body = {"name": "B", "county": "370202", "industry": "C31", "id": "other"}
        assert (await client.post("/v1/enterprises", json=body)).status_code == 201
        for owner, status in ((OWNER, 200), ("other", 404)):
            key = await client.post("/v1/keys", json={"name": "k", "role": "enterprise", "enterprise": owner})
            headers = {"Authorization": f"Bearer {key.json()['key']}"}
            assert (await client.get(f"/v1/resolve/{identifier}", headers=headers)).status_code == status
