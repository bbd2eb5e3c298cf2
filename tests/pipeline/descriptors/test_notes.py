"""D1, D2, D3, D4s, D5 against loops in float64, on drawn and on chosen notes."""

from __future__ import annotations

import numpy as np
import oracles
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.descriptors import DESCRIPTORS, Notes
from pipeline.descriptors.contract import FloatArray

MIDI = ["D1", "D2", "D3", "D4", "D4s", "D5"]


def notes_of(rows: list[tuple[int, int, float, float]]) -> Notes:
    """Notes of (pitch, velocity, onset, duration), in store order."""
    ordered = sorted(rows, key=lambda r: (r[2], r[0], r[2] + r[3], r[1]))
    pitch, velocity, onset, duration = (
        np.array([r[i] for r in ordered], np.float32) for i in range(4)
    )
    return Notes(
        pitch=pitch.astype(np.uint8), velocity=velocity.astype(np.uint8),
        duration_bucket=np.array([oracles.bucket(float(d)) for d in duration], np.uint8),
        onset_s=onset, duration_s=duration,
    )  # fmt: skip


def drawn(count: int, seed: int = 0) -> Notes:
    rng = np.random.default_rng(seed)
    return notes_of(
        [
            (int(rng.integers(21, 109)), int(rng.integers(1, 128)), float(rng.uniform(-2, 4)),
             float(rng.uniform(0.01, 3)))
            for _ in range(count)
        ]
    )  # fmt: skip


def extract(name: str, notes: Notes) -> FloatArray:
    found = DESCRIPTORS.get(name).extract(notes)
    assert found.dtype == np.float32
    return found


@pytest.mark.parametrize("count", [0, 1, 2, 3, 40, 128, 150])
def test_note_descriptors_are_their_definition(count: int) -> None:
    notes = drawn(count)
    pairs = oracles.pair_histograms(notes)
    np.testing.assert_allclose(extract("D1", notes), pairs[:, 2], rtol=0, atol=1e-5)
    np.testing.assert_allclose(extract("D2", notes), pairs.reshape(-1), rtol=0, atol=1e-5)
    np.testing.assert_allclose(extract("D3", notes), oracles.d3(notes), rtol=0, atol=1e-5)
    np.testing.assert_allclose(extract("D5", notes), oracles.d5(notes), rtol=1e-6, atol=1e-5)
    steps = oracles.d4(notes.pitch.tolist())[:, :2]
    np.testing.assert_allclose(extract("D4s", notes), steps, rtol=0, atol=1e-7)


ROWS = st.lists(
    st.tuples(
        st.integers(0, 127), st.integers(1, 127),
        st.floats(-3, 3.984375, width=32), st.floats(0.015625, 6, width=32),
    ),
    max_size=12,
)  # fmt: skip


@given(ROWS)
def test_any_few_notes_agree_with_the_oracles(rows: list[tuple[int, int, float, float]]) -> None:
    notes = notes_of(rows)
    np.testing.assert_allclose(extract("D3", notes), oracles.d3(notes), rtol=0, atol=1e-5)
    np.testing.assert_allclose(extract("D5", notes), oracles.d5(notes), rtol=1e-6, atol=1e-5)
    expected = oracles.pair_histograms(notes).reshape(-1)
    np.testing.assert_allclose(extract("D2", notes), expected, rtol=0, atol=1e-5)


def test_octaves_count_on_both_edges() -> None:
    found = extract("D1", notes_of([(60, 64, 0.0, 1.0), (72, 64, 1.0, 1.0)]))
    assert found[0] > 0.05
    assert found[-1] > 0.05


def test_repeated_columns_are_gone_and_leaps_fold_in_the_paper_alone() -> None:
    notes = drawn(60)
    paper, sound = extract("D4", notes), extract("D4s", notes)
    small = np.abs(paper[:, :2]).max(axis=1) <= 1
    np.testing.assert_array_equal(paper[small, 2:], paper[small, :2])
    assert not small.all()
    assert (paper[~small, 2:] != paper[~small, :2]).any(axis=1).all()
    np.testing.assert_array_equal(sound, paper[:, :2])


def test_the_contour_follows_the_upper_voice_where_d4_mixes_voices() -> None:
    melody = [(72, 80, 0.0, 1.0), (74, 80, 1.0, 1.0), (76, 80, 2.0, 1.0), (74, 80, 3.0, 1.0)]
    bass = [(36, 60, 0.5 * i, 0.5) for i in range(8)]
    with_bass, alone = notes_of(melody + bass), notes_of(melody)
    np.testing.assert_array_equal(extract("D5", with_bass), extract("D5", alone))
    at = with_bass.pitch >= 72
    assert np.abs(extract("D4s", with_bass)[at] - extract("D4s", alone)).max() > 1
    transposed = notes_of([(p + 5, v, o, d) for p, v, o, d in melody])
    np.testing.assert_allclose(extract("D5", transposed), extract("D5", alone), atol=1e-6)


def test_a_rest_is_unvoiced_and_has_no_slope() -> None:
    found = extract("D5", notes_of([(60, 64, 0.0, 1.0), (64, 64, 2.0, 3.0)]))
    voiced = found[:, 1] == 1
    times = np.arange(188) * 512 / 24_000
    np.testing.assert_array_equal(voiced, (times < 1.0) | (times >= 2.0))
    assert not found[~voiced].any()
    assert not found[:, 2].any()  # no three voiced frames lie across the leap


@pytest.mark.parametrize("name", MIDI)
def test_without_notes_everything_is_zero(name: str) -> None:
    assert not extract(name, notes_of([])).any()
