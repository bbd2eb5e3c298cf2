"""The README's table of training: each figure on a CPU and on a GPU, with its goals, met or missed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from benchmarks.cells import known, machine, row
from trainer.frozen import PART

DEVICES = ("cpu", "cuda")
NOT_YET = "not yet measured"
Value = Callable[[dict[str, Any]], float | None]  # None: cannot be had on that machine


@dataclasses.dataclass(frozen=True, kw_only=True)
class Figure:
    """One row: what it is, its value in a result, how it is written, its goals.

    ``least`` and ``most`` are per device; a device without either has no goal. ``devices``: where the
    figure says something.
    """

    what: str
    value: Value
    written: str
    least: dict[str, float] = dataclasses.field(default_factory=dict)
    most: dict[str, float] = dataclasses.field(default_factory=dict)
    devices: tuple[str, ...] = DEVICES

    def cell(self, device: str, data: dict[str, Any] | None) -> str:
        """The measured value, its goal behind it."""
        bound = self.least.get(device, self.most.get(device))
        goal = ""
        if bound is not None:
            sign = "≥" if device in self.least else "≤"
            goal = f" (goal {sign} {bound:g})"
        if data is None:
            return NOT_YET + goal
        value = self.value(data)
        if value is None:
            return "not on this machine" + goal
        missed = value < self.least.get(device, value) or value > self.most.get(device, value)
        return self.written.format(value) + goal + (", **missed**" if missed else "")


def at(*keys: str, times: float = 1.0) -> Value:
    """The value at a path of the result."""

    def value(data: dict[str, Any]) -> float:
        found: Any = data
        for key in keys:
            found = found[key]
        return times * float(found)

    return value


def end_to_end(arm: str, ratio: str) -> Value:
    """One of the ratios, if it was measured."""

    def value(data: dict[str, Any]) -> float | None:
        found: float | None = data["end_to_end"][arm].get(ratio)
        return found

    return value


def largest_data_share(data: dict[str, Any]) -> float:
    """Percent, of the arm that waits longest."""
    return 100 * max(step["data_share"] for step in data["steps"].values())


def of_matrix_rate(arm: str) -> Value:
    """Percent of what large products reach in the same precision and run."""

    def value(data: dict[str, Any]) -> float:
        step = data["steps"][f"paper-{arm}"]
        return float(100 * step["flops_per_s"] / data["matrix_flops"][step["precision"]])

    return value


def figures() -> list[Figure]:
    """Every row."""
    return [
        Figure(
            what="A4 and notes of 100,000 segments resident, warm",
            value=at("residency", "warm_s"),
            written="{:.1f} s",
            most={"cpu": 3, "cuda": 3},
        ),
        Figure(
            what="part of a step that is spent on data, the largest of six arms",
            value=largest_data_share,
            written="{:.1f} %",
            most={"cpu": 2, "cuda": 2},
        ),
        *(
            Figure(
                what=f"a step of `{arm}`, batch 16",
                value=at("steps", f"paper-{arm}", "step_ms"),
                written="{:.0f} ms",
                most={"cuda": most},
            )
            for arm, most in (("d0", 60), ("d4a4", 60), ("a4r", 15))
        ),
        *(
            Figure(
                what=f"`{arm}`: part of the matrix rate measured in the same run",
                value=of_matrix_rate(arm),
                written="{:.0f} %",
                least={"cuda": 35},
                devices=("cuda",),
            )
            for arm in ("d0", "d4a4")
        ),
        *(
            Figure(
                what=f"model only, `{arm}`, against the plain implementation on the same batch",
                value=at("model_only", arm, "ratio"),
                written="{:.2f} ×",
                least={"cuda": least},
            )
            for arm, least in (("d0", 5), ("a4r", 3))
        ),
        *(
            Figure(
                what=f"end to end, `{arm}`, against the plain implementation with 8 loader processes",
                value=at("end_to_end", arm, "ratio"),
                written="{:.1f} ×",
                least={"cpu": 5, "cuda": 8},
            )
            for arm in ("d0", "a4r")
        ),
        *(
            Figure(
                what=f"… {what}, `{arm}`",
                value=end_to_end(arm, ratio),
                written="{:.1f} ×",
                least={"cpu": 5},
                devices=("cpu",),
            )
            for what, ratio in (
                ("frozen front end's tokens kept, over the paper's run", "ratio_kept"),
                ("with products in bfloat16 (`--precision bf16`)", "ratio_bf16"),
            )
            for arm in ("d0", "a4r")
        ),
        *(
            Figure(
                what=f"embedding and scoring 13,532 segments, `{arm}`",
                value=at("split", arm, "all_s"),
                written="{:.0f} s",
                most={"cuda": most},
            )
            for arm, most in (("d0", 30), ("a4r", 10))
        ),
        *(
            Figure(
                what=f"the paper's 30 epochs of `{arm}` with 6 evaluations, projected",
                value=at("run", arm, "minutes"),
                written="{:.0f} min",
                most={"cuda": most},
            )
            for arm, most in (("d0", 35), ("a4r", 9))
        ),
        Figure(
            what="peak memory of `d0`, batch 16",
            value=at("steps", "paper-d0", "peak_bytes", times=1e-9),
            written="{:.1f} GB",
            most={"cuda": 24},
            devices=("cuda",),
        ),
    ]


def training() -> str:
    """The whole table, with the machines below it."""
    found = {
        device: known(name) for device, name in ((device, f"train-{device}") for device in DEVICES)
    }
    lines = ["| what (preset `paper`) | CPU, size tiny | one GPU, size base |", "|---|---|---|"]
    for figure in figures():
        cells = (figure.cell(d, found[d]) if d in figure.devices else "—" for d in DEVICES)
        lines.append(row(figure.what, *cells))
    where = "; ".join(f"{name} on {machine(data)}" for name, data in found.items() if data)
    rounds = found["cpu"]["model_only"]["d0"]["rounds"] if found["cpu"] else 0
    return "\n".join(
        [
            *lines,
            "",
            f"All by `python -m benchmarks.train`: {where}. The plain implementation "
            "(`benchmarks/plain_training.py`) is the method taken literally: float32, torch's own "
            "eager modules, decoding and parsing item by item; a test holds its batches and gradients "
            f"against ours. Ratios are medians of pairs within one run ({rounds} rounds of `d0`)."
            + (_kept(found["cpu"]) if found["cpu"] else ""),
        ]
    )


def _kept(data: dict[str, Any]) -> str:
    """What keeping the tokens takes."""
    taken = data["end_to_end"]["d0"].get("kept_bytes")
    if taken is None:
        return ""
    return (
        f" Tokens of all training segments of MAESTRO take {taken / 1e9:.1f} GB; they are kept where "
        f"{PART} times as much is free."
    )
