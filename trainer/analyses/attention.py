"""Attention maps: where the queries of an attention mechanism look.

For ``xattn`` and ``reverse_xattn`` the weights of the mechanism's own attention, averaged over heads;
for ``attn_bias`` the bias that it adds to the scores of every layer. Both axes have times (descriptor
frames, tokens, note onsets), so a map can be summed up by how far from its own time a query looks:

entropy
    of a query's weights over the logarithm of the number of keys: 1 looks everywhere, 0 at one key.
distance
    weighted mean of |time of the query − time of the key|, seconds; beside it that of uniform weights.
near
    weight on keys within 0.1 s of the query; beside it that of uniform weights.

The reference shows no such maps; there is one variant.

Shape suffixes: B batch, H heads, T queries, U keys.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from trainer.analyses import pictures
from trainer.analyses.bench import Bench
from trainer.analyses.contract import (
    Analysis,
    AnalysisError,
    Condition,
    Finding,
    Plain,
    Table,
    Variant,
    register,
)
from trainer.attention import Attention, ScoreBias
from trainer.batch import Batch, Tokens, frame_times
from trainer.devices import matmul_precision
from trainer.encoders.flow import Onlooker
from trainer.mechanisms import Mechanism
from trainer.retrieval.intervals import resampled_means, units_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SEGMENTS = 256
LEAST = 4
NEAR_S = 0.1
SHOWN = 48  # rows and columns of the map that is kept

MEASURES = ("entropy", "distance", "distance of uniform", "near", "near of uniform")


@register
class AttentionMaps(Analysis):
    """See the module."""

    name = "attention"
    title = "Attention maps"
    question = "Where do the queries of an attention mechanism look?"
    variants: ClassVar[Mapping[Variant, str]] = {
        "sound": "Valid segments that do not overlap, weights averaged over heads; padding is never "
        "looked at where the model hides it; 95 % intervals by recordings (below 20 of them: 10-s "
        "blocks, which is too narrow). The reference shows none.",
    }

    def measure(self, bench: Bench, variant: Variant, condition: Condition) -> Plain:
        """One condition per attention mechanism."""
        everyone = zip(bench.model.mechanisms, bench.model.every_mechanism(), strict=True)
        chosen = {n: m for n, m in everyone if m.slot in ("sequence", "scores")}
        if not chosen:
            raise AnalysisError(
                f"the arm {bench.run.record['arm']} has no attention mechanism", kind="inapplicable"
            )
        rows = bench.apart(LEAST, SEGMENTS, "an attention map")
        found: Plain = {}
        for pair, mechanism in chosen.items():
            name = f"{pair} on {mechanism.host.side}"
            c = condition(name, partial(attention_of, bench, mechanism, rows))
            found[name] = c.get("distance")
        return found

    def table(self, findings: Sequence[Finding], variant: Variant) -> Table:
        """Mechanisms × measures."""
        rows: list[list[object]] = []
        for finding in findings:
            for name, c in finding.conditions.items():
                entropy, distance, *others = (c["measures"].get(m) for m in MEASURES)
                low, high = c.get("ci95") or (None, None)
                row = [f"{finding.label}: {name}", entropy, distance, low, high]
                rows.append([*row, None if low is None else c["ci_kind"], *others])
        head = (
            "mechanism, entropy, distance in s, from, to, drawn, of uniform, within 0.1 s, "
            "of uniform"
        )
        return Table(head=head.split(", "), rows=rows)

    def draw(self, findings: Sequence[Finding], variant: Variant, figure: Figure) -> None:
        """One map per mechanism: a busy segment's weights."""
        maps = [(f"{f.label}: {n}", c) for f in findings for n, c in f.conditions.items()]
        columns = min(2, len(maps))
        rows = math.ceil(len(maps) / columns)
        figure.set_size_inches(4.4 * columns, 3.4 * rows, forward=False)
        panels = figure.subplots(rows, columns, squeeze=False)
        for axes in panels.flat[len(maps) :]:
            axes.set_visible(False)
        for axes, (title, c) in zip(panels.flat, maps, strict=False):
            shown = np.array(c["map"])
            limit = float(np.abs(shown).max()) or 1.0
            low = -limit if c["kind"] == "bias" else 0.0
            colours = "RdBu_r" if c["kind"] == "bias" else "YlGnBu"
            (t0, t1), (u0, u1) = c["query_times"], c["key_times"]
            image = axes.imshow(
                shown, cmap=colours, vmin=low, vmax=limit, aspect="auto", origin="lower",
                extent=(u0, u1, t0, t1), interpolation="nearest",
            )  # fmt: skip
            figure.colorbar(image, ax=axes, shrink=0.8).ax.tick_params(labelsize=7)
            axes.set_title(f"{title} ({c['kind']}), segment {c['segment']}", fontsize=8)
            axes.set_xlabel("time of the key in s", fontsize=8)
            axes.set_ylabel("time of the query in s", fontsize=8)
            pictures.quiet(axes, grid=None)


class Listener(Onlooker):
    """Remembers the sequence before any mechanism replaces it, and what the layers run on.

    It must be the first guest; ``sequence`` is what it finds before, ``layers`` what it finds there.
    """

    sequence: Tokens
    layers: Tokens

    def on_sequence(
        self, tokens: Tokens, batch: Batch, positions: Callable[[Tokens], Tokens]
    ) -> Tokens:
        """Remember."""
        self.sequence = tokens
        return tokens

    def score_bias(self, tokens: Tokens, batch: Batch) -> ScoreBias | None:
        """Remember."""
        self.layers = tokens
        return None


