"""Makers of tiny corpora, files and stores, for every test."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pretty_midi
import soundfile

from pipeline.base.console import Console
from pipeline.build import BuildConfig, BuildResult, build
from pipeline.corpora.recordings import Recording, load_table
from pipeline.corpora.resolve import Corpus
from pipeline.corpora.soundfont import soundfont_path

COLUMNS = (
    "canonical_composer",
    "canonical_title",
    "split",
    "year",
    "midi_filename",
    "audio_filename",
    "duration",
)


@dataclasses.dataclass(frozen=True)
class Spec:
    """One synthetic recording: how it is stored and how long it is."""

    name: str
    rate: int = 44_100
    channels: int = 2
    subtype: str = "PCM_16"
    suffix: str = ".wav"
    seconds: float = 8.0
    split: str = "train"
    composer: str = "Johann Sebastian Bach"
    title: str = "Invention No. 1, BWV 772"
    year: int = 2008

    @property
    def audio(self) -> str:
        return f"{self.year}/{self.name}{self.suffix}"

    @property
    def midi(self) -> str:
        return f"{self.year}/{self.name}.midi"


SPECS = (
    Spec("cd-stereo", seconds=12.25),
    Spec("studio-48k", rate=48_000, seconds=9.5, title="Invention No. 2, BWV 773"),
    Spec(
        "mono-flac",
        rate=16_000,
        channels=1,
        suffix=".flac",
        seconds=7.0,
        split="validation",
        composer="Frédéric Chopin",
        title="Étude Op. 25, No. 3",
    ),
    Spec("deep-24", subtype="PCM_24", seconds=6.2, split="test", title="Sonata K. 545"),
)


def make_notes(seconds: float, seed: int) -> list[tuple[float, float, int, int]]:
    """(onset, end, pitch, velocity), with chords, overlaps across segments and a silent gap."""
    rng = np.random.default_rng(seed)
    notes = []
    for beat in np.arange(0.25, seconds - 0.5, 0.375):
        for pitch in sorted(rng.choice(np.arange(40, 90), size=rng.integers(1, 4), replace=False)):
            end = min(seconds - 0.05, beat + float(rng.uniform(0.1, 1.5)))
            notes.append((float(beat), end, int(pitch), int(rng.integers(20, 110))))
    return without_overlap(notes)


def without_overlap(
    notes: list[tuple[float, float, int, int]],
) -> list[tuple[float, float, int, int]]:
    """A key struck again while down ends the note before."""
    out: list[tuple[float, float, int, int]] = []
    last: dict[int, int] = {}
    for onset, end, pitch, velocity in sorted(notes):
        if pitch in last and out[last[pitch]][1] > onset:
            o, _, p, v = out[last[pitch]]
            out[last[pitch]] = (o, onset, p, v)
        last[pitch] = len(out)
        out.append((onset, end, pitch, velocity))
    return out


def make_audio(
    notes: list[tuple[float, float, int, int]], seconds: float, rate: int, channels: int, seed: int
) -> np.ndarray:
    """Decaying sines with a click at each onset, a little noise; channels differ."""
    rng = np.random.default_rng(seed)
    n = round(seconds * rate)
    out = 1e-4 * rng.standard_normal((n, channels))
    for onset, end, pitch, velocity in notes:
        a, b = int(onset * rate), min(n, int(end * rate))
        t = np.arange(b - a) / rate
        tone = 0.1 * velocity / 127 * np.exp(-3 * t) * np.sin(2 * np.pi * hz(pitch) * t)
        out[a:b] += tone[:, None] * np.linspace(1.0, 0.7, channels)
        out[a, :] += 0.05
    return np.clip(out, -1, 1).astype(np.float32)


def hz(pitch: int) -> float:
    return float(440.0 * 2.0 ** ((pitch - 69) / 12))


def write_midi(path: Path, notes: list[tuple[float, float, int, int]]) -> None:
    score = pretty_midi.PrettyMIDI(resolution=960)
    piano = pretty_midi.Instrument(0)
    piano.notes = [
        pretty_midi.Note(velocity=v, pitch=p, start=onset, end=end) for onset, end, p, v in notes
    ]
    score.instruments.append(piano)
    path.parent.mkdir(parents=True, exist_ok=True)
    score.write(str(path))


def write_table(path: Path, rows: list[dict[str, Any]], columns: Any = COLUMNS) -> Path:
    with path.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, columns)
        writer.writeheader()
        writer.writerows(rows)
    return path


def row_of(spec: Spec) -> dict[str, Any]:
    return dict(
        zip(
            COLUMNS,
            (
                spec.composer,
                spec.title,
                spec.split,
                spec.year,
                spec.midi,
                spec.audio,
                repr(spec.seconds),
            ),
            strict=True,
        )
    )


def make_corpus(root: Path, specs: tuple[Spec, ...] = SPECS, table: str = "tiny.csv") -> Path:
    """Write audio, MIDI and table; returns the table."""
    for seed, spec in enumerate(specs):
        notes = make_notes(spec.seconds, seed)
        write_midi(root / spec.midi, notes)
        audio = make_audio(notes, spec.seconds, spec.rate, spec.channels, seed)
        soundfile.write(root / spec.audio, audio, spec.rate, subtype=spec.subtype)
    return write_table(root / table, [row_of(s) for s in specs])


def corpus_of(table: Path, root: Path | None = None, name: str = "tiny") -> Corpus:
    return Corpus(name=name, table=table, root=root or table.parent, recordings=load_table(table))


def build_quietly(corpus: Corpus, out: Path, **config: Any) -> BuildResult:
    return build(corpus, out, BuildConfig(**config), Quiet())


class Quiet(Console):
    """A console that keeps what it is told."""

    def __init__(self) -> None:
        super().__init__(as_json=False)
        self.bars = False
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def contents(store: Path) -> dict[str, bytes]:
    """All files of a store that are its contents (not the records of when and where)."""
    records = {"store.json", "build.json"}
    return {
        str(p.relative_to(store)): p.read_bytes()
        for p in sorted(store.rglob("*"))
        if p.is_file() and p.name not in records
    }


def differing(a: Mapping[str, bytes], b: Mapping[str, bytes]) -> dict[str, tuple[int, int, int]]:
    """Which files of two :func:`contents` differ: their sizes (-1: not there), and their
    first bytes that differ (-1: none of those that both have).

    To be compared with ``{}``: a failure then names files instead of printing them.
    """
    found = {}
    for name in sorted({*a, *b}):
        one, other = a.get(name), b.get(name)
        if one != other:
            pairs = enumerate(zip(one or b"", other or b"", strict=False))
            first = next((at for at, (x, y) in pairs if x != y), -1)
            found[name] = (*(-1 if x is None else len(x) for x in (one, other)), first)
    return found


def same_store(a: Path, b: Path) -> bool:
    """Equal tables, arrays and lists of files."""
    records = [json.loads((p / "store.json").read_text()) for p in (a, b)]
    return contents(a) == contents(b) and records[0]["files"] == records[1]["files"]


def smf(*tracks: bytes, kind: int = 1, division: int = 480, promised: int | None = None) -> bytes:
    """A Standard MIDI File around finished tracks."""
    count = len(tracks) if promised is None else promised
    header = b"MThd" + (6).to_bytes(4, "big") + kind.to_bytes(2, "big")
    return header + count.to_bytes(2, "big") + division.to_bytes(2, "big") + b"".join(tracks)


def track(*events: tuple[int, bytes], end: bool = True) -> bytes:
    """One MTrk chunk from (delta ticks, message) pairs."""
    body = b"".join(varlen(delta) + message for delta, message in events)
    body += b"\x00\xff\x2f\x00" if end else b""
    return b"MTrk" + len(body).to_bytes(4, "big") + body


def varlen(value: int) -> bytes:
    out = [value & 0x7F]
    while value := value >> 7:
        out.append(value & 0x7F | 0x80)
    return bytes(reversed(out))


def on(pitch: int, velocity: int = 64, channel: int = 0) -> bytes:
    return bytes([0x90 | channel, pitch, velocity])


def off(pitch: int, channel: int = 0) -> bytes:
    return bytes([0x80 | channel, pitch, 0])


def tempo(microseconds: int) -> bytes:
    return b"\xff\x51\x03" + microseconds.to_bytes(3, "big")


FEATURES = (sys.executable, "-c", "from pipeline.cli import main; main()")


def features(*args: object, **kwargs: Any) -> subprocess.CompletedProcess[str]:
    """Run ``xmodal-features`` in a process of its own."""
    command = [*FEATURES, *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **kwargs)


def features_here(*args: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run ``xmodal-features`` in this process: the same command line, without its start."""
    from pipeline.cli import app

    out, err, code = io.StringIO(), io.StringIO(), 0
    command = [str(a) for a in args]
    with (
        contextlib.chdir(cwd or "."),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            app(command, prog_name="xmodal-features")
        except SystemExit as leave:
            code = int(leave.code or 0)
    return subprocess.CompletedProcess(command, code, out.getvalue(), err.getvalue())


def start_features(*args: object) -> subprocess.Popen[str]:
    """Start ``xmodal-features`` and do not wait."""
    return subprocess.Popen(
        [*FEATURES, *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )


def size_of(folder: Path) -> int:
    """Bytes of all files below a folder in which files come and go meanwhile."""
    total = 0
    for base, _, names in os.walk(folder):
        for name in names:
            try:
                total += (Path(base) / name).stat().st_size
            except FileNotFoundError:
                continue
    return total


def recordings_named(*names: str, split: str = "train") -> list[Recording]:
    """Rows of a corpus table whose files nobody needs."""
    return [
        Recording(
            recording=i, key=name, composer="C", title=name, composition=name, split=split,
            year=2000, duration_s=9.0, audio_path=f"{name}.wav", midi_path=f"{name}.mid", extra={},
        )
        for i, name in enumerate(names)
    ]  # fmt: skip


def other_soundfont(folder: Path) -> Path:
    """The same instruments; another name and content."""
    path = folder / "other.sf2"
    content = bytearray(soundfont_path().read_bytes())
    place = content.index(b"smpl") + 8
    content[place : place + 2] = bytes(b ^ 1 for b in content[place : place + 2])
    path.write_bytes(content)
    return path
