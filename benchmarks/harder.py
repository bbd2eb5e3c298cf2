"""Where the best floors leave room: larger pools, noise, other music, as few numbers as a model has.

    python -m benchmarks.harder --store STORE --models NAME RUN [RUN …] [--models NAME RUN …]

On recordings of a real piano a model without a mistake could not be told apart from the two best
training-free floors. Here the same strict questions are made harder, for models and for both floors,
until there is room:

pools
    Of more candidates; no neighbours that overlap, no other performances, as before.
noise
    White, so loud that floors begin to miss (the invariance suite ends at 5 dB).
other music
    What another recording of the split plays, on top of the sound.
numbers
    A floor keeps a picture of 16,544 numbers a segment, a model's embedding some hundreds. Floors
    after a random projection to that many (Gaussian, drawn once; cosines are kept but for an error of
    about 1/√numbers).

What each subject answered is kept beside it; a run that was stopped goes on. Writes
``benchmarks/results/harder.json``.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks.common import environment, write
from benchmarks.reproduced import FLOORS_ON_REAL, SIDES, difference_of
from pipeline.base.config import digest
from pipeline.base.errors import RunError
from pipeline.descriptors.contract import Side
from pipeline.store import Store
from trainer.analyses.bench import Bench
from trainer.analyses.comparison import unlike
from trainer.analyses.floor_bench import FloorBench
from trainer.analyses.perturbations import EditSamples, noisy, sound_changed
from trainer.floors import BASELINE_FOLDER, Floor
from trainer.records import read_scored, store_identity, write_scores
from trainer.retrieval.baselines import BASELINES, segments_of
from trainer.retrieval.compare import Scored, compare
from trainer.retrieval.gallery import Gallery
from trainer.retrieval.protocols import PROTOCOLS
from trainer.run import open_run

POOLS = (512, 1024)
NOISE = (0, -5, -10, -15, -20)
OTHER_MUSIC = (10, 5, 0, -5)
BLOCK = 128  # columns of a projection that are drawn at a time
KEPT = "harder"


class Question(NamedTuple):
    """What is asked: ``edit`` of the sound, candidates in a pool, numbers that a floor may keep."""

    name: str
    edit: EditSamples | None = None
    pool_size: int | None = None
    numbers: int | None = None


def main() -> None:
    """Ask, compare, write the JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--models", nargs="+", action="append", required=True, metavar=("NAME", "RUN"),
        help="what they are called, and the folders of their runs, seeds of one another; may be "
        "repeated",
    )  # fmt: skip
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--split", default="test")
    parser.add_argument("--threads", type=int)
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    store = Store.open(arguments.store)
    models = {
        name: [Bench(open_run(Path(path)), store, arguments.split) for path in paths]
        for name, *paths in arguments.models
    }
    for name, benches in models.items():
        _check_seeds(name, benches)
    write("harder", {"environment": environment(), **asked(models, FLOORS_ON_REAL)})


def _check_seeds(name: str, benches: Sequence[Bench]) -> None:
    """Refuse, before anything is asked, a group whose runs are no seeds of one another."""
    if not benches:
        raise SystemExit(f"--models {name}: give the folders of its runs, too")
    first = benches[0].run
    for bench in benches:
        if bench.run.record["arm"] != first.record["arm"] or unlike(first, bench.run):
            raise SystemExit(f"--models {name}: {bench.run.path} is no seed of {first.path}")


def asked(models: Mapping[str, Sequence[Bench]], names: Sequence[str]) -> dict[str, Any]:
    """Every question's scores of the models and of the floors of these names, and differences."""
    first = next(iter(models.values()))[0]
    store, size = first.store, first.pool_size
    cache = first.run.path.parent / BASELINE_FOLDER
    floors = [
        FloorBench(Floor(name, store, first.split, cache=cache, pool_size=size)) for name in names
    ]
    numbers = first.embeddings["audio"].shape[1]
    found = []
    for question in questions(first.gallery, store, size, numbers):
        theirs = {floor.floor.name: [answered(floor, question)] for floor in floors}
        ours = {
            name: [answered(bench, question) for bench in benches]
            for name, benches in models.items()
        }
        found.append(
            {
                "asked": question.name,
                "models": {name: _scores(scored) for name, scored in ours.items()},
                "floors": {name: _scores(scored) for name, scored in theirs.items()},
                "against": {
                    name: {
                        floor: difference_of(compare(its, scored)) for floor, its in theirs.items()
                    }
                    for name, scored in ours.items()
                },
            }
        )
        print(question.name, flush=True)
    return {
        "runs": {name: [bench.run.path.name for bench in b] for name, b in models.items()},
        "store": {"name": store.name, "identity": store.identity},
        "split": first.split,
        "pool_size": size,
        "numbers": {"models": numbers, **{n: BASELINES.get(n).width for n in names}},
        "questions": found,
    }


