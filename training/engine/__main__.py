"""The engine's command line.

python -m training.engine run RUN_DIR      train, evaluate or sample as RUN_DIR/config.json says
python -m training.engine sample ...       answer a file of prompts without writing a config
python -m training.engine selftest         this installation against published numbers
python -m training.engine merge ...        write base plus adapter as one whole model
python -m training.engine plan ...         memory and time of a run before it is launched
python -m training.engine advise ...       whether to train, retrieve or prompt, and how to start
python -m training.engine index ...        documents to an index that can be searched
python -m training.engine search ...       the chunks of an index that fit a query
python -m training.engine compare ...      prompting, RAG and fine-tuning on one task, in one table

Exit status: 0 done; 1 refused or failed (the reason is printed and in result.json); 2 wrong usage;
74 the disk is full and 75 interrupted: `run` with the same folder goes on from the checkpoint.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import logging
import os
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from training.engine import advisor_cli, compare_cli, planner_cli, retrieval_cli
from training.engine.causes import ALARM, BUG, NO_SPACE, REFUSED, cause_of, in_words
from training.engine.config import TRL_METHODS, RunConfig
from training.engine.errors import ConfigError, EngineError, Interrupted, OutOfSpaceError
from training.engine.files import write_file
from training.engine.memory import begin_run, imports_mb, peak_mb
from training.engine.methods import MODULES
from training.engine.packaged import BASES
from training.engine.rundir import RunDir, make_attempt, publish_result, read_rows
from training.engine.tether import EXIT_INTERRUPTED, add_tether, tie

# It asks people to install `kernels`, which fetches code at run time and is kept out of the locks.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

EXIT_DONE, EXIT_FAILED = 0, 1
#: Exit status of a run that lacks room on a disk, and goes on once there is some.
EXIT_NO_SPACE = 74
#: What an attempt says that trained to the end and found the run ended by another.
TOO_LATE = "another attempt ended this run first; its result stands, and nothing of it was changed"


def main(arguments: Sequence[str] | None = None) -> int:
    options = parser().parse_args(arguments)
    try:
        if options.command == "selftest":
            return selftest()
        if options.command == "sample":
            folder = write_sample_folder(options)
            status = run_folder(folder)
            if status == EXIT_DONE:
                print(f"answers: {folder / 'samples.jsonl'}")
            elif status == EXIT_INTERRUPTED:
                say(f"go on with: python -m training.engine run {folder}")
            return status
        if options.command == "merge":
            from training.engine.merging import merge

            for line in merge(
                base=options.base,
                adapter=options.adapter,
                out=options.out,
                quantization=options.quantization,
            ):
                say(f"warning: {line}")
            print(f"merged model: {options.out}")
            return EXIT_DONE
        if options.command == "plan":
            return planner_cli.run(options)
        if options.command == "advise":
            return advisor_cli.run(options)
        if options.command in ("index", "search"):
            return retrieval_cli.run(options)
        if options.command == "compare":
            return compare_cli.run(options)
        if options.command == "preflight":
            return print_preflight(options.run_dir, as_json=options.json)
        return run_folder(
            options.run_dir, options.attempt, options.heartbeat_fd, options.patience_s
        )
    except OutOfSpaceError as error:
        say(f"{error}")
        return EXIT_NO_SPACE
    except Interrupted as pause:
        say(f"{pause}")
        return EXIT_INTERRUPTED
    except EngineError as error:
        say(f"{type(error).__name__}: {error}")
        return EXIT_FAILED


def selftest() -> int:
    """Print every check; 1 where one failed."""
    from training.engine.selftest import run, table

    checks = run()
    print(table(checks))
    failed = sum(not check.passed for check in checks)
    print(f"{len(checks)} checks, {failed} failed")
    return EXIT_FAILED if failed else EXIT_DONE


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="python -m training.engine",
        description="Trains, evaluates and samples from a run folder, and merges adapters; knows "
        "nothing of Django.",
        epilog="The folder's layout: docs/reference/run-directory.md. "
        "Exit status: 0 done, 1 refused or failed (result.json says why), 2 wrong usage, "
        "74 the disk is full and 75 interrupted, both resumable.",
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
    add_tether(run)
    commands.add_parser(
        "selftest",
        help="compare this installation with published numbers",
        description="Computes numbers that papers and other trainers published, or that were "
        "worked by hand, with the functions that training uses; prints expected, got and source.",
    )
    preflight = commands.add_parser(
        "preflight",
        help="count what is wrong with the rows of RUN_DIR",
        description="Counts what is wrong with the rows that RUN_DIR would train on, and writes "
        "nothing. Exit status 1 where nothing could be learnt from them.",
    )
    preflight.add_argument("run_dir", type=Path, metavar="RUN_DIR")
    preflight.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    sample = commands.add_parser(
        "sample",
        help="answer a file of prompts",
        description="Answers every prompt and writes OUT/samples.jsonl, one answer a line.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    sample.add_argument("--base", default="demo", help=BASES)
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
    merge = commands.add_parser(
        "merge",
        help="write base plus adapter as one whole model",
        description="Adds an adapter's update to its base's weights and writes the whole model in "
        "transformers' format, in fp32, with merge.json and README.md: what was merged into what, "
        "and how far the logits of a text are from what was trained.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    merge.add_argument("--base", default="demo", help=BASES)
    merge.add_argument("--adapter", type=Path, metavar="FOLDER", required=True, help="PEFT folder")
    merge.add_argument("--out", type=Path, required=True, metavar="OUT", help="a new folder")
    merge.add_argument(
        "--quantization",
        choices=("none", "nf4"),
        default="none",
        help="merge into the base's own weights, or into what 4 bits left of them",
    )
    planner_cli.add_command(commands)
    advisor_cli.add_command(commands)
    retrieval_cli.add_commands(commands)
    compare_cli.add_command(commands)
    return top


def print_preflight(path: Path, *, as_json: bool) -> int:
    """Print what was found about a run folder's rows. Returns the exit status."""
    import json

    from training.engine.errors import RunFolderError
    from training.engine.inspection import refusal
    from training.engine.token_inspection import as_table, preflight

    if not (path / "config.json").is_file():
        raise RunFolderError(f"{path} holds no config.json; is it a run folder?")
    findings, seconds = preflight(path)
    if as_json:
        found = {"findings": [f.as_json() for f in findings], "seconds": round(seconds, 3)}
        print(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        print(as_table(findings, seconds))
    return EXIT_FAILED if refusal(findings) else EXIT_DONE


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
    """Run one folder to its end and publish result.json. Returns the exit status.

    Where torchrun or `accelerate launch` started several processes, this is one of them.
    """
    tie(heartbeat_fd, patience_s)
    if os.environ.get("WORLD_SIZE", "") in ("", "1"):
        return run_process(path, attempt)
    from training.engine import distributed

    distributed.join()
    try:
        if distributed.rank() == 0:
            return run_process(path, attempt)
        with TemporaryDirectory() as scratch:
            return run_process(path, attempt, Path(scratch))
    finally:
        distributed.leave()


def run_process(path: Path, attempt: str | None, scratch: Path | None = None) -> int:
    """This process's part of a run: all of it, or with a `scratch` folder that of a follower."""
    started = time.monotonic()
    begin_run()
    try:
        run = RunDir(path, attempt, scratch=scratch)
    except ConfigError as error:
        if scratch is None:
            refuse_config(path, attempt, f"{error}")
        raise
    try:
        from training.engine.inputs import compare_inputs

        compare_inputs(run)
        require_shareable(run.config)
        found = importlib.import_module(MODULES[run.config.method]).train(run)
        if not run.is_leader:
            return EXIT_DONE
        return publish(run, started, status="done", cause=None, **(stopped_early(run) | found))
    except Interrupted as pause:
        say(f"{pause}")
        run.events.write("end", status="interrupted")
        return EXIT_INTERRUPTED
    except Exception as error:
        return give_up(run, started, error)


def require_shareable(config: RunConfig) -> None:
    """Raise ConfigError for what several processes that were started cannot do together."""
    from training.engine import distributed, sharding

    sharding.require_shardable(config)
    if distributed.size() > 1 and config.method in TRL_METHODS:
        raise ConfigError(
            f"{config.method} runs in one process, and {distributed.size()} were started: its "
            "batches are TRL's. Start it without torchrun or accelerate launch"
        )


def stopped_early(run: RunDir) -> dict[str, Any]:
    """`reason` and `stopped` of result.json: which alarm ended the run, and what was kept."""
    alarm = run.alarms.stopping
    if alarm is None or run.kept_step is None:
        return {"reason": None}
    return {
        "reason": alarm.ended(run.kept_step),
        "stopped": {**asdict(alarm), "kept_step": run.kept_step},
    }


def give_up(run: RunDir, started: float, error: Exception) -> int:
    """Tell why, in the result and on stderr; without a result where only room is missing."""
    cause = cause_of(error)
    reason = in_words(error, cause)
    if not run.is_leader:
        if cause == BUG:
            traceback.print_exception(error)
        say(f"process {os.environ.get('RANK')}: {reason}")
        return EXIT_FAILED
    if cause == NO_SPACE:
        raise OutOfSpaceError(reason) from error
    if cause == ALARM:
        say(reason)
        return publish(run, started, status="failed", cause=cause, **stopped_early(run))
    if cause == REFUSED:
        say(f"{type(error).__name__}: {reason}")
        return publish(run, started, status="refused", reason=reason, cause=cause)
    # Not one of ours: a bug, a failing library, too little memory. The traceback is for whoever
    # mends it, the sentence for the person; re-raising would leave the folder without a result.
    trace = run.attempt_path / "traceback.txt"
    with contextlib.suppress(EngineError):
        write_file(trace, "".join(traceback.format_exception(error)))
    say(f"{reason} (traceback: {trace})")
    return publish(run, started, status="failed", reason=reason, cause=cause)


def say(text: str) -> None:
    """A line on stderr; where the disk that holds it is full, the exit status has to do."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - until the process ends


def refuse_config(path: Path, attempt: str | None, reason: str) -> None:
    """result.json for a config that names no run: all that is known is why."""
    if not (path / "result.json").exists():
        nothing: dict[str, Any] = {"steps": 0, "rows": 0, "metrics": {}, "versions": {}}
        result = {"status": "refused", "method": None, "reason": reason, "cause": REFUSED}
        publish_result(make_attempt(path.resolve(), attempt), result | nothing)


def publish(
    run: RunDir, started: float, *, status: str, reason: str | None, cause: str | None, **found: Any
) -> int:
    """Make this attempt's end the run's, unless another was first. Returns the exit status."""
    from training.engine.inputs import versions

    result: dict[str, Any] = {"status": status, "method": run.config.method}
    result |= {"reason": reason, "cause": cause, "steps": 0, "rows": 0, "metrics": {}}
    result |= {"stopped": None, **found}
    if run.kept_step is not None:
        result["steps"] = run.kept_step
    result |= {
        "alarms": [asdict(alarm) for alarm in run.alarms.rung],
        "seconds": round(time.monotonic() - started, 2),
        "peak_mb": round(peak_mb(), 1),
        **(for_plans(run) if status == "done" else {}),
        "versions": versions(run.config.method),
        "config_sha256": run.config_sha256,
        "data_sha256": run.data_sha256(),
    }
    won = publish_result(run.attempt_path, result)
    with contextlib.suppress(OutOfSpaceError):  # the result is safe, and says the same
        if not won:
            run.events.warning("too_late", TOO_LATE)
        run.events.write("end", status=status if won else "too_late")
    if not won:
        say(TOO_LATE)
        return EXIT_INTERRUPTED
    return EXIT_DONE if status == "done" else EXIT_FAILED


def for_plans(run: RunDir) -> dict[str, Any]:
    """What the run's plan is compared with: memory after imports, and its rows in tokens.

    The rows are read once more, so not where they are many; nothing is said where they have none.
    """
    from training.engine.planner_calibrate import LARGEST_BYTES, encoded_lengths

    imports = imports_mb()
    found: dict[str, Any] = {} if imports is None else {"imports_mb": round(imports, 1)}
    sizes = [path.stat().st_size for path in (run.path / "data").glob("*.jsonl")]
    if run.config.method not in ("judge", "compare") and sum(sizes) <= LARGEST_BYTES:
        with contextlib.suppress(EngineError):
            found["lengths"] = asdict(encoded_lengths(run.path, run.config))
    return found


if __name__ == "__main__":
    sys.exit(main())
