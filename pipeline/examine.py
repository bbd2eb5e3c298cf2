"""Facts about a corpus' files: header, length, SHA-256; read once, remembered, never judged here."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from pipeline import audio, midi
from pipeline.audio import probe
from pipeline.base.errors import CorpusError
from pipeline.base.files import sha256_file
from pipeline.corpora.checksums import Checksum
from pipeline.corpora.memory import Memory
from pipeline.corpora.recordings import Recording
from pipeline.midi import read_performance

READER_VERSIONS = [audio.VERSION, midi.VERSION]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class File:
    """One file to look at: of a recording, or the table (``row`` None).

    Attributes
    ----------
    kind : ``audio``, ``midi`` or ``table``
    name : its path relative to the corpus' root
    expected : what it must be, where that is known
    hashed : is its SHA-256 wanted?
    """

    kind: str
    path: Path
    name: str
    row: Recording | None
    expected: Checksum | None
    hashed: bool


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """Facts about a file, or (kind, message) of why there are none.

    ``read`` is 0 if everything was remembered.
    """

    file: File
    facts: dict[str, Any]
    problem: tuple[str, str] | None
    read: int


def examine(files: list[File], memory: Memory) -> Generator[Found, None, None]:
    """Threads, not processes: the work is reading and hashing, which release the interpreter."""
    pool = ThreadPoolExecutor(min(8, 2 * (os.cpu_count() or 1)))
    try:
        yield from pool.map(lambda file: _remembered(file, memory), files)
    finally:
        pool.shutdown(cancel_futures=True)
        memory.save()


def _remembered(file: File, memory: Memory) -> Found:
    found = _facts_of(file, memory.get(file.name))
    if found.problem is None and found.read:
        memory.put(file.name, found.facts, found.read)
    return found


def _facts_of(file: File, remembered: dict[str, Any]) -> Found:
    facts: dict[str, Any] = {}
    read = 0
    try:
        stamp = _stamp(file.path)
        facts = dict(remembered if remembered.items() >= stamp.items() else stamp)
        if "read" not in facts:
            facts |= {"read": True, **READERS[file.kind](file.path)}
            read += 1
        # Another size settles it.
        if file.hashed and "sha256" not in facts and not other_size(file, facts):
            facts["sha256"] = sha256_file(file.path)
            read += int(facts["size"])
        if _stamp(file.path) != stamp:
            raise CorpusError(f"{file.path}: changed while it was read", kind="changed")
    except FileNotFoundError:
        return Found(
            file=file, facts={}, problem=("missing", f"{file.path}: is missing"), read=read
        )
    except CorpusError as error:
        return Found(file=file, facts={}, problem=(error.kind, str(error)), read=read)
    except OSError as error:
        problem = ("unreadable", f"{file.path}: cannot be read ({error.strerror})")
        return Found(file=file, facts={}, problem=problem, read=read)
    return Found(file=file, facts=facts, problem=None, read=read)


def _stamp(path: Path) -> dict[str, int]:
    """What must be the same for remembered facts to hold."""
    stat = path.stat()
    return {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns}


def _audio_facts(path: Path) -> dict[str, Any]:
    header = probe(path)
    return {"seconds": header.duration_s, "samples_24k": header.frames_24k}


def _midi_facts(path: Path) -> dict[str, Any]:
    return {"notes": len(read_performance(path))}


READERS = {"audio": _audio_facts, "midi": _midi_facts, "table": lambda path: {}}


def other_size(file: File, facts: dict[str, Any]) -> bool:
    """Whether the file is known, and of another size."""
    return file.expected is not None and file.expected.bytes != facts["size"]
