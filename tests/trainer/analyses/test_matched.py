"""Matched controls: each is embedded once, beside the real run, which is embedded once."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from bench_fakes import bench_of
from trainer_fakes import FakeStore

from trainer.analyses import matched
from trainer.analyses.contract import ANALYSES, AnalysisError

MATCHED = ANALYSES.get("matched")


@pytest.fixture
def trained(tmp_path, monkeypatch):
    """A run of a4 and its controls, as if they had been trained; how many segments each embedded."""
    store = FakeStore(120, seed=3)
    counts: dict[str, dict[str, int]] = {}

    def watched(name, control):
        bench = bench_of(tmp_path / name, "a4", store, control=control)
        counts[name] = {"audio": 0, "midi": 0}
        for side in counts[name]:
            plain = getattr(bench.model, f"embed_{side}")

            def counted(batch, plain=plain, side=side):
                counts[name][side] += len(batch)
                return plain(batch)

            monkeypatch.setattr(bench.model, f"embed_{side}", counted)
        return bench

    real = watched("real", {"name": "real", "options": {}})
    runs = {}
    for options in matched.CONTROLS.values():
        for kind, own in options.items():
            name = "-".join([kind, *map(str, own.values())])
            if name not in runs:
                runs[name] = watched(name, {"name": kind, "options": dict(own)}).run
    monkeypatch.setattr(
        matched,
        "control_plan",
        lambda bench, control: SimpleNamespace(
            name="-".join([control.name, *map(str, control.options.values())])
        ),
    )
    monkeypatch.setattr(matched, "_trained", lambda bench, plan: runs[plan.name])
    return real, counts


def measured(bench, variant):
    found = {}

    def condition(name, compute):
        return found.setdefault(name, compute())

    MATCHED.measure(bench, variant, condition)
    return found


def test_every_model_embeds_the_split_once(trained):
    bench, counts = trained
    n = len(bench.gallery)
    found = measured(bench, "sound")
    assert list(found) == ["real", "zero", "random", "shuffled"]
    once, never = {"audio": n, "midi": n}, {"audio": 0, "midi": 0}
    of_sound = {"real", "zero", "random-0", "shuffled-split"}
    of_paper = {"random-800", "shuffled-batch"}
    assert counts == {**dict.fromkeys(of_sound, once), **dict.fromkeys(of_paper, never)}
    measured(bench, "paper")  # zeros are zeros: that control is not embedded again
    assert counts == dict.fromkeys(of_sound | of_paper, once)
    measured(bench, "sound")
    assert counts == dict.fromkeys(of_sound | of_paper, once)


def test_a_control_differs_and_its_interval_says_what_was_drawn(trained):
    bench, _ = trained
    found = measured(bench, "sound")
    assert {c["ci_kind"] for c in found.values()} == {"10-s blocks"}  # of four recordings
    assert found["real"]["difference"] == 0
    names = {c["run"] for name, c in found.items() if name != "real"}
    assert names == {"run-a4"}
    finding = SimpleNamespace(label="a4", seed=42, conditions=found)
    table = MATCHED.table([finding], "sound")
    drawn = {row[2]: row[table.head.index("drawn")] for row in table.rows}
    assert drawn == {"real": None, **dict.fromkeys(("zero", "random", "shuffled"), "10-s blocks")}


@pytest.mark.parametrize(
    ("arm", "control", "why"),
    [("d0", "real", "needs no control"), ("a4", "zero", "is a control itself")],
)
def test_what_has_no_control_is_refused(tmp_path, arm, control, why):
    over = {"control": {"name": control, "options": {}}}
    with pytest.raises(AnalysisError, match=why):
        measured(bench_of(tmp_path, arm, FakeStore(), **over), "sound")
