"""The tables of README and docs, written between their markers from ``benchmarks/results/*.json``.

python -m benchmarks.tables
"""

from __future__ import annotations

import re
import subprocess
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.campaign_words import campaigns, sweeps
from benchmarks.cells import load, machine, row
from benchmarks.evaluation_words import analyses, baselines, findings
from benchmarks.harder_words import harder
from benchmarks.method_words import corrections, selection
from benchmarks.results_words import analyses as scratch_analyses
from benchmarks.results_words import costs as reproduction_costs
from benchmarks.results_words import not_run, rest, scratch, strong
from benchmarks.search_words import costs as search_costs
from benchmarks.search_words import found as search_found
from benchmarks.speed import evaluation, speed
from benchmarks.training_table import training
from benchmarks.training_words import arms, choices, costs, mechanisms
from pipeline.descriptors import DESCRIPTORS
from pipeline.info import MEAN_NOTES_PER_SEGMENT, describe_registry
from trainer.analyses.comparison import verdict
from trainer.presets import preset_config
from trainer.retrieval.intervals import RECORDINGS, TOO_NARROW

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
DESCRIPTORS_PAGE = ROOT / "docs/descriptors.md"
QUALITY_PAGE = ROOT / "docs/quality.md"
CLUSTERS_PAGE = ROOT / "docs/clusters.md"
TRAINING_PAGE = ROOT / "docs/training.md"
EVALUATION_PAGE = ROOT / "docs/evaluation.md"
CAMPAIGNS_PAGE = ROOT / "docs/campaigns.md"
SEARCH_PAGE = ROOT / "docs/search.md"
RESULTS_PAGE = ROOT / "docs/results.md"
METHOD_PAGE = ROOT / "docs/method.md"
PAGES = (
    README, DESCRIPTORS_PAGE, QUALITY_PAGE, CLUSTERS_PAGE, TRAINING_PAGE, EVALUATION_PAGE,
    CAMPAIGNS_PAGE, SEARCH_PAGE, RESULTS_PAGE, METHOD_PAGE,
)  # fmt: skip
SCORES = " and ".join(f"`python -m benchmarks.scores --name {c}`" for c in ("demo", "maps"))
CORPORA = {"demo": "demo (rendered)", "maps": "real recordings (MAPS)"}


def main() -> None:
    """Rewrite every block of every page."""
    for page in PAGES:
        page.write_text(filled(page.read_text(encoding="utf-8")), encoding="utf-8")


def filled(text: str) -> str:
    """``text`` with every marked block made anew."""
    for name, make in BLOCKS.items():
        if f"<!-- {name} -->" not in text:
            continue
        pattern = re.compile(rf"<!-- {name} -->\n.*?<!-- /{name} -->", re.DOTALL)
        made = f"<!-- {name} -->\n{make()}\n<!-- /{name} -->"
        text = pattern.sub(made.replace("\\", r"\\"), text)
    return text


def scores() -> str:
    """Arms beside every floor, both corpora, both protocols."""
    head = (
        "corpus, scored, S strict, S paper, R@1 audio → MIDI, R@1 MIDI → audio, "
        "without copies audio → MIDI, MIDI → audio, first of all segments"
    )
    columns = head.split(", ")
    lines = [row(*columns), "|---" * len(columns) + "|"]
    notes = []
    for name, label in CORPORA.items():
        data = load(f"scores-{name}")
        test = data["splits"]["test"]
        keys = ("a2m_R@1", "m2a_R@1", "a2m_no_copy", "m2a_no_copy", "full_R@1")
        for arm, s in data["summary"].items():
            cells = [spread(s["strict"]["S"]), spread(s["paper"]["S"])]
            cells += [spread(s["strict"][k]) for k in keys]
            lines.append(row(label, f"`{arm}`", *cells))
        for floor, found in data["floors"].items():
            lines.append(row(label, f"floor: `{floor}`", *_floor(found)))
        runs = [r for arm in data["arms"].values() for r in arm]
        minutes = max(r["training_seconds"] for r in runs) / 60
        strict = runs[0]["test"]["strict"]
        alone = strict["no_copy"]["queries"] / strict["queries"]
        notes.append(
            f"* {label}: {data['splits']['train']['recordings']} recordings to train on, "
            f"{test['recordings']} to test ({test['segments']} segments, {test['compositions']} "
            f"compositions never trained on; {alone:.0%} of the queries have no copy in their "
            f"recording), {runs[0]['preset']} preset, size {runs[0]['size']}, "
            f"{runs[0]['updates']} updates, at most {minutes:.1f} minutes on {machine(data)}. "
            f"Chance of S: {strict['chance']['R@10']:.3f}."
        )
        kinds = {found["strict"]["ci_kind"] for found in data["floors"].values()}
        too_narrow = "" if kinds == {RECORDINGS} else f" {TOO_NARROW}"
        notes.append(f"  * Floors: {' and '.join(sorted(kinds))} drawn anew.{too_narrow}")
        notes += [f"  * {_difference(c)}" for c in data["differences"]["strict"]]
    notes.append(f"* Made by `make scores`: {SCORES}.")
    return "\n".join([*lines, "", *notes])


