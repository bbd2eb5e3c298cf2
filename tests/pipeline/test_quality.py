"""Measures of audio and notes: what is made to be found is found, and nothing else."""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st
from makers import SPECS, Quiet, Spec, build_quietly, corpus_of, make_audio, make_corpus, make_notes

from pipeline import quality
from pipeline.base.errors import ConfigError, CorpusError
from pipeline.checks import summarise
from pipeline.corpora.recordings import load_table
from pipeline.info import describe_store
from pipeline.plan import fingerprint_inputs
from pipeline.quality import Meter, Quality, QualityLimits, find_warnings, judge, onset_strength
from pipeline.store import Store
from pipeline.store.schema import Segmentation
from pipeline.verify import verify

RATE = 24_000
LIMITS = QualityLimits()


def played(seconds: float = 40.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """int16 samples, onsets in seconds and velocities of a made piece."""
    notes = make_notes(seconds, seed)
    audio = make_audio(notes, seconds, RATE, 1, seed)[:, 0]
    onset_s = np.array([n[0] for n in notes])
    return to_int16(audio), onset_s, np.array([n[3] for n in notes], float)


def to_int16(audio: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(audio * 32768), -32768, 32767).astype(np.int16)


def measure(samples: np.ndarray, onset_s: np.ndarray, velocity: np.ndarray) -> Quality:
    meter = Meter(len(samples))
    meter.feed(samples)
    return meter.finish(onset_s, velocity)


SAMPLES, ONSETS, VELOCITY = played()
NO_ONSETS = (np.empty(0), np.empty(0))


# ---- onset correlation


@pytest.mark.parametrize("shift_ms", [-140.0, -90.0, -12.5, 0.0, 7.0, 33.0, 101.0])
def test_a_shift_is_found_to_a_millisecond(shift_ms: float) -> None:
    still = measure(SAMPLES, ONSETS, VELOCITY)
    moved = measure(SAMPLES, ONSETS - shift_ms / 1000, VELOCITY)
    assert still.onset_correlation > 0.6
    assert abs(still.onset_lag_ms) < 5
    assert moved.onset_lag_ms - still.onset_lag_ms == pytest.approx(shift_ms, abs=1.0)
    assert (judge(moved, LIMITS) is not None) == (abs(shift_ms) > 60)


def test_other_notes_do_not_correlate() -> None:
    _, other, velocity = played(seed=9)
    found = measure(SAMPLES, other * 0.93 + 0.4, velocity)
    assert found.onset_correlation < 0.3
    assert judge(found, LIMITS) is None  # nothing is sure, so nothing fails


def test_a_few_onsets_say_nothing() -> None:
    found = measure(SAMPLES, ONSETS[:7], VELOCITY[:7])
    assert (found.onset_correlation, found.onset_lag_ms) == (None, None)
    assert judge(found, LIMITS) is None


def test_flux_is_its_definition() -> None:
    """Against the formula in the module's docstring, written with NumPy in float64."""
    n = 700
    padded = np.concatenate([np.zeros(256, np.int16), SAMPLES[: n * 120 + 256]])
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(512) / 512)
    frames = np.stack([padded[t * 120 : t * 120 + 512] / 32768 * window for t in range(n)])
    level = np.log1p(100 * np.abs(np.fft.rfft(frames)))
    wanted = np.maximum(np.diff(level, axis=0, prepend=level[:1]), 0).sum(axis=1)
    power: list[Any] = []
    found = onset_strength(padded, power)
    np.testing.assert_allclose(found[3:-3], wanted[3:-3], rtol=1e-4, atol=1e-3)
    assert not found[:3].any()
    assert not found[-3:].any()
    kept = [t for b in range(0, n, 600) for t in range(b + 3, min(b + 600, n) - 3, 8)]
    np.testing.assert_allclose(
        np.concatenate(power), np.abs(np.fft.rfft(frames[kept])) ** 2, rtol=1e-3, atol=1e-6
    )


