"""The dashboard "Clouds in Qilu: programme overview"."""

from __future__ import annotations

from grafana_foundation_sdk.builders import dashboard, text
from grafana_foundation_sdk.models.dashboard import Dashboard
from grafana_foundation_sdk.models.text import TextMode
from qilu_contract.catalogue.claims import CLAIMS, WHY_CLAIMS_DIFFER
from qilu_contract.catalogue.targets import CORE_TARGETS, TARGETS

from qilu_dashboards.frame import (
    CITY_NAMES,
    CLASS_NAMES,
    KIND_NAMES,
    MILESTONES,
    VOUCHER_NAMES,
    board,
    cities,
    classes,
    finish,
    industries,
)
from qilu_dashboards.panels import (
    GREEN,
    MANY_LINES,
    ORANGE,
    against_targets,
    bars,
    graph,
    industry_bars,
    number,
    rows,
    thresholds,
)
from qilu_dashboards.plan import PLANS
from qilu_dashboards.queries import (
    CITY_COUNTS,
    LATELY,
    OF_CLASS,
    Source,
    daily_rate,
    each_interval,
    in_all,
    newest,
    over_time,
)

UID = "qilu-programme"

_PROVINCE = Source("programme", "\"scope\" = 'province'")


def overview() -> Dashboard:
    """Counts and core targets, pace and forecast, growth, cities, industries, classes, kinds of action,
    vouchers."""
    made = board(
        "programme overview",
        UID,
        "Enterprises and equipment of Shandong on cloud. 云行齐鲁：企业与设备上云总览",
        since="now-1h",
    )
    made.with_variable(cities(all_value=".*"))
    made.with_variable(industries())
    made.with_variable(classes())
    days = dashboard.TextBoxVariable("days").label("Days to forecast 预测天数").default_value("365")
    made.with_variable(days)
    _targets(made)
    _pace(made)
    _growth(made)
    _claims(made)
    _cities(made)
    _parts(made)
    _vouchers(made)
    return finish(made, MILESTONES)


def _targets(board: dashboard.Dashboard) -> None:
    board.with_row(dashboard.Row("Targets 目标完成情况"))
    fields: dict[tuple[str, str], list[str]] = {}
    """By scope and code."""
    for target in CORE_TARGETS.values():
        scope, code, field = target.counted_in
        fields.setdefault((scope, code), []).append(field)
    codes: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    """By scope and fields: one query each."""
    for (scope, code), names in fields.items():
        codes.setdefault((scope, tuple(names)), []).append(code)
    queries = []
    for (scope, counted), of in codes.items():
        # The newest values alone: the store finds them at once for any time range.
        columns = ", ".join(f'last("{field}") AS "{field}"' for field in counted)
        where = f'"scope" = \'{scope}\' AND "code" =~ /^({"|".join(of)})$/ AND $timeFilter'
        queries.append((f'SELECT {columns} FROM "programme" WHERE {where} GROUP BY "code"', "$tag_code $col"))
    title = "Core targets 核心目标"
    board.with_panel(against_targets(title, [*CORE_TARGETS.values()], queries))


def _pace(board: dashboard.Dashboard) -> None:
    board.with_row(dashboard.Row("Pace and forecast 进度与预测"))
    later = []
    for name, plan in PLANS.items():
        target = TARGETS[name]
        steps = thresholds((None, ORANGE), (plan.per_day, GREEN))
        counts = _PROVINCE.by_step(f'SELECT last("{name}") AS "count"', over_time())
        daily = daily_rate(counts, "per day")
        mean = f'SELECT mean("per day") AS "per day" FROM {daily} WHERE $timeFilter{over_time()}'
        suffix = f"suffix: {target.unit}s/d"
        board.with_panel(
            number(
                f"{target.title}: pace {target.title_zh}：日均新增", mean, suffix, span=6, steps=steps
            ).description(
                f"Plan: {plan.per_day:,.0f} per day, a straight line from {plan.from_count:,} in 10/2017 to "
                f"{target.target:,} at the end of 2022 (assumed)."
            )
        )
        against = graph(
            f"{target.title}: pace against plan {target.title_zh}：日均新增与计划",
            f'SELECT mean("per day") AS "per day 日均" FROM {daily} WHERE $timeFilter{over_time()}',
            suffix,
            steps=steps,
        )
        later.append(against.description(f"The line is the plan: {plan.per_day:,.0f} per day (assumed)."))
        forecast = (
            f'SELECT last("count") + mean("per day") * ${{days}} AS "forecast" FROM {counts}, {daily} '
            "WHERE $timeFilter"
        )
        reached = thresholds((None, ORANGE), (target.target, GREEN))
        board.with_panel(
            number(
                f"{target.title}: forecast {target.title_zh}：预测", forecast, "locale", span=6, steps=reached
            ).description("The newest count plus the pace over the time range times the number of days.")
        )
    for panel in later:
        board.with_panel(panel)


