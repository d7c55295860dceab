"""Air-jet looms: Poisson stops per pick, repairs of exponential length, η = run/(run + stop).

Stops: 58 % for the warp, 34 % for the weft, 8 % other; a warp repair takes 2.87 min in the mean (S). Faults
raise the rate of one kind of stop, or leak air. Marks of constants: S source found, C computed, N standard
named but not checked, A assumed.
"""

from __future__ import annotations

import numpy as np

from qilu_devices import exact
from qilu_devices.controls import AUTOMATIC, Controls
from qilu_devices.emissions import GRID_KG_PER_KWH
from qilu_devices.kernel import SOUND, Consumption, FirstOrder, Meter, Severities, Times
from qilu_devices.noise import Autoregression, Streams, Values

# Warp, weft, other.
STOPS_PER_1E5 = np.array([3.0, 1.76, 0.41])  # A: level; S: split 58/34/8 %
REPAIR_MIN = np.array([2.87, 1.2, 6.0])  # S: warp; A: the others
LONGEST_MIN = 45.0  # A
PICKS_PER_1E5 = 1e5
AIR_KWH_PER_NM3 = 0.11  # C: 6.5 kW for 1 m³/min


class Looms:
    """The kernel of class `loom`; see `qilu_devices.kernel.Kernel`. They weave round the clock.

    Equations::

        P(stop within n picks) = 1 − e^(−λ·n);  λ of warp, weft, other = 58, 34, 8 % of the level
        stop length exponential, mean 2.87 min (warp);  η = run/(run + stop), over about an hour
        air = a·speed/600 + 1 + 8·air_leak;  P = 0.5 + 3.2·(speed/600)²
        energy = P + the compressed air's
    """

    def __init__(self, units: Streams, enterprises: Streams, interval_s: float) -> None:
        count = len(units)
        self._units, self._interval_s = units, interval_s
        self.rated_ppm = units.uniform("speed", 530.0, 680.0)  # S: 600 in the study; A: spread
        self._level = units.uniform("level", 0.6, 1.6)  # A: yarn and style
        self._air = units.uniform("air", 38.0, 52.0)  # A: Nm³/h at 600 picks/min
        self._pace = Autoregression(units, "pace", interval_s, 120.0)  # A
        self._draught = Autoregression(units, "draught", interval_s, 1800.0)  # A
        self._counts = [self._level * stops for stops in STOPS_PER_1E5]
        self._efficiency = FirstOrder(interval_s, 3600.0)  # A: what "over about an hour" means
        self._picks = Meter(count, interval_s)
        self._meters = Consumption(count, interval_s)
        self.stop_left_s = np.zeros(count)
        self._stop_min = np.full(count, REPAIR_MIN[0])

    def step(
        self, k: int, t_ms: Times, faults: Severities = SOUND, controls: Controls = AUTOMATIC
    ) -> dict[str, Values]:
        # A: bad yarn or a bad style breaks up to 4 times as often.
        worse = (faults["warp_break"], faults["weft_break"], faults["mechanical_electrical"])
        rates = [self._level * STOPS_PER_1E5[i] * (1.0 + 3.0 * worse[i]) / PICKS_PER_1E5 for i in range(3)]
        before = self.stop_left_s
        running = controls.allowed((before <= 0.0).astype(np.float64))
        rated_ppm = controls.value("speed", self.rated_ppm)
        picks = running * rated_ppm * (self._interval_s / 60.0)
        total = rates[0] + rates[1] + rates[2]
        # The chance of a stop within the interval's picks, 1 − e^(−λ·n), by its series: λ·n is below 0.1.
        expected = total * picks
        stops = self._units.chance("stop", k) < expected * (1.0 - expected * (0.5 - expected * (1.0 / 6.0)))
        left = np.maximum(before - self._interval_s, 0.0)
        # Counts over about the last 1e5 picks: each pick forgets 1e-5 of them.
        keep = 1.0 - picks * (1.0 / PICKS_PER_1E5)
        counts = [count * keep for count in self._counts]
        if stops.any():
            kind_draw = self._units.chance("kind", k) * total
            kind = (kind_draw >= rates[0]).astype(np.int64) + (kind_draw >= rates[0] + rates[1])
            length = -exact.log(1.0 - self._units.chance("length", k)) * REPAIR_MIN[kind]
            length = np.clip(length, 0.3, LONGEST_MIN)  # A: nobody is at the loom at once
            left = np.where(stops, 60.0 * length, left)
            self._stop_min = np.where(stops, length, self._stop_min)
            counts = [count + (stops & (kind == i)) for i, count in enumerate(counts)]
        self.stop_left_s, self._counts = left, counts

        speed = running * rated_ppm * (1.0 + 0.003 * self._pace.step(k))
        relative = speed / 600.0
        leak = 8.0 * faults["air_leak"]  # A: Nm³/h, also at a stop
        air = self._air * relative * (1.0 + 0.04 * self._draught.step(k)) + 1.0 + leak
        power = 0.5 + 3.2 * relative * relative  # A
        taken = power + AIR_KWH_PER_NM3 * air
        weaving = running if k else np.full(len(self._units), 0.93)  # A: the hour before the run
        return {
            "speed": speed,
            "warp_stops": counts[0],
            "weft_stops": counts[1],
            "other_stops": counts[2],
            "stop_duration": self._stop_min,
            "efficiency": 100.0 * self._efficiency.step(weaving),
            "air_flow": air,
            "picks": np.floor(self._picks.step(k, 60.0 * speed)),
            "power_in": power,
            **self._meters.step(k, taken, GRID_KG_PER_KWH * taken),
        }
