"""Predicted against measured memory of runs that have ended: `plan --calibrate RUN_DIR …`.

What a run measured (`peak_mb` of result.json) is its process' highest resident memory on a
processor, libraries included, and the allocator's highest on a GPU. The planner counts what a run
needs above its libraries, so a fresh process that imports the method and reads its tokenizer is
measured first (`python -m training.engine.planner_calibrate RUN_DIR`: the only part with torch). It
also packs the run's rows as the run did, so that the longest packed row is known.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from training.engine.config import ONLINE_METHODS, TEXT_METHODS, RunConfig
from training.engine.errors import EngineError, RunFolderError
from training.engine.methods import MODULES
from training.engine.packaged import converted_once
from training.engine.planner import Lengths, Plan, plan
from training.engine.planner_shapes import BaseShape, shape_of_source
from training.engine.rundir import read_config

MIB = 2**20
#: How far our own runs may be off.
WITHIN = 0.20


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """One run: what the planner says, and what the run took."""

    run: str
    method: str
    device: str
    imports_mb: float
    """Of the libraries and the tokenizer; 0 on a GPU, whose figure holds none of them."""
    measured_mb: float
    """Above the imports."""
    predicted_mb: float
    phase: str
    tokens: int
    tflops: float | None = None
    """10¹² operations a second over the whole run, loading and measuring included: a rate for the
    next plan on this machine (`--tflops`). None where the run's steps are not known."""

    @property
    def error(self) -> float:
        """Relative; positive where the planner says more."""
        return self.predicted_mb / self.measured_mb - 1.0

    def as_json(self) -> dict[str, Any]:
        names = ("run", "method", "device", "imports_mb", "measured_mb", "predicted_mb", "phase")
        found = {name: getattr(self, name) for name in names}
        return found | {
            "tokens_at_once": self.tokens,
            "error": self.error,
            "tflops": self.tflops,
        }


@dataclass(frozen=True)
class Surroundings:
    """What a fresh process found out about a run."""

    imports_mb: float
    lengths: Lengths


def calibrate(
    folder: Path, shape: BaseShape | None = None, *, known: Surroundings | None = None
) -> Calibration:
    """Compare one finished run with its plan.

    shape: of its base, where `base.source` is not on this machine. known: what `look_at` would say.
    Raises RunFolderError for a run without a result, or one that did not come to its end.
    """
    result, device = read_result(folder)
    config = read_config(folder / "config.json")
    found = known or look_at(folder)
    base = shape or shape_of_source(config.base.source)
    expected = predicted(config, base, found.lengths, device)
    imports = found.imports_mb if device == "cpu" else 0.0
    measured = float(result["peak_mb"]) - imports
    if measured <= 0.0:
        raise RunFolderError(
            f"{folder}: its peak of {result['peak_mb']} MB is below the {imports:.0f} MB that the "
            "libraries take on this machine; calibrate where it ran"
        )
    return Calibration(
        run=folder.name,
        method=config.method,
        device=device,
        imports_mb=imports,
        measured_mb=measured,
        predicted_mb=expected.total_bytes / MIB,
        phase=expected.phase,
        tokens=expected.tokens,
        tflops=rate(expected, result.get("seconds")),
    )


def rate(expected: Plan, seconds: object) -> float | None:
    """10¹² operations a second of a run that took so long."""
    flops = expected.time.flops
    if flops is None or not isinstance(seconds, int | float) or seconds <= 0:
        return None
    return flops / seconds / 1e12


def predicted(config: RunConfig, shape: BaseShape, lengths: Lengths, device: str) -> Plan:
    return plan(config, shape, None, lengths=lengths, device=device)


