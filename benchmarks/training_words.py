"""What docs/training.md lists: mechanisms, arms and what they cost, choices; from the registries."""

from __future__ import annotations

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import numpy as np

from benchmarks.cells import row
from pipeline.info import MEAN_NOTES_PER_SEGMENT
from trainer.analyses.cost import BEHIND, count, ratios
from trainer.arms import ARMS, FAMILIES, LATER, SCREENING
from trainer.commands import list_arms
from trainer.encoders.frontends import FRONTENDS
from trainer.losses import LOSSES
from trainer.mechanisms import MECHANISMS
from trainer.optim import FREEZE_POLICIES
from trainer.presets import preset_config
from trainer.recipes import RECIPES
from trainer.resolve import with_pairs
from trainer.schedules import SCHEDULES


def mechanisms() -> str:
    """Every mechanism: what it does, where, with what."""
    lines = ["| mechanism | slot | on audio | on MIDI | what it does |", "|---|---|---|---|---|"]
    for name, kind in MECHANISMS.items():
        takes = [", ".join(kind.axes.get(side, ())) or "—" for side in ("audio", "midi")]
        lines.append(row(f"`{name}`", kind.slot, *takes, kind.summary))
    return "\n".join(lines)


def arms() -> str:
    """Every named arm with its parameters."""
    phases = {"screening": SCREENING, "families": FAMILIES, "later": LATER}
    counted = {found["name"]: found for found in list_arms()[0]}
    lines = ["| arm | phase | pairs | parameters | trainable |", "|---|---|---|---|---|"]
    for phase, named in phases.items():
        for name in named:
            found = counted[name]
            pairs = [f"{p['descriptor']} {p['mechanism']}" for p in found["pairs"]]
            counts = (f"{found[k]:,}" for k in ("parameters", "trainable"))
            lines.append(row(f"`{name}`", phase, " + ".join(pairs) or "none", *counts))
    return "\n".join(lines)


def costs() -> str:
    """What every named arm computes for one segment, counted, beside the arm without descriptors."""
    usual: Any = SimpleNamespace(
        segments=SimpleNamespace(note_count=np.array([MEAN_NOTES_PER_SEGMENT]))
    )
    paper = preset_config("paper", "base")
    counted = {arm: count(with_pairs(paper, pairs), usual) for arm, pairs in ARMS.items()}
    none = counted["d0"]
    head = (
        "arm, audio tokens, one layer (published), all attention, GFLOP, all operations, behind the "
        "front end, MIDI: all attention, all operations"
    )
    lines = [row(*head.split(", ")), "|---" + "|--:" * head.count(", ") + "|"]
    for arm, found in counted.items():
        one, every = (ratios(found, none, variant) for variant in ("paper", "sound"))
        audio, midi = every["audio"], every["midi"]
        times = [audio["entries"], audio["flops"], audio[BEHIND], midi["entries"], midi["flops"]]
        published, attention, *others = (f"{x:.3g} ×" for x in (one["audio"]["one layer"], *times))
        lines.append(
            row(
                f"`{arm}`",
                f"{found['audio']['queries']:,}",
                published,
                attention,
                f"{found['audio']['flops'] / 1e9:.0f}",
                *others,
            )
        )
    notes = f"{none['midi']['queries']} notes, {MEAN_NOTES_PER_SEGMENT} of them no padding"
    return "\n".join(
        [
            *lines,
            "",
            f"Of embedding one segment of four seconds ({notes}), counted on a model without memory; "
            "terms of the loss alone, as third towers, are not in it.",
        ]
    )


def choices() -> str:
    """What else is chosen by name, and what the presets choose."""
    presets = [preset_config(preset, "base") for preset in ("paper", "sound")]
    rows: dict[str, tuple[Iterable[str], list[str]]] = {
        "front end, `--frontend`": (FRONTENDS.names(), [p.audio.frontend.name for p in presets]),
        "loss, `--loss`": (LOSSES.names(), [p.loss.name for p in presets]),
        "schedule, `--schedule`": (SCHEDULES.names(), [p.schedule.name for p in presets]),
        "frozen parts, `--freeze`": (FREEZE_POLICIES, [p.freeze for p in presets]),
        "recipe, `--recipe`": (RECIPES, ["—", "—"]),
        "MIDI positions": (("index", "seconds"), [p.midi.positions.name for p in presets]),
        "durations in seconds": (("absent", "given"), [p.midi.timing for p in presets]),
        "padding in MIDI mechanisms": (
            ("missing", "present"), [p.mechanisms.key_padding for p in presets],
        ),
        "layers at the start": (
            ("identical", "independent"), [p.midi.transformer.layer_init for p in presets],
        ),
        "what pooled mechanisms see": (
            ("mean", "companion"), [p.mechanisms.pooled for p in presets],
        ),
        "trained on": (("all", "valid"), [p.segments for p in presets]),
    }  # fmt: skip
    lines = ["| what | choices | `paper` | `sound` |", "|---|---|---|---|"]
    for what, (known, chosen) in rows.items():
        lines.append(row(what, ", ".join(f"`{k}`" for k in known), *(f"{c}" for c in chosen)))
    return "\n".join(lines)
