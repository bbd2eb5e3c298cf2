"""Mechanisms: one file each, one line here each."""

from trainer.mechanisms.contract import MECHANISMS, Mechanism

# One line per file; the order is the order of every listing.
from trainer.mechanisms import concat  # noqa: F401  isort: skip
from trainer.mechanisms import reverse_xattn  # noqa: F401  isort: skip

__all__ = ["MECHANISMS", "Mechanism"]