def questions(gallery: Gallery, store: Store, pool_size: int, numbers: int) -> Iterator[Question]:
    """From the usual one on; pools only as large as the split can fill."""
    yield Question("as it is")
    for size in POOLS:
        if size > pool_size and size <= largest(gallery):
            yield Question(f"{size:,} candidates", pool_size=size)
    for snr in NOISE:
        yield Question(f"noise, {snr} dB SNR", edit=noisy(snr))
    for level in OTHER_MUSIC:
        name = f"other music, {level} dB below" if level > 0 else f"other music, {-level} dB above"
        name = name if level else "other music, as loud"
        yield Question(name, edit=other_music(gallery, store, level))
    yield Question(f"floors in {numbers:,} numbers", numbers=numbers)


def largest(gallery: Gallery) -> int:
    """A pool of this size can surely be filled: every segment but those of the longest recording."""
    return int(gallery.valid.sum() - np.bincount(gallery.recording[gallery.valid]).max())


def other_music(gallery: Gallery, store: Store, level_db: float) -> EditSamples:
    """Sound of another recording of the split on top, ``level_db`` below the segment's own.

    The other segment is the one half the split further, or the next after it of another recording.
    """
    beside = partners(gallery)

    def edit(samples: np.ndarray, segment: int) -> np.ndarray:
        other = next(segments_of(store, np.array([beside[segment]])))[1]
        if loudness := float(other.std()):
            samples += np.float32(samples.std() / loudness * 10 ** (-level_db / 20)) * other
        return samples

    return edit


def partners(gallery: Gallery) -> dict[int, int]:
    """Segment → the segment of another recording that is laid over it."""
    n = len(gallery)
    found = {}
    for row in range(n):
        others = (np.arange(n) + row + n // 2) % n
        elsewhere = others[gallery.recording[others] != gallery.recording[row]]
        if not len(elsewhere):
            raise SystemExit("the split has one recording only: there is no other music")
        found[int(gallery.segment[row])] = int(gallery.segment[elsewhere[0]])
    return found


def answered(subject: Bench | FloorBench, question: Question) -> Scored:
    """What the subject answered, read where it was asked before."""
    about = subject.about()
    size = question.pool_size or subject.pool_size
    key = digest({"subject": subject.key, "question": question.name, "pool_size": size})
    file = subject.folder / f"{KEPT}-{key}"
    with contextlib.suppress(RunError):
        return read_scored(file, about["run"], about["seed"])
    pools = PROTOCOLS.get("strict").pools(subject.gallery, None, size)
    scores = subject.scores(embedded(subject, question), "sound", pools)
    record = scores.record() | {
        "run": about["run"],
        "leaks": about["leaks"],
        "store_identity": store_identity(subject.store),
    }
    write_scores(file, record, scores)
    return read_scored(file, about["run"], about["seed"])


def embedded(subject: Bench | FloorBench, question: Question) -> Mapping[Side, Any]:
    """Both sides, the sound changed as the question says, a floor's in as many numbers as it says."""
    edit, found = question.edit, subject.embeddings
    if isinstance(subject, Bench):
        return found if edit is None else subject.changed("audio", sound_changed(subject, edit))
    if edit is not None:
        found = subject.changed("audio", edit)
    if question.numbers is not None:
        return {side: projected(values, question.numbers) for side, values in found.items()}
    return found


def projected(values_NW: np.ndarray, numbers: int) -> np.ndarray:
    """Rows in ``numbers`` random directions, the same for every matrix of this width: float32."""
    rows_NW = values_NW.astype(np.float32)
    rows_NW /= np.maximum(np.linalg.norm(rows_NW, axis=1, keepdims=True), np.float32(1e-9))
    random = np.random.Generator(np.random.PCG64(0))
    parts = [
        rows_NW @ random.standard_normal((rows_NW.shape[1], columns), dtype=np.float32)
        for columns in [BLOCK] * (numbers // BLOCK) + [numbers % BLOCK]
    ]
    return np.concatenate(parts, axis=1)


def _scores(scored: Sequence[Scored]) -> dict[str, list[float]]:
    """Of every model; of directions the lower one."""
    return {
        "S": [round(s.score("S"), 6) for s in scored],
        "R@1": [round(min(s.score(f"{side} R@1") for side in SIDES), 6) for s in scored],
    }


if __name__ == "__main__":
    main()
