"""``--corpus demo | maestro | FILE.csv`` → a named table of recordings and the folder they lie in."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

from pipeline.base.errors import CorpusError, UsageError
from pipeline.base.registry import Registry
from pipeline.corpora.recordings import Recording, load_table
from pipeline.corpora.takes import Take, choose_takes

DESCRIPTORS = ("mel", "A4", "D4")  # what every preset reads
Progress = Callable[[int, int, str], None]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Corpus:
    """A corpus ready to be read.

    Attributes
    ----------
    name : what its stores are called
    table : the metadata file
    root : the folder its paths are relative to
    licence : of the recordings, as far as it is known
    descriptors : what is built unless asked otherwise; ``mel`` would be 40 % of MAESTRO's store
    takes : how each recording is rendered, where its audio is not read but made from its MIDI file
    """

    name: str
    table: Path
    root: Path
    recordings: list[Recording]
    licence: str | None = None
    descriptors: tuple[str, ...] = DESCRIPTORS
    takes: tuple[Take, ...] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class CorpusRequest:
    """What the command line says about the corpus.

    Attributes
    ----------
    root : folder of the recordings, or None for the corpus' own default
    cache : where a corpus that is made here may be kept
    workers : processes for a corpus that is made here
    rendered : make the audio from the MIDI files
    soundfonts : see :func:`~pipeline.corpora.takes.choose_takes`
    """

    root: Path | None
    cache: Path
    workers: int
    progress: Progress | None = None
    rendered: bool = False
    soundfonts: tuple[str, ...] = ()


CORPORA: Registry[Callable[[CorpusRequest], Corpus]] = Registry("corpus")


@CORPORA.register("demo")
def _demo(request: CorpusRequest) -> Corpus:
    from pipeline.corpora.demo import DEMO_LICENCE, make_demo

    folder = request.root or request.cache / "demo"
    table = make_demo(folder, workers=max(1, request.workers), progress=request.progress)
    return Corpus(
        name="demo", table=table, root=folder, recordings=load_table(table), licence=DEMO_LICENCE
    )


@CORPORA.register("maestro")
def _maestro(request: CorpusRequest) -> Corpus:
    if request.root is None:
        raise CorpusError(
            "the maestro corpus needs its folder: --root DIR, where DIR holds maestro-v3.0.0.csv"
        )
    for name in ("maestro-v3.0.0.csv", "maestro-v3.0.0.json"):
        table = request.root / name
        if table.is_file():
            recordings = load_table(table)
            return Corpus(
                name="maestro",
                table=table,
                root=request.root,
                recordings=recordings,
                licence="CC BY-NC-SA 4.0",
                descriptors=("A4", "D4"),
            )
    raise CorpusError(
        f"{request.root} holds neither maestro-v3.0.0.csv nor maestro-v3.0.0.json; "
        "point --root at the unpacked data set"
    )


def resolve_corpus(name: str, request: CorpusRequest) -> Corpus:
    """The corpus called ``name``, or the one whose table is the file ``name``, rendered if asked for.

    Raises
    ------
    CorpusError
        for a table that cannot be read, or a SoundFont; :class:`ConfigError` for an unknown name.
    """
    if request.soundfonts and not request.rendered:
        raise UsageError("--soundfont is for audio that is rendered: add --audio rendered")
    if Path(name).is_dir() and name not in CORPORA:
        raise UsageError(
            f"{name} is a folder: name its table (make-csv proposes one), or build from its MIDI "
            "files alone with --audio rendered"
        )
    corpus = _resolve(name, request)
    if not request.rendered:
        return corpus
    takes = choose_takes(corpus.recordings, request.soundfonts)
    # Its own sound, so its own name.
    return dataclasses.replace(
        corpus, name=f"{corpus.name}-rendered", takes=takes, descriptors=DESCRIPTORS
    )


def _resolve(name: str, request: CorpusRequest) -> Corpus:
    path = Path(name)
    if path.suffix.lower() in (".csv", ".json") or path.is_file():
        if not path.is_file():
            raise CorpusError(f"there is no corpus table {path}")
        slug = re.sub(r"[^a-z0-9]+", "-", path.stem.lower()).strip("-") or "corpus"
        return Corpus(
            name=slug, table=path, root=request.root or path.parent, recordings=load_table(path)
        )
    return CORPORA.get(name)(request)
