"""MIDI files → notes in seconds (method §1.4).

Notes of all non-drum instruments, merged; a note ends with its key. The sustain pedal is read for
those who render sound from a performance; no stored note knows of it.
Tick times become seconds through the file's tempo map in float64. Order: (onset, pitch, end,
velocity).

The reader is our own: it has to survive any bytes (the fast library at hand corrupts its heap on
data bytes above 127), and what it does with odd files has to be what pretty_midi, the reference's
parser, does: a note-off ends every note of its key that began earlier; notes without an end or
without length are dropped; channel 10 is drums. Tests hold the two equal on real performances and
on generated files. Three things are on purpose not pretty_midi's: tempi count in
whichever track they stand, a track ends at its end-of-track event, and what is malformed is refused.
pretty_midi is the reference in tests and no fallback here: a file that this reader refuses is one
whose notes nobody can vouch for, and two readers would make what a store holds depend on which ran.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, no_type_check

import numpy as np
import numpy.typing as npt

from pipeline.base.errors import MidiError
from pipeline.base.jit import small_kernel

MAX_BYTES = 64 << 20
MAX_NOTES = 1_000_000
MAX_SECONDS = 24 * 3600
DEFAULT_MICROSECONDS_PER_QUARTER = 500_000
VERSION = 1  # counts up when parsed notes change: part of a store's identity
SUSTAIN = 64  # the controller of the pedal that lifts the dampers
PROBLEMS = (
    "",
    "a track ends inside an event",
    "a number takes more than four bytes",
    "running status without a status",
    "a data byte is above 127",
    "an event is of an unknown kind",
    "a tempo is not three bytes above 0",
    "too many notes",
)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Performance:
    """All notes of one file, sorted by (onset, pitch, end, velocity).

    Attributes
    ----------
    onset_s, end_s : float64 [N], seconds from the start of the file
    pitch, velocity : uint8 [N]
    pedal_s : float64 [P], seconds, in order: when the sustain pedal (controller 64) moves
    pedal_value : uint8 [P], 0–127
    """

    onset_s: npt.NDArray[np.float64]
    end_s: npt.NDArray[np.float64]
    pitch: npt.NDArray[np.uint8]
    velocity: npt.NDArray[np.uint8]
    pedal_s: npt.NDArray[np.float64] = dataclasses.field(default_factory=lambda: np.zeros(0))
    pedal_value: npt.NDArray[np.uint8] = dataclasses.field(
        default_factory=lambda: np.zeros(0, np.uint8)
    )

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
    try:
        if not path.is_file():
            raise MidiError(f"{path}: MIDI file is missing", kind="missing")
        if path.stat().st_size > MAX_BYTES:
            raise MidiError(f"{path}: larger than {MAX_BYTES >> 20} MiB", kind="too-large")
        raw = path.read_bytes()
    except OSError as error:
        raise MidiError(f"{path}: cannot be read ({error.strerror})", kind="unreadable") from None
    try:
        return parse_performance(raw)
    except MidiError as error:
        raise MidiError(f"{path}: {error}", kind=error.kind) from None


def parse_performance(raw: bytes) -> Performance:
    """Notes of a MIDI file given as bytes; errors as :func:`read_performance`, without the path."""
    tracks = [_track(raw, start, stop) for start, stop in _track_chunks(raw)]
    onset, end, pitch, velocity, at, microseconds, moved, value = (
        np.concatenate(parts) for parts in zip(*tracks, strict=True)
    )
    if not len(onset):
        raise MidiError("holds no notes", kind="no-notes")
    if len(onset) > MAX_NOTES:
        raise MidiError(f"holds {len(onset)} notes, more than {MAX_NOTES}", kind="too-large")
    seconds = _tempo_map(at, microseconds, int.from_bytes(raw[12:14], "big"))
    columns = {"onset_s": seconds(onset), "end_s": seconds(end), "pitch": pitch}
    if columns["end_s"].max() > MAX_SECONDS:
        raise MidiError(f"lasts more than {MAX_SECONDS // 3600} h", kind="too-large")
    order = np.argsort(moved, kind="stable")  # of several tracks; at one tick the last holds
    pedal = {"pedal_s": seconds(moved[order]), "pedal_value": value[order]}
    return Performance(**_sorted(**columns, velocity=velocity), **pedal)


def _track_chunks(raw: bytes) -> list[tuple[int, int]]:
    """Where the tracks lie; a file that ends inside one is truncated, never repaired."""
    if len(raw) < 14 or raw[:4] != b"MThd" or int.from_bytes(raw[4:8], "big") < 6:
        raise MidiError("is not a MIDI file (no MThd header)", kind="unreadable")
    kind, promised, division = (int.from_bytes(raw[i : i + 2], "big") for i in (8, 10, 12))
    if kind > 1:
        raise MidiError(f"is of type {kind}: its tracks have no common timeline", kind="unreadable")
    if not 0 < division < 0x8000:
        raise MidiError("does not count ticks per quarter note", kind="unreadable")
    at = 8 + int.from_bytes(raw[4:8], "big")
    tracks: list[tuple[int, int]] = []
    while at + 8 <= len(raw) and len(tracks) < promised:
        start, stop = at + 8, at + 8 + int.from_bytes(raw[at + 4 : at + 8], "big")
        if raw[at : at + 4] == b"MTrk":
            tracks.append((start, stop))
        at = stop
    if at > len(raw) or len(tracks) < promised:
        raise MidiError(
            f"is truncated: {len(tracks)} of {promised} tracks, {max(0, at - len(raw))} bytes "
            "missing",
            kind="unreadable",
        )
    if not tracks:
        raise MidiError("holds no tracks", kind="no-notes")
    return tracks


def _track(raw: bytes, start: int, stop: int) -> tuple[npt.NDArray[Any], ...]:
    """Onset, end, pitch, velocity of the notes; when and what of tempi and pedal; in ticks."""
    # A note or a pedal's move takes at least three bytes, a tempo seven.
    room, tempi = min((stop - start) // 3, MAX_NOTES) + 1, (stop - start) // 7 + 1
    onset, end = np.empty(room, np.int64), np.empty(room, np.int64)
    pitch, velocity = np.empty(room, np.uint8), np.empty(room, np.uint8)
    at, microseconds = np.empty(tempi, np.int64), np.empty(tempi, np.int64)
    moves = (stop - start) // 3 + 1
    moved, value = np.empty(moves, np.int64), np.empty(moves, np.uint8)
    problem, where, n_notes, n_tempi, n_moves = _scan(
        np.frombuffer(raw, np.uint8), start, stop, onset, end, pitch, velocity, at, microseconds,
        moved, value,
    )  # fmt: skip
    if problem:
        large = "too-large" if PROBLEMS[problem] == "too many notes" else "unreadable"
        raise MidiError(f"is malformed: {PROBLEMS[problem]} (byte {where})", kind=large)
    ended = end[:n_notes] >= 0
    notes = tuple(column[:n_notes][ended] for column in (onset, end, pitch, velocity))
    return (*notes, at[:n_tempi], microseconds[:n_tempi], moved[:n_moves], value[:n_moves])


def _sorted(**columns: Any) -> dict[str, Any]:
    keys = ("velocity", "end_s", "pitch", "onset_s")
    order = np.lexsort([columns[k] for k in keys])
    return {name: column[order] for name, column in columns.items()}


def _tempo_map(
    at: npt.NDArray[np.int64], microseconds: npt.NDArray[np.int64], division: int
) -> Any:
    """A function from ticks (int64) to seconds (float64), piecewise linear between tempo changes."""
    scale = microseconds / 1e6 / division
    order = np.argsort(at, kind="stable")
    at, scale = at[order], scale[order]
    # Of several tempi at one tick the last holds.
    last = np.append(at[1:] != at[:-1], True) if len(at) else np.zeros(0, bool)
    at, scale = at[last], scale[last]
    if not len(at) or at[0] > 0:
        default = DEFAULT_MICROSECONDS_PER_QUARTER / 1e6 / division
        at, scale = np.insert(at, 0, 0), np.insert(scale, 0, default)
    elapsed = np.concatenate([[0.0], np.cumsum(np.diff(at) * scale[:-1])])

    def seconds(ticks: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        i = np.searchsorted(at, ticks, side="right") - 1
        return np.asarray(elapsed[i] + (ticks - at[i]) * scale[i], np.float64)

    return seconds


@small_kernel
@no_type_check
def _scan(data, at, stop, onset, end, pitch, velocity, tempo_at, tempo, moved, pedal):
    """Walk the events in ``data[at:stop]``; fill the columns.

    Returns (index into PROBLEMS, byte, notes, tempi, moves of the pedal); the end of a note that
    never ended is -1. No read leaves ``[at, stop)``, no write the columns.
    """
    newest = np.full(16 * 128, -1, np.int64)  # per key: the open note struck last, or -1
    older = np.empty(len(onset), np.int64)  # per open note: the one of its key struck before
    tick = running = n_notes = n_tempi = n_moves = 0
    while at < stop:
        delta = size = 0
        while True:
            if at >= stop:
                return 1, at, n_notes, n_tempi, n_moves
            if size == 4:
                return 2, at, n_notes, n_tempi, n_moves
            byte = np.int64(data[at])
            at += 1
            size += 1
            delta = delta * 128 + (byte & 127)
            if byte < 128:
                break
        tick += delta
        if at >= stop:
            return 1, at, n_notes, n_tempi, n_moves
        status = np.int64(data[at])
        if status >= 128:
            at += 1
        elif running == 0:
            return 3, at, n_notes, n_tempi, n_moves
        else:
            status = running
        if status < 0xF0:
            running = status
            size = 1 if 0xC0 <= status < 0xE0 else 2
            if at + size > stop:
                return 1, at, n_notes, n_tempi, n_moves
            first, second = np.int64(data[at]), np.int64(data[at + size - 1])
            if first > 127 or second > 127:
                return 4, at, n_notes, n_tempi, n_moves
            at += size
            channel = status & 15
            if channel == 9 or status >= 0xA0:
                if channel != 9 and status >> 4 == 0xB and first == SUSTAIN:
                    moved[n_moves], pedal[n_moves] = tick, second
                    n_moves += 1
                continue
            key = channel * 128 + first
            if status >= 0x90 and second > 0:
                if n_notes == len(onset):
                    return 7, at, n_notes, n_tempi, n_moves
                onset[n_notes], end[n_notes] = tick, -1
                pitch[n_notes], velocity[n_notes] = first, second
                older[n_notes] = newest[key]
                newest[key] = n_notes
                n_notes += 1
                continue
            # A note-off ends what began before this tick. What began at it stays open if anything
            # was ended, else it has no length and is dropped.
            i, kept = newest[key], -1
            while i >= 0 and onset[i] == tick:
                i, kept = older[i], i
            if i < 0 or kept < 0:
                newest[key] = -1
            else:
                older[kept] = -1
            while i >= 0:
                end[i] = tick
                i = older[i]
        elif status == 0xFF or status == 0xF0 or status == 0xF7:
            kind = -1
            if status == 0xFF:
                if at >= stop:
                    return 1, at, n_notes, n_tempi, n_moves
                kind = np.int64(data[at])
                at += 1
            else:
                running = 0
            length = size = 0
            while True:
                if at >= stop:
                    return 1, at, n_notes, n_tempi, n_moves
                if size == 4:
                    return 2, at, n_notes, n_tempi, n_moves
                byte = np.int64(data[at])
                at += 1
                size += 1
                length = length * 128 + (byte & 127)
                if byte < 128:
                    break
            if at + length > stop:
                return 1, at, n_notes, n_tempi, n_moves
            if kind == 0x2F:
                break
            if kind == 0x51:
                if length != 3:
                    return 6, at, n_notes, n_tempi, n_moves
                value = np.int64(data[at]) * 65536 + np.int64(data[at + 1]) * 256
                value += np.int64(data[at + 2])
                if value == 0:
                    return 6, at, n_notes, n_tempi, n_moves
                tempo_at[n_tempi], tempo[n_tempi] = tick, value
                n_tempi += 1
            at += length
        else:
            return 5, at, n_notes, n_tempi, n_moves
    return 0, at, n_notes, n_tempi, n_moves
