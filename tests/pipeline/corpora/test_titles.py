"""What folder and file names suggest."""

from __future__ import annotations

import pytest

from pipeline.corpora.compositions import composition_key
from pipeline.corpora.titles import guess, sorts_files

CASES = {
    "Chopin/Nocturne op 9 no 2": ("Chopin", "Nocturne op 9 no 2", 0),
    "Frédéric Chopin/Nocturnes/02 Op. 9 No. 2": ("Frédéric Chopin", "Nocturnes, Op. 9 No. 2", 0),
    "Chopin - Nocturne Op. 9 No. 2": ("Chopin", "Nocturne Op. 9 No. 2", 0),
    "Chopin__Nocturne_Op._9": ("Chopin", "Nocturne Op. 9", 0),
    "01 - Chopin - Nocturne": ("Chopin", "Nocturne", 0),
    "01 - Nocturne": ("Unknown", "Nocturne", 0),
    "1. Nocturne": ("Unknown", "Nocturne", 0),
    "Mozart/Mozart - Sonata K. 545": ("Mozart", "Sonata K. 545", 0),
    "Mozart/Sonata K. 545 - Allegro": ("Mozart", "Sonata K. 545, Allegro", 0),
    "audio/Bach/BWV_846": ("Bach", "BWV 846", 0),
    "Bach/wav/BWV_846": ("Bach", "BWV 846", 0),
    "2018/Bach/BWV 846": ("Bach", "BWV 846", 2018),
    "cd 1/Bach/BWV 846 (1999)": ("Bach", "BWV 846 (1999)", 1999),
    "Bach/BWV 846 take 2": ("Bach", "BWV 846", 0),
    "Bach/BWV 846 (take 2)": ("Bach", "BWV 846", 0),
    "Bach/BWV 846 (2)": ("Bach", "BWV 846", 0),
    "Bach/BWV 846 - recording 12": ("Bach", "BWV 846", 0),
    "Beethoven/Sonata 8": ("Beethoven", "Sonata 8", 0),
    "Beethoven/Op. 13 No. 2": ("Beethoven", "Op. 13 No. 2", 0),
    "01": ("Unknown", "01", 0),
    "_": ("Unknown", "_", 0),
    "Satie/take 3": ("Satie", "take 3", 0),
}


@pytest.mark.parametrize("path", CASES)
def test_composer_title_and_year(path: str) -> None:
    *folders, stem = path.split("/")
    found = guess(folders, stem)
    assert (found.composer, found.title, found.year) == CASES[path]


def test_takes_are_one_composition() -> None:
    takes = ["Nocturne op 9 no 2", "Nocturne op 9 no 2 (take 2)", "03 Nocturne op 9 no 2 - take 3"]
    keys = {composition_key(g.composer, g.title) for g in (guess(["Chopin"], t) for t in takes)}
    assert len(keys) == 1


def test_folders_that_only_sort() -> None:
    for name in ("audio", "MIDI", "CD 2", "disc_1", "2018", "07"):
        assert sorts_files(name)
    for name in ("Bach", "Op. 10", "1st prize", "midi files of mine"):
        assert not sorts_files(name)
