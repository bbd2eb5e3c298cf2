"""How fast the offline stage is: four ratios, each within one run, and the making of the demo.

1. A4 of a segment against the same definition written plainly in librosa and in torch, one core;
   a ratio for every recording, of 20 of its segments.
2. Decode + down-mix + resample of 44.1 kHz stereo PCM16 against ``librosa.load(sr=24000)``; a ratio
   for every recording.
3. The whole stage on one core against the sum of its kernels on the same recordings.
4. The whole stage on two worker processes against one; a ratio for every pair of builds.

On at least two hours of audio: the demo corpus, made here (its seconds and bytes are results too) and
listed as often as that takes. Eight minutes.

    python -m benchmarks.features [--hours 2.0] [--rounds 7]
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import shutil
import statistics
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"  # before NumPy is imported: one core each

import librosa
import numpy as np
import soundfile
import torch

from benchmarks.common import environment, paired_over, ranged, seconds, write
from benchmarks.corpora import long_corpus, medium, scratch_folder, touch_memory
from pipeline.audio import decode
from pipeline.base.console import Console
from pipeline.build import BuildConfig, build
from pipeline.cluster import InProcess, open_executor
from pipeline.corpora.demo import make_demo
from pipeline.corpora.resolve import Corpus
from pipeline.descriptors import DESCRIPTORS, Notes
from pipeline.descriptors.a4 import BAND_EDGES
from pipeline.half import round_to_half
from pipeline.midi import read_performance
from pipeline.quality import Meter
from pipeline.segments import cut_notes
from pipeline.spectral import SEGMENT_SAMPLES, Spectrum, Workspace
from pipeline.store.schema import CHUNK_BYTES, Segmentation

A4_SEGMENTS = 20  # of every recording
BANDS = list(itertools.pairwise(BAND_EDGES))


def main() -> None:
    """Measure and write ``benchmarks/results/features.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=7, help="pairs of one and two workers")
    parser.add_argument("--scratch", type=Path, default=scratch_folder())
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    result: dict[str, Any] = {"environment": environment()}
    with tempfile.TemporaryDirectory(prefix="xmodal-bench-", dir=arguments.scratch) as scratch:
        folder = Path(scratch)
        result["demo"] = bench_demo(folder / "demo")
        corpus, hours = long_corpus(folder / "demo/demo.csv", folder, arguments.hours)
        result["hours_of_audio"] = hours
        result["stores_in"] = medium(folder)
        result["recordings"] = len(corpus.recordings)
        result["a4"] = bench_a4(corpus)
        result["decode"] = bench_decode(corpus, folder)
        result["stage"] = bench_stage(corpus, folder, arguments.rounds)
    write("features", result)


def bench_demo(folder: Path) -> dict[str, Any]:
    """Make the demo corpus afresh, by two workers."""
    lasted = seconds(lambda: make_demo(folder, workers=2))
    files = [f.stat().st_size for f in folder.rglob("*") if f.is_file()]
    return {"seconds": lasted, "bytes": sum(files), "files": len(files), "workers": 2}


