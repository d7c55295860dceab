"""Import and export of enterprises and units: bad lines are reported by number, an interrupted import
resumes, and lines that are sent twice are registered once."""

from __future__ import annotations

import asyncio
import csv
import gzip
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from qilu_platform.audit import audit
from qilu_platform.imports import jobs as imports
from qilu_platform.imports.jobs import count_jobs
from qilu_platform.imports.splitting import BLOCK
from qilu_platform.registry.listing import LOOK_AT
from qilu_platform.service import PlatformService
from qilu_platform.settings import Settings

ADMIN = "the-admin-key-of-this-test"
CSV = {"Content-Type": "text/csv"}
NDJSON = {"Content-Type": "application/x-ndjson"}
OWNER = "370202-e00007"


@asynccontextmanager
async def platform(database_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a platform that serves on a real socket; the books must balance in the end."""
    settings = Settings(db_url=database_url, port=0, api_key=SecretStr(ADMIN))
    async with asyncio.timeout(120), PlatformService(settings) as service:
        headers = {"Authorization": f"Bearer {ADMIN}"}
        async with httpx.AsyncClient(
            base_url=service.url, headers=headers, timeout=60, trust_env=False
        ) as client:
            body = {"id": OWNER, "name": "Qingdao Iron", "county": "370202", "industry": "C31"}
            assert (await client.post("/v1/enterprises", json=body)).status_code == 201
            yield client
        assert service._runtime is not None
        assert audit(service._runtime.database.engine) == []


def units_csv(numbers: range) -> bytes:
    lines = ["id,class,enterprise,name"]
    lines += [f"370202-motor-{n:07d},motor,{OWNER},{'Pump ' + str(n) if n % 3 else ''}" for n in numbers]
    return ("\n".join(lines) + "\n").encode()


async def sent(
    client: httpx.AsyncClient, content: Any, headers: dict[str, str], book: str = "units"
) -> dict[str, Any]:
    answer = await client.post(f"/v1/imports?book={book}", content=content, headers=headers)
    assert answer.status_code == 200, answer.text
    job: dict[str, Any] = answer.json()
    assert job["state"] == "done"
    assert job["created"] + job["existing"] + job["bad"] <= job["lines"]
    return job


async def errors_of(client: httpx.AsyncClient, job: dict[str, Any]) -> list[dict[str, Any]]:
    answer = await client.get(job["errors"])
    assert answer.status_code == 200
    return [json.loads(line) for line in answer.text.splitlines()]


def counts(job: dict[str, Any]) -> tuple[int, int, int]:
    return job["created"], job["existing"], job["bad"]


async def test_a_file_of_many_blocks_is_registered_once(database_url: str) -> None:
    content = units_csv(range(30_000))
    assert len(content) > 2 * BLOCK
    async with platform(database_url) as client:
        job = await sent(client, content, CSV)
        assert counts(job) == (30_000, 0, 0)
        assert (job["lines"], job["offset"]) == (30_001, len(content))
        again = await sent(client, content, CSV)
        assert counts(again) == (0, 30_000, 0)
        more = await sent(client, units_csv(range(29_000, 31_000)), CSV)
        assert counts(more) == (1_000, 1_000, 0)
        shown = (await client.get("/v1/programme")).json()
        assert shown["registered"]["units"] == 31_000
        noted = (await client.get("/v1/audit?subject=units")).json()["items"]
        assert [each["detail"]["created"] for each in noted] == [1_000, 30_000]


@pytest.mark.parametrize("gzipped", [False, True])
async def test_ndjson_and_gzip_give_the_same(database_url: str, gzipped: bool) -> None:
    rows = [{"id": f"u-{n}", "class": "boiler", "enterprise": OWNER} for n in range(20_000)]
    content = "\r\n".join(map(json.dumps, rows)).encode()
    async with platform(database_url) as client:
        headers = NDJSON | ({"Content-Encoding": "gzip"} if gzipped else {})
        # Joined end to end, as `cat a.gz b.gz` makes it.
        body = gzip.compress(content[:1000], mtime=0) + gzip.compress(content[1000:]) if gzipped else content
        job = await sent(client, body, headers)
        assert counts(job) == (20_000, 0, 0)
        assert job["offset"] == len(content)
        page = (await client.get("/v1/units?class=boiler&county=370202&limit=3")).json()
        assert [each["id"] for each in page["items"]] == ["u-0", "u-1", "u-10"]


BAD = """\
name,id,class,enterprise
,u-1,motor,370202-e00007
Pump,U 2,motor,370202-e00007
Pump,u-3,toaster,370202-e00007
Pump,u-4,motor,nobody
Pump,u-5,motor

"泵, large",u-6,motor,370202-e00007
"no end,u-7,motor,370202-e00007
Pump,u-8,motor,370202-e00007,more
Pump,u-1,motor,370202-e00007
Pump,u-9,motor,370202-e00007
"""


async def test_good_lines_are_kept_and_every_bad_one_is_told_with_column_and_reason(
    database_url: str,
) -> None:
    content = BAD.encode() + b"\xff,u-10,motor,370202-e00007\n,,motor,370202-e00007"
    async with platform(database_url) as client:
        job = await sent(client, content, CSV)
        assert counts(job) == (3, 0, 9)
        found = await errors_of(client, job)
        told = {each["line"]: (each["column"], each["reason"]) for each in found}
        assert list(told) == [3, 4, 5, 6, 9, 10, 11, 13, 14]
        for line, column, word in [
            (3, "id", "1 to 32"),
            (4, "class", "toaster"),
            (5, "enterprise", "register it first"),
            (6, None, "has 3 values, not 4"),
            (9, None, "line break"),
            (10, None, "has 5 values"),
            (11, "name", "other content"),
            (13, None, "not UTF-8"),
            (14, "id", "1 to 32"),
        ]:
            assert told[line][0] == column, line
            assert word in told[line][1], line
        assert (await client.get("/v1/units/u-6")).json()["name"] == "泵, large"


async def test_enterprises_are_imported_with_their_credit_codes(database_url: str) -> None:
    async with platform(database_url) as client:
        lines = [
            "id,name,county,industry,uscc",
            "e-1,青岛钢铁,370202,C31,91370200264574251E",
            "e-2,B,370202,C31,91370200264574251E",
            "e-3,C,370202,C31,91370200264574251F",
            "e-4,D,370299,C31,",
            "e-5,E,370202,C31,",
        ]
        job = await sent(client, "\ufeff" + "\r\n".join(lines), CSV, "enterprises")
        assert counts(job) == (2, 0, 3)
        columns = [(each["line"], each["column"]) for each in await errors_of(client, job)]
        assert columns == [(3, "uscc"), (4, "uscc"), (5, "county")]
        assert (await client.get("/v1/enterprises/e-1")).json()["name"] == "青岛钢铁"


@pytest.mark.parametrize(
    ("content", "headers", "status", "said"),
    [
        ("编号,名称\n".encode("gb18030"), CSV, 422, "iconv"),
        ("id,class,enterprise,name\nu-1,motor,e,泵\n".encode("gb18030"), CSV, 422, "line 2"),
        ("id,class,enterprise\n".encode("utf-16"), CSV, 422, "iconv -f UTF-16 "),
        ("id,class,enterprise\n".encode("utf-16-le"), CSV, 422, "iconv -f UTF-16LE"),
        ("id,class,enterprise\n".encode("utf-16-be"), NDJSON, 422, "iconv -f UTF-16BE"),
        (b"PK\x03\x04\x14\x00\x06\x00\n[Content_Types].xml", CSV, 422, "Excel workbook (.xlsx)"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", CSV, 422, "Excel workbook (.xls)"),
        (gzip.compress(b"id,class,enterprise\n", mtime=0), CSV, 422, "`Content-Encoding: gzip`"),
        (b"id,class,enterprise\ru-1,motor,e\r", CSV, 422, "CR alone"),
        (b"id,class,enterprise\r" + b"u-1,motor,e\r" * 20_000, CSV, 422, "CR alone"),
        (b"id,cl\x00ass,enterprise\n", CSV, 422, "NUL"),
        (b"id,class\nu-1,motor\n", CSV, 422, "'enterprise' is missing"),
        (b"id,class,enterprise,colour\n", CSV, 422, "'colour' is not known"),
        (b"id,class,enterprise,id\n", CSV, 422, "twice"),
        (b"id,class,enterprise\n", {"Content-Type": "application/zip"}, 415, "text/csv"),
        (b"id,class,enterprise\n", CSV | {"Content-Encoding": "gzip"}, 422, "not gzip"),
        (
            gzip.compress(b"id,class,enterprise\n", mtime=0)[:-9],
            CSV | {"Content-Encoding": "gzip"},
            422,
            "ends too early",
        ),
        (b"x" * (BLOCK + 1), CSV, 422, "longer than"),
    ],
)
async def test_what_is_no_such_file_is_refused_at_once(
    tmp_path: Path, content: bytes, headers: dict[str, str], status: int, said: str
) -> None:
    async with platform(f"sqlite:///{tmp_path}/platform.db") as client:
        answer = await client.post("/v1/imports?book=units", content=content, headers=headers)
        assert answer.status_code == status
        assert said in answer.json()["detail"]


@pytest.mark.parametrize(
    ("begin", "said"),
    [
        (b"id,colour\n", "'colour' is not known"),
        ("id,class,enterprise,name\nu-1,motor,e,泵\n".encode("gb18030"), "not UTF-8 (line 2)"),
        ("id,class,enterprise\n".encode("utf-16"), "The file is UTF-16"),
    ],
)
async def test_a_wrong_file_is_refused_while_it_is_still_being_sent(
    tmp_path: Path, begin: bytes, said: str
) -> None:
    async with platform(f"sqlite:///{tmp_path}/platform.db") as client:
        url = client.base_url
        reader, writer = await asyncio.open_connection(url.host, url.port)
        head = [
            "POST /v1/imports?book=units HTTP/1.1",
            *(f"Host: {url.host}", f"Authorization: Bearer {ADMIN}", "Content-Type: text/csv"),
            *("Transfer-Encoding: chunked", "", ""),
        ]
        # One chunk, and neither another one nor the end.
        writer.write("\r\n".join(head).encode() + b"%x\r\n%b\r\n" % (len(begin), begin))
        answer = await reader.readuntil(b"}")
        assert answer.startswith(b"HTTP/1.1 422 ")
        assert said in answer.decode()
        writer.close()
        await writer.wait_closed()


async def test_an_encoding_shows_later_than_in_the_first_lines_too(tmp_path: Path) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"id,class,enterprise,name\n"
        yield f"u-1,motor,{OWNER},\nu-2,motor,{OWNER},泵\n".encode("gb18030")

    async with platform(f"sqlite:///{tmp_path}/platform.db") as client:
        answer = await client.post("/v1/imports?book=units", content=body(), headers=CSV)
        assert answer.status_code == 422
        assert "not UTF-8 (line 3)" in answer.json()["detail"]


async def test_a_broken_connection_leaves_a_job_that_goes_on_from_its_offset(database_url: str) -> None:
    content = units_csv(range(40_000))
    cut = len(content) * 2 // 3

    class CableCutError(Exception):
        pass

    async def half() -> AsyncIterator[bytes]:
        for start in range(0, cut, 60_000):
            yield content[start : min(cut, start + 60_000)]
        raise CableCutError

    async with platform(database_url) as client:
        opened = await client.post("/v1/imports?book=units")
        assert opened.status_code == 201
        path = opened.headers["location"]

        async def send_on(body: Any, offset: int) -> httpx.Response:
            headers = CSV | {"Upload-Offset": str(offset)}
            return await client.patch(path, content=body, headers=headers)

        async def job() -> dict[str, Any]:
            found: dict[str, Any] = (await client.get(path)).json()
            return found

        with pytest.raises(CableCutError):
            await send_on(half(), 0)
        # The platform learns of it when it reads on; until then it works through what came.
        while (await job())["offset"] < cut - 200:
            await asyncio.sleep(0.02)
        broken = await job()
        assert broken["state"] == "open"
        assert content[: broken["offset"]].endswith(b"\n")
        assert broken["lines"] == content.count(b"\n", 0, broken["offset"])
        wrong = await send_on(content, 0)
        assert wrong.status_code == 409
        assert wrong.headers["upload-offset"] == str(broken["offset"])
        answer = await send_on(content[broken["offset"] :], broken["offset"])
        assert answer.status_code == 200, answer.text
        done = answer.json()
        assert (done["state"], done["offset"], counts(done)) == ("done", len(content), (40_000, 0, 0))
        assert (await send_on(b"", len(content))).status_code == 409
        assert path in [
            f"/v1/imports/{each['id']}" for each in (await client.get("/v1/imports")).json()["items"]
        ]


async def test_open_jobs_and_the_lines_of_all_are_counted(database_url: str) -> None:
    settings = Settings(db_url=database_url, port=0, api_key=SecretStr(ADMIN))
    async with asyncio.timeout(120), PlatformService(settings) as service:
        assert service._runtime is not None
        database = service._runtime.database
        assert await database.read(count_jobs) == {
            "imports_open": 0,
            "import_lines": 0,
            "import_lines_bad": 0,
        }
        headers = {"Authorization": f"Bearer {ADMIN}"}
        async with httpx.AsyncClient(base_url=service.url, headers=headers, trust_env=False) as client:
            job = await sent(client, units_csv(range(3)), CSV)  # of nobody
            await client.post("/v1/imports?book=units")
        assert await database.read(count_jobs) == {
            "imports_open": 1,
            "import_lines": job["lines"],
            "import_lines_bad": 3,
        }


async def test_two_that_go_on_with_one_job_register_everything_once(database_url: str) -> None:
    content = units_csv(range(20_000))
    async with platform(database_url) as client:
        path = (await client.post("/v1/imports?book=units")).headers["location"]
        headers = CSV | {"Upload-Offset": "0"}
        answers = await asyncio.gather(
            *(client.patch(path, content=content, headers=headers) for _ in range(2))
        )
        # One of them gets 409, unless it arrived after the other had finished.
        assert sorted(answer.status_code for answer in answers)[0] in (200, 409)
        job = (await client.get(path)).json()
        while job["state"] != "done":
            on = headers | {"Upload-Offset": str(job["offset"])}
            await client.patch(path, content=content[job["offset"] :], headers=on)
            job = (await client.get(path)).json()
        assert counts(job) == (20_000, 0, 0)


@pytest.mark.parametrize("kind", ["csv", "ndjson"])
async def test_what_was_exported_can_be_imported(database_url: str, kind: str, tmp_path: Path) -> None:
    async with platform(database_url) as client:
        await sent(client, units_csv(range(5_000)), CSV)
        names = "id,class,enterprise,name"
        query = {"format": kind, "columns": names, "county": "370202"}
        exported = await client.get("/v1/export/units", params=query)
        assert exported.status_code == 200
        if kind == "csv":
            assert exported.content == units_csv(range(5_000))
        assert (await client.get("/v1/export/units", params=query | {"county": "370203"})).text in (
            "",
            names + "\n",
        )
        whole = await client.get("/v1/export/units", params={"format": kind, "state": "registered"})
        assert len(whole.text.splitlines()) == 5_000 + (kind == "csv")
        owners = await client.get("/v1/export/enterprises?format=csv&columns=id,name,county,industry,uscc")
        assert owners.text == f"id,name,county,industry,uscc\n{OWNER},Qingdao Iron,370202,C31,\n"
        assert (await client.get("/v1/export/units?columns=id,colour")).status_code == 422
        async with platform(f"sqlite:///{tmp_path}/other.db") as other:
            headers = CSV if kind == "csv" else NDJSON
            assert counts(await sent(other, exported.content, headers)) == (5_000, 0, 0)


async def test_a_page_that_no_index_serves_is_bounded_and_goes_on(database_url: str) -> None:
    """A few of many, far apart: pages may be short, and hold each of them once."""
    async with platform(database_url) as client:
        await sent(client, units_csv(range(2 * LOOK_AT + 500)), CSV)
        await client.post("/v1/units", json={"id": "own-id", "class": "motor", "enterprise": OWNER})
        ids = [f"370202-motor-{n:07d}" for n in (3, LOOK_AT + 7, 2 * LOOK_AT + 400)] + ["own-id"]
        readings = [{"unit": id_, "ts_ms": 1} for id_ in ids]
        await client.post("/v1/ingest/first-readings", json={"readings": readings})
        for query in ({}, {"county": "370202"}, {"class": "motor"}, {"city": "370200", "name": ""}):
            found: list[str] = []
            pages, cursor = 0, None
            while pages == 0 or cursor is not None:
                step = {"state": "on_cloud", "limit": 2} | query | ({"cursor": cursor} if cursor else {})
                answer = (await client.get("/v1/units", params=step)).json()
                found += [item["id"] for item in answer["items"]]
                pages, cursor = pages + 1, answer["next"]
            assert found == ids, query
            assert pages >= 3
        exported = await client.get("/v1/export/units?state=on_cloud&columns=id")
        assert exported.text.split() == ["id", *ids]


async def test_a_file_that_turns_into_another_encoding_says_what_was_registered_before(
    database_url: str,
) -> None:
    good = units_csv(range(5_000))
    content = good + f"370202-motor-9999999,motor,{OWNER},泵\n".encode("gb18030")
    async with platform(database_url) as client:
        answer = await client.post("/v1/imports?book=units", content=content, headers=CSV)
        assert answer.status_code == 422
        job = (await client.get("/v1/imports")).json()["items"][0]
        assert job["state"] == "refused"
        assert job["created"] > 0
        assert f"The {job['lines']} lines before were taken: {job['created']} registered" in answer.text
        url = f"/v1/imports/{job['id']}"
        again = await client.patch(url, content=b"", headers=CSV | {"Upload-Offset": str(job["offset"])})
        assert again.status_code == 409
        assert "was refused" in again.json()["detail"]
        mended = content.decode("gb18030").encode()
        whole = await sent(client, mended, CSV)
        assert counts(whole) == (5_001 - job["created"], job["created"], 0)


async def test_a_small_gzip_cannot_make_the_platform_work_or_store_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imports, "MAX_REASONS", 100)
    zipped = CSV | {"Content-Encoding": "gzip"}
    header = b"id,class,enterprise,name\n"
    async with platform(f"sqlite:///{tmp_path}/platform.db") as client:
        bomb = gzip.compress(header + b"\n" * 100_000_000)
        answer = await client.post("/v1/imports?book=units", content=bomb, headers=zipped)
        assert answer.status_code == 422
        assert "expands to more than 200 times" in answer.json()["detail"]
        job = await sent(client, gzip.compress(header + b"x,\n" * 5_000), zipped)
        assert counts(job) == (0, 0, 5_000)
        assert len(await errors_of(client, job)) == 100


async def test_an_export_holds_no_formula_and_comes_back_as_it_was(database_url: str) -> None:
    names = ['=HYPERLINK("x")', "+1", "-1", "@a", "'quoted'", "'=x", "''-y", "泵　3\xa0号", "plain"]
    async with platform(database_url) as client:
        for n, name in enumerate(names):
            body = {"id": f"u-{n}", "class": "motor", "enterprise": OWNER, "name": name}
            assert (await client.post("/v1/units", json=body)).status_code == 201
        columns = "id,class,enterprise,name"
        shown = await client.get("/v1/export/units", params={"columns": columns})
        rows = list(csv.reader(shown.text.splitlines()))[1:]
        assert [row[3][:1] in "=+-@" for row in rows] == [False] * len(names)
        assert counts(await sent(client, shown.content, CSV)) == (0, len(names), 0)
        for n in range(len(names)):  # one line at a time takes the slow way of a block with a fault
            line = shown.content.splitlines(keepends=True)[n + 1]
            job = await sent(client, columns.encode() + b"\n" + line + b"bad\n", CSV)
            assert counts(job) == (0, 1, 1)
        marked = await client.get("/v1/export/units", params={"columns": columns, "bom": "true"})
        assert marked.content == b"\xef\xbb\xbf" + shown.content
        assert counts(await sent(client, marked.content, CSV)) == (0, len(names), 0)
        exact = await client.get("/v1/export/units", params={"columns": "name", "format": "ndjson"})
        assert [json.loads(line)["name"] for line in exact.text.splitlines()] == names


async def test_a_name_with_a_character_that_cannot_be_shown_is_told_which(tmp_path: Path) -> None:
    async with platform(f"sqlite:///{tmp_path}/platform.db") as client:
        content = f"id,class,enterprise,name\nu-1,motor,{OWNER},泵　３\nu-2,motor,{OWNER},a\u200bb\n".encode()
        job = await sent(client, content, CSV)
        assert counts(job) == (1, 0, 1)
        assert "character 2 (U+200B) is not printable" in (await errors_of(client, job))[0]["reason"]