class Look:
    """Weights (or bias) of one mechanism on one batch, with the times of queries and keys."""

    @torch.no_grad()
    def __init__(self, bench: Bench, mechanism: Mechanism, batch: Batch) -> None:
        listener = Listener()
        side = mechanism.host.side
        encoder = {"audio": bench.model.audio, "midi": bench.model.midi}[side]
        guests = bench.model.arm_mechanisms(side)
        caught: list[Any] = []
        handles = [
            module.register_forward_pre_hook(lambda m, args: caught.append((m, args)))
            for module in mechanism.modules()
            if isinstance(module, Attention)
        ]
        try:
            with matmul_precision(bench.run.config.precision):
                encoder(batch, [listener, *guests])
        finally:
            for handle in handles:
                handle.remove()
        own = self._own_times(mechanism, batch)
        self.key_padding: Tensor | None
        if mechanism.slot == "scores":
            self.kind = "bias"
            bias = mechanism.score_bias(listener.layers, batch)
            assert bias is not None
            self.weights_BTU = bias.dense().mean(dim=1)
            self.query_BT = self.key_BU = listener.layers.time_BT
            self.key_padding = self.query_padding = listener.layers.padding_BT
            return
        self.kind = "weights"
        module, args = caught[0]
        self.weights_BTU = module.weights(*args).mean(dim=1)
        tokens, padding = listener.sequence.time_BT, listener.sequence.padding_BT
        notes = batch.padding_BN if mechanism.descriptor.axis == "note" else None
        if mechanism.replaces:
            self.query_BT, self.key_BU = own, tokens
            self.query_padding, self.key_padding = notes, padding
        else:
            self.query_BT, self.key_BU = tokens, own
            self.query_padding, self.key_padding = padding, notes

    @staticmethod
    def _own_times(mechanism: Mechanism, batch: Batch) -> Tensor:
        if mechanism.descriptor.axis == "note":
            return batch.onset_BN
        values = mechanism.values(batch)
        return frame_times(values.shape[1], values)

    def one(self, row: int) -> tuple[Tensor, Tensor, Tensor]:
        """(weights [T, U], query times [T], key times [U]) of one segment without padding."""
        query, key = (x[row if len(x) > 1 else 0] for x in (self.query_BT, self.key_BU))
        weights = self.weights_BTU[row]
        if self.query_padding is not None:
            keep = ~self.query_padding[row]
            weights, query = weights[keep], query[keep]
        if self.key_padding is not None:
            keep = ~self.key_padding[row]
            weights, key = weights[:, keep], key[keep]
        return weights.float().cpu(), query.float().cpu(), key.float().cpu()


@torch.no_grad()
def attention_of(bench: Bench, mechanism: Mechanism, rows: np.ndarray[Any, Any]) -> Plain:
    """Measures over segments, and the map of the one with the most notes."""
    measured = []
    busiest = int(rows[np.argmax(bench.gallery.notes[rows])])
    kept: Plain = {}
    for at in range(0, len(rows), 16):
        chosen = rows[at : at + 16]
        look = Look(bench, mechanism, bench.resident.batch(chosen))
        for i, row in enumerate(chosen):
            weights, query, key = look.one(i)
            measured.append(measures(weights, query, key))
            if row == busiest:
                kept = {
                    "kind": look.kind,
                    "segment": int(bench.gallery.segment[row]),
                    "map": np.round(coarse(weights).double().numpy(), 5).tolist(),
                    "query_times": [float(query.min()), float(query.max())],
                    "key_times": [float(key.min()), float(key.max())],
                }
    values = np.array(measured)
    broken = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(broken):
        raise AnalysisError(
            f"attention weights of {len(broken)} of {len(rows)} segments hold NaN or infinity (the "
            f"first is row {rows[broken[0]]} of the {bench.split} split); the model diverged or the "
            "features are damaged",
            kind="not-finite",
        )
    if kept["kind"] == "bias":  # not a distribution: only the map means something
        return {**kept, "measures": {}, "distance": None, "segments": len(rows)}
    units, kind = units_of(bench.gallery.recording[rows], bench.gallery.start_s[rows])
    interval = None
    if units.max() >= 1:
        low, high = np.quantile(resampled_means(values[:, 1:2], units)[:, 0], [0.025, 0.975])
        interval = [float(low), float(high)]
    mean = values.mean(axis=0)
    return {
        **kept,
        "measures": dict(zip(MEASURES, map(float, mean), strict=True)),
        "distance": float(mean[1]),
        "ci95": interval,
        "ci_kind": kind,
        "segments": len(rows),
    }


def measures(weights_TU: Tensor, query_T: Tensor, key_U: Tensor) -> list[float]:
    """Entropy, distance, near (see the module), the last two also of uniform weights."""
    n_keys = weights_TU.shape[1]
    entropy = -(weights_TU * weights_TU.clamp(min=1e-12).log()).sum(dim=1)
    apart_TU = (query_T[:, None] - key_U[None]).abs()
    near_TU = (apart_TU <= NEAR_S).float()
    return [
        float(entropy.mean()) / math.log(n_keys) if n_keys > 1 else 0.0,
        float((weights_TU * apart_TU).sum(dim=1).mean()),
        float(apart_TU.mean()),
        float((weights_TU * near_TU).sum(dim=1).mean()),
        float(near_TU.mean()),
    ]


def coarse(map_TU: Tensor) -> Tensor:
    """At most 48 × 48 cells, averaged."""
    size = (min(SHOWN, map_TU.shape[0]), min(SHOWN, map_TU.shape[1]))
    return nn.functional.adaptive_avg_pool2d(map_TU[None, None], size)[0, 0]
