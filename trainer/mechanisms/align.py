"""Bringing a descriptor to where a mechanism needs it: to every token, or to one vector a segment.

Shape suffixes: B batch, F frames, T tokens, N notes, K descriptor width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.descriptors.contract import Axis, Side
from pipeline.spectral import FRAME_S
from trainer.batch import Tokens


def to_tokens(values: Tensor, axis: Axis, tokens: Tokens, side: Side) -> Tensor:
    """A descriptor at every token: ``[B, T, K]``.

    ========= ============================== ==================================
    axis      audio tokens                   MIDI tokens
    ========= ============================== ==================================
    frame     resampled to their number      interpolated at their times
    note                                     one to one
    segment   repeated                       repeated
    ========= ============================== ==================================
    """
    n_tokens = tokens.x_BTC.shape[1]
    if axis == "segment":
        return values[:, None].expand(-1, n_tokens, -1)
    if axis == "note":
        return values
    return resample(values, n_tokens) if side == "audio" else frames_at(values, tokens.time_BT)


def resample(frames_BFK: Tensor, n_tokens: int) -> Tensor:
    """``[B, F, K]`` → ``[B, T, K]``: interpolated up (``align_corners=False``), averaged down."""
    frames_BKF = frames_BFK.transpose(1, 2)
    if n_tokens >= frames_BKF.shape[-1]:
        return F.interpolate(frames_BKF, size=n_tokens, mode="linear").transpose(1, 2)
    return F.adaptive_avg_pool1d(frames_BKF, n_tokens).transpose(1, 2)


def frames_at(frames_BFK: Tensor, time_BT: Tensor) -> Tensor:
    """Frames interpolated linearly at times in seconds (clamped to the segment): ``[B, T, K]``."""
    last = frames_BFK.shape[1] - 1
    place_BT = (time_BT / FRAME_S).clamp(0, last)
    place_BT = place_BT.expand(len(frames_BFK), -1)
    lower_BT = place_BT.floor()
    weight_BT1 = (place_BT - lower_BT)[..., None].to(frames_BFK.dtype)
    below_BT = lower_BT.long()
    low_BTK, high_BTK = (
        _rows(frames_BFK, below_BT),
        _rows(frames_BFK, (below_BT + 1).clamp(max=last)),
    )
    return torch.lerp(low_BTK, high_BTK, weight_BT1)


def notes_to_frames(notes_BNK: Tensor, padding_BN: Tensor, n_frames: int) -> Tensor:
    """Each segment's own notes, padding left out, resampled to ``[B, F, K]``.

    Linear interpolation over the note index with ``align_corners=False``, segment by segment, as
    ``F.interpolate`` does it for one segment alone.
    """
    count_B1 = (~padding_BN).sum(dim=1, keepdim=True).clamp(min=1)
    frame_F = torch.arange(n_frames, device=notes_BNK.device, dtype=torch.float32)
    place_BF = ((frame_F + 0.5) * (count_B1 / n_frames) - 0.5).clamp(min=0)
    below_BF = place_BF.floor().long().minimum(count_B1 - 1)
    weight_BF1 = (place_BF - below_BF)[..., None].clamp(max=1).to(notes_BNK.dtype)
    low_BFK = _rows(notes_BNK, below_BF)
    high_BFK = _rows(notes_BNK, (below_BF + 1).minimum(count_B1 - 1))
    return torch.lerp(low_BFK, high_BFK, weight_BF1)


def mean_over_time(values: Tensor, axis: Axis, padding_BN: Tensor) -> Tensor:
    """``[B, K]``: the mean over frames, over notes that are not padding, or the value itself."""
    if axis == "segment":
        return values
    if axis == "frame":
        return values.mean(dim=1)
    keep_BN1 = (~padding_BN)[..., None].to(values.dtype)
    return (values * keep_BN1).sum(dim=1) / keep_BN1.sum(dim=1).clamp(min=1)


def _rows(values_BFK: Tensor, index_BT: Tensor) -> Tensor:
    return values_BFK.gather(1, index_BT[..., None].expand(-1, -1, values_BFK.shape[-1]))
