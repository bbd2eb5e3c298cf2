"""Performances → 24 kHz mono int16, as a piano in a room sounds: no audio file is read or written.

The renderer stands where ``audio.py`` does: samples of any stretch of a recording, in bounded memory,
the same whoever asks. A recording is rendered in pieces of one minute. All that follows the strings is
linear and without memory beyond the room's decay, so a piece needs only the notes that reach into it:

    strings (``corpora/soundfont.py``) → two buses, bright and dull, by loudness → microphone: shelves,
    bandwidth, distance and room as *one* impulse response → noise → level → soft limit → int16

Keys sound as long as the pedal lets them (``corpora/rendering.py``: half pedals count as none or all).
The strings' tones come once per process from the SoundFont; a strike is two multiply-adds per sample.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Generator
from pathlib import Path
from typing import no_type_check

import numpy as np
import numpy.typing as npt

from pipeline.audio import PIECE_S, AudioHeader, Int16Array, to_int16
from pipeline.base.errors import AudioError
from pipeline.base.jit import kernel
from pipeline.corpora.rendering import Performance as Struck
from pipeline.corpora.rendering import shelf, sounding_ends
from pipeline.corpora.soundfont import DULL_HZ, damper_of, synthesizer_of, tone_of
from pipeline.corpora.takes import Take
from pipeline.midi import Performance
from pipeline.spectral import SAMPLE_RATE

LOWEST, HIGHEST = 21, 108  # the piano's keys
TAIL_S = 3.0  # after the last string is damped
DELAY_MAX_S = 0.1
LEVEL_BIN_S = 0.1
AUDIBLE_DB = -66.0  # a tone ends where its strings have decayed by this
TIMBRES_KEPT = 4  # per process, 40 MB each
KNEE = 0.7  # of full scale: louder samples are rounded off

Float32 = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True, slots=True)
class Timbre:
    """All keys of one instrument, at 24 kHz.

    Attributes
    ----------
    tones : float32, the keys' tones one after another
    start : int64 [89], where each begins
    dampers : float32 [88, D], what a damper lets pass from the moment it falls
    """

    tones: Float32
    start: npt.NDArray[np.int64]
    dampers: Float32


@dataclasses.dataclass(frozen=True, slots=True)
class Strikes:
    """What the strings do, in samples at 24 kHz, by onset."""

    onset: npt.NDArray[np.int64]
    damped: npt.NDArray[np.int64]
    key: npt.NDArray[np.int64]
    bright: Float32
    dull: Float32


def rendered_header(performance: Performance) -> AudioHeader:
    """What the file would say: to the last damper, and a tail."""
    end = int(_strikes(performance, 1.0).damped.max()) + math.ceil(TAIL_S * SAMPLE_RATE)
    return AudioHeader(sample_rate=SAMPLE_RATE, channels=1, frames=end, subtype="RENDERED")


def render(
    performance: Performance, take: Take, n_samples: int, start: int = 0
) -> Generator[Int16Array]:
    """Samples ``[start, n_samples)`` of the recording, int16, in blocks of a minute at most.

    Raises
    ------
    AudioError
        kinds ``soundfont`` (missing, changed, or an instrument that makes no sound), ``truncated``
        when the performance ends before.
    """
    end = rendered_header(performance).frames
    if n_samples > end:
        raise AudioError(
            f"the performance ends at {end / SAMPLE_RATE:.2f} s, "
            f"{(n_samples - end) / SAMPLE_RATE:.2f} s before the metadata's duration",
            kind="truncated",
        )
    timbre = timbre_of(take.soundfont, take.sha256, take.program)
    strikes = _strikes(performance, take.hardness)
    response = impulse_response(take)
    level = 10 ** (take.level_db / 20)
    gain = np.float32(level / _loudness(strikes))
    at = start
    while at < n_samples:
        piece = at // (PIECE_S * SAMPLE_RATE)
        begin = piece * PIECE_S * SAMPLE_RATE
        stop = min(begin + PIECE_S * SAMPLE_RATE, n_samples)
        sound = gain * _heard(strikes, timbre, response, begin, stop)
        rng = np.random.default_rng([take.seed, piece])
        noise = rng.standard_normal(len(sound), dtype=np.float32)
        sound += np.float32(level * 10 ** (take.noise_db / 20)) * noise
        yield to_int16(_limited(sound))[at - begin :]
        at = stop


@functools.lru_cache(TIMBRES_KEPT)
def timbre_of(soundfont: str, sha256: str, program: int) -> Timbre:
    """The tones of one instrument; ``sha256`` is the content that is meant."""
    path = Path(soundfont)
    tones, start = [], [0]
    with synthesizer_of(path, SAMPLE_RATE, sha256) as synthesizer:
        for key in range(LOWEST, HIGHEST + 1):
            tone = tone_of(synthesizer, program, key, SAMPLE_RATE, AUDIBLE_DB).mean(axis=0)
            if not np.abs(tone).max() > 1e-4:
                raise AudioError(
                    f"{path}: program {program} has no sound at key {key}", kind="soundfont"
                )
            tones.append(tone.astype(np.float32))
            start.append(start[-1] + len(tone))
    dampers = np.stack([damper_of(key, SAMPLE_RATE) for key in range(LOWEST, HIGHEST + 1)])
    return Timbre(np.concatenate(tones), np.array(start, np.int64), dampers.astype(np.float32))


def impulse_response(take: Take) -> Float32:
    """Strings to recorder: distance, first reflections and decay of the room, colour, bandwidth."""
    from scipy.signal import butter, lfilter, sosfilt

    rng = np.random.default_rng([take.seed, 2**32])
    delay = round(take.delay_s * SAMPLE_RATE)
    room = np.arange(round(take.reverb_s * SAMPLE_RATE)) / SAMPLE_RATE
    tail = rng.standard_normal(len(room)) * 10 ** (-3 * room / take.reverb_s)
    tail[room < 0.004] = 0  # the nearest wall
    tail *= 10 ** (take.wet_db / 20) / np.sqrt(np.square(tail).sum())
    tail[0] = 1
    response = np.concatenate([np.zeros(delay), tail, np.zeros(256)])
    for corner_hz, low_db, high_db in ((250, take.bass_db, 0.0), (3_000, 0.0, take.treble_db)):
        response = lfilter(*shelf(corner_hz, low_db, high_db, SAMPLE_RATE), response)
    low_pass = butter(4, take.bandwidth_hz, fs=SAMPLE_RATE, output="sos")
    response = sosfilt(low_pass, response)
    return np.asarray(response / np.sqrt(np.square(response).sum()), np.float32)


def _strikes(performance: Performance, hardness: float) -> Strikes:
    onset = np.round(performance.onset_s * SAMPLE_RATE).astype(np.int64)
    end = np.maximum(np.round(performance.end_s * SAMPLE_RATE).astype(np.int64), onset + 1)
    pitch = performance.pitch.astype(np.int64)
    struck = Struck(
        onset=onset,
        end=end,
        pitch=pitch,
        velocity=performance.velocity.astype(np.int64),
        pedal_time=np.round(performance.pedal_s * SAMPLE_RATE).astype(np.int64),
        pedal_value=performance.pedal_value.astype(np.int64),
    )
    # What no piano has is played in the nearest octave that it has.
    key = np.where(pitch < LOWEST, LOWEST + (pitch - LOWEST) % 12, pitch)
    key = np.where(key > HIGHEST, HIGHEST - (HIGHEST - key) % 12, key)
    speed = performance.velocity / 127.0
    loud = speed**hardness
    return Strikes(
        onset=onset,
        damped=np.maximum(sounding_ends(struck), onset + 1),
        key=key - LOWEST,
        bright=(loud * speed).astype(np.float32),  # a soft strike is duller
        dull=(loud * (1 - speed)).astype(np.float32),
    )


def _loudness(strikes: Strikes) -> float:
    """RMS of the loudest passages, from the notes alone: a piece must not depend on the others.

    Every strike counts for half a second at the level that all keys' attacks have (0.1, see
    ``soundfont.py``); the 95th percentile of sums over bins of 0.1 s.
    """
    energy = np.square(0.1 * (strikes.bright + 0.5 * strikes.dull), dtype=np.float64)
    bins = strikes.onset // round(LEVEL_BIN_S * SAMPLE_RATE)
    per_bin = np.convolve(np.bincount(bins, energy), np.full(5, 0.6))
    return float(np.sqrt(np.percentile(per_bin[per_bin > 0], 95) + 1e-12))


def _heard(strikes: Strikes, timbre: Timbre, response: Float32, begin: int, stop: int) -> Float32:
    """Samples ``[begin, stop)`` at the recorder."""
    from scipy.signal import lfilter, oaconvolve

    before = len(response) - 1
    first = begin - before
    longest = timbre.dampers.shape[1]
    reach = (strikes.onset < stop) & (strikes.damped + longest > first)
    bright, dull = np.zeros((2, stop - first), np.float32)
    _strike(
        *(column[reach] for column in (strikes.onset, strikes.damped, strikes.key)),
        strikes.bright[reach], strikes.dull[reach],
        timbre.tones, timbre.start, timbre.dampers, first, bright, dull,
    )  # fmt: skip
    pole = np.float32(np.exp(-2 * np.pi * DULL_HZ / SAMPLE_RATE))
    bright += lfilter([1 - pole], np.array([1, -pole], np.float32), dull)
    return np.asarray(oaconvolve(bright, response)[before : before + stop - begin], np.float32)


def _limited(sound: Float32) -> Float32:
    """Above the knee the excess bends towards full scale."""
    over = np.abs(sound) > KNEE
    if over.any():
        loud = sound[over]
        bent = KNEE + (1 - KNEE) * np.tanh((np.abs(loud) - KNEE) / (1 - KNEE))
        sound[over] = np.sign(loud) * bent
    return sound


@kernel
@no_type_check
def _strike(onset, damped, key, bright_gain, dull_gain, tones, start, dampers, first, bright, dull):
    """Add every strike to both buses, whose first sample is ``first``.

    A tone is as it is until its damper falls, and under the damper's curve from then on.
    """
    n = len(bright)
    for i in range(len(onset)):
        tone = tones[start[key[i]] : start[key[i] + 1]]
        damper = dampers[key[i]]
        b, d = bright_gain[i], dull_gain[i]
        at = onset[i] - first  # of the tone's first sample
        held = damped[i] - onset[i]
        low, high = max(0, -at), min(held, len(tone), n - at)
        for j in range(low, high):
            bright[at + j] += b * tone[j]
            dull[at + j] += d * tone[j]
        low, high = max(held, -at), min(held + len(damper), len(tone), n - at)
        for j in range(low, high):
            sound = tone[j] * damper[j - held]
            bright[at + j] += b * sound
            dull[at + j] += d * sound
