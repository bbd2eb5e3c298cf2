"""What is reproduced, by how much there is to compute with: stores, campaigns, analyses."""

from __future__ import annotations

import csv
import dataclasses
from collections import defaultdict
from pathlib import Path

from pipeline.base.errors import CorpusError
from pipeline.corpora.recordings import load_table

OWN = Path(__file__).parent / "campaigns"  # manifests that stand nowhere else
TABLE = "maestro.csv"  # so that its rendered store is of the corpus maestro-rendered
REAL = "real-piano.csv"
REAL_PIANO = "ENSTDk"  # the two codes of the Disklavier in MAPS' file names
DESCRIPTORS = "mel,A4,D4,A7,A8,A9"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Tier:
    """One size of the reproduction.

    Attributes
    ----------
    per_split : recordings of each split that are taken, or None for all
    audio : ``rendered``, or ``files`` where there is MAESTRO itself
    campaigns : manifests by name or file
    tiny : at which size
    analysed : arms of the first campaign's first seed that every analysis looks at
    real : whether what was trained is scored on the recordings of a real piano, too
    on_real : analyses of these recordings
    asked_floors : training-free baselines that these analyses ask, too
    floors : training-free baselines beside the arms
    """

    title: str
    campaigns: tuple[str, ...]
    per_split: dict[str, int] | None = None
    audio: str = "rendered"
    tiny: bool = False
    analysed: tuple[str, ...] = ("d0", "a4r", "d4a4")
    analyses: tuple[str, ...] = ("ablation", "similarity", "sensitivity")
    real: bool = True
    on_real: tuple[str, ...] = ()
    asked_floors: tuple[str, ...] = ()
    floors: tuple[str, ...] = ("all",)


TIERS = {
    "smoke": Tier(
        title="a few minutes: the cut that the tests run",
        campaigns=(str(OWN / "smoke.toml"),),
        per_split={"train": 4, "validation": 5, "test": 5},
        tiny=True,
        analysed=("d0", "a4r"),
        analyses=("ablation", "sensitivity"),
        real=False,
        floors=("flux", "register"),
    ),
    "cpu": Tier(
        title="half an hour on two cores: small models, a part of the performances",
        campaigns=(str(OWN / "scratch.toml"),),
        per_split={"train": 40, "validation": 10, "test": 10},
        tiny=True,
    ),
    "strong": Tier(
        title="six hours on two cores: the corrected preset and the paper's, tiny, all performances",
        campaigns=tuple(str(OWN / f"{name}.toml") for name in ("strong", "robust", "paper")),
        tiny=True,
        analysed=("d0", "a4r", "d4a4"),
        analyses=("ablation", "similarity"),
        on_real=("invariance",),
        asked_floors=("cqt", "flux"),
    ),
    **{
        f"strong-{which}": Tier(
            title=f"two hours on two cores: the paper's {arm}, beside the corrected d0",
            campaigns=tuple(str(OWN / f"{name}.toml") for name in ("corrected", f"paper-{which}")),
            tiny=True,
            analysed=("d0",),
            analyses=(),
        )
        for which, arm in (("rest", "a7x"), ("last", "d4r"))  # a queue may have no time for both
    },
    "gpu": Tier(
        title="half an hour on an H200: 13 arms at the paper's size, three seeds of the best",
        campaigns=(str(OWN / "scratch.toml"),),
    ),
    "full": Tier(
        title="MAESTRO itself, as the paper: seeds, screening from a foundation, matched control",
        campaigns=("seeds", "screening", "matched"),  # analysed is the first
        audio="files",
    ),
}


def write_table(source: Path, midi: Path, tier: Tier, target: Path) -> Path:
    """The corpus table of a tier: rows of ``source`` whose MIDI file is in ``midi``.

    Of each split the first recordings in order of the table, one of each composition before a second
    of any, so that a small cut has as many works as it can.

    Raises
    ------
    CorpusError
        when a split has fewer recordings than the tier takes.
    """
    with source.open(encoding="utf-8", newline="") as handle:
        reader = csv.DictReader(handle)
        rows, columns = list(reader), list(reader.fieldnames or [])
    there = [r for r in load_table(source) if (midi / r.midi_path).is_file()]
    if not there:
        raise CorpusError(f"{midi} holds no MIDI file of {source}")
    chosen = set()
    for split in ("train", "validation", "test"):
        takes: dict[str, int] = defaultdict(int)
        order = []
        for r in (r for r in there if r.split == split):
            order.append((takes[r.composition], r.recording))
            takes[r.composition] += 1
        wanted = len(order) if tier.per_split is None else tier.per_split[split]
        if len(order) < wanted:
            raise CorpusError(
                f"{midi} holds {len(order)} {split} recordings of {source}, fewer than {wanted}"
            )
        chosen |= {number for _, number in sorted(order)[:wanted]}
    return _write(target, columns, [row for i, row in enumerate(rows) if i in chosen])


def write_real_table(source: Path, target: Path) -> Path:
    """The recordings of a real piano among those with aligned MIDI, all of them to test on."""
    with source.open(encoding="utf-8", newline="") as handle:
        reader = csv.DictReader(handle)
        rows, columns = list(reader), list(reader.fieldnames or [])
    real = [{**row, "split": "test"} for row in rows if REAL_PIANO in row["audio_filename"]]
    return _write(target, columns, real)


def _write(target: Path, columns: list[str], rows: list[dict[str, str]]) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return target
