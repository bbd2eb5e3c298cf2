"""What a model should not, or should, notice: shifts, loudness, octaves, noise, transposition.

Each condition changes one side, embeds that side again and no other, and scores it against the
unchanged other side (method §8.4–8.5).
"""

from __future__ import annotations

import abc
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from pipeline.descriptors.contract import Side
from pipeline.spectral import SAMPLE_RATE
from trainer.analyses import pictures
from trainer.analyses.bench import Bench
from trainer.analyses.contract import (
    Analysis,
    Condition,
    Finding,
    Plain,
    Table,
    Variant,
    register,
)
from trainer.analyses.floor_bench import FloorBench
from trainer.analyses.perturbations import (
    Change,
    EditNotes,
    EditSamples,
    louder,
    noisy,
    notes_changed,
    rolled,
    sound_changed,
    transposed,
    unchanged,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHIFTS = (-8000, -4000, 4000, 8000)
FACTORS = (0.5, 0.8, 1.2, 1.5)
OCTAVES = (-24, -12, 12, 24)
SNRS = (40, 30, 20, 10, 5)
SEMITONES = (-6, -3, -1, 1, 3, 6)


class Step(NamedTuple):
    """One perturbation: its family, how strong it is, whom it changes, and how."""

    family: str
    level: float
    side: Side
    edit: EditSamples | EditNotes
    shift: int = 0  # of the sound's window, in samples

    @property
    def name(self) -> str:
        """Such as ``noise in dB SNR 20``."""
        return f"{self.family} {self.level:g}"

    def change(self, bench: Bench) -> Change:
        """Of the batches that a run's encoder sees."""
        edit: Any = self.edit
        if self.side == "audio":
            return sound_changed(bench, edit, self.shift)
        return notes_changed(bench, edit)

    def embedded(self, bench: Bench | FloorBench) -> Mapping[Side, Any]:
        """Embeddings of a run, or features of a floor, under the perturbation."""
        if isinstance(bench, FloorBench):
            return bench.changed(self.side, self.edit, self.shift)
        return bench.changed(self.side, self.change(bench))


class Perturbed(Analysis):
    """An analysis made of families of perturbations.

    ``still``: per family the level at which nothing is changed, where there is one; the unchanged
    score stands there in pictures.
    """

    of_floors = True
    version = 2  # 2: a control's arrays stay what the control made them; intervals say their kind
    still: ClassVar[dict[str, float]]

    @abc.abstractmethod
    def steps(self, variant: Variant) -> Iterable[Step]:
        """The perturbations, family by family."""

    def measure(self, bench: Bench | FloorBench, variant: Variant, condition: Condition) -> Plain:
        """S under every perturbation."""
        before = condition("unchanged", lambda: bench.effect(bench.embeddings, variant))
        found: Plain = {"S": before["S"]}
        for step in self.steps(variant):
            compute = partial(self._measured, bench, step, variant)
            found[step.name] = condition(step.name, compute)["S"]
        return found

    def _measured(self, bench: Bench | FloorBench, step: Step, variant: Variant) -> Plain:
        effect = bench.effect(step.embedded(bench), variant)
        return {"family": step.family, "level": step.level, "side": step.side, **effect}

    def table(self, findings: Sequence[Finding], variant: Variant) -> Table:
        """Perturbations × runs: S and its difference."""
        names = list(dict.fromkeys(name for f in findings for name in f.conditions))
        head = ["condition"]
        for finding in findings:
            head += [f"S {finding.label}", "Δ", "from", "to"]
        head.append("drawn")
        rows: list[list[object]] = []
        for name in names:
            row: list[object] = [name]
            for finding in findings:
                c = finding.conditions[name]
                low, high = c["ci95"] or (None, None)
                bounds = [c["difference"], low, high] if name != "unchanged" else [None] * 3
                row += [c["S"], *bounds]
            kinds = {finding.conditions[name]["ci_kind"] for finding in findings}
            row.append(", ".join(sorted(kinds)) if name != "unchanged" else None)
            rows.append(row)
        return Table(head=head, rows=rows)

    def draw(self, findings: Sequence[Finding], variant: Variant, figure: Figure) -> None:
        """S over the level, a panel per family, a line per run."""
        families = list(dict.fromkeys(s.family for s in self.steps(variant)))
        panels: dict[str, dict[str, list[pictures.Point]]] = {family: {} for family in families}
        for finding in findings:
            before = finding.conditions["unchanged"]
            for name, c in finding.conditions.items():
                if name == "unchanged":
                    continue
                line = panels[c["family"]].setdefault(finding.label, [])
                line.append(pictures.point(c["level"], c, before["S"]))
            for family, at in self.still.items():
                line = panels[family].setdefault(finding.label, [])
                line.append(pictures.Point(at, before["S"], None, None))
        pictures.curves(figure, panels, pictures.with_doubt("S", findings))


@register
class Invariance(Perturbed):
    """See the module."""

    name = "invariance"
    version = 2
    title = "Invariance suite"
    question = (
        "How much does retrieval lose when one side is shifted, louder, an octave off or noisy?"
    )
    variants: ClassVar[Mapping[Variant, str]] = {
        "paper": "Sound moved within its window, silence where it came from, by ±4,000 and ±8,000 "
        "samples (±0.167 and ±0.333 s, §9.29); velocities truncated to 0 … 127; pitches clamped; "
        "white noise, seeded here. S in the paper's pools of seed 42 (§8.5).",
        "sound": "The window itself moved along the recording, so that no silence gives the shift "
        "away; velocities rounded to 1 … 127; notes beyond MIDI's range left out; the same noise. "
        "S in the strict pools, intervals of the difference on the same queries.",
    }
    still: ClassVar[dict[str, float]] = {
        "time shift of the sound in s": 0,
        "velocity times": 1,
        "octaves in semitones": 0,
    }

    def steps(self, variant: Variant) -> Iterable[Step]:
        """Time, velocity, octaves, noise."""
        paper = variant == "paper"
        for shift in SHIFTS:
            level = round(shift / SAMPLE_RATE, 4)
            # Sound that is moved to the right began later: its window begins earlier.
            edit, begins = (rolled(shift), 0) if paper else (unchanged, -shift)
            yield Step("time shift of the sound in s", level, "audio", edit, begins)
        for factor in FACTORS:
            touch = louder(factor, rounding="truncated" if paper else "rounded")
            yield Step("velocity times", factor, "midi", touch)
        for semitones in OCTAVES:
            moved = transposed(semitones, beyond="clamped" if paper else "dropped")
            yield Step("octaves in semitones", semitones, "midi", moved)
        for snr in SNRS:
            yield Step("noise in dB SNR", snr, "audio", noisy(snr))


@register
class Transposition(Perturbed):
    """See the module."""

    name = "transposition"
    title = "Transposition"
    question = "Does a model find the sound of notes that are moved by some semitones?"
    variants: ClassVar[Mapping[Variant, str]] = {
        "paper": "Pitches moved by ±1, ±3, ±6 semitones and clamped to 0 … 127; sound unchanged; S in "
        "the paper's pools of seed 42 (§8.4).",
        "sound": "The same, notes beyond MIDI's range left out and descriptors of the notes computed "
        "anew; S in the strict pools, intervals of the difference on the same queries.",
    }
    still: ClassVar[dict[str, float]] = {"semitones": 0}

    def steps(self, variant: Variant) -> Iterable[Step]:
        """Down and up."""
        for semitones in SEMITONES:
            moved = transposed(semitones, beyond="clamped" if variant == "paper" else "dropped")
            yield Step("semitones", semitones, "midi", moved)
