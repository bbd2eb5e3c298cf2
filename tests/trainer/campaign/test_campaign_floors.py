"""Floors on the page of a campaign: read where they are kept, left out where they take long."""

from __future__ import annotations

import shutil
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import by_arm, heads, parse, rows, section, words
from campaign_fakes import (
    GROUPING,
    IDENTITY,
    POOL,
    QUALITY,
    STORE,
    planned,
    scored,
    screening_of,
    sweep_of,
    write_run,
)

from trainer.campaign import report
from trainer.campaign.report import campaign_page
from trainer.floors import Floor
from trainer.records import file_name, write_scores
from trainer.retrieval.compare import Scored


def test_floors_are_read_where_they_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = screening_of(tmp_path)
    store: Any = types.SimpleNamespace(
        identity=IDENTITY, grouping=GROUPING, name=STORE, path=Path(STORE),
        segments=types.SimpleNamespace(split=np.array(["train", "test"]), recording=np.arange(2)),
    )  # fmt: skip
    monkeypatch.setattr(report, "Store", types.SimpleNamespace(open=lambda path: store))
    kept = {}
    for name, quality in (("flux", 0.25), ("chroma", 0.4)):
        for split in ("test", "validation"):
            folder = Floor(name, store, split, cache=tmp_path / "baselines", pool_size=POOL).folder
            for protocol, seed in (("strict", None), ("paper", 42)):
                found = scored(split, protocol, quality, 5)
                own = {"run": name, "store": STORE, "store_identity": f"{IDENTITY} {GROUPING}"}
                write_scores(folder / file_name(protocol, split, seed), found.record() | own, found)
                kept[name, protocol, split] = found.record()["S"]
    page = parse(campaign_page(sweep, floors=["flux", "chroma"]))
    table = by_arm(section(page, "Leaderboard"))
    for name in ("flux", "chroma"):
        assert float(table[f"floor: {name}"]["S"]) == pytest.approx(
            kept[name, "strict", "test"], abs=6e-4
        )
    assert "– chroma" in heads(section(page, "Leaderboard"))
    S, floor = float(table["a4r"]["S"]), float(table["floor: chroma"]["S"])
    assert float(table["a4r"]["– chroma"]) == pytest.approx(S - floor, abs=2e-3)
    pairs = {row[0] for row in rows(section(page, "Differences"))}
    assert {"a4r – floor flux", "d0 – floor chroma", "a4r – d0"} <= pairs
    assert not [s for s in page.iter("section") if s[0].text == "What is missing here"]


def test_floors_that_take_long_are_left_out_unless_kept_or_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [planned(0, "d0"), planned(1, "a4r")]
    for run in runs:
        write_run(tmp_path, run, quality=QUALITY[run.arm])
    plan = sweep_of(tmp_path, runs)
    computed: list[str] = []

    class Counting(Floor):
        def scored(self, protocol: str, seed: int | None = None) -> Scored:
            if not report._is_kept(self, protocol):
                computed.append(self.name)
            found = scored(self.split, protocol, 0.3, 5)
            own = {"run": self.name, "store": STORE, "store_identity": f"{IDENTITY} {GROUPING}"}
            write_scores(
                self.folder / file_name(protocol, self.split, seed), found.record() | own, found
            )
            return super().scored(protocol, seed)

    def store_of(n: int) -> Any:
        split = np.repeat(["train", "validation", "test"], [9000, n // 2, n - n // 2])
        table = types.SimpleNamespace(split=split, recording=np.arange(len(split)))
        return types.SimpleNamespace(
            identity=IDENTITY, grouping=GROUPING, name=STORE, path=Path(STORE), segments=table
        )

    def told(n: int, **over: Any) -> tuple[set[str], str]:
        monkeypatch.setattr(report, "Store", types.SimpleNamespace(open=lambda path: store_of(n)))
        computed.clear()
        page = parse(campaign_page(plan, **over))
        missing = [s for s in page.iter("section") if s[0].text == "What is missing here"]
        return set(by_arm(section(page, "Leaderboard"))), "".join(map(words, missing))

    monkeypatch.setattr(report, "Floor", Counting)
    names, missing = told(31_000, command="xmodal-sweep report mine.toml")
    assert set(computed) == {"chroma", "a4", "register"}
    assert {n for n in names if "floor" in n} == {"floor: chroma", "floor: a4", "floor: register"}
    assert "without the floors flux, cqt, chroma-dtw, which would take long" in missing
    assert "31,000 segments" in missing
    assert missing.endswith("xmodal-sweep report mine.toml --floor all")
    told(31_000, floors=["flux"])
    assert set(computed) == {"flux"}
    names, missing = told(31_000)
    assert (computed, "floor: flux" in names) == ([], True)
    assert "without the floors cqt, chroma-dtw, which" in missing
    names, missing = told(31_000, floors=["all"])
    assert (set(computed), missing) == ({"cqt", "chroma-dtw"}, "")
    shutil.rmtree(tmp_path / "baselines")
    names, missing = told(2000)
    assert (len(set(computed)), missing) == (6, "")
