"""Faults: each shows the signature of the catalogue, touches no other unit, and goes with its repair; their
times are a pure function of seed, unit and time."""

from functools import cache
from pathlib import Path

import duckdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.errors import ConfigError
from qilu_devices import faults
from qilu_devices.classes import KERNELS
from qilu_devices.digests import combined_digest, unit_digests
from qilu_devices.faults import FaultPlan, Order, Schedule, ground_truth
from qilu_devices.fleet import Shard
from qilu_devices.kernel import SOUND, Severities, severities
from qilu_devices.noise import Streams, keys_of
from qilu_devices.scenario import load_scenario, parse_scenario
from qilu_devices.simulation import fleet_of, samples
from qilu_devices.twins import STEP_S

UNITS = 40
MONDAY_10_H = 1_509_328_800_000  # 30 October 2017, 10:00 in Shandong
JANUARY_10_H = 1_516_586_400_000
HOUR_MS = 3_600_000
ONSET, REPAIR, END = 20, 80, 320  # steps
END_OF_REACTORS = 600  # their loops swing for a day
LONG_STEP_S = {"loom": 60}  # stops of a loom are rare: an hour of a fault, not ten minutes
AFFECTED = slice(0, UNITS // 2)
COUNTERS = ("energy_kWh", "co2_kg", "picks", "parts")
Series = dict[str, NDArray[np.float64]]

ALL = [(name, fault.name) for name, equipment in CATALOGUE.items() for fault in equipment.faults]


def streams(prefix: str, share: int = 1) -> Streams:
    return Streams(keys_of(11, [f"{prefix}{i // share}" for i in range(UNITS)]))


@cache
def observed(name: str, fault: str | None, peak: float = 1.0, end: int = END) -> Series:
    """All steps of some units; with a fault, the first half of them have it from ONSET until REPAIR."""
    interval_s = LONG_STEP_S.get(name, STEP_S[name])
    if name == "reactor" and end == END:
        end = END_OF_REACTORS
    begin_ms = JANUARY_10_H if name == "wind_turbine" else MONDAY_10_H
    kernel = KERNELS[name](streams("unit"), streams("enterprise", 10), float(interval_s))
    severity = np.zeros(UNITS)
    severity[AFFECTED] = peak
    produced = []
    for k in range(end):
        now: Severities = SOUND
        if fault is not None and ONSET <= k < REPAIR:
            now = severities({fault: severity})
        times = np.full(UNITS, begin_ms + k * interval_s * 1000, dtype=np.int64)
        produced.append(kernel.step(k, times, now))
    return {signal: np.array([step[signal] for step in produced]) for signal in produced[0]}


@pytest.mark.parametrize(("name", "fault"), ALL)
def test_a_fault_shows_its_signature(name: str, fault: str) -> None:
    sound, faulty = observed(name, None), observed(name, fault)
    during = slice(ONSET, REPAIR)
    for sign in CATALOGUE[name].fault(fault).shows:
        signal, entry = sign.signal, f"{sign.signal}{sign.direction}"
        without, with_ = sound[signal][during, AFFECTED], faulty[signal][during, AFFECTED]
        change = float(np.mean(with_ - without))
        step = CATALOGUE[name].signal(signal).resolution
        match sign.direction:
            case "+":
                assert change > 0.5 * step, entry
            case "-":
                assert change < -0.5 * step, entry
            case "~":
                assert with_.std(axis=0).mean() > 1.1 * without.std(axis=0).mean(), entry
            case "^":
                assert with_.max() < without.max() - step, entry
            case _:
                assert (with_ == without).all(), entry


@pytest.mark.parametrize(("name", "fault"), ALL)
def test_a_fault_shows_more_the_further_it_has_developed(name: str, fault: str) -> None:
    sound, half, whole = observed(name, None), observed(name, fault, 0.5, REPAIR), observed(name, fault)
    during = slice(ONSET, REPAIR)
    for sign in CATALOGUE[name].fault(fault).shows:
        if sign.direction not in "+-":
            continue
        without, some, much = (series[sign.signal][during, AFFECTED] for series in (sound, half, whole))
        early, late = float(np.mean(some - without)), float(np.mean(much - without))
        assert 0.0 <= early / late < 0.9, sign


@pytest.mark.parametrize(("fault", "signal"), [("idv4", "reactor_temp"), ("idv5", "separator_temp")])
def test_what_controllers_take_back_jumps_and_returns_while_the_fault_lasts(fault: str, signal: str) -> None:
    sound, faulty = observed("reactor", None), observed("reactor", fault)
    change = (faulty[signal] - sound[signal])[ONSET:REPAIR, AFFECTED].mean(axis=1)
    assert int(np.argmax(change)) < 40  # within the first two hours
    assert change[-1] < 0.35 * change.max()


@pytest.mark.parametrize(("name", "fault"), ALL)
def test_a_fault_touches_no_other_unit_and_nothing_before_its_onset(name: str, fault: str) -> None:
    sound, faulty = observed(name, None), observed(name, fault)
    for signal, values in sound.items():
        assert (faulty[signal][:, UNITS // 2 :] == values[:, UNITS // 2 :]).all(), signal
        assert (faulty[signal][:ONSET] == values[:ONSET]).all(), signal


@pytest.mark.parametrize(("name", "fault"), ALL)
def test_a_fault_vanishes_after_the_repair(name: str, fault: str) -> None:
    sound, faulty = observed(name, None), observed(name, fault)
    if name == "loom":  # a repair keeps no loom from stopping later than the one that never broke
        assert np.mean(faulty["speed"][-60:] == sound["speed"][-60:]) > 0.8
        return
    for sign in CATALOGUE[name].fault(fault).shows:
        signal, entry = sign.signal, f"{sign.signal}{sign.direction}"
        if signal in COUNTERS:
            continue
        difference = (faulty[signal] - sound[signal])[:, AFFECTED]
        if name == "compressor":  # it loads and unloads at other times than the one that was never ill
            mean = np.abs(difference[-120:].mean(axis=0)).mean()
            assert mean <= 0.15 * np.abs(difference[ONSET:REPAIR]).max(), entry
            continue
        difference = np.abs(difference)
        worst = difference[ONSET:REPAIR].max()
        assert difference[-5:].max() <= 0.1 * worst, entry


@pytest.mark.parametrize(("name", "fault"), ALL)
def test_no_signal_leaves_its_bounds_much_while_it_lasts(name: str, fault: str) -> None:
    for signal in CATALOGUE[name].signals:
        values = observed(name, fault)[signal.name]
        assert np.isfinite(values).all()
        if fault != "slip":  # it lasts minutes, not the hours of this test
            assert np.mean((values < signal.low) | (values > signal.high)) < 0.03, signal.name


def test_a_slip_is_seen_above_at_once_and_in_the_metal_later() -> None:
    sound, faulty = observed("blast_furnace", None), observed("blast_furnace", "slip")
    top = np.abs(faulty["top_gas_temp"] - sound["top_gas_temp"])[:, AFFECTED].mean(axis=1)
    metal = np.abs(faulty["hot_metal_temp"] - sound["hot_metal_temp"])[:, AFFECTED].mean(axis=1)
    assert top[ONSET] == pytest.approx(top[ONSET:REPAIR].max())
    assert metal[ONSET] < 0.1 * metal.max()
    assert metal[REPAIR + 5] > 0.5 * metal.max() > 0.0  # and it stays cold when the slip is over
    assert metal[-1] < 0.1 * metal.max()


def test_overload_warms_a_motor_first_order_and_halves_insulation_life_every_10_k() -> None:
    sound, faulty = observed("motor", None), observed("motor", "overload")
    rise = (faulty["winding_temp"] - sound["winding_temp"])[ONSET:REPAIR, AFFECTED]
    always = (sound["speed"] > 0.0).all(axis=0)[AFFECTED]
    assert (np.diff(rise[:, always].mean(axis=1)) > -0.05).all()
    hotter = rise[-1, always]
    ratio = (faulty["ageing_rate"] / sound["ageing_rate"])[REPAIR - 1, AFFECTED][always]
    assert ratio == pytest.approx(2.0 ** (hotter / 10.0))


def test_limits_are_passed_when_cleaning_fails() -> None:
    after = slice(ONSET, REPAIR)
    sound = observed("boiler", None)
    for fault, signal, limit in (
        ("denitration_failure", "NOx", 100.0),
        ("desulphurisation_failure", "SO2", 50.0),
    ):
        # Of what burns coal and is lit: gas holds little of either.
        coal = sound[signal][after, AFFECTED] > 0.5 * limit * (1.0 if signal == "NOx" else 0.7)
        assert coal.any()
        faulty = observed("boiler", fault)[signal][after, AFFECTED][coal]
        assert faulty.mean() > limit
        assert (faulty > 1.8 * sound[signal][after, AFFECTED][coal]).all()
    running = observed("wind_turbine", None)["rotor_speed"][after, AFFECTED] > 0.0
    assert observed("wind_turbine", "pitch_drive")["drive_current"][after, AFFECTED][running].mean() > 6.0
    assert observed("pump", "cavitation")["casing_accel"][after, AFFECTED].mean() == pytest.approx(
        1.15, abs=0.35
    )
    assert (observed("pasteuriser", "pump_overspeed")["hold_time"][after, AFFECTED].mean(axis=0) < 15.0).all()


# --- when


def schedule(ids: list[str], plan: FaultPlan, seed: int = 5, start_ms: int = MONDAY_10_H) -> Schedule:
    return Schedule(CATALOGUE["motor"], ids, Streams(keys_of(seed, ids)), start_ms, plan)


def test_faults_come_as_often_as_the_hazard_rate_says() -> None:
    ids = [f"370202-motor-{n:07d}" for n in range(2000)]
    year_ms = 365 * 24 * HOUR_MS
    found = list(schedule(ids, FaultPlan(rate=1.0)).occurrences(MONDAY_10_H, MONDAY_10_H + year_ms))
    for fault in CATALOGUE["motor"].faults:
        wanted = len(ids) * 8760.0 / fault.mean_hours_between
        count = sum(case.fault == fault.name for case in found)
        assert count == pytest.approx(wanted, rel=0.25, abs=4.0 * wanted**0.5), fault.name
    assert not list(schedule(ids, FaultPlan()).occurrences(MONDAY_10_H, MONDAY_10_H + year_ms))


def test_blades_ice_up_in_winter_only() -> None:
    ids = [f"370602-wind-turbine-{n:07d}" for n in range(200)]
    planned = Schedule(CATALOGUE["wind_turbine"], ids, Streams(keys_of(5, ids)), MONDAY_10_H, FaultPlan(1.0))
    year_ms = 365 * 24 * HOUR_MS
    found = planned.occurrences(MONDAY_10_H, MONDAY_10_H + year_ms)
    begun = [case.start_ms for case in found if case.fault == "blade_icing"]
    months = np.array(begun, dtype="datetime64[ms]").astype("datetime64[M]").astype(int) % 12
    assert len(begun) > 50
    assert set(months.tolist()) <= {0, 1, 2, 10, 11}


def test_a_schedule_is_of_seed_unit_and_time_alone() -> None:
    ids = [f"370202-motor-{n:07d}" for n in range(500)]
    until_ms = MONDAY_10_H + 200 * 24 * HOUR_MS
    plan = FaultPlan(rate=20.0)
    many = list(schedule(ids, plan).occurrences(MONDAY_10_H, until_ms))
    few = list(schedule(ids[::-50], plan).occurrences(MONDAY_10_H, until_ms))
    assert len(few) > 10
    key = repr
    assert sorted(few, key=key) == sorted((case for case in many if case.unit in ids[::-50]), key=key)
    later_ms = MONDAY_10_H + 100 * 24 * HOUR_MS
    later = list(schedule(ids, plan, start_ms=later_ms).occurrences(later_ms, until_ms))
    assert sorted(later, key=key) == sorted((case for case in many if case.end_ms > later_ms), key=key)
    other = list(schedule(ids, plan, seed=6).occurrences(MONDAY_10_H, until_ms))
    assert other != many


@settings(max_examples=30)
@given(st.integers(0, 365 * 24 * 60))
def test_what_kernels_are_told_is_the_ground_truth(minute: int) -> None:
    ids = [f"370202-motor-{n:07d}" for n in range(50)]
    plan = FaultPlan(200.0, (Order(ids[3], "overload", 0, False, 2 * HOUR_MS, 0.4),))
    planned = schedule(ids, plan)
    t_ms = MONDAY_10_H + minute * 60_000
    told = planned.at(np.arange(50, dtype=np.int64) * 1000 + t_ms)
    truth: dict[tuple[str, int], float] = {}
    for case in planned.occurrences(t_ms, t_ms + 50_000):
        place = ids.index(case.unit)
        severity = case.severity_at(t_ms + place * 1000)
        truth[case.fault, place] = max(severity, truth.get((case.fault, place), 0.0))
    for fault in CATALOGUE["motor"].faults:
        values = np.broadcast_to(told[fault.name], 50)
        assert values == pytest.approx([truth.get((fault.name, place), 0.0) for place in range(50)])


SCENARIO = """\
name: plant
units: 40
seed: 3
classes:
  motor: 1
cities:
  370200: 1
"""


def one_unit() -> str:
    return fleet_of(parse_scenario(SCENARIO, "x"))[7].id


def ordered(text: str) -> str:
    return f"{SCENARIO}fault:\n  - {text}\n"


def test_an_ordered_fault_is_in_the_samples_of_its_unit_alone_while_it_lasts() -> None:
    unit = one_unit()
    text = ordered(f"{{unit: {unit}, fault: bearing, start: 2m, duration: 10m, severity: 0.8}}")
    with_, without = parse_scenario(text, "x"), parse_scenario(SCENARIO, "x")
    until_ms = MONDAY_10_H + 20 * 60_000
    sick = samples(with_, 3, MONDAY_10_H, 40, None, until_ms)
    sound = samples(without, 3, MONDAY_10_H, 40, None, until_ms)
    assert {id_ for id_ in sick if sick[id_] != sound[id_]} == {unit}
    for (ts_ms, values), (_, usual) in zip(sick[unit], sound[unit], strict=True):
        minute = (ts_ms - MONDAY_10_H) / 60_000
        if "envelope" in values and values["speed"] > 0:
            assert (values["envelope"] > usual["envelope"]) == (2.0 < minute < 12.0)


def test_samples_with_faults_are_equal_for_any_number_of_shards() -> None:
    text = load_scenario().text.replace("rate: 1\n", "rate: 500\n")
    scenario = parse_scenario(text, "x")
    until_ms = MONDAY_10_H + 60_000
    whole = combined_digest(unit_digests(scenario, scenario.seed, MONDAY_10_H, 150, until_ms))
    for count in (2, 7):
        parts: dict[str, bytes] = {}
        for index in range(count, 0, -1):
            shard = Shard(index, count)
            parts |= unit_digests(scenario, scenario.seed, MONDAY_10_H, 150, until_ms, shard)
        assert combined_digest(parts) == whole
    assert whole != combined_digest(unit_digests(load_scenario(), scenario.seed, MONDAY_10_H, 150, until_ms))


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        ("fault: bearing", "fault: bering", 9, "class motor has no fault 'bering': use one of bearing"),
        ("fault: bearing", "fault: cavitation", 9, "class motor has no fault 'cavitation'"),
        ("start: 2m", "start: soon", 9, "'start' must be a duration like 90s"),
        ("start: 2m", "start: 2022-01-01T00:00:00", 9, "with its zone"),
        ("duration: 10m", "duration: 0s", 9, "more than 0"),
        ("duration: 10m", "duration: 10 minutes", 9, "'duration' must be a duration like 90s, 10m, 2h or 3d"),
        ("duration: 10m", "duration: 10w", 9, "not '10w'"),
        ("duration: 10m", "duration: -10m", 9, "not '-10m'"),
        ("severity: 0.8", "severity: 1.1", 9, "'severity' must be a number from 0 to 1, not '1.1'"),
        ("severity: 0.8", "severity: .nan", 9, "from 0 to 1"),
        ("severity: 0.8", "how: 0.8", 9, "a fault has no 'how'"),
        ("duration: 10m, ", "", 9, "a fault needs 'duration'"),
        ("-motor-", "-moter-", 9, "is no unit of a fleet"),
        ("  - {", "  {", 9, "'fault' must be a list"),
    ],
)
def test_a_mistaken_order_is_told_with_its_line(old: str, new: str, line: int, says: str) -> None:
    good = ordered(f"{{unit: {one_unit()}, fault: bearing, start: 2m, duration: 10m, severity: 0.8}}")
    assert parse_scenario(good, "x").faults.orders[0].duration_ms == 600_000
    assert old in good
    with pytest.raises(ConfigError) as caught:
        parse_scenario(good.replace(old, new), "plant.yaml")
    assert str(caught.value).startswith(f"plant.yaml, line {line}: ")
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("faults: 1\n", "must be lines of 'key: value'"),
        ("faults: {}\n", "'faults' needs 'rate'"),
        ("faults: {rate: -1}\n", "'rate' must be a number from 0 to 1000"),
        ("faults: {rat: 1}\n", "'faults' has no 'rat'"),
    ],
)
def test_a_mistaken_rate_is_told(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse_scenario(SCENARIO + text, "plant.yaml")
    assert parse_scenario(SCENARIO + "faults: {rate: 0.5}\n", "x").faults == FaultPlan(rate=0.5)
    assert parse_scenario(SCENARIO, "x").faults == FaultPlan()


def test_an_order_for_a_unit_that_is_not_there_is_told() -> None:
    text = ordered("{unit: 370202-motor-9999999, fault: bearing, start: 2m, duration: 10m}")
    with pytest.raises(ConfigError, match="370202-motor-9999999, which this fleet does not have"):
        fleet_of(parse_scenario(text, "x"))


def test_the_ground_truth_is_a_parquet_file(tmp_path: Path) -> None:
    ids = {f"370202-motor-{n:07d}": "motor" for n in range(20)} | {"370202-pump-0000001": "pump"}
    plan = FaultPlan(500.0, (Order("370202-pump-0000001", "cavitation", 60_000, False, 600_000, 0.5),))
    until_ms = MONDAY_10_H + HOUR_MS
    truth = ground_truth(ids, 5, MONDAY_10_H, until_ms, plan)
    assert truth == sorted(truth, key=lambda case: (case.start_ms, case.unit, case.fault))
    file = faults.save(truth, tmp_path / "state")
    assert [path.name for path in file.parent.iterdir()] == ["faults.parquet"]
    rows = duckdb.sql(
        f'SELECT unit, class, fault, epoch_ms(start), epoch_ms("end"), severity, severity_over_time '
        f"FROM '{file}'"
    ).fetchall()
    assert [row[:6] for row in rows] == [
        (case.unit, case.class_name, case.fault, case.start_ms, case.end_ms, case.severity) for case in truth
    ]
    [cavitation] = [row for row in rows if row[2] == "cavitation" and row[5] == 0.5]
    assert cavitation[3:5] == (MONDAY_10_H + 60_000, MONDAY_10_H + 660_000)
    assert [point["severity"] for point in cavitation[6]] == [0.0, 0.5, 0.5, 0.0]
    assert faults.save([], tmp_path).exists()
    with pytest.raises(ConfigError, match="cannot be written"):
        faults.save(truth, file)


def test_truth_is_never_in_telemetry() -> None:
    for equipment in CATALOGUE.values():
        names = {signal.name for signal in equipment.signals}
        assert not names & {"severity", "fault", *(fault.name for fault in equipment.faults)}