def test_correlation_is_pearson_s() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.random(900), rng.random(900)
    found = quality.correlate([a], [b])
    smooth_a, smooth_b = (np.convolve(x - x.mean(), quality._GAUSSIAN, "same") for x in (a, b))
    for lag in (-30, -4, 0, 17, 30):
        x = smooth_a[max(0, lag) : 900 + min(0, lag)]
        y = smooth_b[max(0, -lag) : 900 - max(0, lag)]
        wanted = (x * y).sum() / np.sqrt((x * x).sum() * (y * y).sum())
        assert found[lag + 30] == pytest.approx(wanted, rel=1e-9)


# ---- clipping, silence, bandwidth, density


def test_clipping_is_counted() -> None:
    loud = SAMPLES.copy()
    loud[1000:1040] = 32767
    loud[5000:5003] = -32768
    loud[9000] = quality.FULL_SCALE
    found = measure(loud, ONSETS, VELOCITY)
    assert found.clipped_share == round(44 / len(loud), 7)
    assert found.longest_clip == 40
    assert measure(SAMPLES, ONSETS, VELOCITY).clipped_share == 0


def test_silence_is_counted() -> None:
    quiet = SAMPLES.copy()
    quiet[10 * RATE : 15 * RATE] = 0
    quiet[20 * RATE : 22 * RATE] = np.resize([32, -32], 2 * RATE)
    found = measure(quiet, ONSETS, VELOCITY)
    still = measure(SAMPLES, ONSETS, VELOCITY)
    assert found.longest_silence_s == 5.0
    assert found.silent_share - still.silent_share == pytest.approx(7 / 40, abs=2e-4)
    assert judge(found, LIMITS) is None
    nothing = measure(np.zeros(8 * RATE, np.int16), ONSETS[:20], VELOCITY[:20])
    assert (nothing.silent_share, nothing.bandwidth_hz) == (1.0, 0.0)
    assert judge(nothing, LIMITS)[0] == "silent"  # type: ignore[index]
    assert judge(nothing, QualityLimits(max_silent_share=1.1)) is None


@pytest.mark.parametrize("rate", [8_000, 12_000, 16_000])
def test_an_up_sampled_source_is_found(rate: int) -> None:
    rng = np.random.default_rng(1)
    narrow = rng.standard_normal(20 * rate) * 0.05
    found = measure(to_int16(soxr.resample(narrow, rate, RATE)), *NO_ONSETS)
    assert found.bandwidth_hz == pytest.approx(rate / 2, rel=0.13)
    whole = measure(to_int16(rng.standard_normal(20 * RATE) * 0.05), *NO_ONSETS)
    assert whole.bandwidth_hz == 12_000


def test_density_counts_onsets() -> None:
    assert measure(SAMPLES, ONSETS, VELOCITY).notes_per_s == round(len(ONSETS) / 40, 2)


# ---- any blocks, any samples


@given(
    cuts=st.lists(st.integers(0, len(SAMPLES)), max_size=8), seconds=st.sampled_from([4, 17, 40])
)
@settings(max_examples=20, deadline=None)
def test_the_cut_into_blocks_does_not_matter(cuts: list[int], seconds: int) -> None:
    samples = SAMPLES[: seconds * RATE]
    meter = Meter(len(samples))
    bounds = sorted({0, len(samples), *(c for c in cuts if c < len(samples))})
    for low, high in itertools.pairwise(bounds):
        meter.feed(samples[low:high])
    inside = seconds > ONSETS
    assert meter.finish(ONSETS[inside], VELOCITY[inside]) == measure(
        samples, ONSETS[inside], VELOCITY[inside]
    )


