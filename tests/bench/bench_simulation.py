"""Making values: the kernels, which step many units together, compared with a Python loop over units.
On this machine, in one run, on one core. Prints; asserts nothing about time."""

from __future__ import annotations

import math
import os
import platform
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from qilu_contract.catalogue.classes import CATALOGUE
from qilu_devices.classes import KERNELS
from qilu_devices.faults import FaultPlan, Schedule
from qilu_devices.fleet import make_units
from qilu_devices.noise import Streams, keys_of
from qilu_devices.scenario import load_scenario
from rich.console import Console
from rich.table import Table

BATCH = 4096
"""Units stepped together: few enough that a step's arrays stay in the processor's cache."""
BEGIN_MS = 1_509_328_800_000
SECONDS = 1.5


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown")
    return f"{cpu}, {os.cpu_count()} cores, {platform.system()}, CPython {platform.python_version()}"


def rate(step: Callable[[int], int]) -> float:
    """Values a CPU second: the machine may be busy with other things. `step` takes 0, 1, 2, … and says how
    many values it made."""
    step(0)
    made, k, began = 0, 1, time.process_time()
    while time.process_time() - began < SECONDS:
        made += step(k)
        k += 1
    return made / (time.process_time() - began)


def kernel(name: str, units: int = BATCH, plan: FaultPlan | None = None) -> Callable[[int], int]:
    """Steps of a class; with a plan, faults as a run has them. Counted are the values that a run samples at a
    step: a kernel makes every signal, also those whose interval is longer."""
    equipment = CATALOGUE[name]
    ids = [f"370202-{name}-{n:07d}" for n in range(units)]
    streams = Streams(keys_of(1, ids))
    made = KERNELS[name](streams, Streams(keys_of(2, ids)), float(equipment.base_interval_s))
    schedule = Schedule(equipment, ids, streams, BEGIN_MS, plan or FaultPlan())
    base_ms = equipment.base_interval_s * 1000
    phases = np.arange(units, dtype=np.int64) % (base_ms // 100) * 100

    multiples = [signal.interval_s // equipment.base_interval_s for signal in equipment.signals]

    def step(k: int) -> int:
        times = BEGIN_MS + phases + k * base_ms
        made.step(k, times, schedule.at(times))
        return units * sum(k % multiple == 0 for multiple in multiples)

    return step


def plain_motor(units: int) -> Callable[[int], int]:
    """The equations of class motor with the standard library, unit by unit."""
    chance = random.Random(1)
    motors = [
        {"kw": 11.0, "loss": 0.1, "slip": 0.02, "reactive": 0.6, "mean": chance.uniform(0.45, 0.85)}
        | dict.fromkeys(("load", "voltage", "shake", "energy"), 0.0)
        | {"winding": 60.0}
        for _ in range(units)
    ]

    def step(k: int) -> int:
        made = 0
        for n, motor in enumerate(motors):
            t_ms = BEGIN_MS + 10_000 * k + n
            hour = (t_ms + 8 * 3_600_000) % 86_400_000 / 3_600_000
            running = 1.0 if 8.0 <= hour < 17.0 else 0.0
            for name in ("load", "voltage", "shake"):
                motor[name] = 0.99 * motor[name] + 0.14 * chance.gauss(0.0, 1.0)
            wanted = motor["mean"] + 0.08 * motor["load"] + 0.01 * chance.gauss(0.0, 1.0)
            load = running * min(max(wanted, 0.15), 1.08)
            loss = running * (0.35 + 0.65 * load**2)
            power = motor["kw"] * (load + motor["loss"] * loss)
            reactive = running * motor["kw"] * motor["reactive"] * (0.6 + 0.4 * load**2)
            voltage = 380.0 * (1.0 + min(max(0.012 * motor["voltage"], -0.05), 0.05))
            day = math.cos(2.0 * math.pi * (hour - 15.0) / 24.0)
            season = -math.cos(2.0 * math.pi * (t_ms / 86_400_000 - 15.0) / 365.25)
            hall = 20.0 + 0.33 * (14.0 * season + 4.0 * day)
            motor["winding"] += 0.006 * (hall + 66.0 * loss - motor["winding"])
            motor["energy"] += power / 360.0
            shaking = math.exp(0.12 * motor["shake"])
            slip = load * motor["slip"]
            signals = {
                "power_in": power,
                "slip": 100.0 * slip,
                "speed": running * 1500.0 * (1.0 - slip),
                "current": 1000.0 * math.hypot(power, reactive) / (math.sqrt(3.0) * voltage),
                "voltage": voltage,
                "winding_temp": motor["winding"],
                "vibration": (0.75 + 0.35 * load) * shaking if running else 0.02,
                "efficiency": 100.0 * motor["kw"] * load / power if power else 0.0,
                "negative_sequence": running * shaking,
                "sideband": -56.0 if running else -70.0,
                "vibration_2f": running * 0.1 * shaking,
                "envelope": running * 0.05 * shaking,
                "ageing_rate": 2.0 ** ((motor["winding"] - 155.0) / 10.0),
                "energy_kWh": motor["energy"],
                "co2_kg": 0.641 * motor["energy"],
            }
            made += len(signals) if k % 6 == 0 else 6  # nine signals are sampled every sixth step
        return made

    return step


def show(title: str, ways: list[tuple[str, float]]) -> None:
    table = Table(title=f"{title}\n{machine()}", title_justify="left")
    for heading in ("way", "values per CPU second", "ratio"):
        table.add_column(heading, justify="left" if heading == "way" else "right")
    for name, figure in ways:
        table.add_row(name, f"{figure:,.0f}", f"{figure / ways[0][1]:.1f}")
    Console().print(table)


def bench_motor() -> None:
    show(
        "Motors, values that are sampled: 6 of 15 signals at a step, all at every sixth",
        [
            ("a Python loop over units", rate(plain_motor(200))),
            ("kernel, 64 units together", rate(kernel("motor", 64))),
            (f"kernel, {BATCH} units together", rate(kernel("motor"))),
            (
                f"kernel, {BATCH} units, faults at the default rate",
                rate(kernel("motor", plan=FaultPlan(1.0))),
            ),
        ],
    )


def bench_default_mix() -> None:
    """Every class weighs as many values as are sampled of it in the default fleet."""
    scenario = load_scenario()
    units = make_units(scenario.classes, scenario.cities, scenario.seed, 20_000)
    counts = Counter(unit.class_name for unit in units)
    rates = {name: rate(kernel(name, plan=scenario.faults)) for name in counts}
    show("Each class", list(rates.items()))
    values = {
        name: count * sum(1.0 / signal.interval_s for signal in CATALOGUE[name].signals)
        for name, count in counts.items()
    }
    mix = sum(values.values()) / sum(values[name] / rates[name] for name in counts)
    plain = rate(plain_motor(200))
    show("The default mix", [("a Python loop over motors", plain), ("kernels, all classes", mix)])
