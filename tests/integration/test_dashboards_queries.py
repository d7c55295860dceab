"""Every query of the dashboards and alerts, asked as Grafana asks it, of a real InfluxDB that the real stack
has filled: `qilu up` as a separate process, simulating an hour, and beside the fleet two hand-made
devices that break their limits and one message that nobody can read. Nothing here is drawn by Grafana."""

from __future__ import annotations

import html
import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.catalogue.key_signals import BIN_FIELDS, KEY_SIGNALS, is_cumulative
from qilu_contract.catalogue.limits import LIMITS
from qilu_contract.catalogue.places import PROVINCE, city_of
from qilu_contract.catalogue.targets import CORE_TARGETS
from qilu_contract.errors import ConfigError
from qilu_contract.readings import Reading
from qilu_contract.storage import BORN, MEASUREMENTS, Point, line_protocol
from qilu_contract.wire.topics import telemetry
from qilu_dashboards.alerts import rules
from qilu_dashboards.asking import Time, ask, substituted
from qilu_dashboards.build import build_all
from qilu_dashboards.pictures import NOTE, picture
from qilu_dashboards.unit import title_of
from qilu_dashboards.units import unit_of
from qilu_devices.run.manifest import Manifest, load_manifest
from qilu_platform.counting.programme import points as platform_points
from qilu_stores.hours import Hours

UNITS = 150
SIMULATED_S = 3_600
SPEED = 240
HOUR_MS = 3_600_000
COUNTY, ENTERPRISE = "370202", "test-works"
SUBJECTS = {
    "enterprise_level": "test-hundred",
    "cross_industry": "test-ten",
    "comprehensive": "test-one",
    "leading": "test-one",
    "application": "test-ten",
    "supplier": "test-provider",
    "pilot": ENTERPRISE,
    "base": None,
    "cluster": None,
}
"""One recognition of each kind."""
DISBURSED = [
    {"id": f"test-{level}", "level": level, "granted": 30 + n, "redeemed": 20 + n, "clawed_back": 1 + n}
    for n, level in enumerate(("province", "city", "county"))
]
BOARDS = {board["uid"]: board for board in map(json.loads, build_all().values())}


@dataclass(frozen=True)
class Filled:
    """A database, what is known about its content, and the moment that is now for Grafana."""

    http: str
    database: str
    now_ms: int
    report: dict[str, Any]
    units: dict[str, str]
    """A unit of each class that has readings."""
    manifest: Manifest
    """Manifest of the run, from which the simulation can be computed again."""
    answers: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Nothing is written any more: what was asked once need not be asked again."""

    def ask(
        self,
        query: str,
        hours: float,
        variables: dict[str, str],
        least_s: int = 60,
        points: int | None = None,
    ) -> list[dict[str, Any]]:
        """The series of the answer, after Grafana's substitutions for a panel of 800 pixels."""
        time = Time(self.now_ms - int(hours * HOUR_MS), self.now_ms)
        text = substituted(query, time, variables, least_s, points)
        assert "$" not in text.replace("$/", ""), f"left over in {text}"
        if text in self.answers:
            return self.answers[text]
        with httpx.Client(base_url=self.http, timeout=60.0, trust_env=False) as http:
            series = ask(http, self.database, text)
        self.answers[text] = series
        return series


def publish(environment: dict[str, str], unit: str, content: object, county: str = COUNTY) -> None:
    """One message by an MQTT client of the system's, as a hand-made device sends it."""
    import paho.mqtt.client as paho

    host, port = environment["QILU_BROKER"].removeprefix("mqtt://").split(":")
    client = paho.Client(paho.CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    client.username_pw_set(environment["QILU_MQTT_USER"], environment["QILU_MQTT_PASSWORD"])
    client.connect(host, int(port))
    client.loop_start()
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    client.publish(telemetry(county, ENTERPRISE, unit), body, qos=1).wait_for_publish(30)
    client.disconnect()
    client.loop_stop()


def until(condition: Any, what: str, seconds: float = 120) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.2)
    return found


