"""Harder questions: larger pools, noise, other music; models beside the two best training-free floors.

    python -m benchmarks.harder --store STORE --models NAME RUN [RUN …] [--models NAME RUN …]

On recordings of a real piano a model without a mistake could not be told apart from these floors in S.
Here the strict questions are asked again of more candidates (no more hard ones than before: the
protocol has at most 64 of the same recording), and of sound under white noise, pink noise and
interfering music (:mod:`benchmarks.interference`).

Floors are asked twice: as they are, and centred (from every band of both pictures its mean over time
is taken). What is laid over a sound adds nearly the same to every frame, so that the notes whose
picture is flattest would be nearest to everything.

What each subject answered is kept beside it; a run that was stopped goes on. Writes
``benchmarks/results/harder.json``.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import torch

from benchmarks.common import environment, write
from benchmarks.interference import Colour, mixed, noise, other_music, partners
from benchmarks.reproduced import FLOORS_ON_REAL, SIDES, difference_of
from pipeline.base.config import digest
from pipeline.base.errors import RunError
from pipeline.descriptors.contract import Side
from pipeline.spectral import N_FRAMES
from pipeline.store import Store
from trainer.analyses.bench import Bench
from trainer.analyses.comparison import unlike
from trainer.analyses.floor_bench import FloorBench
from trainer.analyses.perturbations import EditSamples, sound_changed
from trainer.floors import BASELINE_FOLDER, Floor
from trainer.records import read_scored, store_identity, write_scores
from trainer.retrieval.compare import Scored, compare
from trainer.retrieval.gallery import Gallery
from trainer.retrieval.protocols import PROTOCOLS
from trainer.run import open_run

MORE_CANDIDATES = 1024
NOISE_DB = (0, -10, -20)
MUSIC_DB = (10, 0, -5)
KEPT = "harder"
VERSION = 2  # of the questions: answers to others are not read again

Features = Mapping[Side, Any]


class Question(NamedTuple):
    """What is asked: of sound that went through ``edit``, of a pool of that size."""

    name: str
    edit: EditSamples | None = None
    pool_size: int | None = None


def centred(values_NW: np.ndarray) -> np.ndarray:
    """Pictures [N, bands · 188] without every band's mean over time: float32."""
    pictures_NBF = values_NW.reshape(len(values_NW), -1, N_FRAMES).astype(np.float32)
    pictures_NBF -= pictures_NBF.mean(axis=2, keepdims=True)
    return pictures_NBF.reshape(values_NW.shape)


FORMS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "": lambda values_NW: values_NW,
    ", centred": centred,
}
"""What is added to a floor's name → what is done with its pictures."""


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
    groups = [
        (name, [Bench(open_run(Path(path)), store, arguments.split) for path in paths])
        for name, *paths in arguments.models
    ]
    check_groups(groups)
    write("harder", {"environment": environment(), **asked(dict(groups), FLOORS_ON_REAL)})


def check_groups(groups: Sequence[tuple[str, Sequence[Bench]]]) -> None:
    """Refuse, before anything is asked, runs that are no seeds of one another, and unlike pools."""
    names = [name for name, _ in groups]
    for name, benches in groups:
        if not benches:
            raise SystemExit(f"--models {name}: give the folders of its runs, too")
        if names.count(name) > 1:
            raise SystemExit(f"--models {name} is given twice")
        first = benches[0].run
        for bench in benches:
            if bench.run.record["arm"] != first.record["arm"] or unlike(first, bench.run):
                raise SystemExit(f"--models {name}: {bench.run.path} is no seed of {first.path}")
    if len({benches[0].pool_size for _, benches in groups}) > 1:
        raise SystemExit("the models have pools of different size")


def asked(models: Mapping[str, Sequence[Bench]], names: Sequence[str]) -> dict[str, Any]:
    """Every question's scores of the models and of the floors of these names, and differences."""
    first = next(iter(models.values()))[0]
    store, size = first.store, first.pool_size
    cache = first.run.path.parent / BASELINE_FOLDER
    floors = [
        FloorBench(Floor(name, store, first.split, cache=cache, pool_size=size)) for name in names
    ]
    found = []
    for question in questions(first):
        theirs: dict[str, list[Scored]] = {}
        for floor in floors:
            features = functools.cache(functools.partial(embedded, floor, question))
            for form, changed in FORMS.items():
                made = functools.partial(_in_form, features, changed)
                theirs[floor.floor.name + form] = [answered(floor, question, made, form)]
        ours = {
            name: [answered(b, question, functools.partial(embedded, b, question)) for b in benches]
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
        "questions": found,
    }


def questions(first: Bench) -> Iterator[Question]:
    """From the usual one on; more candidates only where the split has them."""
    yield Question("as it is")
    if first.pool_size < MORE_CANDIDATES <= most_candidates(first.gallery):
        yield Question(f"{MORE_CANDIDATES:,} candidates", pool_size=MORE_CANDIDATES)
    for colour in get_args(Colour):
        for level in NOISE_DB:
            yield Question(f"{colour} noise, {said(level)}", mixed(noise(colour), level))
    music = other_music(first.store, partners(first.gallery, first.pools("sound")))
    for level in MUSIC_DB:
        yield Question(f"other music, {said(level)}", mixed(music, level))


def said(level_db: int) -> str:
    """A ratio in dB, with a minus sign that looks like one."""
    return f"{level_db} dB".replace("-", "−")


def most_candidates(gallery: Gallery) -> int:
    """For every query: all valid segments but those of one work."""
    of_work = np.bincount(gallery.composition[gallery.valid])
    return int(gallery.valid.sum() - of_work.max() + 1)


def embedded(subject: Bench | FloorBench, question: Question) -> Features:
    """Both sides, the sound changed as the question says."""
    if question.edit is None:
        return subject.embeddings
    if isinstance(subject, Bench):
        return subject.changed("audio", sound_changed(subject, question.edit))
    return subject.changed("audio", question.edit)


def _in_form(
    features: Callable[[], Features], changed: Callable[[np.ndarray], np.ndarray]
) -> Features:
    return {side: changed(values) for side, values in features().items()}


def answered(
    subject: Bench | FloorBench,
    question: Question,
    made: Callable[[], Features],
    form: str = "",
) -> Scored:
    """What the subject answered, read where it was asked before; else asked of what is ``made``."""
    about = subject.about()
    key = digest(
        {
            "version": VERSION,
            "subject": subject.key,
            "form": form,
            "question": question.name,
            "pool_size": question.pool_size or subject.pool_size,
        }
    )
    file = subject.folder / f"{KEPT}-{key}"
    with contextlib.suppress(RunError):
        return read_scored(file, about["run"] + form, about["seed"])
    pools = None
    if question.pool_size is not None:
        pools = PROTOCOLS.get("strict").pools(subject.gallery, None, question.pool_size)
    scores = subject.scores(made(), "sound", pools)
    record = scores.record() | {
        "run": about["run"] + form,
        "leaks": about["leaks"],
        "store_identity": store_identity(subject.store),
    }
    write_scores(file, record, scores)
    return read_scored(file, about["run"] + form, about["seed"])


def _scores(scored: Sequence[Scored]) -> dict[str, list[float]]:
    """S, and R@1 by direction, of every model."""
    metrics = ("S", *(f"{side} R@1" for side in SIDES))
    return {metric: [round(s.score(metric), 6) for s in scored] for metric in metrics}


if __name__ == "__main__":
    main()
