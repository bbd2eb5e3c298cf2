"""What of a folder of runs may go, and that nothing else ever does."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from campaign_fakes import planned, sweep_of, write_run

from pipeline.base.config import to_plain
from pipeline.base.console import Console, run_command
from pipeline.base.errors import ConfigError, RunError
from pipeline.base.files import FolderLock, read_json, write_json
from trainer.campaign import housekeeping
from trainer.campaign.housekeeping import prunable, prune, run_sizes
from trainer.campaign.keeping import prune_runs, tell_sizes
from trainer.campaign.state import bytes_below, states
from trainer.campaign.sweep import PlannedRun

D0, A4R, A4 = planned(0, "d0"), planned(1, "a4r", seed=7), planned(2, "a4")
SAVED = 700


def with_checkpoints(folder: Path) -> Path:
    """Two checkpoints of ``SAVED`` bytes in all."""
    for step, size in ((10, 300), (20, SAVED - 300)):
        saved = folder / "checkpoints" / f"step-{step:08d}"
        saved.mkdir(parents=True)
        (saved / "model.safetensors").write_bytes(b"x" * size)
    return folder


def plan_of(out: Path, *runs: PlannedRun, name: str = "fake") -> Path:
    """Keep a plan that names these runs."""
    file = out / "campaigns" / name / "plan.json"
    write_json(file, to_plain(sweep_of(out, runs)))
    return file


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """d0 has ended, a4r stopped; both have checkpoints, and a campaign names d0 alone."""
    with_checkpoints(write_run(tmp_path / "runs", D0))
    with_checkpoints(write_run(tmp_path / "runs", A4R, status="interrupted", done=0.5))
    plan_of(tmp_path / "runs", D0)
    return tmp_path / "runs"


def told(out: Path, *, unplanned: bool = False) -> list[tuple[str, str]]:
    return [
        (item.kind, str(item.path.relative_to(out))) for item in prunable(out, unplanned=unplanned)
    ]


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()
    }


def killed_while_removing(out: Path, *, unplanned: bool = False) -> None:
    """Another process begins to remove what may go, and dies at once after the first file."""
    code = (
        "import os, shutil, sys\nfrom pathlib import Path\n"
        "from trainer.campaign.housekeeping import prunable, prune\n"
        "def dies(folder):\n"
        "    next(p for p in sorted(Path(folder).rglob('*.safetensors'))).unlink()\n"
        "    os._exit(9)\n"
        "shutil.rmtree = dies\n"
        f"prune(prunable(Path(sys.argv[1]), unplanned={unplanned}))"
    )
    assert subprocess.run([sys.executable, "-c", code, str(out)]).returncode == 9


def test_what_runs_weigh(out: Path, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"x" * 10_000)
    (out / D0.folder / "link").symlink_to(tmp_path / "large")
    (out / "no-run").mkdir()
    plan_of(out, D0, A4, name="more")
    a4r, d0 = run_sizes(out)
    every = sum(p.lstat().st_size for p in (out / D0.folder).rglob("*") if not p.is_dir())
    assert (d0.run, d0.arm, d0.seed, d0.status) == (D0.folder, "d0", 42, "trained")
    assert (d0.total, d0.checkpoints) == (every, SAVED)
    assert d0.campaigns == ("fake", "more")
    assert (a4r.arm, a4r.seed, a4r.status, a4r.campaigns) == ("a4r", 7, "interrupted", ())
    with FolderLock(out / A4R.folder):
        assert run_sizes(out)[0].status == "running"


def test_bytes_of_files_folders_and_nothing(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "one").write_bytes(b"123")
    (tmp_path / "a" / "b" / "two").write_bytes(b"4567")
    found = [bytes_below(tmp_path / name) for name in ("a", "a/one", "none")]
    assert found == [7, 3, 0]


@pytest.mark.parametrize("content", ["{", "[]", '{"config": 3}'])
def test_a_damaged_record_is_sized_too(out: Path, content: str) -> None:
    (out / A4R.folder / "run.json").write_text(content, encoding="utf-8")
    found = run_sizes(out)[0]
    assert (found.run, found.arm, found.seed, found.status) == (A4R.folder, "?", None, "damaged")
    assert found.checkpoints == SAVED


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    for look in (run_sizes, prunable):
        with pytest.raises(RunError, match="there is no folder"):
            look(tmp_path / "nowhere")


def test_checkpoints_are_kept_where_the_model_is_gone(out: Path) -> None:
    (out / D0.folder / "model.safetensors").unlink()
    assert told(out) == []


def test_checkpoints_of_a_run_that_has_ended_go_and_all_else_stays(out: Path) -> None:
    before = files(out)
    (item,) = prunable(out)
    assert (item.kind, item.path, item.size) == (
        "checkpoints", out / D0.folder / "checkpoints", SAVED,
    )  # fmt: skip
    assert prune([item]) == ([item], [])
    gone = f"{D0.folder}/checkpoints/"
    assert files(out) == {k: v for k, v in before.items() if not k.startswith(gone)}
    assert prunable(out) == []
    assert not item.path.exists()
    assert states(sweep_of(out, [D0]))[0].status == "done"


def test_runs_that_a_process_is_at_are_left_alone(out: Path) -> None:
    (out / D0.folder / ".run.json.1.1.tmp").write_text("x", encoding="utf-8")
    with FolderLock(out / D0.folder), FolderLock(out / A4R.folder):
        assert told(out, unplanned=True) == []


def test_what_a_process_has_taken_meanwhile_stays(out: Path) -> None:
    items, before = prunable(out, unplanned=True), files(out)
    with FolderLock(out / D0.folder), FolderLock(out / A4R.folder):
        removed, kept = prune(items)
    assert removed == []
    assert [line.partition(" stays: ")[0] for line in kept] == [str(i.path) for i in items]
    assert all("is being written by process" in line for line in kept)
    assert files(out) == before


def test_only_runs_that_did_not_end_and_that_no_campaign_names_go_whole(out: Path) -> None:
    named = write_run(out, A4, status="failed")
    plan_of(out, A4, name="other")
    assert told(out) == [("checkpoints", f"{D0.folder}/checkpoints")]
    assert told(out, unplanned=True) == [
        ("unplanned", A4R.folder), ("checkpoints", f"{D0.folder}/checkpoints"),
    ]  # fmt: skip
    removed, kept = prune(prunable(out, unplanned=True))
    assert (len(removed), kept) == (2, [])
    assert removed[0].why == "interrupted, and no campaign names it"
    assert not (out / A4R.folder).exists()
    assert named.exists()


def test_what_tasks_work_by_counts_as_planned(out: Path) -> None:
    file = plan_of(out, A4R, name="fake")
    content = file.read_bytes()
    file.unlink()
    copies = [file.parent / w for w in ("submitted/20260101/plan.json", "launched/0123.json")]
    for copy in copies:
        assert ("unplanned", A4R.folder) in told(out, unplanned=True)
        copy.parent.mkdir(parents=True)
        copy.write_bytes(content)
        assert ("unplanned", A4R.folder) not in told(out, unplanned=True)
        os.utime(copy, (0, 0))  # long ago
        assert ("unplanned", A4R.folder) in told(out, unplanned=True)


def test_what_changed_since_it_was_listed_stays(out: Path) -> None:
    listed = prunable(out, unplanned=True)
    record = read_json(out / A4R.folder / "run.json")
    write_json(out / A4R.folder / "run.json", {**record, "status": "trained"})
    (out / D0.folder / "model.safetensors").write_bytes(b"torn")
    removed, kept = prune(listed)
    assert removed == []
    assert ["ended meanwhile" in kept[0], "its model is not" in kept[1]] == [True, True]
    assert (out / A4R.folder / "checkpoints").exists()
    assert (out / D0.folder / "checkpoints").exists()


def test_a_run_whose_record_does_not_read_never_goes(out: Path) -> None:
    (out / A4R.folder / "run.json").write_bytes(b"{")
    assert told(out, unplanned=True) == [("checkpoints", f"{D0.folder}/checkpoints")]


def test_a_run_that_has_ended_never_goes(out: Path) -> None:
    shutil.rmtree(out / "campaigns")
    for _ in range(2):  # with checkpoints, and without
        prune(prunable(out, unplanned=True))
        assert [run.status for run in run_sizes(out)] == ["trained"]


def test_nothing_is_unplanned_while_a_plan_does_not_read(out: Path) -> None:
    file = plan_of(out, A4R, name="older")
    assert told(out, unplanned=True) == [("checkpoints", f"{D0.folder}/checkpoints")]
    file.write_text('{"schema": 0}', encoding="utf-8")
    with pytest.raises(ConfigError, match=r"older/plan\.json"):
        prunable(out, unplanned=True)
    assert told(out) == [("checkpoints", f"{D0.folder}/checkpoints")]
    assert [run.campaigns for run in run_sizes(out)] == [(), ("fake",)]


def test_what_processes_that_died_left_goes(out: Path) -> None:
    folder = out / A4R.folder
    (folder / ".removed-checkpoints-7" / "step-00000010").mkdir(parents=True)
    (folder / ".removed-checkpoints-7" / "step-00000010" / "model").write_bytes(b"123")
    (folder / "checkpoints" / ".step-00000030.7.tmp").mkdir()
    (folder / ".run.json.7.7.tmp").write_bytes(b"12345")
    (out / ".removed-d4-0-7").mkdir()
    (out / ".mine.tmp").write_bytes(b"of the user")
    before = files(out)
    found = [item for item in prunable(out) if item.kind == "leftover"]
    assert {str(item.path.relative_to(out)): item.size for item in found} == {
        ".removed-d4-0-7": 0,
        f"{A4R.folder}/.removed-checkpoints-7": 3,
        f"{A4R.folder}/.run.json.7.7.tmp": 5,
        f"{A4R.folder}/checkpoints/.step-00000030.7.tmp": 0,
    }
    assert prune(found) == (found, [])
    gone = {
        f"{A4R.folder}/.removed-checkpoints-7/step-00000010/model",
        f"{A4R.folder}/.run.json.7.7.tmp",
    }
    assert files(out) == {k: v for k, v in before.items() if k not in gone}
    assert [item.kind for item in prunable(out)] == ["checkpoints"]


def test_a_leftover_goes_with_what_it_lies_in(out: Path) -> None:
    (out / D0.folder / "checkpoints" / ".step-00000030.7.tmp").write_bytes(b"x" * 9)
    (out / A4R.folder / ".run.json.7.7.tmp").write_bytes(b"x")
    items = prunable(out, unplanned=True)
    assert [item.kind for item in items] == ["unplanned", "checkpoints"]
    assert items[1].size == SAVED + 9
    assert prune(items) == (items, [])


def test_a_kill_while_checkpoints_go_leaves_a_whole_run(out: Path) -> None:
    folder = out / D0.folder
    killed_while_removing(out)
    assert not (folder / "checkpoints").exists()
    assert (folder / "model.safetensors").exists()
    assert states(sweep_of(out, [D0]))[0].status == "done"
    ((kind, left),) = told(out)
    assert kind == "leftover"
    assert left.startswith(f"{D0.folder}/.removed-checkpoints-")
    assert prune(prunable(out))[1] == []
    assert told(out) == []


def test_a_kill_while_a_run_goes_leaves_no_half_of_it(out: Path) -> None:
    killed_while_removing(out, unplanned=True)
    assert [run.run for run in run_sizes(out)] == [D0.folder]
    first, last = told(out, unplanned=True)
    assert first == ("checkpoints", f"{D0.folder}/checkpoints")
    assert last[0] == "leftover"
    assert last[1].startswith(f".removed-{A4R.folder}-")
    assert (out / last[1] / "run.json").exists()
    assert prune(prunable(out, unplanned=True))[1] == []
    assert sorted(path.name for path in out.iterdir()) == ["campaigns", D0.folder]


def refuse(folder: Path) -> None:
    raise OSError(16, "Device or resource busy", str(folder))


def test_what_cannot_be_removed_is_told_and_stops_nothing_else(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = shutil.rmtree

    def some(folder: Path) -> None:
        (refuse if "checkpoints" in folder.name else real)(folder)

    monkeypatch.setattr(housekeeping.shutil, "rmtree", some)
    removed, (line,) = prune(prunable(out, unplanned=True))
    assert [item.kind for item in removed] == ["unplanned"]
    assert line.startswith(f"{out / D0.folder / 'checkpoints'} stays: ")
    assert "busy" in line
    assert not (out / D0.folder / ".lock").exists()


def test_without_yes_nothing_is_removed(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(out)
    prune_runs(out, unplanned=True, yes=False, console=Console())
    said = capsys.readouterr().out
    assert files(out) == before
    assert f"unplanned    {A4R.folder}  (interrupted, and no campaign names it)" in said
    assert f"checkpoints  {D0.folder}/checkpoints" in said
    assert said.splitlines()[-2].endswith(" may go")
    assert said.splitlines()[-1] == "nothing was removed; add --yes to do it"


def test_with_yes_it_goes_and_is_told(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prune_runs(out, unplanned=False, yes=True, console=Console(as_json=True))
    found = json.loads(capsys.readouterr().out)
    (item,) = found["removed"]
    assert (item["path"], item["kind"], item["size"], found["kept"]) == (
        str(out / D0.folder / "checkpoints"), "checkpoints", SAVED, [],
    )  # fmt: skip
    prune_runs(out, unplanned=False, yes=True, console=Console())
    assert capsys.readouterr().out.splitlines() == ["0 bytes removed"]
    assert (out / A4R.folder / "checkpoints").exists()


@pytest.mark.parametrize("as_json", [False, True])
def test_something_that_is_still_there_is_an_error(
    out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], as_json: bool
) -> None:
    monkeypatch.setattr(housekeeping.shutil, "rmtree", refuse)
    console = Console(as_json)
    with pytest.raises(SystemExit) as left:
        run_command(console, lambda: prune_runs(out, unplanned=True, yes=True, console=console))
    assert left.value.code == RunError.exit_code
    said = capsys.readouterr()
    assert said.err.startswith("error: ")
    assert said.err.count(" stays: ") == 2
    if as_json:
        error = json.loads(said.out)["error"]
        assert (error["kind"], error["details"]["removed"]) == ("kept", [])
        assert len(error["details"]["kept"]) == 2
    else:
        assert said.out.splitlines() == ["0 bytes removed"]


def test_sizes_are_told_the_heaviest_first(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (out / A4R.folder / "large").write_bytes(b"x" * 5_000_000)
    tell_sizes(out, Console())
    first, second, last = capsys.readouterr().out.splitlines()
    assert first.split()[:2] == [A4R.folder, "interrupted"]
    assert first.endswith("of which checkpoints 700 bytes")
    assert second.endswith("700 bytes  fake")
    assert last.startswith("2 runs, 5.")
    assert last.endswith("of which checkpoints 1.4 kB")
    tell_sizes(out, Console(as_json=True))
    found = json.loads(capsys.readouterr().out)
    assert [run["run"] for run in found] == [A4R.folder, D0.folder]
    assert found[1]["campaigns"] == ["fake"]
    empty = out / "empty"
    empty.mkdir()
    tell_sizes(empty, Console())
    assert capsys.readouterr().out == "0 runs, 0 bytes, of which checkpoints 0 bytes\n"
    assert list(empty.iterdir()) == []
