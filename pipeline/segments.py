"""Performances → the notes of each segment (method §1.2, §1.4).

A note belongs to every segment that it overlaps: ``onset < t + 4`` and ``end > t``. Notes are not
clipped: onsets relative to t may be negative, durations are whole.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.midi import Performance
from pipeline.store.schema import Segmentation

VERSION = 1  # counts up when note rows change: part of a store's identity
BUCKETS = 32
SHORTEST_S, LONGEST_S = 0.05, 4.0


def duration_buckets(duration_s: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    """Logarithmic duration bucket 0–31: floor(ln(d / 0.05) / ln(80) · 31), d clipped to 0.05–4 s."""
    clipped = np.clip(duration_s, SHORTEST_S, LONGEST_S)
    scaled = np.log(clipped / SHORTEST_S) / np.log(LONGEST_S / SHORTEST_S) * (BUCKETS - 1)
    return np.clip(np.floor(scaled), 0, BUCKETS - 1).astype(np.uint8)


def count_rows(performance: Performance, n_segments: int, segmentation: Segmentation) -> int:
    """How many rows :func:`cut_notes` would give."""
    return int(_spans(performance, n_segments, segmentation)[1].sum())


def cut_notes(
    performance: Performance, n_segments: int, segmentation: Segmentation
) -> dict[str, npt.NDArray[Any]]:
    """One row per (segment, note), in (segment, onset, pitch, end, velocity) order.

    Returns
    -------
    dict with ``segment`` int32 (within the recording), ``pitch``, ``velocity``,
    ``duration_bucket`` uint8, ``onset_s`` (relative to the segment), ``duration_s`` float32.
    """
    hop = segmentation.hop_s
    first, repeats = _spans(performance, n_segments, segmentation)
    note = np.repeat(np.arange(len(performance)), repeats)
    within = np.arange(len(note)) - np.repeat(np.cumsum(repeats) - repeats, repeats)
    segment = first[note] + within
    order = np.argsort(segment, kind="stable")
    note, segment = note[order], segment[order]
    duration = performance.end_s - performance.onset_s
    return {
        "segment": segment.astype(np.int32),
        "pitch": performance.pitch[note],
        "velocity": performance.velocity[note],
        "duration_bucket": duration_buckets(duration)[note],
        "onset_s": (performance.onset_s[note] - segment * hop).astype(np.float32),
        "duration_s": duration[note].astype(np.float32),
    }


def _spans(
    performance: Performance, n_segments: int, segmentation: Segmentation
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """First segment of every note, and how many it overlaps."""
    hop, length = segmentation.hop_s, segmentation.segment_s
    # Integer arithmetic on the segment index: t < end and t > onset - length, both strict.
    first = np.floor((performance.onset_s - length) / hop).astype(np.int64) + 1
    last = np.ceil(performance.end_s / hop).astype(np.int64) - 1
    first, last = np.maximum(first, 0), np.minimum(last, n_segments - 1)
    return first, np.maximum(last - first + 1, 0)