def _floor(found: dict[str, Any]) -> list[str]:
    strict, paper = found["strict"], found["paper"]
    low, high = strict["ci95"]["S"]
    sides = ("a2m", "m2a")
    values = [paper["S"], *(strict[s]["R@1"] for s in sides)]
    values += [strict["no_copy"][s]["R@1"] for s in sides]
    values.append(min(strict["full"][s]["R@1"] for s in sides))
    return [f"{strict['S']:.3f} [{low:.3f}, {high:.3f}]", *(f"{v:.3f}" for v in values)]


def _difference(c: dict[str, Any]) -> str:
    """What may be said of a pair of arms."""
    m = c["found"]["S"]
    low, high = m["ci95"]
    seeds = " and ".join(map(str, reversed(c["found"]["seeds"])))
    p = "" if m["p_seeds"] is None else f", p over seeds {m['p_seeds']:.2g}"
    p += "" if m["smallest_p"] is None else f" (at least {m['smallest_p']:.2g} possible)"
    return (
        f"S strict of `{c['second']}` against `{c['first']}`: {m['difference']:+.3f} "
        f"[{low:+.3f}, {high:+.3f}]{p}, p over queries {m['p_queries']:.2g}, seeds {seeds}, by "
        f"{c['found']['units']} {c['found']['unit']}: {verdict(m, c['found'])}."
    )


def descriptors() -> str:
    """The registry of this repository, with what each costs."""
    measured, agreement = load("descriptors")["descriptors"], load("agreement")
    lines = [
        "| name | side | shape | unit | bytes | cost | plain | error | what |",
        "|---|---|---|---|--:|--:|--:|--:|---|",
    ]
    for d in describe_registry()[0]:
        module = type(DESCRIPTORS.get(d["name"])).__module__
        if not module.startswith("pipeline."):
            continue
        file = module.replace(".", "/") + ".py"
        lines.append(
            row(
                f"[`{d['name']}`](../{file})",
                d["side"],
                d["shape"],
                d["units"],
                f"{d['bytes_per_segment']:,}",
                f"{d['cost_ms']:g} ms",
                f"{measured[d['name']]['ratio']:.0f} ×",
                f"{agreement['descriptors'][d['name']]['largest_difference']:.0e}",
                d["summary"],
            )
        )
    least = min(d["correlation"] for d in agreement["descriptors"].values())
    note = (
        f"Bytes: of a segment as float16, with {MEAN_NOTES_PER_SEGMENT} notes. Cost: a segment on one "
        f"core, the transform included, {machine(load('descriptors'))}. Error: the largest difference "
        f"from a float64 definition over {agreement['segments']} segments of {agreement['source']}; "
        f"no correlation is below {least:.7f} ({machine(agreement)})."
    )
    return "\n".join([*lines, "", note])


def example() -> str:
    """The example package, file by file."""
    folder = ROOT / "docs/examples/xmodal-flatness"
    parts = []
    for name, language in (("pyproject.toml", "toml"), ("xmodal_flatness.py", "python")):
        text = (folder / name).read_text(encoding="utf-8").rstrip()
        parts.append(f"`{name}`\n\n```{language}\n{text}\n```")
    return "\n\n".join(parts)


def budgets() -> str:
    """Default training budgets, from the presets themselves."""
    lines = ["| preset, size | epochs × batches × batch size |", "|---|---|"]
    for preset in ("sound", "paper"):
        for size in ("tiny", "base"):
            b = preset_config(preset, size).budget
            cell = f"{b.epochs} × {b.batches_per_epoch} × {b.batch_size}"
            lines.append(row(f"{preset}, {size}", cell))
    return "\n".join(lines)


