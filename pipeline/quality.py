"""Whether a recording is sound, and whether its notes are those that sound: pure functions.

Measured on the samples of the store (24 kHz, int16; full scale 32,768) and on note onsets:

==================  ==============================================================================
onset correlation   Spectral flux against velocity-weighted onsets, at every lag within ±150 ms.
                    Frames of 512 samples (Hann, centred) every 120 samples = 5 ms;
                    flux(t) = Σ_k max(0, ln(1 + 100 M[k, t]) - ln(1 + 100 M[k, t-1])), M = |X|;
                    onsets are split between the two nearest frames; both are smoothed by a Gaussian
                    of 7.5 ms, Pearson's r is taken over all frames at once. The peak is refined by
                    a parabola through its neighbours. Positive lags: the sound comes after the notes.
                    Examined: four spans of 3 s, evenly from start to end (all, if it is shorter);
                    nothing is said of fewer than 8 onsets.
clipping            share of samples at or above 32,700 (-0.02 dB), and the longest run of them
silence             frames of 20 ms whose largest sample is below -60 dBFS: share and longest run
bandwidth           the highest frequency where the mean power of the examined frames is more than
                    twice what rounding to int16 leaves everywhere (σ² = 1/12 LSB²): half the rate
                    that an up-sampled file came from, whose own rounding ends there too.
                    Resolution 46.9 Hz
note density        onsets a second
==================  ==============================================================================

Numbers are rounded, so that the last bits of a platform's arithmetic do not reach the tables.
A finding is a warning or, beyond :class:`QualityLimits`, a failure: only what is surely broken.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.base.errors import ConfigError
from pipeline.base.jit import kernel
from pipeline.spectral import SAMPLE_RATE

VERSION = 1  # counts up when a measure changes; recorded in every store
N_FFT = 512
HOP = 120
MAX_LAG = 30  # frames of 5 ms
SMOOTHING = 1.5  # frames
COMPRESSION = np.float32(100.0)
SPANS, SPAN_S = 4, 3
MIN_ONSETS = 8
FULL_SCALE = 32_700
SILENCE_PEAK = 33  # -60 dBFS
SILENCE_FRAME = 480
ROUNDING_POWER = (1 / 12) / 32768**2  # variance of rounding to int16
ABOVE_ROUNDING = 2.0
EDGE = 3  # frames at the ends of a span or block that may hold a cut
POWER_EVERY = 8
BLOCK_FRAMES = 600  # transformed at a time: a span

Int16Array = npt.NDArray[np.int16]
FloatArray = npt.NDArray[np.float32]
DoubleArray = npt.NDArray[np.float64]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class QualityLimits:
    """What makes a recording a failure; everything else is a warning.

    Attributes
    ----------
    max_lag_ms : the correlation's peak may be so far from zero …
    sure_correlation, sure_gain : … unless it is lower than this, or hardly above its value at zero
    max_silent_share : from this share of silent frames on nothing is there to be heard
    """

    max_lag_ms: float = 50.0
    sure_correlation: float = 0.3
    sure_gain: float = 0.1
    max_silent_share: float = 1.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if not getattr(self, field.name) >= 0:
                raise ConfigError(
                    f"{field.name} = {getattr(self, field.name)}: must not be negative"
                )


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Quality:
    """The measures of one recording, as the table above defines them."""

    onset_correlation: float | None
    onset_correlation_at_zero: float | None
    onset_lag_ms: float | None
    clipped_share: float
    longest_clip: int
    silent_share: float
    longest_silence_s: float
    bandwidth_hz: float
    notes_per_s: float


class Meter:
    """Measures one recording whose samples come in blocks of any size.

    Memory: the examined spans, at most 12 s, whatever the recording's length.
    """

    def __init__(self, n_samples: int) -> None:
        self.n_samples = n_samples
        length = SPANS * SPAN_S * SAMPLE_RATE
        if n_samples <= length:
            spans = [(0, n_samples)]
        else:
            length //= SPANS
            ends = np.linspace(0, n_samples - length, SPANS)
            spans = [(int(at) // HOP * HOP, length) for at in ends]
        # With half a frame on both sides, where there is one.
        self._spans = [(at, np.zeros(n + N_FFT, np.int16)) for at, n in spans]
        self._at = 0
        self._rest = np.empty(0, np.int16)
        self._counts = np.zeros(7, np.int64)

    def feed(self, block: Int16Array) -> None:
        """Take the next samples."""
        for at, memory in self._spans:
            first = at - N_FFT // 2
            low, high = max(first, self._at), min(first + len(memory), self._at + len(block))
            if low < high:
                memory[low - first : high - first] = block[low - self._at : high - self._at]
        self._at += len(block)
        block = np.concatenate([self._rest, block]) if len(self._rest) else block
        whole = len(block) // SILENCE_FRAME * SILENCE_FRAME
        if whole:
            _count(block[:whole], self._counts)
        self._rest = block[whole:].copy()

    def finish(self, onset_s: DoubleArray, velocity: npt.NDArray[Any]) -> Quality:
        """The measures, from all samples fed and the recording's onsets (seconds, any order)."""
        if len(self._rest):
            _count(self._rest, self._counts)
            self._rest = self._rest[:0]
        frames, silent, _, longest_silence, clipped, _, longest_clip = self._counts.tolist()
        power: list[FloatArray] = []
        strengths, scores, n_onsets = [], [], 0
        for at, memory in self._spans:
            strength = onset_strength(memory, power)
            inside = (onset_s * SAMPLE_RATE >= at) & (
                onset_s * SAMPLE_RATE < at + len(strength) * HOP
            )
            frame = (onset_s[inside] * SAMPLE_RATE - at) / HOP
            strengths.append(strength)
            scores.append(onset_score(frame, velocity[inside], len(strength)))
            n_onsets += len(np.unique(frame))
        heard = n_onsets >= MIN_ONSETS and any(s.any() for s in strengths)
        correlation = correlate(strengths, scores) if heard else None
        peak, lag_ms = find_peak(correlation) if correlation is not None else (None, None)
        return Quality(
            onset_correlation=peak,
            onset_correlation_at_zero=(
                None if correlation is None else round(float(correlation[MAX_LAG]), 3)
            ),
            onset_lag_ms=lag_ms,
            clipped_share=round(clipped / max(1, self._at), 7),
            longest_clip=longest_clip,
            silent_share=round(silent / max(1, frames), 4),
            longest_silence_s=round(longest_silence * SILENCE_FRAME / SAMPLE_RATE, 2),
            bandwidth_hz=bandwidth(np.concatenate(power)),
            notes_per_s=round(len(onset_s) * SAMPLE_RATE / max(1, self.n_samples), 2),
        )


