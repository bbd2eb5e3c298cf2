"""The listening page: both sides hold what they say, at the same place, and nothing else happens."""

from __future__ import annotations

import base64
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from browser import open_page, parse, rows, section, words
from listening_fakes import (
    HOSTILE,
    LONG_S,
    RATE,
    SHIFT_S,
    SPECS,
    answer,
    audio_query,
    make_store,
    match,
    midi_query,
    sounding,
)
from makers import write_midi

from pipeline.base.errors import MissingExtra
from pipeline.midi import read_performance
from pipeline.store import Store
from trainer.search.listening import listening_page
from trainer.search.queries import MidiQuery


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_store(tmp_path_factory.mktemp("listening"))


def sides(page: ET.Element, nth: int = 0) -> list[ET.Element]:
    card = [a for a in page.iter("article") if a.get("class") == "match"][nth]
    return [s for s in card.iter("section") if "side" in (s.get("class") or "").split()]


def sound(side: ET.Element) -> np.ndarray:
    (player,) = side.iter("audio")
    wav = base64.b64decode((player.get("src") or "").split(",")[1])
    assert int.from_bytes(wav[24:28], "little") == RATE
    return np.frombuffer(wav[44:], "<i2")


def keys(side: ET.Element) -> np.ndarray:
    """(y, x, width) of every note drawn, sorted."""
    drawn = [r for r in side.iter("rect") if r.get("class") == "key"]
    found = [[float(r.get(k, "nan")) for k in ("y", "x", "width")] for r in drawn]
    return np.array(sorted(found)).reshape(-1, 3)


def labels(side: ET.Element) -> list[str]:
    return [words(s) for s in side.iter("span") if s.get("class") == "what"]


@pytest.mark.parametrize("tempo", [1.0, 1.08])
def test_the_same_notes_lie_at_the_same_place(store: Store, tmp_path: Path, tempo: float) -> None:
    query = midi_query(tmp_path, tempo)
    stop = LONG_S / tempo
    found = answer(query, match(tempo=tempo, query_s=(0.0, stop)))
    left, right = sides(parse(listening_page(query, found, store)))
    seconds = [float(s.get("data-seconds", "nan")) for s in (left, right)]
    assert seconds == pytest.approx([stop, LONG_S], abs=1e-5)
    expected = sounding(SHIFT_S, SHIFT_S + LONG_S)
    x = sorted(max(0.0, onset) / LONG_S * 1000 for onset, _, _ in expected)
    assert len(x) > 20
    for side in (left, right):
        assert labels(side) == ["sound, full scale 1", "notes"]
        np.testing.assert_allclose(np.sort(keys(side)[:, 1]), x, atol=0.3)
        assert len(sound(side)) == round(float(side.get("data-seconds", "nan")) * RATE)
        assert np.abs(sound(side)).max() > 1000
    np.testing.assert_allclose(keys(left), keys(right), atol=0.3)
    start = round(SHIFT_S * RATE)
    np.testing.assert_array_equal(
        sound(right), store.read("audio", start, start + round(LONG_S * RATE))
    )
    said = words(parse(listening_page(query, found, store)))
    assert ("at tempo × 1.08" in said) == (tempo != 1.0)


