"""A corpus table from a folder of audio and MIDI files: who belongs to whom, and a split by work.

Two files are a pair if they have one stem and lie in one folder, or in folders that differ only in a
part that says what kind of files they are (``audio/x/a.wav`` and ``midi/x/a.mid``). A stem that more
than one audio or MIDI file could claim is left out and said. The table that is proposed has MAESTRO's
columns, and ``composition``: which rows play one work, for the reader to correct.

``duration`` is what MAESTRO means by it, the end of the last note; where the audio ends before that,
the audio's length. The split follows from a hash of the composition alone: 80 % of the hash's range is
train, 10 % validation, 10 % test, so that more files do not move those that are there. With three
compositions or more no split stays empty.

A folder of MIDI files alone (``midi_only``) gives a table whose audio is yet to be rendered.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.audio import PAD_LIMIT_SAMPLES, probe
from pipeline.base.config import digest
from pipeline.base.console import Console
from pipeline.base.errors import CorpusError, UsageError
from pipeline.base.files import atomic_write
from pipeline.corpora.compositions import composition_key
from pipeline.corpora.recordings import COLUMNS, SPLITS, load_table
from pipeline.corpora.titles import AUDIO_FOLDERS, MIDI_FOLDERS, guess
from pipeline.midi import read_performance
from pipeline.spectral import SAMPLE_RATE, SEGMENT_S

AUDIO_SUFFIXES = frozenset(".wav .flac .ogg .opus .mp3 .aif .aiff .aifc .au .w64".split())
MIDI_SUFFIXES = frozenset((".mid", ".midi"))
DEFAULT_NAME = "pairs.csv"
TRAIN_BELOW, VALIDATION_BELOW = 0.8, 0.9  # of the hash's range


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """Audio and MIDI of one recording, relative to the folder, with forward slashes."""

    audio: PurePosixPath
    midi: PurePosixPath


def make_csv(
    folder: Path, out: Path | None, console: Console, *, midi_only: bool = False
) -> dict[str, Any]:
    """Write a table of all pairs in ``folder``; paths in it are relative to ``folder``.

    Parameters
    ----------
    out : the table; ``pairs.csv`` in the folder by default, never overwritten
    midi_only : every MIDI file is a recording, and its audio is yet to be made

    Returns
    -------
    plain data: ``table``, counts per split, ``unpaired`` files, pairs that are ``unusable`` and why,
    and what to ``review``.

    Raises
    ------
    UsageError
        when ``folder`` is none, or ``out`` exists.
    CorpusError
        when not one pair can be used.
    """
    out = out or folder / DEFAULT_NAME
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder")
    if out.exists():
        raise UsageError(f"{out} exists and is not overwritten; name another file by --out")
    pairs, unpaired = (_alone if midi_only else find_pairs)(_relative_files(folder))
    rows, unusable, review = [], [], []
    with console.progress("read headers", len(pairs)) as update:
        for done, pair in enumerate(pairs, 1):
            file = str(pair.midi if midi_only else pair.audio)
            try:
                row, remarks = _row(folder, pair, midi_only)
                rows.append(row)
                review += [{"file": file, "remark": remark} for remark in remarks]
            except CorpusError as error:
                unusable.append({"file": file, "kind": error.kind, "why": str(error)})
            update(done, file)
    if not rows:
        if midi_only:
            bad = f": {unusable[0]['why']}" if unusable else ""
            raise CorpusError(f"{folder}: no MIDI file can be used ({len(unusable)} tried{bad})")
        raise CorpusError(
            f"{folder}: no pair of audio and MIDI can be used ({len(unpaired)} files without a "
            f"partner, {len(unusable)} pairs that cannot be read); a pair has one name and lies in "
            "one folder, or in parallel folders audio/ and midi/"
        )
    splits = split_by_work({str(row["composition"]) for row in rows})
    for row in rows:
        row["split"] = splits[str(row["composition"])]
    _write(out, rows)
    try:
        load_table(out)  # what build will say, before anyone else reads it
    except CorpusError:
        out.unlink()
        raise
    return {
        "table": str(out),
        "root": str(folder),
        "recordings": len(rows),
        "splits": {split: _count(rows, split) for split in SPLITS},
        "unpaired": unpaired,
        "unusable": unusable,
        "review": review,
    }


def find_pairs(files: Iterable[PurePosixPath]) -> tuple[list[Pair], list[str]]:
    """Pairs in order of the audio's path, and the audio and MIDI files that have no partner."""
    left = {f for f in files if f.suffix.lower() in AUDIO_SUFFIXES | MIDI_SUFFIXES}
    pairs: list[Pair] = []
    for key_of in (_same_folder, _parallel_folder):
        audio: dict[str, list[PurePosixPath]] = defaultdict(list)
        midi: dict[str, list[PurePosixPath]] = defaultdict(list)
        for file in left:
            (midi if file.suffix.lower() in MIDI_SUFFIXES else audio)[key_of(file)].append(file)
        for key in audio.keys() & midi.keys():
            if len(audio[key]) == len(midi[key]) == 1:
                pairs.append(Pair(audio=audio[key][0], midi=midi[key][0]))
                left -= {audio[key][0], midi[key][0]}
    return sorted(pairs, key=lambda p: str(p.audio)), sorted(map(str, left))


def _alone(files: Iterable[PurePosixPath]) -> tuple[list[Pair], list[str]]:
    """Every MIDI file with the audio that it will have, named after the whole file if need be."""
    midi = [f for f in files if f.suffix.lower() in MIDI_SUFFIXES]
    claims = Counter(f.with_suffix("") for f in midi)

    def audio(f: PurePosixPath) -> PurePosixPath:
        alone = claims[f.with_suffix("")] == 1
        return f.with_suffix(".wav") if alone else f.with_name(f"{f.name}.wav")

    return [Pair(audio=audio(f), midi=f) for f in midi], []


