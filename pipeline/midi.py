"""MIDI files → notes in seconds (method §1.4).

Notes of all non-drum instruments, merged; the sustain pedal is ignored, a note ends with its key.
Tick times become seconds through the file's tempo map in float64. Order: (onset, pitch, end,
velocity). Files are parsed by symusic, in ticks; a test holds the result equal to pretty_midi's on
every real performance at hand.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.base.errors import MidiError, MissingExtra

MAX_BYTES = 64 << 20
MAX_NOTES = 1_000_000
DEFAULT_MICROSECONDS_PER_QUARTER = 500_000


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Performance:
    """All notes of one file, sorted by (onset, pitch, end, velocity).

    Attributes
    ----------
    onset_s, end_s : float64 [N], seconds from the start of the file
    pitch, velocity : uint8 [N]
    """

    onset_s: npt.NDArray[np.float64]
    end_s: npt.NDArray[np.float64]
    pitch: npt.NDArray[np.uint8]
    velocity: npt.NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.pitch)


def read_performance(path: Path) -> Performance:
    """Parse one MIDI file.

    Raises
    ------
    MidiError
        kinds ``missing``, ``unreadable`` (not MIDI, truncated, malformed), ``too-large``,
        ``no-notes``.
    """
    if not path.is_file():
        raise MidiError(f"{path}: MIDI file is missing", kind="missing")
    if path.stat().st_size > MAX_BYTES:
        raise MidiError(f"{path}: larger than {MAX_BYTES >> 20} MiB", kind="too-large")
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise MidiError(f"{path}: cannot be read ({error.strerror})", kind="unreadable") from None
    try:
        return parse_performance(raw)
    except MidiError as error:
        raise MidiError(f"{path}: {error}", kind=error.kind) from None


def parse_performance(raw: bytes) -> Performance:
    """Notes of a MIDI file given as bytes; errors as :func:`read_performance`, without the path."""
    _check_chunks(raw)
    try:
        import symusic
    except ImportError:
        raise MissingExtra("symusic", "features") from None
    try:
        score = symusic.Score.from_midi(raw)
    except (RuntimeError, ValueError) as error:
        reason = str(error).split("!")[0].removeprefix("MiniMidi: ")
        raise MidiError(f"cannot be read as MIDI ({reason})", kind="unreadable") from None
    tracks = [t.notes.numpy() for t in score.tracks if not t.is_drum]
    ticks = {
        name: np.concatenate([np.asarray(t[name], np.int64) for t in tracks] or [_EMPTY])
        for name in ("time", "duration", "pitch", "velocity")
    }
    sounding = ticks["duration"] > 0
    if not sounding.any():
        raise MidiError("holds no notes", kind="no-notes")
    if sounding.sum() > MAX_NOTES:
        raise MidiError(f"holds {sounding.sum()} notes, more than {MAX_NOTES}", kind="too-large")
    onset = ticks["time"][sounding]
    seconds = _tempo_map(score)
    return _sorted(
        onset_s=seconds(onset),
        end_s=seconds(onset + ticks["duration"][sounding]),
        pitch=ticks["pitch"][sounding].astype(np.uint8),
        velocity=ticks["velocity"][sounding].astype(np.uint8),
    )


def _sorted(**columns: Any) -> Performance:
    keys = ("velocity", "end_s", "pitch", "onset_s")
    order = np.lexsort([columns[k] for k in keys])
    return Performance(**{name: column[order] for name, column in columns.items()})


def _tempo_map(score: Any) -> Any:
    """A function from ticks (int64) to seconds (float64), piecewise linear between tempo changes."""
    tempi = score.tempos.numpy()
    at = np.asarray(tempi["time"], np.int64)
    scale = np.asarray(tempi["mspq"], np.float64) / 1e6 / score.ticks_per_quarter
    order = np.argsort(at, kind="stable")
    at, scale = at[order], scale[order]
    # Of several tempi at one tick the last holds.
    last = np.append(at[1:] != at[:-1], True) if len(at) else np.zeros(0, bool)
    at, scale = at[last], scale[last]
    if not len(at) or at[0] > 0:
        default = DEFAULT_MICROSECONDS_PER_QUARTER / 1e6 / score.ticks_per_quarter
        at, scale = np.insert(at, 0, 0), np.insert(scale, 0, default)
    elapsed = np.concatenate([[0.0], np.cumsum(np.diff(at) * scale[:-1])])

    def seconds(ticks: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        i = np.searchsorted(at, ticks, side="right") - 1
        return np.asarray(elapsed[i] + (ticks - at[i]) * scale[i], np.float64)

    return seconds


def _check_chunks(raw: bytes) -> None:
    """Header and chunk lengths; a file that ends inside a track is truncated, never repaired."""
    if len(raw) < 14 or raw[:4] != b"MThd" or int.from_bytes(raw[4:8], "big") < 6:
        raise MidiError("is not a MIDI file (no MThd header)", kind="unreadable")
    promised = int.from_bytes(raw[10:12], "big")
    if int.from_bytes(raw[12:14], "big") == 0:
        raise MidiError("has 0 ticks per quarter note", kind="unreadable")
    at = 8 + int.from_bytes(raw[4:8], "big")
    tracks = 0
    while at + 8 <= len(raw) and tracks < promised:
        tracks += raw[at : at + 4] == b"MTrk"
        at += 8 + int.from_bytes(raw[at + 4 : at + 8], "big")
    if at > len(raw) or tracks < promised:
        raise MidiError(
            f"is truncated: {tracks} of {promised} tracks, {max(0, at - len(raw))} bytes missing",
            kind="unreadable",
        )


_EMPTY = np.zeros(0, np.int64)
