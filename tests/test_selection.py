"""What choosing adds to a score: on made-up answers, and through a training that keeps its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.store import Store
from trainer.campaign.manifest import read_campaign
from trainer.campaign.plan import plan_campaign
from trainer.run import open_run
from trainer.scoring import scored_run

halves = pytest.importorskip("benchmarks.halves")
selection = pytest.importorskip("benchmarks.selection")

Q = 600
EVERY = np.arange(Q)
MANIFEST = """
title = "Two arms, scored after both epochs"
corpus = "tiny"
preset = "paper"
size = "tiny"
seeds = [42]
[settings.budget]
epochs = 2
batches_per_epoch = 3
batch_size = 4
[settings.evaluation]
pool_size = 8
first = 1
[[runs]]
name = "arms"
arms = ["d0", "a4r"]
"""


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """Training sets them to one."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def answers(chances_ME: np.ndarray, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.random((*chances_ME.shape, 2, Q)) < chances_ME[..., None, None]


def test_of_equal_models_the_best_is_told_too_high_by_its_luck() -> None:
    """The mean of the highest of n scores that differ by luck alone is known."""
    random = np.random.default_rng(5)
    seeds, chance = 12, 0.4
    found = [
        halves.optimism(answers(np.full((13, 5), chance), seed), EVERY, halvings=40)
        for seed in range(seeds)
    ]
    drawn = random.binomial(Q // 2, chance, (4000, 65, 2)).min(-1) / (Q // 2)
    of_one = drawn[:, 0].mean()
    for name, among in (("epoch", 5), ("model", 13), ("both", 65)):
        assert {f[name]["among"] for f in found} == {among}
        luck = drawn[:, :among].max(1).mean() - of_one
        assert np.mean([f[name]["added"] for f in found]) == pytest.approx(luck, rel=0.2), name


def test_of_models_far_apart_choosing_adds_nothing() -> None:
    found = halves.optimism(answers(np.array([[0.1], [0.4], [0.9]])), EVERY, halvings=400)
    assert found["model"]["told"] == pytest.approx(0.9, abs=0.03)
    assert found["model"]["added"] == pytest.approx(0, abs=0.01)


def test_a_score_is_that_of_the_lower_direction() -> None:
    hits = answers(np.full((2, 1), 0.5))
    hits[0, :, 0] = True  # perfect one way, by chance the other
    hits[1] |= answers(np.full((1, 1), 0.5), 1)[0]  # 0.75 both ways: the better one
    found = halves.optimism(hits, EVERY, halvings=100)
    assert found["both"]["told"] == pytest.approx(0.74, abs=0.03)


def test_a_harder_half_is_nobodys_luck() -> None:
    hits = np.zeros((3, 1, 2, Q), bool)
    hits[..., : Q // 2] = True  # one recording everybody answers, one nobody does
    work = np.repeat([5, 9], Q // 2)
    found = halves.optimism(hits, work, halvings=50)
    assert found["model"]["added"] == pytest.approx(0, abs=1e-9)
    assert found["model"]["between_cuts"] == pytest.approx(0, abs=1e-9)


def test_units_go_into_a_half_whole_and_every_cut_is_made_once() -> None:
    """Each of two models answers one work alone: the chosen one fails on the other."""
    work = np.repeat([0, 1], Q // 2)
    hits = np.stack([work == 0, work == 1])[:, None, None].repeat(2, axis=2)
    found = halves.optimism(hits, work, halvings=50)
    assert found["cuts"] == 2
    assert found["model"]["told"] == 1.0
    assert found["model"]["other"] == 0.0
    assert halves.optimism(hits, np.arange(Q) % 6, halvings=20)["cuts"] == 20  # 3 of 6
    assert halves.optimism(hits, np.arange(Q) % 6, halvings=19)["cuts"] == 19
    with pytest.raises(ValueError, match="cut in two"):
        halves.optimism(hits, np.zeros(Q, int))


def test_a_run_keeps_what_each_evaluation_answered(split_store: Store, tmp_path: Path) -> None:
    (tmp_path / "two.toml").write_text(MANIFEST)
    sweep = plan_campaign(
        read_campaign(str(tmp_path / "two.toml")), split_store.path, tmp_path / "runs"
    )
    files = [selection.answered(run, sweep) for run in sweep.runs]
    touched = files[0].stat().st_mtime_ns
    assert selection.answered(sweep.runs[0], sweep) == files[0]
    assert files[0].stat().st_mtime_ns == touched  # and is not trained again
    with np.load(files[0]) as made:
        stale = {**made, "model": "of other weights"}
    np.savez(files[0], **stale)
    assert selection.answered(sweep.runs[0], sweep) == files[0]
    assert str(np.load(files[0])["model"]) != "of other weights"
    for run, file in zip(sweep.runs, files, strict=True):
        found = np.load(file)
        n_queries = len(found["segment"])
        assert found["ranks"].shape == (2, 2, n_queries)
        trained = open_run(sweep.path(run))
        assert trained.finished
        best = trained.record["best"]["step"] // 3 - 1
        scored = scored_run(trained, split_store, "validation", "strict", device="cpu").columns
        assert n_queries == len(scored["a2m"])
        assert np.array_equal(found["segment"], scored["segment"])
        assert len(np.unique(found["ranks"])) > 3
        for side, name in enumerate(("a2m", "m2a")):
            assert np.array_equal(found["ranks"][best, side], scored[name]), name
