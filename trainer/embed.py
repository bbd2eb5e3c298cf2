"""Embeddings of a whole split, or of one side of it; what is not finite goes no further.

Shape suffixes: B batch, D embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.descriptors.contract import Side
from trainer.batch import Batch
from trainer.cache import ResidentStore
from trainer.devices import autocast, matmul_precision
from trainer.model import RetrievalModel
from trainer.retrieval.gallery import RetrievalError

FloatArray = npt.NDArray[np.float32]
Change = Callable[[Batch], Batch]
EMBEDDINGS = {"audio": "audio embeddings", "midi": "MIDI embeddings"}


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
    audio, midi = over_batches(model, resident, model, EMBEDDINGS.values(), batch_size)
    return audio, midi


def embed_side(
    model: RetrievalModel,
    resident: ResidentStore,
    side: Side,
    change: Change | None = None,
    batch_size: int | None = None,
) -> FloatArray:
    """Embed one side alone: float32 [segments, 256].

    ``change`` is given every batch and returns what the encoder is to see instead. Batches are those
    of :func:`embed_split`, so that without a change the embeddings are the same.
    """
    encoders = {"audio": model.embed_audio, "midi": model.embed_midi}
    encode = encoders[side]

    def encoded(batch: Batch) -> tuple[Tensor]:
        return (encode(batch),)

    return over_batches(model, resident, encoded, [EMBEDDINGS[side]], batch_size, change=change)[0]


@torch.no_grad()
def over_batches(
    model: RetrievalModel,
    resident: ResidentStore,
    encode: Callable[[Batch], tuple[Tensor, ...]],
    names: Iterable[str],
    batch_size: int | None = None,
    positions: npt.NDArray[np.int64] | None = None,
    change: Change | None = None,
) -> list[FloatArray]:
    """What ``encode`` makes of each batch, batches end to end: float32 arrays, one row a segment.

    Parameters
    ----------
    model : left in the mode in which it came; runs in evaluation mode and its run's precision
    names : of what ``encode`` returns, for messages
    batch_size : default: the run's own ``evaluation.batch_size``
    positions : of the segments among the resident ones; default: all of them, in order
    change : is given every batch, in order, and returns what ``encode`` is to see instead; the next
        batch is changed in another thread meanwhile

    Raises
    ------
    RetrievalError
        (kind ``not-finite``) when a row holds NaN or infinity.
    """
    if positions is None:
        positions = np.arange(len(resident))
    batch_size = batch_size or model.config.evaluation.batch_size
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    parts: list[tuple[Tensor, ...]] = []
    try:
        with matmul_precision(model.config.precision), autocast(model.config.precision, device):
            starts = range(0, len(positions), batch_size)
            batches = (resident.batch(positions[at : at + batch_size]) for at in starts)
            for batch in batches if change is None else _ahead(change, batches):
                parts.append(tuple(x_BD.float() for x_BD in encode(batch)))
    finally:
        model.train(was_training)
    found = [torch.cat(one).cpu().numpy() for one in zip(*parts, strict=True)]
    for name, values in zip(names, found, strict=True):
        broken = np.flatnonzero(~np.isfinite(values.reshape(len(values), -1)).all(axis=1))
        if len(broken):
            raise RetrievalError(
                f"{len(broken)} of {len(values)} {name} hold NaN or infinity (the first is row "
                f"{positions[broken[0]]} of the {resident.split} split); the model diverged or the "
                "features are damaged",
                kind="not-finite",
            )
    return found


def _ahead(change: Change, batches: Iterable[Batch]) -> Iterator[Batch]:
    """Changed batches; the next one is in the making while one is used."""
    with ThreadPoolExecutor(1) as pool:
        made: Future[Batch] | None = None
        for batch in batches:
            following = pool.submit(change, batch)
            if made is not None:
                yield made.result()
            made = following
        if made is not None:
            yield made.result()