@given(
    samples=st.binary(min_size=2 * 480, max_size=9000),
    onset_s=st.lists(st.floats(0, 0.3), max_size=12),
)
@settings(max_examples=30, deadline=None)
def test_any_samples_have_finite_measures(samples: bytes, onset_s: list[float]) -> None:
    values = np.frombuffer(samples[: len(samples) // 2 * 2], np.int16)
    found = measure(values, np.array(onset_s), np.full(len(onset_s), 64.0))
    for name in Quality.__dataclass_fields__:
        value = getattr(found, name)
        assert value is None or np.isfinite(value), name
    assert 0 <= found.silent_share <= 1
    assert 0 <= found.clipped_share <= 1


def test_limits_are_checked() -> None:
    with pytest.raises(ConfigError, match="must not be negative"):
        QualityLimits(max_lag_ms=-1.0)


def test_warnings_follow_from_the_numbers() -> None:
    clean = {
        "onset_correlation": 0.6,
        "onset_lag_ms": 10.0,
        "clipped_share": 0.0,
        "longest_clip": 0,
        "silent_share": 0.01,
        "longest_silence_s": 0.5,
        "bandwidth_hz": 12_000.0,
        "notes_per_s": 9.0,
        "notes_end_s": 60.0,
        "audio_duration_s": 61.0,
    }
    changes: dict[str, dict[str, Any]] = {
        "unrelated": {"onset_correlation": 0.05},
        "lag": {"onset_lag_ms": -70.0},
        "clipped": {"clipped_share": 0.01, "longest_clip": 9},
        "silence": {"longest_silence_s": 12.0},
        "narrow-band": {"bandwidth_hz": 7700.0},
        "sparse": {"notes_per_s": 0.1},
        "dense": {"notes_per_s": 90.0},
        "ends-early": {"audio_duration_s": 58.0},
        "ends-late": {"audio_duration_s": 100.0},
    }
    assert find_warnings(clean) == []
    assert set(changes) == set(quality.WARNINGS)
    for name, change in changes.items():
        assert find_warnings({**clean, **change}) == [name]
    assert find_warnings({**clean, "silent_share": None}) == []


# ---- in a store


def test_a_store_holds_the_measures_of_its_own_audio_and_notes(tiny_store: Store) -> None:
    timeline, at = tiny_store.read("audio"), 0
    notes, segments = tiny_store.notes(), tiny_store.segments
    for i, row in enumerate(tiny_store.table("recordings").to_pylist()):
        mine = np.flatnonzero(segments.recording == i)
        length = (len(mine) - 1) * RATE + 4 * RATE
        onset_s, velocity = [], []
        for segment in mine:
            rows = slice(
                segments.note_start[segment],
                segments.note_start[segment] + segments.note_count[segment],
            )
            last = segment == mine[-1]
            for onset, v in zip(notes.onset_s[rows], notes.velocity[rows], strict=True):
                if 0 <= onset < (4 if last else 1):
                    onset_s.append(segments.start_s[segment] + float(onset))
                    velocity.append(v)
        wanted = measure(timeline[at : at + length], np.array(onset_s), np.array(velocity))
        assert {n: row["checks"][n] for n in Quality.__dataclass_fields__} == {
            n: getattr(wanted, n) for n in Quality.__dataclass_fields__
        }
        at += length
    found, text = describe_store(tiny_store)
    assert found["quality"] == summarise(tiny_store)
    assert found["quality"]["measures"]["onset_lag_ms"]["recordings"] == 4
    assert "onset correlation" in text


def shifted_corpus(root: Path, shift_s: float) -> Path:
    """The first recording sounds ``shift_s`` after its notes; the second is silent."""
    specs = tuple(Spec(f"r{i}", rate=RATE, channels=1, seconds=30.0) for i in range(3))
    table = make_corpus(root, specs)
    late, rate = soundfile.read(root / specs[0].audio, dtype="int16")
    late = np.concatenate([np.zeros(round(shift_s * rate), np.int16), late])[: len(late)]
    soundfile.write(root / specs[0].audio, late, rate)
    soundfile.write(root / specs[1].audio, np.zeros(30 * RATE, np.int16), RATE)
    return table


def test_broken_pairs_fail_unless_they_are_allowed(tmp_path: Path) -> None:
    table = shifted_corpus(tmp_path / "c", 0.1)
    with pytest.raises(CorpusError, match="2 of 3 recordings") as caught:
        build_quietly(corpus_of(table), tmp_path / "out")
    assert re.search(
        r"\[quality/misaligned\] 2008/r0.wav: it sounds \d+ ms after its notes", str(caught.value)
    )
    assert "[quality/silent] 2008/r1.wav" in str(caught.value)
    assert not list((tmp_path / "out").glob("*/store.json"))

    partial = build_quietly(corpus_of(table), tmp_path / "out", max_failures=2)
    assert [f.kind for f in partial.failures] == ["misaligned", "silent"]
    store = partial.store
    assert store.record["status"] == "partial"
    assert list(store.recordings.n_segments) == [0, 0, 27]
    rows = store.table("failures").to_pylist()
    assert [(r["recording"], r["stage"], r["kind"]) for r in rows] == [
        (0, "quality", "misaligned"),
        (1, "quality", "silent"),
    ]
    verify(store.path, Quiet())
    # Known suspects are examined first: the finished store is recognised, nothing is built.
    again = build_quietly(corpus_of(table), tmp_path / "out", max_failures=2)
    assert (again.built, again.store.path) == ([], store.path)
    assert "ingest" not in again.seconds
    assert [f.kind for f in again.failures] == ["misaligned", "silent"]


def test_limits_decide_over_a_finished_store_too(tmp_path: Path) -> None:
    table = shifted_corpus(tmp_path / "c", 0.1)
    lenient = QualityLimits(max_lag_ms=1000.0, max_silent_share=1.1)
    whole = build_quietly(corpus_of(table), tmp_path / "out", quality=lenient)
    checks = [r["checks"] for r in whole.store.table("recordings").to_pylist()]
    assert [c["warnings"] for c in checks][1:] == [["silence", "narrow-band"], []]
    assert "lag" in checks[0]["warnings"]
    with pytest.raises(CorpusError, match="misaligned"):
        build_quietly(corpus_of(table), tmp_path / "out", max_failures=1)
    assert Store.open(whole.store.path).record["status"] == "complete"
    partial = build_quietly(corpus_of(table), tmp_path / "out", max_failures=2)
    assert partial.store.path != whole.store.path
    back = build_quietly(corpus_of(table), tmp_path / "out", quality=lenient)
    assert (back.built, back.store.path) == ([], whole.store.path)


def test_a_suspect_is_measured_as_in_the_store(tmp_path: Path) -> None:
    table = shifted_corpus(tmp_path / "c", 0.1)
    inputs = fingerprint_inputs(
        load_table(table),
        table.parent,
        suspects=frozenset({0, 1, 2}),
        segmentation=Segmentation(),
    )
    kinds = [i.failure.kind if i.failure else None for i in inputs]
    assert kinds == ["misaligned", "silent", None]
    partial = build_quietly(corpus_of(table), tmp_path / "out", max_failures=2)
    assert [f.message for f in partial.failures] == [i.failure.message for i in inputs[:2]]  # type: ignore[union-attr]


def test_new_measures_are_written_into_a_finished_store(
    own_corpus: Path, tmp_path: Path, monkeypatch
) -> None:
    store = build_quietly(corpus_of(own_corpus), tmp_path / "out").store
    before = (store.path / "recordings.parquet").read_bytes()
    monkeypatch.setattr(quality, "VERSION", 999)
    monkeypatch.setitem(quality.WARNINGS, "sparse", lambda checks: True)
    monkeypatch.setattr("pipeline.refresh.RULES", {"compositions": 2, "quality": 999})
    found = build_quietly(corpus_of(own_corpus), tmp_path / "out").store
    assert found.path == store.path
    assert found.record["quality"] == 999
    assert (store.path / "recordings.parquet").read_bytes() != before
    assert summarise(found)["warnings"]["sparse"] == [f"{s.year}/{s.name}" for s in SPECS]
    verify(found.path, Quiet())


# ---- real recordings


@pytest.mark.full
def test_real_pairs_are_aligned_and_shifted_ones_are_found(real_data: Path, tmp_path: Path) -> None:
    store = build_quietly(
        corpus_of(real_data / "maps-metadata.csv", name="maps"), tmp_path, descriptors=("D4",)
    ).store
    found = summarise(store)
    measures = found["measures"]
    assert not len(store.table("failures"))
    assert measures["onset_correlation"]["low"] > 0.3
    assert 0.5 < measures["onset_correlation"]["median"] < 0.8
    assert -30 < measures["onset_lag_ms"]["low"] < measures["onset_lag_ms"]["high"] < 48
    assert 7000 < measures["bandwidth_hz"]["low"] < measures["bandwidth_hz"]["high"] < 8300
    assert set(found["warnings"]) == {"narrow-band"}
