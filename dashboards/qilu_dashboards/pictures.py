"""Draws a dashboard from its JSON and the answers to its queries, for documents and for a preview without
Grafana. The picture states that it is not from Grafana.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx2
import matplotlib as mpl
from matplotlib import dates
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from qilu_common.influx_address import InfluxAddress, without_password
from qilu_contract.errors import ConfigError

from qilu_dashboards.asking import Time, ask, substituted
from qilu_dashboards.build import build_all

NOTE = "Drawn by Clouds in Qilu from the dashboard's queries. This is not Grafana."
COLUMN_IN, ROW_IN = 0.62, 0.34
"""Size of a column and a row of the dashboard's grid of 24 columns, in inches."""
LEFT_IN, LETTER_IN = 0.75, 0.055
"""Left margin of a panel's content, and width of a letter in the names of its bars, in inches."""
LONG = 16
"""Number of letters from which a figure is drawn smaller."""
MAX_ROWS = 12
"""Maximum number of table rows or bars that are drawn."""
_SECONDS = {"s": 1, "m": 60, "h": 3600}

Series = list[dict[str, Any]]


def board(uid: str) -> dict[str, Any]:
    """A dashboard's JSON by its uid, with or without `qilu-`. Raises ConfigError."""
    boards = {one["uid"]: one for one in map(json.loads, build_all().values())}
    found: dict[str, Any] | None = boards.get(uid) or boards.get(f"qilu-{uid}")
    if found is None:
        raise ConfigError(f"There is no dashboard {uid}: choose one of {', '.join(sorted(boards))}.")
    return found


def picture(
    uid: str, store: str, token: str | None, time: Time, chosen: Mapping[str, str], file: Path
) -> None:
    """Draw a dashboard from an InfluxDB into a file (.svg, .png). `chosen` holds values of variables; the
    other variables are "All", or their first value. Raises ConfigError, QiluError."""
    if file.suffix not in (".svg", ".png"):
        raise ConfigError(f"--out {file}: a picture is written as .svg or .png.")
    address = InfluxAddress.parse(store)
    if address is None:
        raise ConfigError(
            f"{without_password(store)} is not an InfluxDB URL: use influxdb://host:8086/database."
        )
    made = board(uid)
    with httpx2.Client(
        base_url=address.url, headers=address.headers(token), timeout=60.0, trust_env=False
    ) as http:

        def answer(
            query: str, variables: Mapping[str, str], least_s: int, points: int | None = None
        ) -> Series:
            return ask(http, address.database, substituted(query, time, variables, least_s, points))

        variables = _variables(made, chosen, answer)
        figure = _draw(made, time, lambda query, *how: answer(query, variables, *how), variables)
    with mpl.rc_context({"svg.fonttype": "none"}):
        figure.savefig(file, dpi=90)


def _variables(
    made: dict[str, Any],
    chosen: Mapping[str, str],
    answer: Callable[[str, Mapping[str, str], int], Series],
) -> dict[str, str]:
    variables: dict[str, str] = dict(chosen)
    for variable in made["templating"]["list"]:
        name = variable["name"]
        if name in variables or variable["type"] == "datasource":
            continue
        if variable.get("includeAll"):
            variables[name] = variable["allValue"]
        elif variable["type"] == "query":
            found = answer(variable["query"], variables, 60)
            variables[name] = str(found[0]["values"][0][1]) if found else ""
        elif variable["type"] == "custom":
            variables[name] = variable["query"].split(", ")[0].rpartition(" : ")[2]
        else:
            variables[name] = str(variable.get("query", ""))
    return variables


