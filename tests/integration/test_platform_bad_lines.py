"""A large file with one bad line in a hundred, over a connection that breaks in the middle: every good line
is registered once, every bad one is reported in order, and the platform's memory stays bounded.

The short form has 100,000 lines; the long form (QILU_SOAK=1) has 10,000,000, and says how long it took.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import httpx
import pytest
from qilu_contract.catalogue.places import COUNTIES
from qilu_contract.wire.ids import enterprise_id, unit_id
from qilu_platform.audit import audit
from qilu_platform.database.engine import open_engine

SOAK = os.environ.get("QILU_SOAK") == "1"
LINES = 10_000_000 if SOAK else 100_000
PER_COUNTY = 100_000
OWNERS = 3_000
"""Enterprises of a county."""
QILU = Path(sys.executable).parent / "qilu"
ADMIN = "the-admin-key-of-this-test"
HUNG_S = 3_600 if SOAK else 60
MOST_MB = 400
"""Of the platform, whatever the file: some 160 MB of code, and the databases' pages. The file has 400 MB, and
so would its bad lines if they were kept."""

GOOD = "%s,motor,%s,泵\n".encode()
BAD = (
    (b"%s,toaster,%s,\n", "class", "toaster"),
    (b"%s NO,motor,%s,\n", "id", "1 to 32"),
    (b"%s,motor,nobody,\n%.0s", "enterprise", "register it first"),
    (b"%s,motor,%s\n", None, "has 3 values"),
    (b"%s,motor,%s,\xff\n", None, "not UTF-8"),
)
"""Lines of a unit and its enterprise; the column that is reported, and a word of the reason."""


def bad_kind(number: int) -> int | None:
    """Which of BAD the line with that number is, if any: one of each hundred, each time in another place."""
    hundred, place = divmod(number, 100)
    return hundred % len(BAD) if place == hundred * 37 % 100 else None


def lines() -> Iterator[bytes]:
    """The lines after the header, numbered from 2."""
    number = 2
    for county in sorted(COUNTIES):
        owners = [enterprise_id(county, n).encode() for n in range(OWNERS)]
        for n in range(PER_COUNTY):
            kind = bad_kind(number)
            form = GOOD if kind is None else BAD[kind][0]
            yield form % (unit_id(county, "motor", n).encode(), owners[n * 7919 % OWNERS])
            number += 1
            if number == LINES + 2:
                return


def enterprises() -> Iterator[bytes]:
    yield b"id,name,county,industry\n"
    for county in sorted(COUNTIES)[: -(-LINES // PER_COUNTY)]:
        yield "".join(f"{enterprise_id(county, n)},Firm {n},{county},C34\n" for n in range(OWNERS)).encode()


class CableCutError(Exception):
    pass


async def file_from(offset: int, cut: int | None = None) -> AsyncIterator[bytes]:
    """The file from a byte on; the cable is cut at byte `cut`."""
    part, place = bytearray(b"id,class,enterprise,name\n"), 0
    for line in lines():
        part += line
        if len(part) < 1 << 18:
            continue
        if place + len(part) > offset:
            yield bytes(part[max(0, offset - place) :])
        place += len(part)
        part.clear()
        if cut is not None and place >= cut:
            raise CableCutError
    yield bytes(part[max(0, offset - place) :])


@pytest.fixture
def platform(
    database_url: str, tmp_path: Path, free_port: Callable[[], int]
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Its address and its process."""
    port = free_port()
    command = [str(QILU), "platform", "run", "--db", database_url, "--port", str(port)]
    with (tmp_path / "platform.log").open("wb") as log:
        process = subprocess.Popen(command, env=os.environ | {"QILU_API_KEY": ADMIN}, stdout=log, stderr=log)
    yield f"http://127.0.0.1:{port}", process
    process.terminate()
    process.wait(HUNG_S)


def resident_mb(pid: int) -> int:
    """The most that it was."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) // 1024


async def test_good_lines_are_registered_and_bad_ones_told_whatever_their_number(
    platform: tuple[str, subprocess.Popen[bytes]], database_url: str
) -> None:
    url, process = platform
    headers = {"Authorization": f"Bearer {ADMIN}"}
    csv = {"Content-Type": "text/csv"}
    async with (
        asyncio.timeout(HUNG_S),
        httpx.AsyncClient(base_url=url, headers=headers, timeout=HUNG_S, trust_env=False) as client,
    ):
        while True:
            try:
                if (await client.get("/readyz")).status_code == 200:
                    break
            except httpx.TransportError:
                assert process.poll() is None
            await asyncio.sleep(0.05)
        owners, began = b"".join(enterprises()), time.monotonic()
        answer = await client.post("/v1/imports?book=enterprises", content=owners, headers=csv)
        assert answer.json()["bad"] == 0
        path = (await client.post("/v1/imports?book=units")).headers["location"]
        cut = LINES * 20
        with pytest.raises(CableCutError):
            await client.patch(path, content=file_from(0, cut), headers=csv | {"Upload-Offset": "0"})
        # The platform learns of it when it reads on; until then it works through what came.
        offset, before = (await client.get(path)).json()["offset"], -1
        while offset < cut - (1 << 18) or offset != before:
            await asyncio.sleep(0.2)
            before, offset = offset, (await client.get(path)).json()["offset"]
        on = csv | {"Upload-Offset": str(offset)}
        answer = await client.patch(path, content=file_from(offset), headers=on)
        assert answer.status_code == 200, answer.text
        job, took_s = answer.json(), time.monotonic() - began
        expected = [
            (number, kind) for number in range(2, LINES + 2) if (kind := bad_kind(number)) is not None
        ]
        assert len(expected) == LINES // 100
        assert (job["state"], job["lines"], job["existing"]) == ("done", LINES + 1, 0)
        assert (job["created"], job["bad"]) == (LINES - len(expected), len(expected))
        async with client.stream("GET", job["errors"]) as told:
            wanted = iter(expected)
            async for line in told.aiter_lines():
                error, (number, kind) = json.loads(line), next(wanted)
                assert (error["line"], error["column"]) == (number, BAD[kind][1])
                assert BAD[kind][2] in error["reason"]
            assert next(wanted, None) is None
        shown = (await client.get("/v1/programme")).json()
        assert shown["registered"]["units"] == job["created"]
        most_mb = resident_mb(process.pid)
        assert most_mb < MOST_MB
        sys.stdout.write(
            f"\n{LINES:,} lines in {took_s:.0f} s (load {os.getloadavg()[0]:.1f}): {job['created']:,} units, "
            f"{job['bad']:,} bad lines reported; the platform's memory: {most_mb} MB at most\n"
        )
    engine = open_engine(database_url)
    assert audit(engine) == []
    engine.dispose()
