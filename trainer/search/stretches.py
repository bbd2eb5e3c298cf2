"""The two stretches that a match says are the same music: their sound and notes, to be shown.

Both begin where the match says, ``query_s[0]`` and ``recording_s[0]``, and last so long that each
moment of one has its moment of the other: t seconds into the query's stretch are ``tempo`` t into the
recording's. They end where the query does, or what the store holds of the recording (it may be the
beginning alone); nothing is filled up.

A recording's sound and notes are the store's. A MIDI query has no sound of its own; its notes are
played on the sampled piano that the demo corpus is played on, without the pedal, where that is
installed. An audio query has no notes.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import numpy.typing as npt

from pipeline.base.errors import CorpusError, MissingExtra
from pipeline.base.tracks import Roll
from pipeline.spectral import SAMPLE_RATE, SEGMENT_S
from pipeline.store.reader import Store
from trainer.search.answers import Match
from trainer.search.queries import AudioQuery, MidiQuery, Query

SAME_NOTE_S = 1e-3  # a note stands in several segments, its time rounded anew in each
RINGS_S = 10.0  # a note that was struck longer before is hardly heard any more
PEAK = 0.7  # of full scale, of notes that are played here

Samples = npt.NDArray[np.int16]


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Stretch:
    """A part of a query or of a recording.

    Attributes
    ----------
    start_s, seconds : where it lies
    samples : 24 kHz mono; None where there is no sound
    notes : onsets from ``start_s``; None where they are not known
    remark : what is missing and why; may be empty
    """

    start_s: float
    seconds: float
    samples: Samples | None
    notes: Roll | None
    remark: str = ""


def stretches(
    query: Query, match: Match, store: Store | None, most_s: float
) -> tuple[Stretch, Stretch | None] | None:
    """The query's and the recording's, neither longer than ``most_s``.

    None where nothing agrees; without a store the recording's is None.

    Raises
    ------
    StoreError
        when what the store holds does not verify.
    """
    (start, stop), other, tempo = match.query_s, match.recording_s[0], match.tempo
    stop = min(stop, query.seconds)
    if store is not None:
        first, last = _stored_s(store, match.recording)
        early = max(0.0, -start, (first - other) / tempo)
        start, other = start + early, other + early * tempo
        stop = min(stop, start + (last - other) / tempo)
    seconds = min(stop - start, most_s / max(1.0, tempo))
    if round(seconds * SAMPLE_RATE) < 1:
        return None
    of_query = _of_query(query, start, seconds)
    if store is None:
        return of_query, None
    return of_query, _of_recording(store, match.recording, other, seconds * tempo)


def stored_notes(store: Store, recording: int, start_s: float, seconds: float) -> Roll:
    """The notes of a recording that sound in a part of what is stored of it, each once."""
    table = store.segments
    begins = table.start_s
    near = (begins < start_s + seconds) & (begins + SEGMENT_S > start_s)
    segments = np.flatnonzero((table.recording == recording) & near)
    first, count = table.note_start[segments], table.note_count[segments].astype(np.int64)
    lowest = int(first.min())
    notes = store.notes(lowest, int((first + count).max()))
    row = np.concatenate([np.arange(f, f + c) for f, c in zip(first - lowest, count, strict=True)])
    onset = np.repeat(begins[segments], count) + notes.onset_s[row] - start_s
    order = np.lexsort((onset, notes.pitch[row]))
    row, onset = row[order], onset[order]
    pitch, duration = notes.pitch[row], notes.duration_s[row]
    again = np.zeros(len(row), bool)
    again[1:] = (pitch[1:] == pitch[:-1]) & (np.diff(onset) <= SAME_NOTE_S)
    kept = np.flatnonzero(~again & (onset < seconds) & (onset + duration > 0))
    kept = kept[np.argsort(onset[kept], kind="stable")]
    return Roll(
        pitch=pitch[kept],
        velocity=notes.velocity[row[kept]],
        onset_s=onset[kept],
        duration_s=duration[kept],
    )


def played(notes: Roll, seconds: float) -> Samples:
    """The notes on a sampled piano: int16 [seconds * 24,000].

    Raises
    ------
    MissingExtra, CorpusError
        where what plays them is not installed.
    """
    from pipeline.corpora.soundfont import play

    out = np.zeros(round(seconds * SAMPLE_RATE), np.int16)
    onset = np.maximum(notes.onset_s, -RINGS_S)
    end = np.minimum(notes.onset_s + notes.duration_s, seconds)
    heard = np.flatnonzero(end > onset)
    if not len(heard):
        return out
    before = max(0.0, -float(onset[heard].min()))
    sound = play(
        onset[heard] + before,
        end[heard] + before,
        notes.pitch[heard].astype(np.int64),
        notes.velocity[heard].astype(np.int64),
        program=0,
        sample_rate=SAMPLE_RATE,
        mix=np.full((1, 2), 0.5, np.float32),
    )[0]
    sound = sound[round(before * SAMPLE_RATE) :][: len(out)]
    loudest = max(float(np.abs(sound).max(initial=0.0)), 1e-9)
    out[: len(sound)] = np.round(sound * (PEAK * 32767 / loudest))
    return out


def _of_query(query: Query, start_s: float, seconds: float) -> Stretch:
    if isinstance(query, AudioQuery):
        first = round(start_s * SAMPLE_RATE)
        samples = query.samples[first : first + round(seconds * SAMPLE_RATE)]
        return Stretch(start_s=start_s, seconds=seconds, samples=samples, notes=None)
    assert isinstance(query, MidiQuery)
    all_notes = query.performance
    here = np.flatnonzero((all_notes.onset_s < start_s + seconds) & (all_notes.end_s > start_s))
    notes = Roll(
        pitch=all_notes.pitch[here],
        velocity=all_notes.velocity[here],
        onset_s=all_notes.onset_s[here] - start_s,
        duration_s=(all_notes.end_s - all_notes.onset_s)[here],
    )
    sound: Samples | None = None
    remark = ""
    try:
        sound = played(notes, seconds)
    except (MissingExtra, CorpusError) as error:
        remark = f"Its notes cannot be played: {error}"
    return Stretch(start_s=start_s, seconds=seconds, samples=sound, notes=notes, remark=remark)


def _of_recording(store: Store, recording: int, start_s: float, seconds: float) -> Stretch:
    table = store.segments
    row = int(np.flatnonzero(table.recording == recording)[0])
    begins = int(table.audio_start[row]) - round(float(table.start_s[row]) * SAMPLE_RATE)
    first = begins + round(start_s * SAMPLE_RATE)
    return Stretch(
        start_s=start_s,
        seconds=seconds,
        samples=store.read("audio", first, first + round(seconds * SAMPLE_RATE)),
        notes=stored_notes(store, recording, start_s, seconds),
    )


def _stored_s(store: Store, recording: int) -> tuple[float, float]:
    """From where to where a recording is in the store."""
    begins = store.segments.start_s[store.segments.recording == recording]
    return float(begins.min()), float(begins.max()) + SEGMENT_S
