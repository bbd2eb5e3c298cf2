"""What every descriptor costs on one core, beside its definition in plain NumPy.

1. Each descriptor alone, its transform included, against :mod:`benchmarks.plain`; and what it costs:
   the least processor time of a segment.
2. A4 against the float32 FFTs that a library would need for it.
3. A4, A7, A8, A9, D4 and mel of one segment, against the sum of their kernels and one transform:
   of every kernel by itself, and with what a family shares counted once, as it is made.

Music of the demo corpus; every call takes the next of eight segments.

    python -m benchmarks.descriptors [--demo DIR] [--rounds 15]
"""

from __future__ import annotations

import argparse
import itertools
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"  # before NumPy is imported: one core each

import numpy as np
import scipy.fft

from benchmarks import plain
from benchmarks.common import environment, paired, ranged, seconds, write
from pipeline.audio import decode
from pipeline.corpora.demo import make_demo
from pipeline.corpora.recordings import load_table
from pipeline.descriptors import DESCRIPTORS, Descriptor, Notes
from pipeline.midi import read_performance
from pipeline.segments import cut_notes
from pipeline.spectral import SEGMENT_SAMPLES, Spectrum, Workspace
from pipeline.store.schema import Segmentation

TOGETHER = ("A4", "A7", "A8", "A9", "D4", "mel")
SEGMENTS = range(4, 36, 4)  # seconds from the start of a recording
TIMING_S = 0.02  # each timing lasts at least so long
Segment = tuple[Any, Notes]