def environment_of(state: Path) -> dict[str, str]:
    """Variables of the file for shells; secrets are read from the files that it names."""
    found = re.findall(r"^export (\w+)=(.*)$", (state / "env").read_text(encoding="utf-8"), re.MULTILINE)
    secret = re.compile(r"[\"']?\$\(cat [\"']?([^\"')]+)[\"']?\)[\"']?")
    return {
        name: Path(match[1]).read_text().strip() if (match := secret.fullmatch(value)) else value.strip("\"'")
        for name, value in found
    }


def own_devices(environment: dict[str, str], now_ms: int) -> None:
    """Register a motor and a boiler, and let both go beyond their limits and (the motor) back."""
    headers = {"Authorization": f"Bearer {environment['QILU_API_KEY']}"}
    with httpx.Client(base_url=environment["QILU_PLATFORM"], headers=headers, trust_env=False) as api:
        works = {"id": ENTERPRISE, "name": "Test works", "county": COUNTY, "industry": "C34"}
        assert api.post("/v1/enterprises", json=works).status_code < 300
        centre = {"id": "test-centre", "name": "Test centre", "city": "370200"}
        assert api.post("/v1/centres", json=centre).status_code < 300
        provider = {"id": "test-provider", "name": "Test cloud"}
        assert api.post("/v1/providers", json=provider).status_code < 300
        for kind, subject in SUBJECTS.items():
            id_ = f"test-{kind.replace('_', '-')}"
            recognition = {"id": id_, "kind": kind, "place": "370200", "subject": subject}
            assert api.post("/v1/recognitions", json=recognition).status_code < 300, kind
        for line in DISBURSED:
            assert api.post("/v1/disbursements", json=line).status_code < 300
        for unit, class_ in (("test-motor", "motor"), ("test-boiler", "boiler")):
            made = {"id": unit, "class": class_, "enterprise": ENTERPRISE}
            assert api.post("/v1/units", json=made).status_code < 300
    begin_ms = now_ms - HOUR_MS // 2
    for class_, unit, broken in (("motor", "test-motor", "vibration"), ("boiler", "test-boiler", "PM")):
        nominal = {signal.name: signal.nominal for signal in CATALOGUE[class_].signals}
        limit = max(limit.limit for limit in LIMITS[class_] if limit.signal == broken)
        course = [limit / 2, limit * 1.5, limit * 2, limit * 1.2] + ([limit / 2] if class_ == "motor" else [])
        publish(
            environment,
            unit,
            [{**nominal, "ts": begin_ms + step * 60_000, broken: value} for step, value in enumerate(course)],
        )
    publish(environment, "test-motor", b"{not json")
    elsewhere = {signal.name: signal.nominal for signal in CATALOGUE["motor"].signals}
    publish(environment, "test-motor", elsewhere, "370203")  # a security event: the motor is in 370202


