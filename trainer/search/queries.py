"""Audio and MIDI files from anywhere → windows of four seconds, at any moment and any tempo.

Files are read as the offline stage reads them: the same decoder, the same MIDI reader, the same cut.
At tempo r (how many seconds of a recording pass in one of the query) a window that begins at t holds
the query's [t, t + 4 / r), stretched to four seconds: notes by arithmetic, sound by a phase vocoder
that leaves the pitch alone (``librosa.effects.time_stretch``).
"""

from __future__ import annotations

import abc
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.audio import decode, probe
from pipeline.base.errors import MidiError, MissingExtra, UsageError
from pipeline.descriptors.contract import Notes, Side
from pipeline.midi import Performance, parse_performance, read_performance
from pipeline.segments import duration_buckets
from pipeline.spectral import SAMPLE_RATE, SEGMENT_S, SEGMENT_SAMPLES
from trainer.search.errors import QueryError

MIDI_SUFFIXES = (".mid", ".midi")
FULL_SCALE = np.float32(32768)
SILENCE = 16  # of int16's 32,768: -66 dB, below a microphone's own noise
LONGEST_S = 4 * 3600
TOGETHER = 60 * SAMPLE_RATE  # samples that are stretched at once, at most
LOUDEST = 4.0  # decoded sound passes full scale a little; int16 numbers as floats by far
PIECE = 60 * SAMPLE_RATE

FloatArray = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]


class Query(abc.ABC):
    """What is looked for.

    Attributes
    ----------
    name : for people; a file's path
    side : ``audio`` or ``midi``
    seconds : how long it is
    """

    side: Side

    def __init__(self, name: str, seconds: float) -> None:
        self.name, self.seconds = name, seconds
        check_length(name, seconds)

    @abc.abstractmethod
    def windows(self, start_s: npt.ArrayLike, tempo: float = 1.0) -> Any:
        """Windows that begin at ``start_s`` [B]: float32 [B, 96000], or a list of :class:`Notes`."""


class MidiQuery(Query):
    """Notes that are looked for among recordings' sound."""

    side = "midi"

    def __init__(self, name: str, performance: Performance) -> None:
        self.performance = performance
        if not len(performance):
            raise QueryError(f"{name}: holds no notes", kind="no-notes")
        super().__init__(name, float(performance.end_s.max()))

    def windows(self, start_s: npt.ArrayLike, tempo: float = 1.0) -> list[Notes]:
        """Notes of each window, onsets in seconds from its start."""
        starts = np.asarray(start_s, np.float64)
        return [_window(self.performance, float(start), tempo) for start in starts]


class AudioQuery(Query):
    """Sound that is looked for among recordings' notes.

    ``samples``: int16 [n], 24 kHz mono
    """

    side = "audio"

    def __init__(self, name: str, samples: npt.NDArray[np.int16]) -> None:
        self.samples = samples
        super().__init__(name, len(samples) / SAMPLE_RATE)
        if max(int(samples.max()), -int(samples.min())) < SILENCE:
            raise QueryError(f"{name}: is silent from beginning to end", kind="silent")

    def windows(self, start_s: npt.ArrayLike, tempo: float = 1.0) -> FloatArray:
        """float32 [B, 96000] in [-1, 1); zeros beyond the end."""
        starts = np.round(np.asarray(start_s, np.float64) * SAMPLE_RATE).astype(np.int64)
        out = np.zeros((len(starts), SEGMENT_SAMPLES), np.float32)
        length = round(SEGMENT_SAMPLES / tempo)
        # Windows overlap: what they share is stretched once.
        for run in _runs(starts, length):
            first = int(starts[run[0]])
            sound = self.samples[first : int(starts[run[-1]]) + length].astype(np.float32)
            sound = _stretched(sound / FULL_SCALE, tempo)
            for row in run:
                at = round((int(starts[row]) - first) * tempo)
                samples = sound[at : at + SEGMENT_SAMPLES]
                out[row, : len(samples)] = samples
        return out


def read_query(path: Path) -> Query:
    """An audio or MIDI file of at least four seconds.

    Raises
    ------
    QueryError, AudioError, MidiError, MissingExtra
        each in one line that names the file; a MIDI file needs no optional package.
    """
    if path.exists() and not path.is_file():
        raise QueryError(f"{path}: is no regular file")
    return read_notes(path) if _is_midi(path) else read_sound(path)


def read_sound(audio: str | Path | npt.ArrayLike) -> AudioQuery:
    """An audio file, or samples at 24 kHz, mono: int16 [n], or float [n] in [-1, 1).

    Floats are rounded to int16 as the offline stage rounds them.

    Raises
    ------
    QueryError, AudioError, MissingExtra
        as :func:`read_query`.
    """
    if not isinstance(audio, str | Path):
        return AudioQuery("samples", _int16(np.asarray(audio)))
    path = Path(audio)
    if path.is_file() and _is_midi(path):
        raise QueryError(f"{path}: is a MIDI file, no sound")
    header = probe(path)
    check_length(str(path), header.duration_s)  # before there is room for what it promises
    samples = np.empty(header.frames_24k, np.int16)
    at = 0
    for block in decode(path, len(samples)):
        samples[at : at + len(block)] = block
        at += len(block)
    return AudioQuery(str(path), samples)


