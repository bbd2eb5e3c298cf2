"""The reference's training, written as its description reads: what the trainer is measured against.

``method.md`` §1.3–1.5 and §4 taken literally, with the libraries that the reference uses: every item
of every batch decodes and resamples its four seconds and parses its whole MIDI file, in loader
processes; descriptors are computed in the step, on the device; the model is made of torch's own
modules, eager, in float32. Nothing here is imported from ``trainer`` or ``pipeline``.

Shape suffixes: B batch, S samples, N notes, T tokens, C channels, F frames, K descriptor width.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import pretty_midi
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

RATE, SECONDS, N_FFT, HOP = 24_000, 4, 2048, 512
BANDS = [(4, 8), (8, 16), (16, 32), (32, 64), (64, 128), (128, 256), (256, 512), (512, 1025)]
Item = dict[str, Tensor]


@dataclasses.dataclass(frozen=True)
class Segment:
    """Where one pair lies: two files and a start in seconds."""

    audio: Path
    midi: Path
    start_s: float


class Segments(Dataset[Item]):
    """§1.3–1.4: nothing is remembered from one access to the next."""

    def __init__(self, segments: list[Segment]) -> None:
        self.segments = segments

    def __len__(self) -> int:
        return len(self.segments)

    def __getitem__(self, index: int) -> Item:
        s = self.segments[index]
        samples, _ = librosa.load(s.audio, sr=RATE, mono=True, offset=s.start_s, duration=SECONDS)
        samples = librosa.util.fix_length(samples, size=RATE * SECONDS)
        score = pretty_midi.PrettyMIDI(str(s.midi))
        end_s = s.start_s + SECONDS
        notes = sorted(
            (n.start, n.pitch, n.end, n.velocity)
            for i in score.instruments
            if not i.is_drum
            for n in i.notes
            if n.start < end_s and n.end > s.start_s
        ) or [(s.start_s, 60, s.start_s + 0.5, 64)]
        duration = np.array([n[2] - n[0] for n in notes])
        bucket = np.log(np.clip(duration, 0.05, 4.0) / 0.05) / math.log(80) * 31
        return {
            "audio": torch.from_numpy(samples.astype(np.float32)),
            "pitch": torch.tensor([n[1] for n in notes]),
            "velocity": torch.tensor([n[3] for n in notes]),
            "bucket": torch.from_numpy(np.clip(np.floor(bucket), 0, 31).astype(np.int64)),
        }


def collate(items: list[Item]) -> Item:
    """Pad to the longest; ``mask`` is True in padding."""
    longest = max(len(i["pitch"]) for i in items)
    batch = {"audio": torch.stack([i["audio"] for i in items])}
    for name in ("pitch", "velocity", "bucket"):
        batch[name] = torch.stack([F.pad(i[name], (0, longest - len(i[name]))) for i in items])
    lengths = torch.tensor([len(i["pitch"]) for i in items])
    batch["mask"] = torch.arange(longest)[None] >= lengths[:, None]
    return batch


def loader(segments: list[Segment], batch_size: int, workers: int, seed: int) -> Iterator[Item]:
    """§1.5: shuffled, incomplete batches dropped."""
    generator = torch.Generator().manual_seed(seed)
    return iter(
        DataLoader(
            Segments(segments),
            batch_size,
            shuffle=True,
            drop_last=True,
            num_workers=workers,
            collate_fn=collate,
            generator=generator,
            pin_memory=torch.cuda.is_available(),
        )
    )


@torch.no_grad()
def a4(audio_BS: Tensor) -> Tensor:
    """§2.1 at its own 188 frames: ``[B, F, 8]``."""
    window = torch.hann_window(N_FFT, device=audio_BS.device)
    magnitude = torch.stft(
        audio_BS, N_FFT, HOP, window=window, center=True, pad_mode="reflect", return_complex=True
    ).abs()
    log = torch.log1p(magnitude)
    bands = torch.stack([log[:, low:high].mean(dim=1) for low, high in BANDS], dim=-1)
    delta = torch.diff(bands, dim=1, prepend=bands[:, :1])
    return (delta - delta.mean(dim=1, keepdim=True)) / delta.std(dim=1, keepdim=True).clamp(1e-8)


@torch.no_grad()
def d4(pitch_BN: Tensor, mask_BN: Tensor) -> Tensor:
    """§2.7: ``[B, N, 4]``."""
    keep = ~mask_BN
    step = (pitch_BN[:, 1:] - pitch_BN[:, :-1]).float() * (keep[:, 1:] & keep[:, :-1])
    before, after = F.pad(step, (1, 0)), F.pad(step, (0, 1))
    folded = [(x / 12).clamp(-2, 2) / 2 for x in (before, after)]
    return torch.stack([before / 24, after / 24, *folded], dim=-1) * keep[..., None]


class Plain(nn.Module):
    """§4, with d0, a4r (§3 rev-A) or d4a4 (§3 concat-A and concat-M).

    Parameters
    ----------
    cnn : (channels, kernel, stride, padding) of every convolution
    widths, heads, layers : of the audio and MIDI Transformers
    hidden : width of both heads' hidden layers
    """

    def __init__(
        self, arm: str, cnn: list[list[int]], widths: tuple[int, int], heads: int, layers: int,
        hidden: int,
    ) -> None:  # fmt: skip
        super().__init__()
        audio, midi = widths
        self.arm = arm
        blocks: list[nn.Module] = []
        inputs = 1
        for channels, kernel, stride, padding in cnn:
            convolution = nn.Conv1d(inputs, channels, kernel, stride, padding)
            blocks += [convolution, nn.GroupNorm(32, channels), nn.GELU()]
            inputs = channels
        self.cnn = nn.Sequential(*blocks).requires_grad_(False)
        self.positions = nn.Parameter(0.02 * torch.randn(1, 6000, audio), requires_grad=False)
        self.audio_transformer = _stack(audio, heads, layers, norm_first=False)
        self.pitch = nn.Embedding(128, midi // 2)
        self.velocity = nn.Embedding(128, midi // 4)
        self.bucket = nn.Embedding(32, midi // 4)
        self.events = nn.Sequential(nn.Linear(midi, midi), nn.LayerNorm(midi))
        self.register_buffer("sinusoids", _sinusoids(2048, midi), persistent=False)
        self.dropout = nn.Dropout(0.1)
        self.midi_transformer = _stack(midi, heads, layers, norm_first=True)
        self.midi_norm = nn.LayerNorm(midi)
        self.audio_head, self.midi_head = _head(audio, hidden), _head(midi, hidden)
        if arm == "a4r":
            self.query = nn.Linear(8, audio)
            self.rows = nn.Parameter(0.02 * torch.randn(1, 200, audio))
            self.attention = nn.MultiheadAttention(audio, heads, dropout=0.1, batch_first=True)
            self.attention_norm = nn.LayerNorm(audio)
        if arm == "d4a4":
            self.mix_audio = nn.Sequential(nn.Linear(audio + 8, audio), nn.LayerNorm(audio))
            self.mix_midi = nn.Sequential(nn.Linear(midi + 4, midi), nn.LayerNorm(midi))

    def embed_audio(self, batch: Item) -> Tensor:
        """``[B, 256]``."""
        with torch.no_grad():
            x = self.cnn(batch["audio"][:, None]).transpose(1, 2)
        if self.arm == "d4a4":
            d = F.interpolate(a4(batch["audio"]).mT, size=x.shape[1], mode="linear").mT
            x = self.mix_audio(torch.cat([x, d], dim=-1))
        x = x + self.positions[:, : x.shape[1]]
        if self.arm == "a4r":
            d = a4(batch["audio"])
            q = self.query(d) + self.rows[:, : d.shape[1]]
            x = self.attention_norm(q + self.attention(q, x, x)[0])
        embedded: Tensor = self.audio_head(self.audio_transformer(x).mean(dim=1))
        return embedded

    def embed_midi(self, batch: Item) -> Tensor:
        """``[B, 256]``."""
        fields = [self.pitch(batch["pitch"]), self.velocity(batch["velocity"])]
        x = self.events(torch.cat([*fields, self.bucket(batch["bucket"])], dim=-1))
        if self.arm == "d4a4":
            x = self.mix_midi(torch.cat([x, d4(batch["pitch"], batch["mask"])], dim=-1))
        x = self.dropout(x + self.get_buffer("sinusoids")[: x.shape[1]])
        x = self.midi_norm(self.midi_transformer(x, src_key_padding_mask=batch["mask"]))
        keep = (~batch["mask"])[..., None].float()
        embedded: Tensor = self.midi_head((x * keep).sum(dim=1) / keep.sum(dim=1).clamp(1))
        return embedded


def training_step(model: Plain, optimizer: torch.optim.Optimizer, batch: Item) -> Tensor:
    """One update (§6.1)."""
    model.train()
    loss = vicreg(model.embed_audio(batch), model.embed_midi(batch))
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.detach()


def vicreg(x: Tensor, y: Tensor) -> Tensor:
    """§5."""
    loss = 10 * (x - y).square().mean()
    for view in (x, y):
        loss = loss + 10 * F.relu(1 - (view.var(dim=0) + 1e-4).sqrt()).mean()
        centred = view - view.mean(dim=0)
        covariance = centred.T @ centred / (len(view) - 1)
        off_diagonal = covariance - torch.diag(covariance.diagonal())
        loss = loss + off_diagonal.square().sum() / view.shape[1]
    return loss


def _stack(width: int, heads: int, layers: int, norm_first: bool) -> nn.TransformerEncoder:
    layer = nn.TransformerEncoderLayer(
        width, heads, 4 * width, 0.1, activation="gelu", batch_first=True, norm_first=norm_first
    )
    return nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)


def _head(width: int, hidden: int) -> nn.Sequential:
    parts: list[Any] = []
    for a, b in ((width, hidden), (hidden, hidden)):
        parts += [nn.Linear(a, b), nn.BatchNorm1d(b), nn.ReLU()]
    return nn.Sequential(*parts, nn.Linear(hidden, 256))


def _sinusoids(rows: int, width: int) -> Tensor:
    position = torch.arange(rows)[:, None]
    rate = torch.exp(torch.arange(0, width, 2) * (-math.log(10_000.0) / width))
    table = torch.zeros(rows, width)
    table[:, 0::2], table[:, 1::2] = torch.sin(position * rate), torch.cos(position * rate)
    return table