def history(now_ms: int) -> list[Point]:
    """Points that the platform would have written in the thirty days before, with one roll-up per hour."""
    names = ["enterprises_onboarded", "units_onboarded", "units_registered", "units_active", "centres"]
    scopes = [("province", PROVINCE), ("city", "370100"), ("city", "370200"), ("class", "motor")]
    found = []
    for hour in range(1, 30 * 24):
        counts = {(*scope, name): 720 - hour for scope in scopes for name in names}
        found += platform_points(counts, now_ms - hour * HOUR_MS + HOUR_MS // 2)
    return found + Hours().fold(found)


@pytest.fixture(scope="module")
def filled(
    mosquitto_program: str, influxdb_server: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Filled]:
    folder = tmp_path_factory.mktemp("stack")
    database = f"dashboards_{os.getpid()}"
    now_ms = int(time.time() * 1000)
    start = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(now_ms / 1000 - SIMULATED_S))
    url = f"influxdb://{influxdb_server.host}:{influxdb_server.port}/{database}"
    command = [str(Path(sys.executable).parent / "qilu"), "up", "--state", str(folder / "var")]
    command += ["--store", url, "--units", str(UNITS), "--start", start, "--speed", str(SPEED)]
    command += [
        "--for",
        f"{SIMULATED_S}s",
        "--port",
        "0",
        "--mqtt-port",
        "0",
        "--report",
        str(folder / "report"),
    ]
    with (folder / "out").open("wb") as out:
        stack = subprocess.Popen(command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, cwd=folder)
    try:
        manifest = folder / "var" / "run.json"
        until(lambda: stack.poll() is not None or list((folder / "var").rglob("run.json")), f"{manifest}")
        own_devices(environment_of(folder / "var"), now_ms)
        assert stack.wait(300) == 0, (folder / "out").read_text()
    finally:
        if stack.poll() is None:
            stack.kill()
            stack.wait(30)
    where = {"db": database, "precision": "ms"}
    body = line_protocol(history(now_ms))
    httpx.post(
        f"{influxdb_server.http}/write", params=where, content=body, timeout=60.0, trust_env=False
    ).raise_for_status()
    report = json.loads((folder / "report").read_text())
    simulated = load_manifest(folder / "var" / "devices")
    made = Filled(influxdb_server.http, database, int(time.time() * 1000), report, {}, simulated)
    for class_ in CATALOGUE:
        found = made.ask(f'SHOW TAG VALUES FROM "{class_}" WITH KEY = "unit"', 1, {})
        made.units[class_] = found[0]["values"][0][1] if found else ""
    yield made
    drop = {"q": f'DROP DATABASE "{database}"'}
    httpx.post(f"{influxdb_server.http}/query", data=drop, timeout=60.0, trust_env=False)


def variables_of(board: dict[str, Any], choice: str, filled: Filled) -> dict[str, str]:
    """Every variable of a dashboard, as Grafana writes it for all, one or several of its values."""
    found: dict[str, str] = {}
    for variable in board["templating"]["list"]:
        name = variable["name"]
        if variable["type"] == "datasource":  # Grafana's own choice, which no query contains
            continue
        if name == "days":
            found[name] = "365"
        elif name == "unit":
            class_ = board["uid"].removeprefix("qilu-unit-").replace("-", "_")
            found[name] = {"motor": "test-motor", "boiler": "test-boiler"}.get(class_, filled.units[class_])
        elif choice == "all" and variable.get("includeAll"):
            found[name] = variable["allValue"]
        elif variable["type"] == "custom":
            values = [option.split(" : ")[1] for option in variable["query"].split(", ")]
            one = {"city": "370200", "industry": "C34", "class": "motor", "kind": "wrong_topic"}[name]
            more = [value for value in values if value != one][:2]
            found[name] = one if choice == "one" else f"({'|'.join([one, *more])})"
        else:
            asked = filled.ask(
                variable["query"], 720, {"city": ".*", "county": ".*", "industry": ".*", "enterprise": ".*"}
            )
            values = [row[1] for one in asked for row in one["values"]]
            values = [v for v in values if v in (COUNTY, ENTERPRISE)] or values
            single = choice == "one" or not variable.get("multi")
            found[name] = values[0] if single else f"({'|'.join(values[:3])})"
    return found


def classless(board: dict[str, Any], filled: Filled) -> bool:
    """A dashboard of a class that the small fleet has no unit of (blast furnaces are few)."""
    match = re.fullmatch(r"qilu-(?:class|unit)-(.+)", board["uid"])
    return match is not None and not filled.units[match[1].replace("-", "_")]


EVERY = [(choice, hours) for choice in ("all", "one", "several") for hours in (1, 24, 720)]
SHORT = [("all", 1), ("all", 720), ("one", 24), ("several", 1), ("several", 24)]


