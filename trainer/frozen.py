"""What a frozen front end makes of a split, made once: nothing that training changes goes into it.

The reference runs its random, frozen CNN over every segment of every epoch (method §9.1, §10). Where
segments are seen more often than once and memory suffices, batches carry its tokens instead. On a CPU
they are made when a segment is first asked for, so that a run begins at once, and are the same to the
last bit, since a frozen front end works segment by segment there. A GPU makes all of them first, in
batches that are always the same.

Shape suffixes: R resident segments, B of a batch, T tokens, C channels.
"""

from __future__ import annotations

import threading

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainer.cache import ResidentStore
from trainer.devices import autocast, matmul_precision
from trainer.model import RetrievalModel

PART = 4  # of the memory that is left may be taken by the tokens of a split
BATCH = 16
Ints = npt.NDArray[np.int64]


def keep_tokens(model: RetrievalModel, resident: ResidentStore, uses: int, room: int) -> bool:
    """Let the batches of ``resident`` carry the tokens of ``model``'s front end, if that pays.

    Parameters
    ----------
    uses : how many segments will be asked for in all
    room : bytes that the run itself will not need

    Returns
    -------
    whether they do; they do not when the front end is trained, or too little memory is free.
    """
    n_segments = len(resident)
    if not model.audio.frontend.frozen or uses <= n_segments:
        return False
    first_BTC = _tokens(model, resident, np.arange(1))
    if n_segments * first_BTC.nbytes > room // PART:
        return False
    kept = _Kept(model, resident, first_BTC.new_empty(n_segments, *first_BTC.shape[1:]))
    if next(model.parameters()).device.type != "cpu":
        for start in range(0, n_segments, BATCH):
            kept(np.arange(start, min(start + BATCH, n_segments)))
    resident.keep(kept)
    return True


class _Kept:
    """Tokens of the segments that were asked for yet.

    Analyses ask from two threads, and the sound is forgotten once all tokens are there: one at a time.
    """

    def __init__(self, model: RetrievalModel, resident: ResidentStore, room_RTC: Tensor) -> None:
        self._model, self._resident, self._tokens_RTC = model, resident, room_RTC
        self._there_R = np.zeros(len(resident), bool)
        self._turn = threading.Lock()

    def __call__(self, index_B: Ints) -> Tensor:
        """``[B]`` → ``[B, T, C]`` where the resident tensors are."""
        with self._turn:
            new = np.unique(index_B[~self._there_R[index_B]])
            if len(new):
                self._tokens_RTC[torch.from_numpy(new)] = _tokens(self._model, self._resident, new)
                self._there_R[new] = True
                if self._there_R.all():
                    self._resident.forget_audio()
        where = torch.from_numpy(index_B).to(self._tokens_RTC.device)
        return self._tokens_RTC.index_select(0, where)


@torch.no_grad()
def _tokens(model: RetrievalModel, resident: ResidentStore, index_B: Ints) -> Tensor:
    device, precision = next(model.parameters()).device, model.config.precision
    with matmul_precision(precision), autocast(precision, device):
        x_BTC: Tensor = model.audio.frontend(resident.sounding_batch(index_B)).x_BTC
    return x_BTC.to(resident.home)
