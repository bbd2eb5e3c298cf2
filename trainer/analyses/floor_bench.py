"""A training-free floor on the bench: asked what a run is asked, of the same segments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.base.config import digest
from pipeline.descriptors.contract import Side
from pipeline.spectral import Spectrum, Workspace
from trainer.analyses.bench import FOLDER
from trainer.analyses.errors import Plain, Variant
from trainer.analyses.perturbations import EditNotes, EditSamples, chosen
from trainer.analyses.subject import PROTOCOL_OF, Subject
from trainer.floors import Floor
from trainer.retrieval.baselines import BASELINES, embed_baseline, segments_of
from trainer.retrieval.baselines.embedding import of_peak_1
from trainer.retrieval.evaluate import Scores, score_similarities
from trainer.retrieval.pools import Pools

HalfArray = npt.NDArray[np.float16]


class FloorBench(Subject):
    """One baseline and one split.

    Features of both sides and of the changed one are in memory: of ``cqt`` and ``flux`` 100 kB a
    segment, 1.4 GB for 13,500 of them. Findings go beside the floor's scores.
    """

    def __init__(self, floor: Floor, report: Callable[[str], None] = lambda text: None) -> None:
        super().__init__(floor.store, floor.split, floor.folder / FOLDER / floor.split, report)
        self.floor, self._baseline = floor, BASELINES.get(floor.name)

    @property
    def pool_size(self) -> int:
        """The floor's."""
        return self.floor.pool_size

    @property
    def key(self) -> str:
        """Changes with the baseline's definition, the store and the split."""
        return digest({"floor": self.floor.folder.name, "split": self.split})

    def about(self) -> Plain:
        """The baseline's name; there is no seed."""
        name = self.floor.name
        return {"run": name, "arm": f"floor: {name}", "seed": None, "leaks": False}

    @cached_property
    def embeddings(self) -> dict[Side, HalfArray]:
        """Features of both sides: float16 [n, width] each."""
        floor = self.floor
        audio, midi = embed_baseline(floor.name, floor.store, floor.split, floor.progress)
        return {"audio": audio, "midi": midi}

    def changed(
        self, side: Side, edit: EditSamples | EditNotes, shift: int = 0
    ) -> dict[Side, HalfArray]:
        """Features of which one side's went through ``edit``; the other is as it was.

        Parameters
        ----------
        edit : of samples or of notes, as ``side`` says (:mod:`trainer.analyses.perturbations`)
        shift : samples at 24 kHz by which the sound's window begins later in the recording
        """
        given: Any = edit
        ids = self.gallery.segment
        found = np.empty((len(ids), self._baseline.width), np.float16)
        workspace = Workspace()
        for at, samples, notes in segments_of(self.store, ids, shift=shift):
            if side == "audio":
                spectrum = Spectrum(given(samples, int(ids[at])), workspace)
                vector = self._baseline.audio_features(spectrum)
            else:
                vector = self._baseline.midi_features(chosen(*given(notes)))
            found[at] = of_peak_1(vector)
        return {**self.embeddings, side: found}

    def scores(
        self, embeddings: Mapping[Side, Any], variant: Variant, pools: Pools | None = None
    ) -> Scores:
        """Scores of features, compared as the baseline compares them."""
        return score_similarities(
            *self._baseline.similarities(embeddings["audio"], embeddings["midi"]),
            self.gallery,
            PROTOCOL_OF[variant],
            pools=self.pools(variant) if pools is None else pools,
            full=False,
        )

    def release(self) -> None:
        """Let go of the features."""
        self.__dict__.pop("embeddings", None)
