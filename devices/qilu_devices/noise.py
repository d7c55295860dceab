"""Counter-based random numbers: a stateless hash of (seed, unit, stream, step), so nothing depends on how
many units there are, in which order they are computed, or in which process.

The hash is that of `qilu_common.splitmix`. A normal number is the sum
of the four 16-bit uniforms in one hash: whole-number arithmetic up to one division, hence the same on every
processor; it is bounded by ±3.46 standard deviations, which keeps signals within physical bounds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from qilu_common.splitmix import GAMMA, MASK, Keys, mix, seed_key, text_key, text_keys, uniforms

from qilu_devices import exact

Values = NDArray[np.float64]
Indices = NDArray[np.int64]

_GAMMA = np.uint64(GAMMA)
_LOW_16 = np.uint64(0xFFFF)
_16, _32, _48 = np.uint64(16), np.uint64(32), np.uint64(48)

# Four uniforms on 0..65535: mean 4·65535/2, variance 4·(65536² − 1)/12.
_SUM_MEAN = 2.0 * 65535.0
_SUM_SD = float(np.sqrt((65536.0**2 - 1.0) / 3.0))
NORMAL_BOUND = _SUM_MEAN / _SUM_SD
"""No normal number is further from zero than this (3.464…)."""


def keys_of(seed: int, names: Iterable[str]) -> Keys:
    """One key per name under a seed (any integer; its lowest 64 bits count)."""
    return mix(text_keys(names) ^ seed_key(seed))


class Streams:
    """Named random streams of an array of units. A parameter of a unit is a draw that has no step."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._streams: dict[str, Keys] = {}  # of what is drawn at each step

    def __len__(self) -> int:
        return len(self._keys)

    def _stream(self, name: str) -> Keys:
        keys = self._streams.get(name)
        if keys is None:
            keys = self._streams[name] = mix(self._keys ^ np.uint64(text_key(name)))
        return keys

    def uniform(self, name: str, low: float = 0.0, high: float = 1.0) -> Values:
        """One number per unit in [low, high), fixed for the unit's life."""
        return low + (high - low) * uniforms(mix(mix(self._keys ^ np.uint64(text_key(name)))))

    def pick(self, name: str, options: Sequence[float], weights: Sequence[float]) -> Values:
        """One of the options per unit, fixed for its life, with probability by weight."""
        edges = np.cumsum(np.asarray(weights, dtype=np.float64))
        index = np.searchsorted(edges / edges[-1], self.uniform(name), side="right")
        return np.asarray(options, dtype=np.float64)[np.minimum(index, len(options) - 1)]

    def normal(self, name: str, step: int) -> Values:
        """One number per unit and step, mean 0, variance 1."""
        return _normals(mix(self._stream(name) + np.uint64(step * GAMMA & MASK)))

    def chance(self, name: str, step: int) -> Values:
        """One number per unit and step in [0, 1)."""
        return uniforms(mix(self._stream(name) + np.uint64(step * GAMMA & MASK)))

    def normal_of(self, name: str, which: Indices, numbers: Indices) -> Values:
        """One number for each of the units `which` (indices), mean 0, variance 1, for the unit's event with
        that number (≥ 0)."""
        return _normals(self._of(name, which, numbers))

    def chance_of(self, name: str, which: Indices, numbers: Indices) -> Values:
        """Like `normal_of`, in [0, 1)."""
        return uniforms(self._of(name, which, numbers))

    def _of(self, name: str, which: Indices, numbers: Indices) -> Keys:
        stream = mix(self._keys[which] ^ np.uint64(text_key(name)))
        return mix(stream + numbers.astype(np.uint64) * _GAMMA)


def _normals(h: Keys) -> Values:
    total = (h & _LOW_16) + ((h >> _16) & _LOW_16) + ((h >> _32) & _LOW_16) + (h >> _48)
    return np.asarray((total.astype(np.float64) - _SUM_MEAN) / _SUM_SD)


class Autoregression:
    """A first-order autoregressive process of every unit: mean 0, variance 1, correlation exp(−Δ/τ) from step
    to step.

    It starts in its stationary state, so the run has no warm-up. Steps are to be taken in order, from 0.
    """

    def __init__(self, streams: Streams, name: str, interval_s: float, tau_s: float) -> None:
        self._streams, self._name = streams, name
        self._keep = float(exact.exp(-interval_s / tau_s))
        self._add = float(np.sqrt(1.0 - self._keep**2))
        self.value = np.zeros(len(streams))

    def step(self, step: int) -> Values:
        draw = self._streams.normal(self._name, step)
        self.value = draw if step == 0 else self._keep * self.value + self._add * draw
        return self.value


SHOCKS, SHOCK, CALM = 0.06, 3.0, 0.62  # one shock in sixteen is five times the others; their variance is 1
_SCALE = 1.0 / float(np.sqrt(SHOCKS * SHOCK**2 + (1.0 - SHOCKS) * CALM**2))


class HeavyTailed(Autoregression):
    """A first-order process as `Autoregression`, variance 1, whose shocks have heavy tails: their kurtosis is
    about 19, the measured one of a wind turbine's ten-minute changes (C)."""

    def step(self, step: int) -> Values:
        draw = self._streams.normal(self._name, step)
        if step == 0:
            self.value = draw
        else:
            large = self._streams.chance(self._name + "/large", step) < SHOCKS
            self.value = self._keep * self.value + (self._add * _SCALE) * np.where(large, SHOCK, CALM) * draw
        return self.value
