"""Memory of a worker does not depend on how long a recording is, and is what docs/clusters.md says.

In shards as MAESTRO's store has them; a process of its own each, as in ``benchmarks.memory``.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from makers import Spec, make_corpus

ROOT = Path(__file__).parents[2]
memory = pytest.importorskip("benchmarks.memory")


@pytest.mark.full
def test_three_hours_need_two_shards_more_than_one_minute_at_most(tmp_path: Path) -> None:
    """Three hours are 494 MiB of samples; one shard of 64 MiB fills while another is written."""
    peaks = {}
    for seconds in (60, 3 * 3600):
        sound = memory.silence(tmp_path / f"{seconds}.wav", seconds)
        found = memory.measured("ingest", sound, tmp_path / str(seconds), seconds)
        assert found["audio_shard_mib"] == 64
        peaks[seconds] = found["peak_mib"]
    assert peaks[3 * 3600] < peaks[60] + 2 * 64 + 16


@pytest.mark.full
def test_a_job_of_paper_scale_with_every_descriptor_holds_what_is_stated(tmp_path: Path) -> None:
    """The plan of as many segments as MAESTRO's, then a task of each stage in the same process."""
    spec = Spec("r", rate=24_000, channels=1, seconds=103.0)
    table = make_corpus(tmp_path / "corpus", (spec,))
    listed = memory.listed(table, tmp_path)
    found = memory.measured("job", listed, tmp_path / "store", 128)
    assert (found["audio_shard_mib"], found["described_segments"]) == (64, 8192)
    page = (ROOT / "docs/clusters.md").read_text(encoding="utf-8")
    (stated,) = re.findall(r"(\d+) MiB at its peak", page)
    assert found["peak_mib"]["describe"] < 1.15 * int(stated) < 2 * 1024
