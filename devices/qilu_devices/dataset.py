"""Writes the files of an export: readings by class and day, and the list of units."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import duckdb
import numpy as np
from numpy.typing import NDArray
from qilu_contract.catalogue.classes import CATALOGUE, EquipmentClass
from qilu_contract.catalogue.equipment import Signal
from qilu_contract.catalogue.places import COUNTIES
from qilu_contract.errors import ConfigError

from qilu_devices.calendar import DAY_MS, SHANGHAI_MS
from qilu_devices.fleet import Unit
from qilu_devices.parquet import quoted

PART_VALUES = 4_000_000
"""Maximum number of values per part, including those not sampled: 32 MB before compression."""

_SQL_TYPES = {"float": "DOUBLE", "int": "BIGINT", "bool": "BOOLEAN"}
_UNIT_COLUMNS = ("unit", "class", "enterprise", "county", "city", "industry")

Strings = NDArray[np.object_]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class Parts:
    """Buffers readings and writes them as part files; one file is written while the next one fills. A context
    manager; when it ends, everything is on disk. Raises ConfigError when a file cannot be written."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="parquet")
        self._writing: Future[None] | None = None
        self._connection = duckdb.connect()
        self._connection.execute("SET threads = 1")
        self._gathered: list[tuple[Ints, Ints, Floats]] = []
        self._size = 0
        self._equipment: EquipmentClass
        self._ids: Strings = np.array([], dtype=object)
        self._rank: Ints = np.array([], dtype=np.int64)
        self._units: list[tuple[Sequence[Unit], Mapping[str, Floats]]] = []
        self.files = self.readings = self.values = self.bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.flush()
                self._wait()
                self._save_units()
        finally:
            self._writer.shutdown()
            self._connection.close()

    def begin(self, units: Sequence[Unit], nameplate: Mapping[str, Floats]) -> None:
        """Begin with units of one class and their constant properties: the same properties for all units, NaN
        where a unit has none."""
        self.flush()
        self._equipment = CATALOGUE[units[0].class_name]
        self._ids = np.array([unit.id for unit in units], dtype=object)
        order = sorted(range(len(units)), key=self._ids.__getitem__)
        self._rank = np.empty(len(units), dtype=np.int64)
        self._rank[order] = np.arange(len(units))
        self._units.append((units, nameplate))

    def add(self, places: Ints, times: Ints, values: Floats) -> None:
        """Add readings of units, by index: one row of `values` per reading; NaN marks a signal that was not
        sampled."""
        if not len(places):
            return
        if self._gathered and _day(int(times[0])) > _day(int(self._gathered[0][1][0])):
            self.flush()  # only units sampled around midnight get separate files
        self._gathered.append((places, times, values))
        self._size += values.size
        if self._size >= PART_VALUES:
            self.flush()

    def flush(self) -> None:
        """Write the buffered readings."""
        if not self._gathered:
            return
        gathered, self._gathered, self._size = self._gathered, [], 0
        self._wait()
        self._writing = self._writer.submit(self._write, self._equipment, self._ids, self._rank, gathered)

    def _wait(self) -> None:
        if self._writing is not None:
            self._writing.result()
            self._writing = None

    def _write(
        self,
        equipment: EquipmentClass,
        known: Strings,
        rank: Ints,
        gathered: Sequence[tuple[Ints, Ints, Floats]],
    ) -> None:
        places = np.concatenate([part[0] for part in gathered])
        times = np.concatenate([part[1] for part in gathered])
        values = np.concatenate([part[2] for part in gathered])
        days = (times + SHANGHAI_MS) // DAY_MS
        # Sorted by unit: files are smaller, and one unit's readings are contiguous.
        order = np.lexsort((times, rank[places], days))
        edges = np.flatnonzero(np.diff(days[order])) + 1
        for which in np.split(order, edges):
            day = int(days[which[0]])
            self._write_part(equipment, day, known[places[which]], times[which], values[which])

    def _write_part(
        self, equipment: EquipmentClass, day: int, ids: Strings, times: Ints, values: Floats
    ) -> None:
        date = np.datetime64(day, "D")
        target = self._folder / f"class={equipment.name}" / f"date={date}" / f"part-{self.files:05d}.parquet"
        columns: dict[str, NDArray[Any]] = {"unit": ids, "ts": times.astype("datetime64[ms]")}
        columns |= {f"s{n}": np.ascontiguousarray(values[:, n]) for n in range(values.shape[1])}
        signals = ", ".join(_column(n, signal) for n, signal in enumerate(equipment.signals))
        self._copy(target, columns, f"SELECT unit::VARCHAR AS unit, ts, {signals} FROM given")  # noqa: S608
        self.files += 1
        self.readings += len(ids)
        self.values += int(np.count_nonzero(~np.isnan(values)))
        self.bytes += target.stat().st_size

    def _copy(self, target: Path, columns: Mapping[str, NDArray[Any]], query: str) -> None:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            self._connection.register("given", dict(columns))
            self._connection.execute(
                f"COPY ({query}) TO {quoted(str(target))} (FORMAT parquet, COMPRESSION zstd)"
            )
            self._connection.unregister("given")
        except (OSError, duckdb.IOException) as error:
            raise ConfigError(f"{target} cannot be written: {error}: give another --out folder.") from error

    def _save_units(self) -> None:
        units = [unit for some, _ in self._units for unit in some]
        texts = {
            "unit": [unit.id for unit in units],
            "class": [unit.class_name for unit in units],
            "enterprise": [unit.enterprise.id for unit in units],
            "county": [unit.enterprise.county for unit in units],
            "city": [COUNTIES[unit.enterprise.county].city for unit in units],
            "industry": [unit.enterprise.industry for unit in units],
        }
        columns: dict[str, NDArray[Any]] = {
            name: np.array(texts[name], dtype=object) for name in _UNIT_COLUMNS
        }
        names = list(self._units[0][1]) if self._units else []
        columns |= {name: np.concatenate([plate[name] for _, plate in self._units]) for name in names}
        chosen = [f'"{name}"::VARCHAR AS "{name}"' for name in _UNIT_COLUMNS]
        chosen += [f'CASE WHEN isnan("{name}") THEN NULL ELSE "{name}" END AS "{name}"' for name in names]
        query = f"SELECT {', '.join(chosen)} FROM given ORDER BY unit"  # noqa: S608
        self._copy(self._folder / "units.parquet", columns, query)


def _day(ts_ms: int) -> int:
    return (ts_ms + SHANGHAI_MS) // DAY_MS


def _column(n: int, signal: Signal) -> str:
    # NaN becomes NULL: the signal was not sampled.
    if signal.type == "float":
        return f'CASE WHEN isnan(s{n}) THEN NULL ELSE s{n} END AS "{signal.name}"'
    return f'TRY_CAST(s{n} AS BIGINT)::{_SQL_TYPES[signal.type]} AS "{signal.name}"'
