"""The engine's side of each row: a run in a fresh folder, timed between its own events.

Every function returns {amount, seconds, …}: what was done in how long; `compared` holds numbers
that the other side computes too, `useful_flops` the least work that the job needs.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from benchmarks.training import data, settings
from benchmarks.training.machine import peak_mb
from training.engine.__main__ import main as engine
from training.engine.batching import Packing
from training.engine.config import RunConfig, from_dict
from training.engine.data import Pair, Tree, encode_conversations, encode_pairs, encode_prompts
from training.engine.generation import generate
from training.engine.logprobs import response_logps
from training.engine.models import Base, ScalarHead, load_base
from training.engine.reward import tree_scores
from training.engine.rundir import RunDir

Rows = Sequence[dict[str, Any]]


def write_run(folder: Path, method: str, rows: Rows, **sections: Any) -> Path:
    """A run folder; sections are those of config.json beside what all rows share."""
    config = {
        "method": method,
        "threads": settings.THREADS,
        "base": settings.base(),
        "adapter": settings.ADAPTER,
        "data": {"max_length": settings.MAX_LENGTH},
        "checkpoint_every_s": 0.0,
        **sections,
    }
    (folder / "data").mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    name = "prompts.jsonl" if method == "ppo" else "train.jsonl"
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "data" / name).write_text(lines, encoding="utf-8")
    return folder


def optim(batch: int) -> dict[str, Any]:
    return {"lr": settings.LR, "batch_size": batch, "epochs": 1, "warmup_ratio": 0.0}


def do(run: Path) -> list[dict[str, Any]]:
    """Do the run; its events. Exits where it failed."""
    if engine(["run", str(run)]) != 0:
        sys.exit(f"bench: the engine's run failed: {(run / 'result.json').read_text()}")
    (path,) = run.glob("attempts/*/events.jsonl")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def seconds_between(events: list[dict[str, Any]], first: str, last: str) -> float:
    """From the beginning of one phase to that of another."""
    at = {e["name"]: datetime.fromisoformat(e["at"]) for e in events if e["kind"] == "phase"}
    return (at[last] - at[first]).total_seconds()


def prepared(folder: Path, method: str, **sections: Any) -> tuple[RunConfig, Base, RunDir]:
    """A loaded base and a run folder to encode for."""
    run = write_run(folder / "probe", method, [], **sections)
    config = from_dict(json.loads((run / "config.json").read_text(encoding="utf-8")))
    torch.set_num_threads(settings.THREADS)
    return config, load_base(config.base), RunDir(run)


def encoded(folder: Path, rows: Rows) -> tuple[Base, list[Pair], Packing]:
    config, base, run = prepared(folder, "dpo")
    pairs = encode_pairs(base, rows, config.data, run.events, "train")
    return base, pairs, Packing(config.row_budget, shared=True)


def tokens_of(pairs: Sequence[Pair]) -> list[list[int]]:
    """Tokens of every response behind its prompt: chosen, rejected, chosen, …"""
    return [list(p.tree.prompt + branch.tokens) for p in pairs for branch in p.tree.branches]


def useful_flops(
    base: Base, trees: Sequence[Tree], *, forwards: int, backwards: int, head: int
) -> float:
    """Least FLOPs of passes over the trees, a shared prompt counted once.

    Linear layers: 2 per weight and token, forward, and as much backward for the gradient of the
    states (the weights are frozen; LoRA's own share is left out). Attention: 4·H per token and
    token it sees, forward, twice that backward. The head: 2·V·H per scored token and use.
    """
    config = base.causal.config
    head_weight = base.head_weight()
    linear = sum(
        m.weight.numel()
        for name, m in base.causal.named_modules()
        if isinstance(m, torch.nn.Linear) and m.weight is not head_weight and "lora" not in name
    )
    tokens = sum(tree.length for tree in trees)
    scored = sum(branch.n_scored for tree in trees for branch in tree.branches)
    seen = 0.0  # pairs (token, token it sees)
    for tree in trees:
        seen += len(tree.prompt) ** 2 / 2
        for branch in tree.branches:
            seen += len(branch.tokens) * (len(tree.prompt) + len(branch.tokens) / 2)
    attention = 4 * config.hidden_size * config.num_hidden_layers * seen
    return float(
        2 * linear * tokens * (forwards + backwards)
        + attention * (forwards + 2 * backwards)
        + 2 * head_weight.numel() * scored * head
    )


def dpo(
    folder: Path,
    *,
    batch: int,
    pairs: int = data.PAIRS,
    file: str = "hh",
    cached: bool = False,
    quantization: str = "none",
) -> dict[str, Any]:
    rows = data.preference_rows(file, pairs)
    sections = {
        "optim": optim(batch),
        "dpo": {"beta": settings.BETA},
        "base": settings.base(quantization),
    }
    if cached:
        do(write_run(folder / "before", "dpo", rows, **sections))
    events = do(write_run(folder / "run", "dpo", rows, **sections))
    measured = {
        "amount": len(rows),
        "seconds": seconds_between(events, "reference", "save"),
        "peak_mb": peak_mb(),  # before what follows loads the base again
    }
    if quantization != "none":
        return measured
    base, encoded_pairs, packing = encoded(folder, rows)
    trees = [pair.tree for pair in encoded_pairs]
    once = 1 if cached else 2
    return measured | {
        "compared": response_logps(base, trees[: settings.COMPARED], packing).flatten().tolist(),
        "tokens": tokens_of(encoded_pairs[: settings.COMPARED]),
        "useful_flops": useful_flops(base, trees, forwards=once, backwards=1, head=once + 1),
    }


def seeded_head(base: Base) -> ScalarHead:
    """The head with which both sides score what they are compared on."""
    head = ScalarHead(base.hidden_size, std=0.0)
    generator = torch.Generator().manual_seed(settings.HEAD_SEED)
    with torch.no_grad():
        head.weight.normal_(0.0, settings.HEAD_STD, generator=generator)
    return head


def reward(folder: Path) -> dict[str, Any]:
    rows = data.preference_rows()
    events = do(write_run(folder / "run", "reward", rows, optim=optim(4)))
    peak = peak_mb()
    base, pairs, packing = encoded(folder, rows)
    trees = [pair.tree for pair in pairs]
    scores = tree_scores(base, seeded_head(base), trees[: settings.COMPARED], packing)
    return {
        "amount": len(rows),
        "seconds": seconds_between(events, "train", "save"),
        "peak_mb": peak,
        "compared": scores.flatten().tolist(),
        "tokens": tokens_of(pairs[: settings.COMPARED]),
        "useful_flops": useful_flops(base, trees, forwards=1, backwards=1, head=0),
    }


def sft(folder: Path) -> dict[str, Any]:
    rows = data.conversation_rows()
    events = do(write_run(folder / "run", "sft", rows, optim=optim(4)))
    peak = peak_mb()
    config, base, run = prepared(folder, "sft")
    trees = encode_conversations(base, rows, config.data, run.events)
    compared = trees[: settings.COMPARED]
    logps = response_logps(base, compared, Packing(config.row_budget, shared=True))
    scored = torch.tensor([tree.branches[0].n_scored for tree in compared])
    return {
        "amount": sum(tree.length for tree in trees),
        "seconds": seconds_between(events, "train", "save"),
        "peak_mb": peak,
        # what the loss is made of: the mean over a conversation's scored tokens
        "compared": (logps.flatten() / scored).tolist(),
        "tokens": [list(tree.prompt + tree.branches[0].tokens) for tree in compared],
        "useful_flops": useful_flops(base, trees, forwards=1, backwards=1, head=2),
    }


def sampling(folder: Path) -> dict[str, Any]:
    """Answers to prompts in file order until they end by themselves."""
    config, base, run = prepared(folder, "sample", sample={})
    prompts = encode_prompts(
        base,
        data.prompt_rows(settings.PROMPTS),
        config.data,
        run.events,
        max_new_tokens=settings.NEW_TOKENS,
    )
    started = time.perf_counter()
    answers = generate(
        base,
        [prompt.tokens for prompt in prompts],
        max_new_tokens=settings.NEW_TOKENS,
        temperature=1.0,
        seed=1,
    )
    seconds = time.perf_counter() - started
    lengths = [len(answer.tokens) for answer in answers]
    return {"amount": sum(lengths), "seconds": seconds, "lengths": lengths}


def ppo(folder: Path, *, value: str = "shared_head", samples_per_prompt: int = 1) -> dict[str, Any]:
    _, base, _ = prepared(folder, "dpo")
    base.add_adapter("reward", from_dict(
        {"method": "dpo", "base": settings.base(), "adapter": settings.ADAPTER}
    ).adapter)  # fmt: skip
    scorer = folder / "scorer"
    base.save_reward_adapter("reward", seeded_head(base), scorer)
    del base
    rows = data.prompt_rows(settings.EPISODES)
    run = write_run(
        folder / "run",
        "ppo",
        rows,
        optim={"lr": settings.LR, "adam_eps": 1e-5, "warmup_ratio": 0.0},
        ppo={
            "reward_adapter": str(scorer),
            "updates": settings.EPISODES // settings.EPISODES_PER_UPDATE,
            "episodes_per_update": settings.EPISODES_PER_UPDATE,
            "minibatch_size": settings.EPISODES_PER_UPDATE,
            "epochs": settings.PPO_EPOCHS,
            "max_new_tokens": settings.PPO_TOKENS,
            "eval_prompts": 1,
            "value": value,
            "samples_per_prompt": samples_per_prompt,
        },
    )
    events = do(run)
    return {
        "amount": settings.EPISODES,
        "seconds": seconds_between(events, "train", "evaluate"),
    }


def start(folder: Path, *, warm: bool) -> dict[str, Any]:
    """From the start of a run, imports and conversion done, to where its first step begins."""
    rows = data.preference_rows()
    sections = {"optim": optim(4) | {"max_steps": 1}, "dpo": {"beta": settings.BETA}}
    if warm:
        do(write_run(folder / "before", "dpo", rows, **sections))
    started = datetime.now().astimezone()
    events = do(write_run(folder / "run", "dpo", rows, **sections))
    train = next(e for e in events if e["kind"] == "phase" and e["name"] == "train")
    return {
        "amount": 1,
        "seconds": (datetime.fromisoformat(train["at"]) - started).total_seconds(),
    }
