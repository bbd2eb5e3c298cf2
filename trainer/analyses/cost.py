"""What an arm costs, by counting what it computes.

The arm and the arm without descriptors (``d0``) embed one segment on torch's ``meta`` device; every
attention product and every floating-point operation on the way is counted. The reference's "163 times
fewer attention operations" is (2400/188)², the ratio of one self-attention layer; it leaves out the
cross-attention that makes the short sequence. Counting that too gives 38.9, and the whole audio side,
front end and linear layers included, computes about 5.8 times fewer operations (§9.32, §10).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

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
from trainer.attention import Attention
from trainer.config import Choice, RunConfig
from trainer.estimate import meta_batch
from trainer.model import RetrievalModel, build_model
from trainer.presets import preset_config
from trainer.resolve import with_pairs

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from pipeline.store.reader import Store

SIDES = ("audio", "midi")


class AttentionCount(TorchFunctionMode):
    """Counts score entries, queries × keys of every attention product, and works them out unfused.

    Attributes
    ----------
    entries : of all products of one item, heads counted once
    largest : (queries, keys) of the largest product
    """

    def __init__(self) -> None:
        super().__init__()
        self.entries = 0
        self.largest = (0, 0)

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function is not F.scaled_dot_product_attention:
            return function(*args, **(kwargs or {}))
        q, k, v = args[:3]
        shape = (q.shape[-2], k.shape[-2])
        self.entries += shape[0] * shape[1]
        self.largest = max(self.largest, shape, key=lambda s: s[0] * s[1])
        return (q @ k.mT) @ v


def count(config: RunConfig, store: Store) -> Plain:
    """Attention entries and operations of embedding one segment with the usual number of notes.

    Returns
    -------
    per side ``{"entries", "in_mechanisms", "queries", "keys", "flops", "front_end_flops"}``: score
        entries of all attention products and of those inside mechanisms, the largest product's shape,
        floating-point operations (two per multiplication and addition) with and in the front end;
        ``parameters`` of the model.
    """
    model = build_model(config, "meta").eval()
    batch = meta_batch(model, store, 1, torch.device("cpu"))
    found: Plain = {"parameters": sum(p.numel() for p in model.parameters())}
    encoders = {"audio": model.embed_audio, "midi": model.embed_midi}
    for side in SIDES:
        inside = _Inside(model)
        with torch.no_grad(), FlopCounterMode(display=False) as flops, AttentionCount() as mode:
            inside.mode = mode
            encoders[side](batch)
        inside.remove()
        front = 0
        if side == "audio":
            with torch.no_grad(), FlopCounterMode(display=False) as counter:
                model.audio.frontend(batch)
            front = int(counter.get_total_flops())
        found[side] = {
            "entries": mode.entries,
            "in_mechanisms": inside.entries,
            "queries": mode.largest[0],
            "keys": mode.largest[1],
            "flops": int(flops.get_total_flops()),
            "front_end_flops": front,
        }
    return found


class _Inside:
    """Entries of the attention modules that belong to mechanisms."""

    def __init__(self, model: RetrievalModel) -> None:
        self.entries = self._before = 0
        self.mode: AttentionCount | None = None
        self._handles = []
        for module in model.mechanisms.modules():
            if isinstance(module, Attention):
                self._handles.append(module.register_forward_pre_hook(self._enter))
                self._handles.append(module.register_forward_hook(self._leave))

    def _enter(self, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        assert self.mode is not None
        self._before = self.mode.entries

    def _leave(self, module: nn.Module, args: tuple[Tensor, ...], out: Tensor) -> None:
        assert self.mode is not None
        self.entries += self.mode.entries - self._before

    def remove(self) -> None:
        for handle in self._handles:
            handle.remove()


@register
class Cost(Analysis):
    """See the module."""

    name = "cost"
    title = "Cost by counting"
    question = "How much less, or more, does an arm compute than the arm without descriptors?"
    variants: ClassVar[Mapping[Variant, str]] = {
        "paper": "The published reckoning: the ratio of one self-attention layer's score entries, "
        "(tokens of d0 / tokens of the arm)².",
        "sound": "Every attention score entry that is computed, the mechanism's own included, and "
        "every floating-point operation, with and without the front end.",
    }

    def measure(self, bench: Bench, variant: Variant, condition: Condition) -> Plain:
        """The run's own size, and the paper's base size."""
        config = bench.run.config
        base = with_pairs(preset_config("paper", "base"), config.pairs)
        found: Plain = {}
        for name, chosen in (("this run", config), ("paper, base", base)):
            plain = dataclasses.replace(chosen, pairs=(), control=Choice(name="real"))
            arm = condition(name, partial(count, chosen, bench.store))
            none = condition(f"{name}, d0", partial(count, plain, bench.store))
            found[name] = ratios(arm, none, variant)
        return found

    def table(self, findings: Sequence[Finding], variant: Variant) -> Table:
        """Runs × sizes."""
        rows: list[list[object]] = []
        for finding in findings:
            for name, ratio in finding.summary.items():
                arm, none = finding.conditions[name], finding.conditions[f"{name}, d0"]
                for side in SIDES:
                    a, d = arm[side], none[side]
                    row: list[object] = [f"{finding.label}, {name}", side]
                    if variant == "paper":
                        row += [d["queries"], a["queries"], ratio[side]["one layer"]]
                    else:
                        row += [d["entries"], a["entries"], a["in_mechanisms"]]
                        row += [ratio[side]["entries"], d["flops"] / 1e9, a["flops"] / 1e9]
                        row += [ratio[side]["flops"], ratio[side]["flops behind the front end"]]
                    rows.append(row)
        head = (
            "arm, side, tokens of d0, tokens of the arm, d0 / arm"
            if variant == "paper"
            else "arm, side, entries of d0, entries of the arm, of these in mechanisms, d0 / arm, "
            "GFLOP of d0, GFLOP of the arm, d0 / arm, … behind the front end"
        )
        return Table(head=head.split(", "), rows=rows)

    def draw(self, findings: Sequence[Finding], variant: Variant, figure: Figure) -> None:
        """Ratios of the audio side at the paper's base size, on a logarithmic axis."""
        keys = ["one layer"] if variant == "paper" else ["entries", "flops", BEHIND]
        axes = figure.subplots()
        figure.set_size_inches(6.2, 0.9 + 0.35 * len(findings) * len(keys), forward=False)
        names, place = [], 0
        for finding in findings:
            for key, colour in zip(keys, pictures.COLOURS, strict=False):
                value = finding.summary["paper, base"]["audio"][key]
                axes.barh(place, value, color=colour, height=0.7)
                axes.text(value * 1.05, place, f"{value:.1f} ×", va="center", fontsize=8)
                names.append(f"{finding.label}: {key}")
                place += 1
        axes.set_yticks(range(place), names)
        axes.invert_yaxis()
        axes.set_xscale("log")
        axes.set_xlim(0.5, 400)
        axes.axvline(1, color=pictures.INK, lw=0.8)
        axes.set_xlabel("d0 / arm, audio side, paper preset at base size", fontsize=8)
        pictures.quiet(axes, grid="x")


BEHIND = "flops behind the front end"


def ratios(arm: Plain, none: Plain, variant: Variant) -> Plain:
    """How many times more the arm without descriptors computes, side by side."""
    found: Plain = {}
    for side in SIDES:
        a, d = cast("Plain", arm[side]), cast("Plain", none[side])
        if variant == "paper":
            # The largest product's queries are the tokens that the Transformer runs on.
            found[side] = {"one layer": (d["queries"] / a["queries"]) ** 2}
            continue
        found[side] = {
            "entries": d["entries"] / a["entries"],
            "flops": d["flops"] / a["flops"],
            BEHIND: (d["flops"] - d["front_end_flops"]) / (a["flops"] - a["front_end_flops"]),
        }
    return found
