"""Six-axis robots that repeat a cycle: gravity and motion load the joints, Stribeck friction depends on speed
and temperature, motors warm with the square of their torque.

Friction of a joint: Coulomb, plus the Stribeck excess in its rational form 1/(1 + (v/vs)²), plus viscous
friction that falls as the grease warms. A sample stands for the ten samples of 0.1 s before it: root mean
square of torques, largest following error. Faults: a worn reducer rubs, a broken flexspline rings in its
band, a bad encoder or brake misses its place. Marks of constants: S source found, C computed, N standard
named but not checked, A assumed.
"""

from __future__ import annotations

import numpy as np

from qilu_devices import exact
from qilu_devices.controls import AUTOMATIC, Controls
from qilu_devices.emissions import GRID_KG_PER_KWH
from qilu_devices.exact import cos_turns
from qilu_devices.kernel import SOUND, Consumption, FirstOrder, Severities, Times
from qilu_devices.noise import Autoregression, Streams, Values
from qilu_devices.shifts import Hall, Shifts

JOINTS = 6
BEFORE_MS = np.arange(900, -1, -100, dtype=np.int64)  # A: the source samples every 0.1 s
# By joint, base to wrist (A): weight that gravity gives it, in % of rated torque, and strokes in a cycle.
GRAVITY = (0.0, 34.0, 24.0, 8.0, 10.0, 3.0)
STROKES = (1.0, 2.0, 2.0, 3.0, 3.0, 4.0)
COULOMB, STICTION, VISCOUS = 9.0, 5.0, 14.0  # A: % of rated torque; viscous at full speed and 25 °C
STRIBECK_SPEED = 0.08  # A: of full speed
GREASE_PER_K = 0.007  # A: viscous friction falls by 0.7 % a kelvin
INERTIA = 22.0  # A: % of rated torque at full acceleration
RISE_C = 30.0  # A: of a motor at 35 % of rated torque
CYCLE_S = (26.0, 34.0)  # A: within the catalogue's 25-35
RATED_KW = 7.0  # A: all drives together
STANDBY_KW = 0.6  # A: cabinet and brakes


def friction(speed: Values, temperature_c: Values, wear: Values | float = 0.0) -> Values:
    """% of rated torque at a speed from 0 to 1; wear from 0 to 1 adds up to 80 % (A)."""
    ratio = speed / STRIBECK_SPEED
    viscous = VISCOUS * speed * np.maximum(1.0 - GREASE_PER_K * (temperature_c - 25.0), 0.2)
    return np.asarray((COULOMB + STICTION / (1.0 + ratio * ratio) + viscous) * (1.0 + 0.8 * wear))


def mean_of_rows(values: Values) -> Values:
    """Mean over the moments, added one after the other: numpy's sum would choose its order by shape."""
    total = values[0]
    for row in values[1:]:
        total = total + row
    return np.asarray(total * (1.0 / len(values)))


