"""How fast the offline stage is: four ratios, each within one run.

1. A4 of one segment against the same definition written plainly in librosa and in torch, one core.
2. Decode + down-mix + resample of 44.1 kHz stereo PCM16 against ``librosa.load(sr=24000)``.
3. The whole stage on one core against the sum of its kernels on the same recordings.
4. The whole stage on two worker processes against one.

Needs at least two hours of audio: the demo corpus, listed as often as that takes.

    python -m benchmarks.features [--hours 2.0]
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import itertools
import os
import shutil
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"  # before NumPy is imported: one core each

import librosa
import numpy as np
import soundfile
import torch

from benchmarks.common import environment, paired, seconds, write
from pipeline.audio import decode
from pipeline.base.console import Console
from pipeline.build import BuildConfig, build
from pipeline.cluster import InProcess, open_executor
from pipeline.corpora.demo import make_demo
from pipeline.corpora.recordings import load_table
from pipeline.corpora.resolve import Corpus
from pipeline.descriptors import DESCRIPTORS, Notes
from pipeline.descriptors.a4 import BAND_EDGES
from pipeline.half import round_to_half
from pipeline.midi import read_performance
from pipeline.quality import Meter
from pipeline.segments import cut_notes
from pipeline.spectral import SEGMENT_SAMPLES, Spectrum, Workspace
from pipeline.store.schema import CHUNK_BYTES, Segmentation

BANDS = list(itertools.pairwise(BAND_EDGES))


def main() -> None:
    """Measure and write ``benchmarks/results/features.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--demo", type=Path, default=Path("data/corpora/demo"))
    shared_memory = Path("/dev/shm")
    parser.add_argument(
        "--scratch",
        type=Path,
        default=shared_memory if shared_memory.is_dir() else None,
        help="where stores are written: memory where there is a folder for it, not a shared disk",
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    result: dict[str, Any] = {"environment": environment()}
    table = make_demo(arguments.demo)
    with tempfile.TemporaryDirectory(prefix="xmodal-bench-", dir=arguments.scratch) as scratch:
        folder = Path(scratch)
        corpus, hours = long_corpus(table, folder, arguments.hours)
        result["hours_of_audio"] = hours
        result["scratch"] = str(arguments.scratch)
        result["recordings"] = len(corpus.recordings)
        result["a4"] = bench_a4(corpus)
        result["decode"] = bench_decode(folder)
        result["stage"] = bench_stage(corpus, folder)
    write("features", result)


def long_corpus(table: Path, folder: Path, hours: float) -> tuple[Corpus, float]:
    """The demo recordings, listed under new names until they last ``hours``."""
    rows = list(csv.DictReader(table.open(encoding="utf-8", newline="")))
    listed, lasted, copy = [], 0.0, 0
    while lasted < hours * 3600:
        (folder / f"copy{copy}").symlink_to(table.parent.resolve())
        for row in rows:
            paths = {k: f"copy{copy}/{row[k]}" for k in ("audio_filename", "midi_filename")}
            listed.append({**row, **paths})
            lasted += float(row["duration"])
        copy += 1
    path = folder / "long.csv"
    with path.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(listed)
    recordings = load_table(path)
    return Corpus(name="long", table=path, root=folder, recordings=recordings), lasted / 3600


def bench_a4(corpus: Corpus) -> dict[str, Any]:
    """A4 of music, per segment."""
    recording = corpus.recordings[0]
    blocks = list(decode(corpus.root / recording.audio_path, 40 * 24_000))
    samples = np.concatenate(blocks).astype(np.float32)[-SEGMENT_SAMPLES:] / np.float32(32768)
    a4, work = DESCRIPTORS.get("A4"), Workspace()
    window, tensor = torch.hann_window(2048), torch.from_numpy(samples)

    def ours() -> Any:
        return a4.extract(Spectrum(samples, work))

    def plain_librosa() -> Any:
        spectrum = librosa.stft(samples, n_fft=2048, hop_length=512, pad_mode="reflect")
        level = np.log1p(np.abs(spectrum))
        bands = np.stack([level[lo:hi].mean(axis=0) for lo, hi in BANDS], axis=1)
        change = np.diff(bands, axis=0, prepend=bands[:1])
        spread = np.maximum(change.std(axis=0, ddof=1), 1e-8)
        return (change - change.mean(axis=0)) / spread

    def plain_torch() -> Any:
        spectrum = torch.stft(tensor, 2048, 512, window=window, center=True, return_complex=True)
        level = torch.log1p(spectrum.abs())
        bands = torch.stack([level[lo:hi].mean(dim=0) for lo, hi in BANDS], dim=1)
        change = torch.diff(bands, dim=0, prepend=bands[:1])
        return (change - change.mean(dim=0)) / change.std(dim=0).clamp(min=1e-8)

    return {
        "against_librosa": paired(ours, plain_librosa, 25, calls=20),
        "against_torch": paired(ours, plain_torch, 25, calls=20),
        "max_difference_librosa": float(np.abs(ours() - plain_librosa()).max()),
        "max_difference_torch": float(np.abs(ours() - plain_torch().numpy()).max()),
    }


def bench_decode(folder: Path) -> dict[str, Any]:
    """100 s of 44.1 kHz stereo PCM16."""
    path = folder / "stereo.wav"
    random = np.random.default_rng(0)
    noise = np.cumsum(random.standard_normal((44_100 * 100, 2)), axis=0)
    noise = np.sin(noise / 7.0) * 0.5
    soundfile.write(path, noise, 44_100, subtype="PCM_16")
    n_samples = 24_000 * 100

    def ours() -> Any:
        return np.concatenate(list(decode(path, n_samples)))

    def theirs() -> Any:
        return librosa.load(path, sr=24_000)[0]

    reference = np.clip(np.rint(theirs() * 32768.0), -32768, 32767)
    difference = np.abs(ours()[: len(reference)] - reference).max()
    return {**paired(ours, theirs, 15), "max_difference_lsb": float(difference)}


def bench_stage(corpus: Corpus, folder: Path) -> dict[str, Any]:
    """The whole stage in process against its kernels, then two workers against one."""
    quiet = Console(as_json=True)
    quiet.say = lambda text: None  # type: ignore[method-assign]
    config = BuildConfig()
    few = Corpus(
        name="warm", table=corpus.table, root=corpus.root, recordings=corpus.recordings[:4]
    )

    written: list[int] = []

    def stage(executor: Any, what: Corpus = corpus) -> float:
        touch_memory(folder, max(written, default=0))
        out = folder / "stores"
        lasted = seconds(lambda: build(what, out, config, quiet, executor))
        written.append(sum(f.stat().st_size for f in out.rglob("*") if f.is_file()))
        shutil.rmtree(out)
        return lasted

    stage(InProcess(), few)
    stage(InProcess())
    alone, kernels = [], []
    with one_core():
        for _ in range(3):
            kernels.append(kernel_seconds(corpus))
            alone.append(stage(InProcess()))
        kernels.append(kernel_seconds(corpus))
    around = [(sum(a.values()) + sum(b.values())) / 2 for a, b in itertools.pairwise(kernels)]
    result: dict[str, Any] = {
        "store_bytes": max(written),
        "one_core_s": alone,
        "kernels_s": {k: statistics.median(run[k] for run in kernels) for k in kernels[0]},
        "stage_over_kernels": statistics.median(a / k for a, k in zip(alone, around, strict=True)),
    }
    # One, two, two, one, …: a machine that slows down steadily favours neither.
    times: dict[int, list[float]] = {1: [], 2: []}
    for workers in (1, 2, 2, 1, 1, 2):
        with open_executor(workers) as executor:
            stage(executor, few)
            times[workers].append(stage(executor))
    result["one_worker_s"], result["two_workers_s"] = times[1], times[2]
    result["two_over_one"] = statistics.median(times[1]) / statistics.median(times[2])
    return result


@contextlib.contextmanager
def one_core() -> Iterator[None]:
    """Everything on one core, the threads that write in the background included."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def touch_memory(folder: Path, size: int) -> None:
    """Make the machine have ``size`` bytes at hand, as it has after any other work.

    A virtual machine is given its memory page by page, at eight times the price of writing it.
    """
    block = bytes(16 << 20)
    with (folder / "touched").open("wb") as handle:
        for _ in range(-(-size // len(block))):
            handle.write(block)
    (folder / "touched").unlink()


def kernel_seconds(corpus: Corpus) -> dict[str, float]:
    """The numeric work alone: decode to int16, parse and cut notes, measure, describe, round.

    No plan, no fingerprints, no store: what the stage adds to this is its overhead.
    """
    total = {"decode": 0.0, "midi": 0.0, "quality": 0.0, "describe": 0.0}
    cut = Segmentation()
    described = [DESCRIPTORS.get(name) for name in corpus.descriptors]
    audio = [d for d in described if d.side == "audio"]
    midi = [d for d in described if d.side == "midi"]
    work = Workspace()

    def rounded(values: Any) -> None:
        round_to_half(values, np.empty(values.shape, np.float16))

    def describe(timeline: Any, rows: dict[str, Any], count: int) -> None:
        bounds = np.searchsorted(rows["segment"], np.arange(count + 1))
        for i in range(count):
            samples = timeline[i * 24_000 : i * 24_000 + SEGMENT_SAMPLES].astype(np.float32)
            samples /= np.float32(32768)
            spectrum = Spectrum(samples, work)
            for d in audio:
                rounded(d.extract(spectrum))
            part = slice(bounds[i], bounds[i + 1])
            notes = Notes(**{k: v[part] for k, v in rows.items() if k != "segment"})
            for d in midi:
                rounded(d.extract(notes))

    def measure(timeline: Any, performance: Any) -> None:
        meter = Meter(len(timeline))
        for start in range(0, len(timeline), CHUNK_BYTES // 2):
            meter.feed(timeline[start : start + CHUNK_BYTES // 2])
        heard = performance.onset_s < len(timeline) / 24_000
        meter.finish(performance.onset_s[heard], performance.velocity[heard])

    for recording in corpus.recordings:
        count = cut.count(recording.duration_s)
        decoded: list[Any] = []
        parsed: list[Any] = []
        path, length = corpus.root / recording.audio_path, cut.timeline_samples(count)
        total["decode"] += seconds(lambda p=path, n=length, d=decoded: d.extend(decode(p, n)))  # type: ignore[misc]
        score = corpus.root / recording.midi_path
        total["midi"] += seconds(
            lambda p=score, c=count, d=parsed: d.append(cut_notes(read_performance(p), c, cut))  # type: ignore[misc]
        )
        timeline, played = np.concatenate(decoded), read_performance(score)
        total["quality"] += seconds(lambda t=timeline, p=played: measure(t, p))  # type: ignore[misc]
        total["describe"] += seconds(lambda t=timeline, r=parsed[0], c=count: describe(t, r, c))  # type: ignore[misc]
    return total


if __name__ == "__main__":
    main()
