"""The page about a store: everything that is there is on it, and nothing that could do harm."""

from __future__ import annotations

import base64
import dataclasses
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from browser import open_page, parse, rows, section, words
from makers import COLUMNS, Quiet, Spec, build_quietly, corpus_of, make_corpus, row_of, write_table

from pipeline.base.errors import StoreError
from pipeline.report import report, sample, tables, write_report
from pipeline.report.distributions import summarise
from pipeline.spectral import SEGMENT_SAMPLES
from pipeline.store import Store

HOSTILE = (
    "<script>alert('title')</script> & \"Étude\" <img src=http://evil.example/x onerror=alert(1)>"
)
SPECS = (
    Spec("one", rate=24_000, channels=1, seconds=9.5, title=HOSTILE, composer="</td><b>Anon & Co"),
    Spec("two", rate=24_000, channels=1, seconds=7.0, split="validation", title="Waltz in A minor"),
    Spec("three", rate=24_000, channels=1, seconds=8.0, split="test", title="Prelude, BWV 999"),
    Spec("broken", rate=24_000, channels=1, seconds=8.0, title="The one that cannot be read"),
)
DESCRIPTORS = ("mel", "A4", "A8", "D4", "D1")


@pytest.fixture(scope="module")
def hostile_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with hostile titles, a failure, a column of the user's own, five descriptors."""
    root = tmp_path_factory.mktemp("hostile")
    make_corpus(root, SPECS)
    (root / SPECS[3].midi).write_bytes(b"MThd no more")
    extra = [{**row_of(s), "room <b>": f"<i>hall</i> {n}"} for n, s in enumerate(SPECS)]
    table = write_table(root / "hostile.csv", extra, (*COLUMNS, "room <b>"))
    corpus = corpus_of(table, name="hostile")
    return build_quietly(corpus, root / "out", descriptors=DESCRIPTORS, max_failures=1).store


@pytest.fixture(scope="module")
def page(hostile_store: Store) -> ET.Element:
    return parse(report(hostile_store, Quiet()))


def test_every_recording_is_there_with_every_column(page: ET.Element) -> None:
    part = section(page, "Recordings")
    heads = [words(h) for h in part.iter("th")]
    listed = rows(part)
    titles = [row[heads.index("title")] for row in listed]
    assert titles == [re.sub(r"\s+", " ", s.title) for s in SPECS]
    assert listed[0][heads.index("composer")] == "</td><b>Anon & Co"
    for wanted in (
        "audio duration (s)",
        "notes",
        "notes end (s)",
        "failed",
        "room <b>",
        "segments",
    ):
        assert wanted in heads, heads
    assert [row[heads.index("room <b>")] for row in listed] == [
        f"<i>hall</i> {n}" for n in range(4)
    ]
    assert [row[heads.index("failed")] for row in listed] == ["no", "no", "no", "yes"]
    assert "channels 1" in words(part)  # what all have in common is said once


def test_hostile_titles_are_inert(page: ET.Element, hostile_store: Store) -> None:
    assert len(list(page.iter("script"))) == 1
    names = {e.tag for e in page.iter()}
    assert not names & {"img", "iframe", "object", "embed", "form", "base", "b:"}
    for element in page.iter():
        for key, value in element.attrib.items():
            assert not key.startswith("on")
            assert key != "style"
            if key in ("src", "href"):
                assert value.startswith(("data:", "#"))
    text = report(hostile_store, Quiet())
    for address in re.findall(r"[a-z]+:\s*url\(|@import|(?:src|href)=\"(?!data:|#)", text):
        raise AssertionError(address)


def test_status_failures_and_splits(page: ET.Element, hostile_store: Store) -> None:
    record = hostile_store.record
    assert "partial" in words(next(page.iter("header")))
    (failure,) = rows(section(page, "Failures"))
    assert failure[1] == "2008/broken"
    assert "broken.midi" in failure[4]
    listed = {row[0]: row[1:] for row in rows(section(page, "Splits"))}
    assert listed["train"] == ["1", "1", "6", "6", listed["train"][4], f"{9 / 3600:.3g}"]
    assert listed["all"][:3] == ["3", "3", "15"]
    notes = sum(int(listed[s][4].replace(",", "")) for s in ("train", "validation", "test"))
    assert f"{notes:,}" == listed["all"][4] == f"{record['notes']:,}"
    assert "No composition gives segments in more than one split" in words(section(page, "Splits"))


