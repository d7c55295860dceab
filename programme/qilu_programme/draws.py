"""Counter-based random numbers: a stateless hash of (seed, stream, index), so a draw of one enterprise
depends on nothing but the seed and its own number. Two scenarios with one seed therefore share their luck:
what differs between them is the policy.

The hash is the finaliser of splitmix64 (Steele, Lea, Flood 2014) on uint64 arrays, as in the simulated
fleets.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
Whole = NDArray[np.int64]
Mask = NDArray[np.bool_]

_LOW_64 = 0xFFFF_FFFF_FFFF_FFFF
_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_SHIFT_1, _SHIFT_2, _SHIFT_3, _11 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(11)


def _mix(keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = keys + _GAMMA
    z = (z ^ (z >> _SHIFT_1)) * _MIX_1
    z = (z ^ (z >> _SHIFT_2)) * _MIX_2
    return z ^ (z >> _SHIFT_3)


class Draws:
    """The random numbers of one seed."""

    def __init__(self, seed: int) -> None:
        self._salt = _mix(np.array([seed & _LOW_64], dtype=np.uint64))

    def uniform(self, stream: str, index: NDArray[Any]) -> Values:
        """One number in [0, 1) for each index, from a named stream."""
        name = int.from_bytes(hashlib.blake2b(stream.encode(), digest_size=8).digest(), "little")
        salt = _mix(self._salt ^ np.uint64(name))
        hashes = _mix(_mix(index.astype(np.uint64)) ^ salt)
        return np.asarray((hashes >> _11).astype(np.float64) * 2.0**-53)

    def one(self, stream: str, index: int) -> float:
        """A single number in [0, 1)."""
        return float(self.uniform(stream, np.array([index]))[0])

    def exponential(self, stream: str, index: NDArray[Any]) -> Values:
        """Mean 1."""
        return np.asarray(-np.log1p(-self.uniform(stream, index)))

    def normal(self, stream: str, index: NDArray[Any]) -> Values:
        """Mean 0, variance 1 (Box and Muller 1958)."""
        radius = np.sqrt(2.0 * self.exponential(stream + " radius", index))
        return np.asarray(radius * np.cos(2.0 * np.pi * self.uniform(stream + " angle", index)))

    def poisson(self, stream: str, index: int, mean: float) -> int:
        """A Poisson number: by inversion up to a mean of 30, beyond that rounded from a normal one."""
        if mean <= 0.0:
            return 0
        if mean > 30.0:
            wanted = mean + float(np.sqrt(mean)) * float(self.normal(stream, np.array([index]))[0])
            return max(0, round(wanted))
        left, count = self.one(stream, index), 0
        term = float(np.exp(-mean))
        while left >= term and count < 200:
            left -= term
            count += 1
            term *= mean / count
        return count
