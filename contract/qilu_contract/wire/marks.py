"""Marks: show an edge node how far its host has advanced.

A node publishes a number among its data, as an NDATA; the host returns it as an NCMD when it reaches it,
with the last run clock that it received. So the host has received everything published before the mark,
whatever the broker acknowledged, and readings up to this clock's limit may follow. Any edge node may use
marks; they need only its own topics.
"""

from __future__ import annotations

from typing import NamedTuple

from qilu_contract.wire.sparkplug import DataType, Metric, Payload

MARK, RUN_CLOCK = "Node Control/Mark", "Node Control/Run Clock"


class Mark(NamedTuple):
    """`clock_ms`: the run's time that the host heard last; 0 for none."""

    number: int
    clock_ms: int = 0


def metrics(mark: Mark, ts_ms: int) -> list[Metric]:
    """As NBIRTH names them, and NDATA and NCMD carry them."""
    return [
        Metric(MARK, ts_ms=ts_ms, datatype=DataType.INT64, value=mark.number),
        Metric(RUN_CLOCK, ts_ms=ts_ms, datatype=DataType.INT64, value=mark.clock_ms),
    ]


def parse(payload: Payload) -> Mark | None:
    """The mark in an NDATA or NCMD; None when it holds none."""
    values = {metric.name: metric.value for metric in payload.metrics}
    number, clock_ms = values.get(MARK), values.get(RUN_CLOCK)
    if type(number) is not int or type(clock_ms) is not int:
        return None
    return Mark(number, clock_ms)
