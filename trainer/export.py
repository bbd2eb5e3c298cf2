"""A trained model as a folder of files that needs neither its run nor its store.

``model.safetensors``, ``config.json`` (the whole configuration and what it reads) and ``README.md``,
a model card: what it is, what it was trained on and under which licence, how it scored and by which
protocol, and with which code.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from pipeline.base.config import from_plain
from pipeline.base.errors import RunError
from pipeline.base.files import read_json, sha256_file, write_json
from pipeline.store.reader import Store
from trainer.arms import arm_name
from trainer.checkpoint import load_weights
from trainer.config import RunConfig
from trainer.layout import EVALUATION, MODEL
from trainer.model import RetrievalModel, build_model, parameter_inventory
from trainer.run import Run, load_strictly

CONFIG, CARD = "config.json", "README.md"
SCHEMA, KIND = 1, "xmodal-model"


def export_run(run: Run, store: Store, out: Path, *, overwrite: bool = False) -> Path:
    """Write a finished run's best model to the folder ``out``.

    Parameters
    ----------
    store : the run's own; its card names it

    Raises
    ------
    RunError
        when the run is not finished or its weights were changed, or ``out`` is there already.
    """
    if not run.finished or not run.whole:
        raise RunError(
            f"{run.path} has no finished, unchanged model to export; repeat its xmodal-train command"
        )
    out = out.absolute()
    if out.exists() and not overwrite:
        raise RunError(f"{out} exists; use --overwrite to replace it")
    if out.exists() and not _is_export(out):
        raise RunError(f"{out} is no exported model: --overwrite replaces nothing else")
    staged = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    shutil.copyfile(run.path / MODEL, staged / MODEL)
    facts = _facts(run, store)
    write_json(staged / CONFIG, facts)
    (staged / CARD).write_text(_card(facts), encoding="utf-8")
    if out.exists():
        shutil.rmtree(out)
    staged.replace(out)
    return out


def load_export(path: Path) -> RetrievalModel:
    """The model of an exported folder, on the CPU, in evaluation mode.

    Raises
    ------
    RunError
        when the folder is none, or a file in it was changed.
    """
    try:
        facts = read_json(path / CONFIG)
        config = from_plain(RunConfig, facts["config"])
        wanted = facts["model_sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path} is no exported model ({error})", kind="export") from None
    if sha256_file(path / MODEL) != wanted:
        raise RunError(f"{path / MODEL} is not the one that was exported", kind="weights")
    model = build_model(config)
    load_strictly(model, load_weights(path / MODEL), path)
    return model.eval()


def _is_export(path: Path) -> bool:
    try:
        return bool(read_json(path / CONFIG)["kind"] == KIND)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _facts(run: Run, store: Store) -> dict[str, Any]:
    record = run.record
    scores = [read_json(p) for p in sorted((run.path / EVALUATION).glob("*.json"))]
    totals = parameter_inventory(build_model(run.config, "meta"))[-1]
    return {
        "schema": SCHEMA,
        "kind": KIND,
        "name": run.path.name,
        "arm": arm_name(run.config.pairs),
        "leaks": run.leaks,
        "config": record["config"],
        "reads": record["reads"],
        "model_sha256": sha256_file(run.path / MODEL),
        "parameters": {"total": totals.total, "trainable": totals.trainable},
        "data": {
            "corpus": store.record["corpus"],
            "identity": store.identity,
            "licence": store.record.get("licence"),
            "recordings": store.record["recordings"],
            "segments": store.record["segments"],
        },
        "training": {
            "steps": record["step"],
            "best": record["best"],
            "seed": run.config.seed,
            "init": record["init"],
            "commit": record["commit"],
            "versions": record["versions"],
            "device": record["device"],
        },
        "scores": [
            {k: s[k] for k in ("protocol", "split", "S", "ci95", "queries", "chance", "seed")}
            for s in scores
        ],
    }


def _card(facts: dict[str, Any]) -> str:
    data, training, config = facts["data"], facts["training"], facts["config"]
    pairs = ", ".join(f"{p['descriptor']} by {p['mechanism']}" for p in config["pairs"]) or "none"
    rows = "\n".join(
        f"| {s['protocol']} | {s['split']} | {s['S']:.3f} | {_interval(s)} | {s['queries']} |"
        for s in facts["scores"]
    )
    warning = (
        "\n**This arm is given the item that it is asked to find: its scores are no retrieval "
        "scores.**\n"
        if facts["leaks"]
        else ""
    )
    return f"""# {facts["name"]}

An audio–MIDI retrieval model: a 4-second piano segment's sound, or its notes, as one vector of
{config["head"]["embedding"]} numbers; mates are near by cosine similarity.
{warning}
| | |
|---|---|
| arm | `{facts["arm"]}` (descriptors: {pairs}) |
| preset, size | {config["preset"]}, {config["size"]} |
| parameters | {facts["parameters"]["total"]:,}, {facts["parameters"]["trainable"]:,} of them trained |
| data | {data["corpus"]}, {data["recordings"]} recordings, {data["segments"]} segments |
| store | `{data["identity"][:12]}` |
| licence of the data | {data["licence"] or "not stated by the corpus"} |
| training | {training["steps"]} updates, seed {training["seed"]}, best at {training["best"]["step"]} |
| started from | {training["init"] or "scratch"} |
| code | commit {training["commit"] or "unknown"}, torch {training["versions"]["torch"]} |
| device | {training["device"]} |

## Scores

S is the smaller recall at 10 of the two directions. The model was chosen on the validation split.

| protocol | split | S | 95 % interval | queries |
|---|---|---|---|---|
{rows}

## Arrays it reads

{chr(10).join(f"* `{name}`: `{value}`" for name, value in facts["reads"].items())}

## Use

```python
from pathlib import Path
from trainer.export import load_export

model = load_export(Path("{facts["name"]}"))
```
"""


def _interval(score: dict[str, Any]) -> str:
    interval = score["ci95"]["S"]
    return f"{interval[0]:.3f}–{interval[1]:.3f}" if interval else "—"
