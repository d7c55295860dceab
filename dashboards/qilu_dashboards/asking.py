"""A dashboard's queries as Grafana asks them: its substitutions, over HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx
from qilu_contract.errors import QiluError

POINTS = 800
"""A panel's pixels: Grafana asks for no more values of a series than it can draw."""


@dataclass(frozen=True, slots=True)
class Time:
    """What a dashboard shows, in milliseconds since 1970, both ends included."""

    start_ms: int
    end_ms: int


def substituted(
    query: str, time: Time, variables: Mapping[str, str], least_s: int = 10, points: int | None = None
) -> str:
    """The query with what Grafana puts in. `variables` are values as `${name:regex}` makes them: one, `(a|b)`
    or an "All" value; `least_s` and `points` are the panel's shortest interval and its most points."""
    interval_s = max(least_s, (time.end_ms - time.start_ms) // 1000 // (points or POINTS))
    text = query.replace("$timeFilter", f"time >= {time.start_ms}ms and time <= {time.end_ms}ms")
    text = text.replace("$__interval", f"{interval_s}s")
    for name, value in variables.items():
        text = text.replace(f"${{{name}:regex}}", value).replace(f"${{{name}}}", value)
    return text


def ask(http: httpx.Client, database: str, text: str) -> list[dict[str, Any]]:
    """The series of the answer, times in milliseconds. Raises QiluError when the store does not answer or
    refuses the query."""
    try:
        answer = http.post("/query", data={"db": database, "q": text, "epoch": "ms"})
        answer.raise_for_status()
    except httpx.HTTPError as error:
        raise QiluError(f"The store does not answer: {error}.") from error
    [result] = answer.json()["results"]
    if "error" in result:
        raise QiluError(f"The store refuses a query: {result['error']}: {text}")
    series: list[dict[str, Any]] = result.get("series", [])
    return series
