"""The stateless hash behind every random number that has to be the same everywhere: the finaliser of
splitmix64 (Steele, Lea, Flood 2014) on arrays of uint64, in exact whole-number arithmetic.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.uint64]

MASK = 0xFFFF_FFFF_FFFF_FFFF
GAMMA = 0x9E3779B97F4A7C15
_GAMMA = np.uint64(GAMMA)
_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_SHIFT_1, _SHIFT_2, _SHIFT_3, _11 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(11)


def mix(keys: Keys) -> Keys:
    """A bijective, well mixed map of uint64 to uint64."""
    z = keys + _GAMMA
    z ^= z >> _SHIFT_1  # in place: half of the time went to new arrays
    z *= _MIX_1
    z ^= z >> _SHIFT_2
    z *= _MIX_2
    z ^= z >> _SHIFT_3
    return z


def text_key(text: str) -> int:
    """64 bits of a name: the same everywhere, unlike `hash`."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def text_keys(texts: Iterable[str]) -> Keys:
    """`text_key` of each."""
    blake = hashlib.blake2b
    digests = b"".join([blake(text.encode(), digest_size=8).digest() for text in texts])
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def seed_key(seed: int) -> Keys:
    """The key of a seed (any integer; its lowest 64 bits count), as an array of one."""
    return mix(np.array([seed & MASK], dtype=np.uint64))


def uniforms(hashes: Keys) -> NDArray[np.float64]:
    """Hashes as float64 in [0, 1): the upper 53 bits, exactly."""
    return np.asarray((hashes >> _11).astype(np.float64) * 2.0**-53)
