"""What ``xmodal-sweep preflight``, ``submit`` and ``cancel`` say and do."""

from __future__ import annotations

import dataclasses

from pipeline.base.console import Console
from pipeline.base.errors import UsageError, XmodalError
from trainer.campaign import tell
from trainer.campaign.batch_script import Options, minutes
from trainer.campaign.cost import seconds_left
from trainer.campaign.slurm import cancel, submit
from trainer.campaign.state import states
from trainer.campaign.sweep import Sweep


def try_all(
    sweep: Sweep,
    device: str,
    time: str | None,
    requeues: int,
    full: bool,
    console: Console,
) -> list[dict[str, object]]:
    """Try what the runs will need, told as it goes.

    Raises
    ------
    XmodalError
        (kind ``preflight``) when something would end them.
    """
    options = Options(time=time, requeues=requeues)
    checks = _tried(sweep, device, options, full, console)
    text = f"{len(checks)} checks passed: nothing is known that would end {sweep.name}"
    if warnings := [check for check in checks if check["warning"]]:
        text += f", apart from what the lines with !! say ({len(warnings)})"
    console.result(checks, text)
    return checks


def put(sweep: Sweep, options: Options, check: bool, full: bool, console: Console) -> None:
    """Queue what is left, tried first unless that is not wanted; ``full``: every file is hashed.

    Raises
    ------
    UsageError
        for ``full`` where nothing is to be tried.
    """
    options.check()
    if full and not check:
        raise UsageError("--full is a part of --preflight: leave --no-preflight away")
    tell.refuse_missing(sweep)
    if check:
        _tried(sweep, options.target, options, full, console)
    made = submit(sweep, options, console.say)
    jobs = ", ".join(str(s.job) for s in made)
    text = f"submitted {sum(len(s.runs) for s in made)} runs as jobs {jobs}"
    console.result(
        {"submitted": [dataclasses.asdict(s) for s in made]},
        text if made else "nothing was submitted: every run is done, under way or in the queue",
    )


def take_out(sweep: Sweep, console: Console) -> None:
    """Cancel what waits and what runs."""
    jobs = cancel(sweep, console.say)
    text = f"cancelled the jobs {', '.join(jobs)}" if jobs else "nothing of it is in the queue"
    console.result({"cancelled": jobs}, text)


def _tried(
    sweep: Sweep, device: str, options: Options, full: bool, console: Console
) -> list[dict[str, object]]:
    from trainer.campaign.preflight import preflight
    from trainer.devices import pick_device

    limit = None
    if options.time is not None:  # a task is warned before it, and stops then
        limit = minutes(options.time) - options.warning / 60
    on_gpu = device.startswith("cuda") or (device == "auto" and pick_device().type == "cuda")
    checks = preflight(
        sweep,
        device=device,
        minutes=limit,
        requeues=options.requeues,
        measured=seconds_left(sweep, states(sweep), on_gpu=on_gpu),
        full=full,
        say=console.say,
    )
    bad = [check for check in checks if not check.ok]
    plain = [dataclasses.asdict(check) for check in checks]
    if bad:
        named = "; ".join(f"{c.name}: {c.detail}" for c in bad)
        raise XmodalError(
            f"{len(bad)} of {len(checks)} checks failed ({named}); nothing was begun",
            kind="preflight",
            details={"checks": plain},
        )
    return plain
