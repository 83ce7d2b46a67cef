"""A comparison as one table: for a terminal, and as an HTML file that needs nothing beside it."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from training.engine.report import document, table

HEAD = (
    "approach",
    "quality",
    "against prompting",
    "CPU s (before answering)",
    "tokens in / out",
    "peak MB (answering)",
    "latency s median / p95",
    "general perplexity",
)
NOTES = (
    "Intervals are 95 %, questions drawn anew; the difference is paired by question.",
    "CPU seconds and peak memory are the kernel's count of each stage's own process, imports "
    "included; measuring general text is left out of the seconds.",
    "Latency is what a question waits for the block of questions that it is answered with.",
    "General perplexity: before and after training, on text that is not of the task; prompting and "
    "RAG change no weights.",
)


def cells(row: Mapping[str, Any]) -> list[str]:
    """One approach, a cell for each of HEAD."""
    if row["status"] != "done":
        return [row["title"], f"failed: {row['reason']}", *[""] * (len(HEAD) - 2)]
    quality = [f"{name.rpartition('/')[2]} {span(value)}" for name, value in row["quality"].items()]
    quality += [
        f"{name.rpartition('/')[2]} {span(value)}"
        for name, value in (row["retrieval"] or {}).items()
    ]
    cost, memory, latency = row["cost"], row["memory"], row["latency"]
    seconds = cost["cpu_s"] - cost["cpu_s_measuring_general"]
    return [
        row["title"],
        "\n".join(quality),
        span(row["difference"], sign="+") if row["difference"] else "–",
        f"{seconds:,.0f} ({cost['cpu_s_before_answering']:,.0f})",
        f"{cost['prompt_tokens']:,} / {cost['answer_tokens']:,}",
        f"{memory['peak_mb']:,.0f} ({memory['peak_mb_answering']:,.0f})",
        f"{latency['median_s']:.2f} / {latency['p95_s']:.2f} "
        f"(blocks of {latency['questions_at_once']})",
        forgotten(row["forgetting"]),
    ]


def forgotten(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "weights as they were"
    before, after = (found[f"perplexity_{name}"]["value"] for name in ("before", "after"))
    change = {end: None if v is None else 100.0 * v for end, v in found["change"].items()}
    return f"{before:.1f} → {after:.1f}, {span(change, sign='+', digits=1)} %"


def span(figure: Mapping[str, Any], *, sign: str = "", digits: int = 3) -> str:
    """A figure with its interval; a dash where there is none."""
    if figure["value"] is None:
        return "–"
    shown = f"{figure['value']:{sign}.{digits}f}"
    if figure["low"] is None:
        return shown
    return f"{shown} [{figure['low']:{sign}.{digits}f}, {figure['high']:{sign}.{digits}f}]"


def text(found: Mapping[str, Any]) -> str:
    """The comparison for a terminal: an approach a paragraph, since its cells are long."""
    lines = [headline(found), ""]
    for row in found["rows"]:
        name, *rest = cells(row)
        lines.append(name)
        for head, cell in zip(HEAD[1:], rest, strict=True):
            if cell:
                lines.append(f"  {head:<26} {cell}".replace("\n", f"\n{' ' * 29}"))
        lines.append("")
    return "\n".join([*lines, *NOTES])


def html(found: Mapping[str, Any]) -> str:
    body = f"<p>{escape(headline(found))}</p>"
    body += table(HEAD, [cells(row) for row in found["rows"]], "text")
    body += "".join(f'<p class="note">{escape(note)}</p>' for note in NOTES)
    stages = [
        (
            each["stage"],
            f"{each['cpu_s']:,.1f}",
            f"{each['wall_s']:,.1f}",
            f"{each['peak_mb']:,.0f}",
            "" if each["steps"] is None else f"{each['steps']}",
            f"{each['attempts']}" + (f" (+{each['cut_off']} cut off)" if each["cut_off"] else ""),
        )
        for row in found["rows"]
        for each in row["stages"] or ()
    ]
    body += "<h2>Ledger</h2>" + table(
        ("stage", "CPU s", "wall s", "peak MB", "steps", "attempts"), stages
    )
    return document(f"Comparison: {found['task']}", body)


def headline(found: Mapping[str, Any]) -> str:
    said = f"{found['task']}: {found['questions']} questions, {found['examples']} examples"
    seen = found["questions_among_the_examples"]
    if seen:
        said += f"; {seen} questions stand among the examples too, which flatters what is trained"
    return f"{said}. Compared by {found['primary']}."
