"""The model of a run: two encoders, two heads, the arm's mechanisms, the loss.

Shape suffixes: B batch, C pooled features, D embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from pipeline.base.config import from_plain
from pipeline.descriptors import DESCRIPTORS
from pipeline.descriptors.contract import Side
from trainer.arms import FREEZE_POLICIES, resolve
from trainer.batch import Batch
from trainer.config import AudioConfig, MidiConfig, PairConfig, RunConfig
from trainer.encoders.audio import AudioEncoder
from trainer.encoders.heads import ProjectionHead
from trainer.encoders.midi import MidiEncoder
from trainer.losses import LOSSES
from trainer.mechanisms import MECHANISMS, Mechanism
from trainer.mechanisms.contract import Host

__all__ = ["Batch", "ModuleCount", "RetrievalModel", "build_model", "parameter_inventory"]


class RetrievalModel(nn.Module):
    """Sound and notes of a segment → one 256-vector each, comparable by cosine similarity.

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

    def _mechanism(self, pair: PairConfig) -> Mechanism:
        kind, descriptor = MECHANISMS.get(pair.mechanism), DESCRIPTORS.get(pair.descriptor)
        side = kind.enters(descriptor)
        encoders: dict[Side, AudioConfig | MidiConfig] = {
            "audio": self.config.audio,
            "midi": self.config.midi,
        }
        shape = encoders[side].transformer
        host = Host(side=side, width=shape.width, heads=shape.heads, layers=shape.layers)
        options: Any = from_plain(kind.Options, pair.options, f"{pair.mechanism}.options")
        return kind(host, descriptor, self.config.mechanisms, options)

    def arm_mechanisms(self, side: Side) -> Sequence[Mechanism]:
        """The mechanisms that enter one encoder."""
        every = cast("Sequence[Mechanism]", list(self.mechanisms.values()))
        return [m for m in every if m.host.side == side]

    def reads(self) -> tuple[str, ...]:
        """Names of the store's arrays that a batch must carry; ``audio`` is the sample axis."""
        names = list(self.audio.frontend.reads)
        for mechanism in (*self.arm_mechanisms("audio"), *self.arm_mechanisms("midi")):
            names.extend(mechanism.reads())
        return tuple(dict.fromkeys(names))

    def embed_audio(self, batch: Batch) -> Tensor:
        """Embeddings of the sound: ``[B, D]``, not normalised."""
        mechanisms = self.arm_mechanisms("audio")
        pooled_BC = self.audio(batch, mechanisms)
        return _project(self.audio_head, pooled_BC, batch, mechanisms)

    def embed_midi(self, batch: Batch) -> Tensor:
        """Embeddings of the notes: ``[B, D]``, not normalised."""
        mechanisms = self.arm_mechanisms("midi")
        pooled_BC = self.midi(batch, mechanisms)
        return _project(self.midi_head, pooled_BC, batch, mechanisms)

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(audio, MIDI) embeddings, each ``[B, D]``."""
        return self.embed_audio(batch), self.embed_midi(batch)

    def training_step(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of one batch and its parts, which are detached scalars."""
        audio_BD, midi_BD = self(batch)
        loss, parts = self.loss(audio_BD, midi_BD)
        for mechanism in (*self.arm_mechanisms("audio"), *self.arm_mechanisms("midi")):
            terms = mechanism.auxiliary(batch, audio_BD, midi_BD, lambda x, y: self.loss(x, y)[0])
            for name, term in terms.items():
                loss = loss + term
                parts[name] = term.detach()
        return loss, parts


def _project(
    head: ProjectionHead, pooled_BC: Tensor, batch: Batch, mechanisms: Sequence[Mechanism]
) -> Tensor:
    def in_head(hidden_BC: Tensor, layer: int) -> Tensor:
        return reduce(lambda h, m: m.in_head(h, layer, batch), mechanisms, hidden_BC)

    return head(pooled_BC, in_head if mechanisms else None)


def build_model(config: RunConfig, device: torch.device | str = "cpu") -> RetrievalModel:
    """A freshly initialised model, the same weights on any device; ``meta`` allocates nothing.

    The process's own random state is left as it was.

    Raises
    ------
    ConfigError
        when the configuration cannot be built (see :func:`trainer.arms.resolve`).
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