def bench_a4(corpus: Corpus) -> dict[str, Any]:
    """A4 of music, both sides on the same segments of every recording in turn."""
    a4, work, cut = DESCRIPTORS.get("A4"), Workspace(), Segmentation()
    window = torch.hann_window(2048)

    def ours(samples: Any) -> Any:
        return a4.extract(Spectrum(samples, work))

    def plain_librosa(samples: Any) -> Any:
        spectrum = librosa.stft(samples, n_fft=2048, hop_length=512, pad_mode="reflect")
        level = np.log1p(np.abs(spectrum))
        bands = np.stack([level[lo:hi].mean(axis=0) for lo, hi in BANDS], axis=1)
        change = np.diff(bands, axis=0, prepend=bands[:1])
        spread = np.maximum(change.std(axis=0, ddof=1), 1e-8)
        return (change - change.mean(axis=0)) / spread

    def plain_torch(samples: Any) -> Any:
        tensor = torch.from_numpy(samples)
        spectrum = torch.stft(tensor, 2048, 512, window=window, center=True, return_complex=True)
        level = torch.log1p(spectrum.abs())
        bands = torch.stack([level[lo:hi].mean(dim=0) for lo, hi in BANDS], dim=1)
        change = torch.diff(bands, dim=0, prepend=bands[:1])
        return ((change - change.mean(dim=0)) / change.std(dim=0).clamp(min=1e-8)).numpy()

    def music() -> Iterator[list[Any]]:
        for number, recording in enumerate(corpus.recordings):
            count = cut.count(recording.duration_s)
            blocks = list(decode(corpus.root / recording.audio_path, cut.timeline_samples(count)))
            timeline = np.concatenate(blocks).astype(np.float32) / np.float32(32768)
            # Seeded: both comparisons hear the same; every listing of a recording, other segments.
            starts = np.random.default_rng(number).choice(count, A4_SEGMENTS, replace=False)
            yield [timeline[i * 24_000 : i * 24_000 + SEGMENT_SAMPLES] for i in starts]

    result: dict[str, Any] = {"segments_a_round": A4_SEGMENTS}
    for name, plain in (("librosa", plain_librosa), ("torch", plain_torch)):

        def all_ours(segments: list[Any]) -> None:
            for samples in segments:
                ours(samples)

        def all_plain(segments: list[Any], plain: Callable[[Any], Any] = plain) -> None:
            for samples in segments:
                plain(samples)

        found = paired_over(music(), all_ours, all_plain)
        for side in ("ours_ms", "theirs_ms"):
            found[side] /= A4_SEGMENTS
        result[f"against_{name}"] = found
        apart = max(float(np.abs(ours(s[0]) - plain(s[0])).max()) for s in music())
        result[f"max_difference_{name}"] = apart
    return result


def bench_decode(corpus: Corpus, folder: Path) -> dict[str, Any]:
    """44.1 kHz stereo PCM16: every recording, the second channel 10 ms after the first."""
    path, lasted, apart = folder / "stereo.wav", [], []

    def stereo() -> Iterator[Path]:
        for recording in corpus.recordings:
            channel = soundfile.read(corpus.root / recording.audio_path, always_2d=True)[0][:, 0]
            channel = channel[: len(channel) // 44_100 * 44_100]
            sound = np.stack([channel, np.roll(channel, 441)], axis=1)
            soundfile.write(path, sound, 44_100, subtype="PCM_16")
            lasted.append(len(channel) // 44_100)
            yield path
            if len(lasted) % 3 == 0:
                reference = np.clip(np.rint(theirs(path) * 32768.0), -32768, 32767)
                mine = ours(path)  # librosa rounds the length up
                apart.append(np.abs(mine - reference[: len(mine)]).max())

    def ours(path: Path) -> Any:
        return np.concatenate(list(decode(path, lasted[-1] * 24_000)))

    def theirs(path: Path) -> Any:
        return librosa.load(path, sr=24_000)[0]

    found = paired_over(stereo(), ours, theirs)
    path.unlink()
    return {**found, "hours": sum(lasted) / 3600, "max_difference_lsb": float(max(apart))}


def bench_stage(corpus: Corpus, folder: Path, rounds: int) -> dict[str, Any]:
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
        "stage_over_kernels": ranged(a / k for a, k in zip(alone, around, strict=True)),
    }
    # One, two, two, one, …: a machine that slows down steadily favours neither.
    pairs = []
    with open_executor(1) as one, open_executor(2) as two:
        stage(one, few)
        stage(two, few)
        for number in range(rounds):
            both = [(1, one), (2, two)]
            found = {n: stage(e) for n, e in (both[::-1] if number % 2 else both)}
            pairs.append((found[1], found[2]))
    result["one_worker_s"], result["two_workers_s"] = (
        list(side) for side in zip(*pairs, strict=True)
    )
    result["two_over_one"] = {**ranged(a / b for a, b in pairs), "rounds": rounds}
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
