"""`make bench-training`: the engine against stock TRL, side by side in one run.

Each side works in a process of its own, in turn (A B A B …), on the same rows, base, adapter,
batch size and number of threads; only the work itself is timed. Rows that stand beside the same
other side share its work (A B T A B T …). ONLY="dpo-4 sft" selects rows, ROUNDS=1 makes do with so
many rounds of each.
Rows `{name, ours, theirs, ratio, reach, difference, …}` go to var/bench/training.json.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.training.data import ROOT
from benchmarks.training.machine import matrix_peak, peak_mb, require_idle
from benchmarks.training.rows import ROWS, Row, Side
from benchmarks.training.settings import THREADS

OUT = ROOT / "var" / "bench" / "training.json"
CACHE = OUT.parent / "cache"
#: Largest difference between what both sides compute on the same tokens.
MAX_DIFFERENCE = 1e-3
MODULES = {"ours": "benchmarks.training.ours", "theirs": "benchmarks.training.stock"}


def one_side(name: str, side: Side) -> None:
    """The child process: work once, and say on the last line what was measured."""
    # What the engine remembers by content would make the first time look like the second.
    for remembered in ("logps", "packing"):
        shutil.rmtree(CACHE / remembered, ignore_errors=True)
    work = getattr(importlib.import_module(MODULES[name]), side.job)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        measured = work(Path(folder), **side.options)
    print("\n" + json.dumps({"peak_mb": peak_mb()} | measured))


def measure(row: Row, name: str) -> dict[str, Any] | None:
    """Run one side of a row, in a process of its own; None where it was killed for its memory."""
    child = subprocess.run(
        [sys.executable, "-m", "benchmarks.training", "--row", row.name, "--side", name],
        cwd=ROOT,
        env=os.environ
        | {
            "ENGINE_CACHE_DIR": str(CACHE),
            "OMP_NUM_THREADS": str(THREADS),
            "OMP_WAIT_POLICY": "PASSIVE",
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
        },
        capture_output=True,
        text=True,
    )
    if child.returncode == -signal.SIGKILL:
        return None
    if child.returncode != 0:
        sys.exit(f"bench: {row.name}, {name}, failed:\n{child.stderr[-3000:]}")
    measured: dict[str, Any] = json.loads(child.stdout.strip().split("\n")[-1])
    return measured


def figure(row: Row, measured: dict[str, Any]) -> float:
    """What the row compares: a speed, seconds, or megabytes."""
    if row.unit == "MB":
        return float(measured["peak_mb"])
    if row.unit == "s":
        return float(measured["seconds"])
    return float(measured["amount"] / measured["seconds"])


def largest_difference(ours: dict[str, Any], theirs: dict[str, Any]) -> float | None:
    """Between what both sides computed on the same tokens; None where they computed nothing."""
    if not ours.get("compared") or not theirs.get("compared"):
        return None
    if ours["tokens"] != theirs["tokens"]:
        sys.exit("bench: the two sides saw different tokens, so nothing here can be compared")
    both = zip(ours["compared"], theirs["compared"], strict=True)
    return max(abs(mine - other) for mine, other in both)


def histogram(lengths: list[int]) -> str:
    """Answers by length, eight bins up to the longest that may be."""
    bins = [0] * 8
    for length in lengths:
        bins[min(7, (length - 1) // 16)] += 1
    return " ".join(f"≤{16 * (place + 1)}:{count}" for place, count in enumerate(bins))


def measured_peak() -> float:
    """FLOP/s of the machine's matrix products now, in a process of its own."""
    child = subprocess.run(
        [sys.executable, "-m", "benchmarks.training", "--peak"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return float(child.stdout)


def together(rows: Sequence[Row]) -> list[list[Row]]:
    """Rows that stand beside the same other side, which works once in a round for all of them."""
    groups: list[list[Row]] = []
    for row in rows:
        group = next((each for each in groups if row.theirs and each[0].theirs == row.theirs), None)
        if group is None:
            groups.append([row])
        else:
            group.append(row)
    return groups


def measure_group(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """All rounds of rows with one other side: theirs in turn with every ours, A B … T, A B … T."""
    ours: dict[str, list[dict[str, Any]]] = {row.name: [] for row in rows}
    theirs: list[dict[str, Any]] = []
    most = int(os.environ.get("ROUNDS") or max(row.rounds for row in rows))
    for number in range(1, most + 1):
        taken = [row for row in rows if number <= row.rounds]
        for row in taken:
            measured = measured_once(row, "ours", number)
            if measured is None:
                sys.exit(f"bench: {row.name}, ours, was killed: is there memory left?")
            ours[row.name].append(measured)
        if taken and rows[0].theirs is not None and len(theirs) == number - 1:
            theirs += filter(None, [measured_once(taken[0], "theirs", number)])
    return [row_of(row, ours[row.name], theirs[: len(ours[row.name])]) for row in rows]


def measured_once(row: Row, name: str, number: int) -> dict[str, Any] | None:
    """One side of a row, beside what the machine could do just before; None where it was killed."""
    peak = measured_peak() if row.counts_flops else 0.0
    measured = measure(row, name)
    begin = f"{row.name:<11} round {number} {name:<7}"
    if measured is None:
        print(f"{begin} killed: it wanted more memory than there is", flush=True)
        return None
    measured["peak"] = peak
    print(
        f"{begin} {figure(row, measured):.4g} {row.unit}, "
        f"{measured['peak_mb']:.0f} MB"
        + (f", matrix peak {peak / 1e9:.0f} GFLOP/s" if peak else ""),
        flush=True,
    )
    return measured


def row_of(row: Row, ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> dict[str, Any]:
    """The row from its rounds; theirs is empty where nothing stands beside it, or was killed."""
    all_of = {"ours": ours} | ({"theirs": theirs} if theirs else {})
    found: dict[str, Any] = {"name": row.name, "title": row.title, "unit": row.unit}
    for name, every in all_of.items():
        values = [figure(row, each) for each in every]
        found[name] = round_to(median(values))
        found[f"{name}_spread"] = [round_to(min(values)), round_to(max(values))]
        found[f"{name}_peak_mb"] = round(median(each["peak_mb"] for each in every))
        if "lengths" in every[-1]:
            found[f"{name}_lengths"] = histogram(every[-1]["lengths"])
    mine = all_of["ours"][-1]
    useful = mine.get("useful_flops")
    if useful is not None:
        for name, every in all_of.items():
            shares = [useful / each["seconds"] / each["peak"] for each in every]
            found[f"{name}_of_peak"] = round_to(median(shares))
    if theirs:
        ratios = [figure(row, a) / figure(row, b) for a, b in zip(ours, theirs, strict=False)]
        found["ratio"] = round_to(median(ratios))
        found["ratio_spread"] = [round_to(min(ratios)), round_to(max(ratios))]
        found["memory_ratio"] = round_to(found["ours_peak_mb"] / found["theirs_peak_mb"])
        found["difference"] = largest_difference(mine, theirs[-1])
    return found | {
        "reach": row.reach,
        "memory_reach": row.memory_reach,
        "limit": row.limit,
        "killed": row.theirs is not None and not theirs,
        "misses": misses(row, found),
    }


def misses(row: Row, found: dict[str, Any]) -> list[str]:
    """What the row should have reached and did not; nothing where there is no other side."""
    missed = []
    if row.theirs is not None and "ratio" not in found:
        return missed
    if row.reach is not None:
        short = found["ratio"] > row.reach if row.smaller_is_better else found["ratio"] < row.reach
        if short:
            missed.append(f"ratio {found['ratio']}, to reach {row.reach}")
    if row.memory_reach is not None and found["memory_ratio"] > row.memory_reach:
        missed.append(f"memory ratio {found['memory_ratio']}, to reach {row.memory_reach}")
    if row.limit is not None and found["ours"] > row.limit:
        missed.append(f"{found['ours']} {row.unit}, at most {row.limit}")
    difference = found.get("difference")
    if difference is not None and not difference <= MAX_DIFFERENCE:
        missed.append(f"difference {difference:.2g}, at most {MAX_DIFFERENCE}")
    return missed


def round_to(value: float) -> float:
    return float(f"{value:.4g}")


def show(found: dict[str, Any]) -> None:
    """One finished row, at once: a run that is cut short has said what it measured."""
    print(f"\n{found['name']}: {found['title']}")
    for name in ("ours", "theirs"):
        if name in found:
            low, high = found[f"{name}_spread"]
            of_peak = found.get(f"{name}_of_peak")
            print(
                f"  {name:<7}{found[name]} {found['unit']} [{low} to {high}], "
                f"{found[f'{name}_peak_mb']} MB"
                + (f", {of_peak:.2f} of the matrix peak in useful work" if of_peak else "")
            )
            if f"{name}_lengths" in found:
                print(f"         lengths {found[f'{name}_lengths']}")
    if "ratio" in found:
        low, high = found["ratio_spread"]
        print(f"  ratio  {found['ratio']} [{low} to {high}], memory {found['memory_ratio']}")
    if found.get("difference") is not None:
        print(f"  largest difference {found['difference']:.2g}")
    asked = found["reach"] or found["memory_reach"] or found["limit"]
    verdict = "reached" if asked else "nothing to reach was set"
    if found["misses"]:
        verdict = "MISSED: " + "; ".join(found["misses"])
    if found["killed"]:
        verdict = "the other side was killed: it wanted more memory than there is"
    print(f"  {verdict}", flush=True)


def main() -> int:
    by_name = {row.name: row for row in ROWS}
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--row", choices=by_name, help=argparse.SUPPRESS)
    parser.add_argument("--side", choices=MODULES, help=argparse.SUPPRESS)
    parser.add_argument("--peak", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.peak:
        print(matrix_peak(THREADS))
        return 0
    if asked.row:
        row = by_name[asked.row]
        side = row.ours if asked.side == "ours" else row.theirs
        assert side is not None
        one_side(asked.side, side)
        return 0
    names = os.environ.get("ONLY", "").split() or list(by_name)
    if unknown := [name for name in names if name not in by_name]:
        sys.exit(f"bench: no row {', '.join(unknown)}; there are {', '.join(by_name)}")
    require_idle()
    measure(by_name["start"], "theirs")  # converts the base once; not counted
    found = []
    for group in together([by_name[name] for name in names]):
        found += measure_group(group)
        for each in found[-len(group) :]:
            show(each)
        OUT.parent.mkdir(parents=True, exist_ok=True)
        OUT.write_text(json.dumps({"rows": found}, indent=2) + "\n", encoding="utf-8")
    print(f"\nwritten: {OUT.relative_to(ROOT)}")
    return 1 if any(each["misses"] for each in found) else 0


if __name__ == "__main__":
    sys.exit(main())
