"""Every descriptor of the package against committed values of fixed inputs."""

from __future__ import annotations

from functools import cache
from typing import Any

import golden
import numpy as np
import pytest

from pipeline.descriptors import DESCRIPTORS, Notes
from pipeline.spectral import Spectrum

REMEDY = "with an oracle in tests/oracles_by_name.py, run: python tests/golden.py"
OURS = [n for n, d in DESCRIPTORS.items() if type(d).__module__.startswith("pipeline.")]
SOURCES = golden.inputs()


@cache
def values() -> dict[str, np.ndarray]:
    with np.load(golden.FILE) as file:
        return dict(file)


@cache
def segment(name: str) -> Any:
    source = SOURCES[name]
    return Spectrum(source) if isinstance(source, np.ndarray) else Notes(**vars(source))


def test_the_inputs_are_those_of_the_committed_values() -> None:
    mine = [f"{name} {golden.digest(source)}" for name, source in SOURCES.items()]
    assert values()["inputs"].tolist() == mine, REMEDY


@pytest.mark.parametrize("name", OURS)
def test_every_descriptor_gives_the_committed_values(name: str) -> None:
    wanted = {k.partition("/")[2]: v for k, v in values().items() if k.startswith(f"{name}/")}
    assert set(wanted) == set(golden.given(name)), f"{name} lacks golden values: {REMEDY}"
    told = 0.0
    for source, value in wanted.items():
        found = golden.kept(DESCRIPTORS.get(name).extract(segment(source)))
        assert found.shape == value.shape
        known = ~np.isnan(value)
        told += known.mean() if value.size else 1.0
        np.testing.assert_allclose(
            found[known], value[known], rtol=1e-6, atol=1e-5, err_msg=f"{name} of {source}"
        )
    assert told > 0.6 * len(wanted)  # NaN: frames that rounding decides
    assert any(np.nan_to_num(v).any() for v in wanted.values())


def test_what_is_gone_has_no_values() -> None:
    assert {k.partition("/")[0] for k in values()} - {"inputs"} == set(OURS), REMEDY
