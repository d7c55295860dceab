"""Scores by hand: which alarm finds which fault, and which are false."""

import json
import shlex
import sys
from pathlib import Path

import duckdb
import numpy as np
import pytest
from qilu.cli import main
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.errors import ConfigError
from qilu_devices.detection.alarms import Alarm, load_alarms, together
from qilu_devices.detection.baselines import alarms_of
from qilu_devices.detection.scoring import TrueFault, Truth, load_truth, score
from qilu_devices.faults import Occurrence, save

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
START = 1_654_041_600_000
UNTIL = START + 2 * DAY


def fault(
    unit: str, start_h: float, visible_h: float | None, end_h: float, name: str = "bearing"
) -> TrueFault:
    at = [None if h is None else START + round(h * HOUR) for h in (start_h, end_h, visible_h)]
    return TrueFault(unit, "motor", name, at[0] or 0, at[1] or 0, at[2])


def truth(*faults: TrueFault, units: int = 4) -> Truth:
    return Truth(faults, units, START, UNTIL)


def alarm(unit: str, at_h: float, for_h: float = 0.0, name: str | None = None) -> Alarm:
    return Alarm(unit, START + round(at_h * HOUR), START + round((at_h + for_h) * HOUR), name)


def test_a_fault_is_found_by_the_first_alarm_and_by_no_more_than_one() -> None:
    found = score(
        [alarm("a", 12), alarm("a", 14), alarm("a", 30)], truth(fault("a", 8, 10, 20), fault("b", 1, 2, 3))
    )
    assert (found.found, found.faults, found.false_alarms, found.alarms) == (1, 2, 1, 3)
    assert (found.precision, found.recall, found.f1) == (0.5, 0.5, 0.5)
    assert found.delay_median_s == found.delay_mean_s == 2 * 3600.0
    assert found.false_alarms_per_unit_day == 1 / (4 * 2)
    assert found.by_fault == {"motor/bearing": [1, 2]}
    assert found.named_right is None


@pytest.mark.parametrize(
    ("at_h", "found", "false"),
    [
        (7.9, 0, 1),  # before the fault began
        (9.0, 0, 0),  # under way, and not to be seen yet
        (9.9, 1, 0),  # within the tolerance
        (19.9, 1, 0),
        (20.1, 0, 0),  # just over
        (20.2, 0, 1),
    ],
)
def test_when_an_alarm_counts(at_h: float, found: int, false: int) -> None:
    scored = score([alarm("a", at_h)], truth(fault("a", 8, 10, 20)))
    assert (scored.found, scored.false_alarms) == (found, false)


def test_an_alarm_that_was_on_before_finds_nothing() -> None:
    always = [alarm(unit, 0, 48) for unit in "abcd"]
    scored = score(always, truth(fault("a", 8, 10, 20)))
    assert (scored.found, scored.false_alarms, scored.f1) == (0, 4, 0.0)


def test_what_never_became_visible_is_neither_missed_nor_a_false_alarm() -> None:
    scored = score([alarm("a", 9)], truth(fault("a", 8, None, 20)))
    assert (scored.faults, scored.found, scored.false_alarms, scored.f1) == (0, 0, 0, 0.0)


def test_faults_at_once_are_found_one_by_one_and_named() -> None:
    both = truth(fault("a", 8, 9, 20), fault("a", 10, 11, 20, "overload"))
    scored = score([alarm("a", 12, name="overload"), alarm("a", 13, name="unbalance")], both)
    assert (scored.found, scored.f1, scored.named_right) == (2, 1.0, 0.5)
    assert scored.delay_mean_s == (1 + 4) / 2 * 3600.0


def test_detections_close_together_are_one_alarm() -> None:
    samples = [alarm("a", 1 + n / 60) for n in range(30)] + [alarm("a", 2), alarm("b", 1), alarm("b", 1.1, 3)]
    assert together(samples) == [alarm("a", 1, 29 / 60), alarm("a", 2), alarm("b", 1, 3.1)]


def test_the_perfect_detector_has_a_perfect_score_and_no_alarms_have_none() -> None:
    faults = [fault(unit, h, h + 1, h + 5) for unit in "abcd" for h in (1, 10, 20)]
    perfect = score([Alarm(each.unit, each.visible_ms or 0, each.end_ms) for each in faults], truth(*faults))
    assert (perfect.precision, perfect.recall, perfect.f1, perfect.delay_median_s) == (1.0, 1.0, 1.0, 0.0)
    nothing = score([], truth(*faults))
    assert (nothing.precision, nothing.recall, nothing.f1, nothing.delay_median_s) == (0.0, 0.0, 0.0, None)