def read_notes(midi: Any) -> MidiQuery:
    """A MIDI file, its bytes, or an object with notes as ``pretty_midi.PrettyMIDI`` has them.

    Of an object: the notes (``start``, ``end``, ``pitch``, ``velocity``) of all ``instruments`` but
    drums; those without length are left out, as of a file.

    Raises
    ------
    QueryError, MidiError
        as :func:`read_query`.
    """
    if isinstance(midi, str | Path):
        name, read = str(midi), lambda: read_performance(Path(midi))
    elif isinstance(midi, bytes | bytearray | memoryview):
        name, read = "MIDI bytes", lambda: parse_performance(bytes(midi))
    else:
        name, read = "notes", lambda: _performance(midi)
    try:
        return MidiQuery(name, read())
    except MidiError as error:
        told = str(error) if str(error).startswith(name) else f"{name}: {error}"
        kind = QueryError if error.kind == "no-notes" else MidiError
        raise kind(told, kind=error.kind) from None


def check_length(name: str, seconds: float) -> None:
    """Refuse what is too short for a window, or too long to be searched at once."""
    if seconds < SEGMENT_S:
        raise QueryError(
            f"{name}: lasts {math.floor(100 * seconds) / 100:.2f} s; at least {SEGMENT_S} s are "
            "needed",
            kind="too-short",
        )
    if seconds > LONGEST_S:
        raise QueryError(
            f"{name}: lasts {seconds / 3600:,.1f} h; at most {LONGEST_S // 3600} h are searched at "
            "once: cut it",
            kind="too-long",
        )


def window_starts(seconds: float, hop_s: float, tempo: float = 1.0) -> Floats:
    """Starts of all whole windows of something so long, ``hop_s`` apart: float64 [W]."""
    if not 0 < hop_s < np.inf:
        raise UsageError(f"windows {hop_s} s apart are none: give a number above 0")
    last = seconds - SEGMENT_S / tempo
    return np.arange(int(np.floor(last / hop_s + 1e-9)) + 1, dtype=np.float64) * hop_s


def _is_midi(path: Path) -> bool:
    if path.suffix.lower() in MIDI_SUFFIXES:
        return True
    try:
        with path.open("rb") as file:
            return file.read(4) == b"MThd"
    except OSError:
        return False


def _int16(samples: npt.NDArray[Any]) -> npt.NDArray[np.int16]:
    if samples.ndim != 1 or (samples.dtype != np.int16 and samples.dtype.kind != "f"):
        raise QueryError(
            f"samples: {samples.dtype} {list(samples.shape)}; wanted are int16 [n], or float [n] in "
            "[-1, 1), at 24 kHz, mono"
        )
    if samples.dtype == np.int16:
        return samples
    out = np.empty(len(samples), np.int16)
    for at in range(0, len(samples), PIECE):
        piece = samples[at : at + PIECE].astype(np.float32)
        peak = float(np.abs(piece).max())
        if not np.isfinite(peak):
            raise QueryError("samples: hold what is not a finite number", kind="not-finite")
        if peak > LOUDEST:
            raise QueryError(f"samples: go up to {peak:,.1f}; floats are wanted in [-1, 1)")
        # As pipeline.audio rounds, whose kernel needs Numba.
        out[at : at + PIECE] = np.clip(np.rint(piece * FULL_SCALE), -FULL_SCALE, FULL_SCALE - 1)
    return out


def _performance(midi: Any) -> Performance:
    try:
        rows = [
            (note.start, note.pitch, note.end, note.velocity)
            for instrument in midi.instruments
            if not instrument.is_drum
            for note in instrument.notes
        ]
        onset, pitch, end, velocity = np.array(rows, np.float64).reshape(-1, 4).T
    except (AttributeError, TypeError, ValueError) as error:
        raise QueryError(
            f"{type(midi).__name__}: has no notes that read ({error}); wanted are a path, the bytes "
            "of a MIDI file, or an object like pretty_midi.PrettyMIDI"
        ) from None
    for name, column in (("pitch", pitch), ("velocity", velocity)):
        if not np.isin(column, np.arange(128)).all():
            raise QueryError(f"notes: a {name} is no whole number from 0 to 127")
    if not (np.isfinite(onset).all() and np.isfinite(end).all() and (onset >= 0).all()):
        raise QueryError("notes: a time is no number of seconds from 0")
    kept = np.flatnonzero(end > onset)
    order = kept[np.lexsort([column[kept] for column in (velocity, end, pitch, onset)])]
    return Performance(
        onset_s=onset[order],
        end_s=end[order],
        pitch=pitch[order].astype(np.uint8),
        velocity=velocity[order].astype(np.uint8),
    )


def _window(performance: Performance, start: float, tempo: float) -> Notes:
    """The notes that sound in one window, as a store has them of the segment that begins there."""
    onset = performance.onset_s - start
    before = int(np.searchsorted(onset, SEGMENT_S / tempo))  # notes are sorted by onset
    chosen = np.flatnonzero(performance.end_s[:before] > start)
    duration = (performance.end_s - performance.onset_s)[chosen] * tempo
    return Notes(
        pitch=performance.pitch[chosen],
        velocity=performance.velocity[chosen],
        duration_bucket=duration_buckets(duration),
        onset_s=(onset[chosen] * tempo).astype(np.float32),
        duration_s=duration.astype(np.float32),
    )


def _runs(starts: npt.NDArray[np.int64], length: int) -> list[list[int]]:
    """Windows that begin while the one before still sounds, in order; a minute at most together."""
    runs: list[list[int]] = []
    for row in np.argsort(starts, kind="stable").tolist():
        before = runs[-1] if runs else None
        if (
            before
            and starts[row] <= starts[before[-1]] + length
            and starts[row] <= starts[before[0]] + TOGETHER
        ):
            before.append(row)
        else:
            runs.append([row])
    return runs


def _stretched(samples: FloatArray, tempo: float) -> FloatArray:
    if tempo == 1.0:
        return samples
    try:
        from librosa.effects import time_stretch
    except ImportError:
        raise MissingExtra("librosa", "features") from None
    if not len(samples):
        return samples
    return np.asarray(time_stretch(samples, rate=1 / tempo), np.float32)
