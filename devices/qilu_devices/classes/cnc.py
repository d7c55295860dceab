"""CNC milling machines by the rules of the AI4I 2020 data set: P = T·ω, tool wear by the part, five ways to
fail.

A part takes as many minutes as it wears the tool (5, 3 or 2 by quality H, M, L; S) and has its torque; speed
falls with torque (C: fitted to AI4I's 1539 ± 179 rpm and 40 ± 10 Nm). The failure rules hold for every
sample: heat dissipation (process less than 8.6 K above air and below 1380 rpm), power (below 3500 or above
9000 W), overstrain (wear × torque above 11,000/12,000/13,000 min·Nm for L/M/H), tool wear (at the end of a
tool's life, within 200-240 min), random (0.1 % of parts). Faults make a rule's cause likely. Marks of
constants: S source found, C computed, N standard named but not checked, A assumed.
"""

from __future__ import annotations

import math

import numpy as np

from qilu_devices.controls import AUTOMATIC, Controls
from qilu_devices.emissions import GRID_KG_PER_KWH
from qilu_devices.kernel import SOUND, Consumption, FirstOrder, Severities, Times
from qilu_devices.noise import Autoregression, Indices, Streams, Values
from qilu_devices.shifts import Shifts

PART_MIN = np.array([2.0, 3.0, 5.0])  # S: minutes of wear of a part
OVERSTRAIN_MIN_NM = np.array([11_000.0, 12_000.0, 13_000.0])  # S, C
HEAT_K, HEAT_RPM = 8.6, 1380.0  # S, C
POWER_LOW_W, POWER_HIGH_W = 3500.0, 9000.0  # S, C
TOOL_LIFE_MIN, TOOL_LIFE_MAX = 200.0, 240.0  # S
TOOL_FAILS = 0.42  # C: 51 of 120 tools that came to their end failed, the others were changed in time
RANDOM_SHARE = 0.001  # S
TWF, HDF, PWF, OSF, RNF = 1.0, 2.0, 4.0, 8.0, 16.0

TORQUE_NM, TORQUE_SD = 40.0, 10.0  # S
WITHIN_NM = 5.0  # A: of it within a part, as cuts change
CUT_S = 15.0  # A
PART_SD = math.sqrt(TORQUE_SD * TORQUE_SD - WITHIN_NM * WITHIN_NM)
# A: minutes in which a part is taken out and the next clamped, by machine; by part from half to double.
HANDLING_MIN = (0.3, 1.2)
# Speed over torque (C: fitted, so that mean and deviation of both and the rates of failure are AI4I's), and
# what is left of chance.
_CURVE_NM = np.array([3.8, 13.0, 20.0, 30.0, 40.0, 50.0, 60.0, 80.0])
_CURVE_RPM = np.array([2800.0, 2400.0, 2030.0, 1700.0, 1500.0, 1400.0, 1330.0, 1230.0])
SPEED_SD = 50.0  # C
MIN_RPM, MAX_RPM = 1168.0, 2886.0  # S
AIR_K, AIR_SD, PROCESS_SD = 300.0, 2.0, 1.0  # S
PROCESS_RISE_K = 10.0  # S
COOLANT_KW, STANDBY_KW, DRIVE_EFFICIENCY = 1.5, 0.4, 0.85  # A
RAD_PER_S = math.pi / 30.0


