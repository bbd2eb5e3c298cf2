"""From a campaign and a store to runs: each with its configuration, signature, folder and order.

The plan is kept beside the runs (``<out>/campaigns/<name>-<store>/plan.json``). It is read again as
long as the manifest, the store and the code that it was made by are the same, so that asking how far
a campaign is loads no torch; anything else, a changed default included, makes it anew: a run whose
configuration would be another one is another run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.base.config import digest, from_plain, to_plain
from pipeline.base.errors import ConfigError, StoreError
from pipeline.base.files import read_json, write_json
from pipeline.store.reader import RECORD, Store, find_newest
from trainer.campaign.manifest import Campaign, Group

if TYPE_CHECKING:
    from trainer.config import PairConfig, RunConfig
    from trainer.plan import Plan, Planner

CAMPAIGNS, PLAN_FILE = "campaigns", "plan.json"
LAUNCHED, SUBMITTED, LOGS = "launched", "submitted", "logs"
"""In the folder of a campaign: copies of the plan that tasks work by, and what tasks said."""
SCHEMA = 1
FEATURES = Path("data/features")
ALL = ("all",)
OWN_SCORES = tuple(f"{p}-{s}" for s in ("validation", "test") for p in ("paper", "strict"))
PLUGINS = ("xmodal.descriptors", "xmodal.mechanisms")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class PlannedRun:
    """One run of a campaign.

    Attributes
    ----------
    index : place in the plan; one that is started from comes before
    group, label : which group, and what people read: arm, what varies, the group where others of this
        name are in another, seed
    arm, seed, settings : what distinguishes it; ``settings`` are dotted
    signature, folder : of the run; the folder's name, below the campaign's ``out``
    after : index of the run that it starts from
    config : resolved, as plain data
    reads, missing : arrays; those that the store does not have yet
    updates, batch_size, evaluations, trainable : what it costs is counted from these
    scores : names of the evaluations that it has when it is done
    leaks : whether its scores are no retrieval scores
    """

    index: int
    group: str
    label: str
    arm: str
    seed: int
    settings: dict[str, Any]
    signature: str
    folder: str
    after: int | None
    config: dict[str, Any]
    reads: tuple[str, ...]
    missing: tuple[str, ...]
    updates: int
    batch_size: int
    evaluations: int
    scores: tuple[str, ...] = OWN_SCORES
    parameters: int
    trainable: int
    leaks: bool

    @property
    def name(self) -> str:
        """The label without the seed: runs of one name and group are seeds of one another."""
        return self.label.removesuffix(f", seed {self.seed}")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Skipped:
    """A combination of a grid that cannot be, and why."""

    what: str
    why: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Sweep:
    """A planned campaign.

    Attributes
    ----------
    name, title, summary, reference, manifest : the campaign's; ``manifest`` is its file
    key : changes with manifest, store and code
    store, store_name : its folder, and what it is called
    out : folder of run folders
    """

    schema: int = SCHEMA
    key: str
    name: str
    title: str
    summary: str
    reference: str | None
    manifest: str = ""
    store: str
    store_name: str
    out: str
    runs: tuple[PlannedRun, ...]
    skipped: tuple[Skipped, ...]

    @property
    def folder(self) -> Path:
        """Where what belongs to the campaign, and to no run, is kept."""
        return Path(self.out) / CAMPAIGNS / f"{self.name}-{self.store_name}"

    def path(self, run: PlannedRun) -> Path:
        """The folder of one of its runs."""
        return Path(self.out) / run.folder

    @property
    def missing(self) -> list[str]:
        """Arrays that some run reads and the store does not have yet."""
        return sorted({name for run in self.runs for name in run.missing})


def choose_store(campaign: Campaign, out: Path, folder: Path = FEATURES) -> tuple[Path, str]:
    """The store that a campaign is planned on where none is named, and a word about the choice.

    The one that it was planned on last, as long as it is there: a store that somebody else commits
    meanwhile must not make other runs of the same campaign. Else the newest of its corpus.
    """
    kept = kept_plan(campaign, out)
    if kept is None or not Path(kept.store, RECORD).is_file():
        store = find_newest(folder, campaign.corpus)
        return store, f"store: {store}, the newest of the corpus '{campaign.corpus}' in {folder}"
    store, word = Path(kept.store), f"store: {kept.store}, as when it was planned"
    with contextlib.suppress(StoreError):
        newest = find_newest(folder, campaign.corpus)
        if newest.resolve() != store.resolve():
            word += f" (another one is there: --store {newest})"
    return store, word


def plan_campaign(campaign: Campaign, store: Path, out: Path) -> Sweep:
    """The campaign's runs on a store; the kept plan where nothing has changed.

    Raises
    ------
    ConfigError
        for a store of another corpus, an unknown arm, settings that cannot be.
    StoreError
        when the store does not open.
    """
    opened = Store.open(store)
    corpus = _corpus(opened.name)
    if corpus != campaign.corpus:
        raise ConfigError(
            f"the campaign {campaign.name} is for the corpus '{campaign.corpus}', and {store} is of "
            f"'{corpus}'; name another --store, or change corpus in a copy of the manifest"
        )
    key = digest([SCHEMA, campaign.key, opened.record, code_version()])
    name = f"{campaign.name}-{opened.name}"
    file = out / CAMPAIGNS / name / PLAN_FILE
    kept: Sweep | None = None
    with contextlib.suppress(ConfigError):
        kept = read_plan(file)
    if kept is not None:
        _refuse_namesake(kept, campaign)
        if kept.key == key and kept.store == str(store.resolve()):
            return dataclasses.replace(kept, out=str(out))
    runs, skipped = _expanded(campaign, opened, out)
    sweep = Sweep(
        key=key,
        name=campaign.name,
        title=campaign.title,
        summary=campaign.summary,
        reference=campaign.reference,
        manifest=campaign.file,
        store=str(store.resolve()),
        store_name=opened.name,
        out=str(out),
        runs=tuple(runs),
        skipped=tuple(skipped),
    )
    write_json(file, to_plain(sweep))
    return sweep


def read_plan(file: Path) -> Sweep:
    """A kept plan.

    Raises
    ------
    ConfigError
        when the file is none.
    """
    try:
        return from_plain(Sweep, read_json(file), str(file))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{file} is no plan of a campaign ({error}); plan it again") from None


def kept_plan(campaign: Campaign, out: Path, store: Path | None = None) -> Sweep | None:
    """The plan of a campaign that was kept last, of ``store`` or of any; the store may be gone."""
    files = (out / CAMPAIGNS).glob(f"{campaign.name}-{campaign.corpus}-*/{PLAN_FILE}")
    for file in sorted(files, key=lambda f: f.stat().st_mtime, reverse=True):
        with contextlib.suppress(ConfigError):
            kept = read_plan(file)
            if store is not None and kept.store != str(store.resolve()):
                continue
            if (kept.name, _corpus(kept.store_name)) == (campaign.name, campaign.corpus):
                return dataclasses.replace(kept, out=str(out))
    return None


@cache
def code_version() -> str:
    """Changes with every file of code that could make another configuration or signature.

    Of other packages, which may bring descriptors and mechanisms, name and version are looked at.
    """
    root = Path(__file__).parents[2]
    found = hashlib.sha256()
    for file in sorted([*root.glob("trainer/**/*.py"), *root.glob("pipeline/**/*.py")]):
        found.update(str(file.relative_to(root)).encode() + b"\0" + file.read_bytes())
    for group in PLUGINS:
        for point in sorted(entry_points(group=group), key=str):
            found.update(f"{point} {point.dist.version if point.dist else ''}".encode() + b"\0")
    return found.hexdigest()


def _refuse_namesake(kept: Sweep, campaign: Campaign) -> None:
    """Plan, submissions and logs are kept by name: two manifests of one name would be one campaign."""
    moved = bool(kept.manifest) and not Path(kept.manifest).exists()
    if kept.manifest == campaign.file or moved:
        return
    raise ConfigError(
        f"{kept.folder} belongs to {kept.manifest or 'the campaign that comes with xmodal'}, and "
        f"{campaign.file or 'the campaign that comes with xmodal'} has the same name: rename the "
        "file, or give another --out"
    )


def _corpus(store_name: str) -> str:
    """Of which corpus a store is, by its folder's name ``<corpus>-<hash12>``."""
    return store_name.rpartition("-")[0]


