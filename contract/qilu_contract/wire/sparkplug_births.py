"""Fast path for births of devices: decodes many into columns, because births of identical equipment differ
only in times, aliases and values. Any other form (names without alias, text, null, a quality that is not
good, …) is left to `sparkplug.decode`. Results of both are the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from qilu_contract.columns import Ints
from qilu_contract.errors import BadReading
from qilu_contract.wire import sparkplug
from qilu_contract.wire.sparkplug import GOOD, QUALITY, UNIT
from qilu_contract.wire.sparkplug_columns import Decoded, Found, LayoutColumns
from qilu_contract.wire.sparkplug_layouts import Layout, metrics_of


class Said(NamedTuple):
    """Descriptions of metrics in births, equal for all births of a layout."""

    names: tuple[str, ...]
    datatypes: tuple[int, ...]
    units: Mapping[str, str]
    """Units of measurement, by name."""


class Table(NamedTuple):
    """Births with the same names and datatypes, whatever aliases theirs begin with."""

    of: Ints
    """The places of their messages among those that were given."""
    said: Said
    steps: tuple[int, ...]
    """Of each metric, its alias less the birth's first one."""
    first: Ints
    """Alias, of each birth."""
    said_ms: Ints
    """Time of each birth: the payload's."""


class BirthLayout(Layout):
    said: Said


class SparkplugBirths(LayoutColumns[BirthLayout]):
    def __init__(self) -> None:
        super().__init__(learn)

    def decode(self, bodies: Sequence[bytes]) -> tuple[Decoded, list[Table]]:
        """The readings of DBIRTH messages of any units, and their other content. Tables omit the messages
        that are left to the plain path."""
        found = Found(bodies)
        tables: list[Table] = []
        for layout, matrix, places in self._by_layout(bodies, found):
            for birth, parts in layout.births(matrix):
                good = np.ones(len(matrix), dtype=bool)
                for part in parts:
                    found.add(part, places)
                    if part.metrics is None:
                        good[part.rows] = False
                kept = good[birth.rows]
                if kept.any():
                    of, first, said_ms = places[birth.rows[kept]], birth.first[kept], birth.said_ms[kept]
                    tables.append(Table(of, layout.said, birth.steps, first, said_ms))
        return found.decoded(), tables


def learn(body: bytes) -> BirthLayout | None:
    """The layout of a birth, whose sequence number was cut off; None if it is not plain."""
    found = metrics_of(body, named=True)
    if found is None:
        return None
    try:
        metrics = sparkplug.decode(body).metrics
    except BadReading:
        return None
    names = tuple([metric.name or "" for metric in metrics])
    if not all(names) or len(set(names)) < len(names) or len(names) != len(found[0]):
        return None
    for metric in metrics:
        if metric.is_transient or metric.properties.get(QUALITY, GOOD) != GOOD:
            return None
    layout = BirthLayout(body, *found)
    units = {
        metric.name or "": unit for metric in metrics if isinstance(unit := metric.properties.get(UNIT), str)
    }
    layout.said = Said(names, tuple([metric.datatype for metric in metrics]), units)
    return layout
