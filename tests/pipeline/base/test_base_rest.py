"""Configuration, registry, errors and console."""

from __future__ import annotations

import dataclasses
import json
import pickle
import signal
import subprocess
import sys
import time
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.base import errors
from pipeline.base.config import digest, from_plain, merge, to_plain
from pipeline.base.console import Console, run_command, stop_signals_raise
from pipeline.base.errors import ConfigError, Interrupted, MissingExtra, StoreError, XmodalError
from pipeline.base.registry import Registry


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inner:
    rate: float = 0.5
    names: tuple[str, ...] = ("a",)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outer:
    count: int
    mode: Literal["x", "y"] = "x"
    cap: int | None = 3
    inner: Inner = dataclasses.field(default_factory=Inner)


@given(
    st.builds(
        Outer,
        count=st.integers(),
        mode=st.sampled_from(["x", "y"]),
        cap=st.none() | st.integers(),
        inner=st.builds(
            Inner,
            rate=st.floats(allow_nan=False, allow_infinity=False),
            names=st.lists(st.text()).map(tuple),
        ),
    )
)
def test_plain_data_and_back(value: Outer) -> None:
    plain = json.loads(json.dumps(to_plain(value)))
    assert from_plain(Outer, plain) == value
    assert digest(from_plain(Outer, plain)) == digest(value)


@pytest.mark.parametrize(
    ("data", "named"),
    [
        ({}, "count is missing"),
        ({"count": "1"}, "count = '1'"),
        ({"count": True}, "count = True"),
        ({"count": 1.5}, "count = 1.5"),
        ({"count": 1, "mode": "z"}, "must be one of x, y"),
        ({"count": 1, "colour": 2}, "colour is unknown"),
        ({"count": 1, "inner": {"rat": 1}}, "inner.rat is unknown"),
        ({"count": 1, "inner": 7}, "inner must be a table"),
        ({"count": 1, "inner": {"names": ["a", 1]}}, r"names\[1\] = 1"),
        ([], "must be a table"),
    ],
)
def test_wrong_settings_are_named(data: Any, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        from_plain(Outer, data)


def test_a_hash_covers_defaults() -> None:
    @dataclasses.dataclass(frozen=True)
    class Edited(Inner):
        rate: float = 0.25

    assert digest(Inner()) != digest(Edited())
    assert digest(Inner()) == digest(Inner(rate=0.5))


def test_merging_lays_leaves_on_top() -> None:
    base = {"a": {"x": 1, "y": 2}, "b": 1}
    assert merge(base, {"a": {"y": 3}, "c": 4}) == {"a": {"x": 1, "y": 3}, "b": 1, "c": 4}
    assert base == {"a": {"x": 1, "y": 2}, "b": 1}


def test_errors_survive_the_way_back_from_a_worker() -> None:
    kinds = [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, XmodalError)]
    assert len(kinds) > 8
    for kind in kinds:
        error = kind("numba", "features") if kind is MissingExtra else kind("m", kind="special")
        back = pickle.loads(pickle.dumps(error))
        assert (type(back), str(back), back.kind) == (kind, str(error), error.kind)


def test_a_registry_is_written_once() -> None:
    registry: Registry[int] = Registry("number")
    registry.register("one")(1)
    with pytest.raises(ConfigError, match="number 'one' is registered twice"):
        registry.add("one", 2)
    with pytest.raises(ConfigError, match="did you mean 'one'"):
        registry.get("onne")
    assert (list(registry), "one" in registry, registry.get("one")) == (["one"], True, 1)