def _expanded(
    campaign: Campaign, store: Store, out: Path
) -> tuple[list[PlannedRun], list[Skipped]]:
    from trainer.plan import Planner

    planner = Planner(store, ahead=True)
    runs: list[PlannedRun] = []
    skipped: list[Skipped] = []
    last: dict[str, list[PlannedRun]] = {}
    for group in campaign.groups:
        start = _start(group, last)
        if group.recipe is not None:
            made = _recipe(campaign, group, planner, out, start, len(runs))
            last[group.name] = made[-1:]
        else:
            made = _group(campaign, group, planner, out, start, len(runs), skipped)
            last[group.name] = made
        runs += made
    seen: dict[str, PlannedRun] = {}
    for run in runs:
        other = seen.setdefault(run.signature, run)
        if other is not run:
            raise ConfigError(
                f"the campaign {campaign.name} names one run twice: '{other.label}' of "
                f"{other.group} and '{run.label}' of {run.group}"
            )
    return _told_apart(runs), skipped


def _told_apart(runs: list[PlannedRun]) -> list[PlannedRun]:
    """Where one arm is in several groups, its runs are called by their group, too."""
    groups: dict[str, set[str]] = {}
    for run in runs:
        groups.setdefault(run.name, set()).add(run.group)
    return [
        dataclasses.replace(run, label=f"{run.name}, {run.group}, seed {run.seed}")
        if len(groups[run.name]) > 1
        else run
        for run in runs
    ]


