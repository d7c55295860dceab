"""The platform's HTTP API, on SQLite and on PostgreSQL."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.catalogue.places import BRANCHES, CITIES, COUNTIES, city_of
from qilu_contract.catalogue.targets import CORE_TARGETS
from qilu_contract.wire.clock import wall_ms
from qilu_platform.app import create_app
from qilu_platform.audit import audit
from qilu_platform.edge import MAX_BODY, MAX_BULK_BODY
from qilu_platform.settings import Settings

ADMIN = "the-admin-key-of-this-test"
HOUR_MS = 3_600_000


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@asynccontextmanager
async def platform(database_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a running platform that holds the admin key; the books must balance in the end."""
    app = create_app(Settings(db_url=database_url, api_key=SecretStr(ADMIN)))
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://platform", headers=bearer(ADMIN)) as client,
    ):
        yield client
        assert audit(app.state.runtime.database.engine) == []


async def key_of(client: httpx.AsyncClient, role: str, enterprise: str | None = None) -> dict[str, str]:
    """Headers of a new key."""
    body = {"name": f"test {role}", "role": role} | ({"enterprise": enterprise} if enterprise else {})
    answer = await client.post("/v1/keys", json=body)
    assert answer.status_code == 201
    return bearer(answer.json()["key"])


async def made(client: httpx.AsyncClient, path: str, **body: Any) -> dict[str, Any]:
    answer = await client.post(f"/v1/{path}", json=body)
    assert answer.status_code == 201, answer.text
    thing: dict[str, Any] = answer.json()
    return thing


async def an_enterprise(client: httpx.AsyncClient, county: str = "370202", **more: Any) -> str:
    body = {"name": "Qingdao Iron", "county": county, "industry": "C31"} | more
    return str((await made(client, "enterprises", **body))["id"])


async def bulk(client: httpx.AsyncClient, book: str, things: list[dict[str, Any]]) -> dict[str, Any]:
    answer = await client.post(f"/v1/{book}/bulk", content="\n".join(json.dumps(thing) for thing in things))
    assert answer.status_code == 200, answer.text
    outcome: dict[str, Any] = answer.json()
    return outcome


async def programme(client: httpx.AsyncClient) -> dict[str, Any]:
    answer = await client.get("/v1/programme")
    assert answer.status_code == 200
    counts: dict[str, Any] = answer.json()
    return counts | {target["name"]: target for target in counts["targets"]}