class CncMachines:
    """The kernel of class `cnc`; see `qilu_devices.kernel.Kernel`.

    Equations::

        P = T·ω
        T by the part and within it, N(40, 10) Nm in all;  n falls with T, fitted to 1539 ± 179 rpm
        wear += 2, 3 or 5 min at each part's end;  tool life 200-240 min
        process − air = rise·(first-order) + noise
        HDF: process − air < 8.6 K and n < 1380 rpm;  PWF: P < 3.5 kW or P > 9 kW
        OSF: wear·T > 11,000/12,000/13,000 min·Nm (L/M/H);  TWF: at the tool's end;  RNF: 0.1 % of parts
    """

    def __init__(self, units: Streams, enterprises: Streams, interval_s: float) -> None:
        count = len(units)
        self._units, self._minutes = units, interval_s / 60.0
        self._shifts = Shifts(units, enterprises)
        self._air = Autoregression(units, "air", interval_s, 24.0 * 3600.0)  # A: a random walk in the source
        self._process = Autoregression(units, "process", interval_s, 6.0 * 3600.0)  # A
        self._ripple = Autoregression(units, "ripple", interval_s, CUT_S)
        self._rise = FirstOrder(interval_s, 300.0)  # A: how fast it warms and cools
        self._handling_min = units.uniform("handling", *HANDLING_MIN)
        self._meters = Consumption(count, interval_s)
        self._part: Indices = np.zeros(count, dtype=np.int64)
        self._tool: Indices = np.zeros(count, dtype=np.int64)
        self._quality = np.zeros(count)
        self._torque, self._speed_noise = np.zeros(count), np.zeros(count)
        self._left_min = np.zeros(count)  # of the part
        self._random = np.zeros(count)  # this part's chance, in [0, 1)
        self._life, self._fails = np.zeros(count), np.zeros(count, dtype=bool)
        self.wear_min = np.rint(units.uniform("wear", 0.0, TOOL_LIFE_MIN - 1.0))
        everyone = np.arange(count)
        self._new_tools(everyone)
        self._new_parts(everyone)
        self._left_min = self._left_min * units.uniform("phase")  # the first part is under way

    def _new_parts(self, which: Indices) -> None:
        numbers = self._part[which]
        quality = np.searchsorted(
            np.array([0.6, 0.9]), self._units.chance_of("quality", which, numbers), side="right"
        )
        self._quality[which] = quality
        handling = 0.5 + 1.5 * self._units.chance_of("handling", which, numbers)
        # The time by which the last part overran is taken from the next one.
        late = np.minimum(self._left_min[which], 0.0)
        self._left_min[which] = late + PART_MIN[quality] + self._handling_min[which] * handling
        torque = TORQUE_NM + PART_SD * self._units.normal_of("torque", which, numbers)
        self._torque[which] = torque
        self._speed_noise[which] = SPEED_SD * self._units.normal_of("speed", which, numbers)
        self._random[which] = self._units.chance_of("random", which, numbers)

    def _new_tools(self, which: Indices) -> None:
        numbers = self._tool[which]
        span = TOOL_LIFE_MAX - TOOL_LIFE_MIN
        self._life[which] = TOOL_LIFE_MIN + span * self._units.chance_of("life", which, numbers)
        self._fails[which] = self._units.chance_of("fails", which, numbers) < TOOL_FAILS

    def _advance(self, running: Values) -> None:
        """One interval of work: parts end, wear their tool, and the next begin; a tool at its end is
        changed."""
        self._left_min = self._left_min - self._minutes * running
        done = np.flatnonzero(self._left_min <= 0.0)
        if not len(done):
            return
        self.wear_min[done] += PART_MIN[self._quality[done].astype(np.int64)]
        worn = done[self.wear_min[done] >= self._life[done]]
        self._tool[worn] += 1
        self.wear_min[worn] = 0.0
        self._new_tools(worn)
        self._part[done] += 1
        self._new_parts(done)

    def step(
        self, k: int, t_ms: Times, faults: Severities = SOUND, controls: Controls = AUTOMATIC
    ) -> dict[str, Values]:
        running = controls.working(self._shifts.running(t_ms))
        override = controls.value("speed_override", 1.0, 0.01)
        if k > 0:
            self._advance(running * override)
        hot, strong, strained = faults["hdf"], faults["pwf"], faults["osf"]
        # A: a spindle that draws too much, and one that is strained at less speed.
        heavier = (1.0 + 0.5 * strong) * (1.0 + 0.4 * strained)
        # A part is clamped first, and then cut.
        cutting = running * (self._left_min <= PART_MIN[self._quality.astype(np.int64)])
        cut = np.maximum(self._torque + WITHIN_NM * self._ripple.step(k), 3.8)
        torque = cutting * cut * heavier
        speed = np.interp(cut, _CURVE_NM, _CURVE_RPM) + self._speed_noise
        speed = cutting * np.clip(speed, MIN_RPM, MAX_RPM) * (1.0 - 0.15 * strained) * (1.0 - 0.2 * hot)
        speed = np.minimum(speed * override, MAX_RPM)
        power = torque * speed * RAD_PER_S

        air = AIR_K + AIR_SD * self._air.step(k)
        # A: without coolant the process runs up to 3 K closer to the air (so the source's rule has it).
        rise = (PROCESS_RISE_K - 3.0 * hot) * self._rise.step(running)
        process = air + rise + PROCESS_SD * self._process.step(k) * (rise > 5.0)
        quality = self._quality.astype(np.int64)
        # The last part of a tool that fails; with the fault, tools are left in until they do, and worn ones
        # too.
        worn = faults["twf"]
        wear = self.wear_min + (TOOL_LIFE_MAX - self.wear_min) * worn
        last = (self.wear_min + PART_MIN[quality] >= self._life) & self._fails
        overstrain = wear * torque > OVERSTRAIN_MIN_NM[quality]
        failure = (
            TWF * (last | ((wear >= TOOL_LIFE_MIN) & (worn > 0.0)))
            + HDF * ((process - air < HEAT_K) & (speed < HEAT_RPM))
            + PWF * ((power < POWER_LOW_W) | (power > POWER_HIGH_W))
            + OSF * overstrain
            + RNF * (self._random < RANDOM_SHARE + 0.5 * faults["rnf"])
        )
        electric = (power / 1000.0 / DRIVE_EFFICIENCY + COOLANT_KW) * cutting + STANDBY_KW
        return {
            "spindle_speed": speed,
            "torque": torque,
            "spindle_power": power,
            "tool_wear": wear,
            "air_temp": air,
            "process_temp": process,
            "quality": self._quality.copy(),
            "failure": cutting * failure,
            "parts": self._part.astype(np.float64),
            **self._meters.step(k, electric, GRID_KG_PER_KWH * electric),
        }