def test_both_sides_show_the_octaves_of_both(store: Store, tmp_path: Path) -> None:
    write_midi(tmp_path / "high.mid", [(n / 2, n / 2 + 0.4, 97 + n, 80) for n in range(10)])
    query = MidiQuery("high.mid", read_performance(tmp_path / "high.mid"))
    found = answer(query, match(query_s=(0.0, 4.5), recording_s=(0.0, 4.5)))
    left, right = sides(parse(listening_page(query, found, store)))
    scales = [[words(d) for d in s.iter("div") if d.get("class") == "scale"] for s in (left, right)]
    lowest = min(pitch for _, _, pitch in sounding(0.0, 4.5))
    names = [f"C{c}" for c in range(8, lowest // 12 - 2, -1)]
    assert scales[0][1] == scales[1][1] == " ".join(names)
    assert keys(left)[:, 0].tolist() == [107 - pitch for pitch in range(105, 96, -1)]
    assert keys(right)[:, 0].tolist() == sorted(107 - p for _, _, p in sounding(0.0, 4.5))


def test_sound_is_looked_for_and_its_semitones_are_seen(store: Store) -> None:
    query = audio_query(store)
    part = match(query_s=(1.0, 6.0), recording_s=(SHIFT_S + 1, SHIFT_S + 6))
    left, right = sides(parse(listening_page(query, answer(query, part), store)))
    np.testing.assert_array_equal(sound(left), sound(right))
    assert len(sound(left)) == 5 * RATE
    assert labels(left) == ["sound, full scale 1", "semitones"]
    assert len(list(left.iter("image"))) == 1
    assert not len(keys(left))
    assert len(keys(right)) == len(sounding(SHIFT_S + 1, SHIFT_S + 6))
    scales = [[s.text for s in d] for d in left.iter("div") if d.get("class") == "scale"]
    assert scales[1] == [[s.text for s in d] for d in right.iter("div")
                         if d.get("class") == "scale"][1]  # fmt: skip


def test_without_what_plays_notes_the_card_says_how_to_get_it(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object, **__: object) -> None:
        raise MissingExtra("symusic", "demo")

    monkeypatch.setattr("pipeline.corpora.soundfont.play", missing)
    query = midi_query(tmp_path)
    left, right = sides(parse(listening_page(query, answer(query, match()), store)))
    assert "pip install 'xmodal[demo]'" in words(left)
    assert labels(left) == ["notes"]
    assert left.get("class") == "side"  # without a player there is nothing to follow
    assert not list(left.iter("audio"))
    np.testing.assert_allclose(keys(left), keys(right), atol=0.3)


def test_without_the_store_the_query_alone_is_shown(store: Store, tmp_path: Path) -> None:
    for query in (midi_query(tmp_path), audio_query(store)):
        page = parse(listening_page(query, answer(query, match()), None))
        (only,) = sides(page)
        assert words(only).startswith("Query")
        assert "was moved away" in words(section(page, "Side by side"))
        assert len(sound(only)) == round(LONG_S * RATE)


def test_the_head_says_what_was_found(store: Store) -> None:
    query = audio_query(store)
    other = {"recording": 1, "title": SPECS[1].title, "composer": "Chopin", "key": "2008/two"}
    second = match(rank=2, found=False, false_alarms=0.034, score=4.5, tempo=0.95, **other,
                   query_s=(0.5, 8.5), recording_s=(1.0, 8.6))  # fmt: skip
    third = match(rank=3, found=False, false_alarms=None, score=2.0, **other)
    page = parse(listening_page(query, answer(query, match(), second, third), store, most=2))
    header = words(next(page.iter("header")))
    assert header.startswith("<b>query.wav found: </h3><b>Anon & Co: <script>alert(1)</script> &")
    assert "a/<b>query.wav" in header
    assert "1 % would score so high" in header
    listed = rows(section(page, "Matches"))
    assert [row[0] for row in listed] == ["1", "2", "3"]
    assert listed[0][5] == "0.001"
    assert listed[1][1:] == [
        "Chopin", SPECS[1].title, "no", "4.5", "3.4", "0:00.5 – 0:08.5", "0:01.0 – 0:08.6", "0.95",
    ]  # fmt: skip
    assert listed[2][5] == "–"
    assert len(list(page.iter("article"))) == 2
    assert len(list(page.iter("audio"))) == 4
    lost = words(next(parse(listening_page(query, answer(query, second), store)).iter("header")))
    assert "not found: nothing agrees more than chance does" in lost
    none = parse(listening_page(query, answer(query), store))
    assert "not found: nothing like it is in the index" in words(next(none.iter("header")))
    assert not list(none.iter("article"))


def test_hostile_titles_are_inert(store: Store, tmp_path: Path) -> None:
    query = midi_query(tmp_path)
    page = parse(listening_page(query, answer(query, match()), store))
    assert len(list(page.iter("script"))) == 1
    assert not {e.tag for e in page.iter()} & {"img", "b", "iframe"}
    assert HOSTILE in words(next(a for a in page.iter("article")))
    for element in page.iter():
        for name, value in element.attrib.items():
            assert not name.startswith("on")
            assert name not in ("src", "href") or value.startswith(("data:", "#"))


CLICK = """
const plot = document.querySelectorAll(".side .plot")[PLOT], box = plot.getBoundingClientRect();
plot.dispatchEvent(new MouseEvent("click", { clientX: box.left + box.width / 4 }));
addEventListener("load", () => {
  const players = Array.from(document.querySelectorAll("audio"));
  // The browser says so itself a moment later, when the page has been read already.
  for (const player of players) if (player.currentTime) player.dispatchEvent(new Event("seeked"));
  document.body.dataset.long = players.map((player) => player.duration);
  document.body.dataset.at = players.map((player) => player.currentTime);
  document.body.dataset.lines =
    Array.from(document.querySelectorAll(".cursor"), (line) => parseFloat(line.style.left) || 0);
});
"""


def written(body: str, name: str) -> list[float]:
    found = re.search(rf'data-{name}="([^"]*)"', body)
    assert found is not None
    return [float(value) for value in found[1].split(",")]


@pytest.mark.full
def test_a_browser_shows_the_page_and_nothing_else(store: Store, tmp_path: Path) -> None:
    query = midi_query(tmp_path)
    file = tmp_path / "page.html"
    file.write_text(listening_page(query, answer(query, match()), store), encoding="utf-8")
    seen = open_page(file, tmp_path / "a")
    assert seen.console == []
    assert seen.requests == []
    assert 'data-ready="yes"' in seen.dom


@pytest.mark.full
@pytest.mark.parametrize("tempo", [1.0, 1.08])
def test_players_last_as_long_and_a_click_moves_one(
    store: Store, tmp_path: Path, tempo: float
) -> None:
    query = midi_query(tmp_path, tempo)
    long = LONG_S / tempo
    page = listening_page(query, answer(query, match(tempo=tempo, query_s=(0, long))), store)
    open_policy = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    for plot, at, lines in (
        (0, [long / 4, 0], [25, 25, 0, 0]),
        (3, [0, LONG_S / 4], [0, 0, 25, 25]),
    ):
        script = CLICK.replace("PLOT", str(plot))
        file = tmp_path / f"clicked-{plot}.html"
        file.write_text(open_policy.replace("</body>", f"<script>{script}</script></body>"))
        seen = open_page(file, tmp_path / f"{plot}")
        assert seen.console == []
        assert written(seen.dom, "long") == pytest.approx([long, LONG_S], abs=1e-3)
        assert written(seen.dom, "at") == pytest.approx(at, abs=0.05)
        assert written(seen.dom, "lines") == pytest.approx(lines, abs=0.5)
