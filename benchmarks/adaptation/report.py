"""The table of the benchmark, for a terminal and as a page."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.adaptation.stages import Figure, Row

HEAD = """# Adaptation, measured
Written by `make bench-adaptation DOCS=1` on two processor cores; the data are slices of public
sets (benchmarks/README.md). Brackets are 95 % intervals. CPU seconds and peak memory are those of
the row's own processes, imports included; latency is of one text or question at a time, median and
95th percentile. SmolLM2 is the base `demo`, MiniLM `minilm` ([packaged](packaged-bases.md)).
"""


def number(name: str, figure: Figure) -> str:
    value, low, high = figure
    if value is None:
        return "–"
    share = name.endswith("change")

    def shown(each: float) -> str:
        if share:
            return f"{100 * each:+.1f} %"
        return f"{each:+.3f}" if "difference" in name else f"{each:.{1 if each >= 10 else 3}f}"

    if low is None or high is None:
        return shown(value)
    return f"{shown(value)} [{shown(low)}, {shown(high)}]"


def spent(row: Row) -> list[str]:
    """CPU seconds, peak MB, latency."""
    seconds = "–" if row.cpu_s is None else f"{row.cpu_s:,.1f}"
    peak = "–" if row.peak_mb is None else f"{row.peak_mb:,.0f}"
    latency = "–" if row.latency_s is None else " / ".join(f"{s * 1e3:,.1f}" for s in row.latency_s)
    return [seconds, peak, latency]


def verdict(row: Row) -> str:
    if not row.reach:
        return "none set"
    return f"{row.reach}: **missed** ({row.missed})" if row.missed else f"{row.reach}: reached"


def terminal(row: Row) -> str:
    shown = ", ".join(f"{name} {number(name, each)}" for name, each in row.figures.items())
    seconds, peak, latency = spent(row)
    lines = [f"  {row.name}: {shown}", f"    {seconds} CPU s, {peak} MB, {latency} ms"]
    lines += [f"    {note}" for note in row.notes]
    if row.reach:
        lines.append(f"    {verdict(row)}".replace("**", ""))
    return "\n".join(lines)


def markdown(rows: Sequence[Row]) -> str:
    parts = [HEAD]
    for stage, group in groupby(rows, key=lambda row: row.stage):
        own = list(group)
        names = list(dict.fromkeys(name for row in own for name in row.figures))
        head = ["", *names, "CPU s", "peak MB", "latency ms", "to reach"]
        lines = [f"\n## {stage}", line(head), "|" + "---|" * len(head)]
        for row in own:
            cells = [number(n, row.figures[n]) if n in row.figures else "–" for n in names]
            lines.append(line([row.name, *cells, *spent(row), verdict(row)]))
        said: dict[str, list[str]] = {}
        for row in own:
            for note in row.notes:
                said.setdefault(note, []).append(row.name)
        notes = [f"- {'; '.join(who)}: {note}" for note, who in said.items()]
        parts.append("\n".join([*lines, *([""] if notes else []), *notes]) + "\n")
    return "".join(parts)


def line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
