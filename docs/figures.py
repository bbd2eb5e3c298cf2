"""The pictures of the README, drawn from a store.

python -m docs.figures data/features/demo-0123456789ab
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.collections import LineCollection

from pipeline.descriptors.a4 import BAND_EDGES
from pipeline.spectral import BIN_HZ, FRAME_S, SAMPLE_RATE, SEGMENT_SAMPLES
from pipeline.store import Store

IMAGES = Path(__file__).parent / "images"
INK, FAINT, WARM = "#1b2733", "#9aa5b1", "#c2542d"


def main() -> None:
    """Draw every picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path)
    parser.add_argument("--segment", type=int, help="[default: a busy one of the test split]")
    arguments = parser.parse_args()
    store = Store.open(arguments.store)
    segment = arguments.segment if arguments.segment is not None else busy_segment(store)
    IMAGES.mkdir(exist_ok=True)
    draw_segment(store, segment, IMAGES / "segment.png")


def busy_segment(store: Store) -> int:
    """The test segment whose number of notes is at the upper quartile."""
    rows = store.segments.of_split("test")
    counts = store.segments.note_count[rows]
    order = np.argsort(counts, kind="stable")
    return int(rows[order[int(0.75 * (len(rows) - 1))]])


def draw_segment(store: Store, segment: int, path: Path) -> None:
    """Waveform, A4 bands and notes of one segment, on one time axis."""
    table = store.segments
    start = int(table.audio_start[segment])
    wave = store.read("audio", start, start + SEGMENT_SAMPLES) / 32768.0
    a4 = store.read("A4", segment, segment + 1)[0].astype(np.float32)
    first = int(table.note_start[segment])
    notes = store.notes(first, first + int(table.note_count[segment]))
    recording = int(table.recording[segment])
    names = store.recordings

    plt.rcParams.update({"font.size": 10, "axes.edgecolor": FAINT, "axes.labelcolor": INK})
    figure, axes = plt.subplots(
        3, 1, figsize=(9, 6.6), sharex=True, height_ratios=(1, 1.5, 1.7), layout="constrained"
    )
    seconds = np.arange(len(wave)) / SAMPLE_RATE
    axes[0].plot(seconds, wave, color=INK, linewidth=0.4)
    axes[0].set_ylabel("waveform")
    axes[0].set_ylim(-1.05 * np.abs(wave).max(), 1.05 * np.abs(wave).max())
    edges = np.arange(len(a4) + 1) * FRAME_S - FRAME_S / 2
    image = axes[1].pcolormesh(
        edges, np.arange(a4.shape[1] + 1), a4.T, cmap="RdBu_r", vmin=-4, vmax=4, rasterized=True
    )
    labels = [
        f"{lo * BIN_HZ:.0f}–{min(hi, 1024) * BIN_HZ:.0f}"
        for lo, hi in itertools.pairwise(BAND_EDGES)
    ]
    axes[1].set_yticks(np.arange(a4.shape[1]) + 0.5, labels)
    axes[1].set_ylabel("A4: octave band (Hz)")
    figure.colorbar(image, ax=axes[1], label="energy change (σ)", pad=0.01)
    lines = [
        [(on, pitch), (on + length, pitch)]
        for on, length, pitch in zip(notes.onset_s, notes.duration_s, notes.pitch, strict=True)
    ]
    loudness = 0.25 + 0.75 * notes.velocity / 127.0
    axes[2].add_collection(LineCollection(lines, colors=WARM, linewidths=4, alpha=loudness))
    axes[2].vlines(notes.onset_s, notes.pitch - 0.6, notes.pitch + 0.6, color=INK, linewidth=1)
    axes[2].set_ylim(notes.pitch.min() - 3, notes.pitch.max() + 3)
    axes[2].set_ylabel("notes (MIDI pitch)")
    axes[2].set_xlabel(f"seconds from {table.start_s[segment]:g} s of the recording")
    axes[2].set_xlim(0, 4)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{names.composer[recording]}, {names.title[recording]}", color=INK)
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    main()