def test_detections_are_read_from_csv_and_parquet_with_times_of_any_kind(tmp_path: Path) -> None:
    expected = [Alarm("a", START, START + MINUTE, "bearing"), Alarm("b", START, START)]
    texts = {
        "ms.csv": f"unit,start,end,fault\na,{START},{START + MINUTE},bearing\nb,{START},{START},\n",
        "utc.csv": "unit,start,end,fault\na,2022-06-01T00:00:00,2022-06-01T00:01:00,bearing\n"
        "b,2022-06-01,,\n",
        "zone.csv": "unit,start,end,fault\na,2022-06-01T08:00:00+08:00,2022-06-01T08:01:00+08:00,bearing\n"
        "b,2022-06-01T08:00:00+08:00,2022-06-01T08:00:00+08:00,\n",
    }  # fmt: skip
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
        assert load_alarms(tmp_path / name) == expected, name
    duckdb.sql(f"COPY (FROM '{tmp_path}/utc.csv') TO '{tmp_path}/utc.parquet'")
    assert load_alarms(tmp_path / "utc.parquet") == expected
    (tmp_path / "time.csv").write_text(f"unit,time\na,{START}\na,{START + MINUTE}\n")
    assert load_alarms(tmp_path / "time.csv") == [Alarm("a", START, START + MINUTE)]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("unit,when\na,1\n", "the columns unit, when"),
        ("unit,time\na,yesterday\n", "cannot be read"),
        ("unit,time\n,1654041600000\n", "no unit or no time"),
        ("unit,start,end\na,1654041600000,1654041500000\n", "ends before it begins"),
    ],
)
def test_detections_that_cannot_be_used_are_one_sentence(tmp_path: Path, text: str, word: str) -> None:
    file = tmp_path / "bad.csv"
    file.write_text(text)
    with pytest.raises(ConfigError, match=word) as told:
        load_alarms(file)
    assert "\n" not in str(told.value)


def test_the_truth_of_a_run_is_read_back_and_nothing_else_is_taken_for_one(tmp_path: Path) -> None:
    cases = [Occurrence("a", "motor", "bearing", START, START + HOUR, START + DAY, 0.5, START + 2 * HOUR)]
    cases.append(Occurrence("b", "motor", "overload", START, START + HOUR, UNTIL + DAY, 0.1))
    file = save(cases, tmp_path, {"units": 3, "start_ms": START, "until_ms": UNTIL})
    found = load_truth(file)
    assert found == Truth(
        (fault("a", 0, 2, 24), TrueFault("b", "motor", "overload", START, UNTIL + DAY, None)), 3, START, UNTIL
    )
    # A fault that could be found earlier counts no more, and its alarm is not false either.
    assert [each.visible_ms for each in found.after(START + 3 * HOUR).faults] == [None, None]
    assert score([alarm("a", 4)], found.after(START + 3 * HOUR)).false_alarms == 0
    duckdb.sql(f"COPY (SELECT 1 AS unit) TO '{tmp_path}/other.parquet'")
    for wrong in ("other.parquet", "missing.parquet"):
        with pytest.raises(ConfigError, match="--truth"):
            load_truth(tmp_path / wrong)


@pytest.mark.parametrize("baseline", ["threshold", "ewma"])
def test_a_baseline_finds_a_step_and_nothing_before_it(baseline: str) -> None:
    motor = CATALOGUE["motor"]
    times = START + 10_000 * np.arange(20_000, dtype=np.int64)
    chance = np.random.default_rng(1)
    values = 100.0 + chance.normal(size=(len(times), len(motor.signals)))
    values[15_000:17_000, 3] += 40.0
    values[chance.random(values.shape) < 0.3] = np.nan
    found = alarms_of(motor, "a", times, list(values.T), int(times[5_000]))[baseline]
    largest = found[max(found)]
    assert [each.unit for each in largest] == ["a"]
    assert times[15_000] <= largest[0].start_ms < times[15_200]
    assert sum(map(len, found.values())) >= len(largest)
    assert all(each.start_ms >= times[5_000] for alarms in found.values() for each in alarms)
    silent = np.full((len(times), len(motor.signals)), np.nan)
    assert not any(alarms_of(motor, "a", times, list(silent.T), int(times[5_000]))[baseline].values())


def test_the_command_scores_an_export_and_its_baselines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    def qilu(line: str) -> str:
        monkeypatch.setattr(sys, "argv", ["qilu", *shlex.split(line)])
        with pytest.raises(SystemExit) as ended:
            main()
        said, wrong = capsys.readouterr()
        assert ended.value.code == 0, wrong
        return said

    classes = "--class motor --class reactor"
    out = f"devices export --scenario detection-easy --units 40 {classes} --for 3h --out data"
    made = json.loads(qilu(f"{out} --json"))
    assert made["values_per_s"] > 0
    assert "values/s" in qilu(out.replace("data", "again"))
    Path("alarms.csv").write_text("unit,time\nnobody,2022-05-15T18:00:00\n")
    scored = json.loads(qilu("score alarms.csv --truth data/faults.parquet --baseline data --json"))
    assert set(scored["scores"]) == {"detections", "random", "threshold", "ewma"}
    assert scored["units"] == made["units"]
    assert scored["from_ms"] == made["start_ms"] + 3 * HOUR // 4
    assert {each["faults"] for each in scored["scores"].values()} == {scored["scores"]["random"]["faults"]}
    assert scored["scores"]["detections"]["false_alarms"] == 1
    assert "random" in qilu("score --truth data/faults.parquet --baseline data")
    assert "detections" in qilu("score alarms.csv --truth data/faults.parquet")
