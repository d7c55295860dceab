"""Alert rules, as the YAML that Grafana's file provisioning takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from qilu_contract.security import SecurityKind
from qilu_contract.storage import MEASUREMENTS

from qilu_dashboards import pipeline, security
from qilu_dashboards.asking import MINUTE_S
from qilu_dashboards.frame import CLASS_NAMES
from qilu_dashboards.influxql import PROVISIONED
from qilu_dashboards.plan import PLANS
from qilu_dashboards.queries import daily_rate

ALERTS_FOLDER = Path(__file__).parents[1] / "provisioning" / "alerting"
ALERTS_FILE = "rules.yaml"
FOLDER = "Clouds in Qilu"
RUNBOOKS = "docs/runbooks"
"""Folder of the runbooks in the repository. Not an annotation `runbook_url`, which Grafana would make a link:
nobody knows the address under which an operator keeps this folder."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Fires for each series of `query` whose newest value is beyond `limit` for `for_`. `no_data` is the
    state for an empty answer, which most rules ignore."""

    uid: str
    title: str
    query: str
    beyond: Literal["gt", "lt"]
    limit: float
    summary: str
    runbook: str
    dashboard: str
    range_s: int
    for_: str = "0s"
    severity: Literal["warning", "critical"] = "warning"
    no_data: Literal["OK", "Alerting", "NoData"] = "OK"


_ALWAYS = (
    Rule(
        uid="qilu-nothing-stored",
        title="Nothing is stored 无数据入库",
        query='SELECT max("stored") - min("stored") AS "stored" FROM "pipeline" '
        'WHERE $timeFilter GROUP BY "gateway"',
        beyond="lt",
        limit=1,
        summary="Gateway {{ $labels.gateway }} has stored nothing for two minutes.",
        runbook="nothing-stored.md",
        dashboard=pipeline.UID,
        range_s=2 * MINUTE_S,
        severity="critical",
        no_data="Alerting",
    ),
    Rule(
        uid="qilu-dead-letters",
        title="Dead letters above 0.1 % 死信过多",
        # If the gateway restarted within the time range, this is the share since its first start.
        query='SELECT (max("dead_lettered") - min("dead_lettered")) '
        '/ (max("accepted") - min("accepted")) * 100 AS "share" '
        'FROM "pipeline" WHERE $timeFilter GROUP BY "gateway"',
        beyond="gt",
        limit=0.1,
        summary="{{ $values.B }} % of the readings of {{ $labels.gateway }} became dead letters.",
        runbook="dead-letters.md",
        dashboard=pipeline.UID,
        range_s=10 * MINUTE_S,
        for_="5m",
    ),
    Rule(
        uid="qilu-city-silent",
        title="A city without data 城市无数据",
        query='SELECT sum("n") AS "readings" FROM "fleet" '
        "WHERE \"level\" = 'city' AND $timeFilter "
        'GROUP BY time(10m), "place" fill(0)',
        beyond="lt",
        limit=1,
        summary="City {{ $labels.place }} sent data within the hour, but none in the last ten minutes.",
        runbook="city-silent.md",
        dashboard="qilu-city",
        range_s=60 * MINUTE_S,
        for_="10m",
    ),
)

_SECURITY: tuple[tuple[str, tuple[SecurityKind, ...], int, str], ...] = (
    ("certificate", ("refused_certificate",), 0, "Certificates refused by the broker 证书被拒"),
    ("intrusion", ("wrong_topic", "foreign_answer"), 0, "Messages for another's unit 冒用他人设备"),
    ("keys", ("unknown_key", "revoked_key", "rate_limit"), 20, "Misuse of API keys 密钥异常使用"),
    ("traffic", ("dead_letter_burst", "sequence"), 5, "Floods or replayed messages 洪泛或重放"),
    ("values", ("unusual_value",), 20, "Values outside their range 数值异常"),
)
"""Name, kinds of events, how many more within ten minutes are tolerated (assumed), and title of the rules for
security events."""

_SPOOL = Rule(
    uid="qilu-spool-old",
    title="The spool is old 暂存积压",
    query='SELECT last("spool_age_s") AS "age" FROM "pipeline" WHERE $timeFilter GROUP BY "gateway"',
    beyond="gt",
    limit=600,
    summary="The oldest reading in the spool of {{ $labels.gateway }} is {{ $values.B }} s old.",
    runbook="spool-old.md",
    dashboard=pipeline.UID,
    range_s=5 * MINUTE_S,
    severity="critical",
)

_LIMITS = (
    (
        "boiler",
        ("PM", "SO2", "NOx"),
        "qilu-emission",
        "Boiler above its emission limit 锅炉排放超限",
        "emission.md",
    ),
    ("motor", ("vibration",), "qilu-vibration", "Vibration in zone D 振动进入D区", "vibration.md"),
)
"""Class, signals, UID, title and runbook of the rules for alarms."""


def rules() -> list[Rule]:
    """All rules that the schema has the fields for."""
    found = [
        *_ALWAYS,
        *(_alarms(*limit) for limit in _LIMITS if limit[0] in CLASS_NAMES),
        *(_security(*each) for each in _SECURITY),
        *(_pace(name, plan.per_day) for name, plan in PLANS.items()),
    ]
    if "spool_age_s" in MEASUREMENTS["pipeline"].fields:
        found.append(_SPOOL)
    return found


def _security(name: str, kinds: tuple[SecurityKind, ...], tolerated: int, title: str) -> Rule:
    """A rule for new security events of some kinds, per kind and city."""
    return Rule(
        uid=f"qilu-security-{name}",
        title=title,
        query='SELECT max("events") - min("events") AS "events" FROM "security" '
        f'WHERE "kind" =~ /^({"|".join(kinds)})$/ AND $timeFilter GROUP BY "kind", "city"',
        beyond="gt",
        limit=tolerated,
        summary="{{ $values.B }} new security events ({{ $labels.kind }}) in city {{ $labels.city }}.",
        runbook="security.md",
        dashboard=security.UID,
        range_s=10 * MINUTE_S,
    )


def _pace(name: str, per_day: float) -> Rule:
    """A rule for a count of the programme that grows slower than the straight-line plan."""
    counts = (
        f'(SELECT last("{name}") AS "count" FROM "programme" WHERE "scope" = \'province\' AND $timeFilter '
        "GROUP BY time(10m) fill(none))"
    )
    return Rule(
        uid=f"qilu-pace-{name.split('_')[0]}",
        title=f"Programme pace below plan: {name.replace('_', ' ')} 上云进度落后",
        query=f'SELECT mean("pace") AS "a day" FROM {daily_rate(counts, "pace")} WHERE $timeFilter',
        beyond="lt",
        limit=round(per_day, 1),
        summary="{{ $values.B }} per day; the straight-line plan requires " + f"{per_day:,.0f}.",
        runbook="pace.md",
        dashboard="qilu-programme",
        range_s=24 * 60 * MINUTE_S,
        for_="1h",
    )


def _alarms(class_name: str, signals: tuple[str, ...], uid: str, title: str, runbook: str) -> Rule:
    """A rule for the open alarms of a class that began within the last day."""
    chosen = "|".join(signals)
    return Rule(
        uid=uid,
        title=title,
        query='SELECT sum("open") AS "open" FROM "alarm" '
        f'WHERE "class" = \'{class_name}\' AND "signal" =~ /^({chosen})$/ AND $timeFilter '
        'GROUP BY "city"',
        beyond="gt",
        limit=0,
        summary="{{ $values.B }} open alarms in city {{ $labels.city }}.",
        runbook=runbook,
        dashboard=f"qilu-class-{class_name}",
        range_s=24 * 60 * MINUTE_S,
        for_="2m",
    )


def provisioning() -> dict[str, Any]:
    """The rules as Grafana's provisioning file: one group, evaluated every minute."""
    return {
        "apiVersion": 1,
        "groups": [
            {
                "orgId": 1,
                "name": "qilu",
                "folder": FOLDER,
                "interval": "1m",
                "rules": [_provisioned(rule) for rule in rules()],
            }
        ],
    }