def _draw(
    made: dict[str, Any],
    time: Time,
    answer: Callable[[str, int, int | None], Series],
    variables: Mapping[str, str],
) -> Figure:
    panels = [panel for panel in made["panels"] if panel["type"] not in ("row", "text")]
    bottom = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    width, height = 24 * COLUMN_IN, (bottom + 3) * ROW_IN
    figure = Figure(figsize=(width, height), facecolor="white")
    shown = ", ".join(f"{name} {value}" for name, value in variables.items() if value != ".*")
    figure.text(0.01, 1 - 0.9 * ROW_IN / height, _latin(made["title"]), size=15, weight="bold", va="center")
    figure.text(0.01, 1 - 1.9 * ROW_IN / height, f"{NOTE}  {shown}", size=9, color="#555", va="center")
    for panel in panels:
        where = panel["gridPos"]
        least = str(panel.get("interval") or "10s")
        least_s = int(float(least[:-1]) * _SECONDS[least[-1]])
        series: Series = []
        for target in panel["targets"]:
            for one in answer(target["query"], least_s, panel.get("maxDataPoints")):
                series.append(one | {"alias": target.get("alias", "")})
        title, left, top = 1.1 * ROW_IN, LEFT_IN, where["y"] + 2.6
        axes = figure.add_axes(
            (
                (where["x"] * COLUMN_IN + left) / width,
                1 - ((top + where["h"]) * ROW_IN - 0.45) / height,
                (where["w"] * COLUMN_IN - left - 0.25) / width,
                (where["h"] * ROW_IN - title - 0.45) / height,
            )
        )
        axes.set_title(_latin(panel["title"]), size=9, loc="left")
        axes.tick_params(labelsize=7)
        if not any(row[1] is not None for one in series for row in one["values"]):
            _nothing(axes, panel["fieldConfig"]["defaults"].get("noValue", "no data"))
            continue
        _PAINTERS[panel["type"]](axes, panel, series, time)
    return figure


def _nothing(axes: Axes, text: str) -> None:
    axes.set_axis_off()
    axes.text(0.5, 0.5, _latin(text), ha="center", va="center", color="#999", size=9)


def _label(panel: dict[str, Any], one: dict[str, Any], column: str) -> str:
    """As the panel calls the series: by its tag's value, its column where it has several, and the name that
    the panel gives that."""
    name = ", ".join(str(value) for value in one.get("tags", {}).values()) or column
    if column != name and len(one["columns"]) > 2:
        name = f"{name} {column}".strip()
    for override in panel["fieldConfig"].get("overrides", []):
        if override["matcher"]["options"] == name:
            given = (each["value"] for each in override["properties"] if each["id"] == "displayName")
            name = str(next(given, name))
    return _latin(name)


def _newest(one: dict[str, Any], place: int = 1) -> float:
    return float(next((row[place] for row in reversed(one["values"]) if row[place] is not None), 0.0))


def _color(panel: dict[str, Any], value: float) -> str:
    color = "#3274d9"
    for step in panel["fieldConfig"]["defaults"].get("thresholds", {}).get("steps", []):
        if step["value"] is None or value >= step["value"]:
            color = step["color"]
    return str(color)


def _number(axes: Axes, panel: dict[str, Any], series: Series, time: Time) -> None:
    axes.set_axis_off()
    value = _newest(series[-1])
    unit = str(panel["fieldConfig"]["defaults"].get("unit", ""))
    text = f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    if unit == "dateTimeFromNow":
        text = f"{(time.end_ms - value) / 60_000:,.0f} min before the end"
    elif unit.startswith("dateTime"):
        text = f"{datetime.fromtimestamp(value / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"
    unit = unit.partition(":")[2].strip() if ":" in unit else ""
    text = f"{text} {unit}".strip()
    size = 14 if len(text) <= LONG else 8
    axes.text(0.5, 0.45, text, ha="center", va="center", size=size, color=_color(panel, value))


def _graph(axes: Axes, panel: dict[str, Any], series: Series, time: Time) -> None:
    lines = 0
    for one in series:
        for place, column in enumerate(one["columns"][1:], start=1):
            points = [(row[0], row[place]) for row in one["values"] if row[place] is not None]
            if points:
                times = [datetime.fromtimestamp(ts / 1000, UTC) for ts, _ in points]
                axes.plot(times, [float(v) for _, v in points], lw=1, label=_label(panel, one, column))  # type: ignore[arg-type]
                lines += 1
    _time_axis(axes, time)
    for step in panel["fieldConfig"]["defaults"].get("thresholds", {}).get("steps", []):
        if step["value"] is not None and step["value"] <= axes.get_ylim()[1]:
            axes.axhline(step["value"], color=step["color"], lw=1, ls="--")
    axes.grid(alpha=0.3)
    if 1 < lines <= 8:
        axes.legend(fontsize=6, loc="upper left", framealpha=0.7)


