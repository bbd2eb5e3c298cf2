"""Measuring: written at once, resumed, measured again when something else is measured."""

from __future__ import annotations

import json
from typing import Any, ClassVar

import numpy as np
import pytest
from bench_fakes import bench_of
from trainer_fakes import FakeStore

from trainer.analyses.contract import Analysis, AnalysisError, Table
from trainer.analyses.driver import analyze, labels
from trainer.layout import MODEL


class Counting(Analysis):
    """Three conditions that say how often they were computed."""

    name, title, question = "counting", "Counting", "How often?"
    variants: ClassVar[dict[Any, str]] = {"paper": "once", "sound": "twice"}
    stop_at: str | None = None
    computed: ClassVar[list[str]] = []

    def measure(self, bench, variant, condition):
        found = {}
        for name in "abc":

            def compute(name=name):
                if name == self.stop_at:
                    raise KeyboardInterrupt
                self.computed.append(f"{variant} {name}")
                return {"value": len(self.computed), "array": np.float64(0.5).item()}

            found[name] = condition(name, compute)["value"]
        return found

    def table(self, findings, variant):
        return Table(head=["run"], rows=[[f.label] for f in findings])

    def draw(self, findings, variant, figure):
        figure.subplots()


@pytest.fixture
def bench(tmp_path):
    return bench_of(tmp_path, "a4", FakeStore())


@pytest.fixture
def counting():
    Counting.computed.clear()
    return Counting()


def test_what_was_measured_is_read(bench, counting):
    first = analyze([counting], [bench], ["paper", "sound"])
    assert len(counting.computed) == 6
    again = analyze([counting], [bench], ["paper", "sound"])
    assert len(counting.computed) == 6
    assert [o.plain() for o in again] == [o.plain() for o in first]
    record = json.loads((bench.folder / "counting-sound.json").read_text())
    assert record["complete"]
    assert list(record["conditions"]) == ["a", "b", "c"]


def test_a_stopped_analysis_goes_on_with_the_next_condition(bench, counting):
    counting.stop_at = "c"
    with pytest.raises(KeyboardInterrupt):
        analyze([counting], [bench], ["sound"])
    record = json.loads((bench.folder / "counting-sound.json").read_text())
    assert list(record["conditions"]) == ["a", "b"]
    assert not record["complete"]
    counting.stop_at = None
    outcome = analyze([counting], [bench], ["sound"])[0]
    assert counting.computed == ["sound a", "sound b", "sound c"]
    assert outcome.findings[0].summary == {"a": 1, "b": 2, "c": 3}


@pytest.mark.parametrize("what", ["weights", "version", "arrays", "half a file", "null"])
def test_what_another_thing_gave_is_measured_again(bench, counting, what, monkeypatch):
    analyze([counting], [bench], ["sound"])
    file = bench.folder / "counting-sound.json"
    if what == "weights":
        (bench.run.path / MODEL).write_bytes(b"other weights")
    elif what == "version":
        monkeypatch.setattr(Counting, "version", 2)
    elif what == "arrays":
        bench.store.arrays["A4"].fingerprint = "another"
    elif what == "null":
        record = json.loads(file.read_text())
        file.write_text(json.dumps({**record, "conditions": dict.fromkeys("abc")}))
    else:
        file.write_bytes(file.read_bytes()[:40])
    bench.__dict__.pop("key", None)
    analyze([counting], [bench], ["sound"])
    assert len(counting.computed) == 6


@pytest.mark.parametrize("damage", ["zeros", "empty", "no record", "a list", "weights"])
def test_kept_embeddings_that_are_not_this_models_are_made_again(bench, damage):
    before = bench.embeddings["audio"]
    audio, record = bench.folder / "audio.npy", bench.folder / "embeddings.json"
    if damage == "zeros":
        np.save(audio, np.zeros_like(before))
    elif damage == "empty":
        audio.write_bytes(b"")
    elif damage == "no record":
        record.unlink()
    elif damage == "a list":
        record.write_text("[]")

    def opened():
        found = bench_of(bench.run.path.parent, "a4", bench.store, model=bench.model)
        if damage == "weights":
            (found.run.path / MODEL).write_bytes(b"other weights")
        return found

    other, made = opened(), []
    other.report = made.append
    assert np.array_equal(other.embeddings["audio"], before)
    assert made == ["embedding 20 segments"]
    again = opened()
    again.report = pytest.fail
    assert np.array_equal(again.embeddings["audio"], before)


def test_a_leaking_arm_says_so(bench):
    bench.run.leaks = True
    assert labels([bench]) == ["a4 (leaks)"]


def test_a_run_that_cannot_be_asked_does_not_stop_others(tmp_path, counting):
    store = FakeStore()
    benches = [bench_of(tmp_path, arm, store) for arm in ("d0", "a4")]

    class Picky(Counting):
        name = "picky"

        def measure(self, bench, variant, condition):
            if not bench.run.config.pairs:
                raise AnalysisError("nothing to ask", kind="inapplicable")
            return super().measure(bench, variant, condition)

    outcome = analyze([Picky()], benches, ["sound"])[0]
    assert [f.label for f in outcome.findings] == ["a4"]
    assert outcome.refused == {"d0": "nothing to ask"}


def test_labels_tell_runs_apart(tmp_path):
    store = FakeStore()
    one = bench_of(tmp_path / "1", "a4", store)
    two = bench_of(tmp_path / "2", "a4", store, seed=7)
    three = bench_of(tmp_path / "3", "a4", store, seed=7)
    three.run.signature = "abcdef012345"
    d0 = bench_of(tmp_path / "4", "d0", store)
    assert labels([one, d0]) == ["a4", "d0"]
    assert labels([one, two]) == ["a4 seed 42", "a4 seed 7"]
    assert labels([two, three]) == ["a4 seed 7 0123", "a4 seed 7 abcd"]
