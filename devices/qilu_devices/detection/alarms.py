"""Alarms of a detector, from a file or a baseline."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import duckdb
from qilu_contract.errors import ConfigError

from qilu_devices.parquet import quoted

TOGETHER_MS = 600_000
"""Maximum gap between detections of a unit (and fault, if named) that form one alarm."""
MAX_DETECTIONS = 20_000_000  # memory: about 100 bytes each
FORMATS = (
    "a CSV or Parquet file with the columns unit and start (with end or without) or time, and fault if known"
)


@dataclass(frozen=True, slots=True)
class Alarm:
    """An alarm from `start_ms` to `end_ms`, both inclusive. `fault`: its name, if the detector gives one."""

    unit: str
    start_ms: int
    end_ms: int
    fault: str | None = None


def load_alarms(path: Path) -> list[Alarm]:
    """Load the detections in a file and merge them to alarms, ordered by unit and start. A time is a
    timestamp (UTC without a zone), or milliseconds since 1970. Raises ConfigError for an unusable file."""
    if not path.is_file():
        raise ConfigError(f"{path}: there is no such file: give {FORMATS}.")
    reader = "read_parquet" if path.suffix == ".parquet" else "read_csv"
    with duckdb.connect() as connection:
        try:
            columns = dict(
                row[:2]
                for row in connection.execute(f"DESCRIBE FROM {reader}({quoted(str(path))})").fetchall()
            )
            begin = next((name for name in ("start", "time") if name in columns), None)
            if "unit" not in columns or begin is None:
                raise ConfigError(f"{path} has the columns {', '.join(columns)}: give {FORMATS}.")
            end = "end" if "end" in columns and begin == "start" else begin
            fault = '"fault"::VARCHAR' if "fault" in columns else "NULL"
            query = (
                f"SELECT unit::VARCHAR, {_ms(begin, columns)}, {_ms(end, columns)}, {fault} "  # noqa: S608
                f"FROM {reader}({quoted(str(path))}) ORDER BY ALL LIMIT {MAX_DETECTIONS + 1}"
            )
            rows = connection.execute(query).fetchall()
        except duckdb.Error as error:
            raise ConfigError(
                f"{path} cannot be read: {str(error).splitlines()[0]}: give {FORMATS}."
            ) from error
    if len(rows) > MAX_DETECTIONS:
        raise ConfigError(
            f"{path} has more than {MAX_DETECTIONS:,} detections: give intervals with start and end."
        )
    for unit, start_ms, end_ms, _ in rows:
        if unit is None or start_ms is None:
            raise ConfigError(f"{path}: a detection has no unit or no time: give both for each.")
        if end_ms is not None and end_ms < start_ms:
            raise ConfigError(f"{path}: a detection of {unit} ends before it begins: give end after start.")
    return together(
        Alarm(unit, start_ms, start_ms if end_ms is None else end_ms, fault)
        for unit, start_ms, end_ms, fault in rows
    )


def _ms(name: str, columns: dict[str, str]) -> str:
    kind = columns[name]
    if kind in ("BIGINT", "INTEGER", "HUGEINT", "UBIGINT", "DOUBLE"):
        return f'"{name}"::BIGINT'
    if kind == "TIMESTAMP WITH TIME ZONE":
        return f'epoch_ms("{name}")'
    return f'epoch_ms("{name}"::TIMESTAMP)'


def together(detections: Iterable[Alarm]) -> list[Alarm]:
    """Merge detections, in any order, to alarms."""
    found: list[Alarm] = []
    last: dict[str | None, int] = {}  # by fault: place of its latest alarm of this unit
    unit = ""
    for one in sorted(detections, key=lambda each: (each.unit, each.start_ms)):
        if one.unit != unit:
            unit, last = one.unit, {}
        place = last.get(one.fault)
        if place is not None and one.start_ms <= found[place].end_ms + TOGETHER_MS:
            before = found[place]
            found[place] = Alarm(unit, before.start_ms, max(before.end_ms, one.end_ms), one.fault)
        else:
            last[one.fault] = len(found)
            found.append(one)
    return found
