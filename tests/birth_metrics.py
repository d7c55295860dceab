"""Metrics of births, for tests of the gateway's decoder."""

from __future__ import annotations

from qilu_contract.wire.sparkplug import DataType, Metric

T0 = 1_700_000_000_000


def bd_seq(number: int) -> list[Metric]:
    return [Metric("bdSeq", 0, T0, DataType.INT64, number)]


def named(**aliases: int) -> list[Metric]:
    """The metrics of a birth: names with their aliases."""
    return [Metric(name, alias, T0, DataType.FLOAT, 1.0) for name, alias in aliases.items()]
