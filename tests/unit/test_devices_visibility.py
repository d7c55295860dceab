"""When a fault becomes visible: every kind does at full severity, and not before the data differ."""

from dataclasses import replace

import numpy as np
import pytest
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.catalogue.places import CITIES
from qilu_devices.commands import ScheduledCommand
from qilu_devices.faults import NO_FAULTS, FaultPlan, Occurrence, Order, Schedule, ground_truth
from qilu_devices.fleet import Unit, make_units
from qilu_devices.labels import MOST_STEPS, labelled
from qilu_devices.noise import Streams, keys_of
from qilu_devices.simulation import ClassRun
from qilu_devices.visibility import METERS, Watch

SEED = 7
JANUARY_10_H = 1_516_586_400_000  # 22 January 2018, a Monday: ice needs frost
ONSET_MS = 300_000
EACH = 4
HIDDEN = {"idv3", "idv9", "idv15"}
"""Of the Tennessee Eastman process: hardly any method detects them, since they change next to nothing."""


def lasting_ms(class_name: str) -> int:
    if class_name == "loom":
        return 6 * 3_600_000  # its stops are rare
    base_s = CATALOGUE[class_name].base_interval_s
    return round(3_600_000 * (1.0 if base_s == 1 else 2.0 if base_s <= 10 else 24.0))


def watched(units: list[Unit], plan: FaultPlan, until_ms: int) -> tuple[ClassRun, Watch]:
    equipment = CATALOGUE[units[0].class_name]
    run = ClassRun(equipment, units, SEED, JANUARY_10_H, plan)
    ids = [unit.id for unit in run.units]
    schedule = Schedule(equipment, ids, Streams(keys_of(SEED, ids)), JANUARY_10_H, plan)
    cases = list(schedule.occurrences(JANUARY_10_H, until_ms))
    run.watch = Watch(equipment, [(unit.id, unit.enterprise.id) for unit in run.units], SEED, cases)
    return run, run.watch


def observed(class_name: str) -> list[Occurrence]:
    """Each fault of a class at full severity, of EACH units, and when it became visible."""
    faults = CATALOGUE[class_name].faults
    units = list(make_units({class_name: 1.0}, dict.fromkeys(CITIES, 1.0), SEED, EACH * len(faults)))
    lasting = lasting_ms(class_name)
    orders = tuple(
        # Developed after a quarter of its time: a slow fault would else be at full severity for minutes only.
        Order(unit.id, faults[n % len(faults)].name, ONSET_MS, False, lasting, 1.0, lasting // 4)
        for n, unit in enumerate(units)
    )
    until_ms = JANUARY_10_H + ONSET_MS + lasting_ms(class_name)
    run, watch = watched(units, FaultPlan(0.0, orders), until_ms)
    for _ in run.blocks(until_ms):
        if watch.done:
            break
    return [replace(case, visible_ms=ms) for case, ms in zip(watch.cases, watch.visible_ms, strict=True)]


@pytest.mark.parametrize("class_name", [name for name in CATALOGUE if CATALOGUE[name].faults])
def test_every_kind_of_fault_is_visible_at_full_severity(class_name: str) -> None:
    found = observed(class_name)
    for fault in CATALOGUE[class_name].faults:
        mine = [case for case in found if case.fault == fault.name]
        seen = [case for case in mine if case.visible_ms is not None]
        if fault.name in HIDDEN:
            continue
        assert len(seen) > EACH // 2, fault.name  # a unit may rest all the while
        for case in seen:
            assert case.visible_ms is not None
            assert case.start_ms <= case.visible_ms < case.end_ms


def test_until_a_fault_is_visible_the_data_differ_little_and_from_then_on_much() -> None:
    units = list(make_units({"motor": 1.0}, dict.fromkeys(CITIES, 1.0), SEED, 8))
    order = Order(units[0].id, "bearing", 1_800_000, False, 7_200_000, 1.0)
    until_ms = JANUARY_10_H + 9_000_000
    run, watch = watched(units, FaultPlan(0.0, (order,)), until_ms)
    sound = ClassRun(CATALOGUE["motor"], units, SEED, JANUARY_10_H, NO_FAULTS)
    place = [unit.id for unit in run.units].index(units[0].id)
    names = [signal.name for signal in CATALOGUE["motor"].signals if signal.name not in METERS]
    before, after = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
    blocks = list(zip(run.blocks(until_ms), sound.blocks(until_ms), strict=True))
    visible_ms = watch.visible_ms[0]
    assert visible_ms is not None
    for ill, well in blocks:
        if place >= len(ill.times):
            continue
        found = before if ill.times[place] < visible_ms else after
        for name, one, other in zip(ill.shape.names, ill.rows[place], well.rows[place], strict=True):
            if name in found:
                found[name] = max(found[name], abs(float(one - other)))
    assert before["envelope"] < 0.2 * after["envelope"] > 0.0
    assert sum(after.values()) > sum(before.values())
    onset = JANUARY_10_H + 1_800_000
    assert all((ill.rows == well.rows).all() for ill, well in blocks if ill.times[-1] < onset)


def test_a_watch_changes_no_sample_of_the_units_and_an_unseen_fault_is_no_label() -> None:
    units = list(make_units({"reactor": 1.0}, dict.fromkeys(CITIES, 1.0), SEED, 6))
    orders = (
        Order(units[0].id, "idv15", 3_600_000, False, 7_200_000, 0.05),
        Order(units[1].id, "idv1", 3_600_000, False, 7_200_000, 1.0),
        Order(units[2].id, "idv15", 3_600_000, False, 86_400_000, 0.05),
    )
    until_ms = JANUARY_10_H + 14_400_000
    run, watch = watched(units, FaultPlan(0.0, orders), until_ms)
    plain = ClassRun(CATALOGUE["reactor"], units, SEED, JANUARY_10_H, FaultPlan(0.0, orders))
    for one, other in zip(run.blocks(until_ms), plain.blocks(until_ms), strict=True):
        assert np.array_equal(one.rows, other.rows)
    labels = {case.unit: case for case in watch.labels(until_ms)}
    assert set(labels) == {units[1].id, units[2].id}
    assert labels[units[2].id].visible_ms is None  # it may still show: the run ended before it did


def test_the_labels_of_a_run_that_has_ended_say_when_faults_became_visible() -> None:
    units = list(make_units({"motor": 1.0}, dict.fromkeys(CITIES, 1.0), SEED, 6))
    order = Order(units[0].id, "overload", 600_000, False, 3_600_000, 1.0)
    plan = FaultPlan(0.0, (order,))
    stop = ScheduledCommand(units[0].id, JANUARY_10_H + 300_000, "stop", "", 0.0, 0)
    until_ms = JANUARY_10_H + 1_800_000
    truth = ground_truth({unit.id: unit.class_name for unit in units}, SEED, JANUARY_10_H, until_ms, plan)
    [seen] = labelled(truth, units, SEED, JANUARY_10_H, until_ms, plan)
    assert seen.visible_ms is not None
    assert seen.start_ms <= seen.visible_ms < seen.start_ms + 900_000
    # A motor that a command has stopped shows no overload: its twin was stopped, too.
    [hidden] = labelled(truth, units, SEED, JANUARY_10_H, until_ms, plan, [stop])
    assert hidden.visible_ms is None
    later_ms = JANUARY_10_H + 1000 * 10 * (MOST_STEPS + 1)
    assert labelled(truth, units, SEED, JANUARY_10_H, later_ms, plan) == truth  # too much to compute
