"""The gallery: the segments of one split, row for row with the embeddings that are scored."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pipeline.base.errors import EXIT_DATA, XmodalError

if TYPE_CHECKING:
    from pipeline.store.reader import Store

IntArray = npt.NDArray[np.int32]


class RetrievalError(XmodalError):
    """Embeddings, or a gallery, that cannot be scored.

    Kinds: ``gallery`` (no segments, columns that do not fit), ``pool-size`` (too few candidates),
    ``shape`` (embeddings of another gallery), ``not-finite`` (NaN or infinity).
    """

    exit_code = EXIT_DATA
    kind = "retrieval"


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Gallery:
    """What retrieval knows about the ``n`` segments of one split; row i belongs to embedding i.

    Attributes
    ----------
    split : str
    segment, recording : int32 [n]
        Ids in the store, ascending by segment.
    composer, composition : int32 [n]
        Codes: equal where the store's strings are equal.
    start_s : float64 [n]
        Start of the window in its recording, in seconds.
    valid : bool [n]
        At least one note overlaps the window and the window lies inside the audio.
    notes : int32 [n]
        How many notes overlap the window.
    composers : names of the composers, by code
    recordings : names of the recordings, by id
    """

    split: str
    segment: IntArray
    recording: IntArray
    composer: IntArray
    composition: IntArray
    start_s: npt.NDArray[np.float64]
    valid: npt.NDArray[np.bool_]
    notes: IntArray
    composers: tuple[str, ...]
    recordings: Mapping[int, str]

    def __post_init__(self) -> None:
        n = len(self.segment)
        columns = (
            self.recording, self.composer, self.composition, self.start_s, self.valid, self.notes
        )  # fmt: skip
        if any(column.shape != (n,) for column in columns):
            raise RetrievalError("the gallery's columns differ in length", kind="gallery")
        if n == 0:
            raise RetrievalError(f"the split '{self.split}' has no segments", kind="gallery")

    def __len__(self) -> int:
        return len(self.segment)

    @classmethod
    def from_columns(
        cls,
        *,
        split: str,
        segment: npt.ArrayLike,
        recording: npt.ArrayLike,
        composer: npt.ArrayLike,
        composition: npt.ArrayLike,
        start_s: npt.ArrayLike,
        valid: npt.ArrayLike,
        notes: npt.ArrayLike | None = None,
        recordings: Mapping[int, str] | None = None,
    ) -> Gallery:
        """A gallery of columns [n]; ``composer`` and ``composition`` may be strings or codes.

        Without ``notes`` every segment counts as having none; without names, recordings are called
        by their ids.
        """
        ids = np.asarray(recording, np.int32)
        composers, composer_codes = _codes(composer)
        return cls(
            split=split,
            segment=np.asarray(segment, np.int32),
            recording=ids,
            composer=composer_codes,
            composition=_codes(composition)[1],
            start_s=np.asarray(start_s, np.float64),
            valid=np.asarray(valid, bool),
            notes=np.zeros(len(ids), np.int32) if notes is None else np.asarray(notes, np.int32),
            composers=composers,
            recordings={int(i): str(i) for i in np.unique(ids)}
            if recordings is None
            else recordings,
        )

    @classmethod
    def from_store(cls, store: Store, split: str) -> Gallery:
        """The gallery of one split of an open store.

        Raises
        ------
        RetrievalError
            (kind ``gallery``) when the store has no segments in ``split``.
        """
        segments, recordings = store.segments, store.recordings
        rows = np.flatnonzero(segments.split == split)
        if len(rows) == 0:
            found = sorted({str(name) for name in segments.split})
            raise RetrievalError(
                f"the store {store.name} has no segments in the split '{split}'; "
                f"it has: {', '.join(found) or 'none'}",
                kind="gallery",
            )
        recording = segments.recording[rows]
        return cls.from_columns(
            split=split,
            segment=rows,
            recording=recording,
            composer=recordings.composer[recording],
            composition=recordings.composition[recording],
            start_s=segments.start_s[rows],
            valid=segments.valid[rows],
            notes=segments.note_count[rows],
            recordings={int(i): str(recordings.key[i]) for i in np.unique(recording)},
        )


def _codes(values: npt.ArrayLike) -> tuple[tuple[str, ...], IntArray]:
    """Distinct labels as text, and each value's place among them."""
    labels: npt.NDArray[Any] = np.asarray(values)
    if labels.dtype == object:
        labels = labels.astype(str)
    distinct, place = np.unique(labels, return_inverse=True)
    return tuple(map(str, distinct)), place.reshape(-1).astype(np.int32)
