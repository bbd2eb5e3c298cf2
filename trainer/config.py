"""What a run is: one nested frozen dataclass that says everything its result depends on.

Nothing here imports torch. Every oddity of the reference is a declared value with two settings
(`architecture.md` §6); `trainer.presets` fills them in, `trainer.resolve` checks how they combine.
Device and number of threads are not part of a run's configuration: they change its speed, and the
last bits of its sums (equal bits need equal threads); `run.json` records both.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from pipeline.base.config import digest, to_plain

Preset = Literal["paper", "sound"]
Size = Literal["base", "tiny"]
Precision = Literal["fp32", "tf32", "bf16"]

PRESETS: tuple[Preset, ...] = ("paper", "sound")
SIZES: tuple[Size, ...] = ("base", "tiny")
FIXED_POOL_SEED = 42
ARM = ("pairs", "control", "seed")
"""What an arm is, and which training of it. A difference between runs is one of their arms where all
else in their configurations agrees."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """A registered thing by name, with all of its options written out."""

    name: str
    options: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class PairConfig:
    """One descriptor and the mechanism by which it enters its encoder."""

    descriptor: str
    mechanism: str
    options: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TransformerConfig:
    """A stack of encoder layers (method §4.1–4.2).

    Attributes
    ----------
    norm : ``post`` (LayerNorm after each residual sum) or ``pre``
    output_norm : one more LayerNorm after the last layer
    dropout, ffn_dropout, attention_dropout : of each residual branch's output, of the feed-forward's
        hidden layer, of attention weights (0 lets fused attention kernels run)
    layer_init : ``identical`` — PyTorch's ``TransformerEncoder`` deep-copies one layer, so all
        layers of the reference start equal (method §9.11) — or ``independent``
    """

    width: int
    heads: int
    ffn: int
    layers: int
    norm: Literal["post", "pre"]
    output_norm: bool
    dropout: float
    ffn_dropout: float
    attention_dropout: float
    layer_init: Literal["identical", "independent"]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class AudioConfig:
    """Front end, positions, Transformer, pool.

    ``positions``: ``table`` (learnable-shaped rows by token index) or ``seconds`` (projected
    sinusoids of the token's time). ``pool``: ``mean`` over tokens, or the means over equal
    parts of the segment's time (``slots``) side by side.
    """

    frontend: Choice
    positions: Choice
    transformer: TransformerConfig
    pool: Choice


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class MidiConfig:
    """Note embedding, positions, Transformer, pool.

    ``timing``: whether the note embedding also sees the duration in seconds. The reference never
    sees any time (method §9.2): ``absent`` with positions ``index``; the corrected setting is
    ``given`` with positions ``seconds``, sinusoids of the onset. ``touch``: in training all velocities
    of a segment are multiplied by a factor between 1/touch and touch, drawn anew; 1 leaves them.
    ``clock_s``: in training all onsets of a segment move by up to that many seconds, either way.
    """

    pitch_width: int
    velocity_width: int
    duration_width: int
    timing: Literal["absent", "given"]
    positions: Choice
    transformer: TransformerConfig
    pool: Choice
    touch: float = 1.0
    clock_s: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class HeadConfig:
    """Projection heads.

    Attributes
    ----------
    hidden : widths of the hidden layers. The reference has two; with few recordings to learn from
        they fit the training pairs and little else, where a linear head (none) generalises.
    embedding : length of the embedding
    slots : the pooled vector is that many parts of time, each projected by the same layers to its
        share of the embedding; 1 projects everything together, as the reference does.
    lags, lag_cost : scores compare these parts at up to so many parts' lag, at that cost of cosine a
        part (:mod:`trainer.retrieval.lags`); 0: the plain cosine. Training compares at none.
    """

    hidden: tuple[int, ...]
    embedding: int
    slots: int
    lags: int = 0
    lag_cost: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class MechanismsConfig:
    """What all mechanisms share.

    Attributes
    ----------
    key_padding : whether attention inside MIDI mechanisms hides padding notes. ``missing`` lets an
        embedding depend on its batch mates (method §9.6).
    pooled : what a mechanism that wants one vector a segment is given: the ``mean`` over time, which
        for A4 is 0 by construction (§9.3), or the descriptor's declared ``companion``.
    """

    heads: int
    dropout: float
    key_padding: Literal["missing", "present"]
    pooled: Literal["mean", "companion"]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class GroupConfig:
    """One learning rate for all parameters below some modules, named by their path in the model."""

    name: str
    modules: tuple[str, ...]
    lr: float


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class OptimizerConfig:
    """AdamW (method §6.1).

    ``decay``: ``all`` decays every parameter, norms and biases included; ``matrices`` only those
    with two or more dimensions.
    """

    groups: tuple[GroupConfig, ...]
    betas: tuple[float, ...] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float
    decay: Literal["all", "matrices"]
    clip_norm: float = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class BudgetConfig:
    """How long to train: an epoch is the first ``batches_per_epoch`` of a fresh permutation.

    ``per_recording``: what is shuffled are groups of that many segments of one recording, so that a
    batch holds what is hardest to tell apart, other moments of the same music; 1 shuffles segments.
    """

    epochs: int
    batches_per_epoch: int
    batch_size: int
    per_recording: int = 1

    @property
    def updates(self) -> int:
        """All optimiser updates of the run."""
        return self.epochs * self.batches_per_epoch


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationConfig:
    """When the validation split is scored, and which seed draws the pools of protocol ``paper``.

    ``every`` counts epochs from ``first``, or ``epochs`` lists them; the last epoch is always scored.
    ``batch_size`` is that of embedding: where ``key_padding`` is missing, a note's batch mates
    matter. ``pool_seed``:
    ``training`` (the reference: each training seed draws its own queries, method §9.17) or ``fixed``.
    ``pool_size``: candidates per query, the positive included. ``selection``: the protocol whose S on
    the validation split chooses the best step.
    """

    every: int
    first: int
    batch_size: int
    pool_seed: Literal["training", "fixed"]
    pool_size: int = 256
    selection: str = "strict"
    epochs: tuple[int, ...] = ()

    def due(self, epoch: int, epochs: int) -> bool:
        """Whether epoch ``epoch`` (1-based) of ``epochs`` ends with an evaluation."""
        regular = epoch >= self.first and (epoch - self.first) % self.every == 0
        return epoch == epochs or (epoch in self.epochs if self.epochs else regular)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """Everything a run's result depends on, besides the arrays it reads.

    ``segments``: train on ``all`` rows (the reference; an empty one gets a dummy note in the batch)
    or on ``valid`` ones only. ``divergence_factor``: the run stops when a loss exceeds this many
    times the first one. ``control``: what the arm's descriptors are replaced by, in training and in
    evaluation (:mod:`trainer.controls`); ``real`` leaves them.
    """

    preset: Preset
    size: Size
    seed: int
    pairs: tuple[PairConfig, ...]
    audio: AudioConfig
    midi: MidiConfig
    head: HeadConfig
    mechanisms: MechanismsConfig
    loss: Choice
    optimizer: OptimizerConfig
    schedule: Choice
    freeze: str
    budget: BudgetConfig
    evaluation: EvaluationConfig
    segments: Literal["all", "valid"]
    precision: Precision
    divergence_factor: float = 20.0
    control: Choice = dataclasses.field(default_factory=lambda: Choice(name="real"))

    @property
    def pool_seed(self) -> int:
        """Seed of the pools of protocol ``paper``."""
        return {"training": self.seed, "fixed": FIXED_POOL_SEED}[self.evaluation.pool_seed]


def common_settings(plain: Mapping[str, Any]) -> dict[str, Any]:
    """What must agree between arms that are compared: a plain configuration without :data:`ARM`."""
    return {key: value for key, value in plain.items() if key not in ARM}


def differing(first: Mapping[str, Any], second: Mapping[str, Any], within: str = "") -> list[str]:
    """Settings by their dotted names, as ``--set`` takes them, in which plain data differ."""
    found: list[str] = []
    for key in dict.fromkeys([*first, *second]):
        one, other = first.get(key), second.get(key)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            found += differing(one, other, f"{within}{key}.")
        elif one != other or (key in first) != (key in second):
            found.append(f"{within}{key}")
    return found


def signature(config: RunConfig, fingerprints: dict[str, str], init: str | None = None) -> str:
    """Twelve hexadecimal digits over the whole configuration and every array that the run reads.

    Parameters
    ----------
    config : the resolved configuration
    fingerprints : array name → fingerprint, plus the store's identity under ``store``
    init : signature of the run whose weights this one starts from
    """
    return digest({"config": to_plain(config), "reads": fingerprints, "init": init})
