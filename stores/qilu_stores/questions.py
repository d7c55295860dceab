"""Validation of queries, the same for all stores, because names come from outside and become part of
queries."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from qilu_contract.readings import MAX_TIME_MS
from qilu_contract.storage import MEASUREMENTS, Measurement
from qilu_contract.store import MAX_ROWS, SeriesQuery

MAX_EVERY_MS = 36_525 * 86_400_000
"""A hundred years: more overflows InfluxDB's durations."""


def check_names(
    measurement: str, tags: Collection[str], fields: Collection[str], start_ms: int = 0, end_ms: int = 0
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
    return schema


def check_series(query: SeriesQuery) -> tuple[Measurement, Sequence[str]]:
    """The measurement's schema, and the fields for which the aggregate is defined: a boolean has no mean.
    Raises ValueError."""
    schema = check_names(query.measurement, query.tags, query.fields, query.start_ms, query.end_ms)
    if query.every_ms is None:
        return schema, query.fields
    if not 0 < query.every_ms <= MAX_EVERY_MS:
        raise ValueError("the interval must be longer than nothing, and no longer than a hundred years")
    if (query.end_ms - query.start_ms) / query.every_ms > MAX_ROWS:
        raise ValueError(f"more than {MAX_ROWS} rows: ask for a shorter time or a longer interval")
    fields = [name for name in query.fields if query.aggregate != "mean" or schema.fields[name] != "bool"]
    if not fields:
        raise ValueError("a boolean has no mean: ask for its last value, or for min, max or count")
    return schema, fields


def check_newest(
    measurement: str, having: Mapping[str, str | int], start_ms: int, end_ms: int, limit: int
) -> Measurement:
    """The measurement's schema; raises ValueError."""
    tags = {name: value for name, value in having.items() if isinstance(value, str)}
    schema = check_names(measurement, tags, [name for name in having if name not in tags], start_ms, end_ms)
    if not 0 < limit <= MAX_ROWS:
        raise ValueError(f"1 to {MAX_ROWS} rows can be asked for, not {limit}")
    return schema
