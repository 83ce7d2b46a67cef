"""A program that follows the run-directory contract without torch: it stands in for the engine.

python -m tests.faults.stand_in [--steps N] [--step-s S] [--deaf] run RUN_DIR --attempt T …

It writes events, a checkpoint after every step, an adapter or samples, and a result; it goes on
from the newest checkpoint, listens to SIGTERM and lives by its supervisor's pulse as the engine
does, whose `tie` and `RunDir` it uses. What it makes depends on the folder's config alone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import signal
import sys
import time
from pathlib import Path

from training.engine.files import write_file
from training.engine.rundir import RunDir, publish_result
from training.engine.stopping import stop_requested
from training.engine.tether import EXIT_INTERRUPTED, tie


def main() -> int:
    top = argparse.ArgumentParser()
    top.add_argument("--steps", type=int, default=3)
    top.add_argument("--step-s", type=float, default=0.0)
    top.add_argument("--deaf", action="store_true", help="does not end for SIGTERM")
    run = top.add_subparsers().add_parser("run")
    run.add_argument("run_dir", type=Path)
    run.add_argument("--attempt")
    run.add_argument("--heartbeat-fd", type=int)
    run.add_argument("--patience-s", type=float)
    options = top.parse_args()
    tie(options.heartbeat_fd, options.patience_s)
    if options.deaf:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return work(RunDir(options.run_dir, options.attempt), options.steps, options.step_s)


def work(run: RunDir, steps: int, step_s: float) -> int:
    method = run.config.method
    run.events.write("start", method=method, total_steps=steps, rows=1)
    run.events.write("phase", name="train")
    done = newest_step(run)
    if done:
        run.events.write("resumed", step=done)
    for step in range(done + 1, steps + 1):
        time.sleep(step_s)
        run.events.metrics(step, {"loss/train": 1.0 / step})
        run.events.write("progress", step=step, total_steps=steps)
        if method != "sample":
            checkpoint(run, step)
        if stop_requested.is_set():
            run.events.write("end", status="interrupted")
            return EXIT_INTERRUPTED
    run.events.write("phase", name="save")
    result = {"status": "done", "method": method, "reason": None, "steps": steps, "rows": 1}
    result |= {"metrics": {"loss/train": 1.0 / steps}}
    if method == "sample":
        result["samples"] = answer(run)
    elif method != "evaluate":
        result["adapter"] = adapter(run)
    won = publish_result(run.attempt_path, result)
    run.events.write("end", status="done" if won else "too_late")
    return 0 if won else EXIT_INTERRUPTED


def newest_step(run: RunDir) -> int:
    found = run.path.glob("attempts/*/checkpoints/step-*")
    return max((int(path.name.removeprefix("step-")) for path in found), default=0)


def checkpoint(run: RunDir, step: int) -> None:
    folder = run.attempt_path / "checkpoints" / f"step-{step:08d}"
    folder.mkdir(parents=True)
    write_file(folder / "manifest.json", json.dumps({"step": step, "files": {}}))
    run.events.write("checkpoint", step=step, path=run.name_of(folder))


def adapter(run: RunDir) -> str:
    folder = run.attempt_path / "adapter"
    folder.mkdir()
    write_file(folder / "adapter_config.json", "{}")
    digest = hashlib.sha256(f"{run.path.name} {run.config_sha256}".encode()).hexdigest()
    write_file(folder / "adapter_model.safetensors", digest)
    return run.name_of(folder)


def answer(run: RunDir) -> str:
    settings = run.config.sample
    assert settings is not None
    rows = [
        {
            "prompt_id": row["id"],
            "index": index,
            "text": f"answer {index} of {run.path.name} to {row['id']}",
            "finished": True,
            "tokens": 5,
            "seed": index,
        }
        for row in run.rows(run.config.data.prompts)
        for index in range(settings.samples_per_prompt)
    ]
    path = run.attempt_path / "samples.jsonl"
    write_file(path, "".join(json.dumps(row) + "\n" for row in rows))
    return run.name_of(path)


if __name__ == "__main__":
    sys.exit(main())
