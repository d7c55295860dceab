"""The dashboard of the security situation: events by kind and city."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.models.dashboard import Dashboard
from qilu_contract.security import UNKNOWN_CITY

from qilu_dashboards.frame import CITY_NAMES, board, choice, finish, several
from qilu_dashboards.panels import BLUE, ORANGE, RED, bars, graph, note, number, thresholds
from qilu_dashboards.queries import Source, apart, increase, newest

UID = "qilu-security"

EVENT_NAMES = {
    "unknown_key": "Unknown API key 未知密钥",
    "revoked_key": "Revoked API key 已吊销密钥",
    "forbidden": "Role not allowed 权限不足",
    "rate_limit": "Too many requests 请求过频",
    "wrong_topic": "Wrong topic or owner 主题或归属错误",
    "sequence": "Sequence anomaly 序号异常",
    "unusual_value": "Value outside its range 数值超量程",
    "dead_letter_burst": "Burst of dead letters 死信突增",
    "refused_command": "Refused command 命令被拒",
    "foreign_answer": "Answer for another's unit 代他人应答",
    "revoked_certificate": "Revoked certificate 证书已吊销",
    "expired_certificate": "Expired certificate 证书已过期",
    "refused_certificate": "Certificate refused by the broker 证书被拒",
}
_PLACES = CITY_NAMES | {UNKNOWN_CITY: "Unknown 未知"}
_SOURCE = Source("security", '"kind" =~ /^${kind:regex}$/ AND "city" =~ /^${city:regex}$/')


def security() -> Dashboard:
    """Number of events, new events by kind and city."""
    made = board("security", UID, "Security events by kind and city. 安全态势", since="now-24h")
    made.with_variable(several(choice("city", "City 城市", _PLACES)))
    made.with_variable(several(choice("kind", "Kind 类别", EVENT_NAMES)))
    made.with_panel(
        note(
            "The platform counts events since its registry was made. Enterprises, units and keys are on the "
            "console's Pipeline page. A refused certificate has no city, because the broker does not log "
            "whose it was. 企业和设备明细见控制台的数据通道页面。"
        )
    )
    made.with_row(dashboard.Row("Now 当前"))
    made.with_panel(
        number("Events so far 累计事件", newest("events", "events", _SOURCE), "locale", span=6).height(9)
    )
    for key, title in (("kind", "Events by kind 按类别累计"), ("city", "Events by city 按城市累计")):
        latest = f'SELECT last("events") AS "each" {_SOURCE.minutes()}{apart("kind", "city")}'
        query = f'SELECT sum("each") AS "events" FROM ({latest}) WHERE $timeFilter{apart(key)}'
        names = EVENT_NAMES if key == "kind" else _PLACES
        made.with_panel(bars(title, query, f"$tag_{key}", names).span(9))
    made.with_row(dashboard.Row("Over time 趋势"))
    steps = thresholds((None, BLUE), (10, ORANGE), (100, RED))
    for key, title, names in (
        ("kind", "New events by kind 按类别新增", EVENT_NAMES),
        ("city", "New events by city 按城市新增", _PLACES),
    ):
        query = increase("events", "events", _SOURCE, key, series=("kind", "city"))
        made.with_panel(graph(title, query, "locale", alias=f"$tag_{key}", names=names, steps=steps))
    return finish(made)
