"""What docs/evaluation.md lists: floors and analyses from their registries, findings from results."""

from __future__ import annotations

from typing import Any

from benchmarks.cells import load, machine, row
from trainer.analyses import ANALYSES
from trainer.analyses.comparison import verdict
from trainer.retrieval.baselines import BASELINES
from trainer.retrieval.intervals import BLOCKS, MIN_RECORDINGS, RECORDINGS, TOO_NARROW


def baselines() -> str:
    """Every training-free floor."""
    lines = ["| floor | compares |", "|---|---|"]
    lines += [row(f"`{name}`", baseline.summary) for name, baseline in BASELINES.items()]
    return "\n".join(lines)


def analyses() -> str:
    """Every analysis and its variants."""
    lines = ["| analysis | asks | `paper` | `sound` |", "|---|---|---|---|"]
    for name, analysis in ANALYSES.items():
        variants = [analysis.variants.get(v, "—") for v in ("paper", "sound")]
        lines.append(row(f"`{name}`", analysis.question, *variants))
    return "\n".join(lines)


def findings() -> str:
    """The tables of the analyses of the demo's runs."""
    data = load("analyses-demo")
    parts = [
        f"Runs of size {data['size']}, {data['updates']} updates, on the demo's {data['split']} split "
        f"({data['segments']} segments, {data['recordings']} recordings), {machine(data)}: small "
        "models and one rendered corpus. They show what the analyses do; of one seed each, they state "
        "nothing about arms. `python -m benchmarks.analyses` measures them again."
    ]
    if data["controls"]:
        lines = [_control(name, c["difference"]) for name, c in data["controls"].items()]
        parts.append("What A4 itself is worth to `a4r`, on the test split:\n\n" + "\n".join(lines))
    for name, analysis in ANALYSES.items():
        tables = {t["variant"]: t for t in data["tables"] if t["analysis"] == name}
        if not tables:
            continue
        parts.append(f"### {analysis.title}")
        for variant, found in tables.items():
            if (found["picture"] or "") != "":
                parts.append(f"![{analysis.title}, {variant}](images/{found['picture']})")
            lines = [row(*found["head"]), "|---" * len(found["head"]) + "|"]
            lines += [row(*map(_cell, r)) for r in found["rows"]]
            table = "\n".join(lines) + _drawn(name, found["head"], data["recordings"])
            summary = f"`{variant}`: {len(found['rows'])} rows"
            parts.append(f"<details><summary>{summary}</summary>\n\n{table}\n\n</details>")
    return "\n\n".join(parts)


def _drawn(name: str, head: list[str], recordings: int) -> str:
    """A line below a table with intervals: what was drawn for them, where no column says it."""
    if "from" not in head or "drawn" in head:
        return ""
    if name == "similarity":
        return f"\n\nIntervals: {recordings} recordings left out one by one (jackknife)."
    if recordings >= MIN_RECORDINGS:
        return f"\n\nIntervals: {recordings} {RECORDINGS} drawn anew."
    return f"\n\nIntervals: {BLOCKS} of {recordings} recordings drawn anew. {TOO_NARROW}"


def _control(name: str, found: dict[str, Any]) -> str:
    m = found["S"]
    low, high = m["ci95"]
    return (
        f"* S strict {m['second']:.3f}, trained with `{name}` in its place {m['first']:.3f}: "
        f"{m['difference']:+.3f} [{low:+.3f}, {high:+.3f}], {found['seeds'][0]} seeds each, "
        f"{found['units']} {found['unit']}: {verdict(m, found)}."
    )


def _cell(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
