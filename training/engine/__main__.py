"""The engine's command line.

python -m training.engine run RUN_DIR      train, evaluate or sample as RUN_DIR/config.json says
python -m training.engine sample ...       answer a file of prompts without writing a config

Exit status: 0 done; 1 refused or failed (the reason is printed and in result.json); 2 wrong usage;
75 interrupted, and `run` with the same folder goes on from the checkpoint.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import resource
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from training.engine.errors import ConfigError, EngineError, Interrupted
from training.engine.rundir import RunDir, read_rows, write_file, write_result
from training.engine.tether import EXIT_INTERRUPTED, tie

# It asks people to install `kernels`, which fetches code at run time and is kept out of the locks.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

EXIT_DONE, EXIT_FAILED = 0, 1

#: The module of each method; imported only when it runs, because they bring torch.
METHODS = {
    "sft": "training.engine.sft",
    "reward": "training.engine.reward",
    "dpo": "training.engine.dpo",
    "ppo": "training.engine.ppo",
    "evaluate": "training.engine.evaluate",
    "sample": "training.engine.sampling",
}


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    try:
        if options.command == "sample":
            folder = write_sample_folder(options)
            status = run_folder(folder)
            if status == EXIT_DONE:
                print(f"answers: {folder / 'samples.jsonl'}")
            elif status == EXIT_INTERRUPTED:
                print(f"go on with: python -m training.engine run {folder}", file=sys.stderr)
            return status
        return run_folder(
            options.run_dir, options.attempt, options.heartbeat_fd, options.patience_s
        )
    except EngineError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return EXIT_FAILED


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="python -m training.engine",
        description="Trains, evaluates and samples from a run folder; knows nothing of Django.",
        epilog="The folder's layout: docs/reference/run-directory.md. "
        "Exit status: 0 done, 1 refused or failed (result.json says why), 2 wrong usage, "
        "75 interrupted and resumable.",
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = commands.add_parser(
        "run",
        help="do what RUN_DIR/config.json says",
        description="Does what RUN_DIR/config.json says. After an interrupt (75) the same command "
        "goes on from the newest checkpoint.",
    )
    run.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="holds config.json and data/")
    run.add_argument("--attempt", metavar="TOKEN", help="name of this attempt (default: random)")
    run.add_argument(
        "--heartbeat-fd",
        type=int,
        metavar="N",
        help="read end of a pipe: the run stops at once when it closes",
    )
    run.add_argument(
        "--patience-s",
        type=float,
        metavar="S",
        help="… or when nothing came through it for so many seconds",
    )
    sample = commands.add_parser(
        "sample",
        help="answer a file of prompts",
        description="Answers every prompt and writes OUT/samples.jsonl, one answer a line.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    sample.add_argument("--base", default="demo", help="demo, a Hub id, a folder or a .gguf file")
    sample.add_argument("--adapter", type=Path, metavar="FOLDER", help="PEFT folder of a policy")
    sample.add_argument(
        "--prompts",
        type=Path,
        required=True,
        metavar="FILE",
        help='JSON lines: {"id": …, "prompt": [{"role": …, "content": …}]}',
    )
    sample.add_argument("--out", type=Path, required=True, metavar="OUT", help="a new run folder")
    for name, default, meaning in (
        ("--samples-per-prompt", 1, "answers to each prompt"),
        ("--max-new-tokens", 64, "longest answer in tokens"),
        ("--seed", 0, "the same seed gives the same answers"),
    ):
        sample.add_argument(name, type=int, metavar="N", default=default, help=meaning)
    sample.add_argument(
        "--temperature", type=float, metavar="T", default=1.0, help="0: most probable token"
    )
    sample.add_argument(
        "--top-p", type=float, metavar="P", default=1.0, help="1: the whole distribution"
    )
    sample.add_argument(
        "--quantization",
        choices=("none", "int8", "nf4"),
        default="none",
        help="how the base is held",
    )
    return top


def write_sample_folder(options: argparse.Namespace) -> Path:
    """A run folder for `sample`'s options. Raises EngineError for a folder that is in use."""
    import json

    from training.engine.config import from_dict, to_dict
    from training.engine.errors import RunFolderError

    rows = read_rows(options.prompts)
    config = from_dict(
        {
            "method": "sample",
            "seed": options.seed,
            "base": {"source": options.base, "quantization": options.quantization},
            "adapter": {"init_from": str(options.adapter.resolve()) if options.adapter else None},
            "sample": {
                "samples_per_prompt": options.samples_per_prompt,
                "max_new_tokens": options.max_new_tokens,
                "temperature": options.temperature,
                "top_p": options.top_p,
            },
        }
    )
    folder: Path = options.out
    if (folder / "config.json").exists():
        raise RunFolderError(f"{folder} already holds a run; give a new folder")
    try:
        (folder / "data").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFolderError(f"{folder} cannot be written: {error.strerror}") from error
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_file(folder / config.data.prompts, lines)
    write_file(folder / "config.json", json.dumps(to_dict(config), indent=2) + "\n")
    return folder


def run_folder(
    path: Path,
    attempt: str | None = None,
    heartbeat_fd: int | None = None,
    patience_s: float | None = None,
) -> int:
    """Run one folder to its end and publish result.json. Returns the exit status."""
    started = time.monotonic()
    tie(heartbeat_fd, patience_s)
    try:
        run = RunDir(path, attempt)
    except ConfigError as error:
        refuse_config(path, f"{error}")
        raise
    try:
        module = importlib.import_module(METHODS[run.config.method])
        found = module.train(run)
    except Interrupted as pause:
        run.events.write("end", status="interrupted")
        print(pause, file=sys.stderr)
        return EXIT_INTERRUPTED
    except EngineError as error:
        publish(run, started, status="refused", reason=f"{error}")
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return EXIT_FAILED
    except Exception as error:
        # Not one of ours: a bug or a failing library. The traceback is for whoever mends it, the
        # sentence for the person; re-raising would leave the folder without a result.
        reason = f"{type(error).__name__}: {error}"
        trace = run.attempt_path / "traceback.txt"
        write_file(trace, "".join(traceback.format_exception(error)))
        print(f"{reason} (not expected; traceback: {trace})", file=sys.stderr)
        publish(run, started, status="failed", reason=reason)
        return EXIT_FAILED
    publish(run, started, status="done", reason=None, **found)
    return EXIT_DONE


def refuse_config(path: Path, reason: str) -> None:
    """result.json for a config that names no run: all that is known is why."""
    if not (path / "result.json").exists():
        nothing = {"steps": 0, "rows": 0, "metrics": {}, "adapter": None, "versions": {}}
        write_result(path, {"status": "refused", "method": None, "reason": reason, **nothing})


def publish(run: RunDir, started: float, *, status: str, reason: str | None, **found: Any) -> None:
    from training.engine.preflight import versions

    result: dict[str, Any] = {"status": status, "method": run.config.method, "reason": reason}
    result |= {"steps": 0, "rows": 0, "metrics": {}, "adapter": None} | found
    result |= {
        "seconds": round(time.monotonic() - started, 2),
        "peak_mb": round(peak_mb(), 1),
        "versions": versions(),
        "config_sha256": run.config_sha256,
        "data_sha256": run.data_sha256(),
    }
    write_result(run.path, result)
    run.events.write("end", status=status)
    run.events.close()


def peak_mb() -> float:
    """Highest memory of this run in MB: the device's where there is one, else resident memory."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


if __name__ == "__main__":
    sys.exit(main())
