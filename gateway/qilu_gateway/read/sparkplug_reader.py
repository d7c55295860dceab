"""Decodes Sparkplug messages by column: births of devices, and data of devices whose birth is in use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qilu_contract.columns import Floats, Ints, Rows
from qilu_contract.errors import Remark
from qilu_contract.wire.sparkplug import DataType
from qilu_contract.wire.sparkplug_births import SparkplugBirths, Table
from qilu_contract.wire.sparkplug_columns import Decoded, SparkplugColumns, integers
from qilu_contract.wire.sparkplug_columns import Group as Values
from qilu_contract.wire.sparkplug_layouts import Metrics

from qilu_gateway.admit.units import CLASSES, Units
from qilu_gateway.read.births import NONE, Births, BornRows
from qilu_gateway.read.checking import check_units
from qilu_gateway.read.reads import Learned, Part, Readings, Treatment
from qilu_gateway.read.unit_topics import BIRTH, HISTORIC, LIVE, Topic

_MOST_OFFSET = 1 << 20
_Mask = NDArray[np.bool_]


class SparkplugReader:
    def __init__(self, units: Units, births: Births) -> None:
        self._units, self._births = units, births
        self._data, self._born = SparkplugColumns(), SparkplugBirths()

    def read(
        self,
        part: Part,
        kinds: Ints,
        strangers: Mapping[int, Topic],
        dirty: set[tuple[str, str]],
        treatment: Treatment,
        *,
        history: bool,
    ) -> None:
        """Decode the messages of the present, or of `history`. `strangers`: messages of units that are not
        admitted, which are held. `dirty`: nodes with a birth or death among the messages. Raises
        sqlite3.OperationalError; then nothing has changed."""
        births, nodes = self._births, self._births.nodes
        kind = HISTORIC if history else LIVE
        has_number = part.numbers >= 0
        known = np.flatnonzero(((kinds == kind) | (kinds == kind + BIRTH)) & has_number)
        node_of = np.full(len(kinds), -1, dtype=np.int32)
        node_of[known] = births.durable(part.numbers[known].astype(np.int32), history=history).nodes
        unsaved = births.unsaved_units()
        held = {
            at: (topic.group, topic.enterprise)
            for at, topic in strangers.items()
            if topic.kind & ~BIRTH == kind and topic.unit not in unsaved
        }
        node_of[list(held)] = nodes.numbers(list(held.values()))
        busy = [node.number for key in dirty if (node := nodes.known(*key)) is not None]
        if busy:
            node_of[np.isin(node_of, busy)] = -1
        if unsaved:
            numbers = [self._units.numbers[unit] for unit in unsaved if unit in self._units.numbers]
            node_of[has_number & np.isin(part.numbers, numbers)] = -1
        born = np.flatnonzero((kinds == kind + BIRTH) & (node_of >= 0))
        if len(born):
            self._read_births(part, born, node_of[born], treatment, history=history)
        data = np.flatnonzero((kinds == kind) & (node_of >= 0))
        if len(data):
            self._read_data(part, data, node_of[data], treatment, history=history)

    def _read_data(self, part: Part, at: Ints, node_of: Rows, treatment: Treatment, *, history: bool) -> None:
        has_number = part.numbers[at] >= 0
        durable = self._births.durable(part.numbers[at[has_number]].astype(np.int32), history=history)
        born = (durable.layouts > 0) & (durable.sessions == self._births.nodes.sessions[node_of[has_number]])
        layouts, firsts = np.zeros(len(at), dtype=np.int64), np.zeros(len(at), dtype=np.int64)
        layouts[has_number], firsts[has_number] = np.where(born, durable.layouts, 0), durable.firsts
        usable = (layouts > 0) | ~has_number
        at, node_of, layouts, firsts = at[usable], node_of[usable], layouts[usable], firsts[usable]
        decoded = self._data.decode(part.bodies(at))
        self._treat(part, at, node_of, decoded, treatment)
        self._gather(part, at, decoded.groups, (layouts, firsts), treatment)

    def _read_births(
        self, part: Part, at: Ints, node_of: Rows, treatment: Treatment, *, history: bool
    ) -> None:
        births = self._births
        decoded, tables = self._born.decode(part.bodies(at))
        self._treat(part, at, node_of, decoded, treatment)
        layouts, firsts, said_ms = (np.zeros(len(at), dtype=np.int64) for _ in range(3))
        for table in tables:
            said = table.said
            steps = zip(table.steps, said.names, said.datatypes, strict=True)
            layouts[table.of] = births.layouts.number(tuple(sorted(steps)))
            firsts[table.of], said_ms[table.of] = table.first, table.said_ms
            self._strike_other_units(part, at, table, treatment)
        treatment.reject(at[layouts == 0])
        for node in np.unique(node_of[treatment.followed[at]]).tolist():
            births.nodes[node].lane = part.arrival.lane
        self._learn(part, at, (layouts, firsts, births.nodes.sessions[node_of]), treatment, history)
        self._gather(part, at, decoded.groups, (layouts, firsts), treatment, said_ms)

    def _treat(self, part: Part, at: Ints, node_of: Rows, decoded: Decoded, treatment: Treatment) -> None:
        good = np.ones(len(at), dtype=bool)
        good[decoded.rest] = False
        has_seq = good & (decoded.seq >= 0)
        treatment.seqs.append((at[has_seq], node_of[has_seq], decoded.seq[has_seq]))
        of = at[good]
        treatment.followed[of] = True
        treatment.held[of] = part.numbers[of] < 0
        treatment.read[of] = part.numbers[of] >= 0

    def _strike_other_units(self, part: Part, at: Ints, table: Table, treatment: Treatment) -> None:
        """Leave births whose units of measurement differ from their class's to the plain path, which makes a
        remark."""
        of = at[table.of]
        of = of[part.numbers[of] >= 0]
        classes = self._units.classes[part.numbers[of]]
        units = tuple(table.said.units.items())
        for class_ in np.unique(classes).tolist():
            if class_ < 0 or not _has_its_units(CLASSES[class_], units):
                treatment.reject(of[classes == class_])

    def _learn(
        self,
        part: Part,
        at: Ints,
        said: tuple[Ints, Ints, NDArray[np.int32]],
        treatment: Treatment,
        history: bool,
    ) -> None:
        """Put births into effect, except those that change the meaning of aliases, come twice, or follow
        other messages of a unit that was not in use: the plain path decodes these one at a time."""
        births, kept = self._births, treatment.read[at]
        layouts, firsts, sessions = (column[kept] for column in said)
        at = at[kept]
        rows = part.numbers[at].astype(np.int32)
        if not len(at):
            return
        durable = births.durable(rows, history=history)
        same = (durable.layouts == layouts) & (durable.firsts == firsts)
        changed = ~same | (durable.sessions != sessions)
        odd = (durable.layouts != NONE) & ~same
        odd |= births.is_odd(rows, history=history)
        _, places, which = np.unique(part.numbers, return_index=True, return_inverse=True)
        odd |= changed & (places[which[at]] < at)
        _, which, counts = np.unique(rows, return_inverse=True, return_counts=True)
        odd |= counts[which] > 1
        treatment.reject(at[odd])
        kept = ~odd & changed
        rows, at = rows[kept], at[kept]
        now = BornRows(rows, layouts[kept].astype(np.int32), firsts[kept], sessions[kept], history)
        before = BornRows(rows, durable.layouts[kept], durable.firsts[kept], durable.sessions[kept], history)
        births.learn_rows(now)
        treatment.learned.append(Learned(at, now, before))

    def _gather(
        self,
        part: Part,
        at: Ints,
        groups: Sequence[Values],
        tables: tuple[Ints, Ints],
        treatment: Treatment,
        said_ms: Ints | None = None,
    ) -> None:
        """Collect readings of admitted units with their signals' names. `tables`: for each message, the
        layout and first alias of its unit's birth."""
        layouts, firsts = tables
        for group in groups:
            of = at[group.of]
            treatment.counts += (
                np.bincount(of, minlength=len(treatment.counts)).astype(np.int32) * treatment.held
            )
            mine = treatment.read[of]
            of, place = of[mine], group.of[mine]
            offsets = group.first[mine] - firsts[place]
            classes = self._units.classes[part.numbers[of]].astype(np.int64)
            good_offset = (offsets >= 0) & (offsets < _MOST_OFFSET) & (classes >= 0)
            keys = (classes << 52) + (layouts[place] << 20) + offsets
            for key in np.unique(keys[good_offset]).tolist():
                which = good_offset & (keys == key)
                signals = self._births.layouts.signals(key >> 20 & 0xFFFFFFFF, key & 0xFFFFF, group.metrics)
                if signals is None:
                    treatment.reject(of[which])
                    continue
                values, whole = _as_meant(group.values[mine][which], group.metrics, signals.datatypes)
                treatment.reject(of[which][~whole])
                bools = tuple([datatype == DataType.BOOLEAN for datatype in signals.datatypes])
                said = None if said_ms is None else said_ms[place[which]]
                ts_ms = group.ts_ms[mine][which]
                treatment.readings.append(
                    Readings(key >> 52, signals.names, of[which], ts_ms, values, bools, said)
                )
            treatment.reject(of[~good_offset])


@lru_cache(maxsize=10_000)
def _has_its_units(class_name: str, units: tuple[tuple[str, str], ...]) -> bool:
    remarks: list[Any] = []

    def remark(kind: Remark, detail: str) -> None:
        remarks.append((kind, detail))

    check_units(class_name, dict(units), remark)
    return not remarks


def _as_meant(values: Floats, metrics: Metrics, datatypes: Sequence[int]) -> tuple[Floats, _Mask]:
    """Convert integers by their datatypes; also returns which readings could be interpreted."""
    good = np.ones(len(values), dtype=bool)
    for column, (type_, datatype) in enumerate(zip(metrics.types, datatypes, strict=True)):
        if type_ not in (DataType.FLOAT, DataType.DOUBLE, DataType.BOOLEAN):
            values[:, column], fine = integers(values[:, column], datatype)
            good &= fine
    return values, good
