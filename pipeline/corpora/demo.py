"""The `demo` corpus: fifty minutes of piano in MAESTRO's layout, made here, without a download.

Public-domain scores (``demo_table.py``) are played by five seeded performance models
(``performers.py``) on a sampled piano (``soundfont.py``) and recorded (``rendering.py``)::

    demo.csv                         MAESTRO's seven columns; written last
    demo.json                        version, and size and SHA-256 of every finished file
    2019/chopin-op6-2-even.midi      key releases and a continuous sustain pedal, 960 ticks a second
    2019/chopin-op6-2-even.wav       16-bit PCM, 44.1 kHz (some 48 kHz), mono (a few stereo)

The same library versions give the same bytes, in any order and with any number of workers: all
randomness comes from :func:`seed_of` the names of a recording. Files are written atomically; a
recording counts as finished when ``demo.json`` lists it with the same recipe (the hash of its row
of the table) and both files have the listed size and SHA-256. So a killed or damaged corpus is
completed by the same call, an edited row is remade, and a finished corpus is recognised without
importing music21 or the synthesiser. A change of the *code* that changes files must raise
:data:`VERSION`, which remakes everything.

It is a corpus for trying things, for tests and for tutorials. It is no substitute for MAESTRO: one
sampled piano, five synthetic players, reductions of quartets and chorales.

Workers are spawned: a script that calls :func:`make_demo` with ``workers`` > 1 needs the usual
``if __name__ == "__main__":`` guard.
"""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import io
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.base.config import digest
from pipeline.base.errors import MissingExtra, XmodalError
from pipeline.base.files import (
    FolderLock,
    atomic_write,
    read_json,
    sha256_file,
    sweep_temporaries,
    write_json,
)
from pipeline.corpora.demo_table import RECORDINGS, Recording, seed_of
from pipeline.corpora.performers import perform
from pipeline.corpora.rendering import midi_bytes, record
from pipeline.corpora.scores import read_excerpt, score_file
from pipeline.corpora.soundfont import soundfont_path

VERSION = 2  # 1 sounded other pitches than its notes: symusic did not read the zones' root keys
DEMO_LICENCE = "compositions: public domain; encodings: music21, corpus/license.txt"
CSV_NAME, RECORD_NAME = "demo.csv", "demo.json"
COLUMNS = (
    "canonical_composer", "canonical_title", "split", "year",
    "midi_filename", "audio_filename", "duration",
)  # fmt: skip
REQUIRED = ("music21", "pretty_midi", "scipy", "symusic")

Progress = Callable[[int, int, str], None]


def make_demo(
    folder: Path,
    *,
    workers: int = 2,
    progress: Progress | None = None,
    recordings: Sequence[Recording] = RECORDINGS,
) -> Path:
    """Write the demo corpus to ``folder``, or complete it, and return the path of its CSV.

    Parameters
    ----------
    folder
        Made if need be. Files that are not the corpus's own are left alone.
    workers
        Processes; 0 and 1 work in this one. The files do not depend on it.
    progress
        Called as ``progress(done, total, key)`` in this process after each recording.
    recordings
        For tests: a part of the table.

    Raises
    ------
    MissingExtra
        when a package of the extra ``demo`` is not installed.
    CorpusError
        when music21 lacks a score, or its file does not hold what the table means.
    StoreError
        (kind ``locked``) when another process is writing this folder.
    XmodalError
        when a file cannot be written, or a worker dies.
    """
    try:
        if _is_finished(folder, recordings):
            return folder / CSV_NAME
        with FolderLock(folder):
            return _complete(folder, recordings, workers, progress)
    except BrokenProcessPool:
        raise XmodalError(
            f"a worker making {folder} died (out of memory?); repeat the command, it continues"
        ) from None
    except OSError as error:
        where = error.filename or folder
        raise XmodalError(f"cannot write the demo corpus: {where}: {error.strerror}") from error


def _complete(
    folder: Path, recordings: Sequence[Recording], workers: int, progress: Progress | None
) -> Path:
    sweep_temporaries(folder)
    # From here on the corpus is unfinished, and must not look otherwise.
    (folder / CSV_NAME).unlink(missing_ok=True)
    recipes = {r.key: digest(r) for r in recordings}
    listed = _load_entries(folder)
    if not listed:
        _discard_other_version(folder)
    finished = _sound_entries(folder, listed)
    finished = {k: e for k, e in finished.items() if recipes.get(k, e["recipe"]) == e["recipe"]}
    pending = [r for r in recordings if r.key not in finished]
    _check_requirements(pending)
    done, total = len(recordings) - len(pending), len(recordings)

    _save(folder, finished)
    for entries in _make_all(folder, pending, workers):
        finished |= entries
        _save(folder, finished)
        for key in entries:
            done += 1
            if progress is not None:
                progress(done, total, key)
    with atomic_write(folder / CSV_NAME) as handle:
        handle.write(_csv_bytes(recordings, finished))
    return folder / CSV_NAME


