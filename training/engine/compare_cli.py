"""`python -m training.engine compare`: its options, and what it prints."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from training.engine.errors import ConfigError

EXIT_DONE, EXIT_FAILED = 0, 1


def add_command(commands: Any) -> None:
    """Add `compare` to the engine's commands."""
    compare = commands.add_parser(
        "compare",
        help="prompting, RAG and fine-tuning on one task, in one table",
        description="Runs the approaches of TASK one after the other and writes OUT/compare.json "
        "and OUT/compare.html. What has ended is not run again: after an interrupt (75) the same "
        "command goes on. Exit status 1 where no approach ended well.",
    )
    compare.add_argument(
        "task", type=Path, metavar="TASK", help="a JSON file; its paths are its own"
    )
    compare.add_argument("--out", type=Path, required=True, metavar="OUT", help="a folder")


def run(options: argparse.Namespace) -> int:
    """Do what the options say. Returns the exit status; raises EngineError, Interrupted."""
    from training.engine.compare import run_comparison
    from training.engine.compare_report import text

    try:
        task = json.loads(options.task.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{options.task} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ConfigError(f"{options.task} is not JSON: {error}") from None
    if not isinstance(task, dict):
        raise ConfigError(f"{options.task} must hold one JSON object")

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    found = run_comparison(task, options.out, folder=options.task.parent, say=say)
    print(text(found))
    print(f"\n{options.out / 'compare.json'}, {options.out / 'compare.html'}")
    return EXIT_DONE if any(row["status"] == "done" for row in found["rows"]) else EXIT_FAILED
