"""Time warping against the textbook's recursion in plain Python."""

from __future__ import annotations

import sys
from functools import cache

import numpy as np
import pytest

from pipeline.base import jit
from pipeline.base.errors import MissingExtra
from trainer.retrieval.baselines import BASELINES, warping
from trainer.retrieval.baselines.warping import Warping
from trainer.retrieval.gallery import RetrievalError


def brute_force(x, y, band):
    """Sakoe and Chiba's symmetric form, from the end: 1 - sum / 2 T."""

    def cost(i, j):
        norms = np.linalg.norm(x[i]) * np.linalg.norm(y[j])
        return 1 - (x[i] @ y[j] / norms if norms > 0 else 0.0)

    @cache
    def total(i, j):
        if i < 0 or j < 0 or abs(i - j) > band:
            return np.inf
        if i == j == 0:
            return 2 * cost(0, 0)
        d = cost(i, j)
        return min(total(i - 1, j - 1) + 2 * d, total(i - 1, j) + d, total(i, j - 1) + d)

    return 1 - total(len(x) - 1, len(y) - 1) / (2 * len(x))


def sequences(n, seed, steps=47, width=12):
    rng = np.random.default_rng(seed)
    return (rng.random((n, steps, width)) ** 3).astype(np.float32)


@pytest.mark.parametrize(("steps", "width"), [(47, 12), (5, 3), (1, 2)])
def test_it_is_the_textbooks_recursion(steps, width):
    x, y = sequences(4, 0, steps, width), sequences(4, 1, steps, width)
    x[2, 1:3] = 0  # silence within
    expected = [[brute_force(a.astype(float), b.astype(float), 6) for b in y] for a in x]
    np.testing.assert_allclose(Warping(x, y).rows(np.arange(4)), expected, atol=1e-5)


def test_rows_are_pairs_and_both_directions_agree(monkeypatch):
    monkeypatch.setattr(warping, "LANES", 7)  # several blocks, the last one not full
    x, y = sequences(20, 2), sequences(20, 3)
    forth, back = Warping(x, y), Warping(y, x)
    everyone = np.arange(20)
    found = forth.rows(everyone)
    assert found.dtype == np.float32
    np.testing.assert_allclose(back.rows(everyone), found.T, atol=1e-6)
    some = np.array([11, 3, 3])
    np.testing.assert_allclose(forth.rows(some), found[some], atol=1e-6)
    q, c = np.divmod(np.arange(400), 20)
    np.testing.assert_allclose(forth.pairs(q, c), found.reshape(-1), atol=1e-6)


def test_time_is_forgiven_within_the_band_and_order_is_not():
    (x,) = sequences(1, 4)
    moved = np.roll(x, 2, axis=0)
    moved[:2] = x[0]
    far = np.roll(x, 15, axis=0)
    others = np.stack([x, moved, far, x[::-1], sequences(1, 5)[0]])
    same, near, late, reverse, other = Warping(np.stack([x] * 5), others).rows(np.array([0]))[0]
    assert same == pytest.approx(1, abs=1e-5)
    assert near > 0.95
    assert max(late, reverse, other) < near - 0.1


def test_shifted_by_two_steps_still_matches_best(fake_store):
    """Features as the baseline makes them: every sound moved by 171 ms finds its own notes."""
    baseline = BASELINES.get("chroma-dtw")
    table = fake_store.segments
    rows = np.flatnonzero((table.split == "test") & table.valid)[::4]
    notes = [
        fake_store.notes(table.note_start[r], table.note_start[r] + table.note_count[r])
        for r in rows
    ]
    midi = np.stack([baseline.midi_features(n) for n in notes])
    steps = midi.reshape(len(rows), 47, 12)
    moved = np.concatenate([steps[:, :1], steps[:, :1], steps[:, :-2]], axis=1)
    forth, _ = baseline.similarities(moved.reshape(midi.shape), midi)
    found = forth.rows(np.arange(len(rows)))
    assert (found.argmax(axis=1) == np.arange(len(rows))).all()
    cosine = np.einsum("id,jd->ij", moved.reshape(midi.shape), midi)
    cosine /= np.linalg.norm(midi, axis=1)[None] * np.linalg.norm(moved, axis=(1, 2))[:, None]
    assert (np.diag(found) > np.diag(cosine)).all()


def test_loudness_does_not_matter_and_float16_hardly():
    x, y = sequences(3, 6), sequences(3, 7)
    rows = np.arange(3)
    found = Warping(x, y).rows(rows)
    np.testing.assert_allclose(Warping(5 * x, y / 7).rows(rows), found, atol=1e-5)
    halves = Warping(x.astype(np.float16), y.astype(np.float16))
    np.testing.assert_allclose(halves.rows(rows), found, atol=1e-3)


def test_what_cannot_be_compared_is_refused():
    x = sequences(3, 8)
    with pytest.raises(RetrievalError, match="do not pair"):
        Warping(x, x[:2])
    broken = x.copy()
    broken[1, 4, 2] = np.nan
    with pytest.raises(RetrievalError, match="NaN or infinity") as caught:
        Warping(x, broken)
    assert caught.value.kind == "not-finite"


def test_without_numba_the_extra_is_named(monkeypatch):
    similarity = Warping(sequences(2, 9), sequences(2, 10))
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.setattr(jit, "_numba", jit._numba.__wrapped__)
    monkeypatch.delitem(warping._align.__dict__, "compiled", raising=False)
    with pytest.raises(MissingExtra, match=r"numba.*xmodal\[features\]"):
        similarity.rows(np.arange(2))