def tree() -> str:
    """Every tracked file with the first line of its docstring or comment."""
    listed = subprocess.run(
        ["git", "ls-files"], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout.split()
    lines = ["| file | what |", "|---|---|"]
    for name in listed:
        if name.startswith(("tests/", "benchmarks/results/")) or name.endswith(SKIPPED):
            continue
        lines.append(f"| `{name}` | {first_line(ROOT / name)} |")
    lines.append("| `tests/` | mirrors the packages; `oracles.py` judges without importing them |")
    lines.append(
        "| `benchmarks/results/` | what the benchmarks wrote: source of every number here |"
    )
    return "\n".join(lines)


SKIPPED = ("py.typed", ".png", "LICENSE", ".gitignore", "README.md", "CHANGELOG.md")
FIRST = {
    "Makefile": "the commands of the project",
    "pyproject.toml": "packaging, extras, ruff, mypy, import contracts",
    "CONTRIBUTING.md": "adding a descriptor and a mechanism",
    "compositions.csv": "titles that the rules of composition identity misread, each with its reason",
}


def first_line(path: Path) -> str:
    """What a file says of itself in its first line."""
    known = FIRST.get(path.relative_to(ROOT).as_posix())
    if known:
        return known
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        found = re.match(r'\s*"""(.*?)(?:\n\n|"""|\Z)', text, re.DOTALL)
        line = " ".join(found[1].split()) if found else ""
    elif path.suffix in (".css", ".js"):
        line = " ".join(text.partition("*/")[0].removeprefix("/*").split())
    elif path.suffix == ".toml" and text.startswith("title = "):
        line = tomllib.loads(text)["title"]
    else:
        line = next((t for t in text.splitlines() if t.startswith("#") and t[1:2] != "!"), "")
        line = line.lstrip("# ")
    return line.rstrip(".").replace("|", "·")


def spread(s: dict[str, Any]) -> str:
    """Mean over seeds and the range."""
    if s["seeds"] == 1:
        return f"{s['mean']:.3f} (one seed)"
    return f"{s['mean']:.3f} ({s['low']:.3f}–{s['high']:.3f})"


def quality() -> str:
    """Audio against notes: true pairs, the control, shifted pairs, cost."""
    data = load("quality")
    lines = [
        "| | recordings | correlation at the peak | lag of the peak, ms | control: at that lag; best "
        "of 61 lags | bandwidth, Hz | shifted by 90 ms: failures | true pairs: failures |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, g in data["groups"].items():
        cells = [f"{g[k]['median']:{f}} ({g[k]['low']:{f}} to {g[k]['high']:{f}})" for k, f in (
            ("correlation", ".2f"), ("lag_ms", ".0f"), ("bandwidth_hz", ".0f"),
        )]  # fmt: skip
        control = [g[k]["median"] for k in ("control_at_own_lag", "control_best_of_61_lags")]
        shifted = f"{g['shifted_pairs_failing']} of {g['shifted_pairs']}"
        lines.append(
            row(name, str(g["recordings"]), cells[0], cells[1], "{:.2f}; {:.2f}".format(*control),
                cells[2], shifted, str(g["true_pairs_failing"]))
        )  # fmt: skip
    cost = data["cost"]
    lines += [
        "",
        f"Medians (lowest to highest). The pass takes {100 * cost['share_of_the_rest']:.1f} % of the "
        f"CPU time of the rest of the stage ({100 * min(cost['shares']):.1f} to "
        f"{100 * max(cost['shares']):.1f} % in {len(cost['shares'])} runs), "
        f"{cost['ms_per_recording']:.1f} ms a recording; measured on {data['source']}, "
        f"{machine(data)}.",
    ]
    return "\n".join(lines)


def memory() -> str:
    """What a job was seen to hold, and ingest of a short and a long recording."""
    data = load("memory")
    job, peaks = data["job"], data["job"]["peak_mib"]
    plan, ingest, most = peaks["plan"], peaks["ingest"], max(peaks.values())
    short, long = data["one_minute"]["peak_mib"], data["three_hours"]["peak_mib"]
    return (
        f"Measured at MAESTRO's size ({job['segments']:,} segments, {job['note_rows']:,} note rows, "
        f"files of {job['audio_shard_mib']} MiB of audio, all {job['descriptors']} descriptors): a "
        f"job holds {plan} MiB once it has made the plan, {ingest} MiB with ingest and {most} MiB at "
        f"its peak, in describe. Ingest alone holds {short} MiB for a recording of one minute and "
        f"{long} MiB for one of three hours. {machine(data)}; `python -m benchmarks.memory`."
    )


BLOCKS: dict[str, Callable[[], str]] = {
    "scores": scores,
    "budgets": budgets,
    "speed": speed,
    "training": training,
    "evaluation": evaluation,
    "mechanisms": mechanisms,
    "arms": arms,
    "costs": costs,
    "choices": choices,
    "tree": tree,
    "descriptors": descriptors,
    "example": example,
    "quality": quality,
    "memory": memory,
    "baselines": baselines,
    "analyses": analyses,
    "findings": findings,
    "campaigns": campaigns,
    "sweeps": sweeps,
    "search": search_found,
    "searching": search_costs,
    "scratch": scratch,
    "scratch-analyses": scratch_analyses,
    "strong": strong,
    "strong-rest": rest,
    "harder": harder,
    "corrections": corrections,
    "selection": selection,
    "reproduction-costs": reproduction_costs,
    "not-run": not_run,
}


if __name__ == "__main__":
    main()
