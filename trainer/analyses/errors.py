"""Words that all rooms of the analyses share."""

from __future__ import annotations

from typing import Any, Literal

from pipeline.base.errors import EXIT_DATA, XmodalError

Variant = Literal["paper", "sound"]
Plain = dict[str, Any]


class AnalysisError(XmodalError):
    """A question that this run, or this store, cannot be asked.

    Kinds: ``too-few`` (recordings or segments), ``inapplicable`` (the arm has nothing to ask about),
    ``unverified`` (a condition did not do to the model's input what it says), ``not-finite`` (the
    model's own numbers are none).
    """

    exit_code = EXIT_DATA
    kind = "analysis"
