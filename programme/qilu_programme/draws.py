"""Counter-based random numbers: a stateless hash of (seed, stream, index). A draw of an enterprise depends
only on the seed and the enterprise's number, so two scenarios with one seed share their random numbers and
differ only in policy.

The hash is that of `qilu_common.splitmix`, as in the simulated fleets.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from qilu_common.splitmix import mix, seed_key, text_key, uniforms

Values = NDArray[np.float64]
Whole = NDArray[np.int64]
Mask = NDArray[np.bool_]


class Draws:
    """The random numbers of one seed."""

    def __init__(self, seed: int) -> None:
        self._salt = seed_key(seed)

    def uniform(self, stream: str, index: NDArray[Any]) -> Values:
        """One number in [0, 1) for each index, from a named stream."""
        salt = mix(self._salt ^ np.uint64(text_key(stream)))
        return uniforms(mix(mix(index.astype(np.uint64)) ^ salt))

    def one(self, stream: str, index: int) -> float:
        """A single number in [0, 1)."""
        return float(self.uniform(stream, np.array([index]))[0])

    def exponential(self, stream: str, index: NDArray[Any]) -> Values:
        """Exponential numbers with mean 1."""
        return np.asarray(-np.log1p(-self.uniform(stream, index)))

    def normal(self, stream: str, index: NDArray[Any]) -> Values:
        """Normal numbers with mean 0 and variance 1 (Box and Muller 1958)."""
        radius = np.sqrt(2.0 * self.exponential(stream + " radius", index))
        return np.asarray(radius * np.cos(2.0 * np.pi * self.uniform(stream + " angle", index)))

    def poisson(self, stream: str, index: int, mean: float) -> int:
        """A Poisson number: by inversion up to a mean of 30, above that a rounded normal number."""
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