def test_what_was_computed(page: ET.Element, hostile_store: Store) -> None:
    part = section(page, "What was computed")
    said = words(part)
    for fact in (
        hostile_store.identity,
        hostile_store.record["record_sha256"],
        "numpy ",
        "hostile",
    ):
        assert fact in said
    arrays = {row[0]: row for row in rows(part)}
    assert set(arrays) == {"audio", *DESCRIPTORS}
    assert arrays["A4"][2] == "float16 [15, 188, 8]"
    assert arrays["A4"][3] == "standard deviations"
    assert arrays["audio"][2] == f"int16 [{hostile_store.arrays['audio'].shape[0]:,}]"
    for name, row in arrays.items():
        assert row[-1] == hostile_store.arrays[name].fingerprint[:12]


def test_the_file_table_is_the_commit_records(page: ET.Element, hostile_store: Store) -> None:
    listed = rows(section(page, "Files"))
    assert listed == [
        [name, f"{e['size']:,}", e["sha256"]]
        for name, e in sorted(hostile_store.record["files"].items())
    ]


def test_descriptors_are_drawn_per_dimension_and_split(page: ET.Element) -> None:
    parts = {words(d[0]).split()[0]: d for d in section(page, "Descriptors").iter("details")}
    assert set(parts) == set(DESCRIPTORS)
    titles = [words(f[0]) for f in parts["A4"].iter("figure")]
    assert titles[0] == "47–94 Hz"
    assert titles[-1] == "6–12 kHz"
    assert len(titles) == 8
    for figure in parts["A4"].iter("figure"):  # one outline a split
        assert len(list(figure.iter("polyline"))) == 3
    assert [words(f[0]) for f in parts["A8"].iter("figure")][:3] == ["C", "C♯", "D"]
    assert [words(f[0]) for f in parts["mel"].iter("figure")] == ["train", "validation", "test"]


def test_statistics_are_those_of_the_array(page: ET.Element, hostile_store: Store) -> None:
    parts = {words(d[0]).split()[0]: d for d in section(page, "Descriptors").iter("details")}
    ids = hostile_store.segments.of_split("test")
    values = hostile_store.read("mel")[ids].astype(np.float64)
    row = {r[0]: r for r in rows(parts["mel"])}["test"]
    assert row[1] == f"{values.size:,}"
    assert float(row[2]) == pytest.approx(values.mean(), rel=5e-3)
    assert float(row[6]) == pytest.approx(np.median(values), rel=5e-3)
    assert float(row[8]) == pytest.approx(values.max(), rel=5e-3)


def test_segments_can_be_seen_and_heard(page: ET.Element, hostile_store: Store) -> None:
    cards = {int((a.get("id") or "-").split("-")[1]): a for a in page.iter("article")}
    split = hostile_store.segments.split
    assert [sum(split[i] == s for i in cards) for s in ("train", "validation", "test")] == [3, 3, 3]
    for i, card in cards.items():
        table = hostile_store.segments
        (audio,) = card.iter("audio")
        wav = base64.b64decode((audio.get("src") or "").split(",")[1])
        start = int(table.audio_start[i])
        expected = hostile_store.read("audio", start, start + SEGMENT_SAMPLES)
        np.testing.assert_array_equal(np.frombuffer(wav[44:], "<i2"), expected)
        keys = [r for r in card.iter("rect") if r.get("class") == "key"]
        assert len(keys) == table.note_count[i]
        notes = hostile_store.notes(
            int(table.note_start[i]), int(table.note_start[i] + table.note_count[i])
        )
        at = [float(k.get("x", -1)) / 250 for k in keys]  # 250 units a second
        np.testing.assert_allclose(at, np.maximum(notes.onset_s, 0), atol=1e-3)
        tracks = [words(t) for t in card.iter("span") if t.get("class") == "what"]
        assert tracks == ["sound, full scale 1", "A4", "mel", "notes", "A8"]
        assert len(list(card.iter("image"))) == 3


