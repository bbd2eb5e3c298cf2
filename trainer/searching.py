"""What ``xmodal-search`` does, once its flags are read."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.base.console import Console, program
from pipeline.base.errors import EXIT_DATA, StoreError, UsageError, XmodalError
from pipeline.base.files import atomic_write
from pipeline.store.reader import Store, find_newest
from trainer.devices import pick_device
from trainer.export import check_exportable, pack_model
from trainer.search.answers import Answer
from trainer.search.asking import ask
from trainer.search.embedders import ModelEmbedder, embedder_of
from trainer.search.folder import Index, open_index, read_record
from trainer.search.indexing import make_index
from trainer.search.nearest import has_faiss
from trainer.search.queries import MIDI_SUFFIXES, Query, read_query

FEATURES, INDEXES = Path("data/features"), Path("data/indexes")
LARGE = 300_000  # products a window from which an exact search is felt
SOUND_SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".aif", ".aiff", ".au", ".w64")


def index(
    store_path: Path | None,
    run: Path | None,
    baseline: str | None,
    out: Path | None,
    approximate: bool,
    overwrite: bool,
    device: str,
    console: Console,
) -> None:
    """Make an index of a store, or bring it up to date."""
    embedder = embedder_of(run, baseline, pick_device(device))
    if isinstance(embedder, ModelEmbedder) and not embedder.run.exported:
        check_exportable(embedder.run)  # before hours of embedding with weights that still change
    if store_path is None:
        store_path = find_newest(FEATURES)
        console.say(f"store: {store_path} (the newest in {FEATURES})")
    store = Store.open(store_path)
    target = out or INDEXES / f"{store.record['corpus']}-{embedder.name}"
    with console.progress(f"embed {embedder.name}", int(store.segments.valid.sum())) as update:
        made = make_index(
            store,
            embedder,
            target,
            keep_model=partial(pack_model, embedder.run)
            if isinstance(embedder, ModelEmbedder)
            else None,
            approximate=approximate,
            overwrite=overwrite,
            progress=update,
            say=console.say,
        )
    lines = [
        f"{target}: {made.rows:,} segments of {made.recordings} recordings, {made.embedded:,} "
        f"embedded now, {made.kept:,} kept"
        + (f", {made.gone} recordings gone from the store" if made.gone else "")
    ]
    for side, built in (made.approximate or {}).items():
        lines.append(
            f"  approximate, {side}: finds {built['recall']:.1%} of the ten nearest, looking into "
            f"{built['probes']} groups, built in {built['seconds']:.0f} s"
        )
    if made.approximate is None and made.rows * embedder.comparison.products > LARGE:
        lines.append("  for answers in less time: --approximate")
    lines.append(f"next: {program('xmodal-search')} query FILE --index {target}")
    console.result(made.plain(), "\n".join(lines))


def query(
    files: Sequence[Path],
    index_path: Path,
    run: Path | None,
    baseline: str | None,
    top: int,
    rate: float,
    listen: Path | None,
    store_path: Path | None,
    exact: bool,
    device: str,
    console: Console,
) -> None:
    """Look for every file; what cannot be read is said, and the rest is looked for."""
    one = len(files) == 1 and not files[0].is_dir()
    if listen is not None:
        _check_page(listen, one, index_path)
    named = embedder_of(run, baseline, pick_device(device)) if run or baseline else None
    if not exact and read_record(index_path)["approximate"] and not has_faiss():
        console.say("warning: faiss-cpu is not installed; searching exactly, which takes longer")
        exact = True
    found = open_index(index_path, exact=exact)
    embedder = found.embedder(named, pick_device(device))
    failed: list[dict[str, str]] = []
    listed = _files(files, failed)
    store = _store_of(found, store_path, console) if listen is not None else None
    answers: list[Answer] = []
    with contextlib.nullcontext(_silent) if one else console.progress("ask", len(listed)) as update:
        for done, (file, name) in enumerate(zip(listed, _page_names(listed), strict=True), 1):
            try:
                asked = read_query(file)
                answer = ask(asked, found, embedder, most=top, rate=rate)
                answers.append(answer)
                if one:  # told before its page is written: that may fail
                    console.result(answer.plain(), answer.text())
                if listen is not None:
                    page = listen if one else listen / f"{name}.html"
                    _write_page(page, asked, answer, store, console)
            except (XmodalError, OSError) as error:
                if one:
                    raise
                console.say(f"error: {error}")
                kind = getattr(error, "kind", "system")
                failed.append({"file": str(file), "kind": kind, "message": str(error)})
            update(done, file.name)
    if one:
        return
    summary = f"{len(answers)} files looked for, {sum(a.found for a in answers)} found"
    if failed:
        summary += f", {len(failed)} with errors"
    console.result(
        {"answers": [a.plain() for a in answers], "failed": failed},
        "\n\n".join([*(a.text() for a in answers), summary]),
    )
    if failed:
        raise SystemExit(EXIT_DATA)


def _silent(done: float, note: str) -> None:
    """One file needs no progress."""


def _files(given: Sequence[Path], failed: list[dict[str, str]]) -> list[Path]:
    """The files, and those of folders that are called like audio or MIDI, each once, in order.

    Folders without any join ``failed``; where nothing else was given, that is an error.
    """
    found: list[Path] = []
    for path in given:
        if path.is_dir():
            inside, closed = _inside(path)
            failed += closed
            if not inside and not closed:
                empty = UsageError(f"{path} holds no audio or MIDI file")
                if len(given) == 1:
                    raise empty
                failed.append({"file": str(path), "kind": empty.kind, "message": str(empty)})
            found += inside
        else:
            found.append(path)
    return list(dict.fromkeys(found))


def _inside(folder: Path) -> tuple[list[Path], list[dict[str, str]]]:
    """Files of a folder that are called like audio or MIDI; folders in it that cannot be read."""
    suffixes = (*MIDI_SUFFIXES, *SOUND_SUFFIXES)
    closed: list[dict[str, str]] = []

    def cannot(error: OSError) -> None:
        message = f"{error.filename}: cannot be read ({error.strerror})"
        closed.append({"file": str(error.filename), "kind": "system", "message": message})

    found = [
        Path(where) / name
        for where, _, names in os.walk(folder, onerror=cannot)
        for name in names
        if Path(name).suffix.lower() in suffixes and (Path(where) / name).is_file()
    ]
    return sorted(found), closed


def _check_page(listen: Path, one: bool, index_path: Path) -> None:
    """Refuse, before anything is searched, a place where a page would harm or cannot be.

    One file's page is called ``.html``, so that it replaces nothing else; several go into a folder.
    """
    if listen.resolve().is_relative_to(index_path.resolve()):
        raise UsageError(f"--listen {listen}: is inside the index; name another place")
    if one and (listen.is_dir() or listen.suffix.lower() not in (".html", ".htm")):
        raise UsageError(f"--listen {listen}: the page of one file is a file called .html")
    if not one:
        if listen.exists() and not listen.is_dir():
            raise UsageError(f"--listen {listen}: the pages of several files go into a folder")
        listen.mkdir(parents=True, exist_ok=True)


def _page_names(files: Sequence[Path]) -> list[str]:
    """A page's name for each file: its own without suffix, or more where another has that."""
    names: dict[str, None] = {}
    for file in files:
        more = (f"{file.name}-{n}" for n in itertools.count(2))
        taken = next(n for n in itertools.chain((file.stem, file.name), more) if n not in names)
        names[taken] = None
    return list(names)


def _store_of(found: Index, given: Path | None, console: Console) -> Store | None:
    """The index's store, to be heard; None, with a word, where it has gone or is another one."""
    path = given or Path(found.record["store"]["path"])
    wanted = found.record["store"]["identity"]
    with contextlib.suppress(StoreError):
        store = Store.open(path)
        if store.identity == wanted:
            return store
    if given is not None:
        raise StoreError(f"{given} is not the store of the index {found.path}", kind="store")
    console.say(
        f"warning: the index's store is not at {path} any more: its recordings cannot be heard; say "
        "where it is with --store"
    )
    return None


def _write_page(
    path: Path, asked: Query, answer: Answer, store: Store | None, console: Console
) -> None:
    from trainer.search.listening import listening_page

    with atomic_write(path, "w") as handle:
        handle.write(listening_page(asked, answer, store))
    console.say(f"page: {path}")


__all__: list[Any] = ["index", "query"]