def _states(axes: Axes, panel: dict[str, Any], series: Series, time: Time) -> None:
    rows = series[0]["values"]
    step = min((b[0] - a[0] for a, b in pairwise(rows)), default=60_000)
    for ts, value in ((row[0], row[1]) for row in rows if row[1] is not None):
        begin, end = (datetime.fromtimestamp(at / 1000, UTC) for at in (ts, ts + step))
        axes.axvspan(begin, end, color=_color(panel, float(value)), lw=0)  # type: ignore[arg-type]
    axes.set_yticks([])
    _time_axis(axes, time)


def _time_axis(axes: Axes, time: Time) -> None:
    ends = [datetime.fromtimestamp(at / 1000, UTC) for at in (time.start_ms, time.end_ms)]
    axes.set_xlim(ends[0], ends[1])  # type: ignore[arg-type]
    locator = dates.AutoDateLocator(minticks=3, maxticks=6)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    short = dates.ConciseDateFormatter(locator)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_formatter(short)


def _bars(axes: Axes, panel: dict[str, Any], series: Series, _: Time) -> None:
    if len(series) == 1 and len(series[0]["columns"]) > 2:  # a distribution: each column is a bar
        names, values = series[0]["columns"][1:], [float(v or 0) for v in series[0]["values"][-1][1:]]
    else:
        found = sorted(
            (
                _bar(panel, one, column, _newest(one, place))
                for one in series
                for place, column in enumerate(one["columns"][1:], start=1)
            ),
            reverse=True,
        )
        names, values = [name for _, name in found[:MAX_ROWS]], [value for value, _ in found[:MAX_ROWS]]
    axes.barh(range(len(names)), values, color=[_color(panel, value) for value in values])
    names = [_latin(name) for name in names]
    axes.set_yticks(range(len(names)), names, size=6)
    more = max(0.0, LETTER_IN * max(map(len, names)) - LEFT_IN) / (24 * COLUMN_IN)
    x, y, width, height = axes.get_position().bounds
    axes.set_position((x + more, y, width - more, height))
    axes.invert_yaxis()


def _bar(panel: dict[str, Any], one: dict[str, Any], column: str, value: float) -> tuple[float, str]:
    """Length and name of a bar. A series with its own maximum has its share of that, and its value beside
    the name."""
    code = " ".join(str(tag) for tag in one.get("tags", {}).values())
    for override in panel["fieldConfig"].get("overrides", []):
        given = {each["id"]: each["value"] for each in override["properties"]}
        if override["matcher"]["options"] == f"{code} {column}" and "max" in given:
            return min(1.0, value / given["max"]), f"{_latin(given['displayName'])}: {value:,.0f}"
    return value, _label(panel, one, column)


def _table(axes: Axes, panel: dict[str, Any], series: Series, _: Time) -> None:
    axes.set_axis_off()
    heads = [_latin(column) for column in series[0]["columns"][1:]]
    tagged = bool(series[0].get("tags"))
    body = []
    for one in series:
        for row in one["values"]:
            cells = [f"{v:,.4g}" if isinstance(v, float) else str(v) for v in row[1:]]
            body.append(([_label(panel, one, "")] if tagged else []) + cells)
    shown = axes.table(
        cellText=body[:MAX_ROWS], colLabels=([""] if tagged else []) + heads, loc="upper center"
    )
    shown.auto_set_font_size(False)
    shown.set_fontsize(6)


def _latin(text: str) -> str:
    """The English part of a text: the font of the picture has no Chinese."""
    return re.sub(r"\S*[⺀-鿿]\S*", "", text).strip(" :：")


_PAINTERS: Mapping[str, Callable[[Axes, dict[str, Any], Series, Time], None]] = {
    "stat": _number,
    "timeseries": _graph,
    "state-timeline": _states,
    "bargauge": _bars,
    "table": _table,
}


def chosen_of(texts: Sequence[str]) -> dict[str, str]:
    """Parse `name=value` arguments of the command line. Raises ConfigError."""
    found = {}
    for text in texts:
        name, sign, value = text.partition("=")
        if not (name and sign and value):
            raise ConfigError(f"--set {text}: write it as city=370200.")
        found[name] = value
    return found
