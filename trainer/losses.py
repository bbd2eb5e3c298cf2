"""What pulls the two embeddings of a segment together. Always float32, whatever the model's precision.

Shape suffixes: B batch, D embedding.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.base.registry import Registry
from trainer.devices import no_autocast


class PairLoss(nn.Module):
    """Base: ``PairLoss(options)``; called on two ``[B, D]`` views, returns (loss, its parts)."""

    Options: ClassVar[type]

    def __init__(self, options: Any) -> None:
        super().__init__()

    def forward(self, audio_BD: Tensor, midi_BD: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The scalar to minimise and detached scalars for the log."""
        with no_autocast(audio_BD.device):
            return self.compute(audio_BD.float(), midi_BD.float())

    def compute(self, audio_BD: Tensor, midi_BD: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The same, on float32 views."""
        raise TypeError(f"{type(self).__name__} does not define compute()")


LOSSES: Registry[type[PairLoss]] = Registry("loss")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class VicregOptions:
    """Weights of the three terms, the hinge's target and the variance floor (method §5)."""

    invariance: float = 10.0
    variance: float = 10.0
    covariance: float = 1.0
    target_std: float = 1.0
    eps: float = 1e-4


@LOSSES.register("vicreg")
class Vicreg(PairLoss):
    """VICReg as the reference computes it (method §5), on un-normalised embeddings."""

    Options = VicregOptions

    def __init__(self, options: VicregOptions) -> None:
        super().__init__(options)
        self.options = options

    def compute(self, audio_BD: Tensor, midi_BD: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """10 · invariance + 10 · variance + covariance; invariance is a mean over all B·D."""
        o = self.options
        views = (audio_BD, midi_BD)
        invariance = F.mse_loss(audio_BD, midi_BD)
        variance = torch.stack([self._hinge(x) for x in views]).sum()
        covariance = torch.stack([_off_diagonal(x) for x in views]).sum()
        loss = o.invariance * invariance + o.variance * variance + o.covariance * covariance
        parts = {"invariance": invariance, "variance": variance, "covariance": covariance}
        return loss, {name: part.detach() for name, part in parts.items()}

    def _hinge(self, x_BD: Tensor) -> Tensor:
        std_D = (x_BD.var(dim=0) + self.options.eps).sqrt()
        return F.relu(self.options.target_std - std_D).mean()


def _off_diagonal(x_BD: Tensor) -> Tensor:
    batch, width = x_BD.shape
    centred_BD = x_BD - x_BD.mean(dim=0)
    covariance_DD = centred_BD.T @ centred_BD / (batch - 1)
    squares = covariance_DD.square()
    return (squares.sum() - squares.diagonal().sum()) / width


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class InfonceOptions:
    """Softmax temperature, whether it is learnt, and the lowest it may become."""

    temperature: float = 0.07
    learnable: bool = True
    lowest: float = 0.01


@LOSSES.register("infonce")
class Infonce(PairLoss):
    """Symmetric InfoNCE: cross-entropy of cosine similarity / temperature, both directions averaged.

    The other segments of the batch are the negatives.
    """

    Options = InfonceOptions

    def __init__(self, options: InfonceOptions) -> None:
        super().__init__(options)
        self.highest = math.log(1 / options.lowest)
        start = torch.tensor(math.log(1 / options.temperature), dtype=torch.float32)
        self.log_scale = nn.Parameter(start, requires_grad=options.learnable)

    def compute(self, audio_BD: Tensor, midi_BD: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean of audio → MIDI and MIDI → audio cross-entropy."""
        scale = self.log_scale.clamp(max=self.highest).exp()
        score_BB = scale * F.normalize(audio_BD, dim=1) @ F.normalize(midi_BD, dim=1).T
        own_B = torch.arange(len(score_BB), device=score_BB.device)
        loss = 0.5 * (F.cross_entropy(score_BB, own_B) + F.cross_entropy(score_BB.T, own_B))
        return loss, {"temperature": (1 / scale).detach()}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class SiglipOptions:
    """Scale and bias of the logits at the start; both are learnt."""

    scale: float = 10.0
    bias: float = -10.0


@LOSSES.register("siglip")
class Siglip(PairLoss):
    """Sigmoid loss: every pair of the batch is a question of its own, mates or not.

    ``-Σ_ij log σ(z_ij (scale · cos(a_i, m_j) + bias)) / B`` with z = 1 for mates and -1 otherwise
    (Zhai et al., "Sigmoid loss for language image pre-training", 2023).
    """

    Options = SiglipOptions

    def __init__(self, options: SiglipOptions) -> None:
        super().__init__(options)
        self.log_scale = nn.Parameter(torch.tensor(math.log(options.scale)))
        self.bias = nn.Parameter(torch.tensor(options.bias))

    def compute(self, audio_BD: Tensor, midi_BD: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean over the batch of the summed log losses."""
        cosine_BB = F.normalize(audio_BD, dim=1) @ F.normalize(midi_BD, dim=1).T
        logit_BB = self.log_scale.exp() * cosine_BB + self.bias
        mates_BB = 2 * torch.eye(len(logit_BB), device=logit_BB.device) - 1
        loss = -F.logsigmoid(mates_BB * logit_BB).sum(dim=1).mean()
        parts = {"scale": self.log_scale.exp(), "bias": self.bias}
        return loss, {name: part.detach() for name, part in parts.items()}
