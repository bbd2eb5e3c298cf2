"""A model of piano performance: written music + a performer + a seed → what the keyboard recorded.

Each :class:`Performer` has a character of its own; none imitates a person. From the score's
positions in quarters, in this order:

1. **tempo**: the score's tempo × the performer's factor × a phrase arc (faster in the middle of
   four bars, slower at their ends) × a slow random drift × a ritardando over the last two bars;
2. **timing**: noise of each beat (correlated from beat to beat, interpolated in between), a lead
   of the melody (the top voice), chords spread from the lowest note up, noise per note;
3. **articulation**: key held for a fraction of the written value, half of it under a staccato dot;
4. **loudness**: written dynamics, phrase arc, metrical accent, melody, bass, slow and quick noise;
5. **pedal**: continuous CC64, pressed after and released just after each change of bar or harmony.

Then all times are rounded to ticks, and a note ends before its pitch is struck again.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipeline.corpora.rendering import TICKS_PER_SECOND, Performance, clip_restrikes
from pipeline.corpora.scores import Excerpt

PHRASE_BARS = 4
RITARD_BARS = 2
GRACE_S = 0.07  # length of a grace note, played before the beat
SAME_STRIKE_S = 0.03  # two strikes of one key closer than this are one
SHORTEST_S = 0.04
MELODY_RANGE = 7  # semitones below the highest note within one quarter

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Performer:
    """The character of one player.

    Attributes
    ----------
    tempo
        Factor on the score's tempo.
    rubato, drift, ritard
        Depths of phrase arc, random drift (standard deviation) and final slowing, in log tempo.
    beat_noise_s, note_noise_s
        Standard deviations of the timing noise of beats and of single notes, in s.
    lead_s, spread_s
        How much earlier the melody is struck, and the time from lowest to highest note, in s.
    legato
        Fraction of the written value for which a key is held.
    base, dynamics
        Velocity of a *mf* and velocity range from *ppp* to *fff*.
    arc, accent, melody, noise
        Velocity added by the middle of a phrase, a downbeat, the top voice; standard deviation.
    pedal, pedal_share, pedal_depth
        Where the pedal changes; fraction of spans in which it is used; its usual highest value.
    year
        The year in which this player's sessions are filed.
    """

    name: str
    year: int
    tempo: float = 1.0
    rubato: float = 0.08
    drift: float = 0.03
    ritard: float = 0.35
    beat_noise_s: float = 0.010
    note_noise_s: float = 0.004
    lead_s: float = 0.015
    spread_s: float = 0.010
    legato: float = 0.92
    base: float = 64.0
    dynamics: float = 60.0
    arc: float = 8.0
    accent: float = 5.0
    melody: float = 12.0
    noise: float = 3.0
    pedal: Literal["bar", "harmony"] = "bar"
    pedal_share: float = 0.8
    pedal_depth: float = 100.0


PERFORMERS: dict[str, Performer] = {
    performer.name: performer
    for performer in (
        Performer(name="even", year=2019, rubato=0.03, drift=0.015, beat_noise_s=0.006,
                  lead_s=0.008, pedal_share=0.55, pedal_depth=84, melody=9),
        Performer(name="singing", year=2020, tempo=0.90, rubato=0.15, drift=0.05, ritard=0.55,
                  beat_noise_s=0.014, lead_s=0.028, spread_s=0.018, legato=1.02, melody=20,
                  base=60, arc=13, pedal="harmony", pedal_share=0.97, pedal_depth=116),
        Performer(name="brisk", year=2021, tempo=1.13, rubato=0.05, drift=0.02, ritard=0.2,
                  lead_s=0.010, spread_s=0.005, legato=0.72, base=73, accent=10, noise=4,
                  pedal_share=0.35, pedal_depth=76),
        Performer(name="free", year=2022, tempo=0.97, rubato=0.20, drift=0.08, ritard=0.6,
                  beat_noise_s=0.020, note_noise_s=0.007, lead_s=0.022, spread_s=0.034, legato=0.96,
                  dynamics=80, arc=16, noise=6, pedal="harmony", pedal_share=0.85),
        Performer(name="quiet", year=2023, tempo=1.04, rubato=0.10, drift=0.03, note_noise_s=0.005,
                  legato=0.85, base=47, dynamics=40, melody=15, accent=3, pedal_share=0.9,
                  pedal_depth=92),
    )
}  # fmt: skip


def perform(
    excerpt: Excerpt, performer: Performer, quarters_per_minute: float, rng: np.random.Generator
) -> Performance:
    """Play ``excerpt`` once: a function of the arguments and the generator's state alone."""
    notes = sorted(excerpt.notes, key=lambda n: (n.onset, n.grace == 0, -n.grace, n.pitch))
    onset_q = np.array([n.onset for n in notes])
    end_q = np.array([n.onset + n.duration for n in notes])
    pitch = np.array([n.pitch for n in notes], dtype=np.int64)
    grace = np.array([n.grace for n in notes], dtype=np.float64)
    rank, top, bottom = _places_in_chord(onset_q, pitch, grace)

    grid_q, grid_s = _clock(excerpt, performer, quarters_per_minute, rng)
    on_beat_s = np.interp(onset_q, grid_q, grid_s)
    onset_s = on_beat_s + performer.spread_s * rank - performer.lead_s * top - GRACE_S * grace
    onset_s += _noise(rng, len(notes), performer.note_noise_s)

    held = performer.legato * np.exp(_noise(rng, len(notes), 0.05))
    held *= np.where([n.staccato for n in notes], 0.5, 1.0)
    written_s = np.interp(end_q, grid_q, grid_s) - on_beat_s
    length_s = np.where(grace > 0, GRACE_S, np.maximum(written_s * held, SHORTEST_S))

    level = np.array([n.level for n in notes])
    velocity = _loudness(excerpt, performer, onset_q, level, top, bottom, grace, rng)
    pedal_s, pedal_value = _pedal(excerpt, performer, grid_q, grid_s, rng)

    lead_in_s = rng.uniform(0.5, 1.2) - onset_s.min()
    return _keyboard(
        onset_s + lead_in_s, length_s, pitch, velocity, pedal_s + lead_in_s, pedal_value
    )


