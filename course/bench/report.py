"""The report: lines as they are measured, then JSON, Markdown and a picture."""

import json
import platform
from dataclasses import asdict
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from textwrap import dedent

from course.bench.bars import geometric_mean, verdicts
from course.bench.cases import Row
from course.bench.rounds import cores
from course.files import write_whole

LIBRARIES = "numpy", "numba", "llvmlite", "torch", "scikit-learn", "scipy"
ABOUT = """
    float32. All ways run in one process, in turns; figures are medians. In brackets: how
    many times our time the other needs, median of the rounds; above 1 the course is faster.
    PyTorch is eager unless it says compiled. Means are geometric. The roof: the least time
    that the machine's multiply-adds and its bandwidth (a triad of 8 MB arrays) allow, over
    ours.
"""
UNITS = {"flop/s": "GF/s", "byte/s": "GB/s", "byte": "MB"}


def machine() -> dict[str, str]:
    """Return what the figures depend on."""
    from llvmlite.binding import get_host_cpu_name

    found = {
        "date": date.today().isoformat(),
        "system": f"{platform.system()} {platform.machine()}",
        "processor": f"{_processor()} ({get_host_cpu_name()}), {cores()} cores",
        "python": platform.python_version(),
    }
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not here"
    return found


def _processor() -> str:
    """Return the processor's name as the system tells it."""
    try:
        with open("/proc/cpuinfo") as file:
            names = [
                line.partition(":")[2].strip() for line in file if "model name" in line
            ]
            return names[0]
    except (OSError, IndexError):
        return platform.processor() or "unknown processor"


def readable(value: float, unit: str) -> str:
    """Return the figure with three digits.

    >>> readable(0.00123, "s"), readable(1.5e9, "flop/s")
    ('1.23 ms', '1.5 GF/s')
    """
    if unit == "s":
        scale, unit = (1, "s") if value >= 1 else (1e-3, "ms")
        if value < 1e-3:
            scale, unit = 1e-6, "µs"
    else:
        scale, unit = 1e6 if unit == "byte" else 1e9, UNITS[unit]
    shown = value / scale
    return f"{shown:.3g} {unit}" if shown < 1000 else f"{shown:.0f} {unit}"


def line(row: Row) -> str:
    """Return the row as a line for the terminal."""
    parts = [f"{name} {readable(value, row.unit)}" for name, value in row.figures.items()]
    parts += [
        f"{name} x{ratio:.2f}" if name != "roof" else f"{100 * ratio:.0f}% of the roof"
        for name, ratio in row.ratios.items()
    ]
    parts += [f"{name} not run: {why}" for name, why in row.not_run.items()]
    noise = f" ({row.disturbed} turns disturbed)" * bool(row.disturbed)
    return f"{row.threads} {row.suite}: {row.case}: {', '.join(parts)}{noise}"


def table(rows: list[Row]) -> list[str]:
    """Return the rows of one suite and thread count as Markdown, with means below."""
    ways = [name for row in rows for name in (*row.figures, *row.not_run)]
    ways = sorted(dict.fromkeys(ways), key=lambda way: way != "course")  # ours first
    found = [f"| case | {' | '.join(ways)} | of the roof |", "|---" * (len(ways) + 2) + "|"]
    for row in rows:
        cells = [row.case]
        for way in ways:
            cell = "not run" * (way in row.not_run)
            if way in row.figures:
                cell = readable(row.figures[way], row.unit)
            cells.append(cell + (f" (×{row.ratios[way]:.2f})" if way in row.ratios else ""))
        cells.append(f"{100 * row.ratios['roof']:.0f} %" if "roof" in row.ratios else "")
        found.append(f"| {' | '.join(cells)} |")
    for what in ("forward", "backward"):
        chosen = [row.ratios for row in rows if what in row.case]
        if len(chosen) > 2:
            means = [f"mean of {what}"]
            for way in (*ways, "roof"):
                values = [ratios[way] for ratios in chosen if way in ratios]
                sign = "" if way == "roof" else "×"
                means.append(f"{sign}{geometric_mean(values):.2f}" if values else "")
            found.append(f"| {' | '.join(means)} |")
    return found


def markdown(command: str, about: dict[str, str], rows: list[Row]) -> str:
    """Return the whole report as Markdown."""
    libraries = ", ".join(f"{name} {about[name]}" for name in LIBRARIES)
    found = [
        "# The course on the CPU, beside other libraries",
        "",
        f"{about['date']}, {about['system']}, {about['processor']}; "
        f"Python {about['python']}, {libraries}.",
        "",
        f"    python3 run.py {command}",
        "",
        *dedent(ABOUT).strip().splitlines(),
    ]
    demands = verdicts(rows)
    if demands:
        found += [
            "",
            "## Demands",
            "",
            "| demand | threads | at | measured | |",
            "|---" * 5 + "|",
        ]
        found += [
            f"| {v.item} | {v.threads} | {v.demand} | {v.value:.3g} | "
            f"{'met' if v.met else '**not met**'} |"
            for v in demands
        ]
    for suite in dict.fromkeys(row.suite for row in rows):
        for threads in sorted({row.threads for row in rows if row.suite == suite}):
            chosen = [r for r in rows if r.suite == suite and r.threads == threads]
            plural = "thread" + "s" * (threads > 1)
            found += ["", f"## {suite}, {threads} {plural}", "", *table(chosen)]
    disturbed = sum(row.disturbed for row in rows)
    if disturbed:
        found += ["", f"Other processes disturbed {disturbed} turns that were kept."]
    return "\n".join(found) + "\n"


def write(stem: Path, command: str, about: dict, rows: list[Row]) -> list[Path]:
    """Write stem.json, stem.md and, if there is something to draw, stem.png."""
    data = {
        "command": command,
        "machine": about,
        "rows": [asdict(row) for row in rows],
        "demands": [asdict(verdict) for verdict in verdicts(rows)],
    }
    paths = [stem.with_name(f"{stem.name}.{kind}") for kind in ("json", "md")]
    write_whole(paths[0], (json.dumps(data, indent=1) + "\n").encode())
    write_whole(paths[1], markdown(command, about, rows).encode())
    picture = _roofline(rows)
    if picture:
        paths.append(stem.with_name(f"{stem.name}.png"))
        picture.save(paths[-1])
    return paths


def _roofline(rows: list[Row]):
    """Return the picture of every kernel under its roof, or None without a roof."""
    from course.viz.roofline import roofline

    panels = {}
    for threads in sorted({row.threads for row in rows}):
        mine = [row for row in rows if row.threads == threads]
        roofs = {r.case: r.figures["course"] for r in mine if r.suite == "roof"}
        kernels = {
            f"{row.suite}: {row.case}": (row.flops, row.bytes, row.figures["course"])
            for row in mine
            if row.flops and row.bytes and "course" in row.figures
        }
        if roofs and kernels:
            panels[threads] = roofs, kernels
    return roofline(panels) if panels else None
