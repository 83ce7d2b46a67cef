"""Method "evaluate": what the adapters do on held-out pairs and prompts.

Every share comes with a 95 % interval clustered by prompt. Generation uses the same seeds for
policy and reference. Figures with their intervals stand in `evaluation` of result.json and in
report.html, which needs nothing beside itself (docs/methods/evaluate.md).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from training.engine.batching import Packing
from training.engine.data import encode_prompts
from training.engine.dpo import (
    ADAPTER,
    REFERENCE,
    accuracy_after,
    held_out_margins,
    reference_logps,
)
from training.engine.errors import DataError
from training.engine.evaluation import of_answers, of_margins
from training.engine.files import write_file
from training.engine.forgetting import forgetting
from training.engine.frontier import of_rows
from training.engine.models import Base, load_base
from training.engine.preflight import announce, choose_packing, seed_everything
from training.engine.report import page
from training.engine.reward import ADAPTER as REWARD
from training.engine.reward import attach, held_out_figures, test_pairs
from training.engine.reward_sources import AdapterReward
from training.engine.rollouts import roll_out
from training.engine.rundir import Row, RunDir, read_rows
from training.engine.scores import ScoreHead
from training.engine.win_rate import by_judge

#: What a judge said of old (first) and new (second) answers; optional.
JUDGED = "data/judged.jsonl"
#: Reward and KL of the steps that made the policy; optional.
FRONTIER = "data/frontier.jsonl"


def train(run: RunDir) -> dict[str, Any]:
    """Measure on data.test; nothing is trained. Returns the result."""
    config = run.config
    settings = config.evaluate
    assert settings is not None  # noqa: S101 - the config guarantees it
    seed_everything(config)
    run.events.write("phase", name="load")
    base = load_base(run.base)
    pairs = test_pairs(run, base)
    if not pairs:
        raise DataError(f"{config.data.test} is missing or empty: there is nothing to measure on")
    reward_head: ScoreHead | None = None
    if settings.reward_adapter is not None:
        reward_head = attach(base, settings.reward_adapter)
    if settings.policy_adapter is not None:
        base.add_adapter(ADAPTER, config.adapter, init_from=settings.policy_adapter)
    reference: str | None = None
    if settings.reference_adapter is not None:
        base.add_adapter(REFERENCE, config.adapter, init_from=settings.reference_adapter)
        reference = REFERENCE
    parts = [reward_head is not None, settings.policy_adapter is not None]
    generates = all(parts) and settings.generate > 0
    total = sum(parts) + generates + settings.general
    announce(run, base, total_steps=total, rows=len(pairs), trainable=0)
    packing = choose_packing(run, base, [pair.tree for pair in pairs])

    rows = run.held_out_rows()
    metrics: dict[str, float] = {}
    evaluation: dict[str, Any] = enclosed_parts(run)
    step = 0
    if reward_head is not None:
        run.events.write("phase", name="reward")
        with base.use(REWARD):
            found, margins = held_out_figures(base, reward_head, pairs, packing)
        metrics |= found
        evaluation["reward"] = of_margins(margins, pairs, rows)
        metrics["reward/ece"] = evaluation["reward"]["calibration"]["ece"]
        step = report(run, step, total, metrics)
    if settings.policy_adapter is not None:
        run.events.write("phase", name="policy")
        references = reference_logps(base, reference, pairs, packing, run.events)
        with base.use(ADAPTER):
            margins = held_out_margins(base, pairs, references, packing, beta=settings.beta)
        metrics |= accuracy_after(margins, pairs)
        evaluation["policy"] = of_margins(margins, pairs, rows)
        step = report(run, step, total, metrics)
    if generates and reward_head is not None:
        run.events.write("phase", name="generate")
        found, evaluation["answers"] = answers_of_both(run, base, reward_head, reference, packing)
        metrics |= found
        step = report(run, step, total, metrics)
    if settings.general:
        run.events.write("phase", name="general")
        found, evaluation["forgetting"] = forgetting(run, base, reference, packing)
        metrics |= found
        step = report(run, step, total, metrics)
    written = run.attempt_path / "report.html"
    source = config.base.source
    named = Path(source).name if source.startswith("/") else source  # no path of this machine
    write_file(written, page(evaluation, base=named))
    return {
        "steps": step,
        "rows": len(pairs),
        "metrics": metrics,
        "adapter": None,
        "evaluation": evaluation,
        "report": run.name_of(written),
    }


def enclosed_parts(run: RunDir) -> dict[str, Any]:
    """Of files that the run may hold: what was said of old and new answers, reward over KL."""
    judged, steps = run.path / JUDGED, run.path / FRONTIER
    found: dict[str, Any] = {"judge": by_judge(read_rows(judged))} if judged.is_file() else {}
    return found | ({"frontier": of_rows(read_rows(steps))} if steps.is_file() else {})


def report(run: RunDir, step: int, total: int, metrics: dict[str, float]) -> int:
    """Log what is known so far; returns the next step's number."""
    run.events.metrics(step + 1, metrics)
    run.events.write("progress", step=step + 1, total_steps=total)
    return step + 1


def answers_of_both(
    run: RunDir, base: Base, reward_head: ScoreHead, reference: str | None, packing: Packing
) -> tuple[dict[str, float], dict[str, Any]]:
    """Answers of policy and reference to held-out prompts: (metrics, `answers` of the result)."""
    settings = run.config.evaluate
    assert settings is not None  # noqa: S101 - the config guarantees it
    by_prompt: dict[str, Row] = {}
    for row in run.rows(run.config.data.test):
        name = str(row.get("prompt_id", row.get("id")))
        by_prompt.setdefault(name, {"id": name, "prompt": row.get("prompt")})
    asked = encode_prompts(
        base,
        list(by_prompt.values()),
        run.config.data,
        run.events,
        max_new_tokens=settings.max_new_tokens,
    )[: settings.generate]
    both = {
        name: roll_out(
            base,
            asked,
            packing,
            policy=adapter,
            reference=reference,
            reward=AdapterReward(base, reward_head),
            max_new_tokens=settings.max_new_tokens,
            temperature=1.0,
            seed=run.config.seed,
        )
        for name, adapter in (("policy", ADAPTER), ("reference", reference))
    }
    new, old = both["policy"], both["reference"]
    found = of_answers(
        new,
        old,
        [{"id": prompt.id, "prompt": prompt.messages} for prompt in asked],
        lambda tokens: str(base.tokenizer.decode(list(tokens), skip_special_tokens=True)),
    )
    metrics = {
        "reward/win_rate": found["win_rate"]["value"],
        "reward/win_rate_low": found["win_rate"]["low"],
        "reward/win_rate_high": found["win_rate"]["high"],
        "reward/mean_policy": new.scores.mean().item(),
        "reward/mean_reference": old.scores.mean().item(),
        "kl/policy": new.kl().mean().item(),
        "length/mean": new.lengths.float().mean().item(),
        "length/reference": old.lengths.float().mean().item(),
        "eos/rate": new.finished.float().mean().item(),
        "eos/reference": old.finished.float().mean().item(),
    }
    return metrics, found
