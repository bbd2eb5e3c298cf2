"""The README's tables of speed: the offline stage, scores, analyses; each figure beside its goal."""

from __future__ import annotations

from typing import Any

from benchmarks.cells import load, machine, row, times

REFERENCE = (
    "The reference copies 120 GB to scratch in every job (22 to 43 minutes), then decodes, resamples "
    "and parses again for every segment of every epoch."
)


def speed() -> str:
    """The whole table, with the machines below it."""
    names = ("features", "descriptors", "midi", "rendering", "scale")
    parts = {name: load(name) for name in names}
    lines = ["| what | measured | goal | command |", "|---|---|---|---|"]
    for command, rows in (
        ("features", stage(parts["features"])),
        ("descriptors", described(parts["descriptors"])),
        ("midi", midi(parts["midi"])),
        ("rendering", rendering(parts["rendering"])),
        ("scale", scale(parts["scale"])),
    ):
        lines += [goal(*cells, command) for cells in rows]
    where = "; ".join(f"{name} on {machine(data)}" for name, data in parts.items())
    note = (
        f"{REFERENCE} Measured: {where}. Stores are written to "
        f"{parts['features']['stores_in']}. In brackets: of the ratios of a run the 10th to the 90th "
        "percentile, of fewer than ten all."
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


def evaluation() -> str:
    """What scores and analyses cost."""
    data = load("retrieval")
    metrics, memory, suite = data["metrics"], data["memory"], data["invariance"]
    n = f"{metrics['segments']:,}"
    rows: list[Cells] = [
        (
            f"all metrics of {n} × {n} similarities under `{protocol}`, both directions, full gallery "
            "and hubness, over one matrix product",
            times(metrics[protocol]),
            -8.0,
        )
        for protocol in ("paper", "strict")
    ]
    rows.append(
        (
            "… peak memory of the process that scores both",
            f"{memory['peak_bytes'] / 1e9:.2f} GB",
            -2.0,
        )
    )
    rows += [
        (
            f"the invariance suite of `{arm}`, tiny ({suite[arm]['conditions']} conditions) against "
            "embedding both sides every time",
            times(suite[arm]),
            1.5,
        )
        for arm in ("d0", "a4r")
    ]
    lines = ["| what | measured | goal | command |", "|---|---|---|---|"]
    lines += [goal(*cells, "retrieval") for cells in rows]
    return "\n".join([*lines, "", f"Measured on {machine(data)}."])


def stage(data: dict[str, Any]) -> list[Cells]:
    """The offline stage and its parts, the demo's making."""
    a4, decode, whole, demo = data["a4"], data["decode"], data["stage"], data["demo"]
    hours, apart = (
        f"{data['hours_of_audio']:.1f} h",
        f"{decode['max_difference_lsb']:.0f} LSB apart",
    )
    segments = f"{a4['segments_a_round']} segments of each of {data['recordings']} recordings"
    two = whole["two_over_one"]
    return [
        (
            f"A4 of a segment, one core, against librosa; {segments}",
            times(a4["against_librosa"]),
            2.0,
        ),
        ("… against torch", times(a4["against_torch"]), 2.0),
        (
            f"decode + down-mix + resample against `librosa.load` ({decode['hours']:.1f} h), at most "
            f"{apart}",
            times(decode),
            3.0,
        ),
        (
            f"whole stage on one core / its kernels ({hours})",
            times(whole["stage_over_kernels"], 2),
            -1.3,
        ),
        (
            f"whole stage, two workers against one ({hours}, {two['rounds']} pairs)",
            times(two, 2),
            1.7,
        ),
        (f"making the demo corpus, {demo['workers']} workers", f"{demo['seconds']:.0f} s", -90.0),
        ("… its files", f"{demo['bytes'] / 1e6:.0f} MB", -300.0),
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
            f"{names} of a segment / the sum of their kernels and one STFT, what A7 and A9 share "
            f"counted once (twice: {together['against_separate']['ratio']:.2f} ×)",
            times(together["against_shared_once"], 2),
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
            f"reading MIDI files ({data['source']}) against pretty_midi, {data['timed']} of "
            f"{data['compared']} files, best of {data['best_of']} each; in all "
            f"{data['compared']}, {differ}",
            f"{data['ratio']:.0f} ×",
            30.0,
        )
    ]


def rendering(data: dict[str, Any]) -> list[Cells]:
    """Audio made from MIDI files."""
    source = f"{data['recordings']} {data['source']}, {data['hours']:.1f} h"
    return [
        (
            f"audio rendered from MIDI, then mel, A4, D4: the whole stage on one core ({source})",
            f"{data['stage']['ratio']:.0f} × real time",
            300.0,
        ),
        (
            "… the rendering alone",
            f"{data['rendering']['ratio']:.0f} × real time "
            f"({data['rendering']['ratio_low']:.0f}–{data['rendering']['ratio_high']:.0f})",
            300.0,
        ),
    ]


def scale(data: dict[str, Any]) -> list[Cells]:
    """A store of MAESTRO's size, projected."""
    build, store, every = data["build"], data["store"], data["every_descriptor"]
    sizes = sorted({run["segments"] for run in data["runs"]})
    fit = f"line through {len(data['runs'])} builds of {sizes[0]:,} to {sizes[-1]:,} segments"

    def residual(found: dict[str, float]) -> str:
        return f"residual {found['largest_residual_percent']:.0f} % at most"

    return [
        (
            f"MAESTRO, {data['paper_segments']:,} segments, audio + A4 + D4, two cores, warm, to "
            f"{data['stores_in']}: extrapolated {data['extrapolated']:.0f} × by a {fit}, "
            f"{residual(build)}",
            f"{build['paper_scale'] / 60:.1f} min",
            -6.0,
        ),
        *(
            (
                f"… adding `{name}` to it ({found['cost_ms']:.2g} ms a segment), extrapolated alike, "
                f"{residual(found)}",
                f"{found['paper_scale'] / 60:.1f} min",
                -3.0,
            )
            for name, found in data["added"].items()
        ),
        (
            "… descriptors that can be added to it in 3 minutes, by their cost between these two",
            f"{len(every['within'])} descriptors",
            float(len(every["seconds"])),
        ),
        ("… its files, by its layout", f"{store['files']} files", -300.0),
        (
            f"… the whole store, extrapolated from measured bytes, {residual(store)}",
            f"{store['paper_scale'] / 1e9:.1f} GB",
            -8.0,
        ),
    ]
