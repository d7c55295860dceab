"""Scores alarms against the ground truth of `faults.parquet`, by event, not by sample.

An alarm is judged by the moment at which it begins. Of each fault, from `visible` to its end is what can be
found:

- the first alarm of its unit that begins in [visible − tolerance, end) finds it, and its delay is the time
  from visible to the alarm (0 before it). More alarms of a fault that is found already count neither way;
- an alarm that begins while a fault of its unit is under way, but not so that it could be found (before it is
  visible, or within the tolerance after its end), counts neither way. So do those of faults that did not
  become visible before the run's end, which cannot be missed either;
- every other alarm is false. One that lasts for days is one alarm, and finds nothing that begins under it.

Where faults of a unit overlap, an alarm finds the one that became visible last of those that are not found
yet.

precision = found/(found + false alarms), recall = found/faults, F1 their harmonic mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean, median

import duckdb
from qilu_contract.errors import ConfigError

from qilu_devices.calendar import DAY_MS
from qilu_devices.detection.alarms import Alarm
from qilu_devices.parquet import quoted

TOLERANCE_MS = 600_000


@dataclass(frozen=True, slots=True)
class TrueFault:
    """A fault of the ground truth. `visible_ms`: None if it did not become visible."""

    unit: str
    class_name: str
    fault: str
    start_ms: int
    end_ms: int
    visible_ms: int | None


@dataclass(frozen=True, slots=True)
class Truth:
    """The ground truth: the faults of a number of units, from `start_ms` through `until_ms`."""

    faults: tuple[TrueFault, ...]
    units: int
    start_ms: int
    until_ms: int

    def after(self, ms: int) -> Truth:
        """The truth from a time on, without faults that could be found earlier."""
        kept = tuple(
            each if each.visible_ms is None or each.visible_ms >= ms
            # Already in progress: it counts neither as missed nor as a false alarm.
            else TrueFault(each.unit, each.class_name, each.fault, each.start_ms, each.end_ms, None)
            for each in self.faults
            if each.end_ms > ms
        )  # fmt: skip
        return Truth(kept, self.units, ms, self.until_ms)


@dataclass(slots=True)
class Score:
    """Scores of a detector. Delays are in seconds, None if no fault was found. `by_fault`: class/fault →
    [found, total]. `named_right`: share of the found faults that the detector named correctly, None if it
    named none."""

    faults: int = 0
    found: int = 0
    false_alarms: int = 0
    alarms: int = 0
    precision: float = 0.0
    recall: float = 0.0
    f1: float = 0.0
    delay_median_s: float | None = None
    delay_mean_s: float | None = None
    false_alarms_per_unit_day: float = 0.0
    named_right: float | None = None
    by_fault: dict[str, list[int]] = field(default_factory=dict)

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def load_truth(path: Path) -> Truth:
    """Load the ground truth in `faults.parquet`. Raises ConfigError for any other file."""
    if not path.is_file():
        raise ConfigError(
            f"--truth {path}: there is no such file: give the faults.parquet of an export or a run."
        )
    file = quoted(str(path))
    try:
        with duckdb.connect() as connection:
            rows = connection.execute(
                'SELECT unit, class, fault, epoch_ms("start"), epoch_ms("end"), visible_ms '  # noqa: S608
                f"FROM read_parquet({file}) ORDER BY ALL"
            ).fetchall()
            pairs = connection.execute(f"SELECT key, value FROM parquet_kv_metadata({file})").fetchall()  # noqa: S608
        about = {key.decode(): value.decode() for key, value in pairs}
        units, start_ms, until_ms = (int(about[name]) for name in ("units", "start_ms", "until_ms"))
    except (duckdb.Error, KeyError, ValueError) as error:
        raise ConfigError(
            f"--truth {path} is not the truth of a run: give the faults.parquet of `qilu devices export`."
        ) from error
    return Truth(tuple(TrueFault(*row) for row in rows), units, start_ms, until_ms)


def score(alarms: Iterable[Alarm], truth: Truth, tolerance_ms: int = TOLERANCE_MS) -> Score:
    """Score alarms, in any order. Alarms that begin outside the truth's period are ignored."""
    of_unit: dict[str, list[TrueFault]] = {}
    for fault in truth.faults:
        of_unit.setdefault(fault.unit, []).append(fault)
    result, delays = Score(), list[float]()
    finders: dict[TrueFault, Alarm] = {}
    for alarm in sorted(alarms, key=lambda each: (each.unit, each.start_ms)):
        at = alarm.start_ms
        if not truth.start_ms <= at <= truth.until_ms:
            continue
        result.alarms += 1
        mine = of_unit.get(alarm.unit, ())
        hits = [
            fault
            for fault in mine
            if fault.visible_ms is not None and fault.visible_ms - tolerance_ms <= at < fault.end_ms
        ]
        open_ = [fault for fault in hits if fault not in finders]
        if open_:
            fault = max(open_, key=lambda each: each.visible_ms or 0)
            finders[fault] = alarm
            delays.append(max(at - (fault.visible_ms or 0), 0) / 1000.0)
        elif not hits and not any(each.start_ms <= at <= each.end_ms + tolerance_ms for each in mine):
            result.false_alarms += 1
    _sum_up(result, truth, finders, delays)
    return result


def _sum_up(result: Score, truth: Truth, finders: dict[TrueFault, Alarm], delays: Sequence[float]) -> None:
    there = [fault for fault in truth.faults if fault.visible_ms is not None]
    result.faults, result.found = len(there), len(finders)
    for fault in there:
        counts = result.by_fault.setdefault(f"{fault.class_name}/{fault.fault}", [0, 0])
        counts[0] += fault in finders
        counts[1] += 1
    told = result.found + result.false_alarms
    result.precision = result.found / told if told else 0.0
    result.recall = result.found / result.faults if result.faults else 0.0
    both = result.precision + result.recall
    result.f1 = 2.0 * result.precision * result.recall / both if both else 0.0
    if delays:
        result.delay_median_s, result.delay_mean_s = median(delays), mean(delays)
    unit_days = truth.units * max(truth.until_ms - truth.start_ms, 1) / DAY_MS
    result.false_alarms_per_unit_day = result.false_alarms / unit_days
    named = [alarm.fault == fault.fault for fault, alarm in finders.items() if alarm.fault is not None]
    result.named_right = sum(named) / len(named) if named else None