def raising(error: BaseException) -> Any:
    def action() -> None:
        raise error

    return action


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize(
    ("error", "code", "kind"),
    [
        (StoreError("it broke"), 3, "store"),
        (ConfigError("it broke"), 2, "config"),
        (errors.Interrupted("it broke"), 75, "interrupted"),
        (OSError(28, "it broke"), 1, "system"),
    ],
)
def test_errors_leave_with_their_code(
    error: Exception, code: int, kind: str, as_json: bool, capsys, monkeypatch
) -> None:
    monkeypatch.delenv("XMODAL_DEBUG", raising=False)
    with pytest.raises(SystemExit) as caught:
        run_command(Console(as_json), raising(error))
    assert caught.value.code == code
    out, err = capsys.readouterr()
    assert err == "error: it broke\n"
    assert (json.loads(out)["error"] if as_json else out) == (
        {"kind": kind, "message": "it broke"} if as_json else ""
    )


def test_a_programming_error_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        run_command(Console(), raising(ZeroDivisionError()))


def test_a_stop_signal_that_a_destructor_swallows_is_raised_at_the_next_step(capsys) -> None:
    """Python prints and drops what a destructor raises; the work must not go on to its end."""

    class Closes:
        def __del__(self) -> None:
            signal.raise_signal(signal.SIGTERM)

    def work() -> None:
        with stop_signals_raise("come back"), Console().progress("work", 3) as update:
            for step in range(3):
                steps.append(step)
                if step == 0:
                    Closes()
                update(step + 1, "")

    steps: list[int] = []
    with pytest.raises(Interrupted, match="SIGTERM; come back"):
        work()
    assert steps == [0]
    with pytest.raises(Interrupted), stop_signals_raise("come back"):
        Closes()
    with stop_signals_raise("come back"):  # what is over is forgotten
        pass


def compiler(body: str) -> dict[str, object]:
    """Code that lies where Numba's does."""
    found: dict[str, object] = {"signal": signal, "time": time}
    exec(compile(body, "/site-packages/numba/core/dispatcher.py", "exec"), found)
    return found


def test_a_compiler_is_let_finish_before_a_stop_signal_is_raised() -> None:
    """What is raised inside its callbacks is dropped, or breaks it."""
    begun = compiler(
        "def compile_kernel(done):\n"
        "    signal.raise_signal(signal.SIGTERM)\n"
        "    time.sleep(0.5)\n"
        "    done.append('compiled')\n"
    )
    done: list[str] = []

    def work() -> None:
        with stop_signals_raise("come back"):
            begun["compile_kernel"](done)  # type: ignore[operator]
            time.sleep(5)
            done.append("went on")

    with pytest.raises(Interrupted, match="SIGTERM"):
        work()
    assert done == ["compiled"]


@pytest.mark.parametrize("inside", [True, False])
def test_what_stopping_broke_is_told_as_a_stop(inside: bool, capsys) -> None:
    broken = compiler(
        "def break_down():\n"
        "    signal.raise_signal(signal.SIGTERM)\n"
        "    raise RuntimeError('no compiled object yet')\n"
    )["break_down"]

    def action() -> None:
        with stop_signals_raise("come back"):
            broken()  # type: ignore[operator]

    def outside() -> None:
        with stop_signals_raise("come back"):
            run_command(Console(), broken)  # type: ignore[arg-type]

    with pytest.raises(SystemExit) as left:
        run_command(Console(), action) if inside else outside()
    assert left.value.code == 75
    assert "stopped by SIGTERM; come back" in capsys.readouterr().err


def test_a_stopped_command_says_nothing_of_reads_that_nobody_waits_for() -> None:
    """What zarr's thread leaves unfinished, asyncio tells when the interpreter ends."""
    code = (
        "import asyncio\n"
        "from pipeline.base.console import Console, run_command\n"
        "from pipeline.base.errors import Interrupted\n"
        "def action():\n"
        "    loop = asyncio.new_event_loop()\n"
        "    kept.append(loop.create_task(asyncio.sleep(60)))\n"
        "    loop.call_soon(loop.stop)\n"
        "    loop.run_forever()\n"
        "    kept.append(asyncio.sleep(60))\n"
        "    raise Interrupted('stopped; come back')\n"
        "kept = []\n"
        "run_command(Console(), action)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (75, "", "error: stopped; come back\n")