def _provisioned(rule: Rule) -> dict[str, Any]:
    within = {"from": rule.range_s, "to": 0}
    query = {
        "refId": "A",
        "relativeTimeRange": within,
        "datasourceUid": PROVISIONED,
        "model": {
            "refId": "A",
            "rawQuery": True,
            "query": rule.query,
            "alias": "",
            "resultFormat": "time_series",
            "intervalMs": 1000,
            "maxDataPoints": 43200,
        },
    }
    newest = {
        "refId": "B",
        "relativeTimeRange": within,
        "datasourceUid": "__expr__",
        "model": {"refId": "B", "type": "reduce", "expression": "A", "reducer": "last"},
    }
    beyond = {
        "refId": "C",
        "relativeTimeRange": within,
        "datasourceUid": "__expr__",
        "model": {
            "refId": "C",
            "type": "threshold",
            "expression": "B",
            "conditions": [{"evaluator": {"type": rule.beyond, "params": [rule.limit]}}],
        },
    }
    return {
        "uid": rule.uid,
        "title": rule.title,
        "condition": "C",
        "data": [query, newest, beyond],
        "noDataState": rule.no_data,
        "execErrState": "Error",
        "for": rule.for_,
        "annotations": {
            "summary": rule.summary,
            "runbook": f"{RUNBOOKS}/{rule.runbook}",
            "__dashboardUid__": rule.dashboard,
            "__panelId__": "1",
        },
        "labels": {"severity": rule.severity, "service": "clouds-in-qilu"},
        "isPaused": False,
    }


def alerts_yaml() -> str:
    """The provisioning file as text; every call returns the same bytes."""
    head = "# Generated by `qilu dashboards build` from qilu_dashboards/alerts.py. Do not edit.\n"
    return head + yaml.safe_dump(provisioning(), allow_unicode=True, sort_keys=False, width=120)