def _growth(board: dashboard.Dashboard) -> None:
    board.with_row(dashboard.Row("Growth 增长"))
    units = {
        "registered 已登记": 'last("units_registered")',
        "on cloud 已上云": 'last("units_on_cloud")',
        "on cloud now 当前在云": 'last("units_on_cloud_current")',
        "active 活跃": 'last("units_active")',
    }
    board.with_panel(graph("Units 设备", each_interval(units, _PROVINCE), "locale"))
    enterprises = {
        "registered 已登记": 'last("enterprises_registered")',
        "on cloud 已上云": 'last("enterprises_on_cloud")',
        "on cloud now 当前在云": 'last("enterprises_on_cloud_current")',
    }
    board.with_panel(graph("Enterprises 企业", each_interval(enterprises, _PROVINCE), "locale"))


def _claims(board: dashboard.Dashboard) -> None:
    """Reported counts are constant, so they are text. Our counts of today are in the row "Targets"."""
    board.with_row(dashboard.Row("Two counting rules 两种统计口径"))
    lines = ["| count | month | reported | by whom |", "|---|---|---|---|"]
    for claim in CLAIMS:
        target = CORE_TARGETS[claim.name]
        more = "> " if claim.more else ""
        lines.append(
            f"| {target.title} {target.title_zh} | {claim.month} | {more}{claim.value:,} "
            f"| {claim.who}: {claim.source} |"
        )
    lines += ["", f"The other panels count what is proven by telemetry. {WHY_CLAIMS_DIFFER}"]
    panel = (
        text.Panel().title("Reported by others 他方公布").mode(TextMode.MARKDOWN).content("\n".join(lines))
    )
    board.with_panel(panel.span(24).height(9))


def _cities(board: dashboard.Dashboard) -> None:
    board.with_row(dashboard.Row("By city 分城市"))
    on_cloud = {"units": 'last("units_on_cloud")'}
    latest = in_all(on_cloud, CITY_COUNTS, "code")
    board.with_panel(bars("Units on cloud by city 各市上云设备", latest, "$tag_code", CITY_NAMES, height=14))
    columns = {
        "Units on cloud 上云设备": 'last("units_on_cloud")',
        "registered 已登记": 'last("units_registered")',
        "Enterprises on cloud 上云企业": 'last("enterprises_on_cloud")',
        "registered enterprises 已登记企业": 'last("enterprises_registered")',
    }
    query = in_all(columns, CITY_COUNTS, "code")
    board.with_panel(rows("Cities 16 市", query, "code", "City 城市", CITY_NAMES, height=14))
    grown = each_interval(on_cloud, CITY_COUNTS, "code")
    growth = graph(
        "Units on cloud by city over time 各市上云设备增长",
        grown,
        "locale",
        alias="$tag_code",
        names=CITY_NAMES,
    )
    board.with_panel(growth.span(24).max_data_points(MANY_LINES))


def _parts(board: dashboard.Dashboard) -> None:
    board.with_row(dashboard.Row("By class, industry and kind of action 分类别、行业与上云类型"))
    by_class = (
        'SELECT last("units_on_cloud") FROM "programme" '
        'WHERE "scope" = \'class\' AND "code" =~ /^${class:regex}$/ '
        'AND $timeFilter GROUP BY "code"'
    )
    board.with_panel(
        bars("Units on cloud by class 各类上云设备", by_class, "$tag_code", CLASS_NAMES, height=10)
    )
    by_kind = (
        'SELECT last("contracts_current") FROM "programme" '
        'WHERE "scope" = \'kind\' AND $timeFilter GROUP BY "code"'
    )
    board.with_panel(
        bars("Cloud contracts by kind of action 各类上云合同", by_kind, "$tag_code", KIND_NAMES, height=10)
    )
    in_industries = Source(
        "fleet", f'"level" = \'industry\' AND "place" =~ /^${{industry:regex}}$/ AND {OF_CLASS}'
    )
    by_industry = newest("units", "units", in_industries, "place")
    board.with_panel(
        industry_bars(
            by_industry, f"{LATELY} Units are counted per class; the ledger does not count by industry."
        )
    )


def _vouchers(board: dashboard.Dashboard) -> None:
    board.with_row(dashboard.Row("Vouchers 云服务券"))
    columns = {
        "granted": 'last("vouchers_granted")',
        "redeemed": 'last("vouchers_redeemed")',
        "clawed back": 'last("vouchers_clawed_back")',
    }
    source = Source("programme", "\"scope\" = 'level'")
    alias, unit = "$tag_code $col", "currencyCNY"
    latest = bars("Vouchers by level 各级云服务券", in_all(columns, source, "code"), alias, VOUCHER_NAMES)
    board.with_panel(latest.unit(unit))
    grown = each_interval(columns, source, "code")
    board.with_panel(
        graph("Vouchers by level over time 各级云服务券增长", grown, unit, alias=alias, names=VOUCHER_NAMES)
    )
