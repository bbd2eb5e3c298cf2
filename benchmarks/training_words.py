"""What docs/training.md lists: mechanisms, arms and choices, from the registries themselves."""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks.cells import row
from trainer.arms import FAMILIES, LATER, SCREENING
from trainer.commands import list_arms
from trainer.encoders.frontends import FRONTENDS
from trainer.losses import LOSSES
from trainer.mechanisms import MECHANISMS
from trainer.optim import FREEZE_POLICIES
from trainer.presets import preset_config
from trainer.recipes import RECIPES
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
