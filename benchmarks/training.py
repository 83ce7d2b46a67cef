"""`make bench-training`: the engine against stock TRL, side by side in one run.

Each side trains in a process of its own, in turn (A B A B …), on the same rows, base, adapter,
batch size and number of threads; only the training itself is timed, reference pass included.
Rows `{name, ours, theirs, ratio, reach, difference, …}` go to var/bench/training.json.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from annotate.formats import hh

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "var" / "bench" / "training.json"
CACHE = OUT.parent / "cache"
#: Real HH-RLHF pairs: in upstream order, and the demo's own, which are short and of few turns.
FILES = {
    "hh": ROOT / "benchmarks" / "data" / "hh-helpful-base-32.jsonl.gz",
    "short": ROOT / "annotate" / "demo_data" / "hh-helpful.jsonl.gz",
}
N_PAIRS = 32
BATCH = 4
ROUNDS = 3
THREADS = 2
#: Same settings on both sides, in each side's own words.
LR, BETA, RANK, ALPHA, TARGETS, MAX_LENGTH = 1e-4, 0.1, 16, 32, ["q_proj", "v_proj"], 1024
#: A processor busier than this before the start belongs to somebody else's work.
BUSY_PERCENT = 15.0
#: What each row should reach; None where the row is there to be known, not to be passed.
REACH = {"hh": 3.0, "short": None}
MAX_DIFFERENCE = 1e-3
BASE = {"source": "demo", "quantization": "none", "dtype": "float32"}


def require_idle() -> None:
    """Exit unless the machine is idle: a ratio measured beside other work is worth nothing."""
    busy = psutil.cpu_percent(interval=3.0)
    if busy > BUSY_PERCENT:
        others = [process for process in psutil.process_iter(["name"]) if process.info["name"]]
        for process in others:
            process.cpu_percent()
        psutil.cpu_percent(interval=1.0)
        top = max(others, key=lambda process: process.cpu_percent() if process.is_running() else 0)
        sys.exit(
            f"bench: the processors are {busy:.0f} % busy (bound {BUSY_PERCENT:.0f} %), most of "
            f"it by {top.info['name']} ({top.pid}); end that and start again"
        )


def preference_rows(file: str) -> list[dict[str, Any]]:
    """The first pairs of a file, in the engine's layout."""
    lines = gzip.decompress(FILES[file].read_bytes()).decode("utf-8").split("\n")
    rows = []
    for number, line in enumerate(lines[:N_PAIRS], start=1):
        record = hh.read(json.loads(line), number)
        rows.append(
            {
                "id": str(number),
                "prompt_id": str(number),
                "prompt": record.messages,
                "chosen": [{"role": "assistant", "content": record.first}],
                "rejected": [{"role": "assistant", "content": record.second}],
            }
        )
    return rows


def train_ours(rows: list[dict[str, Any]], folder: Path) -> dict[str, Any]:
    """One run of the engine in a fresh folder; timed between its own events."""
    import torch

    from training.engine.__main__ import main as engine
    from training.engine.batching import Packing
    from training.engine.config import from_dict
    from training.engine.data import encode_pairs
    from training.engine.logprobs import response_logps
    from training.engine.models import load_base
    from training.engine.rundir import RunDir

    config = {
        "method": "dpo",
        "threads": THREADS,
        "base": BASE,
        "adapter": {"r": RANK, "alpha": ALPHA, "target_modules": TARGETS},
        "optim": {"lr": LR, "batch_size": BATCH, "epochs": 1, "warmup_ratio": 0.0},
        "data": {"max_length": MAX_LENGTH},
        "dpo": {"beta": BETA},
    }
    run = folder / "run"
    (run / "data").mkdir(parents=True)
    (run / "config.json").write_text(json.dumps(config), encoding="utf-8")
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (run / "data" / "train.jsonl").write_text(lines, encoding="utf-8")
    if engine(["run", str(run)]) != 0:
        sys.exit(f"bench: the engine's run failed: {(run / 'result.json').read_text()}")
    (path,) = run.glob("attempts/*/events.jsonl")
    events = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    at = {e["name"]: datetime.fromisoformat(e["at"]) for e in events if e["kind"] == "phase"}
    seconds = (at["save"] - at["reference"]).total_seconds()

    probe = folder / "probe"
    (probe / "data").mkdir(parents=True)
    (probe / "config.json").write_text(json.dumps(config), encoding="utf-8")
    torch.set_num_threads(THREADS)
    checked = from_dict(config)
    base = load_base(checked.base)
    pairs = encode_pairs(base, rows, checked.data, RunDir(probe).events, "train")
    packing = Packing(checked.row_budget, shared=True)
    logps = response_logps(base, [pair.tree for pair in pairs], packing)
    tokens = [
        list(pair.tree.prompt + branch.tokens) for pair in pairs for branch in pair.tree.branches
    ]
    return {"seconds": seconds, "logps": logps.tolist(), "tokens": tokens}


