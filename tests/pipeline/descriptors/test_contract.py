"""What holds for every descriptor, and what a fingerprint is made of."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import oracles
import pytest

from pipeline.base.errors import ConfigError
from pipeline.descriptors import DESCRIPTORS, Notes, register
from pipeline.descriptors.a4 import A4, A4Config
from pipeline.spectral import Spectrum

SPECTRUM = Spectrum(oracles.signals()["noise"])
NOTES = Notes(
    pitch=np.array([60, 64, 67], np.uint8),
    velocity=np.array([60, 70, 80], np.uint8),
    duration_bucket=np.array([3, 4, 5], np.uint8),
    onset_s=np.array([-0.5, 1.0, 1.0], np.float32),
    duration_s=np.array([1.0, 0.5, 0.25], np.float32),
)


@pytest.mark.parametrize("name", DESCRIPTORS.names())
def test_every_descriptor_keeps_its_contract(name: str) -> None:
    descriptor = DESCRIPTORS.get(name)
    value = descriptor.extract(SPECTRUM if descriptor.side == "audio" else NOTES)
    rows = {"frame": (188,), "segment": (), "note": (len(NOTES),)}[descriptor.axis]
    assert value.dtype == np.float32
    assert value.shape == (*rows, descriptor.width)
    assert np.isfinite(value).all()
    assert descriptor.name == name
    assert descriptor.version >= 1
    assert descriptor.units
    assert descriptor.summary
    again = descriptor.extract(SPECTRUM if descriptor.side == "audio" else NOTES)
    np.testing.assert_array_equal(value, again)


def test_a_fingerprint_covers_identity_name_version_and_configuration() -> None:
    class Newer(A4):
        version = 2

    class Other(A4):
        name = "A4x"

    class Tuned(A4):
        config = dataclasses.replace(A4Config(), std_floor=1e-7)

    base = A4().fingerprint("a" * 64)
    others = [kind().fingerprint("a" * 64) for kind in (Newer, Other, Tuned)]
    assert len({base, A4().fingerprint("b" * 64), *others}) == 5
    assert A4().fingerprint("a" * 64) == base
    assert len(base) == 64


def test_a_name_can_be_taken_once() -> None:
    class Impostor(A4):
        pass

    with pytest.raises(ConfigError, match="registered twice"):
        register(Impostor)
    assert type(DESCRIPTORS.get("A4")) is A4


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(ConfigError, match="did you mean 'A4'"):
        DESCRIPTORS.get("A44")


def test_importing_descriptors_loads_nothing_heavy() -> None:
    code = (
        "import sys, pipeline.descriptors, pipeline.spectral, pipeline.store;"
        "print([m for m in ('numba', 'scipy', 'librosa', 'soundfile', 'torch', 'dask', 'symusic',"
        "'pandas') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
