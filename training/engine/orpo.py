"""Odds-ratio preference optimization, by TRL's ORPOTrainer (Hong et al. 2024, arXiv 2403.07691).

Fine-tuning on the chosen answers plus a term that pushes the odds of chosen above those of
rejected, in one loss and without a reference. TRL computes the loss; its likelihood term counts the
prompt's tokens too. Differs from TRL's own loop: answers are encoded as everywhere in this engine
(they end with the turn's end, and prompts are never cut), and rows are shuffled every epoch.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor

from training.engine.batching import Packing
from training.engine.data import Pair, encode_pairs
from training.engine.dpo import scored_lengths
from training.engine.intervals import clustered_interval, right, with_ends
from training.engine.kto import preferred
from training.engine.logprobs import response_logps
from training.engine.models import Base, load_base
from training.engine.preflight import announce, choose_packing, seed_everything
from training.engine.reward import test_pairs
from training.engine.rundir import RunDir
from training.engine.steps import Steps, batches
from training.engine.trainers import (
    ADAPTER,
    add_gradients,
    arguments,
    drained,
    hand_over,
    stopping_between_layers,
    without_telemetry,
)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # that it lives in trl.experimental is written in docs/methods
    from trl.experimental.orpo import ORPOConfig as TRLConfig
    from trl.experimental.orpo import ORPOTrainer

#: TRL's figures under our names.
NAMES = {
    "nll_loss": "orpo/nll",
    "log_odds_chosen": "orpo/log_odds",
    "rewards/accuracies": "orpo/accuracy",
    "logps/chosen": "orpo/logps_chosen",
    "logps/rejected": "orpo/logps_rejected",
}


def make_trainer(run: RunDir, base: Base) -> Any:
    orpo = run.config.orpo
    assert orpo is not None  # noqa: S101 - the config guarantees it

    def build(folder: str, model: Any, tokenizer: Any) -> Any:
        asked = TRLConfig(
            **arguments(run, folder, batch_size=run.config.optim.batch_size),
            beta=orpo.beta,
            max_length=run.config.data.max_length,
            remove_unused_columns=False,
        )
        # rows reach the collator without passing a dataset; the constructor wants to see one
        row = {"prompt": "Q\n", "chosen": "A", "rejected": "B"}
        return without_telemetry(ORPOTrainer)(
            model=model,
            args=asked,
            train_dataset=Dataset.from_list([row]),
            processing_class=tokenizer,
        )

    return hand_over(run, base, build)


def collate(trainer: Any, pairs: Sequence[Pair]) -> dict[str, Tensor]:
    """TRL's batch of some pairs; only the answers' tokens are labels."""
    examples = []
    for pair in pairs:
        prompt, example = list(pair.tree.prompt), {}
        for side, branch in zip(("chosen", "rejected"), pair.tree.branches, strict=True):
            answer = list(branch.tokens)
            example[f"{side}_input_ids"] = prompt + answer
            example[f"{side}_attention_mask"] = [1] * (len(prompt) + len(answer))
            example[f"{side}_labels"] = [-100] * len(prompt) + answer
        examples.append(example)
    batch: dict[str, Tensor] = trainer._prepare_inputs(trainer.data_collator(examples))
    return batch


def log_odds(mean_logps: Tensor) -> Tensor:
    """log odds of chosen minus those of rejected, odds p/(1 − p) of the mean log-prob per token.

    Hong et al. 2024, arXiv 2403.07691, equation 4. mean_logps: (B, 2). Returns: (B,)
    """
    odds = mean_logps - torch.log(-torch.expm1(mean_logps))
    return odds[:, 0] - odds[:, 1]


def held_out_odds(base: Base, pairs: Sequence[Pair], packing: Packing) -> list[float]:
    """The log odds ratio of every held-out pair under the active adapter."""
    logps = response_logps(base, [pair.tree for pair in pairs], packing)
    odds: list[float] = log_odds(logps / scored_lengths(pairs)).tolist()
    return odds


def train(run: RunDir) -> dict[str, Any]:
    """Train the policy adapter on data.train, measure on data.test, save. Returns the result."""
    config = run.config
    seed_everything(config)
    run.events.write("phase", name="load")
    base = load_base(run.base, gradient_checkpointing=config.gradient_checkpointing)
    pairs = encode_pairs(base, run.rows(config.data.train), config.data, run.events, "train")
    pairs = preferred(pairs, run.events)
    held_out = test_pairs(run, base)

    trainer = make_trainer(run, base)
    parameters = base.train_only(ADAPTER)
    plan = batches(len(pairs), config.optim.batch_size, config.optim.epochs, config.seed)
    plan = plan[: config.optim.max_steps]
    named = {f"lora.{i}": parameter for i, parameter in enumerate(parameters)}
    steps = Steps(run, named, config.optim, total=len(plan))
    trainable = sum(parameter.numel() for parameter in parameters)
    announce(run, base, total_steps=len(plan), rows=len(pairs), trainable=trainable)

    metrics: dict[str, float] = {}
    with base.use(ADAPTER), stopping_between_layers(base):
        checkpoint = steps.resume()
        packing = Packing(config.row_budget, shared=True)
        if held_out:
            run.events.write("phase", name="measure")
            packing = choose_packing(run, base, [pair.tree for pair in held_out])
        if held_out and checkpoint is not None:
            metrics["orpo/log_odds_before"] = float(checkpoint.state["log_odds_before"])
        elif held_out:
            before = held_out_odds(base, held_out, packing)
            metrics["orpo/log_odds_before"] = sum(before) / len(before)
        kept = {"log_odds_before": metrics.get("orpo/log_odds_before", 0.0)}
        run.events.write("phase", name="train")
        for batch in plan[steps.step :]:
            # 1. TRL's loss of the batch: likelihood of chosen, and the odds ratio
            inputs = collate(trainer, [pairs[index] for index in batch])
            loss = add_gradients(trainer, inputs, steps)
            values = drained(trainer._stored_metrics["train"], NAMES)
            # 2. update
            taken = steps.take()
            # 3. log, save
            run.events.metrics(steps.step, {"loss/train": loss} | values | taken)
            steps.progress()
            if steps.reached(kept):
                break

        if held_out:
            run.events.write("phase", name="evaluate")
            with steps.weights_at_rest():
                after = held_out_odds(base, held_out, packing)
            accuracy = clustered_interval(right(after), [pair.prompt_id for pair in held_out])
            metrics |= {
                "orpo/log_odds_after": sum(after) / len(after),
                **with_ends("orpo/accuracy_after", accuracy),
            }
    run.events.write("phase", name="save")
    adapter = run.attempt_path / "adapter"
    base.save_adapter(ADAPTER, adapter)
    return {
        "steps": steps.step,
        "rows": len({index for batch in plan[: steps.step] for index in batch}),
        "metrics": metrics,
        "adapter": run.name_of(adapter),
    }