class Robots:
    """The kernel of class `robot`; see `qilu_devices.kernel.Kernel`.

    Equations::

        in each cycle it moves for 15-85 % of the time and stands for the rest; cycle = c·(0.55 + 1.15·u²)
        friction = (Coulomb + S/(1 + (v/vs)²) + viscous·v·(1 − g·(T − 25)))·(1 + 0.8·wear)      Stribeck
        torque² = mean over a second of (gravity + inertia·a)² + friction²
        motor: first-order after T_hall + rise·(torque/35)²
        following error = 0.02 + 0.03·v + noise + 0.06·encoder + 0.02·wear
        P = Σ torque·(0.2 + v) + standby
    """

    def __init__(self, units: Streams, enterprises: Streams, interval_s: float) -> None:
        self._units = units
        self._shifts, self._hall = Shifts(units, enterprises), Hall(units, enterprises)
        self._cycle_s = units.uniform("cycle", *CYCLE_S)
        self._payload = units.uniform("payload", 0.75, 1.15)  # A: what it carries
        self._offsets = [units.uniform(f"offset_{j}") for j in range(JOINTS)]
        self._worn_joint = units.pick("worn_joint", range(JOINTS), (1.0, 3.0, 3.0, 1.0, 1.0, 1.0))  # A
        self._all = np.arange(len(units))
        self._pace = Autoregression(units, "pace", interval_s, 60.0)
        self._repeats = units.uniform("repeats", 0.03, 0.06)  # N: ISO 9283 describes the measure
        self._motors = [FirstOrder(interval_s, 1800.0) for _ in range(JOINTS)]  # A
        self._meters = Consumption(len(units), interval_s)

    def step(
        self, k: int, t_ms: Times, faults: Severities = SOUND, controls: Controls = AUTOMATIC
    ) -> dict[str, Values]:
        wear, flexspline, encoder = faults["reducer_wear"], faults["flexspline"], faults["encoder"]
        noise = self._units.normal
        running = controls.working(self._shifts.running(t_ms))
        faster = controls.value("speed", 1.0, 0.01)
        hall = self._hall.temperature_c(t_ms)
        pace = 1.0 + 0.004 * self._pace.step(k)  # A
        cycle_ms = self._cycle_s * 1000.0 / faster
        # C: a measured arm was idle half of the time, and the CV of its cycles was .39: in each cycle it
        # waits for a part or for others.
        cycles = t_ms / (
            self._cycle_s * 1000.0
        )  # at the programme's speed, so a slower arm has the same luck
        number = cycles.astype(np.int64)
        share = self._units.chance_of("moves", self._all, number)
        moves = ((cycles - number) < 0.15 + 0.7 * share).astype(np.float64)
        waits = self._units.chance_of("waits", self._all, number - 1)
        # Ten moments up to the sample, one a row; programs restart every hour.
        phase = ((t_ms % 3_600_000) - BEFORE_MS[:, np.newaxis]) / cycle_ms
        torques: dict[str, Values] = {}
        temperatures: dict[str, Values] = {}
        work = np.zeros(len(self._units))
        fastest = np.zeros(len(self._units))
        for j in range(JOINTS):
            turn = phase * STROKES[j] + self._offsets[j]
            speed = np.abs(cos_turns(turn)) * faster * moves
            acceleration = cos_turns(turn + 0.25) * (faster * faster) * moves
            # The arm reaches further out and back in as the cycle goes; hardly so within a second.
            weight = GRAVITY[j] * self._payload * (0.8 + 0.2 * cos_turns(phase[-1] + self._offsets[j]))
            before = self._motors[j].value
            warm = hall + 25.0 if before is None else before
            rubbing = moves * friction(speed, warm, wear * (self._worn_joint == j))
            moving = weight + INERTIA * self._payload * acceleration
            # Gravity and inertia work both ways, friction always against: rms of the two and the moments.
            square = mean_of_rows(moving * moving + rubbing * rubbing)
            chance = 1.0 + 0.02 * noise(f"torque_{j}", k)
            torque = running * np.sqrt(square) * chance
            torques[f"torque_{j + 1}"] = torque
            share = torque / 35.0
            temperatures[f"motor_temp_{j + 1}"] = self._motors[j].step(hall + RISE_C * share * share)
            work = work + torque * (0.2 + mean_of_rows(speed))
            fastest = np.maximum(fastest, speed.max(axis=0))
        chance = np.abs(noise("error", k))
        error = running * (0.02 + 0.03 * fastest + 0.012 * chance + 0.06 * encoder + 0.02 * wear)  # A
        power = running * RATED_KW * work / (100.0 * JOINTS) + STANDBY_KW
        return {
            **torques,
            **temperatures,
            "following_error": error,
            "cycle_time": running * self._cycle_s / faster * pace * (0.55 + 1.15 * waits * waits),
            "repeatability": self._repeats * (1.0 + 0.15 * noise("repeats", k))
            + 0.03 * wear
            + 0.025 * flexspline,
            "band_current": running
            * exact.sway(0.25 * noise("band_current", k))
            * (1.0 + 1.6 * flexspline),  # A
            "band_vibration": 0.02  # A: the floor's
            + running
            * 0.28
            * exact.sway(0.25 * noise("band_vibration", k))
            * (1.0 + 1.6 * flexspline + 0.4 * wear),
            **self._meters.step(k, power, GRID_KG_PER_KWH * power),
        }
