"""What the `demo` corpus holds: a table of public-domain scores, and its recordings.

The scores are files of music21's own wheel (its ``corpus`` folder); nothing is downloaded. All
compositions are in the public domain; music21's ``corpus/license.txt`` speaks of the encodings,
which stay where they are: what is written are performances of them. Piano music comes first;
chorales, songs and quartets are played as a piano reduction of all parts.

One row is one composition with its tempo, the spans that are played (in quarters from the start
of the score, repeats written out) and its performers. No work is in two splits, and no two
movements of one work are either, so splits stay disjoint however a title is normalised.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipeline.corpora.performers import PERFORMERS, Performer
from pipeline.corpora.rendering import Studio
from pipeline.corpora.scores import Span


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """One composition of the table.

    Attributes
    ----------
    key
        Short name, used in file names and seeds.
    path
        Relative to music21's ``corpus`` folder.
    tempo
        Quarters per minute before any performer changes it.
    spans
        What is played, in order; quarters from the start of the score.
    performers
        One recording each.
    """

    key: str
    composer: str
    title: str
    split: Literal["train", "validation", "test"]
    path: str
    tempo: float
    spans: tuple[Span, ...]
    performers: tuple[str, ...]


BACH, CPE = "Johann Sebastian Bach", "Carl Philipp Emanuel Bach"
CLARA, ROBERT = "Clara Schumann", "Robert Schumann"
MOZART, BEETHOVEN = "Wolfgang Amadeus Mozart", "Ludwig van Beethoven"


def _score(
    split: Literal["train", "validation", "test"],
    key: str,
    composer: str,
    title: str,
    path: str,
    tempo: float,
    spans: tuple[Span, ...],
    performers: str,
) -> Score:
    names = tuple(performers.split())
    return Score(
        key=key, composer=composer, title=title, split=split, path=path, tempo=tempo, spans=spans,
        performers=names,
    )  # fmt: skip


# fmt: off
SCORES: tuple[Score, ...] = (
    _score("train", "bach-846", BACH, "Prelude in C Major, BWV 846",
           "bach/bwv846.mxl", 76, ((0, 84),), "even singing"),
    _score("train", "bach-passion", BACH, 'Chorale "O Haupt voll Blut und Wunden", BWV 244/54',
           "bach/bwv244.54.mxl", 54, ((0, 16), (0, 16), (16, 48)), "quiet free"),
    _score("train", "cpe-bach-186", CPE, "Sonata in A Major, H. 186, Second Movement",
           "cpebach/h186.mxl", 56, ((0, 68),), "singing even"),
    _score("train", "handel-rinaldo", "George Frideric Handel", "Lascia ch'io pianga, HWV 7",
           "handel/rinaldo/Lascia_chio_pianga.mxl", 74, ((48, 138),), "singing brisk"),
    _score("train", "corelli-op3", "Arcangelo Corelli", "Sonata da Chiesa, Op. 3 No. 1, Grave",
           "corelli/opus3no1/1grave.xml", 62, ((0, 76),), "quiet"),
    _score("train", "haydn-op74", "Joseph Haydn", "String Quartet, Op. 74 No. 1, Second Movement",
           "haydn/opus74no1/movement2.mxl", 70, ((0, 85),), "even free"),
    _score("train", "mozart-155", MOZART, "String Quartet in D Major, K. 155, First Movement",
           "mozart/k155/movement1.mxl", 126, ((0, 152),), "brisk quiet"),
    _score("train", "mozart-458", MOZART, "String Quartet in B-flat Major, K. 458, Third Movement",
           "mozart/k458/movement3.mxl", 52, ((0, 60),), "free"),
    _score("train", "beethoven-op59-3", BEETHOVEN, "String Quartet, Op. 59 No. 3, Third Movement",
           "beethoven/opus59no3/movement3.mxl", 94, ((0, 114),), "even singing"),
    _score("train", "schubert-lindenbaum", "Franz Schubert", "Der Lindenbaum, D. 911 No. 5",
           "schubert/Lindenbaum.xml", 86, ((0, 108),), "singing free"),
    _score("train", "schumann-op41", ROBERT, "String Quartet, Op. 41 No. 1, Intermezzo",
           "schumann_robert/opus41no1/movement3.mxl", 108, ((0, 64), (64, 128)), "quiet"),
    _score("train", "schumann-op48", ROBERT, "Aus meinen Tränen sprießen, Op. 48 No. 2",
           "schumann_robert/opus48no2.mxl", 56, ((0, 32.75), (0, 33.75)), "free"),
    _score("train", "clara-op1-3", CLARA, "Polonaise in D Major, Op. 1 No. 3",
           "schumann_clara/polonaise_op1n3.mxl", 98, ((0, 24), (0, 24), (24, 87)), "singing quiet"),
    _score("train", "verdi-rigoletto", "Giuseppe Verdi", "La donna è mobile (Rigoletto)",
           "verdi/laDonnaEMobile.mxl", 88, ((0, 52.5), (0, 52.5)), "brisk"),
    _score("train", "joplin-maple", "Scott Joplin", "Maple Leaf Rag",
           "joplin/maple_leaf_rag.mxl", 100, ((0, 32.5), (34.5, 66.5), (66.5, 132.5)),
           "brisk even"),
    _score("validation", "mozart-545", MOZART, "Sonata in C Major, K. 545, First Movement",
           "mozart/k545/movement1_exposition.mxl", 112, ((0, 48), (0, 48)), "brisk singing"),
    _score("validation", "clara-op1-1", CLARA, "Polonaise in E-flat Major, Op. 1 No. 1",
           "schumann_clara/polonaise_op1n1.mxl", 98, ((0, 24), (0, 24), (24, 96)), "free brisk"),
    _score("validation", "haydn-op1", "Joseph Haydn", "String Quartet, Op. 1 No. 1, Presto",
           "haydn/opus1no1/movement1.mxl", 124, ((0, 72), (72, 148)), "quiet brisk"),
    _score("validation", "beethoven-op18-1", BEETHOVEN, "String Quartet, Op. 18 No. 1, Scherzo",
           "beethoven/opus18no1/movement3.mxl", 200, ((0, 30), (0, 30), (30, 220)), "even"),
    _score("validation", "bach-festeburg", BACH, 'Chorale "Ein feste Burg", BWV 80/8',
           "bach/bwv80.8.mxl", 56, ((0, 16), (0, 16), (16, 48)), "singing"),
    _score("test", "chopin-op6-2", "Frédéric Chopin", "Mazurka in C-sharp Minor, Op. 6 No. 2",
           "chopin/mazurka06-2.krn", 165, ((0, 200),), "free even"),
    _score("test", "clara-op1-2", CLARA, "Polonaise in C Major, Op. 1 No. 2",
           "schumann_clara/polonaise_op1n2.mxl", 96, ((0, 24), (0, 24), (24, 48), (48, 96)),
           "free even"),
    _score("test", "clara-op1-4", CLARA, "Polonaise in C Major, Op. 1 No. 4",
           "schumann_clara/polonaise_op1n4.mxl", 96, ((0, 24), (0, 24), (24, 96)), "singing"),
    _score("test", "mozart-156", MOZART, "String Quartet in G Major, K. 156, First Movement",
           "mozart/k156/movement1.mxl", 120, ((0, 106.5), (106.5, 150)), "brisk"),
    _score("test", "beethoven-op59-2", BEETHOVEN, "String Quartet, Op. 59 No. 2, Third Movement",
           "beethoven/opus59no2/movement3.mxl", 130, ((0, 165),), "quiet"),
    _score("test", "bach-jesu", BACH, 'Chorale "Jesu, meine Freude", BWV 227/1',
           "bach/bwv227.1.mxl", 62, ((0, 76),), "even"),
)
# fmt: on


@dataclass(frozen=True, kw_only=True, slots=True)
class Recording:
    """One row of the corpus: who plays what, and how it is recorded."""

    key: str
    score: Score
    performer: Performer
    studio: Studio

    @property
    def midi_filename(self) -> str:
        """Relative to the corpus folder, with ``/``."""
        return f"{self.performer.year}/{self.key}.midi"

    @property
    def audio_filename(self) -> str:
        """Relative to the corpus folder, with ``/``."""
        return f"{self.performer.year}/{self.key}.wav"


def seed_of(*names: str) -> int:
    """A 128-bit seed from names; the same in every process, unlike Python's ``hash``."""
    return int.from_bytes(hashlib.sha256("\0".join(names).encode()).digest()[:16], "little")


def _recordings() -> Iterator[Recording]:
    pairs = [(score, PERFORMERS[name]) for score in SCORES for name in score.performers]
    for index, (score, performer) in enumerate(pairs):
        key = f"{score.key}-{performer.name}"
        rng = np.random.default_rng(seed_of(key, "studio"))
        # rates and channels by position, not by chance: they decide the size of the corpus
        studio = Studio(
            program=int(rng.choice([0, 2, 3], p=[0.5, 0.3, 0.2])),
            sample_rate=48_000 if index % 9 == 4 else 44_100,
            channels=2 if index % 17 == 2 else 1,
            bass_db=float(rng.uniform(-3, 3)),
            treble_db=float(rng.uniform(-4, 3)),
            reverb_s=float(rng.uniform(0.25, 0.7)),
            wet_db=float(rng.uniform(-18, -11)),
            width=float(rng.uniform(0.5, 1.2)),
            peak_db=float(rng.uniform(-6, -3.1)),
            noise_db=float(rng.uniform(-76, -66)),
            tail_s=float(rng.uniform(1.2, 2.4)),
        )
        yield Recording(key=key, score=score, performer=performer, studio=studio)


RECORDINGS: tuple[Recording, ...] = tuple(_recordings())
