"""Rounding to float16 against NumPy's, pattern by pattern."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.half import round_to_half


def numpy_rounds(values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return values.astype(np.float16)


def test_every_exponent_and_every_half_way_case_is_rounded_as_numpy_does() -> None:
    # All 65,536 upper halves of a float32, each with the lower halves around which rounding turns.
    lower = np.array([0, 1, 0x0FFF, 0x1000, 0x1001, 0x2000, 0x7FFF, 0x8000, 0xFFFF], np.uint32)
    bits = (np.arange(1 << 16, dtype=np.uint32)[:, None] << np.uint32(16)) | lower
    random = np.random.default_rng(0).integers(0, 1 << 32, 1 << 20, dtype=np.uint32)
    values = np.concatenate([bits.reshape(-1), random]).view(np.float32)
    out = np.empty(values.shape, np.float16)
    assert not round_to_half(values, out)
    expected, nan = numpy_rounds(values), np.isnan(values)
    assert nan.any()
    np.testing.assert_array_equal(np.isnan(out), nan)
    np.testing.assert_array_equal(out[~nan].view(np.uint16), expected[~nan].view(np.uint16))


@pytest.mark.parametrize(
    ("value", "finite"),
    [(65_519.9, True), (-65_519.9, True), (65_520.0, False), (np.inf, False), (np.nan, False)],
)
def test_what_is_not_finite_is_reported(value: float, finite: bool) -> None:
    values = np.zeros((3, 5), np.float32)
    values[1, 4] = value
    assert round_to_half(values, np.empty((3, 5), np.float16)) is finite
