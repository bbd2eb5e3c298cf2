"""Embeddings of a whole split.

Shape suffixes: B batch, D embedding.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from trainer.cache import ResidentStore
from trainer.devices import autocast, matmul_precision
from trainer.model import RetrievalModel

FloatArray = npt.NDArray[np.float32]


@torch.no_grad()
def embed_split(
    model: RetrievalModel, resident: ResidentStore, batch_size: int | None = None
) -> tuple[FloatArray, FloatArray]:
    """Embed every resident segment, in order, in evaluation mode.

    Parameters
    ----------
    model : left in the mode in which it came
    resident : the split; row i of the result is segment ``resident.rows[i]`` of the store
    batch_size : default: the run's own ``evaluation.batch_size``

    Returns
    -------
    (audio, midi) : float32 [segments, 256] each, not normalised
    """
    batch_size = batch_size or model.config.evaluation.batch_size
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    audio, midi = [], []
    try:
        with matmul_precision(model.config.precision), autocast(model.config.precision, device):
            for start in range(0, len(resident), batch_size):
                stop = min(start + batch_size, len(resident))
                audio_BD, midi_BD = model(resident.batch(np.arange(start, stop)))
                audio.append(audio_BD.float())
                midi.append(midi_BD.float())
    finally:
        model.train(was_training)
    return torch.cat(audio).cpu().numpy(), torch.cat(midi).cpu().numpy()
