"""Commands in the physics: what each does to its unit, what is refused, and that a run can be computed again
with them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_contract.wire.commands import Command, Refused
from qilu_devices.classes import KERNELS
from qilu_devices.classes.boiler import Boilers
from qilu_devices.commands import ScheduledCommand, accept, with_commands
from qilu_devices.controls import Controls
from qilu_devices.digests import combined_digest, unit_digests
from qilu_devices.faults import NO_FAULTS, FaultPlan, ground_truth
from qilu_devices.fleet import Shard, Unit
from qilu_devices.kernel import SOUND
from qilu_devices.noise import Streams, keys_of
from qilu_devices.scenario import load_scenario
from qilu_devices.simulation import Simulation, fleet_of, samples
from qilu_devices.weather import Weather

SCENARIO = load_scenario()
SEED = SCENARIO.seed
START_MS = 1_717_400_000_000  # a Monday in June, 15:33 in Shandong: everybody is at work
MINUTE_MS, HOUR_MS = 60_000, 3_600_000
UNITS = 150
FLEET = fleet_of(SCENARIO, SEED, UNITS)
STOPPABLE = [equipment.name for equipment in CATALOGUE.values() if equipment.stoppable]


def unit_of(class_name: str) -> Unit:
    return next(unit for unit in FLEET if unit.class_name == class_name)


def given(unit: Unit, at_ms: int, command: Command) -> ScheduledCommand:
    return accept(CATALOGUE[unit.class_name], unit.id, command, at_ms)


def play(
    class_name: str, hours: float, *commands: tuple[int, Command], count: int = 1, every_s: int = 10
) -> dict[str, np.ndarray]:
    """Each signal of some units over time (a row a step), and `ts_ms`, straight from the kernel, with
    commands to the first unit, keyed by minute of arrival."""
    units = [unit for unit in FLEET if unit.class_name == class_name]
    if class_name == "boiler":  # one that is lit in June, round the clock: a large one of a process
        boilers = Boilers(*(Streams(keys_of(SEED, [unit.id for unit in units])) for _ in range(2)), 10.0)
        lit = boilers.step(0, np.full(len(units), START_MS))["steam_flow"] > 0.0
        units = [units[place] for place in np.flatnonzero(lit & (boilers.size_tph >= 20.0))]
    units = units[:count]
    kernel = KERNELS[class_name](
        Streams(keys_of(SEED, [unit.id for unit in units])),
        Streams(keys_of(SEED, [f"enterprise/{unit.enterprise.id}" for unit in units])),
        float(every_s),
    )
    controls, coming = Controls(len(units)), list(commands)
    rows = []
    for k in range(round(hours * 3600 / every_s)):
        t_ms = START_MS + k * every_s * 1000
        while coming and t_ms >= START_MS + coming[0][0] * MINUTE_MS:
            command = coming.pop(0)[1]
            if command.kind == "set_point":
                controls.set_point(0, command.name, command.value)
            else:
                (controls.stop if command.kind == "stop" else controls.start)(0)
        times = np.full(len(units), t_ms, dtype=np.int64)
        rows.append({**kernel.step(k, times, SOUND, controls), "ts_ms": times})
    found = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    return {name: values if count > 1 else values[:, 0] for name, values in found.items()}


def signals(unit: Unit, hours: float, *commands: ScheduledCommand) -> dict[str, np.ndarray]:
    """Each signal of a unit over time, as the simulation hands it out: the last value where it was not
    sampled."""
    rows: list[dict[str, float]] = []
    until_ms = START_MS + round(hours * HOUR_MS)
    for moment in Simulation([unit], SEED, START_MS, NO_FAULTS, commands).moments(until_ms):
        for sample in moment.samples:
            rows.append({**(rows[-1] if rows else {}), **sample.named(), "ts_ms": sample.ts_ms})
    return {name: np.array([row[name] for row in rows]) for name in rows[0]}


def mean(values: dict[str, np.ndarray], name: str, from_ms: int) -> float:
    return float(values[name][values["ts_ms"] >= from_ms].mean())


# Signals that are zero at rest, signals that cool to ambient temperature, and the hours within which all do.
REST: dict[str, tuple[Sequence[str], Sequence[str], float]] = {
    "wind_turbine": (["rotor_speed"], ["gearbox_bearing_temp", "generator_bearing_temp"], 12),
    "motor": (["speed", "current", "power_in", "slip"], ["winding_temp"], 5),
    "boiler": (["steam_flow", "steam_pressure", "fuel_flow", "NOx"], ["steam_temp", "flue_temp"], 12),
    "compressor": (["flow", "power_in", "loaded", "discharge_pressure"], ["discharge_temp"], 2.5),
    "cnc": (["spindle_speed", "torque", "spindle_power", "failure"], [], 0.2),
    "robot": (["torque_2", "cycle_time", "band_current"], ["motor_temp_2", "motor_temp_3"], 4),
    "pump": (["flow", "head", "power_in", "speed"], ["body_temp"], 3),
    "loom": (["speed"], [], 0.2),
    "pasteuriser": (["product_flow", "heating_duty", "dp_product"], ["hold_temp"], 0.5),
    "oven": (["burner_load", "belt_load"], ["zone_temp", "exhaust_temp"], 3),
}


@pytest.mark.parametrize("class_name", STOPPABLE)
def test_stop_brings_a_unit_to_rest_and_it_cools_and_start_brings_it_back(class_name: str) -> None:
    still, cooling, hours = REST[class_name]
    every_s = 60 if hours > 3 else 10
    free = play(class_name, hours, every_s=every_s)
    values = play(class_name, hours, (10, Command("stop")), every_s=every_s)
    weather = Weather(SCENARIO.seed, np.zeros(1, dtype=np.int8))
    ambient = float(weather.outdoor_c(values["ts_ms"][-1:])[0])
    for name in still:
        scale = max(CATALOGUE[class_name].signal(name).nominal, 0.5)
        assert np.abs(values[name][-5:]).max() <= 0.02 * scale, name
    for name in cooling:
        assert abs(values[name][-1] - ambient) < 14.0, name  # a hall is warmer than the air outside
    before = free["ts_ms"] < START_MS + 10 * MINUTE_MS
    for name, free_values in free.items():
        assert np.array_equal(free_values[before], values[name][before]), name
    if class_name == "wind_turbine":
        return  # whether it turns again is the wind's to say
    assert free[still[0]][~before].max() > 0.0
    back = play(class_name, 2.5, (10, Command("stop")), (20, Command("start")), every_s=30)
    assert back[still[0]][back["ts_ms"] > START_MS + HOUR_MS].max() > 0.0


def test_a_start_works_through_the_rest_of_the_calendar_until_it_rests_again() -> None:
    night = 10 * 60  # minutes: half past one
    free = play("motor", 48, count=30, every_s=300)["speed"]
    local_h = (START_MS / HOUR_MS + 8 + np.arange(len(free)) / 12) % 24
    asleep = (local_h > 2) & (local_h < 5)
    first = np.arange(len(free)) < 24 * 12
    assert free[0, 0] > 0.0
    assert free[asleep, 0].max() == 0.0, "the first motor of the fleet rests at night"
    started = play("motor", 48, (night, Command("start")), count=30, every_s=300)["speed"]
    assert started[asleep & first, 0].min() > 0.0
    assert started[asleep & ~first, 0].max() == 0.0
    assert np.array_equal(started[:, 1:], free[:, 1:])


# The signal that follows a set point, a value, and what the signal is then in the mean (with how closely).
FOLLOWS: dict[tuple[str, str], tuple[float, str, float, float]] = {
    ("blast_furnace", "blast_volume"): (1.7, "blast_volume", 1.7, 0.05),
    ("blast_furnace", "oxygen_enrichment"): (1.0, "oxygen_enrichment", 1.0, 0.5),
    ("compressor", "pressure"): (0.60, "discharge_pressure", 0.60, 0.07),
    ("loom", "speed"): (450.0, "speed", 450.0, 100.0),
    ("oven", "zone_temp"): (260.0, "zone_temp", 260.0, 3.0),
    ("pasteuriser", "hold_temp"): (76.0, "hold_temp", 76.0, 0.5),
    ("reactor", "reactor_temp"): (118.5, "reactor_temp", 118.5, 0.1),
}


@pytest.mark.parametrize(("class_name", "name"), FOLLOWS)
def test_the_signal_of_a_set_point_follows_it(class_name: str, name: str) -> None:
    value, signal, expected, near = FOLLOWS[class_name, name]
    values = play(class_name, 3.0, (10, Command("set_point", name, value)), every_s=30)
    assert mean(values, signal, START_MS + 2 * HOUR_MS) == pytest.approx(expected, abs=near)
    free = mean(play(class_name, 3.0, every_s=30), signal, START_MS + 2 * HOUR_MS)
    assert abs(free - expected) > near


# Effect of a low set point on other signals, by the equations: ratio to the same unit without the command.
LOWER: dict[tuple[str, str], tuple[float, dict[str, tuple[float, float]]]] = {
    ("motor", "load"): (20.0, {"power_in": (0.1, 0.6), "current": (0.2, 0.9), "slip": (0.1, 0.6)}),
    ("boiler", "load"): (30.0, {"steam_flow": (0.3, 0.8), "fuel_flow": (0.3, 0.8)}),
    ("pump", "flow"): (40.0, {"flow": (0.35, 0.55), "head": (1.0, 1.6), "power_in": (0.5, 1.0)}),
    ("robot", "speed"): (50.0, {"cycle_time": (1.98, 2.02), "energy_kWh": (0.5, 0.98)}),
    ("cnc", "speed_override"): (60.0, {"spindle_speed": (0.5, 0.75), "parts": (0.4, 0.99)}),
}


@pytest.mark.parametrize(("class_name", "name"), LOWER)
def test_a_set_point_works_through_the_equations(class_name: str, name: str) -> None:
    value, expected = LOWER[class_name, name]
    values = play(class_name, 1.5, (0, Command("set_point", name, value)))
    free = play(class_name, 1.5)
    for signal, (low, high) in expected.items():
        ratio = mean(values, signal, START_MS + HOUR_MS) / mean(free, signal, START_MS + HOUR_MS)
        assert low <= ratio <= high, (signal, ratio)


def test_a_turbine_keeps_below_its_power_limit() -> None:
    limit = Command("set_point", "power_limit", 300.0)
    limited = play("wind_turbine", 200.0, (0, limit), every_s=600)
    assert limited["active_power"].max() == 300.0
    assert play("wind_turbine", 200.0, every_s=600)["active_power"].max() > 600.0


def test_a_fault_on_command_shows_and_a_reset_repairs_it() -> None:
    unit = unit_of("motor")
    fault = given(unit, START_MS + 10 * MINUTE_MS, Command("fault", "bearing", 0.8, 3600.0))
    reset = given(unit, START_MS + 40 * MINUTE_MS, Command("reset"))
    free, broken = signals(unit, 1.0), signals(unit, 1.0, fault)
    mended = signals(unit, 1.0, fault, reset)
    ill = (free["ts_ms"] > START_MS + 35 * MINUTE_MS) & (free["ts_ms"] < reset.at_ms)
    well = free["ts_ms"] > reset.at_ms + MINUTE_MS
    assert (broken["envelope"] - free["envelope"])[ill].min() > 0.02
    assert np.array_equal(mended["envelope"][ill], broken["envelope"][ill])
    assert np.array_equal(mended["envelope"][well], free["envelope"][well])
    assert (broken["envelope"] - free["envelope"])[well].min() > 0.02

    def truth(*commands: ScheduledCommand) -> list[tuple[int, int, int, float]]:
        plan = with_commands(NO_FAULTS, commands)
        found = ground_truth({unit.id: "motor"}, SEED, START_MS, START_MS + HOUR_MS, plan)
        return [(case.start_ms, case.developed_ms, case.end_ms, case.severity) for case in found]

    [(start_ms, developed_ms, end_ms, severity)] = truth(fault)
    assert (start_ms, end_ms, severity) == (fault.at_ms, fault.at_ms + HOUR_MS, 0.8)
    [(_, cut_developed_ms, cut_end_ms, reached)] = truth(fault, reset)
    assert cut_end_ms == cut_developed_ms == reset.at_ms < developed_ms
    assert reached == pytest.approx(0.8 * (reset.at_ms - start_ms) / (developed_ms - start_ms))


def test_a_reset_repairs_faults_that_came_by_themselves() -> None:
    often = FaultPlan(rate=1000.0)
    unit = unit_of("motor")
    at_ms = next(
        case.start_ms + HOUR_MS
        for case in ground_truth({unit.id: "motor"}, SEED, START_MS, START_MS + 400 * HOUR_MS, often)
        if case.end_ms > case.start_ms + 2 * HOUR_MS and case.start_ms > START_MS
    )
    plan = with_commands(often, [given(unit, at_ms, Command("reset"))])
    found = ground_truth({unit.id: "motor"}, SEED, START_MS, at_ms + HOUR_MS, plan)
    assert [case for case in found if case.start_ms < at_ms < case.end_ms] == []
    assert [case for case in found if case.end_ms == at_ms]


@pytest.mark.parametrize(
    ("class_name", "command", "said"),
    [
        ("motor", Command("set_point", "load", 500.0), "load of class motor takes 15 to 108 %, not 500"),
        ("motor", Command("set_point", "load", float("nan")), "not nan"),
        ("motor", Command("set_point", "colour", 1.0), "no set point 'colour': it has load"),
        ("motor", Command("fault", "flat_tyre"), "no fault 'flat_tyre': it has bearing"),
        ("motor", Command("fault", "bearing", 1.5), "severity of a fault is more than 0 and at most 1"),
        ("motor", Command("fault", "bearing", 0.0), "severity"),
        ("motor", Command("fault", "bearing", 1.0, float("inf")), "366 days"),
        ("motor", Command("fault", "bearing", 1.0, -1.0), "366 days"),
        ("blast_furnace", Command("stop"), "blast_furnace are not started or stopped by command"),
        ("reactor", Command("start"), "reactor are not started or stopped"),
    ],
)
def test_what_a_class_cannot_do_is_refused_with_the_reason(
    class_name: str, command: Command, said: str
) -> None:
    with pytest.raises(Refused, match=said):
        accept(CATALOGUE[class_name], unit_of(class_name).id, command, START_MS)


def test_set_points_lie_within_their_class() -> None:
    for equipment in CATALOGUE.values():
        assert equipment.set_points, equipment.name
        for point in equipment.set_points:
            assert point.low < point.high
            assert point.mark in ("S", "C", "N", "A")
            if point.name in {signal.name for signal in equipment.signals}:
                signal = equipment.signal(point.name)
                assert (signal.low <= point.low, point.high <= signal.high) == (True, True), point


def some_commands(at_ms: int) -> list[ScheduledCommand]:
    """Every kind, to a unit of every class."""
    found = []
    for count, equipment in enumerate(CATALOGUE.values()):
        unit = unit_of(equipment.name)
        point = equipment.set_points[0]
        kinds = [Command("set_point", point.name, point.low), Command("fault", equipment.faults[0].name)]
        kinds += [Command("stop"), Command("reset")] if equipment.stoppable else [Command("reset")]
        kinds += [Command("start")] if equipment.stoppable else []
        for place, command in enumerate(kinds):
            found.append(given(unit, at_ms + count * 1111 + place * 30_000, command))
    return found


def test_the_samples_of_a_run_with_commands_do_not_depend_on_shards() -> None:
    commands = some_commands(START_MS + 20_000)
    until_ms = START_MS + 3 * MINUTE_MS
    whole = combined_digest(unit_digests(SCENARIO, SEED, START_MS, UNITS, until_ms, None, commands))
    for count in (2, 7):
        parts: dict[str, bytes] = {}
        for index in range(1, count + 1):
            shard = Shard(index, count)
            parts |= unit_digests(SCENARIO, SEED, START_MS, UNITS, until_ms, shard, commands)
        assert combined_digest(parts) == whole
    free = unit_digests(SCENARIO, SEED, START_MS, UNITS, until_ms)
    # The turbine is not sampled in these minutes.
    touched = {command.unit for command in commands} - {unit_of("wind_turbine").id}
    with_them = unit_digests(SCENARIO, SEED, START_MS, UNITS, until_ms, None, commands)
    assert {unit for unit, digest in free.items() if with_them[unit] != digest} == touched


def test_commands_that_come_while_it_runs_give_what_computing_it_again_gives() -> None:
    """At the earliest time that is left to each: nothing that was handed out changes."""
    chosen = [unit_of(name) for name in CATALOGUE]
    plan = SCENARIO.faults
    until_ms = START_MS + 10 * MINUTE_MS
    simulation = Simulation(chosen, SEED, START_MS, plan)
    wanted = [
        Command("stop"), Command("fault", "", 1.0, 600.0), Command("reset"), Command("start"),
    ]  # fmt: skip
    said: list[ScheduledCommand] = []
    seen: dict[str, list[tuple[int, dict[str, float]]]] = {unit.id: [] for unit in chosen}
    for number, moment in enumerate(simulation.moments(until_ms)):
        for sample in moment.samples:
            seen[sample.unit.id].append((sample.ts_ms, sample.named()))
        if number % 37 == 36:
            unit = chosen[(number // 37) % len(chosen)]
            equipment = CATALOGUE[unit.class_name]
            command = wanted[(number // 37 // len(chosen)) % len(wanted)]
            if command.kind == "fault":
                command = command._replace(name=equipment.faults[0].name)
            if command.kind in ("stop", "start") and not equipment.stoppable:
                command = Command("set_point", equipment.set_points[0].name, equipment.set_points[0].high)
            at_ms = max(moment.ts_ms + 1, simulation.free_from_ms(unit))
            said.append(given(unit, at_ms, command))
            simulation.obey(unit, said[-1])
    assert {command.kind for command in said} == {"stop", "start", "reset", "fault", "set_point"}
    again = samples(SCENARIO, SEED, START_MS, UNITS, seen, until_ms, said)
    assert seen == again
    assert again != samples(SCENARIO, SEED, START_MS, UNITS, seen, until_ms)
