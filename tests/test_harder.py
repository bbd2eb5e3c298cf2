"""Harder questions: what is laid over the sound, who is asked, what is kept."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from makers import Spec, build_quietly, corpus_of, make_corpus

from pipeline.base.config import from_plain
from pipeline.store import Store
from trainer.analyses.bench import Bench
from trainer.analyses.floor_bench import FloorBench
from trainer.campaign.manifest import read_campaign
from trainer.campaign.plan import plan_campaign
from trainer.config import RunConfig
from trainer.floors import Floor
from trainer.plan import RunRequest, plan_run
from trainer.retrieval.baselines import segments_of
from trainer.retrieval.compare import Scored
from trainer.retrieval.gallery import Gallery
from trainer.retrieval.protocols import PROTOCOLS
from trainer.run import open_run
from trainer.scoring import selection_score
from trainer.training import train

cells = pytest.importorskip("benchmarks.cells")
harder = pytest.importorskip("benchmarks.harder")
interference = pytest.importorskip("benchmarks.interference")
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
pool_size = 4
[[runs]]
name = "arms"
arms = ["d0"]
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Four recordings to test on, as long as two, so that pools leave other music out."""
    specs = tuple(
        Spec(f"{split}-{i}", seconds=seconds, split=split, title=f"{split}, BWV {n}{i}")
        for n, (split, count, seconds) in enumerate(
            (("train", 2, 24.0), ("validation", 2, 24.0), ("test", 4, 16.0)), 1
        )
        for i in range(count)
    )
    corpus = corpus_of(make_corpus(tmp_path_factory.mktemp("corpus"), specs))
    return build_quietly(corpus, tmp_path_factory.mktemp("out")).store


@pytest.fixture(scope="module")
def benches(store: Store, tmp_path_factory: pytest.TempPathFactory) -> list[Bench]:
    """Both runs, trained for three updates."""
    folder = tmp_path_factory.mktemp("harder")
    (folder / "two.toml").write_text(MANIFEST)
    campaign = read_campaign(str(folder / "two.toml"))
    sweep = plan_campaign(campaign, store.path, folder / "runs")
    for run in sweep.runs:
        planned, out = from_plain(RunConfig, run.config), Path(sweep.out)
        request = RunRequest(config=planned, store=store.path, out=out, device="cpu")
        plan = plan_run(request)
        train(plan, selection_score(plan.store, plan.config))
    return [Bench(open_run(sweep.path(run)), store, "test") for run in sweep.runs]


@pytest.fixture
def flux(benches: list[Bench]) -> FloorBench:
    cache = benches[0].run.path.parent / "baselines"
    return FloorBench(Floor("flux", benches[0].store, "test", cache=cache, pool_size=4))


def test_other_music_is_another_works_and_nothing_that_is_asked_for(store: Store) -> None:
    gallery = Gallery.from_store(store, "test")
    pools = PROTOCOLS.get("strict").pools(gallery, None, 4)
    beside = interference.partners(gallery, pools)
    row_of = {int(segment): row for row, segment in enumerate(gallery.segment)}
    assert set(beside) == set(row_of)
    for query, candidates in zip(pools.queries, pools.candidates, strict=True):
        other = row_of[beside[int(gallery.segment[query])]]
        assert gallery.composition[other] != gallery.composition[query]
        for candidate in candidates[candidates >= 0]:
            if gallery.recording[candidate] == gallery.recording[other]:
                assert abs(gallery.start_s[candidate] - gallery.start_s[other]) >= 4


def test_a_split_of_one_work_has_no_other_music(store: Store) -> None:
    gallery = Gallery.from_store(store, "test")
    alone = dataclasses.replace(gallery, composition=np.zeros_like(gallery.composition))
    with pytest.raises(SystemExit, match="no other music"):
        interference.partners(alone, PROTOCOLS.get("strict").pools(gallery, None, 4))


@pytest.mark.parametrize("kind", ["white", "pink", "music"])
def test_a_mixture_has_the_ratio_that_is_said_and_the_segments_own_loudness(
    store: Store, kind: str
) -> None:
    gallery = Gallery.from_store(store, "test")
    segment, other = int(gallery.segment[0]), int(gallery.segment[-1])
    own, its = (next(segments_of(store, np.array([s])))[1] for s in (segment, other))
    if kind == "music":
        source = interference.other_music(store, {segment: other})
        assert np.array_equal(source(segment), its)
    else:
        source = interference.noise(kind)
    added = source(segment)
    mixture = interference.mixed(source, -6.0)(own.copy(), segment)
    assert mixture.std() == pytest.approx(own.std(), rel=1e-4)
    of_own, of_other = np.linalg.lstsq(np.stack([own, added], 1), mixture, rcond=None)[0]
    ratio = 20 * np.log10(of_own * own.std() / (of_other * added.std()))
    assert ratio == pytest.approx(-6.0, abs=0.1)
    silent = np.zeros_like(own)
    assert not interference.mixed(source, 0.0)(silent, segment).any()


