"""Cost of the console: first useful paint, watchers, a page of the list of units. Prints; asserts nothing
about time.

The first two on `qilu up` with QILU_BENCH_CONSOLE_UNITS units (10,000), the third on a platform with
QILU_BENCH_LISTED_UNITS (1,000,000). A busy machine makes wall time longer; CPU seconds and ratios less.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import statistics
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import bench_registry
import httpx
import pytest
from bench_registry import KEY, import_file, machine, serving, write_files
from console_up import Up
from console_world import browsing
from rich.console import Console

UNITS = int(os.environ.get("QILU_BENCH_CONSOLE_UNITS", "10000"))
LISTED = int(os.environ.get("QILU_BENCH_LISTED_UNITS", "1000000"))
VIEWERS = 50
PAINTS, SPANS, SPAN_S = 5, 4, 15.0
PAGES = 30
console = Console(width=110)

PAINTED = """() => new Promise((done) => {
  const look = () => document.querySelector('[data-counter="units_on_cloud"]')?.textContent
    && document.querySelector(".city[aria-label]") ? done(performance.now()) : requestAnimationFrame(look);
  look();
})"""


def tree_cpu_s(root: int) -> float:
    """CPU seconds so far of a process and its descendants."""
    parents, spent = {}, {}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            pid = int(folder.name)
            parents[pid], spent[pid] = int(fields[1]), int(fields[11]) + int(fields[12])
    found = {root}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return sum(spent.get(pid, 0) for pid in found) / os.sysconf("SC_CLK_TCK")


async def stored(metrics: str) -> float:
    async with httpx.AsyncClient(trust_env=False, timeout=60.0) as client:
        text = (await client.get(metrics)).text
    lines = [line for line in text.splitlines() if line.startswith("qilu_gateway_stored_total")]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


@contextlib.asynccontextmanager
async def watched(url: str, headers: dict[str, str], units: list[str]) -> AsyncIterator[None]:
    """Event streams as of so many open pages: half of them of the province, half of a unit each."""
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(trust_env=False, timeout=None, limits=limits, headers=headers) as client:

        async def follow(path: str) -> None:
            async with client.stream("GET", f"{url}{path}") as answer:
                async for _ in answer.aiter_raw():
                    pass

        paths = ["/v1/events"] * (VIEWERS // 2) + [f"/v1/units/{unit}/events" for unit in units]
        tasks = [asyncio.create_task(follow(path)) for path in paths]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def bench_paint_and_viewers(tmp_path: Path, chromium: str, free_port: Callable[[], int]) -> None:
    ports = {name: free_port() for name in ("--port", "--mqtt-port", "--metrics-port")}
    up = Up(tmp_path / "state", ports, "--units", str(UNITS))
    try:
        url = up.link().split("/#")[0]
        key = (up.state / "keys" / "admin.key").read_text().strip()
        headers = {"Authorization": f"Bearer {key}"}
        async with httpx.AsyncClient(base_url=url, headers=headers, trust_env=False, timeout=60.0) as api:
            for _ in range(600):
                if (await api.get("/v1/programme")).json()["registered"]["units"] >= UNITS:
                    break
                await asyncio.sleep(1)
            listed = (await api.get("/v1/units", params={"limit": VIEWERS // 2})).json()["items"]
        console.print(f"\n{machine()}; {UNITS:,} units")
        paints = []
        for _ in range(PAINTS):
            async with browsing(chromium, []) as page:  # a cold cache each time
                await page.goto(url, wait_until="commit")
                paints.append(await page.evaluate(PAINTED))
        console.print(
            f"first useful paint, province, cold cache: median {statistics.median(paints):,.0f} ms "
            f"(of {PAINTS}, {min(paints):,.0f} to {max(paints):,.0f}); aim 1,000"
        )
        await compare_viewers(up, url, headers, [each["id"] for each in listed], ports["--metrics-port"])
    finally:
        up.process.send_signal(signal.SIGINT)
        up.process.wait(120)


async def compare_viewers(
    up: Up, url: str, headers: dict[str, str], units: list[str], metrics_port: int
) -> None:
    """Spans without and with viewers in turn, so that the load of the machine is that of both."""
    metrics = f"http://127.0.0.1:{metrics_port}/metrics"
    cores: dict[bool, list[float]] = {False: [], True: []}
    rates: dict[bool, list[float]] = {False: [], True: []}
    for span in range(2 * SPANS):
        looking = span % 2 == 1
        async with watched(url, headers, units) if looking else contextlib.nullcontext():
            await asyncio.sleep(2)
            began, cpu_s, before = time.perf_counter(), tree_cpu_s(up.process.pid), await stored(metrics)
            await asyncio.sleep(SPAN_S)
            took_s = time.perf_counter() - began
            cores[looking].append((tree_cpu_s(up.process.pid) - cpu_s) / took_s)
            rates[looking].append((await stored(metrics) - before) / took_s)
    cost = statistics.median(cores[True]) - statistics.median(cores[False])
    plain, with_viewers = statistics.median(rates[False]), statistics.median(rates[True])
    console.print(
        f"{VIEWERS} viewers: {cost:+.1%} of a core, aim 15% "
        f"(the whole stack without them {statistics.median(cores[False]):.0%}); "
        f"stored {plain:,.0f}/s without, {with_viewers:,.0f}/s with: "
        f"{with_viewers / plain if plain else 0:.3f}, aim 0.95"
    )


async def bench_list_of_units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_registry, "UNITS", LISTED)
    owners, things, number = write_files(tmp_path)
    with serving(f"sqlite:///{tmp_path}/registry.sqlite", tmp_path) as (url, pid):
        headers = {"Authorization": f"Bearer {KEY}"}
        async with httpx.AsyncClient(base_url=url, headers=headers, trust_env=False, timeout=600.0) as api:
            for book, path in (("enterprises", owners), ("units", things)):
                await import_file(api, book, path)
            console.print(f"\n{machine()}; {number:,} units; a page of 25, over HTTP")
            enterprise = (await api.get("/v1/units", params={"limit": 1})).json()["items"][0]["enterprise"]
            for title, values in (
                ("all", {}),
                ("of a city", {"city": "370200"}),
                ("of a city and class", {"city": "370200", "class": "boiler"}),
                ("of a county", {"county": "370202"}),
                ("of an enterprise", {"enterprise": enterprise}),
                ("of a rare class", {"class": "oven"}),
                ("by name", {"name": "Pump"}),
            ):
                took_ms, cursor, before_s = [], None, bench_registry.cpu_s(pid)
                for _ in range(PAGES):
                    began = time.perf_counter()
                    answer = await api.get(
                        "/v1/units", params={**values, "limit": 25} | ({"cursor": cursor} if cursor else {})
                    )
                    took_ms.append((time.perf_counter() - began) * 1000)
                    assert answer.status_code == 200, answer.text
                    cursor = answer.json()["next"]
                cpu_ms = (bench_registry.cpu_s(pid) - before_s) * 1000 / PAGES
                console.print(
                    f"  {title:<22} median {statistics.median(took_ms):7.1f} ms, "
                    f"worst {max(took_ms):7.1f}, CPU {cpu_ms:5.1f} a page; aim 200"
                )