def _start(group: Group, last: dict[str, list[PlannedRun]]) -> PlannedRun | None:
    if group.start is None:
        return None
    found = last[group.start]
    if len(found) != 1:
        raise ConfigError(
            f"runs '{group.name}' start from '{group.start}', which is {len(found)} runs: it must be "
            "one, or a recipe"
        )
    return found[0]


def _recipe(
    campaign: Campaign,
    group: Group,
    planner: Planner,
    out: Path,
    start: PlannedRun | None,
    first: int,
) -> list[PlannedRun]:
    """The stages of a recipe; they know their own budgets."""
    from trainer.recipes import stages
    from trainer.request import lay_over

    assert group.recipe is not None
    made: list[PlannedRun] = []
    for stage in stages(group.recipe, campaign.size):
        seed = (group.seeds or campaign.seeds)[0]
        over = {**group.settings, "seed": seed}
        config = lay_over(campaign.preset, campaign.size, stage.over, over)
        start = _planned(planner, config, group, out, start, first + len(made), {}, stage.name)
        made.append(start)
    return made


def _group(
    campaign: Campaign,
    group: Group,
    planner: Planner,
    out: Path,
    start: PlannedRun | None,
    first: int,
    skipped: list[Skipped],
) -> list[PlannedRun]:
    from trainer.request import lay_over
    from trainer.resolve import with_pairs

    made: list[PlannedRun] = []
    for varied in group.variations():
        layers = [campaign.settings, group.settings, _nested(varied)]
        base = lay_over(campaign.preset, campaign.size, *layers)
        for pairs in pairs_of(group):
            own: list[PlannedRun] = []
            try:
                resolved = with_pairs(base, pairs)
                for seed in group.seeds or campaign.seeds:
                    config = dataclasses.replace(resolved, seed=seed)
                    index = first + len(made) + len(own)
                    own.append(_planned(planner, config, group, out, start, index, varied))
            except ConfigError as error:
                if group.arms:
                    raise
                skipped.append(Skipped(what=_said(pairs), why=str(error)))
            else:
                made += own
    return made


def pairs_of(group: Group) -> list[tuple[PairConfig, ...]]:
    """What a group injects, named or as a grid; resolving tells whether it can be made."""
    from pipeline.descriptors import DESCRIPTORS
    from trainer.arms import arm_pairs, pair
    from trainer.mechanisms import MECHANISMS

    if group.arms:
        return [arm_pairs(name) for name in group.arms]
    descriptors, mechanisms = group.descriptors, group.mechanisms
    if descriptors == ALL:
        descriptors = tuple(n for n, d in DESCRIPTORS.items() if d.role == "descriptor")
    if mechanisms == ALL:
        mechanisms = tuple(n for n, _ in MECHANISMS.items())
    return [(pair(d, m),) for d in descriptors for m in mechanisms]


def _planned(
    planner: Planner,
    config: RunConfig,
    group: Group,
    out: Path,
    start: PlannedRun | None,
    index: int,
    varied: dict[str, Any],
    name: str = "",
) -> PlannedRun:
    from trainer.plan import RunRequest
    from trainer.records import file_name, scores_due

    request = RunRequest(config=config, store=planner.store.path, out=out)
    plan: Plan = planner.plan(request, None if start is None else start.signature)
    budget, evaluation = plan.config.budget, plan.config.evaluation
    words = [f"{key.removesuffix('.name')} {value}" for key, value in varied.items()]
    return PlannedRun(
        index=index,
        group=group.name,
        label=", ".join([name or plan.arm, *words, f"seed {plan.config.seed}"]),
        arm=plan.arm,
        seed=plan.config.seed,
        settings=varied,
        signature=plan.signature,
        folder=plan.folder.name,
        after=None if start is None else start.index,
        config=to_plain(plan.config),
        reads=plan.reads,
        missing=plan.missing,
        updates=budget.updates,
        batch_size=budget.batch_size,
        evaluations=sum(evaluation.due(e, budget.epochs) for e in range(1, budget.epochs + 1)),
        scores=tuple(file_name(*asked) for asked in scores_due(plan.config.pool_seed)),
        parameters=plan.parameters,
        trainable=plan.trainable,
        leaks=plan.leaks,
    )


def _nested(varied: dict[str, Any]) -> dict[str, Any]:
    """Dotted settings as nested tables."""
    found: dict[str, Any] = {}
    for path, value in varied.items():
        *parents, leaf = path.split(".")
        place = found
        for key in parents:
            place = place.setdefault(key, {})
        place[leaf] = value
    return found


def _said(pairs: tuple[PairConfig, ...]) -> str:
    return " + ".join(f"{p.descriptor} {p.mechanism}" for p in pairs)