def train_theirs(rows: list[dict[str, Any]], folder: Path) -> dict[str, Any]:
    """One run of stock TRL's DPOTrainer; timed around `train()`."""
    import time

    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    from training.engine.sources import locate

    torch.set_num_threads(THREADS)
    source = locate("demo")
    tokenizer = AutoTokenizer.from_pretrained(source)

    # Text rather than messages: TRL would end a message with the template's newline after the
    # end-of-turn token, and both sides must see the same tokens.
    def text(row: dict[str, Any]) -> dict[str, str]:
        prompt = tokenizer.apply_chat_template(
            row["prompt"], tokenize=False, add_generation_prompt=True
        )
        return {
            "prompt": prompt,
            "chosen": row["chosen"][0]["content"],
            "rejected": row["rejected"][0]["content"],
        }

    trainer = DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32),
        args=DPOConfig(
            output_dir=str(folder),
            per_device_train_batch_size=BATCH,
            num_train_epochs=1,
            learning_rate=LR,
            beta=BETA,
            max_length=MAX_LENGTH,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            save_strategy="no",
            report_to="none",
            logging_steps=1,
            disable_tqdm=True,
            dataloader_num_workers=0,
        ),
        processing_class=tokenizer,
        train_dataset=Dataset.from_list([text(row) for row in rows]),
        peft_config=LoraConfig(
            task_type="CAUSAL_LM", r=RANK, lora_alpha=ALPHA, target_modules=TARGETS
        ),
    )
    logps, tokens = [], []
    encoded = list(trainer.train_dataset)
    for start in range(0, len(encoded), BATCH):
        part = encoded[start : start + BATCH]
        chosen, rejected = trainer.compute_ref_log_probs(trainer.model, trainer.data_collator(part))
        logps += torch.stack([chosen, rejected], dim=1).tolist()
        tokens += [
            r["prompt_ids"] + r[side] for r in part for side in ("chosen_ids", "rejected_ids")
        ]
    started = time.perf_counter()
    trainer.train()
    return {"seconds": time.perf_counter() - started, "logps": logps, "tokens": tokens}


SIDES: dict[str, Callable[[list[dict[str, Any]], Path], dict[str, Any]]] = {
    "ours": train_ours,
    "theirs": train_theirs,
}


def one_side(name: str, file: str) -> None:
    """The child process: train once, and say on the last line what was measured."""
    # Reference log-probs are cached by content: without their pass ours would look faster.
    shutil.rmtree(CACHE / "logps", ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        measured = SIDES[name](preference_rows(file), Path(folder))
    print("\n" + json.dumps(measured))


def measure(name: str, file: str) -> dict[str, Any]:
    """Run one side on one file, in a process of its own."""
    child = subprocess.run(
        [sys.executable, "-m", "benchmarks.training", "--side", name, "--file", file],
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
    if child.returncode != 0:
        sys.exit(f"bench: the side {name} failed:\n{child.stderr[-3000:]}")
    measured: dict[str, Any] = json.loads(child.stdout.strip().split("\n")[-1])
    return measured


def largest_difference(ours: dict[str, Any], theirs: dict[str, Any]) -> float:
    """Between the summed log-probs of every response under the base (nats)."""
    if ours["tokens"] != theirs["tokens"]:
        sys.exit("bench: the two sides saw different tokens, so nothing here can be compared")
    pairs = zip(ours["logps"], theirs["logps"], strict=True)
    return max(abs(a - b) for mine, other in pairs for a, b in zip(mine, other, strict=True))


def dpo_row(file: str) -> dict[str, Any]:
    """DPO, reference pass included, in pairs per second."""
    speeds: dict[str, list[float]] = {name: [] for name in SIDES}
    last: dict[str, dict[str, Any]] = {}
    measure("ours", file)  # converts the base once; not counted
    for round in range(1, ROUNDS + 1):
        for name in SIDES:
            last[name] = measure(name, file)
            speeds[name].append(N_PAIRS / last[name]["seconds"])
            print(f"{file:<6} round {round} {name:<7} {speeds[name][-1]:.3f} pairs/s", flush=True)
    ratios = [mine / other for mine, other in zip(*speeds.values(), strict=True)]
    return {
        "name": f"dpo pairs/s, batch {BATCH}, reference pass included, vs stock TRL: {file}",
        "ours": round_to(median(speeds["ours"])),
        "theirs": round_to(median(speeds["theirs"])),
        "ratio": round_to(median(ratios)),
        "reach": REACH[file],
        "difference": largest_difference(last["ours"], last["theirs"]),
        "spread": {
            "ours": [round_to(min(speeds["ours"])), round_to(max(speeds["ours"]))],
            "theirs": [round_to(min(speeds["theirs"])), round_to(max(speeds["theirs"]))],
            "ratio": [round_to(min(ratios)), round_to(max(ratios))],
        },
    }


def round_to(value: float) -> float:
    return float(f"{value:.4g}")


def show(row: dict[str, Any]) -> bool:
    """Print a row; whether it reached what it should."""
    fast = row["reach"] is None or row["ratio"] >= row["reach"]
    reached = fast and row["difference"] <= MAX_DIFFERENCE
    spread = row["spread"]
    print(
        f"\n{row['name']}\n"
        f"  ours   {row['ours']} [{spread['ours'][0]} to {spread['ours'][1]}]\n"
        f"  theirs {row['theirs']} [{spread['theirs'][0]} to {spread['theirs'][1]}]\n"
        f"  ratio  {row['ratio']} [{spread['ratio'][0]} to {spread['ratio'][1]}], "
        f"to reach {row['reach'] or 'nothing set'}\n"
        f"  largest log-prob difference {row['difference']:.2g} nats (at most {MAX_DIFFERENCE})\n"
        f"  {'reached' if reached else 'MISSED'}"
    )
    return reached


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--file", choices=FILES, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.side:
        one_side(asked.side, asked.file)
        return 0
    require_idle()
    rows = [dpo_row(file) for file in FILES]
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    reached = [show(row) for row in rows]
    print(f"\nwritten: {OUT.relative_to(ROOT)}")
    return 0 if all(reached) else 1


if __name__ == "__main__":
    sys.exit(main())