def onset_strength(samples: Int16Array, power: list[FloatArray]) -> DoubleArray:
    """Spectral flux of ``samples`` [n + 512], whose frames are centred 120 apart -> [n // 120].

    |X|² of every eighth frame, but none that may hold a cut, is appended to ``power`` as [·, 257].
    """
    from scipy.fft import rfft

    n = (len(samples) - N_FFT) // HOP
    out = np.zeros(n)
    frames = np.empty((BLOCK_FRAMES, N_FFT), np.float32)
    levels = np.ones((BLOCK_FRAMES + 1, N_FFT // 2 + 1), np.float32)
    for start in range(0, n, BLOCK_FRAMES):
        count = min(BLOCK_FRAMES, n - start)
        _cut(samples[start * HOP :], _WINDOW, frames[:count])
        spectrum = rfft(frames[:count], axis=1, overwrite_x=True)
        few = spectrum[EDGE : max(EDGE, count - EDGE) : POWER_EVERY]
        power.append(np.square(few.real) + np.square(few.imag))
        _compress(spectrum.view(np.float32), levels[1 : count + 1])
        _flux(levels[: count + 1], out[start : start + count])
        levels[0] = levels[count]
    out[:EDGE] = out[n - EDGE :] = 0.0
    return out


def onset_score(frame: DoubleArray, velocity: npt.NDArray[Any], n_frames: int) -> DoubleArray:
    """Onsets at fractional ``frame`` as a signal [n_frames], each as high as its velocity."""
    score = np.zeros(n_frames + 1)
    _add_onsets(frame, velocity, score)
    return score[:n_frames]


def correlate(strengths: list[DoubleArray], scores: list[DoubleArray]) -> DoubleArray:
    """Pearson's r over all spans at lags of -30 to 30 frames -> [61]."""
    sums = np.zeros((3, 2 * MAX_LAG + 1))
    a_mean, b_mean = np.concatenate(strengths).mean(), np.concatenate(scores).mean()
    for a, b in zip(strengths, scores, strict=True):
        if len(a) > 2 * MAX_LAG:
            smooth_a = np.convolve(a - a_mean, _GAUSSIAN, "same")
            smooth_b = np.convolve(b - b_mean, _GAUSSIAN, "same")
            _add_products(smooth_a, smooth_b, sums)
    return np.asarray(sums[0] / np.sqrt(np.maximum(sums[1] * sums[2], 1e-20)))


def find_peak(correlation: DoubleArray) -> tuple[float, float]:
    """Height and lag in ms of the highest point, refined by a parabola."""
    i = int(correlation.argmax())
    lag, height = float(i - MAX_LAG), float(correlation[i])
    if 0 < i < len(correlation) - 1:
        left, right = float(correlation[i - 1]), float(correlation[i + 1])
        bend = left - 2 * height + right
        if bend < 0:
            shift = 0.5 * (left - right) / bend
            lag, height = lag + shift, height - 0.25 * (left - right) * shift
    return round(height, 3), round(lag * HOP / SAMPLE_RATE * 1000, 1) + 0.0


def bandwidth(power: FloatArray) -> float:
    """Hz: where the mean of power spectra [n, 257] sinks into the noise of rounding."""
    if not len(power):
        return 0.0
    floor = ABOVE_ROUNDING * ROUNDING_POWER * float(np.square(_WINDOW, dtype=np.float64).sum())
    above = np.flatnonzero(power.mean(axis=0, dtype=np.float64) > floor)
    return round(float(above[-1]) * SAMPLE_RATE / N_FFT, 1) if len(above) else 0.0


def judge(quality: Quality, limits: QualityLimits) -> tuple[str, str] | None:
    """Kind and reason of the failure, if the recording is surely broken."""
    if quality.silent_share >= limits.max_silent_share:
        return "silent", (
            f"{100 * quality.silent_share:.0f} % of it is silent (below -60 dBFS); replace the file"
        )
    peak, zero, lag = (
        quality.onset_correlation,
        quality.onset_correlation_at_zero,
        quality.onset_lag_ms,
    )
    if peak is None or zero is None or lag is None or abs(lag) <= limits.max_lag_ms:
        return None
    if peak < limits.sure_correlation or peak - zero < limits.sure_gain:
        return None
    side = "after" if lag > 0 else "before"
    return "misaligned", (
        f"it sounds {abs(lag):.0f} ms {side} its notes (onset correlation {peak:.2f} there, "
        f"{zero:.2f} at zero); shift one of the two files"
    )


# Findings that leave a recording in: name → whether it holds, from the table's ``checks``.
WARNINGS: dict[str, Any] = {
    "unrelated": lambda c: c["onset_correlation"] is not None and c["onset_correlation"] < 0.15,
    "lag": lambda c: c["onset_lag_ms"] is not None and abs(c["onset_lag_ms"]) > 50,
    "clipped": lambda c: c["clipped_share"] > 1e-4 and c["longest_clip"] >= 3,
    "silence": lambda c: c["silent_share"] > 0.25 or c["longest_silence_s"] > 10,
    "narrow-band": lambda c: c["bandwidth_hz"] < 10_000,
    "sparse": lambda c: c["notes_per_s"] < 0.5,
    "dense": lambda c: c["notes_per_s"] > 50,
    "ends-early": lambda c: c["notes_end_s"] - c["audio_duration_s"] > 0.5,
    "ends-late": lambda c: c["audio_duration_s"] - c["notes_end_s"] > 30,
}


def find_warnings(checks: dict[str, Any]) -> list[str]:
    """Names of the findings that a recording's ``checks`` deserve."""
    if checks["silent_share"] is None:  # not measured: it failed, or is too short for a segment
        return []
    return [name for name, holds in WARNINGS.items() if holds(checks)]


_WINDOW = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(N_FFT) / N_FFT)).astype(np.float32)
_SCALE = np.float32(1 / 32768)
_REACH = np.arange(-8, 9)
_GAUSSIAN = np.exp(-0.5 * np.square(_REACH / SMOOTHING))
_GAUSSIAN /= _GAUSSIAN.sum()