def main() -> None:
    """Measure and write ``benchmarks/results/descriptors.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--demo", type=Path, default=Path("data/corpora/demo"))
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    result: dict[str, Any] = {"environment": environment()}
    segments = music(make_demo(arguments.demo))
    result["notes_a_segment"] = sum(len(notes) for _, notes in segments) / len(segments)
    result["descriptors"] = {
        name: bench_one(DESCRIPTORS.get(name), segments, arguments.rounds) for name in plain.PLAIN
    }
    result["a4_against_fft"] = bench_fft(segments, arguments.rounds)
    result["together"] = bench_together(segments, arguments.rounds)
    write("descriptors", result)


def music(table: Path) -> list[Segment]:
    """Samples and notes of eight segments of a recording."""
    recording = load_table(table)[0]
    root, cut = table.parent, Segmentation()
    count = max(SEGMENTS) + 1
    blocks = list(decode(root / recording.audio_path, cut.timeline_samples(count)))
    timeline = np.concatenate(blocks).astype(np.float32) / np.float32(32768)
    rows = cut_notes(read_performance(root / recording.midi_path), count, cut)
    out = []
    for i in SEGMENTS:
        mine = rows["segment"] == i
        notes = Notes(**{k: v[mine] for k, v in rows.items() if k != "segment"})
        out.append((timeline[i * 24_000 : i * 24_000 + SEGMENT_SAMPLES], notes))
    return out


def over(segments: list[Segment], function: Callable[[Segment], Any]) -> Callable[[], Any]:
    """A function without arguments that takes the next segment at every call."""
    following = itertools.cycle(segments)
    return lambda: function(next(following))


def bench_one(descriptor: Descriptor, segments: list[Segment], rounds: int) -> dict[str, Any]:
    """One descriptor alone against its definition in plain NumPy."""
    work, definition = Workspace(), plain.PLAIN[descriptor.name]

    def ours(segment: Segment) -> Any:
        samples, notes = segment
        return descriptor.extract(Spectrum(samples, work) if descriptor.side == "audio" else notes)

    def theirs(segment: Segment) -> Any:
        return definition(segment[descriptor.side == "midi"])

    apart = max(float(np.abs(ours(s) - theirs(s)).max()) for s in segments)
    calls = max(1, int(TIMING_S / seconds(over(segments, ours))))
    calls = len(segments) * -(-calls // len(segments))
    alone = over(segments, ours)
    cost = min(processor_seconds(alone, len(segments)) for _ in range(3 * rounds))
    slow = seconds(over(segments, theirs)) * calls > 0.5
    rounds = min(rounds, 5) if slow else rounds
    found = paired(over(segments, ours), over(segments, theirs), rounds, calls)
    return {**found, "cost_ms": 1e3 * cost, "max_difference": apart}


def processor_seconds(function: Callable[[], Any], calls: int) -> float:
    """Time that this thread had a core for one of ``calls`` calls: other work on it does not count."""
    began = time.thread_time()
    for _ in range(calls):
        function()
    return (time.thread_time() - began) / calls


def bench_fft(segments: list[Segment], rounds: int) -> dict[str, float]:
    """A4 against 188 real FFTs of 2,048 float32 samples, already cut and windowed."""
    a4, work = DESCRIPTORS.get("A4"), Workspace()
    framed = [(plain.frames(s, plain.WINDOW32), n) for s, n in segments]
    found = paired(
        over(segments, lambda s: a4.extract(Spectrum(s[0], work))),
        over(framed, lambda s: scipy.fft.rfft(s[0])),
        rounds,
        calls=24,
    )
    return {"a4_ms": found["ours_ms"], "fft_ms": found["theirs_ms"], "rounds": rounds}


def bench_together(segments: list[Segment], rounds: int) -> dict[str, Any]:
    """Several descriptors of one segment, and each of their kernels alone."""
    work = Workspace()
    described = [DESCRIPTORS.get(name) for name in TOGETHER]
    ready = [(Spectrum(samples), notes) for samples, notes in segments]

    def together(segment: Segment) -> None:
        inputs = {"audio": Spectrum(segment[0], work), "midi": segment[1]}
        for descriptor in described:
            descriptor.extract(inputs[descriptor.side])

    def again(segment: Segment, shared: dict[Any, Any]) -> Spectrum:
        spectrum = Spectrum(segment[0].samples, work)
        spectrum.__dict__["magnitude"] = segment[0].magnitude
        spectrum._made.update(shared)
        return spectrum

    def kernel(descriptor: Descriptor, *, given: bool) -> Callable[[Segment], Any]:
        def alone(segment: Segment) -> Any:
            if descriptor.side == "midi":
                return descriptor.extract(segment[1])
            return descriptor.extract(again(segment, segment[0]._made if given else {}))

        return alone

    def maker(make: Callable[[Spectrum], Any]) -> Callable[[Segment], Any]:
        def alone(segment: Segment) -> Any:
            others = {m: made for m, made in segment[0]._made.items() if m is not make}
            return make(again(segment, others))

        return alone

    for spectrum, _ in ready:  # what a family shares is made here: the makers are then known
        for d in described:
            if d.side == "audio":
                d.extract(spectrum)
    transform = over(segments, lambda s: Spectrum(s[0], work).magnitude)
    parts: dict[str, Callable[[], Any]] = {
        "stft": transform,
        **{d.name: over(ready, kernel(d, given=False)) for d in described},
    }
    once: dict[str, Callable[[], Any]] = {
        "stft": transform,
        **{m.__name__: over(ready, maker(m)) for m in ready[0][0]._made},
        **{d.name: over(ready, kernel(d, given=True)) for d in described},
    }
    whole = over(segments, together)
    for function in (whole, *parts.values(), *once.values()):
        function()

    def timed(function: Callable[[], Any], calls: int = 24) -> float:
        return 1e3 * seconds(lambda: [function() for _ in range(calls)]) / calls

    def each(kind: dict[str, Callable[[], Any]]) -> dict[str, float]:
        return {name: timed(function) for name, function in kind.items()}

    runs = [(timed(whole), each(parts), each(once)) for _ in range(rounds)]
    return {
        "names": TOGETHER,
        "together_ms": float(np.median([a for a, _, _ in runs])),
        "kernels_ms": {n: float(np.median([b[n] for _, b, _ in runs])) for n in parts},
        "kernels_shared_once_ms": {n: float(np.median([c[n] for _, _, c in runs])) for n in once},
        "against_separate": ranged(a / sum(b.values()) for a, b, _ in runs),
        "against_shared_once": ranged(a / sum(c.values()) for a, _, c in runs),
        "rounds": rounds,
    }


if __name__ == "__main__":
    main()
