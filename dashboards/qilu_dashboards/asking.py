"""Runs a dashboard's queries as Grafana does: with its substitutions, over HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx2
from qilu_contract.errors import QiluError

POINTS = 800
"""Maximum number of values per series that a panel asks for, at any width, so that a month has hourly
steps even on the widest screen."""

MINUTE_S, HOUR_S, DAY_S = 60, 3_600, 86_400
_STEPS = {
    **{seconds: f"{seconds}s" for seconds in (1, 2, 5, 10, 15, 20, 30)},
    **{minutes * MINUTE_S: f"{minutes}m" for minutes in (1, 2, 5, 10, 15, 20, 30)},
    **{hours * HOUR_S: f"{hours}h" for hours in (1, 2, 3, 6, 12)},
    **{days * DAY_S: f"{days}d" for days in (1, 7, 30, 365)},
}
"""The steps of Grafana's graphs, by length in seconds."""

_HINTS = {
    401: "; check the token in QILU_INFLUX_TOKEN",
    403: "; the token in QILU_INFLUX_TOKEN may not read {!r}",
    404: "; there is no bucket {!r} for the token in QILU_INFLUX_TOKEN",
}


@dataclass(frozen=True, slots=True)
class Time:
    """Time range of a dashboard, in milliseconds since 1970, both ends included."""

    start_ms: int
    end_ms: int


def substituted(
    query: str, time: Time, variables: Mapping[str, str], least_s: int = 10, points: int | None = None
) -> str:
    """The query with Grafana's substitutions. `variables` are values as `${name:regex}` formats them: one
    value, `(a|b)` or an "All" value. `least_s` and `points` are the panel's shortest interval and
    maximum points."""
    text = query.replace("$timeFilter", f"time >= {time.start_ms}ms and time <= {time.end_ms}ms")
    wanted_s = (time.end_ms - time.start_ms) / 1000 / (points or POINTS)
    text = text.replace("$__interval", step(wanted_s) if wanted_s > least_s else f"{least_s}s")
    for name, value in variables.items():
        text = text.replace(f"${{{name}:regex}}", value).replace(f"${{{name}}}", value)
    return text


def step(wanted_s: float) -> str:
    """The step of Grafana that is nearest to `wanted_s`, in Grafana's notation."""
    return _STEPS[min(_STEPS, key=lambda seconds: abs(seconds - wanted_s))]


def ask(http: httpx2.Client, database: str, text: str) -> list[dict[str, Any]]:
    """Run a query and return its series, with times in milliseconds. Raises QiluError when the store does not
    answer or refuses the query."""
    try:
        answer = http.post("/query", data={"db": database, "q": text, "epoch": "ms"})
    except httpx2.HTTPError as error:
        raise QiluError(f"The store at {http.base_url} does not answer: {error}.") from error
    try:
        body = answer.json()
    except ValueError:
        body = {}
    if not answer.is_success:
        detail = body.get("error") or body.get("message") or answer.reason_phrase
        hint = _HINTS.get(answer.status_code, "").format(database)
        raise QiluError(f"The store at {http.base_url} answered {answer.status_code}: {detail}{hint}.")
    if len(body.get("results", [])) != 1:
        raise QiluError(f"{http.base_url} does not answer like an InfluxDB: check --store.")
    [result] = body["results"]
    if "error" in result:
        raise QiluError(f"The store refuses a query: {result['error']}: {text}")
    series: list[dict[str, Any]] = result.get("series", [])
    return series
