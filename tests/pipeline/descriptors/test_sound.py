"""A7, A8, A9, A4_level and their siblings against loops in float64, and what the siblings correct."""

from __future__ import annotations

from typing import Any

import numpy as np
import oracles
import oracles_attractors as expected
import pytest

from pipeline.descriptors import DESCRIPTORS
from pipeline.spectral import Spectrum

SIGNALS = oracles.signals()
REST = set(SIGNALS) - set(oracles.GOLDEN)
NAMES = [*oracles.GOLDEN, *(pytest.param(n, marks=pytest.mark.full) for n in sorted(REST))]


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


@pytest.mark.parametrize("signal", NAMES)
def test_attractors_are_their_definition(signal: str) -> None:
    segment, spectra = Spectrum(SIGNALS[signal]), expected.rounded(SIGNALS[signal])
    mine = segment.magnitude.T.astype(np.float64)

    raw = decided(expected.bin_activations, spectra, mine, expected.undecided_bins(spectra))
    agree(segment, "A7", oracles.shares(raw))
    agree(segment, "A9", oracles.shares(raw * expected.rarity(raw > 0.05)))
    raw = decided(expected.peak_activations, spectra, mine, expected.undecided_peaks(spectra))
    agree(segment, "A7s", oracles.shares(raw))
    rarity = expected.rarity(oracles.shares(raw) > 0.05)
    agree(segment, "A9s", oracles.shares(raw * rarity))


def decided(oracle: Any, spectra: np.ndarray, mine: np.ndarray, undecided: np.ndarray) -> Any:
    """The oracle of the samples; in undecided frames that of the package's own M."""
    out = oracle(spectra)
    out[undecided] = oracle(mine[undecided])
    return out


def agree(segment: Spectrum, name: str, wanted: np.ndarray) -> None:
    found = DESCRIPTORS.get(name).extract(segment)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5, err_msg=name)


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
    paper, sound, weighed, corrected = (
        extract(n, SIGNALS["chord"]).mean(axis=0) for n in ("A7", "A7s", "A9", "A9s")
    )
    # 5/3 is a hundredth of the sound; it passes the absolute threshold in every frame.
    sixth = 9
    assert paper[sixth] > 5e-3
    assert weighed[sixth] < 1e-5
    assert corrected[sixth] > 5 * sound[sixth] > 0.05
    assert (weighed < 0.01 * paper).sum() >= 6
    assert (corrected < 0.01 * sound).sum() <= 2  # what is more than 5 % of every frame


def test_the_papers_rarity_turns_on_loudness_and_the_corrected_one_does_not() -> None:
    loud = SIGNALS["chord"]
    soft = loud * np.float32(2.0**-8)
    np.testing.assert_allclose(extract("A9s", soft), extract("A9s", loud), rtol=0, atol=1e-5)
    assert np.abs(extract("A9", soft) - extract("A9", loud)).mean() > 0.05
