"""How long the dashboards' queries take with many series, on a real InfluxDB, as Grafana asks them. Prints;
asserts nothing about time. QILU_BENCH_SERIES sets how many units there are (default: a million),
QILU_BENCH_HOURS how many hours of roll-ups (default: a day; 720 take half an hour to fill)."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import httpx
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.catalogue.key_signals import KEY_SIGNALS, is_cumulative
from qilu_contract.catalogue.places import CITIES, COUNTIES, INDUSTRIES, PROVINCE, city_of
from qilu_contract.catalogue.targets import CORE_TARGETS
from qilu_contract.errors import Reason
from qilu_contract.storage import BORN, HOURLY, MEASUREMENTS
from qilu_dashboards.alerts import rules
from qilu_dashboards.asking import Time, ask, substituted
from qilu_dashboards.build import build_all
from qilu_stores.hours import HOUR_MS
from rich.console import Console
from rich.table import Table

SERIES = int(os.environ.get("QILU_BENCH_SERIES", "1000000"))
HOURS = int(os.environ.get("QILU_BENCH_HOURS", "24"))
ALARM_SHARE = 0.005
"""Units that broke a limit within the time (assumed)."""
BATCH = 10_000
NOW_MS = 1_760_000_000_000 // 60_000 * 60_000
START_MS = NOW_MS - HOURS * 3_600_000
PLACES = [code for code, county in COUNTIES.items() if county.kind != "zone"]
BRANCHES = list(INDUSTRIES)
SPANS = sorted({1, HOURS} | {hours for hours in (24, 168) if hours < HOURS})
"""Hours that every query is asked for."""
ENOUGH_MS = 200


def unit_tags(number: int) -> str:
    county = PLACES[number % len(PLACES)]
    works = number // 4488  # 33 units each
    where = f"city={city_of(county)},county={county},industry={BRANCHES[works % len(BRANCHES)]}"
    return f"{where},enterprise={county}-e{works:05d},unit=u{number:07d}"


def units() -> Iterator[str]:
    """One reading of each: the number of series is what counts."""
    names = list(CATALOGUE)
    for number in range(SERIES):
        class_ = CATALOGUE["motor" if number % 20 else names[number // 20 % len(names)]]
        base = class_.base_signal.name
        at_ms = NOW_MS - number % 3_600_000
        yield f"{class_.name},{unit_tags(number)} {base}=1,{BORN}={at_ms}i {at_ms}"


def rollups() -> Iterator[str]:
    """Roll-ups per minute and per hour. Only those that a query reads when "All" is chosen, because the
    others would take an hour to write: distributions of the province, counts of counties and industries."""
    places = [("province", PROVINCE, PROVINCE)]
    places += [("city", city, city) for city in CITIES]
    places += [("county", county, city_of(county)) for county in PLACES]
    places += [("industry", industry, PROVINCE) for industry in BRANCHES]
    for class_name, signals in KEY_SIGNALS.items():
        for level, place, city in places:
            for signal in signals[:1] if level in ("county", "industry") else signals:
                where = f"level={level},place={place},city={city}"
                tags = f"{where},class={class_name},signal={signal.name},gateway=qilu"
                figures = "units=%di,n=%di"
                if level in ("province", "city"):
                    figures += ",sum=%d.5,min=1,max=9"
                if level == "province" and not is_cumulative(signal):
                    figures += "".join(f",bin_{k}={k}i" for k in range(10))
                width = figures.count("%d")
                for name, minutes in (("fleet", 1), ("fleet" + HOURLY, 60)):
                    for minute in range(0, HOURS * 60, minutes):
                        written = figures % ((minute % 7, minute, minute)[:width])
                        at_ms = START_MS + minute * 60_000
                        yield f"{name},{tags} {written} {at_ms}"


def others() -> Iterator[str]:
    for number in range(int(SERIES * ALARM_SHARE)):
        tags = f"province={PROVINCE},{unit_tags(number)},class=motor,signal=vibration"
        begun_ms = START_MS + number * 7919 % (HOURS * 3_600_000)
        yield f"alarm,{tags} open=1i,value=8,limit=7.1,worst=9,ratio=1.2,duration_s=0 {begun_ms}"
    scopes = [("province", PROVINCE), *(("city", city) for city in CITIES)]
    scopes += [("class", name) for name in CATALOGUE] + [("kind", "equipment")]
    scopes += [("level", level) for level in ("province", "city", "county")]
    scopes += [("kind", target.recognised_as) for target in CORE_TARGETS.values() if target.recognised_as]
    yield from counted("programme", [f"scope={scope},code={code}" for scope, code in scopes], 10_000)
    yield from counted("platform", ["host=qilu"], 10_000)
    yield from counted("pipeline", ["gateway=qilu"], 2_000)
    yield from counted("rollup", ["gateway=qilu"], 2_000)
    yield from counted("dead_letter", [f"gateway=qilu,reason={reason}" for reason in Reason], 10_000)


def counted(name: str, series: list[str], every_ms: int) -> Iterator[str]:
    """Points whose fields all grow with time."""
    types = MEASUREMENTS[name].fields.items()
    figures = ",".join(f"{field}=%d{'i' if type_ == 'int' else ''}" for field, type_ in types)
    for measurement, step_ms in ((name, every_ms), (name + HOURLY, HOUR_MS)):
        for at_ms in range(START_MS, NOW_MS, step_ms):
            written = figures % ((at_ms // every_ms,) * len(types))
            for tags in series:
                yield f"{measurement},{tags} {written} {at_ms}"


def fill(http: str, database: str) -> None:
    client = httpx.Client(trust_env=False, timeout=120)
    client.post(f"{http}/query", data={"q": f'CREATE DATABASE "{database}"'}).raise_for_status()

    def post(lines: list[str]) -> None:
        where = {"db": database, "precision": "ms"}
        client.post(f"{http}/write", params=where, content="\n".join(lines).encode()).raise_for_status()

    with ThreadPoolExecutor(2) as pool:
        for source in (units(), rollups(), others()):
            while chunk := [lines for _ in range(8) if (lines := list(islice(source, BATCH)))]:
                list(pool.map(post, chunk))
    client.close()


VARIABLES = {"city": "370200", "days": "365"}
"""Values of the variables that have no "All"."""


def asked(board: dict[str, Any]) -> list[tuple[str, str, int | None]]:
    """Titles, queries and the most points of a line."""
    panels = [
        (p["title"], t["query"], p.get("maxDataPoints"))
        for p in board["panels"]
        for t in p.get("targets", [])
    ]
    panels += [(a["name"], a["query"], None) for a in board["annotations"].get("list", [])]
    lookups = [v for v in board["templating"]["list"] if v["type"] == "query"]
    return panels + [(f"variable {v['name']}", v["query"], None) for v in lookups]


def bench_every_query(influxdb: Any) -> None:
    begun = time.perf_counter()
    fill(influxdb.http, influxdb.database)
    measure(influxdb.http, influxdb.database, time.perf_counter() - begun)


def measure(http: str, database: str, filled_s: float) -> None:
    client = httpx.Client(base_url=http, trust_env=False, timeout=120)

    def ask_ms(query: str, points: int | None, hours: float, variables: dict[str, str]) -> float:
        time_ = Time(NOW_MS - int(hours * 3_600_000), NOW_MS)
        text = substituted(query, time_, variables, 60, points)
        times = []
        for _ in range(3):
            started = time.perf_counter()
            ask(client, database, text)
            times.append((time.perf_counter() - started) * 1000)
        return statistics.median(times)

    title = f"{SERIES:,} units, filled in {filled_s:.0f} s; ms, median of three, the worst query"
    table = Table(title=f"{title}; load {os.getloadavg()[0]:.1f}", title_justify="left")
    for heading in ("dashboard", "queries", *(f"{hours} h" for hours in SPANS), "the worst one"):
        table.add_column(heading, justify="left" if heading in ("dashboard", "the worst one") else "right")
    slow: list[str] = []
    for board in map(json.loads, build_all().values()):
        variables = dict(VARIABLES)
        if board["uid"].startswith("qilu-unit-"):  # single choices
            variables |= {"county": PLACES[1], "enterprise": f"{PLACES[1]}-e00000", "unit": "u0000001"}
        for variable in board["templating"]["list"]:
            if variable.get("includeAll"):
                variables[variable["name"]] = variable["allValue"]
        worst = []
        for hours in SPANS:
            found = [
                (ask_ms(query, points, hours, variables), title) for title, query, points in asked(board)
            ]
            worst.append(max(found))
            slow += [f"{hours} h: {board['uid']}: {t}: {ms:.0f} ms" for ms, t in found if ms > ENOUGH_MS]
        table.add_row(board["uid"], str(len(found)), *(f"{ms:.0f}" for ms, _ in worst), worst[-1][1])
    found = [(ask_ms(rule.query, None, rule.range_s / 3600, {}), rule.title) for rule in rules()]
    table.add_row("alerts", str(len(found)), *[""] * (len(SPANS) - 1), f"{max(found)[0]:.0f}", max(found)[1])
    client.close()
    console = Console(width=150)
    console.print(table)
    console.print(f"Above {ENOUGH_MS} ms:", *(slow or ["none"]), sep="\n")
