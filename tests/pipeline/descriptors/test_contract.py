"""What holds for every descriptor, and what a fingerprint is made of."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import oracles
import pytest

from pipeline.base.errors import ConfigError
from pipeline.descriptors import DESCRIPTORS, Notes, register
from pipeline.descriptors.a4 import A4, A4Config
from pipeline.spectral import Spectrum

MEASURED = Path(__file__).parents[3] / "benchmarks/results/descriptors.json"
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


@pytest.mark.parametrize("name", DESCRIPTORS.names())
def test_the_cost_is_the_committed_measurement(name: str) -> None:
    """To two digits; a descriptor of ours without one is told here to be measured."""
    measured = json.loads(MEASURED.read_text(encoding="utf-8"))["descriptors"]
    assert name in measured, "run: python -m benchmarks.descriptors"
    assert DESCRIPTORS.get(name).cost == float(f"{measured[name]['cost_ms']:.2g}")
    assert measured[name]["max_difference"] <= 1e-5


def test_a_fingerprint_covers_identity_name_version_and_configuration() -> None:
    class Newer(A4):
        version = 2

    class Other(A4):
        name = "A4x"

    class Tuned(A4):
        config = dataclasses.replace(A4Config(), std_floor=1e-7)

    class Timed(A4):
        cost = 9.0  # what it costs is not what it says

    base = A4().fingerprint("a" * 64)
    assert Timed().fingerprint("a" * 64) == base
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
