"""One work under many spellings; different works apart."""

from __future__ import annotations

import csv
from collections import defaultdict
from itertools import combinations
from pathlib import Path

import pytest

from pipeline.corpora.compositions import composition_key

SAME = [
    (
        "Frédéric Chopin",
        ["Étude Op. 25, No. 3", "Etude, Op.25 No.3", "Etude in F Major, Op. 25 No. 3"],
    ),
    (
        "Frédéric Chopin",
        ["Ballade No. 1 in G Minor, Op. 23", "Ballade Op. 23", "Ballade no.1, op.23"],
    ),
    (
        "Johann Sebastian Bach",
        ["Prelude and Fugue in C Major, WTC I, BWV 846", "WTC I, BWV846", "Fugue BWV 846"],
    ),
    (
        "Ludwig van Beethoven",
        [
            "Sonata No. 23 in F Minor, Op. 57, I",
            'Sonata Op. 57 "Appassionata"',
            "Sonata No. 23, Op. 57, No. 2 movement",
        ],
    ),
    ("Wolfgang Amadeus Mozart", ["Sonata in C Major, K. 545", "Sonata K545", "Sonata, KV 545"]),
    ("Joseph Haydn", ["Sonata in C Major, Hob. XVI:50", "Sonata Hob.XVI/50", "Sonata Hob XVI 50"]),
    ("Franz Schubert", ["Sonata in B-flat Major, D. 960", "Sonata D.960"]),
    ("Franz Liszt", ["La Campanella", "La campanella"]),
]
DIFFERENT = [
    ("Frédéric Chopin", ["Étude Op. 25, No. 3", "Étude Op. 25, No. 4", "Étude Op. 10, No. 3"]),
    ("Johann Sebastian Bach", ["BWV 846", "BWV 847", "BWV 84"]),
    ("Domenico Scarlatti", ["Sonata K. 1", "Sonata K. 11", "Sonata K. 141"]),
    ("Franz Liszt", ["La Campanella", "Mephisto Waltz"]),
    ("Joseph Haydn", ["Sonata Hob. XVI:50", "Sonata Hob. XVI:52"]),
]


@pytest.mark.parametrize(("composer", "titles"), SAME)
def test_spellings_of_one_work_share_a_key(composer: str, titles: list[str]) -> None:
    assert len({composition_key(composer, t) for t in titles}) == 1


@pytest.mark.parametrize(("composer", "titles"), DIFFERENT)
def test_different_works_have_different_keys(composer: str, titles: list[str]) -> None:
    assert len({composition_key(composer, t) for t in titles}) == len(titles)


def test_composers_keep_equal_numbers_apart() -> None:
    assert composition_key("Chopin", "Op. 10") != composition_key("Beethoven", "Op. 10")


def test_an_arranger_behind_the_composer_does_not_matter() -> None:
    title = "Chaconne, BWV 1004"
    assert composition_key("Johann Sebastian Bach / Ferruccio Busoni", title) == composition_key(
        "Johann Sebastian Bach", title
    )


@pytest.mark.parametrize("title", ["...", "Étude", "第一番", "12", " "])
def test_any_title_has_a_key(title: str) -> None:
    assert composition_key("X", title).startswith("x-")


@pytest.mark.full
def test_performances_of_one_work_are_rarely_split_on_real_titles(real_data: Path) -> None:
    """Two performances of a work under two keys could meet as query and wrong candidate."""
    with (real_data / "maestro-subset.csv").open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    works = defaultdict(list)
    for r in rows:
        key = composition_key(r["canonical_composer"], r["canonical_title"])
        works[r["work"]].append(key)
    pairs = [(a, b) for keys in works.values() for a, b in combinations(keys, 2)]
    assert len(pairs) > 300
    assert sum(a != b for a, b in pairs) / len(pairs) < 0.15
