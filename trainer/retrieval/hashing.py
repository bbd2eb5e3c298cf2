"""Integer hashing in place of a random generator, where a draw must never change.

A library's generator may change its stream between versions; this arithmetic cannot. The mixer is
splitmix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Keys = npt.NDArray[np.uint64]


def pair_keys(first: npt.NDArray[Any], second: npt.NDArray[Any], seed: int) -> Keys:
    """Hash of every pair of non-negative integers [Q] and [C]: uint64 [Q, C].

    The mixer is a bijection, so distinct ``second`` get distinct keys beside the same ``first``.
    """
    base = splitmix64(splitmix64(np.array([seed], np.uint64)) ^ first.astype(np.uint64))
    return splitmix64(base[:, None] ^ second.astype(np.uint64)[None, :])


def splitmix64(values: Keys) -> Keys:
    """The splitmix64 step on an array of uint64, modulo 2⁶⁴."""
    z = values + np.uint64(0x9E3779B97F4A7C15)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        z ^= z >> np.uint64(shift)
        z *= np.uint64(factor)
    z ^= z >> np.uint64(31)
    return z