def _make_all(
    folder: Path, pending: Sequence[Recording], workers: int
) -> Iterator[dict[str, dict[str, Any]]]:
    """Yield finished entries; a task is one score with all its performances (parsed once)."""
    tasks: dict[str, list[Recording]] = {}
    for recording in pending:
        tasks.setdefault(recording.score.key, []).append(recording)
    longest_first = sorted(tasks.values(), key=len, reverse=True)
    if workers <= 1 or len(longest_first) <= 1:
        yield from (_make_score(folder, task) for task in longest_first)
        return
    with ProcessPoolExecutor(
        min(workers, len(longest_first)),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_worker,
    ) as pool:
        futures: list[Future[dict[str, dict[str, Any]]]] = [
            pool.submit(_make_score, folder, task) for task in longest_first
        ]
        try:
            yield from (future.result() for future in as_completed(futures))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _start_worker() -> None:
    """An interrupt is the parent's to handle; a killed parent must not leave workers waiting."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _make_score(folder: Path, task: Sequence[Recording]) -> dict[str, dict[str, Any]]:
    excerpt = read_excerpt(task[0].score.path, task[0].score.spans)
    entries = {}
    for recording in task:
        rng = np.random.default_rng(seed_of(recording.key, "performance"))
        performance = perform(excerpt, recording.performer, recording.score.tempo, rng)
        midi = midi_bytes(performance)
        audio = record(performance, recording.studio, rng)
        entries[recording.key] = {
            "midi": _write(folder, recording.midi_filename, midi),
            "audio": _write(folder, recording.audio_filename, audio),
            "duration": performance.duration_s,
            "recipe": digest(recording),
        }
    return entries


def _write(folder: Path, name: str, content: bytes) -> dict[str, Any]:
    with atomic_write(folder / name) as handle:
        handle.write(content)
    return {"path": name, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _check_requirements(pending: Sequence[Recording]) -> None:
    """Here, once, and not in a worker: before anything is written."""
    for package in REQUIRED if pending else ():
        if importlib.util.find_spec(package) is None:
            raise MissingExtra(package, "demo")
    if pending:
        soundfont_path()
    for recording in pending:
        score_file(recording.score.path)


def _is_finished(folder: Path, recordings: Sequence[Recording]) -> bool:
    entries = _load_entries(folder)
    wanted = {
        r.key: entries[r.key]
        for r in recordings
        if entries.get(r.key, {}).get("recipe") == digest(r)
    }
    try:
        table = (folder / CSV_NAME).read_bytes()
    except OSError:
        return False
    return (
        len(wanted) == len(recordings)
        and table == _csv_bytes(recordings, wanted)
        and len(_sound_entries(folder, wanted)) == len(wanted)
    )


def _load_entries(folder: Path) -> dict[str, dict[str, Any]]:
    """What ``demo.json`` lists; nothing when it is absent, unreadable or of another version."""
    try:
        state = read_json(folder / RECORD_NAME)
        if state["version"] != VERSION:
            return {}
        return {key: entry for key, entry in state["recordings"].items() if "recipe" in entry}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _discard_other_version(folder: Path) -> None:
    """Remove the files that a ``demo.json`` of another version lists: names may have changed."""
    try:
        entries = read_json(folder / RECORD_NAME)["recordings"].values()
        paths = [folder / entry[kind]["path"] for entry in entries for kind in ("midi", "audio")]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return
    for path in paths:
        if path.resolve().is_relative_to(folder.resolve()):
            path.unlink(missing_ok=True)


def _sound_entries(folder: Path, entries: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The entries whose two files are as listed (hashing runs beside the GIL, in two threads)."""

    def is_sound(entry: dict[str, Any]) -> bool:
        try:
            files = [(folder / entry[kind]["path"], entry[kind]) for kind in ("midi", "audio")]
            return all(path.stat().st_size == listed["size"] for path, listed in files) and all(
                sha256_file(path) == listed["sha256"] for path, listed in files
            )
        except (OSError, KeyError, TypeError):
            return False

    with ThreadPoolExecutor(2) as pool:
        verdicts = list(pool.map(is_sound, entries.values()))
    return {key: entry for (key, entry), ok in zip(entries.items(), verdicts, strict=True) if ok}


def _save(folder: Path, entries: dict[str, dict[str, Any]]) -> None:
    write_json(folder / RECORD_NAME, {"version": VERSION, "recordings": entries})


def _csv_bytes(recordings: Sequence[Recording], entries: dict[str, dict[str, Any]]) -> bytes:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(COLUMNS)
    for r in recordings:
        writer.writerow(
            (r.score.composer, r.score.title, r.score.split, r.performer.year,
             r.midi_filename, r.audio_filename, entries[r.key]["duration"])
        )  # fmt: skip
    return buffer.getvalue().encode()
