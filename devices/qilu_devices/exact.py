"""Elementary functions from exactly rounded operations, so that every processor gives the same bits.

numpy computes exp, log, sin and pow with different instructions on different processors, and their last bits
differ; +, −, ×, ÷, √ and rounding do not. The functions here use these alone, on scalars and arrays. They
take the place of numpy's wherever a sample depends on them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Values = NDArray[np.float64]

LN_2 = 0.6931471805599453
# ln 2 in two parts: the first has its low bits free, so that n times it is exact (the usual split).
_LN_2_HIGH, _LN_2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
_SQRT_HALF = 0.7071067811865476


def _inverse_factorials(last: int) -> tuple[float, ...]:
    found, factorial = [], 1
    for n in range(last + 1):
        factorial *= max(n, 1)
        found.append(1.0 / factorial)
    return tuple(found)


_EXP = _inverse_factorials(13)
_LOG = tuple(2.0 / n for n in range(1, 23, 2))


def exp(x: ArrayLike) -> Values:
    """eˣ to about 1e-15; x between -700 and 700."""
    x = np.asarray(x, dtype=np.float64)
    n = np.rint(x * (1.0 / LN_2))
    r = (x - n * _LN_2_HIGH) - n * _LN_2_LOW  # |r| ≤ 0.35: thirteen terms of the series
    total = np.full_like(r, _EXP[-1])
    for term in reversed(_EXP[:-1]):
        total = total * r + term
    return np.asarray(np.ldexp(total, n.astype(np.int32)))


def log(x: ArrayLike) -> Values:
    """Natural logarithm to about 1e-15; x above 0."""
    m, e = np.frexp(np.asarray(x, dtype=np.float64))
    low = m < _SQRT_HALF
    m = np.where(low, 2.0 * m, m)
    e = np.where(low, e - 1, e)
    s = (m - 1.0) / (m + 1.0)  # ln m = 2·artanh s, |s| ≤ 0.172
    square = s * s
    total = np.full_like(s, _LOG[-1])
    for term in reversed(_LOG[:-1]):
        total = total * square + term
    return np.asarray(total * s + e * LN_2)


def power(x: ArrayLike, y: float) -> Values:
    """xʸ for x above 0."""
    return exp(y * log(x))


def cos_turns(x: ArrayLike) -> Values:
    """cos(2πx) within 0.002, and exactly 1, 0 and -1 at the quarter turns: (1 − 16q²)/(1 + 4q²), the rational
    approximation that Bhaskara gave. For daily and yearly swings and cycles of movement."""
    x = np.asarray(x, dtype=np.float64)
    q = np.abs(x - np.rint(x))  # 0 to a half turn
    far = q > 0.25
    q = np.where(far, 0.5 - q, q)
    square = q * q
    near = (1.0 - 16.0 * square) / (1.0 + 4.0 * square)
    return np.asarray(np.where(far, -near, near))


def sway(x: Values) -> Values:
    """1 + x + x²/2: eˣ for small x, above 0 for every x; a factor that is never negative."""
    return np.asarray(1.0 + x * (1.0 + 0.5 * x))
