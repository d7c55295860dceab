"""The dashboard of the data pipeline: readings that the gateways accept, store and refuse."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.models.dashboard import Dashboard
from qilu_contract.errors import Reason
from qilu_contract.storage import MEASUREMENTS

from qilu_dashboards.frame import board, finish, lookup, several
from qilu_dashboards.panels import BLUE, GREEN, MANY_LINES, ORANGE, RED, bars, graph, number, thresholds
from qilu_dashboards.queries import Source, apart, each_interval, increase, newest

UID = "qilu-pipeline"

FIELDS = MEASUREMENTS["pipeline"].fields
_GATEWAY = '"gateway" =~ /^${gateway:regex}$/'
_SOURCE = Source("pipeline", _GATEWAY)
_REFUSED = Source("dead_letter", _GATEWAY)
_ROLLUPS = Source("rollup", _GATEWAY)

REASONS = {str(reason): str(reason).replace("_", " ") for reason in Reason}


def pipeline() -> Dashboard:
    """Rates and lag, conservation of readings, dead letters by reason, births, spool, roll-ups."""
    made = board("pipeline", UID, "From the broker to the store. 数据通道", since="now-1h")
    gateways = 'SHOW TAG VALUES FROM "pipeline" WITH KEY = "gateway"'
    made.with_variable(several(lookup("gateway", "Gateway 网关", gateways)))
    _now(made)
    _rates(made)
    _conservation(made)
    if "spooled" in FIELDS:
        _spool(made)
    _refused(made)
    _rollups(made)
    return finish(made)


def _now(made: dashboard.Dashboard) -> None:
    made.with_row(dashboard.Row("Now 当前"))
    rate = "suffix: readings/s"
    made.with_panel(number("Accepted 接收", newest("accepted_per_s", "accepted", _SOURCE), rate))
    made.with_panel(number("Stored 入库", newest("stored_per_s", "stored", _SOURCE), rate))
    late = thresholds((None, GREEN), (5_000, ORANGE), (60_000, RED))
    lag = newest("lag_ms", "lag", _SOURCE, outer="max")
    made.with_panel(number("Lag 延迟", lag, "ms", steps=late))
    bad = thresholds((None, GREEN), (1, ORANGE))
    dead = newest("dead_lettered", "dead letters", _SOURCE)
    made.with_panel(number("Dead letters 死信", dead, "locale", steps=bad))
    busy = thresholds((None, BLUE), (50_000, ORANGE))
    made.with_panel(
        number("In flight 处理中", newest("in_flight", "in flight", _SOURCE), "locale", steps=busy)
    )
    again = newest("redelivered", "redelivered", _SOURCE)
    made.with_panel(number("Redelivered 重复投递", again, "locale", steps=bad))


def _rates(made: dashboard.Dashboard) -> None:
    made.with_row(dashboard.Row("Rates and lag 速率与延迟"))
    columns = {"accepted 接收": 'mean("accepted_per_s")', "stored 入库": 'mean("stored_per_s")'}
    rates = each_interval(columns, _SOURCE, "gateway")
    made.with_panel(
        graph("Readings per second 每秒读数", rates, "suffix: readings/s", alias="$tag_gateway $col")
    )
    lag = each_interval({"lag 延迟": 'max("lag_ms")'}, _SOURCE, "gateway")
    made.with_panel(graph("Lag from sample to store 采样到入库延迟", lag, "ms", alias="$tag_gateway $col"))
    columns = {"births 上线": 'last("births")', "rebirth requests 重新上线请求": 'last("rebirth_requests")'}
    births = each_interval(columns, _SOURCE, "gateway")
    made.with_panel(
        graph("Births and rebirth requests 设备上线", births, "locale", alias="$tag_gateway $col")
    )


def _conservation(made: dashboard.Dashboard) -> None:
    made.with_row(dashboard.Row("Conservation of readings 读数守恒"))
    outcomes = ("accepted", "stored", "dead_lettered", "in_flight", "spooled", "corrupt")
    names = [name for name in outcomes if name in FIELDS]
    columns = {name.replace("_", " "): f'last("{name}")' for name in names}
    totals = each_interval(columns, _SOURCE, "gateway")
    counted = graph("Counts since the start 累计", totals, "locale", alias="$tag_gateway $col")
    made.with_panel(counted.max_data_points(MANY_LINES))
    kept = " - ".join(f'last("{name}")' for name in names)
    difference = each_interval({"difference": kept}, _SOURCE, "gateway")
    made.with_panel(
        graph(
            "Accepted minus accounted for (always 0) 守恒差额",
            difference,
            "locale",
            alias="$tag_gateway $col",
            from_zero=False,
        )
        .max_data_points(MANY_LINES)
        .description("accepted − " + " − ".join(names[1:]))
    )


def _spool(made: dashboard.Dashboard) -> None:
    made.with_row(dashboard.Row("Spool 暂存"))
    for name, title, unit in (
        ("spooled", "Readings in the spool 暂存读数", "locale"),
        ("spool_bytes", "Size of the spool 暂存大小", "bytes"),
        ("spool_age_s", "Age of the oldest spooled reading 最早暂存读数", "s"),
    ):
        if name in FIELDS:
            query = each_interval({name: f'max("{name}")'}, _SOURCE, "gateway")
            panel = graph(title, query, unit, alias="$tag_gateway").span(8)
            if name == "spooled":
                panel.description("Over long time ranges: the number at the end of each hour.")
            made.with_panel(panel)


def _refused(made: dashboard.Dashboard) -> None:
    made.with_row(dashboard.Row("Dead letters 死信"))
    each = _REFUSED.by_step('SELECT last("readings") AS "each"', apart("gateway", "reason"))
    latest = f'SELECT sum("each") AS "readings" FROM {each} WHERE $timeFilter{apart("reason")}'
    made.with_panel(bars("By reason, since the start 按原因累计", latest, "$tag_reason", REASONS))
    grown = increase("readings", "readings", _REFUSED, "reason")
    made.with_panel(
        graph("New dead letters by reason 按原因新增", grown, "locale", alias="$tag_reason", names=REASONS)
    )


def _rollups(made: dashboard.Dashboard) -> None:
    made.with_row(dashboard.Row("Roll-ups 汇总"))
    for name, title in {
        "rolled": "Readings rolled up 已汇总读数",
        "late": "Late readings, not rolled up 迟到读数",
        "held": "Readings in open minutes 待汇总读数",
        "dropped": "Dropped roll-up rows 丢弃的汇总行",
        "alarms_open": "Open alarms 未解除告警",
    }.items():
        query = each_interval({name: f'last("{name}")'}, _ROLLUPS, "gateway")
        made.with_panel(graph(title, query, "locale", alias="$tag_gateway"))
