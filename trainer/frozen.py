"""What a frozen front end makes of a split, made once: nothing that training changes goes into it.

The reference runs its random, frozen CNN over every segment of every epoch (method §9.1, §10). Where
segments are seen more often than once and memory suffices, batches carry its tokens instead. On a CPU
they are the same to the last bit, since a frozen front end works segment by segment there.

Shape suffixes: R resident segments, T tokens, C channels.
"""

from __future__ import annotations

import numpy as np
import torch

from trainer.cache import ResidentStore
from trainer.devices import autocast, matmul_precision
from trainer.model import RetrievalModel

PART = 4  # of the memory that is left may be taken by the tokens of a split
BATCH = 16


@torch.no_grad()
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
    n_segments, frontend = len(resident), model.audio.frontend
    if not frontend.frozen or uses <= n_segments:
        return False
    device, precision = next(model.parameters()).device, model.config.precision
    tokens_RTC: torch.Tensor | None = None
    with matmul_precision(precision), autocast(precision, device):
        for start in range(0, n_segments, BATCH):
            rows = np.arange(start, min(start + BATCH, n_segments))
            x_BTC = frontend(resident.batch(rows)).x_BTC
            if tokens_RTC is None:
                needed = n_segments * x_BTC[0].nbytes
                if needed > room // PART:
                    return False
                tokens_RTC = x_BTC.new_empty(n_segments, *x_BTC.shape[1:])
            tokens_RTC[start : start + len(rows)] = x_BTC
    assert tokens_RTC is not None
    resident.keep(tokens_RTC)
    return True
