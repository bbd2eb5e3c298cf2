"""Scores of parts of the queries: by composer, by recording, by how many notes sound.

Every part is ranked in the same pools as the whole, so a part's score is an average over its queries
and the parts' averages, weighted by their queries, are the whole's.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from trainer.retrieval.gallery import Gallery, IntArray
from trainer.retrieval.metrics import Ranks

DENSITIES = 4
AT = (1, 10)

Mask = npt.NDArray[np.bool_]


def breakdown(gallery: Gallery, queries: IntArray, a2m: Ranks, m2a: Ranks) -> dict[str, Any]:
    """Scores by ``composer``, ``recording`` and ``density``.

    Parameters
    ----------
    queries : rows of the gallery [Q]
    a2m, m2a : rank of the positive [Q]

    Returns
    -------
    ``{"composer": {name: part}, "recording": {name: part}, "density": {"12–25 notes": part}}``, a
    part being ``queries, a2m{R@1, R@10}, m2a{R@1, R@10}, S``.
    """
    parts = {"composer": _composers, "recording": _recordings, "density": _densities}
    return {
        kind: {name: _part(a2m[mask], m2a[mask]) for name, mask in split(gallery, queries)}
        for kind, split in parts.items()
    }


def _part(a2m: Ranks, m2a: Ranks) -> dict[str, Any]:
    found: dict[str, Any] = {"queries": len(a2m)}
    for name, ranks in (("a2m", a2m), ("m2a", m2a)):
        found[name] = {f"R@{k}": float(np.mean(ranks < k)) for k in AT}
    found["S"] = min(found[side][f"R@{AT[-1]}"] for side in ("a2m", "m2a"))
    return found


def _composers(gallery: Gallery, queries: IntArray) -> Iterator[tuple[str, Mask]]:
    code = gallery.composer[queries]
    for one in np.unique(code):
        yield gallery.composers[one], code == one


def _recordings(gallery: Gallery, queries: IntArray) -> Iterator[tuple[str, Mask]]:
    recording = gallery.recording[queries]
    for one in np.unique(recording):
        yield gallery.recordings[int(one)], recording == one


def _densities(gallery: Gallery, queries: IntArray) -> Iterator[tuple[str, Mask]]:
    """Quarters of the queries by the notes in their window; equal numbers stay together."""
    notes = gallery.notes[queries]
    edges = np.unique(np.quantile(notes, np.arange(1, DENSITIES) / DENSITIES, method="lower"))
    quarter = np.searchsorted(edges, notes, side="left")
    for one in np.unique(quarter):
        inside = quarter == one
        low, high = int(notes[inside].min()), int(notes[inside].max())
        yield f"{low}–{high} notes" if low < high else f"{low} notes", inside