def _clock(
    excerpt: Excerpt, performer: Performer, quarters_per_minute: float, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Positions in quarters (every eighth of one) and their times in seconds."""
    bars = np.array([*excerpt.bars, excerpt.length])
    grid = np.arange(0, excerpt.length + 8, 0.125)
    log_tempo = np.full(len(grid), np.log(quarters_per_minute * performer.tempo))
    log_tempo += performer.rubato * (_phrase_arc(grid, excerpt) - 2 / np.pi)
    log_tempo += np.interp(grid, bars, _wander(rng, len(bars), performer.drift, 0.7))
    ritard_from = bars[max(0, len(bars) - 1 - RITARD_BARS)]
    progress = np.clip((grid - ritard_from) / (excerpt.length - ritard_from), 0, 1)
    log_tempo -= performer.ritard * progress**2
    seconds = np.concatenate([[0.0], np.cumsum(0.125 * 60 / np.exp(log_tempo))[:-1]])
    beats = np.arange(0, grid[-1] + 1)
    return grid, seconds + np.interp(
        grid, beats, _wander(rng, len(beats), performer.beat_noise_s, 0.4)
    )


def _loudness(
    excerpt: Excerpt,
    performer: Performer,
    onset_q: Array,
    level: Array,
    top: Array,
    bottom: Array,
    grace: Array,
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """MIDI velocities, 12–120."""
    bars = np.array(excerpt.bars)
    bar = np.clip(np.searchsorted(bars, onset_q + 1e-6, side="right") - 1, 0, None)
    in_bar = onset_q - bars[bar]
    strength = np.where(in_bar < 1e-3, 1.0, np.where(np.abs(in_bar % 1) < 1e-3, 0.4, 0.0))
    velocity = performer.base + performer.dynamics * (level - 0.55)
    velocity += performer.arc * (_phrase_arc(onset_q, excerpt) - 2 / np.pi)
    velocity += performer.accent * strength
    velocity += performer.melody * top + performer.melody / 4 * bottom
    velocity -= 10.0 * (grace > 0)
    velocity += _wander(rng, len(bars), performer.noise, 0.6)[bar]
    velocity += _noise(rng, len(onset_q), performer.noise)
    return np.clip(np.round(velocity), 12, 120).astype(np.int64)


def _pedal(
    excerpt: Excerpt,
    performer: Performer,
    grid_q: Array,
    grid_s: Array,
    rng: np.random.Generator,
) -> tuple[Array, Array]:
    """CC64 events: times in s and values; legato pedalling, so each release follows a change."""
    changes = _harmony_changes(excerpt) if performer.pedal == "harmony" else list(excerpt.bars)
    edges = np.interp([*changes, excerpt.length + 0.5], grid_q, grid_s)
    times, values = [0.0], [0.0]
    for start, end in pairwise(edges.tolist()):
        used = rng.random() < performer.pedal_share
        depth = np.clip(performer.pedal_depth + _noise(rng, 1, 12.0)[0], 30, 127)
        press = start + rng.uniform(0.10, 0.18)
        release = end + rng.uniform(0.0, 0.04)
        if not used or release - press < 0.15:
            continue
        middle = press + 0.5 * (release - press)
        times += [press, press + 0.02, press + 0.04, middle]
        times += [release, release + 0.02, release + 0.04]
        values += [depth * share for share in (0.35, 0.75, 1.0, 0.94, 0.55, 0.2, 0.0)]
    return np.array(times), np.array(values)


def _harmony_changes(excerpt: Excerpt) -> list[float]:
    """Beats at which less than half of the pitch classes stay, at least one quarter apart."""
    bars = [*excerpt.bars, excerpt.length]
    beats = np.concatenate([np.arange(a, b, 1.0) for a, b in pairwise(bars)])
    onset = np.array([n.onset for n in excerpt.notes])
    end = np.array([n.onset + n.duration for n in excerpt.notes])
    pitch_class = np.array([n.pitch % 12 for n in excerpt.notes])
    changes: list[float] = []
    before: set[int] = set()
    for beat in beats.tolist():
        now = set(pitch_class[(onset < beat + 1) & (end > beat)].tolist())
        changed = len(now & before) < 0.5 * len(now | before)
        if changed and (not changes or beat - changes[-1] >= 1):
            changes.append(beat)
            before = now
    return changes


def _keyboard(
    onset_s: Array,
    length_s: Array,
    pitch: NDArray[np.int64],
    velocity: NDArray[np.int64],
    pedal_s: Array,
    pedal_value: Array,
) -> Performance:
    """Round to ticks, merge double strikes of one key, end notes before a restrike."""
    onset = _ticks(onset_s)
    end = np.maximum(_ticks(onset_s + length_s), onset + 2)
    order = np.lexsort((onset, pitch))
    close = np.diff(onset[order]) < SAME_STRIKE_S * TICKS_PER_SECOND
    keep = np.concatenate([[True], ~(close & (np.diff(pitch[order]) == 0))])
    order = order[keep]
    order = order[np.lexsort((pitch[order], onset[order]))]
    onset, end, pitch, velocity = onset[order], end[order], pitch[order], velocity[order]

    time, value = _ticks(pedal_s), np.round(pedal_value).astype(np.int64)
    by_time = np.argsort(time, kind="stable")
    time, value = time[by_time], value[by_time]
    last_of_tick = np.append(np.diff(time) > 0, True)
    return Performance(
        onset=onset,
        end=clip_restrikes(onset, end, pitch),
        pitch=pitch,
        velocity=velocity,
        pedal_time=time[last_of_tick],
        pedal_value=value[last_of_tick],
    )


def _places_in_chord(
    onset_q: Array, pitch: NDArray[np.int64], grace: Array
) -> tuple[Array, Array, Array]:
    """Per note: rank 0–1 from the lowest note struck together, carries the melody, is the bass.

    The highest note struck carries the melody unless it lies far below what is played around it
    (the inner notes of an arpeggio are no melody).
    """
    rank, top, bottom = np.zeros((3, len(pitch)))
    starts = np.flatnonzero(np.diff(onset_q, prepend=-1) + np.abs(np.diff(grace, prepend=-1)))
    for members in np.split(np.arange(len(pitch)), starts[1:]):
        by_pitch = members[np.argsort(pitch[members])]
        around = slice(*np.searchsorted(onset_q, onset_q[members[0]] + np.array([-1.0, 1.001])))
        if len(by_pitch) > 1:
            rank[by_pitch] = np.linspace(0, 1, len(by_pitch))
            bottom[by_pitch[0]] = 1
        top[by_pitch[-1]] = pitch[by_pitch[-1]] >= pitch[around].max() - MELODY_RANGE
    return rank, top, bottom


def _phrase_arc(position_q: Array, excerpt: Excerpt) -> Array:
    """A half sine over every four bars: 0 at the ends of a phrase, 1 in the middle (mean 2/π)."""
    edges = np.array([*excerpt.bars[::PHRASE_BARS], excerpt.length])
    phrase = np.clip(np.searchsorted(edges, position_q, side="right") - 1, 0, len(edges) - 2)
    x = (position_q - edges[phrase]) / (edges[phrase + 1] - edges[phrase])
    return np.asarray(np.sin(np.pi * np.clip(x, 0, 1)))


def _wander(rng: np.random.Generator, n: int, deviation: float, memory: float) -> Array:
    """Correlated noise (first-order autoregression) of the given standard deviation."""
    out = _noise(rng, n, deviation)
    for i in range(1, n):
        out[i] = memory * out[i - 1] + np.sqrt(1 - memory**2) * out[i]
    return out


def _noise(rng: np.random.Generator, n: int, deviation: float) -> Array:
    """Gaussian noise cut at 2.5 deviations: no outlier may reorder beats."""
    return deviation * np.clip(rng.standard_normal(n), -2.5, 2.5)


def _ticks(seconds: Array) -> NDArray[np.int64]:
    return np.maximum(np.round(seconds * TICKS_PER_SECOND), 0).astype(np.int64)
