"""From what a keyboard recorded to what a microphone hears: notes and pedal → piano → WAV.

Time is counted in MIDI ticks, 960 a second (480 per quarter at 120 quarters a minute), everywhere:
a performance is rounded to ticks *once*, and the MIDI file and the piano get the same integers, so
that audio and MIDI can only agree.

A MIDI file of a real piano holds *key releases* and, apart from them, the sustain pedal (CC64).
The piano (``soundfont.py``) knows no pedal, so notes are lengthened first (:func:`sounding_ends`):
a key released while the pedal is down (value >= 64) sounds until the pedal comes up, or until the
same pitch is struck again. The filters and the room of :func:`record` add no delay: the shelves are
minimum phase, and the direct path is the first sample of the impulse response.
"""

from __future__ import annotations

import io
import wave
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.corpora.soundfont import load_symusic, play

TICKS_PER_QUARTER = 480
QUARTERS_PER_MINUTE = 120
TICKS_PER_SECOND = TICKS_PER_QUARTER * QUARTERS_PER_MINUTE // 60
PEDAL_DOWN = 64  # CC64 from this value on holds the dampers up

Ticks = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Performance:
    """What a recording keyboard writes down; all times in ticks of 1/960 s.

    Attributes
    ----------
    onset, end, pitch, velocity
        One entry per note, sorted by (onset, pitch); ``end`` is the *key* release.
    pedal_time, pedal_value
        CC64 events (0–127), sorted by time.
    """

    onset: Ticks
    end: Ticks
    pitch: Ticks
    velocity: Ticks
    pedal_time: Ticks
    pedal_value: Ticks

    @property
    def duration_s(self) -> float:
        """End of the last note in seconds: what MAESTRO's ``duration`` column holds."""
        return float(self.end.max()) / TICKS_PER_SECOND


@dataclass(frozen=True, kw_only=True, slots=True)
class Studio:
    """Instrument, room and recorder of one recording.

    Attributes
    ----------
    program
        General MIDI program, 0-based: 0 grand, 2 electric grand, 3 honky-tonk (0 and 1 are
        one sound in TimGM6mb).
    sample_rate, channels
        Of the WAV file: Hz; 1 or 2.
    bass_db, treble_db
        Gains of a low shelf at 250 Hz and a high shelf at 3 kHz, in dB.
    reverb_s, wet_db
        Time in which the room decays by 60 dB, in s; its energy relative to the direct sound, dB.
    width
        Factor on the side signal (stereo only).
    peak_db, noise_db
        Highest sample and RMS of the noise floor, in dBFS.
    tail_s
        Audio after the last key release, in s.
    """

    program: int = 0
    sample_rate: int = 44_100
    channels: int = 1
    bass_db: float = 0.0
    treble_db: float = 0.0
    reverb_s: float = 0.4
    wet_db: float = -14.0
    width: float = 1.0
    peak_db: float = -4.0
    noise_db: float = -72.0
    tail_s: float = 2.0


def clip_restrikes(onset: Ticks, end: Ticks, pitch: Ticks) -> Ticks:
    """End every note at least one tick before its pitch is struck again.

    One tick, because a note-off and a note-on of one pitch at one time may be read in any order.
    """
    clipped = end.copy()
    order = np.lexsort((onset, pitch))
    same = pitch[order[1:]] == pitch[order[:-1]]
    earlier, later = order[:-1][same], order[1:][same]
    clipped[earlier] = np.minimum(clipped[earlier], onset[later] - 1)
    return clipped


def sounding_ends(performance: Performance) -> Ticks:
    """When each note stops to *sound*: key release or pedal release, cut by a restrike.

    A pedal that is never released holds until its last event or the last key release, whichever
    is later.
    """
    p = performance
    if len(p.pedal_time) == 0:
        return clip_restrikes(p.onset, p.end, p.pitch)
    down = p.pedal_value >= PEDAL_DOWN
    last = np.searchsorted(p.pedal_time, p.end, side="right") - 1
    held = (last >= 0) & down[np.maximum(last, 0)]
    ups = p.pedal_time[~down]
    final = max(int(p.end.max()), int(p.pedal_time[-1]))
    ups = np.append(ups, final)
    release = ups[np.minimum(np.searchsorted(ups, p.end, side="right"), len(ups) - 1)]
    return clip_restrikes(p.onset, np.where(held, np.maximum(release, p.end), p.end), p.pitch)