def check_problem(answer: httpx.Response, status: int, *words: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert problem["title"]
    for word in words:
        assert word in problem["detail"]
    assert "Traceback" not in answer.text


async def test_an_enterprise_is_registered_read_and_not_registered_twice(database_url: str) -> None:
    async with platform(database_url) as client:
        body = {"name": "青岛钢铁", "county": "370202", "industry": "C31", "id": "370202-e00007"}
        answer = await client.post("/v1/enterprises", json=body)
        assert answer.status_code == 201
        assert answer.headers["location"] == "/v1/enterprises/370202-e00007"
        enterprise = answer.json()
        assert enterprise | body == enterprise
        assert enterprise["city"] == "370200"
        assert (await client.get(answer.headers["location"])).json() == enterprise
        again = await client.post("/v1/enterprises", json=body)
        assert (again.status_code, again.json()) == (200, enterprise)
        other = await client.post("/v1/enterprises", json=body | {"name": "Other"})
        check_problem(other, 409, "370202-e00007", "name")
        assert (await programme(client))["registered"] == {"enterprises": 1, "units": 0}


@pytest.mark.parametrize(
    ("path", "body", "words"),
    [
        ("enterprises", {"name": 5, "county": "370202", "industry": "C31"}, ["name", "string"]),
        ("enterprises", {"name": "A", "county": "999999", "industry": "C31"}, ["county", "'999999'"]),
        ("enterprises", {"name": "A", "county": 370202, "industry": "C31"}, ["county", "370202"]),
        ("enterprises", {"name": "A", "county": "370202", "industry": "Z99"}, ["industry", "'Z99'"]),
        ("enterprises", {"name": "A", "county": "370202"}, ["industry", "required"]),
        (
            "enterprises",
            {"name": "A", "county": "370202", "industry": "C31", "id": "Ä/#"},
            ["id", "1 to 32"],
        ),
        ("enterprises", {"name": "A", "county": "370202", "industry": "C31", "x": 1}, ["x", "not permitted"]),
        ("enterprises", {"name": "a\nb", "county": "370202", "industry": "C31"}, ["name", "printable"]),
        ("enterprises", [1, 2], ["JSON object"]),
        ("units", {"class": "toaster", "enterprise": "370202-e00007"}, ["class", "'toaster'"]),
        ("units", {"class": "motor", "enterprise": "370202-e00007"}, ["370202-e00007", "register it first"]),
        ("contracts", {"enterprise": "e", "provider": "p", "kind": "magic"}, ["kind", "equipment"]),
        ("contracts", {"enterprise": "e", "provider": "p", "kind": "equipment"}, ["register it first"]),
        ("centres", {"name": "C", "city": "370202"}, ["city", "'370202'"]),
        ("keys", {"name": "k", "role": "king"}, ["role"]),
        ("keys", {"name": "k", "role": "enterprise"}, ["enterprise"]),
        ("keys", {"name": "k", "role": "enterprise", "enterprise": "nobody"}, ["nobody"]),
        ("ingest/first-readings", {"readings": [{"unit": "a", "ts_ms": -1}]}, ["readings.0.ts_ms"]),
        ("ingest/first-readings", {"readings": [{"unit": "a", "ts_ms": "x"}]}, ["readings.0.ts_ms"]),
        ("ingest/first-readings", {"readings": [], "units": []}, ["not permitted"]),
        ("ingest/first-readings", {"units": ["a"], "ts_ms": [-1]}, ["ts_ms.0"]),
        ("ingest/first-readings", {"units": ["a", "b"], "ts_ms": [1]}, ["2 units and 1 times"]),
        ("ingest/first-readings", {"units": ["\0"], "ts_ms": [1]}, ["units.0"]),
        ("ingest/activity", {"units": ["a"] * 20001, "ts_ms": [1] * 20001}, ["units", "20000"]),
        ("ingest/admission", {"units": ["a"] * 5001}, ["units", "5000"]),
        ("ingest/admission-columns", {"units": ["a"] * 20001}, ["units", "20000"]),
        ("ingest/admission-columns", {"units": [5]}, ["units.0"]),
    ],
)
async def test_what_does_not_fit_is_refused_with_what_and_where(
    tmp_path: Path, path: str, body: Any, words: list[str]
) -> None:
    async with platform(f"sqlite:///{tmp_path}/platform.db") as client:
        check_problem(await client.post(f"/v1/{path}", json=body), 422, *words)


async def test_a_body_that_is_no_json_is_refused(tmp_path: Path) -> None:
    async with platform(f"sqlite:///{tmp_path}/platform.db") as client:
        for content, kind in [(b"{no", "application/json"), (b'{"name": "A"}', "text/plain"), (b"", "")]:
            answer = await client.post(
                "/v1/providers", content=content, headers={"content-type": kind} if kind else {}
            )
            check_problem(answer, 422, "body" if kind != "application/json" else "JSON")
        garbled = await client.post(
            "/v1/providers", content=b"\xff\xfe", headers={"content-type": "application/json"}
        )
        check_problem(garbled, 422, "JSON")


async def test_keys_decide_who_may_do_what(database_url: str) -> None:
    async with platform(database_url) as client:
        provider = {"name": "P"}
        asked = httpx.Request("POST", "http://platform/v1/providers", json=provider)
        check_problem(await client.send(asked), 401, "Bearer")
        anonymous = await client.send(asked)
        assert anonymous.headers["www-authenticate"].startswith("Bearer")
        check_problem(await client.post("/v1/providers", json=provider, headers=bearer("qilu_wrong")), 401)
        centre = {"name": "C", "city": "370200"}
        ids: dict[str, Any] = {"units": []}
        bodies = {
            "providers": provider,
            "centres": centre,
            "ingest/admission": ids,
            "ingest/admission-columns": ids,
            "ingest/first-readings": ids | {"ts_ms": []},
        }
        allowed = {
            "viewer": {"providers": False, "centres": False, "ingest": False, "read": True},
            "operator": {"providers": True, "centres": True, "ingest": False, "read": True},
            "fleet": {"providers": True, "centres": False, "ingest": False, "read": True},
            "ingest": {"providers": False, "centres": False, "ingest": True, "read": False},
        }
        for role, may in allowed.items():
            key = await key_of(client, role)
            for path, body in bodies.items():
                answer = await client.post(f"/v1/{path}", json=body, headers=key)
                if may[path.split("/")[0]]:
                    assert answer.is_success, (role, path)
                else:
                    check_problem(answer, 403, role)
            assert (await client.get("/v1/units", headers=key)).is_success is may["read"]
            check_problem(await client.get("/v1/keys", headers=key), 403, "admin")


async def test_keys_are_shown_once_and_end_when_revoked(database_url: str) -> None:
    async with platform(database_url) as client:
        created = (await client.post("/v1/keys", json={"name": "line 3", "role": "viewer"})).json()
        listed = await client.get("/v1/keys")
        assert created["key"] not in listed.text
        assert ADMIN not in listed.text
        keys = listed.json()["items"]
        assert {key["role"] for key in keys} == {"admin", "viewer"}
        viewer = bearer(created["key"])
        assert (await client.get("/v1/units", headers=viewer)).status_code == 200
        assert (await client.delete(f"/v1/keys/{created['id']}")).status_code == 204
        check_problem(await client.get("/v1/units", headers=viewer), 401, "revoked")
        admin = next(key["id"] for key in keys if key["role"] == "admin")
        check_problem(await client.delete(f"/v1/keys/{admin}"), 409, "last admin")
        check_problem(await client.delete("/v1/keys/nothing"), 404)


async def test_an_enterprise_key_sees_and_registers_its_own_only(database_url: str) -> None:
    async with platform(database_url) as client:
        mine, other = await an_enterprise(client), await an_enterprise(client)
        own = await made(client, "units", **{"class": "motor", "enterprise": mine})
        foreign = await made(client, "units", **{"class": "motor", "enterprise": other})
        await made(client, "providers", id="p-1", name="P")
        contract = await made(client, "contracts", enterprise=other, provider="p-1", kind="business")
        key = await key_of(client, "enterprise", mine)

        async def ids(path: str) -> list[str]:
            answer = await client.get(f"/v1/{path}", headers=key)
            return [item["id"] for item in answer.json()["items"]]

        assert await ids("enterprises") == [mine]
        assert await ids("units") == [own["id"]]
        assert await ids(f"units?enterprise={other}") == []
        assert await ids("contracts") == []
        for path in (f"enterprises/{other}", f"units/{foreign['id']}", f"contracts/{contract['id']}"):
            check_problem(await client.get(f"/v1/{path}", headers=key), 404)
        check_problem(await client.post(f"/v1/units/{foreign['id']}/retire", headers=key), 404)
        body = {"class": "boiler", "enterprise": mine}
        assert (await client.post("/v1/units", json=body, headers=key)).status_code == 201
        refused = await client.post("/v1/units", json=body | {"enterprise": other}, headers=key)
        check_problem(refused, 403, mine)
        check_problem(await client.post("/v1/units/bulk", content=b"", headers=key), 403)


async def test_bodies_are_bounded(tmp_path: Path) -> None:
    async with platform(f"sqlite:///{tmp_path}/platform.db") as client:

        async def parts(size: int) -> AsyncIterator[bytes]:
            for _ in range(size // 65536 + 1):
                yield b" " * 65536

        for path, most in [("/v1/providers", MAX_BODY), ("/v1/providers/bulk", MAX_BULK_BODY)]:
            kind = {"content-type": "application/json"}
            too_much = await client.post(path, content=b" " * (most + 1), headers=kind)
            check_problem(too_much, 413, str(most))
            check_problem(await client.post(path, content=parts(most), headers=kind), 413, str(most))
        line = b'{"id": "p-1", "name": "P"}\n'
        check_problem(await client.post("/v1/providers/bulk", content=line * 20_001), 413, "20000")
        assert (await client.post("/v1/providers/bulk", content=line * 20_000)).json() == {
            "created": 1,
            "existing": 19_999,
            "errors": [],
        }


async def test_bulk_registers_the_good_lines_and_names_the_others(database_url: str) -> None:
    async with platform(database_url) as client:
        enterprises = [
            {"id": f"370202-e{n:05d}", "name": f"Firm {n}", "county": "370202", "industry": "C31"}
            for n in range(50)
        ]
        assert await bulk(client, "enterprises", enterprises) == {"created": 50, "existing": 0, "errors": []}
        units = [
            {"id": f"370202-motor-{n:07d}", "class": "motor", "enterprise": f"370202-e{n % 50:05d}"}
            for n in range(2000)
        ]
        assert await bulk(client, "units", units) == {"created": 2000, "existing": 0, "errors": []}
        mixed = [
            units[0],
            units[1] | {"class": "boiler"},
            {"id": "new", "class": "motor", "enterprise": "370202-e00001"},
            {"id": "new", "class": "motor", "enterprise": "370202-e00001"},
            {"id": "new", "class": "motor", "enterprise": "370202-e00002"},
            {"id": "lost", "class": "motor", "enterprise": "nobody"},
            {"class": "motor", "enterprise": "370202-e00001"},
        ]
        outcome = await bulk(client, "units", mixed)
        assert (outcome["created"], outcome["existing"]) == (1, 2)
        assert [error["line"] for error in outcome["errors"]] == [2, 5, 6, 7]
        for error, word in zip(outcome["errors"], ["boiler", "370202-e00001", "nobody", "id"], strict=True):
            assert word in error["detail"]
        await bulk(client, "providers", [{"id": "p-1", "name": "P"}])
        contracts = [
            {"id": f"c-{n}", "enterprise": f"370202-e{n:05d}", "provider": "p-1", "kind": "equipment"}
            for n in range(50)
        ]
        lost = [{"id": "c-x", "enterprise": "370202-e00001", "provider": "p-2", "kind": "equipment"}]
        outcome = await bulk(client, "contracts", contracts + lost)
        assert outcome["created"] == 50
        assert [error["line"] for error in outcome["errors"]] == [51]
        counts = await programme(client)
        assert counts["registered"] == {"enterprises": 50, "units": 2001}
        assert counts["enterprises_on_cloud"]["onboarded"] == 50
        assert counts["by_class"]["motor"]["units_registered"] == 2001
        check_problem(await client.post("/v1/centres/bulk", content=b""), 422, "book")


async def test_pages_hold_everything_once_and_filters_hold_what_they_say(database_url: str) -> None:
    async with platform(database_url) as client:
        places = ["370202", "370203", "370102", "371771"]
        await bulk(
            client,
            "enterprises",
            [
                {"id": f"e-{county}", "name": "E", "county": county, "industry": industry}
                for county, industry in zip(places, ["C31", "C31", "C13", "D44"], strict=True)
            ],
        )
        classes = ["motor", "boiler", "wind_turbine"]
        await bulk(
            client,
            "units",
            [
                {"id": f"u{n * 7919 % 101:03d}", "class": classes[n % 3], "enterprise": f"e-{places[n % 4]}"}
                for n in range(60)
            ],
        )

        async def walk(path: str, limit: int = 7) -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = []
            cursor: str | None = None
            while True:
                step = {"limit": limit} | ({"cursor": cursor} if cursor else {})
                page = await client.get(path, params=httpx.QueryParams(path.partition("?")[2]).merge(step))
                assert page.status_code == 200, page.text
                found += page.json()["items"]
                cursor = page.json()["next"]
                if cursor is None:
                    return found

        units = await walk("/v1/units")
        ids = [unit["id"] for unit in units]
        assert ids == sorted(set(ids))
        assert len(ids) == 60
        retired = ids[:5]
        for id_ in retired:
            await client.post(f"/v1/units/{id_}/retire")
        seen = {"readings": [{"unit": id_, "ts_ms": 1} for id_ in ids[5:20]]}
        await client.post("/v1/ingest/first-readings", json=seen)
        units = await walk("/v1/units")
        assert {unit["state"] for unit in units} == {"registered", "on_cloud", "retired"}
        for unit in units:
            assert unit["city"] == city_of(unit["county"])
        for wanted in [
            {"county": "370202"},
            {"city": "370200"},
            {"class": "motor"},
            {"enterprise": "e-370102"},
            {"state": "retired"},
            {"state": "on_cloud"},
            {"city": "370200", "class": "boiler", "state": "registered"},
            {"enterprise": "e-370202", "class": "motor", "city": "370200"},
            {"enterprise": "e-370202", "county": "370203"},
            {"county": "370202", "city": "370100"},
        ]:
            expected = [unit for unit in units if wanted.items() <= unit.items()]
            assert await walk(f"/v1/units?{httpx.QueryParams(wanted)}", limit=4) == expected, wanted
        enterprises = await walk("/v1/enterprises", limit=3)
        assert len(enterprises) == 4
        for wanted in [
            {"county": "370202"},
            {"city": "370200"},
            {"industry": "C31", "city": "370200"},
            {"county": "370202", "city": "370100"},
        ]:
            expected = [each for each in enterprises if wanted.items() <= each.items()]
            assert await walk(f"/v1/enterprises?{httpx.QueryParams(wanted)}", limit=1) == expected
        for wrong in ["limit=0", "limit=1001", "cursor=A!", "city=370202", "class=toaster", "state=new"]:
            check_problem(await client.get(f"/v1/units?{wrong}"), 422, wrong.partition("=")[0])


async def test_ids_made_by_the_platform_never_meet_those_of_callers(database_url: str) -> None:
    async with platform(database_url) as client:
        owner = await an_enterprise(client)
        first = await made(client, "units", **{"class": "blast_furnace", "enterprise": owner})
        assert re.fullmatch(r"370202-blast-furnace-\d{7}", first["id"])
        number = int(first["id"].rpartition("-")[2])
        taken = [
            {"id": f"370202-blast-furnace-{number + n:07d}", "class": "blast_furnace", "enterprise": owner}
            for n in range(1, 300)
        ]
        assert (await bulk(client, "units", taken))["created"] == 299
        await client.post(f"/v1/units/{first['id']}/retire")
        names = {first["id"], *(unit["id"] for unit in taken)}
        for _ in range(5):
            unit = await made(client, "units", **{"class": "blast_furnace", "enterprise": owner})
            assert unit["id"] not in names
            names.add(unit["id"])
        provider = await made(client, "providers", name="P")
        assert re.fullmatch(r"provider-\d+", provider["id"])
        centres = [await made(client, "centres", name="C", city="370200", park="Laoshan") for _ in range(2)]
        assert centres[0]["id"] != centres[1]["id"]
        listed = (await client.get("/v1/centres?city=370200")).json()["items"]
        assert sorted(listed, key=str) == sorted(centres, key=str)
        assert (await client.get("/v1/centres?city=370100")).json()["items"] == []
        assert (await client.get(f"/v1/centres/{centres[0]['id']}")).json() == centres[0]
        assert (await programme(client))["centres"]["onboarded"] == 2


def readings_body(by_column: bool, readings: Sequence[tuple[str, int]]) -> dict[str, Any]:
    if by_column:
        return {"units": [unit for unit, _ in readings], "ts_ms": [ts_ms for _, ts_ms in readings]}
    return {"readings": [{"unit": unit, "ts_ms": ts_ms} for unit, ts_ms in readings]}


@pytest.mark.parametrize("by_column", [False, True])
async def test_a_unit_counts_once_and_retiring_it_leaves_it_onboarded(
    database_url: str, by_column: bool
) -> None:
    async with platform(database_url) as client:
        owner = await an_enterprise(client)
        unit = await made(client, "units", **{"class": "motor", "enterprise": owner})
        late = await made(client, "units", **{"class": "motor", "enterprise": owner})
        gateway = await key_of(client, "ingest")

        async def report(path: str, *readings: tuple[str, int]) -> dict[str, Any]:
            body = readings_body(by_column, readings)
            answer = await client.post(f"/v1/ingest/{path}", json=body, headers=gateway)
            assert answer.status_code == 200
            result: dict[str, Any] = answer.json()
            return result

        async def admitted(*ids: str) -> dict[str, Any]:
            answer = await client.post("/v1/ingest/admission", json={"units": ids}, headers=gateway)
            found: dict[str, Any] = answer.json()["units"]
            answer = await client.post("/v1/ingest/admission-columns", json={"units": ids}, headers=gateway)
            columns = answer.json()
            named = zip(ids, columns["class"], columns["owner"], columns["on_cloud"], strict=True)
            assert found == {
                unit: {
                    "class": columns["classes"][class_],
                    **dict(
                        zip(
                            ("enterprise", "county", "city", "industry"),
                            columns["owners"][owner],
                            strict=True,
                        )
                    ),
                    "on_cloud": on_cloud,
                }
                for unit, class_, owner, on_cloud in named
                if (class_, owner) != (-1, -1)
            }
            return found

        expected = {
            "class": "motor",
            "enterprise": owner,
            "county": "370202",
            "city": "370200",
            "industry": "C31",
            "on_cloud": False,
        }
        assert await admitted(unit["id"], "unknown", "Not/an id") == {unit["id"]: expected}
        id_ = unit["id"]
        assert await report("first-readings", (id_, 70), (id_, 50), ("unknown", 1)) == {
            "counted": 1,
            "already": 1,
            "unknown": ["unknown"],
        }
        assert await report("first-readings", (id_, 40)) == {"counted": 0, "already": 1, "unknown": []}
        shown = (await client.get(f"/v1/units/{id_}")).json()
        assert (shown["state"], shown["on_cloud_ms"]) == ("on_cloud", 50)
        assert await admitted(id_) == {id_: expected | {"on_cloud": True}}
        for _ in range(2):
            retired = await client.post(f"/v1/units/{id_}/retire")
            assert (retired.status_code, retired.json()["state"]) == (200, "retired")
        assert await admitted(id_) == {}
        target = (await programme(client))["units_on_cloud"]
        assert (target["onboarded"], target["current"], target["reached"]) == (1, 0, False)
        # Its reading was stored before it was retired, and is reported after.
        await client.post(f"/v1/units/{late['id']}/retire")
        assert (await report("first-readings", (late["id"], 60)))["counted"] == 1
        target = (await programme(client))["units_on_cloud"]
        assert (target["onboarded"], target["current"]) == (2, 0)
        check_problem(await client.post("/v1/units/nothing/retire"), 404, "nothing")


async def test_active_units_are_those_heard_of_in_a_day(database_url: str) -> None:
    async with platform(database_url) as client:
        owner = await an_enterprise(client)
        ids = [
            (await made(client, "units", **{"class": "motor", "enterprise": owner}))["id"] for _ in range(4)
        ]
        now = wall_ms() // HOUR_MS * HOUR_MS

        async def hear(*readings: tuple[str, int]) -> int:
            by_column = bool(len(readings) % 2)
            answer = await client.post("/v1/ingest/activity", json=readings_body(by_column, readings))
            updated: int = answer.json()["updated"]
            return updated

        async def active() -> int:
            count: int = (await programme(client))["active"]
            return count

        assert await active() == 0
        assert await hear((ids[0], now), (ids[1], now), (ids[1], now - HOUR_MS), (ids[2], 5), ("x", now)) == 3
        assert await active() == 2
        assert await hear((ids[0], now + 5), (ids[1], now - HOUR_MS)) == 0
        # A run whose clock is ahead of the wall clock: units active by the wall clock are a day old.
        assert await hear((ids[3], now + 30 * HOUR_MS)) == 1
        assert await active() == 1
        assert await hear((ids[0], now + 29 * HOUR_MS)) == 1
        assert await active() == 2
        for stale, expected in ((1, 1), (0, 1)):  # stale, and still one stale unit when reported again
            answer = await client.post("/v1/ingest/deaths", json={"units": [ids[3], "x"]})
            assert (answer.status_code, answer.json()) == (200, {"stale": stale})
            assert await active() == expected
        assert await hear((ids[3], now + 30 * HOUR_MS)) == 1
        assert await active() == 2
        await client.post(f"/v1/units/{ids[0]}/retire")
        assert await hear((ids[0], now + 30 * HOUR_MS)) == 0
        assert await active() == 1


async def test_an_enterprise_is_on_cloud_with_its_first_contract(database_url: str) -> None:
    async with platform(database_url) as client:
        owner = await an_enterprise(client, "370102")
        provider = (await made(client, "providers", name="P"))["id"]

        async def counts() -> tuple[int, int]:
            target = (await programme(client))["enterprises_on_cloud"]
            return target["onboarded"], target["current"]

        async def sign(kind: str) -> str:
            return str(
                (await made(client, "contracts", enterprise=owner, provider=provider, kind=kind))["id"]
            )

        assert await counts() == (0, 0)
        contracts = [await sign("infrastructure"), await sign("equipment")]
        assert await counts() == (1, 1)
        ended = await client.post(f"/v1/contracts/{contracts[0]}/end")
        assert ended.json()["ended_ms"] is not None
        assert await counts() == (1, 1)
        for _ in range(2):
            assert (await client.post(f"/v1/contracts/{contracts[1]}/end")).status_code == 200
        assert await counts() == (1, 0)
        await sign("business")
        assert await counts() == (1, 1)
        shown = await programme(client)
        assert shown["contracts"] == {
            "infrastructure": {"onboarded": 1, "current": 0},
            "platform": {"onboarded": 0, "current": 0},
            "business": {"onboarded": 1, "current": 1},
            "equipment": {"onboarded": 1, "current": 0},
        }
        assert shown["by_city"]["370100"]["enterprises_on_cloud"] == 1
        assert shown["providers"]["onboarded"] == 1
        listed = (await client.get(f"/v1/contracts?enterprise={owner}")).json()["items"]
        assert len(listed) == 3
        check_problem(await client.post("/v1/contracts/nothing/end"), 404, "nothing")


async def test_everybody_may_see_the_programme_and_the_console(tmp_path: Path) -> None:
    async with platform(f"sqlite:///{tmp_path}/platform.db") as client:
        del client.headers["Authorization"]
        shown = (await client.get("/v1/programme")).json()
        assert [target["name"] for target in shown["targets"]] == list(CORE_TARGETS)
        assert set(shown["by_city"]) == set(CITIES)
        province = await client.get("/console/shandong.geojson")
        assert province.headers["content-type"] == "application/geo+json"
        assert len(province.json()["features"]) == len(CITIES)
        page = await client.get("/")
        assert page.headers["content-type"].startswith("text/html")
        assert "default-src 'self'" in page.headers["content-security-policy"]
        for link in re.findall(r'(?:src|href)="(/console/[^"]+)"', page.text):
            assert (await client.get(link)).status_code == 200, link
        check_problem(await client.get("/console/../settings.py"), 404)
        for path in ("%2e%2e/settings.py", "a%00b", "a" * 300, ""):
            check_problem(await client.get(f"/console/{path}"), 404)
        check_problem(await client.post("/console/app.js"), 405)
        check_problem(await client.get("/v1/nothing"), 404, "/v1/nothing")
        check_problem(await client.get("/v1/ingest/admission"), 405)
        assert (await client.get("/healthz")).json() == {"status": "ok"}


async def test_requests_carry_an_id_and_are_counted_by_route(tmp_path: Path) -> None:
    async with platform(f"sqlite:///{tmp_path}/platform.db") as client:
        given = await client.get("/v1/units/nothing", headers={"X-Request-Id": "abc-1"})
        assert given.headers["x-request-id"] == "abc-1"
        forged = await client.get("/v1/units/other", headers={"X-Request-Id": 'a" b'})
        assert re.fullmatch("[0-9a-f]{32}", forged.headers["x-request-id"])
        await client.get("/nothing/that/is/served")
        text = (await client.get("/metrics")).text
        assert 'qilu_platform_requests_total{method="GET",route="/v1/units/{id}",status="404"} 2.0' in text
        assert 'route="unmatched",status="404"} 1.0' in text
        assert "served" not in text


async def test_a_fault_of_ours_is_a_problem_without_a_traceback(tmp_path: Path) -> None:
    app = create_app(Settings(db_url=f"sqlite:///{tmp_path}/platform.db", api_key=SecretStr(ADMIN)))

    async def fail() -> None:
        raise RuntimeError("a secret inside")

    app.add_api_route("/fail", fail)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://platform") as client,
    ):
        answer = await client.get("/fail", headers={"X-Request-Id": "r-1"})
        check_problem(answer, 500, "r-1")
        assert "secret" not in answer.text
        assert answer.headers["x-request-id"] == "r-1"
        assert 'status="500"} 1.0' in (await client.get("/metrics")).text


async def test_the_description_names_every_path_and_its_problems(tmp_path: Path) -> None:
    async with platform(f"sqlite:///{tmp_path}/platform.db") as client:
        described = (await client.get("/openapi.json")).json()
        docs = await client.get("/docs")
        policy = docs.headers["content-security-policy"]
    assert docs.status_code == 200
    assert policy.startswith("default-src 'none'")
    operations = [each for path in described["paths"].values() for each in path.values()]
    assert all(f'id="{each["operationId"]}"' in docs.text for each in operations)
    assert "Pump motor 3" in docs.text
    assert not re.search(r'(?:src|href)="(?:https?:)?//|<script', docs.text)
    paths = described["paths"]
    for path in ("/v1/units", "/v1/{book}/bulk", "/v1/ingest/first-readings", "/v1/programme", "/v1/events"):
        assert path in paths
    created = paths["/v1/enterprises"]["post"]
    assert list(created["responses"]["422"]["content"]) == ["application/problem+json"]
    assert described["components"]["schemas"]["EnterpriseIn"]["examples"]


async def test_a_new_id_does_not_begin_with_a_hyphen(database_url: str) -> None:
    async with platform(database_url) as client:
        works = await an_enterprise(client)
        for path, body in (
            ("enterprises", {"id": "-x", "name": "X", "county": "370202", "industry": "C31"}),
            ("units", {"id": "-x", "class": "motor", "enterprise": works}),
        ):
            check_problem(await client.post(f"/v1/{path}", json=body), 422, "hyphen")
            assert (await bulk(client, path, [body]))["created"] == 0
        assert (await client.get("/v1/units/-x")).status_code == 404  # and not: no such id can be


async def test_the_page_is_shown_in_no_frame(database_url: str) -> None:
    async with platform(database_url) as client:
        policy = (await client.get("/")).headers["content-security-policy"]
        assert "frame-ancestors 'none'" in policy


async def test_a_query_parameter_that_is_not_known_is_refused_with_those_that_are(tmp_path: Path) -> None:
    async with platform(f"sqlite:///{tmp_path}/platform.db") as client:
        check_problem(await client.get("/v1/units?clas=motor"), 422, "'clas'", "class, enterprise, industry")
        check_problem(await client.get("/v1/keys?limit=1"), 422, "'limit'", "there are none")
        check_problem(await client.post("/v1/contracts/end?x=1", json={"contracts": []}), 422, "'x'")
        assert (await client.get("/?kiosk&lang=zh")).status_code == 200  # the console has its own


async def test_a_json_array_in_bulk_is_refused(tmp_path: Path) -> None:
    async with platform(f"sqlite:///{tmp_path}/platform.db") as client:
        for content in (b'[{"id": "p-1", "name": "One"}]', b' \n[\n{"id": "p-1", "name": "One"}]'):
            refused = await client.post("/v1/providers/bulk", content=content)
            check_problem(refused, 422, "one object a line")
        assert (await client.get("/v1/providers")).json()["items"] == []


async def test_a_name_is_changed_and_the_old_one_stands_in_the_audit_log(database_url: str) -> None:
    async with platform(database_url) as client:
        works = await an_enterprise(client, id="my-works")
        unit = await made(client, "units", **{"id": "my-motor", "class": "motor", "enterprise": works})
        assert unit["name"] is None
        answer = await client.patch("/v1/units/my-motor", json={"name": "Pump 3"})
        assert (answer.status_code, answer.json()) == (200, unit | {"name": "Pump 3"})
        for _ in range(2):  # the second time nothing changes
            answer = await client.patch("/v1/enterprises/my-works", json={"name": "青岛钢铁"})
            assert answer.json()["name"] == "青岛钢铁"
        log = (await client.get("/v1/audit?subject=enterprises/my-works")).json()["items"]
        assert [(each["action"], each["detail"]) for each in log] == [
            ("renamed", {"name": "青岛钢铁", "was": "Qingdao Iron"}),
            ("registered", None),
        ]
        history = (await client.get("/v1/units/my-motor/history")).json()["items"]
        assert [each["event"] for each in history] == ["registered", "renamed"]
        found = (await client.get("/v1/enterprises?name=青岛")).json()["items"]
        assert [each["id"] for each in found] == ["my-works"]
        check_problem(await client.patch("/v1/units/nobody", json={"name": "A"}), 404, "unit nobody")
        check_problem(await client.patch("/v1/units/my-motor", json={"name": " "}), 422, "name")
        check_problem(await client.patch("/v1/contracts/c", json={"name": "A"}), 405)
        others = await key_of(client, "enterprise", await an_enterprise(client, id="others"))
        own = await key_of(client, "enterprise", works)
        refused = await client.patch("/v1/units/my-motor", json={"name": "Mine"}, headers=others)
        check_problem(refused, 404, "my-motor")
        assert (await client.patch("/v1/units/my-motor", json={"name": "Mine"}, headers=own)).is_success
        viewer = await key_of(client, "viewer")
        check_problem(await client.patch("/v1/units/my-motor", json={"name": "A"}, headers=viewer), 403)


async def test_the_catalogue_lists_what_bodies_may_name_and_a_key_learns_what_it_is(tmp_path: Path) -> None:
    async with platform(f"sqlite:///{tmp_path}/platform.db") as client:
        none = {"Authorization": ""}
        classes = (await client.get("/v1/classes", headers=none)).json()["items"]
        assert {each["name"]: [signal["name"] for signal in each["signals"]] for each in classes} == {
            **{name: [signal.name for signal in each.signals] for name, each in CATALOGUE.items()},
            "generic": [],
        }
        counties = (await client.get("/v1/counties?city=370200", headers=none)).json()["items"]
        assert {each["code"] for each in counties} == {
            code for code, each in COUNTIES.items() if each.city == "370200"
        }
        industries = (await client.get("/v1/industries", headers=none)).json()["items"]
        assert [each["code"] for each in industries] == list(BRANCHES)
        works = await an_enterprise(client)
        mine = await client.get("/v1/whoami", headers=await key_of(client, "enterprise", works))
        assert mine.json() | {"key": ""} == {
            "key": "",
            "name": "test enterprise",
            "role": "enterprise",
            "enterprise": works,
        }
        check_problem(await client.get("/v1/whoami", headers=none), 401)


async def test_a_unit_is_not_heard_of_before_it_is_registered(tmp_path: Path) -> None:
    async with platform(f"sqlite:///{tmp_path}/platform.db") as client:
        unit = await made(client, "units", **{"class": "motor", "enterprise": await an_enterprise(client)})
        reading = {"unit": unit["id"], "ts_ms": unit["registered_ms"] + 5}
        await client.post("/v1/ingest/activity", json={"readings": [reading]})
        heard_ms = (await client.get(f"/v1/units/{unit['id']}")).json()["last_heard_ms"]
        assert heard_ms == unit["registered_ms"]
        # History that comes later is older than the registration, and is not taken for younger.
        older = await made(client, "units", **{"class": "motor", "enterprise": unit["enterprise"]})
        reading = {"unit": older["id"], "ts_ms": older["registered_ms"] - 3 * HOUR_MS}
        await client.post("/v1/ingest/first-readings", json={"readings": [reading]})
        heard_ms = (await client.get(f"/v1/units/{older['id']}")).json()["last_heard_ms"]
        assert heard_ms == reading["ts_ms"]


SOIL = {
    "name": "Soil Moisture",
    "title": "Soil moisture",
    "title_zh": "土壤湿度",
    "unit": "%",
    "low": 0,
    "high": 100,
}
GREENHOUSE = {"title": "Greenhouse", "title_zh": "温室", "signals": [SOIL, {"name": "vent"}]}


async def test_a_generic_unit_shows_what_its_type_says_and_what_it_sends_besides(database_url: str) -> None:
    async with platform(database_url) as client:
        works = await an_enterprise(client)
        unit = (await made(client, "units", **{"class": "generic", "enterprise": works}))["id"]
        found = await client.put("/v1/device-types/greenhouse", json=GREENHOUSE)
        assert (found.status_code, found.json()["signals"][0]["name"]) == (200, "soil_moisture")
        assert (await client.get("/v1/device-types")).json() == {"items": [found.json()]}
        owner = await key_of(client, "enterprise", works)
        path = f"/v1/units/{unit}"
        body: dict[str, Any] = {"type": "greenhouse"}
        assert (await client.put(f"{path}/device-type", json=body, headers=owner)).status_code == 204
        sent = [{"unit": unit, "name": name, "measured_in": "lx"} for name in ("soil_moisture", "lux")]
        assert (await client.post("/v1/ingest/signals", json={"signals": sent})).status_code == 204
        signals = (await client.get(f"{path}/signals")).json()
        assert signals["type"] == {"id": "greenhouse", "title": "Greenhouse", "title_zh": "温室"}
        soil, vent, lux = signals["items"]
        assert soil == {**SOIL, "name": "soil_moisture", "since_ms": lux["since_ms"]}
        assert (vent["name"], vent["low"], vent["since_ms"]) == ("vent", None, None)
        assert (lux["name"], lux["unit"], lux["title"]) == ("lux", "lx", None)
        # Replaced, and deleted once no unit has it: the unit keeps what it has sent.
        await client.put("/v1/device-types/greenhouse", json={**GREENHOUSE, "signals": [{"name": "vent"}]})
        names = [each["name"] for each in (await client.get(f"{path}/signals")).json()["items"]]
        assert names == ["vent", "lux", "soil_moisture"]
        check_problem(await client.delete("/v1/device-types/greenhouse"), 409, "1 unit has device type")
        assert (await client.put(f"{path}/device-type", json={"type": None})).status_code == 204
        assert (await client.delete("/v1/device-types/greenhouse")).status_code == 204
        signals = (await client.get(f"{path}/signals")).json()
        assert (signals["type"], [each["name"] for each in signals["items"]]) == (
            None,
            ["lux", "soil_moisture"],
        )


async def test_a_type_that_is_none_is_refused_with_the_reason(database_url: str) -> None:
    async with platform(database_url) as client:
        for signal, says in (
            ({"name": "9"}, "begins with a letter"),
            ({"name": "a", "low": 1}, "give both or none"),
            ({"name": "a", "low": 2, "high": 1}, "must be below"),
            ({"name": "VENT"}, "vent is there twice"),
        ):
            body = {"title": "T", "signals": [{"name": "vent"}, signal]}
            check_problem(await client.put("/v1/device-types/t", json=body), 422, says)
        works = await an_enterprise(client)
        motor = await made(client, "units", **{"class": "motor", "enterprise": works})
        path = f"/v1/units/{motor['id']}/device-type"
        check_problem(await client.put(path, json={"type": "t"}), 409, "only generic units")
        check_problem(await client.delete("/v1/device-types/t"), 404, "t does not exist")
        viewer = await key_of(client, "viewer")
        check_problem(await client.put("/v1/device-types/t", json=GREENHOUSE, headers=viewer), 403)
