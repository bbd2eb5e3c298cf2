"""A10a–A10e against float64 and integers, the mistake in A10c, and what A10cs makes of it."""

from __future__ import annotations

import numpy as np
import oracles
import oracles_recurrence as expected
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.descriptors import DESCRIPTORS, lines, plots, ratios, recurrence
from pipeline.spectral import Spectrum

SIGNALS = oracles.signals()
FAMILY = ["A10a", "A10b", "A10c", "A10d", "A10e", "A10cs", "A10c_level"]
REST = set(SIGNALS) - set(oracles.GOLDEN)
NAMES = [*oracles.GOLDEN, *(pytest.param(n, marks=pytest.mark.full) for n in sorted(REST))]
DET, LAM = lines.MEASURES.index("DET"), lines.MEASURES.index("LAM")


def extract(name: str, segment: Spectrum) -> np.ndarray:
    found = DESCRIPTORS.get(name).extract(segment)
    assert found.dtype == np.float32
    return found


@pytest.mark.parametrize("signal", NAMES)
def test_the_family_is_its_definition(signal: str) -> None:
    wanted = expected.everything(SIGNALS[signal])
    segment = Spectrum(SIGNALS[signal])
    for name in FAMILY:
        np.testing.assert_allclose(extract(name, segment), wanted[name], rtol=0, atol=1e-5)


def test_silence_and_what_the_gate_keeps_out_give_zeros() -> None:
    rng = np.random.default_rng(0)
    faint = (rng.integers(-1, 2, 96_000) * (np.arange(96_000) % 4096 == 0)).astype(np.float32)
    for samples in (SIGNALS["silence"], faint / 32768):
        segment = Spectrum(samples)
        assert not segment.once(recurrence.sounding).any()
        assert not any(extract(name, segment).any() for name in FAMILY)


# ---- periods


def test_a_tones_periods_stand_in_ratios_of_whole_numbers() -> None:
    samples = (0.5 * np.sin(2 * np.pi * np.arange(96_000) / 96)).astype(np.float32)  # 250 Hz
    segment = Spectrum(samples)
    peaks = segment.once(recurrence.autocorrelation_peaks)
    assert {tuple(np.rint(2**o).astype(int)) for o in peaks.octaves[5:-5]} == {
        (1, 1, 1, 96, 192, 288, 384, 480)
    }
    assert (peaks.heights[5:-5, :3] == -1).all()
    # 480:384:288:192:96 are 1 (octaves), 5/4, 4/3, 3/2, 5/3 and nothing else
    share = extract("A10a", segment)[5:-5].mean(axis=0)
    named = [ratios.RATIOS.index(r) for r in (1, 5 / 4, 4 / 3, 3 / 2, 5 / 3)]
    assert share[named].min() > 0.05
    assert share[named].sum() > 0.99


def test_what_is_equal_but_for_rounding_is_no_peak() -> None:
    """A lone click correlates with nothing; the transform leaves 1e-17 everywhere."""
    segment = Spectrum(SIGNALS["impulse"])
    assert segment.once(recurrence.sounding).any()
    assert (segment.once(recurrence.autocorrelation_peaks).heights == -1).all()


@given(st.lists(st.integers(-2, 6), min_size=5, max_size=80))
@settings(max_examples=200, deadline=None)
def test_peaks_are_found_by_exhaustive_search(levels: list[int]) -> None:
    curve = np.array(levels, np.float64)
    wanted = expected.peaks(curve, range(1, len(levels) - 1))
    found = recurrence.highest(curve[None], 1, len(levels) - 2)
    kept = found.heights[0] > 0
    places = np.rint(2 ** found.octaves[0][kept]).astype(int)
    assert list(zip(places.tolist(), found.heights[0][kept].tolist(), strict=True)) == wanted


# ---- plots


@pytest.mark.parametrize(("grid", "loudest"), [(1, 1), (3, 1), (2**24, 1), (2**10, 1000)])
def test_the_threshold_is_the_1587th_distance_however_many_are_equal(
    grid: int, loudest: int
) -> None:
    rng = np.random.default_rng(grid)
    points = np.rint(rng.uniform(-loudest, loudest, (20, 128)) * grid) / grid
    vectors = np.stack([points[:, i : i + 3] for i in range(126)], axis=1)
    squares = ((vectors[:, :, None] - vectors[:, None]) ** 2).sum(axis=3).reshape(20, -1)
    found, _ = plots.recurrences(points, np.ones(20, bool))
    np.testing.assert_allclose(found, np.sort(squares, axis=1)[:, 1586], rtol=1e-15)