@pytest.mark.parametrize(("choice", "hours"), EVERY if os.environ.get("QILU_SOAK") == "1" else SHORT)
def test_every_panel_annotation_and_variable_gets_an_answer(filled: Filled, choice: str, hours: int) -> None:
    empty = []
    for board in BOARDS.values():
        if classless(board, filled):
            continue
        variables = variables_of(board, choice, filled)
        seconds = {"10s": 10, "1m": 60, None: 10}
        asked = [
            (
                panel["title"],
                target["query"],
                seconds.get(panel.get("interval"), 60),
                panel.get("maxDataPoints"),
            )
            for panel in board["panels"]
            for target in panel.get("targets", [])
        ]
        asked += [(one["name"], one["query"], 60, None) for one in board["annotations"].get("list", [])]
        lookups = [one for one in board["templating"]["list"] if one["type"] == "query"]
        asked += [(one["name"], one["query"], 60, None) for one in lookups]
        for title, query, least_s, points in asked:
            series = filled.ask(query, hours, variables, least_s, points)
            for one in series:
                assert one["values"], title
                shown = query.split(" FROM ")[0].removeprefix("SELECT ")
                wanted = re.findall(r'AS "([^"]+)"', shown) or re.findall(r'^"([^"]+)"', shown)
                assert set(wanted) <= set(one["columns"]), (title, one["columns"])
            if not any(v is not None for one in series for row in one["values"] for v in row[1:]):
                text = query.replace("${city:regex}", variables.get("city", ""))
                empty.append((board["uid"], title, text))
    unexpected = [place[:2] for place in empty if not excused(place, choice, hours, filled)]
    assert not unexpected, "\n".join(map(str, unexpected))


def excused(place: tuple[str, str, str], choice: str, hours: int, filled: Filled) -> bool:
    """No such thing happened in this small run, and the test can say why."""
    uid, title, query = place
    common = "motor" in uid or "boiler" in uid  # there is one of each in every choice of places
    if f'last("{BORN}")' in query:  # these two are devices made by hand, that speak JSON
        return common
    if 'FROM "programme"' in query:  # nothing of the kind was ever counted in that city
        code = re.search(r"\"code\" (?:= '\w+'|=~ /[^/]+/)", query)
        counted = re.search(r'last\("(\w+)"\)', query)
        if code is None or counted is None:
            return False
        ever = f'SELECT last("{counted[1]}") FROM "programme" WHERE "scope" = \'city\' AND {code[0]}'
        return "'city'" in query and not filled.ask(ever, 1, {})
    # One refusal of each kind, readings within minutes: a coarse step has one value, and no growth.
    if "difference" in query and hours > 1:
        return uid == "qilu-works" or 'FROM "dead_letter"' in query or 'FROM "security"' in query
    if 'FROM "dead_letter"' in query or 'FROM "security"' in query:
        return False
    names = re.findall(r"\"class\" = '([^']+)'", query)
    # A class without units in this fleet, or not in the chosen cities.
    if re.search('FROM "(fleet|effectiveness)"', query):
        return bool(names) and (not filled.units[names[0]] or choice != "all")
    if 'FROM "alarm"' in query:  # only motors and boilers break limits here, in Qingdao
        return bool(names and names[0] not in ("motor", "boiler")) or (
            uid.startswith("qilu-unit-") and not common
        )
    if title in ("enterprise", "unit"):  # no such equipment in the chosen cities
        return choice != "all" and not common
    # Signals sampled every hour or day, in a run of an hour.
    return any(
        title.startswith(title_of(class_, signal)) and signal.interval_s >= 3600
        for class_ in CATALOGUE.values()
        for signal in class_.signals
    )