def folder_table(folder: Path, cache: Path, console: Console) -> Path:
    """The corpus table of a folder of MIDI files: its own, or a proposal that is kept in ``cache``.

    The proposal is made once, and can be corrected there; splits go by work. MIDI files that have
    come since are told, and not added: a table that somebody may have corrected is left as it is.
    """
    own = [p for p in sorted(folder.iterdir()) if p.suffix.lower() == ".csv" and _is_table(p)]
    if len(own) > 1:
        names = ", ".join(p.name for p in own)
        raise UsageError(f"{folder} holds {len(own)} corpus tables ({names}): name one of them")
    if own:
        return own[0]
    slug = re.sub(r"[^a-z0-9]+", "-", folder.resolve().name.lower()).strip("-") or "midi"
    table = cache / f"{slug}-{digest(str(folder.resolve()), 6)}.csv"
    if table.is_file():
        named = {r.midi_path for r in load_table(table)}
        new = [p.midi for p in _alone(_relative_files(folder))[0] if str(p.midi) not in named]
        console.say(f"table: {table}, made before")
        if new:
            console.say(
                f"not in it: {len(new)} MIDI files ({new[0]}, …); add them, or delete the table to "
                "have another proposed"
            )
        return table
    table.parent.mkdir(parents=True, exist_ok=True)
    made = make_csv(folder, table, console, midi_only=True)
    for row in made["unusable"]:
        console.say(f"left out: {row['file']} [{row['kind']}] {row['why']}")
    console.say(f"table: {table}, titles and composers as the file names suggest; correct it there")
    return table


def _is_table(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open(encoding="utf-8-sig", errors="replace") as handle:
        try:
            return set(COLUMNS) <= set(next(csv.reader(handle), []))
        except csv.Error:  # one endless line
            return False


def split_by_work(compositions: set[str]) -> dict[str, str]:
    """Composition → split, by hash; about 80/10/10, none empty where three can be told apart."""
    place = {c: _unit(c) for c in compositions}
    found = {
        c: SPLITS[(u >= TRAIN_BELOW) + (u >= VALIDATION_BELOW)]
        for c, u in sorted(place.items(), key=lambda item: item[1])
    }
    for split in SPLITS:
        if split not in found.values() and len(found) >= len(SPLITS):
            # The fullest split gives; of its compositions the one whose hash comes last.
            fullest = max(SPLITS, key=lambda s: sum(v == s for v in found.values()))
            found[max((c for c in found if found[c] == fullest), key=lambda c: place[c])] = split
    return found


def _unit(text: str) -> float:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def _relative_files(folder: Path) -> Iterable[PurePosixPath]:
    """All audio and MIDI files but hidden ones, whatever order the disk has them in."""
    for base, folders, names in os.walk(folder):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        for name in sorted(names):
            suffix = PurePosixPath(name).suffix.lower()
            if not name.startswith(".") and suffix in AUDIO_SUFFIXES | MIDI_SUFFIXES:
                path = (Path(base) / name).relative_to(folder).as_posix()
                if {"Cc", "Cs"} & set(map(unicodedata.category, path)) or "\\" in path:
                    raise CorpusError(  # a table could not name it
                        f"{folder}: the file {path!r} has a name with bytes that are not UTF-8, "
                        "control characters or a backslash; rename it"
                    )
                yield PurePosixPath(path)


def _same_folder(file: PurePosixPath) -> str:
    return unicodedata.normalize("NFC", str(file.with_suffix("")))


def _parallel_folder(file: PurePosixPath) -> str:
    kinds = AUDIO_FOLDERS | MIDI_FOLDERS
    folders = [part for part in file.parts[:-1] if part.lower() not in kinds]
    return _same_folder(PurePosixPath(*folders, file.name))


def _row(folder: Path, pair: Pair, midi_only: bool) -> tuple[dict[str, Any], list[str]]:
    """One row without its split, and what a reader should look at."""
    last_note_s = float(read_performance(folder / pair.midi).end_s.max())
    audio_s = last_note_s if midi_only else probe(folder / pair.audio).duration_s
    named = pair.midi if midi_only else pair.audio
    said = guess(named.parts[:-1], named.stem)
    duration_s = round(min(last_note_s, audio_s), 6)
    if duration_s <= 0:
        raise CorpusError(f"{folder / named}: is too short to be used")
    remarks = []
    if last_note_s > audio_s + PAD_LIMIT_SAMPLES / SAMPLE_RATE:
        remarks.append(
            f"the last note ends at {last_note_s:.2f} s, the audio at {audio_s:.2f} s: "
            "do they belong together?"
        )
    if duration_s < SEGMENT_S:
        remarks.append(f"lasts {duration_s:.2f} s, less than one segment of {SEGMENT_S} s")
    return {
        "canonical_composer": said.composer,
        "canonical_title": said.title,
        "split": "",
        "year": said.year,
        "midi_filename": str(pair.midi),
        "audio_filename": str(pair.audio),
        "duration": repr(duration_s),
        "composition": composition_key(said.composer, said.title),
    }, remarks


def _write(out: Path, rows: list[dict[str, Any]]) -> None:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, [*COLUMNS, "composition"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    with atomic_write(out) as handle:
        handle.write(text.getvalue().encode())


def _count(rows: list[dict[str, Any]], split: str) -> dict[str, int]:
    mine = [row for row in rows if row["split"] == split]
    return {"recordings": len(mine), "compositions": len({row["composition"] for row in mine})}
