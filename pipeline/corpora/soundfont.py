"""A sampled piano: each key's tone from a SoundFont, then hammer, strings and dampers.

symusic's synthesiser (0.5.9) reads SoundFonts and plays their samples at any pitch, fast, but
measured on TimGM6mb it **ignores velocity, volume envelopes and the pedal**: a note of velocity 1
is as loud as one of velocity 127, loops for ever at one level and stops within 2 ms of its end. Nor
does it read the root keys of zones, without which every key sounds at another's pitch: it is given a
SoundFont that has them elsewhere (:mod:`pipeline.corpora.soundfont_zones`). So it is used for what it
does well, one tone of each key, and the rest is done here, per strike:

- hammer: amplitude ``(velocity / 127) ** 2`` (the SoundFont standard's curve), and a soft strike is
  duller: a mixture of the tone and its low-pass at 900 Hz;
- strings: two-stage decay, 60 dB in 14 s (lowest key) to 0.8 s (highest) for the second stage;
  every key's loudness is set to a smooth curve over the keyboard;
- dampers: from the end of the note 60 dB in 0.5–0.2 s; the keys above F6 have none.

A tone reaches 5 % of its peak 1–9 ms after the note-on (1–4 ms but for the keys 65 to 72): no delay is
corrected.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.base.errors import AudioError, CorpusError, MissingExtra
from pipeline.corpora.soundfont_zones import as_synthesised

Tone = NDArray[np.float32]

# second-stage decay and damper, in seconds per 60 dB, at MIDI pitches; logarithmic in between
DECAY_PITCHES, DECAY_S = (21, 60, 84, 108), (14.0, 8.0, 3.0, 0.8)
DAMPER_PITCHES, DAMPER_S = (21, 60, 89, 90), (0.5, 0.28, 0.2, 1.5)
PROMPT_SHARE, PROMPT_FACTOR = 0.6, 0.3  # of the amplitude; of the second stage's decay time
DULL_HZ = 900.0
SLOPE_DB = -6.0  # loudness of the highest key relative to the lowest
DAMPED_S = 0.6  # the damper's sound is cut here


def soundfont_path() -> Path:
    """The SoundFont that the wheel of pretty_midi ships (found without importing it)."""
    spec = importlib.util.find_spec("pretty_midi")
    if spec is None or not spec.submodule_search_locations:
        raise MissingExtra("pretty_midi", "demo")
    path = Path(spec.submodule_search_locations[0]) / "TimGM6mb.sf2"
    if not path.is_file():
        raise CorpusError(f"{path} is missing; reinstall the package 'pretty_midi'")
    return path


def load_symusic() -> Any:
    """The module symusic, or the error that says how to get it."""
    try:
        import symusic
    except ModuleNotFoundError:
        raise MissingExtra("symusic", "demo") from None
    return symusic


def play(
    onset_s: NDArray[np.float64],
    end_s: NDArray[np.float64],
    pitch: NDArray[np.int64],
    velocity: NDArray[np.int64],
    *,
    program: int,
    sample_rate: int,
    mix: NDArray[np.float32],
) -> Tone:
    """Sound of struck keys.

    Parameters
    ----------
    onset_s, end_s
        Seconds; the ends are where the *dampers* fall, so the pedal is already in them.
    pitch, velocity
        MIDI numbers.
    program
        General MIDI program, 0-based.
    sample_rate
        In Hz.
    mix
        ``[channels, 2]``: how the SoundFont's left and right make the channels.

    Returns
    -------
    numpy.ndarray
        float32 ``[channels, samples]``, not normalised; ends when the last damper has fallen.
    """
    with synthesizer_of(soundfont_path(), sample_rate) as synthesizer:
        return _played(synthesizer, onset_s, end_s, pitch, velocity, program, sample_rate, mix)


@contextlib.contextmanager
def synthesizer_of(soundfont: Path, sample_rate: int, sha256: str | None = None) -> Iterator[Any]:
    """The synthesiser of a SoundFont whose keys sound at their pitch.

    Raises
    ------
    AudioError
        kind ``soundfont``, when it is gone or unreadable, or its content is not the one that is meant.
    """
    try:
        content = soundfont.read_bytes()
    except OSError as error:
        raise AudioError(
            f"{soundfont}: cannot be read ({error.strerror})", kind="soundfont"
        ) from None
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        raise AudioError(f"{soundfont}: changed while it was used", kind="soundfont")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / soundfont.name
        path.write_bytes(as_synthesised(content))
        try:
            yield load_symusic().Synthesizer(str(path), sample_rate, 0)
        except (RuntimeError, MemoryError) as error:
            said = f"{soundfont}: the synthesiser cannot play it ({error})"
            raise AudioError(said, kind="soundfont") from None


def _played(
    synthesizer: Any,
    onset_s: NDArray[np.float64],
    end_s: NDArray[np.float64],
    pitch: NDArray[np.int64],
    velocity: NDArray[np.int64],
    program: int,
    sample_rate: int,
    mix: NDArray[np.float32],
) -> Tone:
    start = np.round(onset_s * sample_rate).astype(np.int64)
    held = np.round((end_s - onset_s) * sample_rate).astype(np.int64)
    damped = round(DAMPED_S * sample_rate)
    out = np.zeros((len(mix), int((start + held).max()) + damped), dtype=np.float32)
    for key in np.unique(pitch):
        strikes = np.flatnonzero(pitch == key)
        longest = int(held[strikes].max()) + damped
        bright = mix @ _tone(synthesizer, program, int(key), longest, sample_rate)
        dull = _low_pass(bright, sample_rate)
        damper = damper_of(int(key), sample_rate)
        for i in strikes:
            loudness = velocity[i] / 127
            # dull and bright share their attack: no shift in time between soft and loud
            sound = np.float32(loudness**3) * bright[:, : held[i] + damped]
            sound += np.float32(loudness**2 - loudness**3) * dull[:, : held[i] + damped]
            sound[:, held[i] :] *= damper
            out[:, start[i] : start[i] + sound.shape[1]] += sound
    return out


def damper_of(key: int, sample_rate: int) -> Tone:
    """What a falling damper lets pass, float32 [0.6 s]."""
    seconds = np.arange(round(DAMPED_S * sample_rate), dtype=np.float32) / sample_rate
    cut = np.linspace(1, 0, len(seconds), dtype=np.float32)
    return np.asarray(10 ** (-3 * seconds / _at(key, DAMPER_PITCHES, DAMPER_S)) * cut)


def tone_of(synthesizer: Any, program: int, key: int, sample_rate: int, audible_db: float) -> Tone:
    """One undamped tone ``[2, samples]``, as long as its second stage is above ``audible_db``."""
    seconds = _at(key, DECAY_PITCHES, DECAY_S) * audible_db / -60
    return _tone(synthesizer, program, key, round(seconds * sample_rate), sample_rate)


def _tone(synthesizer: Any, program: int, key: int, samples: int, sample_rate: int) -> Tone:
    """One undamped tone ``[2, samples]``: the SoundFont's sample under the strings' decay."""
    symusic = load_symusic()
    score = symusic.Score(480)
    score.tempos.append(symusic.Tempo(0, 120.0))
    track = symusic.Track("Piano", program, False)
    track.notes.append(symusic.Note(0, int(samples / sample_rate * 960) + 96, key, 100))
    score.tracks.append(track)
    raw = np.asarray(synthesizer.render(score, True), dtype=np.float32)[:, :samples]
    t = np.arange(raw.shape[1], dtype=np.float32) / sample_rate
    decay_s = _at(key, DECAY_PITCHES, DECAY_S)
    envelope = PROMPT_SHARE * 10 ** (-3 * t / (PROMPT_FACTOR * decay_s))
    envelope += (1 - PROMPT_SHARE) * 10 ** (-3 * t / decay_s)
    tone = raw * envelope.astype(np.float32)
    attack = np.square(tone[:, : round(0.2 * sample_rate)]).mean()
    target_db = SLOPE_DB * (key - 21) / 87
    return tone * np.float32(0.1 * 10 ** (target_db / 20) / np.sqrt(attack + 1e-12))


def _low_pass(tone: Tone, sample_rate: int) -> Tone:
    from scipy.signal import lfilter

    pole = np.float32(np.exp(-2 * np.pi * DULL_HZ / sample_rate))
    return np.asarray(lfilter([1 - pole], np.array([1, -pole], dtype=np.float32), tone))


def _at(key: float, pitches: tuple[int, ...], values_s: tuple[float, ...]) -> float:
    return float(np.exp(np.interp(key, pitches, np.log(values_s))))