def test_alert_queries_get_answers_and_those_that_should_would_fire(filled: Filled) -> None:
    firing = {}
    for rule in rules():
        series = filled.ask(rule.query, max(rule.range_s / 3600, 0.2), {})
        newest = [row[-1] for one in series for row in one["values"][-1:] if row[-1] is not None]
        # Of security events there are messages under another's topic.
        assert newest or (rule.dashboard == "qilu-security" and "wrong_topic" not in rule.query), rule.title
        firing[rule.uid] = any(v > rule.limit if rule.beyond == "gt" else v < rule.limit for v in newest)
    assert firing["qilu-emission"]
    assert firing["qilu-security-intrusion"]
    assert not firing["qilu-nothing-stored"]


def panels(board: str, kind: str) -> dict[str, list[str]]:
    """The queries of a board's panels of one kind, by title."""
    return {
        panel["title"]: [target["query"] for target in panel["targets"]]
        for panel in BOARDS[board]["panels"]
        if panel["type"] == kind
    }


def by_code(series: list[dict[str, Any]]) -> dict[str, int]:
    return {one["tags"]["code"]: one["values"][-1][1] for one in series}


def test_counts_of_every_kind_of_panel_are_those_of_the_simulated_fleet(filled: Filled) -> None:
    """Bars and table of the programme, against the fleet and the two devices made by hand."""
    fleet = filled.manifest.fleet()
    cities = Counter(city_of(unit.enterprise.county) for unit in fleet) + Counter({"370200": 2})
    classes = Counter(unit.class_name for unit in fleet) + Counter(motor=1, boiler=1)
    enterprises = Counter(city_of(one.county) for one in {unit.enterprise for unit in fleet})
    everything = {"city": ".*", "class": ".*"}

    bars = panels("qilu-programme", "bargauge")
    counted = {
        (one["tags"]["code"], field): value
        for query in bars["Core targets 核心目标"]
        for one in filled.ask(query, 1, {})
        for field, value in zip(one["columns"][1:], one["values"][-1][1:], strict=True)
    }
    assert counted[PROVINCE, "units_on_cloud"] == len(fleet) + 2 == filled.report["units_on_cloud"]
    for target in CORE_TARGETS.values():
        assert counted[target.counted_in[1:]] is not None
        if target.recognised_as is not None:
            assert counted[target.counted_in[1:]] == 1, target.name
    vouchers = filled.ask(bars["Vouchers by level 各级云服务券"][0], 1, {})
    assert {one["tags"]["code"]: one["values"][-1][1:] for one in vouchers} == {
        line["level"]: [line["granted"], line["redeemed"], line["clawed_back"]] for line in DISBURSED
    }
    assert by_code(filled.ask(bars["Units on cloud by class 各类上云设备"][0], 1, everything)) == classes
    [table] = panels("qilu-programme", "table").values()
    rows = {one["tags"]["code"]: one["values"][-1][1:] for one in filled.ask(table[0], 1, everything)}
    assert {code: row[0] for code, row in rows.items()} == cities
    assert {code: rows[code][2] for code in enterprises} == enterprises