def test_the_page_is_small_and_the_same_again(hostile_store: Store, tmp_path: Path) -> None:
    answer = write_report(hostile_store, tmp_path / "new" / "a.html", Quiet())
    again = write_report(hostile_store, tmp_path / "b.html", Quiet())
    first, second = (tmp_path / "new" / "a.html").read_bytes(), (tmp_path / "b.html").read_bytes()
    assert first == second
    assert answer["bytes"] == again["bytes"] == len(first) < 8e6
    assert answer["segments"] == 15


def test_a_large_store_is_sampled(hostile_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample, "RUNS", 1)
    monkeypatch.setattr(sample, "RUN_LENGTH", 2)
    monkeypatch.setattr("pipeline.report.SHOWN_PER_SPLIT", 1)
    read: dict[str, int] = {}

    def counted(self: Store, name: str, start: int = 0, stop: int | None = None) -> Any:
        found = original(self, name, start, stop)
        read[name] = read.get(name, 0) + len(found)
        return found

    original = Store.read
    monkeypatch.setattr(Store, "read", counted)
    root = parse(report(hostile_store, Quiet()))
    assert read["A4"] == 3 * 2 + 3  # of 15: the sample, and the segments that are shown
    assert read["audio"] == 3 * SEGMENT_SAMPLES
    assert read["D4"] < 0.7 * hostile_store.record["notes"]
    said = words(section(root, "Descriptors"))
    assert "in runs of 2 segments: 2 of train, 2 of validation, 2 of test" in said


def test_samples_are_drawn_within_their_split_and_again_the_same(
    tiny_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample, "RUNS", 2)
    monkeypatch.setattr(sample, "RUN_LENGTH", 3)
    first, second = sample.draw(tiny_store, 0), sample.draw(tiny_store, 0)
    ids = first.segments["train"]
    np.testing.assert_array_equal(ids, second.segments["train"])
    others = [sample.draw(tiny_store, seed).segments["train"].tolist() for seed in range(1, 9)]
    assert any(other != ids.tolist() for other in others)
    assert len(ids) == len(set(ids.tolist())) == 6
    assert sorted(ids) == list(ids)
    assert set(ids) <= set(tiny_store.segments.of_split("train"))
    assert len(first.segments["test"]) == 3  # a small split is taken whole
    expected = tiny_store.read("A4")[ids].reshape(-1, 8)
    np.testing.assert_array_equal(sample.read_rows(tiny_store, "A4", ids), expected)
    pitches = np.concatenate([p.pitch for p in sample.read_notes(tiny_store, ids)])
    owner = tiny_store.table("notes")["segment"].to_numpy()
    np.testing.assert_array_equal(pitches, tiny_store.notes().pitch[np.isin(owner, ids)])
    steps = sample.read_rows(tiny_store, "D4", ids)
    np.testing.assert_array_equal(steps, tiny_store.read("D4")[np.isin(owner, ids)])


def test_columns_that_are_not_known_yet_are_shown() -> None:
    checks = [
        {
            "peak_offset_ms": -12.5,
            "verdict": "late",
            "n_notes": 3,
            "nested": {"a": [1]},
            "title": "c",
        },
        None,
    ]
    found = tables._columns(
        pa.table(
            {"recording": [0, 1], "title": ["a", "b"], "checks": checks, "extra": ["{}", None]}
        )
    )
    assert found["peak_offset_ms"] == [-12.5, None]
    assert found["nested"] == [{"a": [1]}, None]
    assert found["title (checks)"] == ["c", None]
    assert list(found)[:2] == ["recording", "title"]
    assert tables.heading("peak_offset_ms") == "peak offset (ms)"
    assert tables.heading("n_notes") == "notes"


def test_without_build_json_and_descriptors(
    own_store: Path, own_corpus: Path, tmp_path: Path
) -> None:
    (own_store / "build.json").write_text("[] not json")
    assert "is not known" in words(
        section(parse(report(Store.open(own_store), Quiet())), "Time spent")
    )
    bare = build_quietly(corpus_of(own_corpus), tmp_path / "bare", descriptors=()).store
    root = parse(report(bare, Quiet()))
    assert "no descriptors" in words(section(root, "Descriptors"))
    assert len(list(root.iter("audio"))) == 9


