"""What a descriptor is: fixed signal processing on one 4-second segment.

``A*`` descriptors read the segment's spectrum, ``D*`` descriptors its notes. The output lies on one
of three axes:

======== ================= =============================================
axis     shape             meaning
======== ================= =============================================
frame    ``[188, width]``  one row per STFT frame (21.33 ms)
segment  ``[width]``       one row for the whole segment
note     ``[N, width]``    one row per note, in (onset, pitch) order
======== ================= =============================================

``extract`` returns float32; the store keeps it rounded to float16. A changed definition is a new
``version``; a corrected definition is a new descriptor under a new name.
"""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from pipeline import stft
from pipeline.base.config import digest, to_plain
from pipeline.base.registry import Registry
from pipeline.spectral import N_FRAMES, Spectrum

Side = Literal["audio", "midi"]
Axis = Literal["frame", "segment", "note"]
FloatArray = npt.NDArray[np.float32]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class NoConfig:
    """For descriptors without parameters."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Notes:
    """The notes of one segment (or of any run of store rows), sorted by (onset, pitch, end, velocity).

    Attributes
    ----------
    pitch, velocity, duration_bucket : uint8 [N]
        MIDI pitch 0–127, velocity 0–127, log-duration bucket 0–31 (method §1.4).
    onset_s : float32 [N]
        Seconds from the start of the segment; negative for a note already sounding.
    duration_s : float32 [N]
        Key-down to key-up, not clipped to the segment.
    """

    pitch: npt.NDArray[np.uint8]
    velocity: npt.NDArray[np.uint8]
    duration_bucket: npt.NDArray[np.uint8]
    onset_s: npt.NDArray[np.float32]
    duration_s: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.pitch)

    def rows(self, start: int, stop: int) -> Notes:
        """The notes ``[start, stop)``, as views."""
        fields = dataclasses.fields(self)
        return Notes(**{f.name: getattr(self, f.name)[start:stop] for f in fields})


class Descriptor(abc.ABC):
    """Base of all descriptors; subclasses fill the class attributes and :meth:`extract`.

    Attributes
    ----------
    name, version : the identity of the definition
    side : the modality that it is computed from
    axis, width : the output's shape (see the module)
    units, summary : for people
    cost : processor milliseconds a segment, the shared transform included, rounded to two digits as
        ``benchmarks/results/descriptors.json`` has it; None where nobody has measured it
    pooled : name of the per-segment descriptor that stands for this one where a mechanism wants one
        vector a segment (the time mean of A4 is 0 by construction, method §9.3)
    """

    name: ClassVar[str]
    version: ClassVar[int]
    side: ClassVar[Side]
    axis: ClassVar[Axis]
    width: ClassVar[int]
    units: ClassVar[str]
    summary: ClassVar[str]
    cost: ClassVar[float | None] = None
    pooled: ClassVar[str | None] = None
    role: ClassVar[Literal["descriptor", "frontend"]] = "descriptor"
    config: Any = NoConfig()

    @abc.abstractmethod
    def extract(self, segment: Any) -> FloatArray:
        """float32 array of this descriptor's shape for one segment."""

    def shape(self) -> str:
        """The shape of one segment's value, for listings."""
        return {
            "frame": f"[{N_FRAMES}, {self.width}]",
            "segment": f"[{self.width}]",
            "note": f"[notes, {self.width}]",
        }[self.axis]

    def labels(self) -> tuple[str, ...]:
        """A short name for every dimension, for pictures; empty where their numbers must do."""
        return ()

    def definition(self) -> dict[str, Any]:
        """What an array's fingerprint hashes besides the store's identity."""
        return {"name": self.name, "version": self.version, "config": to_plain(self.config)}

    def fingerprint(self, identity: str) -> str:
        """64 hexadecimal digits: store identity + name + version + configuration."""
        return digest({"identity": identity, **self.definition()}, 64)


class AudioDescriptor(Descriptor):
    """A descriptor of the sound: ``extract`` gets the segment's :class:`Spectrum`."""

    side = "audio"

    def definition(self) -> dict[str, Any]:
        """Includes the transform that all of them share."""
        return {**super().definition(), "stft": stft.VERSION}

    @abc.abstractmethod
    def extract(self, segment: Spectrum) -> FloatArray:
        """float32 array of this descriptor's shape for one segment."""


class MidiDescriptor(Descriptor):
    """A descriptor of the notes: ``extract`` gets the segment's :class:`Notes`."""

    side = "midi"

    @abc.abstractmethod
    def extract(self, segment: Notes) -> FloatArray:
        """float32 array of this descriptor's shape for one segment."""


DESCRIPTORS: Registry[Descriptor] = Registry("descriptor", entry_point="xmodal.descriptors")


def register(kind: type[Descriptor]) -> type[Descriptor]:
    """Class decorator: one instance with the default configuration joins the registry."""
    DESCRIPTORS.add(kind.name, kind())
    return kind