@pytest.mark.parametrize("grid", [1, 2, 5, 2**24])
def test_bits_and_lines_are_those_of_the_plot(grid: int) -> None:
    """Few levels make many equal distances, long lines and lines to the plot's edges."""
    rng = np.random.default_rng(grid)
    points = rng.integers(-grid, grid + 1, (30, 128)) / 2**24
    points[:10, rng.integers(0, 100) :] = 0
    points[10] = 0
    points[11, 64:] = points[11, :64]
    points[12:15] = np.tile(points[12:15, :16], 8)
    _, found = plots.recurrences(points, np.ones(30, bool))
    rates, (measured, paper) = lines.recurrence_rates(found), lines.measures(found)
    for t, frame in enumerate(points):
        wanted = expected.plot(np.repeat(frame, 16))
        for d in range(64):
            bits = int(found[t, d, 0]) | int(found[t, d, 1]) << 64
            assert bits == sum(int(wanted[i, (i + d) % 126]) << i for i in range(126))
        np.testing.assert_allclose(rates[t], expected.rates(wanted), rtol=1e-15)
        mistaken, meant = expected.measures(wanted)
        np.testing.assert_allclose(paper[t], mistaken[[DET, LAM]], rtol=1e-12)
        np.testing.assert_allclose(measured[t], meant, rtol=1e-12, atol=1e-12)


def test_the_plot_is_made_once_for_the_whole_family(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    parts = {"recurrences": plots, "measures": lines, "recurrence_rates": lines}
    for name, module in parts.items():
        original = getattr(module, name)
        monkeypatch.setattr(module, name, lambda *a, f=original, n=name: made.append(n) or f(*a))
    segment = Spectrum(SIGNALS["clipped"])
    for name in FAMILY:
        extract(name, segment)
    assert sorted(made) == ["measures", "recurrence_rates", "recurrences"]


# ---- the mistake


def tone_then_noise() -> tuple[Spectrum, slice, slice]:
    """One segment, and the frames that lie wholly in its tone and wholly in its noise."""
    samples = np.concatenate([SIGNALS["sine 261 Hz"][:48_000], SIGNALS["noise"][48_000:]])
    return Spectrum(samples), slice(2, 92), slice(96, 186)


def separation(values: np.ndarray, tone: slice, noise: slice) -> float:
    """Share of the (tone, noise) pairs of frames in which the tone's value is the greater."""
    a, b = values[tone], values[noise]
    return float((a[:, None] > b).mean())


def test_the_papers_determinism_is_near_1_whatever_sounds() -> None:
    segment, _, _ = tone_then_noise()
    found = segment.once(recurrence.paper_measures)[:, [DET, LAM]]
    assert found.min() > 0.94
    assert np.ptp(found, axis=0).max() < 0.03
    # Both say how often the frame's first point recurs: after the z-score they are one column.
    paper = extract("A10c", segment)
    assert np.corrcoef(paper[:, DET], paper[:, LAM])[0, 1] > 0.999
    others = [i for i in range(6) if i not in (DET, LAM)]
    np.testing.assert_array_equal(paper[:, others], extract("A10cs", segment)[:, others])


def test_the_corrected_determinism_tells_a_tone_from_noise() -> None:
    segment, tone, noise = tone_then_noise()
    found = segment.once(recurrence.sound_measures)[:, DET]
    assert found[tone].min() > 0.95
    assert np.median(found[noise]) < 0.9
    sound, paper = extract("A10cs", segment), extract("A10c", segment)
    assert separation(sound[:, DET], tone, noise) > 0.999
    assert separation(paper[:, DET], tone, noise) < 0.95
    assert np.corrcoef(sound[:, DET], sound[:, LAM])[0, 1] < 0.9
    steady, hiss = Spectrum(SIGNALS["sine 526 Hz"]), Spectrum(SIGNALS["noise"])
    assert extract("A10c_level", steady)[DET] > extract("A10c_level", hiss)[DET] + 0.08
    assert extract("A10c_level", steady)[LAM] < extract("A10c_level", hiss)[LAM] - 0.05


def test_the_z_scores_mean_is_0_and_the_companion_is_not() -> None:
    segment = Spectrum(SIGNALS["noise"])
    for name in ("A10c", "A10cs"):
        found = extract(name, segment).astype(np.float64)
        np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-6)
        changing = found.any(axis=0)
        np.testing.assert_allclose(found.std(axis=0, ddof=1)[changing], 1, atol=1e-6)
        assert changing.sum() >= 5  # REC changes by ties alone
        assert DESCRIPTORS.get(name).pooled == "A10c_level"
    assert extract("A10c_level", segment).min() > 0.05
