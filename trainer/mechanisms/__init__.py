"""Mechanisms: one file each, one line here each."""

from trainer.mechanisms.contract import MECHANISMS, Mechanism

# One line per file; the order is the order of every listing.
from trainer.mechanisms import concat  # noqa: F401  isort: skip
from trainer.mechanisms import xattn  # noqa: F401  isort: skip
from trainer.mechanisms import reverse_xattn  # noqa: F401  isort: skip
from trainer.mechanisms import film  # noqa: F401  isort: skip
from trainer.mechanisms import film_head  # noqa: F401  isort: skip
from trainer.mechanisms import moe  # noqa: F401  isort: skip
from trainer.mechanisms import attn_bias  # noqa: F401  isort: skip
from trainer.mechanisms import aux_loss  # noqa: F401  isort: skip
from trainer.mechanisms import third_tower  # noqa: F401  isort: skip
from trainer.mechanisms import cm  # noqa: F401  isort: skip

__all__ = ["MECHANISMS", "Mechanism"]