def _count(samples: Int16Array, counts: npt.NDArray[np.int64]) -> None:
    """Frames, silent frames, the run of them, its longest; clipped samples, run, longest."""
    frames = samples.reshape(-1, min(SILENCE_FRAME, len(samples)))
    peaks = np.maximum(frames.max(axis=1), -frames.min(axis=1).astype(np.int32))
    _count_runs(frames, peaks, counts)


@kernel
def _count_runs(frames, peaks, counts):  # type: ignore[no-untyped-def]
    for n in range(len(peaks)):
        counts[0] += 1
        if peaks[n] < SILENCE_PEAK:
            counts[1] += 1
            counts[2] += 1
            counts[3] = max(counts[3], counts[2])
        else:
            counts[2] = 0
        if peaks[n] < FULL_SCALE:
            counts[5] = 0
            continue
        for i in range(frames.shape[1]):
            if abs(np.int64(frames[n, i])) >= FULL_SCALE:
                counts[4] += 1
                counts[5] += 1
                counts[6] = max(counts[6], counts[5])
            else:
                counts[5] = 0


@kernel
def _add_onsets(frame, velocity, score):  # type: ignore[no-untyped-def]
    for i in range(len(frame)):
        low = np.int64(frame[i])
        part = frame[i] - low
        score[low] += velocity[i] * (1 - part)
        score[low + 1] += velocity[i] * part


