"""How long the dashboards' queries take with many series, on a real InfluxDB, as Grafana asks them. Prints;
asserts nothing about time. QILU_BENCH_SERIES sets how many units there are (default: a million)."""

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
from qilu_contract.catalogue import CATALOGUE
from qilu_contract.places import CITIES, COUNTIES, PROVINCE, city_of
from qilu_contract.rollups import KEY_SIGNALS, is_cumulative
from qilu_contract.storage import MEASUREMENTS
from qilu_contract.targets import CORE_TARGETS
from qilu_dashboards.alerts import rules
from qilu_dashboards.asking import Time, ask, substituted
from qilu_dashboards.build import build_all
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


def unit_tags(number: int) -> str:
    county = PLACES[number % len(PLACES)]
    enterprise = f"{county}-e{number // 4488:05d}"  # 33 units each
    return f"city={city_of(county)},county={county},industry=C34,enterprise={enterprise},unit=u{number:07d}"


def units() -> Iterator[str]:
    """One reading of each: the number of series is what counts."""
    names = list(CATALOGUE)
    for number in range(SERIES):
        class_ = CATALOGUE["motor" if number % 20 else names[number // 20 % len(names)]]
        base = class_.base_signal.name
        yield f"{class_.name},{unit_tags(number)} {base}=1 {NOW_MS - number % 3_600_000}"


def rollups() -> Iterator[str]:
    """A day by the minute: all key signals for province and cities, the base signal for counties."""
    places = [("province", PROVINCE, PROVINCE)]
    places += [("city", city, city) for city in CITIES]
    places += [("county", county, city_of(county)) for county in PLACES]
    for class_name, signals in KEY_SIGNALS.items():
        for place_number, (level, place, city) in enumerate(places):
            for signal in signals if level != "county" else signals[:1]:
                where = f"level={level},place={place},city={city}"
                tags = f"{where},class={class_name},signal={signal.name},gateway=qilu"
                bins = "".join(f",bin_{k}={place_number + k}i" for k in range(10))
                if level == "county" or is_cumulative(signal):
                    bins = ""
                for minute in range(HOURS * 60):
                    figures = f"units={minute % 7}i,n={minute}i,sum={minute}.5,min=1,max=9{bins}"
                    yield f"fleet,{tags} {figures} {START_MS + minute * 60_000}"


def others() -> Iterator[str]:
    for number in range(int(SERIES * ALARM_SHARE)):
        tags = f"province={PROVINCE},{unit_tags(number)},class=motor,signal=vibration"
        begun_ms = START_MS + number * 7919 % (HOURS * 3_600_000)
        yield f"alarm,{tags} open=1i,value=8,limit=7.1,worst=9,ratio=1.2,duration_s=0 {begun_ms}"
    scopes = [("province", PROVINCE), *(("city", city) for city in CITIES)]
    scopes += [("class", name) for name in CATALOGUE] + [("kind", "equipment"), ("level", "county")]
    scopes += [("kind", target.recognised_as) for target in CORE_TARGETS.values() if target.recognised_as]
    programme = ",".join(f"{name}=%di" for name in MEASUREMENTS["programme"].fields)
    width = len(MEASUREMENTS["programme"].fields)
    for step in range(HOURS * 360):
        for scope, code in scopes:
            figures = programme % ((step,) * width)
            yield f"programme,scope={scope},code={code} {figures} {START_MS + step * 10_000}"
    pipeline = ",".join(
        f"{name}=%d{'i' if type_ == 'int' else ''}" for name, type_ in MEASUREMENTS["pipeline"].fields.items()
    )
    width = len(MEASUREMENTS["pipeline"].fields)
    for step in range(HOURS * 1800):
        yield f"pipeline,gateway=qilu {pipeline % ((step,) * width)} {START_MS + step * 2_000}"


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


VARIABLES = {
    "city": "370200",
    "county": ".*",
    "industry": ".*",
    "enterprise": ".*",
    "gateway": ".*",
    "host": ".*",
}


def asked(board: dict[str, Any]) -> list[tuple[str, str, float]]:
    """Title, query and the longest time that it is asked for, in hours."""
    panels = [(p["title"], t["query"]) for p in board["panels"] for t in p.get("targets", [])]
    panels += [(a["name"], a["query"]) for a in board["annotations"].get("list", [])]
    lookups = [v for v in board["templating"]["list"] if v["type"] == "query"]
    panels += [(f"variable {v['name']}", v["query"]) for v in lookups]
    return [(*panel, HOURS) for panel in panels]


def bench_every_query(influxdb: Any) -> None:
    begun = time.perf_counter()
    fill(influxdb.http, influxdb.database)
    filled_s = time.perf_counter() - begun
    client = httpx.Client(base_url=influxdb.http, trust_env=False, timeout=120)

    def ask_ms(query: str, hours: float, variables: dict[str, str]) -> float:
        time_ = Time(NOW_MS - int(hours * 3_600_000), NOW_MS)
        text = substituted(query, time_, variables, 60)
        times = []
        for _ in range(3):
            started = time.perf_counter()
            ask(client, influxdb.database, text)
            times.append((time.perf_counter() - started) * 1000)
        return statistics.median(times)

    table = Table(
        title=f"{SERIES:,} units, filled in {filled_s:.0f} s; ms, median of three", title_justify="left"
    )
    for heading in (
        "dashboard",
        "queries",
        "1 h worst",
        f"{HOURS} h median",
        f"{HOURS} h worst",
        "the worst one",
    ):
        table.add_column(heading, justify="left" if heading in ("dashboard", "the worst one") else "right")
    boards = [(b["uid"], asked(b), b) for b in map(json.loads, build_all().values())]
    alerts = [(rule.title, rule.query, rule.range_s / 3600) for rule in rules()]
    boards.append(("alerts", alerts, {"templating": {"list": []}}))
    for uid, queries, board in boards:
        variables = dict(VARIABLES, days="365")
        if uid.startswith("qilu-unit-"):  # single choices
            variables |= {"county": PLACES[1], "enterprise": f"{PLACES[1]}-e00000", "unit": "u0000001"}
        for variable in board["templating"]["list"]:
            if variable.get("includeAll"):
                variables[variable["name"]] = variable["allValue"]
        hour = [ask_ms(query, min(1, longest), variables) for _, query, longest in queries]
        day = [(ask_ms(query, longest, variables), title) for title, query, longest in queries]
        worst_ms, worst = max(day)
        median = statistics.median(ms for ms, _ in day)
        figures = (f"{max(hour):.0f}", f"{median:.0f}", f"{worst_ms:.0f}")
        table.add_row(uid, str(len(queries)), *figures, worst)
    client.close()
    Console(width=150).print(table)
