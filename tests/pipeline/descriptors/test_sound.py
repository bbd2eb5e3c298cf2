"""A7, A8, A9, A4_level and their siblings against loops in float64, and what the siblings correct."""

from __future__ import annotations

import numpy as np
import oracles
import pytest

from pipeline.descriptors import DESCRIPTORS
from pipeline.spectral import Spectrum

SIGNALS = oracles.signals()


def chord() -> np.ndarray:
    """A struck fifth with eight partials each, over soft noise, as the store would hold it."""
    t = np.arange(96_000) / 24_000
    rng = np.random.default_rng(5)
    sound = 0.002 * rng.standard_normal(96_000)
    for f0 in (220.0, 330.0):
        for n in range(1, 9):
            sound += 0.15 / n * np.exp(-(t % 1.0) * 2 * n) * np.sin(2 * np.pi * f0 * n * t)
    return (np.rint(sound * 32768) / 32768).astype(np.float32)


SIGNALS["chord"] = chord()
NAMES = ["silence", "impulse", "noise", "chirp", "chord", "struck 526 Hz"]


def extract(name: str, samples: np.ndarray) -> np.ndarray:
    found = DESCRIPTORS.get(name).extract(Spectrum(samples))
    assert found.dtype == np.float32
    return found


@pytest.mark.parametrize("signal", NAMES)
def test_chroma_is_its_definition(signal: str) -> None:
    chroma, gate = oracles.chroma_and_gate(SIGNALS[signal])
    paper = oracles.shares(chroma * gate[:, None])
    sound = oracles.shares(chroma) * gate[:, None]
    np.testing.assert_allclose(extract("A8", SIGNALS[signal]), paper, rtol=0, atol=1e-5)
    np.testing.assert_allclose(extract("A8s", SIGNALS[signal]), sound, rtol=0, atol=1e-5)


# Not the impulse: its spectrum is flat, and which bins are largest is a matter of rounding.
@pytest.mark.parametrize("signal", [n for n in NAMES if n != "impulse"])
def test_attractors_are_their_definition(signal: str) -> None:
    raw = oracles.bin_activations(SIGNALS[signal])
    idf = oracles.rarity(raw > 0.05)
    agree(extract("A7", SIGNALS[signal]), oracles.shares(raw))
    agree(extract("A9", SIGNALS[signal]), oracles.shares(raw * idf))
    raw = oracles.peak_activations(SIGNALS[signal])
    idf = oracles.rarity(oracles.shares(raw) > 0.05)
    agree(extract("A7s", SIGNALS[signal]), oracles.shares(raw))
    agree(extract("A9s", SIGNALS[signal]), oracles.shares(raw * idf))


def agree(found: np.ndarray, expected: np.ndarray) -> None:
    """To 1e-5; where the 8th and the 9th bin are equal but for rounding, either may be taken."""
    off = np.abs(found - expected).max(axis=1) > 1e-5
    assert off.mean() <= 0.03


def test_the_level_is_the_mean_that_a4_leaves_out() -> None:
    for samples in SIGNALS.values():
        expected = oracles.a4_levels(samples).mean(axis=0)
        np.testing.assert_allclose(extract("A4_level", samples), expected, rtol=1e-6, atol=1e-7)
    assert DESCRIPTORS.get("A4").pooled == "A4_level"


def test_the_papers_gate_cancels_and_the_corrected_one_does_not() -> None:
    chroma, gate = oracles.chroma_and_gate(SIGNALS["chord"])
    plain = oracles.shares(chroma)
    np.testing.assert_allclose(extract("A8", SIGNALS["chord"])[1:], plain[1:], rtol=0, atol=1e-5)
    sums = extract("A8s", SIGNALS["chord"]).sum(axis=1)
    np.testing.assert_allclose(sums, gate, atol=1e-5)
    assert sums.max() > 50 * np.median(sums)


def test_the_papers_bins_share_a_lobe_and_true_peaks_find_the_interval() -> None:
    fifth = 7  # 3/2
    paper, sound = (extract(n, SIGNALS["chord"]).mean(axis=0) for n in ("A7", "A7s"))
    assert sound[fifth] > 1.5 * paper[fifth]
    assert not extract("A7s", SIGNALS["silence"]).any()
    assert extract("A7", SIGNALS["silence"]).sum() == pytest.approx(188)  # it speaks in silence


def test_the_papers_rarity_silences_what_is_common_and_the_corrected_one_weighs_it() -> None:
    raw = oracles.bin_activations(SIGNALS["chord"])
    assert (oracles.rarity(raw > 0.05) < 1e-2).sum() >= 8
    peaks = oracles.shares(oracles.peak_activations(SIGNALS["chord"]))
    assert (oracles.rarity(peaks > 0.05) > 0.5).sum() >= 4
