"""The table of docs/equipment/realism.md: public data beside the simulated equipment.

    .venv/bin/python tests/realism_rows.py            # prints the table
    .venv/bin/python tests/realism_rows.py --write    # puts it into the page

`tests/unit/test_equipment_realism.py` holds that every row is within the spread of its source, and that the
page has what is measured.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import realism_province as province
import realism_runs as runs
from realism_runs import change, changes, put, variation

BEGIN, END = "<!-- measured by tests/realism_rows.py -->\n", "<!-- end of what is measured -->\n"
HEAD = "| subject | real | before | now | how |\n|---|---|---|---|---|\n"
FACTOR, TENTH = 1.5, 0.1
"""Spread of real deviations, ratios and counts; and of correlations and shares of the time."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A measured figure, and the range of the real one. `spread`: `factor` of the size, with the same sign;
    `tenth`, with the same sign; `inside` the range itself, where the source gives a bound or an error; `` for
    a figure that is only shown."""

    measure: Callable[[], float]
    form: str = "{:.2f}"
    low: float = 0.0
    high: float = 0.0
    spread: str = ""

    def text(self) -> str:
        return self.form.format(self.measure()).replace("-", "−").replace("%", " %")

    def within(self) -> bool:
        found = self.measure()
        match self.spread:
            case "factor":
                least, most = sorted((abs(self.low), abs(self.high)))
                return found * self.low > 0.0 and least / FACTOR <= abs(found) <= most * FACTOR
            case "tenth":
                return found * self.low >= 0.0 and self.low - TENTH <= found <= self.high + TENTH
            case "inside":
                return self.low <= found <= self.high
        return True


def of(measure: Callable[[], float], form: str, real: float, to: float | None = None) -> Figure:
    """A deviation, a ratio, a change or a count."""
    return Figure(measure, form, real, real if to is None else to, "factor")


def near(measure: Callable[[], float], real: float) -> Figure:
    """A correlation."""
    return Figure(measure, "{:.2f}", real, real, "tenth")


def inside(measure: Callable[[], float], form: str, low: float, high: float) -> Figure:
    return Figure(measure, form, low, high, "inside")


@dataclass(frozen=True, slots=True)
class Row:
    subject: str
    real: str
    before: str
    now: str
    """With a pair of braces for each figure."""
    how: str
    figures: tuple[Figure, ...] = ()

    @property
    def has_source(self) -> bool:
        return any(figure.spread for figure in self.figures)

    def within(self) -> bool:
        return all(figure.within() for figure in self.figures)

    def line(self) -> str:
        now = self.now.format(*(figure.text() for figure in self.figures))
        return f"| {self.subject} | {self.real} | {self.before} | {now} | {self.how} |\n"


def total(name: str, real: float) -> Figure:
    return of(lambda: province.totals()[name], "{:.0f}", real)


def blown(signal: str, real: float) -> Figure:
    return of(lambda: 100.0 * variation(runs.blown(signal)), "{:.1f}", real)


def next_day(signal: str, real: float) -> Figure:
    return near(lambda: runs.memory(runs.blown(signal), 24), real)


def at_life(life: float, real: float) -> Figure:
    return of(lambda: float(runs.worn_bearing("vibration", life).mean()), "{:.1f}", real)


def fleet_off(kind: str) -> float:
    off, switched = runs.motors_off()
    return float({"all": off, "switched": off[switched], "others": off[~switched]}[kind].mean())


def current_of(kind: str) -> float:
    """Change of the current with a closed valve, of pumps at fixed speed or of those that a converter
    speeds up."""
    found, fixed = changes("current", "valve_closure"), runs.at_fixed_speed()
    return float({"all": found, "fixed": found[fixed], "held": found[~fixed]}[kind].mean())


ROWS = (
    Row("Electricity of 10,000,000 units", "industry about 600 TWh a year", "1,465", "{}",
        "follows: motors by a published size distribution; compressors' and pumps' sizes assumed",
        (total("electricity_TWh", 600.0),)),
    Row("Coal in boilers", "115 Mt", "1,001", "{}", "fitted (count of boilers)",
        (total("boiler_coal_Mt", 115.0),)),
    Row("Hot metal", "crude steel 76 Mt", "190", "{}", "fitted (count of furnaces)",
        (total("hot_metal_Mt", 76.0),)),
    Row("Load of works on a Saturday, Sunday, holiday, of a working day's (UCI steel industry)",
        ".58, .28, .10–.13", "1.03, .81, 1.0", "{}, {}, {} (works of one and two shifts)",
        "fitted (shares of works that rest); what runs on follows", (
            of(partial(province.load_on, province.SATURDAYS), "{:.2f}", 0.58),
            of(partial(province.load_on, province.SUNDAYS), "{:.2f}", 0.28),
            of(partial(province.load_on, province.HOLIDAYS), "{:.2f}", 0.10, 0.13))),
    Row("Load of works at noon, of the mean", ".33", "1.0", "{} (works of one shift, 12:00 to 12:45)",
        "fitted",
        (of(province.load_at_noon, "{:.2f}", 0.33),)),
    Row("Daily anomaly of temperature (Beijing, UCI 501)", "2.6–2.8 K", "1.4 K, turbines alone",
        "{} K, shared by all classes of a city", "fitted",
        (of(lambda: float(province.temperature_anomalies().std()), "{:.1f}", 2.6, 2.8),)),
    Row("… its autocorrelation at 1, 2, 5 d", ".67, .39, .20", "none", "{}, {}, {}",
        "fitted (two time constants)",
        (near(partial(province.anomaly_memory, 1), 0.67), near(partial(province.anomaly_memory, 2), 0.39),
         near(partial(province.anomaly_memory, 5), 0.20))),
    Row("Wind in March and April, from August to October, of the year's", "1.25, .79", "1.03, .98",
        "{}, {}",
        "fitted (a cosine)", (
            of(partial(province.wind_in, 3, 4), "{:.2f}", 1.25),
            of(partial(province.wind_in, 8, 9, 10), "{:.2f}", 0.79))),
    Row("Wind at 14 h, at night, of the mean", "1.45, .72 at 10 m; weaker at hub height", ".5 %",
        "{}, {} at hub height",
        "assumed (a fifth of what 10 m has)", (
            inside(partial(province.wind_at, 14), "{:.2f}", 1.01, 1.45),
            inside(partial(province.wind_at, 2), "{:.2f}", 0.72, 0.99))),
    Row("Wind turbine: no power though above 4 m/s", "4.6 %", "0", "{}", "fitted (days of repair)",
        (of(province.still_in_the_wind, "{:.1%}", 0.046),)),
    Row("Wind turbine: kurtosis of 10 min changes of power", "19", "0", "{}",
        "follows from heavy-tailed shocks, stops and the curve",
        (of(province.kurtosis_of_changes, "{:.0f}", 19.0),)),
    Row("Neighbours in a farm: correlation of the wind, slow; fast", "above .95; .3–.6", ".78 in all",
        "{} (means of half a day); {} (10 min changes)", "assumed from the same studies", (
            near(partial(province.neighbours, True), 0.95),
            Figure(partial(province.neighbours, False), "{:.2f}", 0.3, 0.6, "tenth"))),
    Row("Pump (SKAB), imbalance: casing acceleration", "×2.8", "×1.0", "×{}", "fitted",
        (of(lambda: 1.0 + change("casing_accel", "rotor_imbalance"), "{:.1f}", 2.8),)),
    Row("… body temperature", "−.2 %: no change", "+1.6 %", "{}", "follows",
        (inside(lambda: change("body_temp", "rotor_imbalance"), "{:.1%}", -0.005, 0.005),)),
    Row("Pump, cavitation: flow; its deviation", "−33 %; ×15", "0; ×.9", "{}; ×{}",
        "follows from the network; shaking fitted", (
            of(lambda: change("flow", "cavitation"), "{:.0%}", -0.33),
            of(runs.shaken_flow, "{:.0f}", 15.0))),
    Row("Pump, labelled cavitations that make no bubble", "none", "a third", "{}",
        "follows from the margin",
        (inside(runs.silent_cavitations, "{:.0%}", 0.0, 0.0),)),
    Row("Pump, valve closing: flow", "−1.5 to −23 %", "−32 to −65 %", "{} half closed, {} closed",
        "friction of the valve fitted", (
            of(lambda: change("flow", "valve_closure", 0.5), "{:.1%}", -0.015, -0.23),
            of(lambda: change("flow", "valve_closure"), "{:.0%}", -0.015, -0.23))),
    Row("Pump, valve closing: current",
        "+.3 %, ± 1.5 % (the error of a mean of 400 samples that vary by 20 %)",
        "−16 to −35 %", "{} in the mean of pumps: {} at fixed speed, {} where a converter holds the flow",
        "follows from affinity laws, power curve and converter; which pumps have one is assumed", (
            inside(partial(current_of, "all"), "{:+.1%}", -0.012, 0.018),
            Figure(partial(current_of, "fixed"), "{:+.1%}"), Figure(partial(current_of, "held"),
        "{:+.1%}"))),
    Row("Pump: CV of acceleration; of current", ".022; .20", ".145; .022", "{}; {}", "fitted", (
        of(lambda: variation(runs.second_by_second("casing_accel")), "{:.3f}", 0.022),
        of(lambda: variation(runs.second_by_second("current")), "{:.2f}", 0.20))),
    Row("Pump: flow's answer, 10–90 %", "8–76 s", "at once", "{} to {} s", "fitted (lag of the pipes)", (
        of(lambda: float(runs.flow_takes_s().min()), "{:.0f}", 8.0, 76.0),
        of(lambda: float(runs.flow_takes_s().max()), "{:.0f}", 8.0, 76.0))),
    Row("Reactor (TEP): correlation of pressure and purge", "−.31", "+.39", "{}",
        "follows from a vector autoregression, identified from 1,000 h of the plant's equations under "
        "the data set's "
        "controllers", (near(runs.pressure_and_purge, -0.31),)),
    Row("Reactor, IDV4: jump of the temperature; above half of it", "+10 sd; at most 3 min", "5,400 s",
        "{} sd; {} min", "follows from the identified answers", (
            of(lambda: float(runs.answer("idv4", "reactor_temp").mean(axis=1)[0]), "{:+.1f}", 10.0),
            inside(runs.idv4_lasts_min, "{:.0f}", 0.0, 3.0))),
    Row("Reactor, IDV6: purge; pressure; trip after", "−9 sd; +43 sd; 6 h", "+35 sd on the purge at once",
        "{} sd; {} sd; {} h, at 3,000 kPa", "follows; size of the pressure's answer fitted to the trip", (
            of(lambda: float(runs.answer("idv6", "purge_rate")[100:].mean()), "{:+.0f}", -9.0),
            of(lambda: float(runs.answer("idv6", "reactor_pressure").max(axis=0).mean()), "{:+.0f}",
        43.0),
            of(runs.idv6_trips_h, "{:.1f}", 6.0))),
    Row("Reactor, IDV7: feed A+C is back", "in 40 min", "never", "in {} min, then swings",
        "follows from the identified answers", (of(runs.idv7_back_min, "{:.0f}", 40.0),)),
    Row("Compressor (MetroPT-3): motor off",
        "75 % of the time (a train's, which a pressure switch stops)",
        "never by day", "{} in the mean of a fleet over a week; {} where a pressure switch stops it, "
        "{} where it idles "
        "first", "follows from control, run-on time, shifts and demand; demand assumed", (
            of(partial(fleet_off, "all"), "{:.0%}", 0.75), of(partial(fleet_off, "switched"), "{:.0%}",
        0.75),
            Figure(partial(fleet_off, "others"), "{:.0%}"))),
    Row("Compressor, leak: loaded; pressure; temperature", "continuously; −8 %; +11 K",
        ".08 to .33 at night; 0; +4 K",
        "{} of the time; {}; {} K",
        "follows from a leak that takes all spare capacity, and from oil that stays warm "
        "for hours at rest", (
            of(partial(runs.leak, "loaded"), "{:.0%}", 1.0),
            of(lambda: runs.leak("discharge_pressure") / runs.leak("discharge_pressure",
        "") - 1.0, "{:.0%}", -0.08),
            of(lambda: runs.leak("discharge_temp") - runs.leak("discharge_temp", ""), "{:+.0f}", 11.0))),
    Row("Blast furnace: CV of volume, top temperature, η_CO, H2, %", "5, 22, 3.9, 13",
        "1.2, 5.7, 1.3, 4.1",
        "{}, {}, {}, {}", "fitted; H2 follows from one gas balance",
        (blown("blast_volume", 5.0), blown("top_gas_temp", 22.0), blown("eta_CO", 3.9),
        blown("top_gas_H2", 13.0))),
    Row("Blast furnace: autocorrelation at 24 h of volume, top pressure, H2", ".56, .71, .71", "0, 0, 0",
        "{}, {}, {}",
        "fitted", (next_day("blast_volume", 0.56), next_day("top_pressure", 0.71), next_day("top_gas_H2",
        0.71))),
    Row("… at 10 min", "near 1", "0, 0, 0", "{}, {}, {}", "follows", tuple(
        near(lambda name=name: runs.memory(runs.blown_10_min(name), 1), 1.0)  # type: ignore[misc]
        for name in ("blast_volume", "top_pressure", "top_gas_H2"))),
    Row("Blast furnace: deviation of silicon; from cast to cast", ".110; .060", ".020; .012", "{}; {}",
        "fitted; stops add", (
            of(partial(runs.silicon, by_cast=False), "{:.3f}", 0.110),
            of(partial(runs.silicon, by_cast=True), "{:.3f}", 0.060))),
    Row("Blast furnace: stops in six months; time without coal injection", "61; 10 %", "none", "{}; {}",
        "fitted; their effects on gas, heat and output follow",
        (of(runs.furnace_stops, "{:.0f}", 61.0), of(runs.without_coal, "{:.0%}", 0.10))),
    Row("Boiler (gas, campus): exhaust; O2 from load .3 to 1", "+25 K; −.9 %", "+40 K; −2.1 %",
        "{} K; {} %",
        "fitted", (
            of(partial(runs.with_load, "flue_temp"), "{:+.0f}", 25.0),
            of(partial(runs.with_load, "flue_O2"), "{:.1f}", -0.9))),
    Row("Boiler that heats: starts a year", "55", "0", "{} in the mean",
        "follows from weather and the band between lighting and putting out (1 K, assumed)",
        (of(runs.starts_a_year, "{:.0f}", 55.0),)),
    Row("Boiler that heats: lit in June", "4 %", "100 %", "{}", "fitted", (of(runs.lit_in_june, "{:.1%}",
        0.04),)),
    Row("Motor bearing (IMS): vibration at .5, .6, .8, .9, .98 of its life", "1, 1.2, 1.3, 1.8, 3.1",
        "linear to 7",
        "{}, {}, {}, {}, {}", "fitted",
        (at_life(0.5, 1.0), at_life(0.6, 1.2), at_life(0.8, 1.3), at_life(0.9, 1.8), at_life(0.98, 3.1))),
    Row("Motor bearing (CWRU): velocity; envelope", "×.9–2.7; ×1.6–18", "×7.1; ×31",
        "×{} at the end of its life; ×{} to {} by bearing", "fitted", (
            of(lambda: float(runs.worn_bearing("vibration", 1.0).mean()), "{:.1f}", 0.9, 2.7),
            of(lambda: float(runs.worn_bearing("envelope", 1.0).min()), "{:.1f}", 1.6, 18.0),
            of(lambda: float(runs.worn_bearing("envelope", 1.0).max()), "{:.0f}", 1.6, 18.0))),
    Row("Motor: CV of vibration, healthy", "1.2 %", "12 %", "{}", "fitted",
        (of(runs.steady_vibration, "{:.1%}", 0.012),)),
    Row("Robot (UR3): time at a standstill; CV of cycle time", "50 %; .39", "0; .004", "{}; {}",
        "fitted", (
        of(runs.standing_arms, "{:.0%}", 0.5),
        of(lambda: variation(runs.arms("cycle_time")), "{:.2f}", 0.39))),
    Row("Pasteuriser: heat 10 s after a cold start, of what it takes an hour later", "above 1", ".38",
        "{}",
        "follows from the heat balance", (inside(runs.cold_start, "{:.1f}", 1.0, 10.0),)),
    Row("CNC: cutting; torque's deviation within a part", "no public series found", "always; none",
        "{} of the time of machines at work; {} of its mean", "assumed",
        (Figure(runs.cutting_time, "{:.0%}"), Figure(runs.torque_within_a_part, "{:.0%}"))),
    Row("Loom, oven", "no public series found", "–", "as before", "–"),
)  # fmt: skip


def table() -> str:
    sourced = [row for row in ROWS if row.has_source]
    good = sum(row.within() for row in sourced)
    text = HEAD + "".join(row.line() for row in ROWS)
    return f"{text}\n**Within the spread of the real data: {good} of {len(sourced)} rows.**\n"


def main() -> None:
    found = table()
    if "--write" in sys.argv:
        put(BEGIN, found, END)
    else:
        print(found)  # noqa: T201


if __name__ == "__main__":
    main()
