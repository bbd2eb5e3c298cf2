"""The model of a run: two encoders, two heads, the arm's mechanisms, the loss.

Shape suffixes: B batch, C pooled features, D embedding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from pipeline.base.config import from_plain
from pipeline.descriptors import DESCRIPTORS
from pipeline.descriptors.contract import Side
from trainer.batch import Batch
from trainer.config import PairConfig, RunConfig
from trainer.encoders.audio import AudioEncoder
from trainer.encoders.flow import project
from trainer.encoders.heads import ProjectionHead, widths_inside
from trainer.encoders.midi import MidiEncoder
from trainer.losses import LOSSES
from trainer.mechanisms import MECHANISMS, Mechanism
from trainer.mechanisms.contract import Host
from trainer.optim import FREEZE_POLICIES
from trainer.resolve import resolve

__all__ = ["Batch", "ModuleCount", "RetrievalModel", "build_model", "parameter_inventory"]


class RetrievalModel(nn.Module):
    """Sound and notes of a segment → one vector each, alike for mates.

    The base model is built before the mechanisms, so that arms of one seed share base weights.
    """

    def __init__(self, config: RunConfig) -> None:
        super().__init__()
        self.config = config
        self.audio = AudioEncoder(config.audio)
        self.midi = MidiEncoder(config.midi)
        self.audio_head = ProjectionHead(self.audio.width, config.head)
        self.midi_head = ProjectionHead(self.midi.width, config.head)
        self.mechanisms = nn.ModuleDict(
            {f"{p.descriptor}-{p.mechanism}": self._mechanism(p) for p in config.pairs}
        )
        kind = LOSSES.get(config.loss.name)
        self.loss = kind(from_plain(kind.Options, config.loss.options, "loss.options"))
        for path in FREEZE_POLICIES[config.freeze]:
            self.get_submodule(path).requires_grad_(False)
        self.adopt_heads()

    def adopt_heads(self) -> None:
        """Show every mechanism its side's head: when it is new, and when it was given weights."""
        heads: dict[Side, ProjectionHead] = {"audio": self.audio_head, "midi": self.midi_head}
        for mechanism in self.every_mechanism():
            mechanism.adopt(heads[mechanism.host.side])

    def _mechanism(self, pair: PairConfig) -> Mechanism:
        kind, descriptor = MECHANISMS.get(pair.mechanism), DESCRIPTORS.get(pair.descriptor)
        side = kind.enters(descriptor)
        shapes = {"audio": self.config.audio.transformer, "midi": self.config.midi.transformer}
        widths: dict[Side, int] = {"audio": self.audio.width, "midi": self.midi.width}
        shape, head = shapes[side], self.config.head
        host = Host(
            side=side,
            width=shape.width,
            heads=shape.heads,
            layers=shape.layers,
            head_widths=widths_inside(widths[side], head),
            embedding=head.embedding,
        )
        options: Any = from_plain(kind.Options, pair.options, f"{pair.mechanism}.options")
        return kind(host, descriptor, self.config.mechanisms, options)

    def every_mechanism(self) -> Sequence[Mechanism]:
        """All of the arm's mechanisms, in the order of the configuration."""
        return cast("Sequence[Mechanism]", list(self.mechanisms.values()))

    def arm_mechanisms(self, side: Side) -> Sequence[Mechanism]:
        """The mechanisms that enter one encoder."""
        return [m for m in self.every_mechanism() if m.host.side == side]

    def begin_epoch(self, epoch: int, epochs: int) -> None:
        """Before the first training step of ``epoch`` (from 1), and where a run goes on in it."""
        for mechanism in self.every_mechanism():
            mechanism.begin_epoch(epoch, epochs)

    def reads(self) -> tuple[str, ...]:
        """Names of the store's arrays that a batch must carry; ``audio`` is the sample axis."""
        names = list(self.audio.frontend.reads)
        for mechanism in self.every_mechanism():
            names.extend(mechanism.reads())
        return tuple(dict.fromkeys(names))

    def embed_audio(self, batch: Batch) -> Tensor:
        """Embeddings of the sound: ``[B, D]``, not normalised."""
        guests = self.arm_mechanisms("audio")
        return project(batch, batch.gather(self.audio(batch, guests)), self.audio_head, guests)

    def embed_midi(self, batch: Batch) -> Tensor:
        """Embeddings of the notes: ``[B, D]``, not normalised."""
        guests = self.arm_mechanisms("midi")
        return project(batch, batch.gather(self.midi(batch, guests)), self.midi_head, guests)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(audio, MIDI) embeddings, each ``[B, D]``."""
        return self.embed_audio(batch), self.embed_midi(batch)

    def training_step(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of one batch and its parts, which are detached scalars.

        Where several processes share a step, heads and loss see the batches of all of them
        (``batch.gather``), so that batch statistics and negatives are those of one process.
        """
        audio_BD, midi_BD = self(batch)
        pair, parts = self.loss(audio_BD, midi_BD)
        weights: list[float] = []
        terms: dict[str, list[Tensor]] = {}
        for mechanism in self.every_mechanism():
            weights.append(mechanism.pair_weight())
            found = mechanism.auxiliary(batch, audio_BD, midi_BD, lambda x, y: self.loss(x, y)[0])
            for name, term in found.items():
                terms.setdefault(name, []).append(term)
        added = {name: torch.stack(found).mean() for name, found in terms.items()}
        if added:
            parts["pair"] = pair.detach()
        loss = math.prod(weights) * pair + sum(added.values())
        return loss, parts | {name: term.detach() for name, term in added.items()}


def build_model(config: RunConfig, device: torch.device | str = "cpu") -> RetrievalModel:
    """A freshly initialised model, the same weights on any device; ``meta`` allocates nothing.

    The process's own random state is left as it was.

    Raises
    ------
    ConfigError
        when the configuration cannot be built (see :func:`trainer.resolve.resolve`).
    """
    config = resolve(config)
    device = torch.device(device)
    birthplace = device if device.type == "meta" else torch.device("cpu")
    with torch.random.fork_rng(devices=[]), birthplace:
        torch.random.default_generator.manual_seed(config.seed)
        model = RetrievalModel(config)
    return model.to(device)


class ModuleCount(NamedTuple):
    """Parameters below one module of the model."""

    module: str
    total: int
    trainable: int


def parameter_inventory(model: RetrievalModel) -> list[ModuleCount]:
    """One row per part of the model, the last one ``total``."""
    paths = ["audio.frontend", "audio.positions", "audio.transformer", "midi"]
    paths += ["audio_head", "midi_head", "loss"]
    paths += [f"mechanisms.{name}" for name in model.mechanisms]
    return [_count(path, model.get_submodule(path)) for path in paths] + [_count("total", model)]


def _count(name: str, module: nn.Module) -> ModuleCount:
    parameters = list(module.parameters())
    trainable = sum(p.numel() for p in parameters if p.requires_grad)
    return ModuleCount(name, sum(p.numel() for p in parameters), trainable)