def test_panels_of_a_unit_show_what_was_simulated(filled: Filled) -> None:
    """Number, graph and state timeline of one unit of each class: every signal, every interval."""
    hours = 2.0  # the whole run; an interval of at least 9 s
    samples: dict[str, list[Reading]] = {unit: [] for unit in filled.units.values()}
    for reading in filled.manifest.readings():
        if reading.unit in samples:
            samples[reading.unit].append(reading)
    for class_, unit in filled.units.items():
        if not unit:
            continue
        board = f"qilu-unit-{class_.replace('_', '-')}"
        graphs, numbers = panels(board, "timeseries"), panels(board, "stat")
        for signal in CATALOGUE[class_].signals:
            taken = [(r.ts_ms, r.values[signal.name]) for r in samples[unit] if signal.name in r.values]
            title = title_of(CATALOGUE[class_], signal)
            [now] = filled.ask(numbers[title][0], hours, {"unit": unit})
            assert now["values"][0][1] == taken[-1][1], (class_, signal.name)
            every_ms = max(signal.interval_s, 10) * 1000
            buckets: dict[int, list[float]] = {}
            for ts_ms, value in taken:
                buckets.setdefault(ts_ms // every_ms * every_ms, []).append(float(value))
            query = graphs[f"{title} ({signal.unit})"][0]
            [series] = filled.ask(query, hours, {"unit": unit}, signal.interval_s)
            shown = {row[0]: float(row[1]) for row in series["values"]}
            drawn = {
                at: values[-1] if signal.type == "bool" else sum(values) / len(values)
                for at, values in buckets.items()
            }
            assert shown == pytest.approx(drawn), (class_, signal.name)
        for title in ("Last birth 最近上线", "Time since last birth 距最近上线"):
            [born] = filled.ask(numbers[title][0], hours, {"unit": unit})
            assert born["values"][0][1] in {reading.ts_ms for reading in samples[unit]}, class_
        [first] = filled.ask(f'SELECT first("{BORN}") FROM "{class_}" WHERE "unit" = \'{unit}\'', hours, {})
        assert first["values"] == [[samples[unit][0].ts_ms] * 2], class_
        [series] = filled.ask(panels(board, "state-timeline")["Data 数据"][0], hours, {"unit": unit}, 60)
        base = CATALOGUE[class_].base_signal.name
        minutes = Counter(r.ts_ms // 60_000 * 60_000 for r in samples[unit] if base in r.values)
        assert {row[0]: row[1] for row in series["values"]} == minutes


_CHANGE = re.compile(
    r'\(SELECT (derivative|non_negative_difference)\("count"(, 1d)?\) AS "([^"]+)" FROM '
    r"(.+) WHERE \$timeFilter( GROUP BY [^)]+)?\) WHERE \$timeFilter"
)
_WORST = re.compile(
    r'SELECT "top".+? FROM \((.+?) AND ("province" =~ \S+) AND \$timeFilter\), '
    r'\(.+ AND ("city" =~ \S+) AND \$timeFilter\) WHERE \$timeFilter'
)


def shorter(query: str) -> str:
    """The query in the form that InfluxDB takes and openGemini does not: an aggregate as the argument of
    `derivative` or of a difference, and `top` with OR."""
    if worst := _WORST.fullmatch(query):
        return f"{worst[1]} AND ({worst[2]} OR {worst[3]}) AND $timeFilter"
    found = _CHANGE.search(query)
    if found is None:
        return query
    name, unit, alias, counts, _ = found.groups(default="")
    change = rf'{name}(\1{unit}) AS "{alias}"'
    if query.startswith('SELECT last("count")'):  # the forecast has the counts beside their rate
        first = query.index(" FROM ") + len(" FROM ")
        return (
            query[:first]
            + re.sub(r'(last\("\w+"\)) AS "count"', rf"\g<0>, {change}", counts)
            + (" WHERE $timeFilter")
        )
    inside = re.sub(r'(last\("\w+"\)) AS "count"', change, counts)
    return query[: found.start()] + inside + " WHERE $timeFilter" + query[found.end() :]


@pytest.mark.parametrize(("choice", "hours"), [("all", 1), ("all", 720), ("one", 24), ("several", 2)])
def test_the_form_that_opengemini_takes_has_the_same_answer(filled: Filled, choice: str, hours: int) -> None:
    answered = Counter[str]()
    for board in BOARDS.values():
        if classless(board, filled):
            continue
        variables = variables_of(board, choice, filled)
        for query in (target["query"] for panel in board["panels"] for target in panel.get("targets", [])):
            before = shorter(query)
            assert not re.search(r"(derivative|difference)\((last|sum)", query)
            if before != query:
                expected = filled.ask(before, hours, variables)
                assert filled.ask(query, hours, variables) == expected, query
                answered[before.split("(")[0]] += bool(expected)
    for rule in rules():
        if (before := shorter(rule.query)) != rule.query:
            assert filled.ask(rule.query, hours, {}) == filled.ask(before, hours, {}), rule.query
            answered["rule"] += 1
    kinds = ["SELECT mean", "SELECT last", "SELECT top", "rule"]
    if hours <= 24:  # in a coarser step everything has one value, and no growth
        kinds.append("SELECT sum")
    assert all(answered[kind] for kind in kinds), answered


def test_a_unit_that_speaks_json_was_never_born_and_the_panel_says_so(filled: Filled) -> None:
    for panel in BOARDS["qilu-unit-motor"]["panels"]:
        if "last birth" in panel["title"].lower():
            assert filled.ask(panel["targets"][0]["query"], 1, {"unit": "test-motor"}) == []
            assert "no Sparkplug birth" in panel["fieldConfig"]["defaults"]["noValue"]


def test_class_and_industry_narrow_what_is_shown(filled: Filled) -> None:
    chosen = {"city": PROVINCE, "class": "(boiler|motor)", "industry": ".*"}
    by_class = filled.ask(
        panels("qilu-programme", "bargauge")["Units on cloud by class 各类上云设备"][0], 1, chosen
    )
    assert set(by_code(by_class)) == {"boiler", "motor"}
    energy = panels("qilu-energy", "timeseries")
    for title in (
        "energy_kWh increase by class 各类设备增量 (kWh)",
        "co2_kg increase by class 各类设备增量 (kg)",
    ):
        assert {one["tags"]["class"] for one in filled.ask(energy[title][0], 2, chosen)} == {
            "boiler",
            "motor",
        }
    power = filled.ask(energy["Total power by class and signal 各类设备功率合计 (kW)"][0], 2, chosen)
    assert "motor" in {one["tags"]["class"] for one in power} <= {"boiler", "motor"}

    [query] = panels("qilu-class-motor", "bargauge")["Reporting units by industry 各行业在线设备"]
    there = {unit.enterprise.industry for unit in filled.manifest.fleet() if unit.class_name == "motor"}
    industries = {one["tags"]["place"] for one in filled.ask(query, 2, chosen)}
    assert industries == there | {"C34"}
    [one] = filled.ask(query, 2, {**chosen, "industry": "C34"})
    assert one["tags"]["place"] == "C34"


def test_roll_ups_agree_with_the_readings_that_are_stored(filled: Filled) -> None:
    """Every key signal of every class: what minutes add up to is what the readings are. Of a meter it is what
    was added between a unit's readings, so each unit's first one adds nothing."""
    whole = {"hours": 720.0, "variables": {}}
    # A busy machine may bring a reading after its minute was closed: it is counted, and left out.
    late = filled.ask('SELECT max("late") FROM "rollup" WHERE $timeFilter', **whole)[0]["values"][0][1]
    for class_, signals in KEY_SIGNALS.items():
        for signal in signals:
            figures = ", ".join(
                f'{fn}("{signal.name}")' for fn in ("count", "sum", "min", "max", "first", "last")
            )
            raw = filled.ask(f'SELECT {figures} FROM "{class_}" WHERE $timeFilter GROUP BY "unit"', **whole)
            chosen = f"\"class\" = '{class_}' AND \"signal\" = '{signal.name}' AND \"level\" = 'province'"
            totals = 'SELECT sum("n"), sum("sum"), min("min"), max("max")'
            rolled = filled.ask(f'{totals} FROM "fleet" WHERE {chosen} AND $timeFilter', **whole)
            hourly = filled.ask(f'{totals} FROM "fleet_hourly" WHERE {chosen} AND $timeFilter', **whole)
            if not raw:
                assert not rolled
                assert not hourly
                continue
            assert hourly[0]["values"][0][1:] == pytest.approx(rolled[0]["values"][0][1:], rel=1e-6)
            counts, sums, lows, highs, firsts, lasts = zip(
                *(one["values"][0][1:] for one in raw), strict=True
            )
            n, total, low, high = rolled[0]["values"][0][1:]
            if is_cumulative(signal):
                assert n <= sum(counts) - len(counts) <= n + late
                assert total == pytest.approx(sum(lasts) - sum(firsts), rel=1e-6, abs=1e-6) or late
                continue
            assert n <= sum(counts) <= n + late
            assert (low, high) == (min(lows), max(highs)) or late
            assert total == pytest.approx(sum(sums), rel=1e-6) or late
            bins = " + ".join(f'sum("{name}")' for name in BIN_FIELDS)
            [binned] = filled.ask(
                f'SELECT {bins} AS "all" FROM "fleet_hourly" WHERE "class" = \'{class_}\' '
                f"AND \"signal\" = '{signal.name}' AND \"level\" = 'city' "
                "AND $timeFilter",
                **whole,
            )
            assert binned["values"][0][1] == n


@pytest.mark.parametrize("uid", ["programme", "class-motor", "unit-motor", "pipeline"])
def test_our_own_renderer_draws_the_answers_and_says_what_it_is(
    filled: Filled, uid: str, tmp_path: Path
) -> None:
    store = f"influxdb://{filled.http.removeprefix('http://')}/{filled.database}"
    time_ = Time(filled.now_ms - 2 * HOUR_MS, filled.now_ms)
    picture(
        uid, store, None, time_, {"unit": "test-motor"} if uid == "unit-motor" else {}, tmp_path / "b.svg"
    )
    drawn = html.unescape((tmp_path / "b.svg").read_text(encoding="utf-8"))
    assert NOTE in drawn
    for panel in BOARDS[f"qilu-{uid}"]["panels"]:
        if panel["type"] not in ("row", "text"):
            assert re.split(r"[⺀-鿿]", panel["title"])[0].split(":")[0].strip() in drawn, panel["title"]
    if uid == "unit-motor":
        assert "14.2" in drawn  # the worst value of its alarm


def test_a_picture_of_what_there_is_not_is_refused_with_what_there_is() -> None:
    with pytest.raises(ConfigError, match=r"choose one of .*qilu-programme"):
        picture("tractor", "influxdb://127.0.0.1:1/none", None, Time(0, 1), {}, Path("none.svg"))


def test_alarms_say_when_and_how_far(filled: Filled) -> None:
    [panel] = [p for p in BOARDS["qilu-unit-motor"]["panels"] if p["title"].startswith("Alarms of this unit")]
    [series] = filled.ask(panel["targets"][0]["query"], 24, {"unit": "test-motor"})
    rows = [dict(zip(series["columns"], row, strict=True)) for row in series["values"]]
    [row] = [row for row in rows if row["signal"] == "vibration"]
    assert (row["open"], row["duration_s"], row["limit"]) == (0, 180, 7.1)
    assert row["worst"] == pytest.approx(14.2)


def test_a_signal_is_shown_in_its_own_unit() -> None:
    for class_ in CATALOGUE.values():
        board = BOARDS[f"qilu-unit-{class_.name.replace('_', '-')}"]
        for signal in class_.signals:
            title = f"{title_of(class_, signal)} ({signal.unit})"
            shown = [p for p in board["panels"] if p["title"] == title]
            assert [p["fieldConfig"]["defaults"]["unit"] for p in shown] == [unit_of(signal)]


def test_every_measurement_of_the_schema_is_written_and_holds_every_field(filled: Filled) -> None:
    for measurement in MEASUREMENTS.values():
        if measurement.open or (measurement.name in CATALOGUE and not filled.units[measurement.name]):
            continue
        found = filled.ask(f'SHOW FIELD KEYS FROM "{measurement.name}"', 1, {})
        assert found, measurement.name
        written = {row[0] for row in found[0]["values"]}
        # Signals of hours and days do not all come within two hours.
        rare = {s.name for c in CATALOGUE.values() for s in c.signals if s.interval_s > 3600}
        assert set(measurement.fields) - written <= rare, measurement.name
