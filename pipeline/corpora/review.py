"""A corpus' compositions, laid out for a person to check.

One row per composition and spelling: by which rule it was found, what the title leaves open
(``doubt``), and which other compositions hold some of the same music (``shares``: a set and its
pieces). Compositions that stand in several splits are listed by name.
"""

from __future__ import annotations

import csv
import io
from collections import Counter, defaultdict
from typing import Any

from pipeline.corpora.compositions import VERSION, find_work, overlap
from pipeline.corpora.exceptions import find_exception
from pipeline.corpora.recordings import Recording

COLUMNS = ("composition", "composer", "title", "recordings", "splits", "rule", "doubt", "shares")


def review(recordings: list[Recording]) -> dict[str, Any]:
    """The table and what stands out in it, as plain data."""
    works: dict[str, list[Recording]] = defaultdict(list)
    for r in recordings:
        works[r.composition].append(r)
    crossing = {k for k, members in works.items() if len({r.split for r in members}) > 1}
    shared = _shared(list(works))
    rows = []
    for key in sorted(works):
        spellings = defaultdict(list)
        for r in works[key]:
            spellings[(r.composer, r.title, *_why(r))].append(r)
        for (composer, title, rule, doubt), members in sorted(spellings.items()):
            rows.append(
                {
                    "composition": key,
                    "composer": composer,
                    "title": title,
                    "recordings": len(members),
                    "splits": _splits(members),
                    "rule": rule,
                    "doubt": doubt,
                    "shares": " ".join(shared[key]),
                }
            )
    return {
        "rules_version": VERSION,
        "recordings": len(recordings),
        "titles": len({(r.composer, r.title) for r in recordings}),
        "compositions": len(works),
        "in_several_splits": {key: _splits(works[key]) for key in sorted(crossing)},
        "sharing_music": {key: others for key, others in sorted(shared.items()) if others},
        "doubtful": sum(row["recordings"] for row in rows if row["doubt"]),
        "rules": dict(sorted(Counter(_why(r)[0] for r in recordings).items())),
        "rows": rows,
    }


def _why(r: Recording) -> tuple[str, str]:
    """By which rule a recording has its composition, and what its title leaves open."""
    if r.extra.get("composition", "").strip():
        return "column", ""
    if exception := find_exception(r.key, r.title):
        return "exception", exception.reason
    work = find_work(r.composer, r.title)
    return work.rule, work.doubt


def _shared(keys: list[str]) -> dict[str, list[str]]:
    """Per composition the other ones that hold some of its music."""
    by_composer = defaultdict(list)
    for key in keys:
        by_composer[key.partition("-")[0]].append(key)
    return {
        key: sorted(o for o in by_composer[key.partition("-")[0]] if overlap(key, o))
        for key in keys
    }


def _splits(recordings: list[Recording]) -> str:
    counts = Counter(r.split for r in recordings)
    return ", ".join(f"{split} {count}" for split, count in sorted(counts.items()))


def as_csv(rows: list[dict[str, Any]]) -> str:
    """The table as CSV."""
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def as_text(found: dict[str, Any], name: str) -> str:
    """Counts, and what deserves a look."""
    rules = ", ".join(f"{count} by {rule}" for rule, count in found["rules"].items())
    sets = {  # every pair is listed at the one that holds more
        key: others
        for key, others in found["sharing_music"].items()
        if any(len(others) > len(found["sharing_music"][o]) or key < o for o in others)
    }
    lines = [
        f"{name}: {found['recordings']} recordings, {found['titles']} titles, "
        f"{found['compositions']} compositions (rules {found['rules_version']}: {rules})",
        "in several splits:",
        *(f"  {key:<32} {splits}" for key, splits in found["in_several_splits"].items()),
        "with music in common:",
        *(f"  {key:<32} {', '.join(others)}" for key, others in sets.items()),
        f"doubtful titles ({found['doubtful']} recordings):",
        *(
            f"  {row['composition']:<32} {row['recordings']:>3}  {row['title']}  [{row['doubt']}]"
            for row in found["rows"]
            if row["doubt"]
        ),
    ]
    return "\n".join(lines)