def midi_bytes(performance: Performance) -> bytes:
    """A standard MIDI file: one piano track with key releases and CC64, tempo 120."""
    symusic, p = load_symusic(), performance
    score = symusic.Score(TICKS_PER_QUARTER)
    score.tempos.append(symusic.Tempo(0, float(QUARTERS_PER_MINUTE)))
    score.time_signatures.append(symusic.TimeSignature(0, 4, 4))
    track = symusic.Track("Piano", 0, False)
    columns = np.stack([p.onset, p.end - p.onset, p.pitch, p.velocity], axis=1)
    track.notes.extend(symusic.Note(*row) for row in columns.tolist())
    pedal = np.stack([p.pedal_time, p.pedal_value], axis=1)
    track.controls.extend(symusic.ControlChange(time, 64, value) for time, value in pedal.tolist())
    score.tracks.append(track)
    return bytes(score.dumps_midi())


def record(performance: Performance, studio: Studio, rng: np.random.Generator) -> bytes:
    """The whole WAV file (16-bit PCM) of ``performance`` as ``studio`` records it."""
    rate, width = studio.sample_rate, studio.width
    near, far = (1 + width) / 2, (1 - width) / 2
    mix = [[0.5, 0.5]] if studio.channels == 1 else [[near, far], [far, near]]
    dry = play(
        performance.onset / TICKS_PER_SECOND,
        sounding_ends(performance) / TICKS_PER_SECOND,
        performance.pitch,
        performance.velocity,
        program=studio.program,
        sample_rate=rate,
        mix=np.array(mix, dtype=np.float32),
    )
    length = round((performance.duration_s + studio.tail_s) * rate)
    sound = np.stack([_in_room(_equalise(x, studio), length, studio, rng) for x in dry])
    sound *= 10 ** (studio.peak_db / 20) / np.abs(sound).max()
    noise = rng.standard_normal(sound.shape, dtype=np.float32)
    sound += noise * np.float32(10 ** (studio.noise_db / 20))
    fade = min(round(0.25 * rate), length)  # what still sounds must not be cut with a click
    sound[:, length - fade :] *= np.linspace(1, 0, fade, dtype=np.float32)
    return wav_bytes(np.round(sound.T * 32767).astype("<i2"), rate)


def wav_bytes(samples: NDArray[np.int16], sample_rate: int) -> bytes:
    """A RIFF file of ``samples`` ``[n, channels]``."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as writer:
        writer.setnchannels(samples.shape[1])
        writer.setsampwidth(2)
        writer.setframerate(sample_rate)
        writer.writeframes(samples.tobytes())
    return buffer.getvalue()


def shelf(
    corner_hz: float, low_db: float, high_db: float, sample_rate: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Numerator and denominator of a first-order shelf: ``low_db`` at 0 Hz, ``high_db`` far above."""
    from scipy.signal import bilinear

    corner = 2 * np.pi * corner_hz
    low, high = 10 ** (low_db / 20), 10 ** (high_db / 20)
    # H(s) = (high s + low w) / (s + w)
    b, a = bilinear([high, low * corner], [1.0, corner], sample_rate)
    return b, a


def _equalise(x: NDArray[np.float32], studio: Studio) -> NDArray[np.float32]:
    """First-order shelves: gentle, minimum phase, no delay."""
    from scipy.signal import lfilter

    for corner_hz, low_db, high_db in (
        (250.0, studio.bass_db, 0.0),
        (3000.0, 0.0, studio.treble_db),
    ):
        b, a = shelf(corner_hz, low_db, high_db, studio.sample_rate)
        x = lfilter(b.astype(np.float32), a.astype(np.float32), x)
    return x


def _in_room(
    x: NDArray[np.float32], length: int, studio: Studio, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Direct sound plus exponentially decaying noise from 4 ms on; cut or padded to ``length``."""
    from scipy.signal import oaconvolve

    rate = studio.sample_rate
    t = np.arange(round(studio.reverb_s * rate), dtype=np.float32) / rate
    tail = rng.standard_normal(len(t), dtype=np.float32) * 10 ** (-3 * t / studio.reverb_s)
    tail[t < 0.004] = 0
    tail *= 10 ** (studio.wet_db / 20) / np.sqrt(np.square(tail).sum())
    tail[0] = 1
    wet = oaconvolve(x, tail.astype(np.float32))[:length]
    return np.pad(wet, (0, length - len(wet))).astype(np.float32)