def test_pink_noise_has_equal_power_in_every_octave() -> None:
    part = interference.noise("pink")(3).astype(float)
    power = np.abs(np.fft.rfft(part)) ** 2
    edges = len(power) / 2.0 ** np.arange(6, -1, -1)
    octaves = [power[int(low) : int(high)].sum() for low, high in itertools.pairwise(edges)]
    assert max(octaves) < 1.5 * min(octaves)
    white = np.abs(np.fft.rfft(interference.noise("white")(3).astype(float))) ** 2
    assert white[len(white) // 2 :].sum() > 10 * white[: len(white) // 32].sum()


def test_centred_pictures_have_no_mean_in_any_band() -> None:
    values = np.random.default_rng(1).uniform(0, 1, (3, 5 * 188)).astype(np.float16)
    found = harder.centred(values)
    assert found.shape == values.shape
    assert np.allclose(found.reshape(3, 5, 188).mean(axis=2), 0, atol=1e-5)
    steps = np.diff(found.reshape(3, 5, 188), axis=2)
    assert np.allclose(steps, np.diff(values.reshape(3, 5, 188).astype(float), axis=2), atol=1e-3)


def test_every_question_is_asked_of_models_and_of_floors(
    benches: list[Bench], flux: FloorBench
) -> None:
    found = harder.asked({"d0": benches, "one of them": benches[:1]}, ("flux",))
    names = [q["asked"] for q in found["questions"]]
    assert names[0] == "as it is"
    assert len(set(names)) == len(names) == 1 + 2 * len(harder.NOISE_DB) + len(harder.MUSIC_DB)
    own = flux.floor.scored("strict")
    for question in found["questions"]:
        assert set(question["floors"]) == {"flux", "flux, centred"}
        assert len(question["models"]["d0"]["S"]) == 2
        assert question["models"]["one of them"]["S"] == question["models"]["d0"]["S"][:1]
        told = question["against"]["d0"]["flux"]["S"]
        between = np.mean(question["models"]["d0"]["S"]) - question["floors"]["flux"]["S"][0]
        assert told["difference"] == pytest.approx(between, abs=1e-5)
        assert not told["stated"]  # of two seeds nothing is
    unchanged = found["questions"][0]["floors"]["flux"]
    for metric, values in unchanged.items():
        assert values == [pytest.approx(own.score(metric), abs=1e-6)]


def asked(subject: Bench | FloorBench, question: Any, form: str = "") -> Scored:
    made = functools.partial(harder.embedded, subject, question)
    return harder.answered(subject, question, made, form)


def kept(bench: Bench | FloorBench) -> set[Path]:
    return set(bench.folder.glob("harder-*"))


@pytest.mark.parametrize("damaged", [".json", ".parquet"])
def test_what_was_answered_is_read_again_unless_it_cannot_be(
    benches: list[Bench], damaged: str
) -> None:
    bench, before = benches[0], kept(benches[0])
    question = harder.Question(f"asked once ({damaged})")
    first = asked(bench, question)
    files = kept(bench) - before
    assert {file.suffix for file in files} == {".json", ".parquet"}

    def never() -> Any:
        raise AssertionError

    again = harder.answered(bench, question, never)
    assert all(np.array_equal(first.columns[n], again.columns[n]) for n in first.columns)
    file = next(file for file in files if file.suffix == damaged)
    file.write_bytes(file.read_bytes()[:20])  # a disk that was full
    with pytest.raises(AssertionError):
        harder.answered(bench, question, never)
    other = asked(bench, question)
    assert all(np.array_equal(first.columns[n], other.columns[n]) for n in first.columns)


def test_other_questions_forms_and_versions_are_asked_anew(
    flux: FloorBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    question = harder.Question("told apart")
    asked(flux, question)
    one = len(kept(flux))
    asked(flux, question, ", centred")
    asked(flux, question._replace(pool_size=5))
    assert asked(flux, question._replace(pool_size=5)).record["pool_size"]["min"] == 5
    assert len(kept(flux)) == one + 4  # of each a JSON and the ranks
    monkeypatch.setattr(harder, "VERSION", 0)
    asked(flux, question)
    assert len(kept(flux)) == one + 6


def test_noise_that_hides_everything_leaves_chance(benches: list[Bench], flux: FloorBench) -> None:
    hidden = interference.mixed(interference.noise("white"), -80)
    for subject in (flux, benches[0]):
        assert asked(subject, harder.Question("hidden", hidden)).score("a2m R@1") < 0.5
    assert asked(flux, harder.Question("as it is")).score("a2m R@1") == 1


def test_more_candidates_only_where_every_query_has_them(store: Store) -> None:
    gallery = Gallery.from_store(store, "test")
    valid = int(gallery.valid.sum())
    longest = max((gallery.valid & (gallery.recording == r)).sum() for r in gallery.recording)
    assert harder.most_candidates(gallery) == 1 + valid - longest
    alone = dataclasses.replace(gallery, composition=np.zeros_like(gallery.composition))
    assert harder.most_candidates(alone) == 1


def test_groups_that_cannot_be_compared_are_refused(
    benches: list[Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    harder.check_groups([("d0", benches), ("one", benches[:1])])
    with pytest.raises(SystemExit, match="folders of its runs"):
        harder.check_groups([("d0", [])])
    with pytest.raises(SystemExit, match="given twice"):
        harder.check_groups([("d0", benches), ("d0", benches)])
    monkeypatch.setitem(benches[1].run.record, "arm", "a4r")
    with pytest.raises(SystemExit, match="no seed of"):
        harder.check_groups([("d0", benches)])


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
    folded = told[next(n for n, line in enumerate(told) if "<details>" in line) :]
    assert sum(line.count("`d0` | `flux` |") for line in folded) == len(questions)
    first = questions[0]["models"]["d0"]["S"]
    assert f"| as it is | {np.mean(first):.3f} ({min(first):.3f}–{max(first):.3f}) |" in told[2]
    means = [f"{np.mean(questions[0]['models']['d0'][f'{side} R@1']):.3f}" for side in harder.SIDES]
    assert f"| as it is | {' / '.join(means)} |" in "\n".join(told)
