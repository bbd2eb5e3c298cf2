"""A trained model as a folder of files that needs neither its run nor its store.

``model.safetensors``, ``config.json`` and ``README.md``, a model card: what it is, what it was trained
on and under which licence, how it scored and by which protocol, and with which code.

``config.json`` holds of the run's record what is true wherever the folder is (no path), so that
:func:`trainer.run.open_run` opens it like a run; the facts about its data; and its scores.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from pipeline.base.errors import RunError
from pipeline.base.files import atomic_write, read_json, write_json
from pipeline.store.reader import Store
from trainer.layout import EVALUATION, MODEL
from trainer.run import EXPORT_FILE, EXPORT_KIND, EXPORT_SCHEMA, Run, beginning

CARD = "README.md"
KEPT = (
    "signature arm status config reads parameters leaks model_sha256 step best commit versions device"
).split()
"""Of the run's record, as it is."""
TOLD = ("protocol", "split", "S", "ci95", "ci_kind", "queries", "chance", "seed")
"""Of every score."""


def export_run(run: Run, store: Store, out: Path, *, overwrite: bool = False) -> Path:
    """Write a finished run's best model to the folder ``out``.

    Parameters
    ----------
    store : the run's own; its card names it

    Raises
    ------
    RunError
        when the run is not finished or its weights were changed, it is an exported model itself, or
        ``out`` is there already.
    """
    check_exportable(run)
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
    write_json(staged / EXPORT_FILE, facts)
    (staged / CARD).write_text(_card(facts), encoding="utf-8")
    if out.exists():
        shutil.rmtree(out)
    staged.replace(out)
    return out


def pack_model(run: Run, out: Path) -> None:
    """The model alone in the folder ``out``, without its card, scores and data's facts.

    For what has to carry its model about; the store that the run was trained on need not be there.
    """
    if not run.exported:
        check_exportable(run)
    out.mkdir(parents=True, exist_ok=True)
    with (run.path / MODEL).open("rb") as source, atomic_write(out / MODEL) as copy:
        shutil.copyfileobj(source, copy)
    write_json(out / EXPORT_FILE, _record(run))


def check_exportable(run: Run) -> None:
    """Refuse what has no model to export, or is exported already."""
    if run.exported:
        raise RunError(f"{run.path} is an exported model already: copy the folder")
    if not run.finished or not run.whole:
        raise RunError(
            f"{run.path} has no finished, unchanged model to export; repeat its xmodal-train command"
        )


def _is_export(path: Path) -> bool:
    try:
        return bool(read_json(path / EXPORT_FILE)["kind"] == EXPORT_KIND)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _facts(run: Run, store: Store) -> dict[str, Any]:
    scores = [read_json(p) for p in sorted((run.path / EVALUATION).glob("*.json"))]
    return {
        **_record(run),
        "data": {
            "corpus": store.record["corpus"],
            "identity": store.identity,
            "licence": store.record.get("licence"),
            "recordings": store.record["recordings"],
            "segments": store.record["segments"],
        },
        "scores": [{k: s[k] for k in TOLD} for s in scores],
    }


def _record(run: Run) -> dict[str, Any]:
    """Of the run's record what is true wherever the model is."""
    init = run.record["init"]
    return {
        "schema": EXPORT_SCHEMA,
        "kind": EXPORT_KIND,
        "name": run.path.name,
        **{key: run.record[key] for key in KEPT},
        "init": None if init is None else Path(init).name,
        "beginning": beginning(run),
        "store": {"name": run.record["store"]["name"]},
    }


def _card(facts: dict[str, Any]) -> str:
    data, config = facts["data"], facts["config"]
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
{config["head"]["embedding"]} numbers; mates are alike.
{warning}
| | |
|---|---|
| arm | `{facts["arm"]}` (descriptors: {pairs}) |
| preset, size | {config["preset"]}, {config["size"]} |
| parameters | {facts["parameters"]["total"]:,}, {facts["parameters"]["trainable"]:,} of them trained |
| data | {data["corpus"]}, {data["recordings"]} recordings, {data["segments"]} segments |
| store | `{data["identity"][:12]}` |
| licence of the data | {data["licence"] or "not stated by the corpus"} |
| training | {facts["step"]} updates, seed {config["seed"]}, best at {facts["best"]["step"]} |
| started from | {facts["init"] or "scratch"} |
| code | commit {facts["commit"] or "unknown"}, torch {facts["versions"]["torch"]} |
| device | {facts["device"]} |

## Scores

S is the smaller recall at 10 of the two directions. The model was chosen on the validation split.

| protocol | split | S | 95 % interval | queries |
|---|---|---|---|---|
{rows}

## Arrays it reads

{chr(10).join(f"* `{name}`: `{value}`" for name, value in facts["reads"].items())}

## Use

```python
import xmodal

model = xmodal.load_model("{facts["name"]}")  # the path of this folder
sound, notes = xmodal.embed_audio(model, "a.wav"), xmodal.embed_midi(model, "a.mid")
similarity = xmodal.likeness(model, sound, notes)
```

Vectors of windows of four seconds, one a second. Beyond the plain cosine, similarity allows for clocks
that are a little apart where a model's vectors are sharp in time. The package's commands take this
folder where they take that of a run.
"""


def _interval(score: dict[str, Any]) -> str:
    interval = score["ci95"]["S"]
    return f"{interval[0]:.3f}–{interval[1]:.3f} ({score['ci_kind']})" if interval else "—"