def read_result(folder: Path) -> tuple[dict[str, Any], str]:
    """(result.json, gpu or cpu) of a run. Raises RunFolderError where it did not end well."""
    path = folder / "result.json"
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunFolderError(
            f"{path} cannot be read: {error.strerror}; is {folder} a finished run?"
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise RunFolderError(f"{path} is not JSON: {error}") from None
    if not isinstance(result, dict) or result.get("status") != "done" or "peak_mb" not in result:
        raise RunFolderError(
            f"{folder} did not come to its end, so its peak says nothing; choose a run whose "
            "result.json has the status done"
        )
    return result, device_of(folder, str(result.get("attempt", "")))


def device_of(folder: Path, attempt: str) -> str:
    """The device that the attempt's `start` event names; a processor where it names none."""
    events = folder / "attempts" / attempt / "events.jsonl"
    if attempt and events.is_file():
        for line in events.read_text(encoding="utf-8").splitlines():
            event = json.loads(line)
            if event.get("device"):
                return "gpu" if str(event["device"]).startswith("cuda") else "cpu"
    return "cpu"


def look_at(folder: Path) -> Surroundings:
    """Ask a fresh process for the imports' memory and the rows' lengths.

    Raises RunFolderError with what it said where it failed.
    """
    source = read_config(folder / "config.json").base.source
    if converted_once(source):
        convert(source)
    command = ["-m", "training.engine.planner_calibrate", str(folder)]
    found = json.loads(said_by(command, f"the rows of {folder}").splitlines()[-1])
    return Surroundings(float(found["imports_mb"]), Lengths(**found["lengths"]))


@cache
def convert(source: str) -> None:
    """Convert a packaged base where that was not done yet, in a process of its own: it takes more
    memory than the imports that are to be measured."""
    code = "import sys; from training.engine.sources import locate; locate(sys.argv[1])"
    said_by(["-c", code, source], f"the base {source}")


def said_by(arguments: Sequence[str], what: str) -> str:
    """What a Python process prints. Raises RunFolderError with its last words where it fails."""
    command = [sys.executable, *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        last = (ended.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise RunFolderError(f"{what} could not be measured: {last}")
    return ended.stdout.strip()


def measure(folder: Path) -> Surroundings:
    """What `look_at` asks for, in this process; imports torch."""
    import importlib

    config = read_config(folder / "config.json")
    importlib.import_module(MODULES[config.method])
    from training.engine.token_inspection import load_texts

    texts = load_texts(config.base, turns=config.method not in TEXT_METHODS)
    return Surroundings(resident_peak_mb(), lengths_of(folder, config, texts))


def lengths_of(folder: Path, config: RunConfig, texts: Any) -> Lengths:
    """The run's rows as tokens, packed batch by batch as the run packs them.

    texts: what `token_inspection.load_texts` gives.
    """
    from training.engine.batching import Packing, pack
    from training.engine.classify_data import encode_labelled, labels_of
    from training.engine.data import (
        Branch,
        Tree,
        encode_conversations,
        encode_pairs,
        encode_prompts,
        within_positions,
    )
    from training.engine.pretrain_data import training_windows
    from training.engine.rundir import read_rows
    from training.engine.steps import batches

    quiet: Any = Silent()
    data, method = config.data, config.method
    if method in (*ONLINE_METHODS, "sample"):
        section = config.ppo or config.grpo or config.rloo or config.sample
        assert section is not None  # noqa: S101 - the config guarantees it
        new = section.max_new_tokens
        rows = read_rows(folder / data.prompts)
        prompts = encode_prompts(texts, rows, data, quiet, max_new_tokens=new)
        sizes = [len(prompt.tokens) for prompt in prompts]
        several = config.ppo.samples_per_prompt if config.ppo is not None else 1
        mean = sum(sizes) / len(sizes) + several * new
        longest = max(sizes) + several * new
        return Lengths(longest=longest, mean=mean, prompt=max(sizes), rows=len(sizes))
    rows = read_rows(folder / (data.test if method == "evaluate" else data.train))
    if method == "sft":
        trees = encode_conversations(texts, rows, data, quiet)
    elif method == "pretrain":
        longest = within_positions(texts, data, quiet).max_length
        trees, _ = training_windows(texts, folder, rows, config, longest, quiet)
    elif config.classify is not None:
        labels = labels_of(rows, [], config.classify)
        longest = within_positions(texts, data, quiet).max_length
        labelled = encode_labelled(texts, rows, labels, longest, quiet, "train")
        trees = [Tree(row.tokens, (Branch(()),)) for row in labelled]
    else:
        ties = config.reward is not None and config.reward.ties != "skip"
        pairs = encode_pairs(
            texts, [r for r in rows if "chosen" in r], data, quiet, "train", ties=ties
        )
        trees = [pair.tree for pair in pairs]
    sizes = [tree.length for tree in trees]
    if method in ("kto", "orpo"):
        longest = max(len(t.prompt) + len(b.tokens) for t in trees for b in t.branches)
        return Lengths(longest=longest, mean=sum(sizes) / len(sizes), rows=len(sizes))
    packing = Packing(config.row_budget, shared=True)
    if method == "evaluate":
        plans = [list(range(len(trees)))]
    else:
        plans = batches(len(trees), config.optim.batch_size, config.optim.epochs, config.seed)
        plans = plans[: config.optim.max_steps]
    groups = (group for chosen in plans for group in pack([trees[i] for i in chosen], packing))
    row = max(len(packed.input_ids) for group in groups for packed in group)
    return Lengths(
        longest=max(sizes),
        mean=sum(sizes) / len(sizes),
        prompt=max(len(tree.prompt) for tree in trees),
        row=row,
        rows=len(sizes),
    )


class Silent:
    """Takes the warnings of encoding, which the run has told already."""

    def warning(self, code: str, message: str) -> None:
        pass


def resident_peak_mb() -> float:
    """The highest resident memory of this process since it began, in MB.

    From the kernel's own count of this program: `getrusage` starts at what the process was before
    it became this program. Raises RunFolderError where there is no /proc.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return int(next(x for x in lines if x.startswith("VmHWM:")).split()[1]) / 1024
    except (OSError, StopIteration, ValueError):
        raise RunFolderError(
            "this system does not tell a process' highest memory (/proc/self/status); calibrate "
            "on Linux"
        ) from None


def table(found: Sequence[Calibration]) -> str:
    """Runs as lines for a terminal."""
    lines = [
        f"{'run':<28} {'method':<8} {'device':<6} {'imports MB':>10} {'measured MB':>12} "
        f"{'planned MB':>11} {'error':>8} {'TFLOP/s':>8}  phase, tokens at once"
    ]
    lines += [
        f"{each.run:<28} {each.method:<8} {each.device:<6} {each.imports_mb:>10,.0f} "
        f"{each.measured_mb:>12,.0f} {each.predicted_mb:>11,.0f} {each.error:>8.1%} "
        f"{'–' if each.tflops is None else format(each.tflops, '.3f'):>8}  "
        f"{each.phase}, {each.tokens:,}"
        for each in found
    ]
    off = [each.run for each in found if abs(each.error) > WITHIN]
    lines.append(
        f"{len(found)} runs, {len(off)} off by more than {WITHIN:.0%}"
        + (f": {', '.join(off)}" if off else "")
    )
    lines.append("measured and planned are above the memory after imports")
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    """Print what `measure` found about a run folder as one JSON line."""
    try:
        found = measure(Path(arguments[0]))
    except EngineError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    lengths = {
        name: getattr(found.lengths, name) for name in ("longest", "mean", "prompt", "row", "rows")
    }
    print(json.dumps({"imports_mb": found.imports_mb, "lengths": lengths}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