def test_a_descriptor_that_this_program_does_not_have(hostile_store: Store) -> None:
    store = Store(hostile_store.path, hostile_store.record)
    store.arrays["A4"] = dataclasses.replace(store.arrays["A4"], definition={"name": "A4"})
    summary = summarise(store, sample.draw(store, 0), "A4")
    assert summary.labels == ()
    assert "dimension 8" in summary.body


def test_a_damaged_store_gives_no_page(own_store: Path, tmp_path: Path) -> None:
    store = Store.open(own_store)
    shard = own_store / store.arrays["A4"].shard_path(0)
    raw = bytearray(shard.read_bytes())
    raw[100] ^= 1
    shard.write_bytes(raw)
    with pytest.raises(StoreError, match="A4"):
        write_report(store, tmp_path / "x.html", Quiet())
    assert not (tmp_path / "x.html").exists()


CLICKS = """
document.querySelectorAll("table.sortable th button")[COLUMN].click();
const plot = document.querySelector(".plot"), box = plot.getBoundingClientRect();
plot.dispatchEvent(new MouseEvent("click", { clientX: box.left + box.width / 2 }));
document.body.dataset.at = document.querySelector("audio").currentTime;
"""


@pytest.mark.full
def test_a_browser_shows_the_page_and_nothing_else(hostile_store: Store, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    write_report(hostile_store, file, Quiet())
    seen = open_page(file, tmp_path / "a")
    assert seen.console == []
    assert seen.requests == []
    assert 'data-ready="yes"' in seen.dom  # our script ran, so its hash is the policy's
    text = re.sub(r"<(script|style)>.*?</\1>", "", seen.dom, flags=re.DOTALL)
    assert "&lt;script&gt;alert('title')&lt;/script&gt; &amp;" in text
    assert "<script" not in text
    assert "Waltz in A minor" in text
    assert text.count("<article") == text.count("<audio") == 9
    assert text.count("<svg") > 60
    assert re.search(r"<strong>15</strong><span>segments of 4 s</span>", text)


@pytest.mark.full
def test_the_pages_script_sorts_and_seeks(hostile_store: Store, tmp_path: Path) -> None:
    page = report(hostile_store, Quiet())
    heads = [words(h) for h in section(parse(page), "Recordings").iter("th")]
    clicks = CLICKS.replace("COLUMN", str(heads.index("title")))
    open_policy = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page)
    file = tmp_path / "clicked.html"
    file.write_text(open_policy.replace("</body>", f"<script>{clicks}</script></body>"))
    seen = open_page(file, tmp_path / "a")
    assert seen.console == []
    tail = seen.dom.split("<h2>Recordings</h2>")[1]
    order = [tail.index(t) for t in ("&lt;script", "Prelude, BWV", "The one that", "Waltz in")]
    assert order == sorted(order)
    found = re.search(r'data-at="([\d.]+)"', seen.dom)
    assert found is not None
    assert float(found[1]) == pytest.approx(2.0, abs=0.02)


@pytest.mark.full
def test_the_browser_would_have_complained(tmp_path: Path) -> None:
    """What the two tests above look for is seen where it happens."""
    bad = '<img src="http://127.0.0.1:9/x.png"><script>console.error("boo")</script>'
    file = tmp_path / "bad.html"
    file.write_text(f"<!DOCTYPE html><html><body>{bad}</body></html>")
    seen = open_page(file, tmp_path / "a")
    assert seen.requests == ["http://127.0.0.1:9/x.png"]
    assert len(seen.console) == 1
    policy = "<meta http-equiv='Content-Security-Policy' content=\"default-src 'none'\">"
    file.write_text(f"<!DOCTYPE html><html><head>{policy}</head><body>{bad}</body></html>")
    seen = open_page(file, tmp_path / "b")
    assert seen.requests == []
    assert len(seen.console) == 2


@pytest.mark.full
def test_real_recordings(real_data: Path, tmp_path: Path) -> None:
    corpus = corpus_of(real_data / "maps-metadata.csv", name="maps")
    few = dataclasses.replace(corpus, recordings=corpus.recordings[:6])
    store = build_quietly(few, tmp_path, descriptors=("A4", "D4")).store
    root = parse(report(store, Quiet()))
    assert len(rows(section(root, "Recordings"))) == 6
    assert len(list(root.iter("audio"))) >= 3
