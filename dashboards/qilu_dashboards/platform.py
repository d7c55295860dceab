"""The dashboard of the platform's own figures that are in the store."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.models.dashboard import Dashboard

from qilu_dashboards.frame import MILESTONES, board, finish, lookup, several
from qilu_dashboards.panels import GREEN, ORANGE, RED, graph, note, number, thresholds
from qilu_dashboards.queries import Source, each_interval, newest

UID = "qilu-platform"

_SOURCE = Source("platform", '"host" =~ /^${host:regex}$/')


def platform() -> Dashboard:
    """Requests, latency, the database, background tasks, event streams, import jobs."""
    made = board("platform", UID, "The registry and its API. 平台运行", since="now-1h")
    hosts = 'SHOW TAG VALUES FROM "platform" WITH KEY = "host"'
    made.with_variable(several(lookup("host", "Host 主机", hosts)))
    made.with_panel(
        note(
            "The platform writes these figures into the store every ten seconds. Figures by route and "
            "latency percentiles are only at the platform's /metrics, for Prometheus. "
            "按路由统计的指标和延迟分位数请见平台的 /metrics。"
        )
    )
    made.with_row(dashboard.Row("Now 当前"))
    rate = newest("requests_per_s", "requests", _SOURCE)
    made.with_panel(number("Requests 请求", rate, "reqps", span=6))
    slow = thresholds((None, GREEN), (100, ORANGE), (1000, RED))
    for field, title, unit, steps in (
        ("latency_ms", "Mean latency 平均延迟", "ms", slow),
        ("counts_read_ms", "Database: time to read all counts 数据库读取耗时", "ms", slow),
        ("event_clients", "Event stream clients 事件订阅客户端", "locale", None),
    ):
        query = newest(field, field, _SOURCE, outer="max")
        made.with_panel(number(title, query, unit, span=6, steps=steps))
    made.with_row(dashboard.Row("Over time 趋势"))
    for fields, title, unit in (
        (("requests_per_s",), "Requests per second 每秒请求", "reqps"),
        (("latency_ms", "counts_read_ms"), "Latency and database 延迟与数据库", "ms"),
        (("errors", "task_failures"), "Errors since the start 累计错误", "locale"),
        (("requests",), "Requests since the start 累计请求", "locale"),
    ):
        fn = "mean" if unit == "reqps" else "max"
        query = each_interval({field: f'{fn}("{field}")' for field in fields}, _SOURCE, "host")
        made.with_panel(graph(title, query, unit, alias="$tag_host $col"))
    made.with_row(dashboard.Row("Import jobs 导入任务"))
    # Every replica writes the figures of their shared database.
    query = newest("imports_open", "open", _SOURCE, outer="max")
    made.with_panel(number("Open import jobs 未完成的导入任务", query, "locale", span=6).height(9))
    columns = {"lines 行": 'max("import_lines")', "bad 错误": 'max("import_lines_bad")'}
    grown = each_interval(columns, _SOURCE)
    made.with_panel(graph("Lines of all jobs 累计导入行数", grown, "locale").span(18))
    return finish(made, MILESTONES)