@kernel
def _cut(samples, window, frames):  # type: ignore[no-untyped-def]
    """Windowed frames [n, 512] of int16 samples, as fractions of full scale."""
    for t in range(frames.shape[0]):
        for i in range(N_FFT):
            frames[t, i] = np.float32(samples[t * HOP + i]) * _SCALE * window[i]


@kernel
def _compress(spectrum, levels):  # type: ignore[no-untyped-def]
    """1 + 100 M from real and imaginary parts in turn [n, 514] -> [n, 257]."""
    for t in range(levels.shape[0]):
        for k in range(levels.shape[1]):
            re, im = spectrum[t, 2 * k], spectrum[t, 2 * k + 1]
            levels[t, k] = np.float32(1.0) + COMPRESSION * np.sqrt(re * re + im * im)


@kernel
def _flux(levels, out):  # type: ignore[no-untyped-def]
    """Rises of ln(levels) from row to row, summed: ln of Π max(now, before) over Π before.

    Levels are 1 + 100 M with M below 256, so that 32 factors do not overflow; no logarithm stands in
    the inner loop, which is vectorised.
    """
    n_bins = levels.shape[1]
    for t in range(len(out)):
        before, now = levels[t], levels[t + 1]
        total = 0.0
        for start in range(0, n_bins, 32):
            higher, lower = np.float64(1.0), np.float64(1.0)  # plain Python's would stay float32
            for k in range(start, min(start + 32, n_bins)):
                higher *= max(now[k], before[k])
                lower *= before[k]
            total += np.log(higher) - np.log(lower)
        out[t] = total


@kernel
def _add_products(a, b, sums):  # type: ignore[no-untyped-def]
    """Σ a[t + lag] b[t], Σ a², Σ b² over the frames that both have, at every lag."""
    for j in range(sums.shape[1]):
        lag = j - MAX_LAG
        low, high = max(0, -lag), len(a) - max(0, lag)
        ab = aa = bb = 0.0
        for t in range(low, high):
            ab += a[t + lag] * b[t]
            aa += a[t + lag] * a[t + lag]
            bb += b[t] * b[t]
        sums[0, j] += ab
        sums[1, j] += aa
        sums[2, j] += bb
