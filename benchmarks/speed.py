"""The README's table of speed: each figure beside its goal, met or missed, and its command."""

from __future__ import annotations

from typing import Any

from benchmarks.cells import load, machine, row, times

REFERENCE = (
    "The reference copies 120 GB to scratch in every job (22 to 43 minutes), then decodes, resamples "
    "and parses again for every segment of every epoch."
)


def speed() -> str:
    """The whole table, with the machines below it."""
    parts = {name: load(name) for name in ("features", "descriptors", "midi", "scale", "train-cpu")}
    lines = ["| what | measured | goal | command |", "|---|---|---|---|"]
    for command, rows in (
        ("features", stage(parts["features"])),
        ("descriptors", described(parts["descriptors"])),
        ("midi", midi(parts["midi"])),
        ("scale", scale(parts["scale"])),
        ("train", training(parts["train-cpu"])),
    ):
        lines += [goal(*cells, command) for cells in rows]
    where = "; ".join(f"{name} on {machine(data)}" for name, data in parts.items())
    note = (
        f"{REFERENCE} Measured: {where}. Stores are written to memory; training has size "
        f"{next(iter(parts['train-cpu']['steps'].values()))['size']}. On a GPU: not yet measured."
    )
    return "\n".join([*lines, "", note])


Cells = tuple[str, str, float]  # what, measured, bound: the least allowed, or minus the most


def goal(what: str, measured: str, bound: float, command: str) -> str:
    """A row; the figure comes first in ``measured``, its unit second."""
    number, unit = float(measured.split()[0]), measured.split()[1]
    met = number >= bound if bound > 0 else number <= -bound
    sign = "≥" if bound > 0 else "≤"
    wanted = f"{sign} {abs(bound):g} {unit}{'' if met else ', **missed**'}"
    return row(what, measured, wanted, f"`benchmarks.{command}`")


def stage(data: dict[str, Any]) -> list[Cells]:
    """The offline stage and its parts."""
    a4, decode, whole = data["a4"], data["decode"], data["stage"]
    apart = f"{decode['max_difference_lsb']:.0f} LSB apart"
    return [
        ("A4 of a segment, one core, against librosa", times(a4["against_librosa"]), 2.0),
        ("… against torch", times(a4["against_torch"]), 2.0),
        (
            f"decode + down-mix + resample against `librosa.load`, at most {apart}",
            times(decode),
            3.0,
        ),
        (
            f"whole stage on one core / its kernels ({data['hours_of_audio']:.1f} h)",
            f"{whole['stage_over_kernels']:.2f} ×",
            -1.3,
        ),
        ("whole stage, two workers against one", f"{whole['two_over_one']:.2f} ×", 1.7),
    ]


def described(data: dict[str, Any]) -> list[Cells]:
    """Descriptors; each by itself is in docs/descriptors.md."""
    fft, together = data["a4_against_fft"], data["together"]
    slowest, pair = min(data["descriptors"].items(), key=lambda item: item[1]["ratio"])
    names = ", ".join(together["names"])
    return [
        (
            "A4 of a segment over what is allowed, its float32 FFTs × 1.2 + 0.5 ms",
            f"{fft['a4_ms'] / (1.2 * fft['fft_ms'] + 0.5):.2f} ×",
            -1.0,
        ),
        (
            f"every descriptor against plain NumPy, least of {len(data['descriptors'])} (`{slowest}`)",
            times(pair),
            3.0,
        ),
        (
            f"{names} of a segment / the sum of their kernels and one STFT",
            f"{together['ratio']:.2f} ×",
            -1.3,
        ),
    ]


def midi(data: dict[str, Any]) -> list[Cells]:
    """Reading MIDI files."""
    differ = f"{data['different_notes']} of {data['notes']:,} notes differ"
    if data["largest_difference_s"]:
        differ += f", times by at most {data['largest_difference_s']:.0e} s"
    return [
        (
            f"reading {data['compared']} of {data['files']} real MIDI files against pretty_midi; "
            f"{differ}",
            f"{data['ratio']:.0f} ×",
            30.0,
        )
    ]


def scale(data: dict[str, Any]) -> list[Cells]:
    """A store of MAESTRO's size, projected."""
    build, more, store = data["build"], data["add"], data["store"]
    residual = f"a line through {len(data['runs'])} builds, residual {{:.0f}} % at most"
    return [
        (
            "MAESTRO, 127,092 segments, audio + A4 + D4, two cores, warm: "
            + residual.format(build["largest_residual_percent"]),
            f"{build['paper_scale_s'] / 60:.1f} min",
            -6.0,
        ),
        (
            f"… adding {data['added']} to it: " + residual.format(more["largest_residual_percent"]),
            f"{more['paper_scale_s'] / 60:.1f} min",
            -3.0,
        ),
        ("… its files", f"{store['files']} files", -300.0),
        ("… its arrays", f"{store['bytes_of_arrays'] / 1e9:.1f} GB", -8.0),
    ]


def training(data: dict[str, Any]) -> list[Cells]:
    """The trainer's data path."""
    resident = data["residency"]
    return [
        (
            f"A4 and notes of {resident['segments']:,} segments resident, warm",
            f"{resident['warm_s']:.1f} s",
            -3.0,
        ),
        *(
            (
                f"share of a training step spent on data, `{arm}`",
                f"{100 * step['data_share']:.1f} %",
                -3.0,
            )
            for arm, step in data["steps"].items()
        ),
    ]
