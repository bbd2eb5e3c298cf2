"""From a campaign and a store to a plan, made once and kept.

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

from pipeline.base.config import digest, from_plain, to_plain
from pipeline.base.errors import ConfigError, StoreError
from pipeline.base.files import read_json, write_json
from pipeline.store.reader import RECORD, Store, find_newest
from trainer.campaign.expand import expanded
from trainer.campaign.manifest import Campaign
from trainer.campaign.sweep import CAMPAIGNS, PLAN_FILE, SCHEMA, Sweep

FEATURES = Path("data/features")
PLUGINS = ("xmodal.descriptors", "xmodal.mechanisms")


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
    runs, skipped = expanded(campaign, opened, out)
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
