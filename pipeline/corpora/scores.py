"""Written music for a piano: what a score of music21's corpus says, as plain notes.

All parts are merged into one piano, ties joined, grace notes kept, staccato dots and the written
dynamic of each note noted; ornaments' signs, slurs and hairpins are not read. Parts are taken as
written: a transposing instrument would come out wrong, so no table may name a score with one.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.base.errors import CorpusError, MissingExtra

Span = tuple[float, float]  # begin and end in quarters from the start of a score

UNMARKED_LEVEL = 0.55
LEVELS = {"ppp": 0.20, "pp": 0.30, "p": 0.42, "mp": 0.50, "mf": UNMARKED_LEVEL, "f": 0.70,
          "ff": 0.82, "fff": 0.90}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreNote:
    """One written note; ``onset`` and ``duration`` in quarters, ``level`` 0–1 (*mf* = 0.55).

    ``grace`` counts from the main note: 1 is the grace note right before it, 0 is not a grace note.
    """

    onset: float
    duration: float
    pitch: int
    level: float = 0.55
    staccato: bool = False
    grace: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Excerpt:
    """Written music to be played: notes, the onsets of bars and the whole length, in quarters."""

    notes: tuple[ScoreNote, ...]
    bars: tuple[float, ...]
    length: float


def score_file(name: str) -> Path:
    """Where the wheel of music21 has the score ``name`` (found without importing music21).

    Raises
    ------
    MissingExtra
        when music21 is not installed.
    CorpusError
        when its wheel has no such score.
    """
    spec = importlib.util.find_spec("music21")
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtra("music21", "demo")
    path = Path(spec.submodule_search_locations[0]) / "corpus" / name
    if not path.is_file():
        raise CorpusError(
            f"music21 has no score {name}; install a music21 that ships its corpus, "
            "the tested version is 10.5"
        )
    return path


def read_excerpt(name: str, spans: tuple[Span, ...]) -> Excerpt:
    """Read a score of music21's corpus and lay its spans end to end.

    Uses the parser below music21's ``parse``: that one keeps pickles in a temporary folder.
    """
    path = score_file(name)
    from music21.converter import Converter

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its notes on over-full measures
        converter = Converter()
        converter.parseFileNoPickle(str(path), forceSource=True)
    stream: Any = converter.stream
    parts = list(stream.parts)
    notes = [note for part in parts for note in _part_notes(part)]
    bars = [float(bar.offset) for bar in parts[0].getElementsByClass("Measure")]
    return lay_out(notes, bars, spans)


def lay_out(notes: list[ScoreNote], bars: list[float], spans: tuple[Span, ...]) -> Excerpt:
    """Cut and join spans; a pitch that several parts strike together becomes one note."""
    merged: dict[tuple[float, int, int], ScoreNote] = {}
    joined_bars: list[float] = []
    start = 0.0
    for begin, end in spans:
        for n in notes:
            if not begin <= n.onset < end:
                continue
            moved = ScoreNote(
                onset=n.onset - begin + start,
                duration=min(n.duration, end - n.onset),
                pitch=n.pitch,
                level=n.level,
                staccato=n.staccato,
                grace=n.grace,
            )
            place = (round(moved.onset, 4), moved.pitch, moved.grace)
            known = merged.get(place)
            if known is None or known.duration < moved.duration:
                merged[place] = moved
        joined_bars += [bar - begin + start for bar in bars if begin <= bar < end]
        start += end - begin
    if not merged or not joined_bars:
        raise CorpusError(f"no notes between quarters {spans}: not the score the table means")
    return Excerpt(notes=tuple(merged.values()), bars=tuple(joined_bars), length=start)


def _part_notes(part: Any) -> Iterator[ScoreNote]:
    """Notes of one part in order, tied notes joined, grace notes counted from their main note."""
    flat = part.flatten()
    marks = [
        (float(d.offset), LEVELS[d.value])
        for d in flat.getElementsByClass("Dynamic")
        if d.value in LEVELS  # sf, fp and the like are moments, not levels
    ]
    rows: list[dict[str, Any]] = []
    tied: dict[int, dict[str, Any]] = {}
    graces: list[dict[str, Any]] = []
    for element in flat.notes:
        if "Harmony" in element.classes or not element.pitches:
            continue  # chord symbols are not played
        onset, length = float(element.offset), float(element.duration.quarterLength)
        level = next((lv for at, lv in reversed(marks) if at <= onset), UNMARKED_LEVEL)
        dots = any("Staccato" in mark.classes for mark in element.articulations)
        is_grace = bool(element.duration.isGrace)
        if graces and not (is_grace and graces[0]["onset"] == onset):
            _count_graces(graces)
            graces = []
        for note in element.notes if element.isChord else (element,):
            pitch = int(note.pitch.midi)
            tie = note.tie.type if note.tie is not None else None
            before = tied.pop(pitch, None)
            row: dict[str, Any]
            if tie in ("continue", "stop") and before is not None and _ends(before, onset):
                before["duration"] += length
                row = before
            else:
                row = {"onset": onset, "duration": length, "pitch": pitch, "level": level,
                       "staccato": dots, "grace": int(is_grace)}  # fmt: skip
                rows.append(row)
                if is_grace:
                    graces.append(row)
            if tie in ("start", "continue"):
                tied[pitch] = row
    _count_graces(graces)
    yield from (ScoreNote(**row) for row in rows)


def _ends(row: dict[str, Any], onset: float) -> bool:
    return bool(abs(row["onset"] + row["duration"] - onset) < 1e-3)


def _count_graces(graces: list[dict[str, Any]]) -> None:
    for back, row in enumerate(reversed(graces), start=1):
        row["grace"] = back
