"""Training-free baselines: what signal processing alone retrieves; the floor an arm has to beat.

A baseline turns the sound and the notes of a segment into two vectors and says how alike they are,
under the same protocols as any run. They differ in what they look at:

==========  ================  ======================================================================
name        what and when     compares
==========  ================  ======================================================================
flux        both, attacks     spectral flux in semitone bands with an onset roll
cqt         both, sound       constant-Q magnitudes with a roll of sounding notes
chroma      both, no octaves  chroma of every frame with folded sounding notes
chroma-dtw  what, order       the same at 85-ms steps, time warped by up to half a second
a4          when alone        changes of energy with a curve of onsets
register    what alone        how much is struck at every pitch, and how often, with the notes' counts
==========  ================  ======================================================================

One file each, one line here each; ``contract`` says what a baseline is, ``reading`` how segments come
from a store, ``embedding`` computes the features of a split, ``notes`` what several do with notes.
"""

from trainer.retrieval.baselines.contract import BASELINES, Baseline, register
from trainer.retrieval.baselines.embedding import embed_baseline, embed_baselines
from trainer.retrieval.baselines.reading import segments_of

# One line per file; the order is the order of every listing.
from trainer.retrieval.baselines import flux  # noqa: F401  isort: skip
from trainer.retrieval.baselines import cqt  # noqa: F401  isort: skip
from trainer.retrieval.baselines import chroma  # noqa: F401  isort: skip
from trainer.retrieval.baselines import chroma_dtw  # noqa: F401  isort: skip
from trainer.retrieval.baselines import a4  # noqa: F401  isort: skip
from trainer.retrieval.baselines import pitch_register  # noqa: F401  isort: skip

__all__ = [
    "BASELINES",
    "Baseline",
    "embed_baseline",
    "embed_baselines",
    "register",
    "segments_of",
]
