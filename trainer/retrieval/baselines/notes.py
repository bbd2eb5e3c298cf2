"""What several baselines make of notes: attacks spread over frames, and how long a note is heard.

``spread_onsets``
    velocity / 127 at an onset, spread over a triangle of frames: no onset lies on a frame's centre,
    and the window of 2,048 samples smears an attack over four hops.
``sounding_levels``
    velocity / 127 at the onset, decaying by e every 0.5 s as strings do, and by e every further 0.1 s
    once the key is up: dampers and rooms end no sound at once. 0 before the onset and below 0.001
    (-60 dB). Notes that began before the segment have decayed by then.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.descriptors.contract import Notes
from pipeline.spectral import FRAME_S, N_FRAMES
from trainer.retrieval.baselines.contract import FloatArray

LOWEST, N_PITCHES = 21, 88  # the piano's keys as MIDI pitches
DECAY_S = 0.5
RELEASE_S = 0.1
INAUDIBLE = 1e-3


def spread_onsets(
    notes: Notes, delay_frames: float, spread_frames: float
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[Any]]]:
    """Where every onset's triangle leaves what: per frame under it, (frame, weight) of all notes [N].

    Parameters
    ----------
    delay_frames : how far behind the onset the triangle is centred
    spread_frames : its half width

    Yields
    ------
    frame : int64 [N]
        May lie outside 0 … 187.
    weight : float [N], 1 times velocity / 127 at the centre
    """
    centre = notes.onset_s.astype(np.float64) / FRAME_S + delay_frames
    for step in range(int(2 * spread_frames)):
        frame = np.floor(centre - spread_frames).astype(np.int64) + 1 + step
        weight = (1.0 - np.abs(frame - centre) / spread_frames) * notes.velocity / 127.0
        yield frame, weight


def sounding_levels(notes: Notes) -> FloatArray:
    """How loud every note still is in every frame: float32 [N, 188], 0–1 (see the module)."""
    clock = np.arange(N_FRAMES) * FRAME_S
    age = clock[None, :] - notes.onset_s.astype(np.float64)[:, None]
    released = np.maximum(age - notes.duration_s.astype(np.float64)[:, None], 0.0)
    loudness = notes.velocity.astype(np.float64)[:, None] / 127.0
    levels = loudness * np.exp(-np.maximum(age, 0.0) / DECAY_S - released / RELEASE_S)
    levels[(age < 0.0) | (levels < INAUDIBLE)] = 0.0
    return levels.astype(np.float32)
