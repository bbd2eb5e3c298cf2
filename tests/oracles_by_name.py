"""Which float64 oracle judges which descriptor: of samples [96000], or of a segment's notes."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import numpy as np
import oracles
import oracles_recurrence
from oracles_attractors import bin_activations, peak_activations, rarity, rounded

RECURRENCE = ("A10a", "A10b", "A10c", "A10d", "A10e", "A10cs", "A10c_level")


def recurrence(name: str, samples: np.ndarray) -> np.ndarray:
    return family(samples.tobytes())[name]


@lru_cache(maxsize=1)  # the seven are computed together
def family(samples: bytes) -> dict[str, np.ndarray]:
    return oracles_recurrence.everything(np.frombuffer(samples, np.float32))


def gated(samples: np.ndarray, *, before: bool) -> np.ndarray:
    chroma, gate = oracles.chroma_and_gate(samples)
    if before:
        return oracles.shares(chroma * gate[:, None])
    return oracles.shares(chroma) * gate[:, None]


def rare(raw: np.ndarray, *, shared: bool) -> np.ndarray:
    idf = rarity((oracles.shares(raw) if shared else raw) > 0.05)
    return oracles.shares(raw * idf)


SOUND: dict[str, Callable[[Any], Any]] = {
    "mel": oracles.mel,
    "A4": oracles.a4,
    "A4_level": lambda s: oracles.a4_levels(s).mean(axis=0),
    "A7": lambda s: oracles.shares(bin_activations(rounded(s))),
    "A7s": lambda s: oracles.shares(peak_activations(rounded(s))),
    "A8": lambda s: gated(s, before=True),
    "A8s": lambda s: gated(s, before=False),
    "A9": lambda s: rare(bin_activations(rounded(s)), shared=False),
    "A9s": lambda s: rare(peak_activations(rounded(s)), shared=True),
    **{name: partial(recurrence, name) for name in RECURRENCE},
}
NOTES: dict[str, Callable[[Any], Any]] = {
    "D1": lambda n: oracles.pair_histograms(n)[:, 2],
    "D2": lambda n: oracles.pair_histograms(n).reshape(-1),
    "D3": oracles.d3,
    "D4": lambda n: oracles.d4(n.pitch.tolist()),
    "D4s": lambda n: oracles.d4(n.pitch.tolist())[:, :2],
    "D5": oracles.d5,
}
