"""Analyses of trained runs, each the published way and a sound way.

Rooms, from the bottom up: ``bench`` (a run, a split, embeddings and scores made once) · ``contract``
(what an analysis is) · ``replacements``, ``perturbations``, ``shifts`` (what is done to inputs),
``layers``, ``geometry``, ``targets``, ``regression``, ``projections`` (what is measured) · one file
per analysis · ``driver`` (measured condition by condition, kept, drawn) · ``comparison`` · ``page``.
"""

from trainer.analyses.contract import ANALYSES

# One line per file; the order is the order of every listing.
from trainer.analyses import ablation  # noqa: F401  isort: skip
from trainer.analyses import matched  # noqa: F401  isort: skip
from trainer.analyses import sensitivity  # noqa: F401  isort: skip
from trainer.analyses import similarity  # noqa: F401  isort: skip
from trainer.analyses import invariance  # noqa: F401  isort: skip
from trainer.analyses import probes  # noqa: F401  isort: skip
from trainer.analyses import maps  # noqa: F401  isort: skip
from trainer.analyses import attention  # noqa: F401  isort: skip
from trainer.analyses import cost  # noqa: F401  isort: skip

__all__ = ["ANALYSES"]
