"""Harder questions: what is changed, what is kept, and that harder is harder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pipeline.base.config import from_plain
from pipeline.store import Store
from trainer.analyses.bench import Bench
from trainer.analyses.floor_bench import FloorBench
from trainer.analyses.perturbations import noisy
from trainer.campaign.manifest import read_campaign
from trainer.campaign.plan import plan_campaign
from trainer.config import RunConfig
from trainer.floors import Floor
from trainer.plan import RunRequest, plan_run
from trainer.retrieval.baselines import segments_of
from trainer.retrieval.gallery import Gallery
from trainer.run import open_run
from trainer.scoring import selection_score
from trainer.training import train

cells = pytest.importorskip("benchmarks.cells")
harder = pytest.importorskip("benchmarks.harder")
harder_words = pytest.importorskip("benchmarks.harder_words")

MANIFEST = """
title = "Two seeds"
corpus = "tiny"
preset = "sound"
size = "tiny"
seeds = [42, 123]
[settings.budget]
epochs = 1
batches_per_epoch = 3
batch_size = 4
[settings.evaluation]
pool_size = 8
[[runs]]
name = "arms"
arms = ["d0"]
"""


@pytest.fixture(scope="module")
def benches(split_store: Store, tmp_path_factory: pytest.TempPathFactory) -> list[Bench]:
    """Both runs, trained for three updates."""
    folder = tmp_path_factory.mktemp("harder")
    (folder / "two.toml").write_text(MANIFEST)
    campaign = read_campaign(str(folder / "two.toml"))
    sweep = plan_campaign(campaign, split_store.path, folder / "runs")
    for run in sweep.runs:
        planned, out = from_plain(RunConfig, run.config), Path(sweep.out)
        request = RunRequest(config=planned, store=split_store.path, out=out, device="cpu")
        plan = plan_run(request)
        train(plan, selection_score(plan.store, plan.config))
    return [Bench(open_run(sweep.path(run)), split_store, "test") for run in sweep.runs]


@pytest.fixture
def flux(benches: list[Bench]) -> FloorBench:
    cache = benches[0].run.path.parent / "baselines"
    return FloorBench(Floor("flux", benches[0].store, "test", cache=cache, pool_size=8))


def test_other_music_is_another_recordings_at_the_level_that_is_said(split_store: Store) -> None:
    gallery = Gallery.from_store(split_store, "test")
    of = dict(zip(gallery.segment, gallery.recording, strict=True))
    beside = harder.partners(gallery)
    assert len(beside) == len(gallery)
    assert all(of[segment] != of[other] for segment, other in beside.items())
    segment = int(gallery.segment[0])
    own, other = (
        next(segments_of(split_store, np.array([row])))[1] for row in (segment, beside[segment])
    )
    mixed = harder.other_music(gallery, split_store, 6.0)(own.copy(), segment)
    added = mixed - own
    assert added.std() == pytest.approx(own.std() * 10 ** (-6 / 20), rel=1e-3)
    assert np.corrcoef(added, other)[0, 1] == pytest.approx(1, abs=1e-4)


def test_a_split_of_one_recording_has_no_other_music(split_store: Store) -> None:
    gallery = Gallery.from_store(split_store, "test")
    one = gallery.recording == gallery.recording[0]
    alone = type(gallery)(
        **{
            name: value[one] if isinstance(value, np.ndarray) and len(value) == len(one) else value
            for name, value in vars(gallery).items()
        }
    )
    with pytest.raises(SystemExit, match="one recording only"):
        harder.partners(alone)


def test_a_projection_keeps_angles_but_for_its_error() -> None:
    random = np.random.default_rng(1)
    rows = np.abs(random.standard_normal((40, 3000))) * random.uniform(0.1, 9, (40, 1))
    found = harder.projected(rows.astype(np.float16), 700)
    assert found.shape == (40, 700)
    alone = harder.projected(rows[:5].astype(np.float16), 700)
    assert np.allclose(found[:5], alone, atol=1e-4)  # in the same directions

    def cosines(x: np.ndarray) -> np.ndarray:
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
        return x @ x.T

    error = (cosines(found) - cosines(rows))[np.triu_indices(40, 1)]
    assert 0.1 / np.sqrt(700) < error.std() < 1.5 / np.sqrt(700)


def test_every_question_is_asked_of_models_and_of_floors(
    benches: list[Bench], flux: FloorBench
) -> None:
    found = harder.asked({"d0": benches, "one of them": benches[:1]}, ("flux",))
    names = [q["asked"] for q in found["questions"]]
    assert names[0] == "as it is"
    assert len(set(names)) == len(names) == 1 + len(harder.NOISE) + len(harder.OTHER_MUSIC) + 1
    by_name = {q["asked"]: q for q in found["questions"]}
    softest = by_name["as it is"]
    own = flux.floor.scored("strict")
    assert softest["floors"]["flux"]["S"] == [pytest.approx(own.score("S"), abs=1e-6)]
    for question in found["questions"]:
        assert len(question["models"]["d0"]["S"]) == 2
        assert question["models"]["one of them"]["S"] == question["models"]["d0"]["S"][:1]
        told = question["against"]["d0"]["flux"]["S"]
        between = np.mean(question["models"]["d0"]["S"]) - question["floors"]["flux"]["S"][0]
        assert told["difference"] == pytest.approx(between, abs=1e-5)
        assert not told["stated"]  # of two seeds nothing is
    projected = by_name[f"floors in {found['numbers']['models']:,} numbers"]
    assert projected["models"] == softest["models"]


def test_what_was_answered_is_read_again(benches: list[Bench], flux: FloorBench) -> None:
    question = harder.Question("as it is")
    first = harder.answered(benches[0], question)
    files = sorted(benches[0].folder.glob("harder-*"))
    touched = {file: file.stat().st_mtime_ns for file in files}
    again = harder.answered(benches[0], question)
    assert {file: file.stat().st_mtime_ns for file in files} == touched
    assert all(np.array_equal(first.columns[n], again.columns[n]) for n in first.columns)
    files[0].write_bytes(files[0].read_bytes()[:20])  # a disk that was full
    other = harder.answered(benches[0], question)
    assert all(np.array_equal(first.columns[n], other.columns[n]) for n in first.columns)
    smaller = harder.answered(flux, harder.Question("5 candidates", pool_size=5))
    assert smaller.record["pool_size"] == {"min": 5, "median": 5.0}


def test_noise_that_hides_everything_leaves_chance(benches: list[Bench], flux: FloorBench) -> None:
    for subject, metric in ((flux, "a2m R@1"), (benches[0], "a2m R@1")):
        loud = harder.answered(subject, harder.Question("noise", edit=noisy(-60)))
        assert loud.score(metric) < 0.5
    assert harder.answered(flux, harder.Question("as it is")).score("a2m R@1") == 1


def test_a_floor_in_fewer_numbers_finds_less_and_a_model_keeps_its_own(
    benches: list[Bench], flux: FloorBench
) -> None:
    few = harder.Question("in 2 numbers", numbers=2)
    assert {x.shape[1] for x in harder.embedded(flux, few).values()} == {2}
    assert harder.answered(flux, few).score("a2m R@1") < 1
    assert harder.embedded(benches[0], few) is benches[0].embeddings


def test_models_of_one_name_must_be_seeds_of_one_another(
    benches: list[Bench], split_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    harder._check_seeds("d0", benches)
    with pytest.raises(SystemExit, match="folders of its runs"):
        harder._check_seeds("d0", [])
    monkeypatch.setitem(benches[1].run.record, "arm", "a4r")
    with pytest.raises(SystemExit, match="no seed of"):
        harder._check_seeds("d0", benches)


def test_the_page_tells_models_and_floors(
    benches: list[Bench], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cells, "RESULTS", tmp_path)
    assert "Not yet measured" in harder_words.harder()
    here = {"cores": 2, "cpu": "a CPU", "commit": "0" * 40}
    found = {"environment": here, **harder.asked({"d0": benches}, ("flux",))}
    (tmp_path / "harder.json").write_text(json.dumps(found))
    told = harder_words.harder().splitlines()
    questions = found["questions"]
    assert len([line for line in told if line.startswith("| noise")]) == 2 * len(harder.NOISE)
    assert sum(line.count("`d0` | `flux`") for line in told) == len(questions)
    first = questions[0]["models"]["d0"]["S"]
    assert f"| as it is | {np.mean(first):.3f} ({min(first):.3f}–{max(first):.3f}) |" in told[2]
