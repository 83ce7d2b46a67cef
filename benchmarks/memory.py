"""The runs that the planner is held to (`training.engine.planner_own`), done again and measured.

    python -m benchmarks.memory [WORD …]       # all, or the cases that hold one of the words

One after another on a processor, each in a process of its own. Prints what each took above its
imports and what is planned, with the three measured numbers as `planner_own` wants them.
Busy cores do no harm: nothing is timed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.adaptation.data import django, sms, write
from benchmarks.training.data import preference_rows, prompt_rows
from training.engine.planner import Lengths
from training.engine.planner_calibrate import convert
from training.engine.planner_own import OWN, REWARD, Measured

#: Names of the files in a run folder, and their rows.
ROWS: dict[str, dict[str, list[dict[str, Any]]]] = {
    "pairs": {"train": preference_rows("short")},
    "long pairs": {"train": preference_rows("hh")},
    "conversations": {
        "train": [
            {"id": row["id"], "messages": row["prompt"] + row["chosen"]}
            for row in preference_rows("short")
        ]
    },
    "prompts": {"prompts": prompt_rows(16)},
    "documents": {
        split: [{**row, "text": row["text"][:4000]} for row in rows[:4]]
        for split, rows in zip(("train", "test"), django(), strict=True)
    },
    "texts": {"train": sms()[0][:64], "test": sms()[1][:32]},
}


def done(folder: Path, case: Measured, scorer: Path) -> Measured:
    """The case with what it measured now. Exits where the run failed."""
    config = json.loads(json.dumps(case.whole))
    if "reward_adapter" in config.get(config["method"], {}):
        config[config["method"]]["reward_adapter"] = str(scorer)
    (folder / "data").mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    for name, rows in ROWS[case.rows].items():
        write(folder / "data" / f"{name}.jsonl", rows)
    command = [sys.executable, "-m", "training.engine", "run", str(folder)]
    ended = subprocess.run(command, check=False)
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    if ended.returncode:
        sys.exit(f"{case.case}: {result['reason']}")
    lengths = Lengths(**result["lengths"])
    return replace(
        case, lengths=lengths, imports_mb=result["imports_mb"], peak_mb=result["peak_mb"]
    )


def main(words: list[str]) -> None:
    """Runs are done in the order of `OWN`; those after the reward's are scored by it."""
    convert("demo")  # apart: it takes more memory than some runs
    with TemporaryDirectory(prefix="memory-") as name:
        scorer = Path(name) / REWARD / "adapter"
        for case in OWN:
            if words and case.case != REWARD and not any(word in case.case for word in words):
                continue
            found = done(Path(name) / case.case, case, scorer)
            recorded = f"{case.above_mb:,.0f}" if case.lengths else "nothing"
            error = found.planned_mb / found.above_mb - 1.0
            print(
                f"{found.case}: {found.above_mb:,.0f} MB above imports, planned "
                f"{found.planned_mb:,.0f} ({error:+.1%}), recorded {recorded}\n"
                f"        lengths={found.lengths},\n"
                f"        imports_mb={found.imports_mb:.1f},\n"
                f"        peak_mb={found.peak_mb:.1f},",
                flush=True,
            )


if __name__ == "__main__":
    main(sys.argv[1:])
