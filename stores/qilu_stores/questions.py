"""Validation of queries, the same for all stores, because names come from outside and become part of
queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from qilu_contract.readings import MAX_TIME_MS
from qilu_contract.storage import MEASUREMENTS, Measurement
from qilu_contract.store import MAX_ROWS, Aggregate

MAX_EVERY_MS = 36_525 * 86_400_000
"""A hundred years: more overflows InfluxDB's durations."""


def check_series(
    measurement: str,
    tags: Mapping[str, str],
    fields: Sequence[str],
    start_ms: int = 0,
    end_ms: int = 0,
    every_ms: int | None = None,
) -> Measurement:
    """The measurement's schema; raises ValueError, saying what is possible, for names and times that make no
    question.
    """
    schema = MEASUREMENTS.get(measurement)
    if schema is None:
        raise ValueError(f"no measurement {measurement!r}: there are {', '.join(MEASUREMENTS)}")
    for tag in tags:
        if tag not in schema.tags:
            raise ValueError(f"{measurement} has no tag {tag!r}: it has {', '.join(schema.tags)}")
    for field in fields:
        if field not in schema.fields:
            raise ValueError(f"{measurement} has no signal {field!r}: it has {', '.join(schema.fields)}")
    if not 0 <= start_ms <= end_ms <= MAX_TIME_MS:
        raise ValueError("the start must not lie after the end, and both between the years 1970 and 2262")
    if every_ms is not None:
        if not 0 < every_ms <= MAX_EVERY_MS:
            raise ValueError("the interval must be longer than nothing, and no longer than a hundred years")
        if (end_ms - start_ms) / every_ms > MAX_ROWS:
            raise ValueError(f"more than {MAX_ROWS} rows: ask for a shorter time or a longer interval")
    return schema


def check_newest(
    measurement: str, having: Mapping[str, str | int], start_ms: int, end_ms: int, limit: int
) -> Measurement:
    """The measurement's schema; raises ValueError."""
    tags = {name: value for name, value in having.items() if isinstance(value, str)}
    schema = check_series(measurement, tags, [name for name in having if name not in tags], start_ms, end_ms)
    if not 0 < limit <= MAX_ROWS:
        raise ValueError(f"1 to {MAX_ROWS} rows can be asked for, not {limit}")
    return schema


def aggregated(schema: Measurement, fields: Sequence[str], aggregate: Aggregate) -> list[str]:
    """The fields for which the aggregate is defined; a boolean has no mean."""
    found = [name for name in fields if aggregate != "mean" or schema.fields[name] != "bool"]
    if not found:
        raise ValueError("a boolean has no mean: ask for its last value, or for min, max or count")
    return found
