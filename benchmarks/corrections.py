"""What each correction of the reference is worth, one at a time: the figures of docs/method.md.

    python -m benchmarks.corrections [--out runs] [--jobs 2]

``benchmarks/campaigns/corrections.toml`` on the demo: the corrected preset, and the same with one
setting of the reference put back, three seeds each. Differences are paired on the same queries, and
stated by the rules of ``xmodal-compare`` (here the setting is what is asked about), each against the
first group of the same descriptors and mechanisms. And what the seed of the paper's pools does to the
score of one model.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from benchmarks.common import command, environment, write
from benchmarks.reproduced import difference_of, scores_of
from benchmarks.scores import built
from benchmarks.tiers import OWN
from pipeline.store import Store
from trainer.analyses.bench import Bench
from trainer.campaign.manifest import read_campaign
from trainer.campaign.plan import plan_campaign
from trainer.layout import EVALUATION
from trainer.records import file_name, read_scored
from trainer.retrieval.compare import Scored, compare
from trainer.run import open_run

CAMPAIGN = OWN / "corrections.toml"
POOL_SEEDS = 20


def main() -> None:
    """Train what is missing, write ``benchmarks/results/corrections.json``."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("runs"))
    parser.add_argument("--jobs", type=int, default=2)
    arguments = parser.parse_args()
    store = built("demo")
    command("xmodal-features", "add", store, "--descriptors", "A4_level")  # what FiLM pools for A4
    given = (CAMPAIGN, "--tiny", "--store", store, "--out", arguments.out)
    command("xmodal-sweep", "run", *given, "--jobs", arguments.jobs, "--threads", 1)
    sweep = plan_campaign(read_campaign(str(CAMPAIGN), tiny=True), store, arguments.out)
    groups: dict[str, list[Scored]] = {}
    firsts: dict[str, str] = {}  # by what the runs are given, the group that is as it is
    beside: dict[str, str] = {}
    for run in sweep.runs:
        file = sweep.path(run) / EVALUATION / file_name("strict", "test")
        groups.setdefault(run.group, []).append(read_scored(file, run.folder, run.seed))
        beside[run.group] = firsts.setdefault(str(run.config["pairs"]), run.group)
    opened = Store.open(store)
    bench = Bench(open_run(sweep.path(sweep.runs[0])), opened, "test")
    pools = scores_of([bench.scored("paper", seed).record for seed in range(POOL_SEEDS)])
    write(
        "corrections",
        {
            "environment": environment(),
            "identity": opened.identity,
            "updates": sweep.runs[0].updates,
            "batch_size": sweep.runs[0].config["budget"]["batch_size"],
            "groups": [
                {
                    "name": name,
                    **scores_of([s.record for s in scored]),
                    "beside": beside[name],
                    "against": None
                    if beside[name] == name
                    else _against(groups[beside[name]], scored),
                }
                for name, scored in groups.items()
            ],
            "pools": {"run": sweep.runs[0].folder, "S": pools["S"], "R@1": pools["R@1"]},
        },
    )


def _against(first: list[Scored], scored: list[Scored]) -> dict[str, Any]:
    found = compare(first, scored)
    return {**difference_of(found), "units": found["units"]}


if __name__ == "__main__":
    main()
