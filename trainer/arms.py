"""Arms: combinations of (descriptor, mechanism) that have names in the paper or its records.

The table holds names only: nothing in the code branches on them, and an arm that nobody has named
works the same way. Counts of parameters at the paper's size are in ``xmodal-train --list arms``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pipeline.base.config import from_plain, to_plain
from pipeline.base.errors import ConfigError
from trainer.config import PairConfig
from trainer.mechanisms import MECHANISMS
from trainer.mechanisms.moe import VARIANTS

Pairs = tuple[PairConfig, ...]


def pair(descriptor: str, mechanism: str, **options: Any) -> PairConfig:
    """One descriptor, one mechanism; what is not said of its options is their default."""
    kind = MECHANISMS.get(mechanism).Options
    where = f"pairs.{descriptor}-{mechanism}.options"
    written_out = to_plain(from_plain(kind, options, where))
    return PairConfig(descriptor=descriptor, mechanism=mechanism, options=written_out)


def _tower(terms: str) -> PairConfig:
    return pair("A4", "third_tower", beside=["D4"], terms=terms)


def _experts(descriptor: str, variant: str) -> PairConfig:
    return pair(descriptor, "moe", **VARIANTS[variant])


_D4_A4 = (pair("D4", "concat"), pair("A4", "concat"))
_A4R = pair("A4", "reverse_xattn")

SCREENING: dict[str, Pairs] = {
    "d0": (),
    "d4": (pair("D4", "concat"),),
    "a4": (pair("A4", "concat"),),
    "a7": (pair("A7", "concat"),),
    "a8": (pair("A8", "concat"),),
    "a9": (pair("A9", "concat"),),
    "d4x": (pair("D4", "xattn"),),
    "a4x": (pair("A4", "xattn"),),
    "a7x": (pair("A7", "xattn"),),
    "d4r": (pair("D4", "reverse_xattn"),),
    "a4r": (_A4R,),
    "d4a4": _D4_A4,
    "d4a4cm": (pair("D4", "cm"), pair("A4", "cm")),
}
"""Phase 1, the 13 arms of the first screening (method §3.1); ``d0`` is the control."""

FAMILIES: dict[str, Pairs] = {
    "t3-tri": (*_D4_A4, _tower("tri")),
    "t3-anc": (_tower("anc"),),
    "t3-wt": (*_D4_A4, _tower("wt")),
    "film-a4": (pair("A4", "film"),),
    "film-d4": (pair("D4", "film"),),
    "film-dual": (pair("A4", "film"), pair("D4", "film")),
    "moe-a4": (_experts("A4", "v1"),),
    "moe-dual": (_experts("A4", "v1"), _experts("D4", "v1")),
    "moe-a4-v2": (_experts("A4", "v2"),),
    "moe-a4-v3": (_experts("A4", "v3"),),
    "moe-a4-v4": (_experts("A4", "v4"),),
}
"""Phase 2, the 11 larger architectures."""

LATER: dict[str, Pairs] = {
    "d4-a4r": (pair("D4", "concat"), _A4R),
    "d4a4r": (pair("D4", "reverse_xattn"), _A4R),
    "d4a7": (pair("D4", "concat"), pair("A7", "concat")),
    "d1": (pair("D1", "aux_loss"),),
    "d2": (pair("D2", "aux_loss", hidden=256, output=128),),
    "d3": (pair("D3", "aux_loss"),),
    # Modulated heads: on the sound's side by mean log band energy, on the notes' by mean D4.
    "a4r-pca": (_A4R, pair("A4_level", "film_head")),
    "a4r-pcm": (_A4R, pair("D4", "film_head")),
    "a4r-pcd": (_A4R, pair("A4_level", "film_head"), pair("D4", "film_head")),
    # Just intonation and recurrence as queries.
    "a7r": (pair("A7", "reverse_xattn"),),
    "a9r": (pair("A9", "reverse_xattn"),),
    "a10ar": (pair("A10a", "reverse_xattn"),),
    "a10br": (pair("A10b", "reverse_xattn"),),
    "a10cr": (pair("A10c", "reverse_xattn"),),
    "a10dr": (pair("A10d", "reverse_xattn"),),
    "a10er": (pair("A10e", "reverse_xattn"),),
    # Three descriptors by three mechanisms (with a7 above).
    "a10a": (pair("A10a", "concat"),),
    "a10d": (pair("A10d", "concat"),),
    "a7-pca": (pair("A7", "film_head"),),
    "a10a-pca": (pair("A10a", "film_head"),),
    "a10d-pca": (pair("A10d", "film_head"),),
    "a7-ab": (pair("A7", "attn_bias"),),
    "a10a-ab": (pair("A10a", "attn_bias"),),
    "a10d-ab": (pair("A10d", "attn_bias"),),
}
"""The combined arms, the ones with auxiliary losses, and what came after the paper."""

ARMS: dict[str, Pairs] = {**SCREENING, **FAMILIES, **LATER}


def arm_pairs(name: str) -> Pairs:
    """The pairs behind a name."""
    if name not in ARMS:
        raise ConfigError(f"unknown arm '{name}': known: {', '.join(ARMS)}")
    return ARMS[name]


def arm_name(pairs: Iterable[PairConfig]) -> str:
    """The name of a combination, or ``DESCRIPTOR-mechanism`` joined by ``+``."""
    given = sorted(pairs, key=_order)
    for name, known in ARMS.items():
        if sorted(known, key=_order) == given:
            return name
    return "+".join(f"{p.descriptor}-{p.mechanism}" for p in given)


def _order(pair: PairConfig) -> tuple[str, str]:
    return pair.descriptor, pair.mechanism
