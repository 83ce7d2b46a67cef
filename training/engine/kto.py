"""Kahneman-Tversky optimization, by TRL's KTOTrainer (Ethayarajh et al. 2024, arXiv 2402.01306).

Each answer stands alone with a label, desirable or not; a pair is two of them. TRL computes the
loss, the reference's log-probs and the KL term. Differs from TRL's own loop: rows are shuffled
every epoch, and the answers that the KL term borrows are those of the same batch (TRL fixes order
and pairing once); a last batch of one row, which has nothing to borrow, joins the one before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from datasets import Dataset
from torch import Tensor
from trl import KTOConfig as TRLConfig
from trl import KTOTrainer

from training.engine.batching import Packing
from training.engine.config_trl import KTOConfig
from training.engine.data import (
    Encoded,
    Pair,
    encode_pairs,
    prompt_tokens,
    require_messages,
    response_tokens,
    within_positions,
)
from training.engine.dpo import accuracy_after, held_out_margins, reference_logps
from training.engine.errors import DataError
from training.engine.models import Base, load_base
from training.engine.preflight import announce, choose_packing, expect_step_zero, seed_everything
from training.engine.rundir import EventWriter, Row, RunDir
from training.engine.steps import Steps, batches
from training.engine.trainers import (
    ADAPTER,
    REFERENCE,
    add_gradients,
    arguments,
    drained,
    hand_over,
    stopping_between_layers,
    without_telemetry,
)

#: TRL's figures under our names.
NAMES = {
    "kl": "kto/kl",
    "rewards/chosen": "kto/reward_desirable",
    "rewards/rejected": "kto/reward_undesirable",
    "rewards/margins": "kto/margin",
    "logps/chosen": "logps/chosen",
    "logps/rejected": "logps/rejected",
    "entropy": "entropy/full",
}


@dataclass(frozen=True)
class Labelled:
    """An answer and what people thought of it."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    desirable: bool


def encode_labelled(base: Base, rows: Sequence[Row], run: RunDir) -> list[Labelled]:
    """Preference rows as two labelled answers each, and rows with a bare `label` as one.

    Raises DataError for a wrong row, or where fewer than two answers are left.
    """
    config, events = run.config.data, run.events
    pairs = [row for row in rows if "chosen" in row]
    bare = [row for row in rows if "chosen" not in row]
    labelled: list[Labelled] = []
    if pairs:
        found = encode_pairs(base, pairs, config, events, "train")
        for pair in preferred(found, events):
            for branch, desirable in zip(pair.tree.branches, (True, False), strict=True):
                labelled.append(Labelled(pair.tree.prompt, branch.tokens, desirable))
    if bare:
        config, seen = within_positions(base, config, events), Encoded()
        for number, row in enumerate(bare, start=1):
            where = f"labelled row {number} ({row.get('id', 'no id')})"
            if not isinstance(row.get("label"), bool):
                raise DataError(
                    f"{where}: it has neither chosen and rejected nor a label that is true or false"
                )
            messages = require_messages(row.get("prompt"), f"{where}: prompt")
            prompt = prompt_tokens(base, messages, f"{where}: prompt")
            answer = require_messages(row.get("completion"), f"{where}: completion")
            if len(answer) != 1 or answer[0]["role"] != "assistant":
                raise DataError(f"{where}: completion must be one assistant message")
            if len(prompt) > config.max_prompt_length:
                seen.too_long.append(str(row.get("id", number)))
                continue
            tokens = response_tokens(base, answer[0]["content"])
            room = config.max_length - len(prompt)
            seen.cut += len(tokens) > room
            labelled.append(Labelled(prompt, tokens[:room], bool(row["label"])))
        seen.report(events, "labelled")
    if len(labelled) < 2:
        raise DataError(
            f"{len(labelled)} labelled answers are left, and KTO needs two at least: its KL term "
            "pairs each prompt with the answer to another"
        )
    return labelled


def preferred(pairs: Sequence[Pair], events: EventWriter) -> list[Pair]:
    """The pairs in which chosen is the better one; TRL takes labels at their word, so say so."""
    kept = [pair for pair in pairs if pair.label.probability > 0.5]
    if len(kept) < len(pairs):
        events.warning(
            "no_preference",
            f"{len(pairs) - len(kept)} pairs left out: their P(chosen better) is 1/2 or less, and "
            "this method knows no soft labels",
        )
    soft = sum(pair.label.probability < 1.0 for pair in kept)
    if soft:
        events.warning(
            "hard_labels",
            f"{soft} pairs have a P(chosen better) between 1/2 and 1; this method takes each as "
            "certain (DPO and the reward model use the probability)",
        )
    if not kept:
        raise DataError("no pair is left whose chosen response is more probably the better one")
    return kept


def warn_of_balance(rows: Sequence[Labelled], kto: KTOConfig, events: EventWriter) -> None:
    """Equation 8 of the paper: λ_D·n_D over λ_U·n_U should be 1 to 4/3."""
    good = sum(row.desirable for row in rows)
    bad = len(rows) - good
    ratio = kto.desirable_weight * good / max(kto.undesirable_weight * bad, 1e-9)
    if not 1.0 <= ratio <= 4.0 / 3.0 + 1e-9:
        events.warning(
            "kto_weights",
            f"{good} desirable and {bad} undesirable answers weigh as {ratio:.3g} to 1; the paper "
            "recommends 1 to 1.33: change kto.desirable_weight or kto.undesirable_weight",
        )


def make_trainer(run: RunDir, base: Base) -> Any:
    kto = run.config.kto
    assert kto is not None  # noqa: S101 - the config guarantees it

    def build(folder: str, model: Any, tokenizer: Any) -> Any:
        asked = TRLConfig(
            **arguments(run, folder, batch_size=run.config.optim.batch_size),
            beta=kto.beta,
            desirable_weight=kto.desirable_weight,
            undesirable_weight=kto.undesirable_weight,
            max_length=None,  # rows are cut when they are encoded
            train_sampling_strategy="sequential",
        )
        # rows reach the collator without passing a dataset; the constructor wants to see one
        row = {"prompt": "Q\n", "completion": "A", "label": True}
        return without_telemetry(KTOTrainer)(
            model=model,
            args=asked,
            train_dataset=Dataset.from_list([row]),
            processing_class=tokenizer,
        )

    return hand_over(run, base, build)


def collate(trainer: Any, rows: Sequence[Labelled]) -> dict[str, Tensor]:
    """TRL's batch of some rows; each borrows its neighbour's answer for the KL term."""
    answers = [list(row.answer) for row in rows]
    borrowed = [answers[-1], *answers[:-1]]
    examples = [
        {
            "prompt_ids": list(row.prompt),
            "completion_ids": answer,
            "KL_completion_ids": other,
            "label": row.desirable,
        }
        for row, answer, other in zip(rows, answers, borrowed, strict=True)
    ]
    batch: dict[str, Tensor] = trainer._prepare_inputs(trainer.data_collator(examples))
    return batch


def batch_plan(n_rows: int, batch_size: int, epochs: int, seed: int) -> list[list[int]]:
    """The batches of every step; a batch of one row joins the one before it in its epoch."""
    plan: list[list[int]] = []
    for batch in batches(n_rows, batch_size, epochs, seed):
        if len(batch) == 1:
            plan[-1] = plan[-1] + batch
        else:
            plan.append(batch)
    return plan


def train(run: RunDir) -> dict[str, Any]:
    """Train the policy adapter on data.train, measure on data.test, save. Returns the result."""
    config = run.config
    kto = config.kto
    assert kto is not None  # noqa: S101 - the config guarantees it
    seed_everything(config)
    run.events.write("phase", name="load")
    base = load_base(run.base, gradient_checkpointing=config.gradient_checkpointing)
    rows = encode_labelled(base, run.rows(config.data.train), run)
    warn_of_balance(rows, kto, run.events)
    held_out = held_out_pairs(run, base)

    trainer = make_trainer(run, base)
    parameters = base.train_only(ADAPTER)
    plan = batch_plan(len(rows), config.optim.batch_size, config.optim.epochs, config.seed)
    plan = plan[: config.optim.max_steps]
    named = {f"lora.{i}": parameter for i, parameter in enumerate(parameters)}
    steps = Steps(run, named, config.optim, total=len(plan))
    trainable = sum(parameter.numel() for parameter in parameters)
    announce(run, base, total_steps=len(plan), rows=len(rows), trainable=trainable)

    metrics: dict[str, float] = {}
    packing = Packing(config.row_budget, shared=True)
    if held_out:
        run.events.write("phase", name="reference")
        packing = choose_packing(run, base, [pair.tree for pair in held_out])
        references = reference_logps(base, REFERENCE, held_out, packing, run.events)
    with base.use(ADAPTER), stopping_between_layers(base):
        checkpoint = steps.resume()
        if held_out and checkpoint is not None:
            metrics["dpo/margin_before"] = float(checkpoint.state["margin_before"])
        elif held_out:
            before = held_out_margins(base, held_out, references, packing, beta=kto.beta)
            metrics["dpo/margin_before"] = sum(before) / len(before)
        kept = {"margin_before": metrics.get("dpo/margin_before", 0.0)}
        run.events.write("phase", name="train")
        for batch in plan[steps.step :]:
            chosen = [rows[index] for index in batch]
            # 1. TRL's loss of the batch: policy, reference, KL term
            loss = add_gradients(trainer, collate(trainer, chosen), steps)
            values = drained(trainer._metrics["train"], NAMES)
            if steps.step == 0:
                weights = (kto.undesirable_weight, kto.desirable_weight)
                rewards = (values.get("kto/reward_desirable"), values.get("kto/reward_undesirable"))
                expect_step_zero(
                    config,
                    loss=loss,
                    expected=sum(0.5 * weights[row.desirable] for row in chosen) / len(chosen),
                    margin=max(abs(reward) for reward in rewards if reward is not None),
                    what="KTO",
                )
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
                after = held_out_margins(base, held_out, references, packing, beta=kto.beta)
            metrics |= accuracy_after(after, held_out)
    run.events.write("phase", name="save")
    adapter = run.attempt_path / "adapter"
    base.save_adapter(ADAPTER, adapter)
    return {
        "steps": steps.step,
        "rows": len({index for batch in plan[: steps.step] for index in batch}),
        "metrics": metrics,
        "adapter": run.name_of(adapter),
    }


def held_out_pairs(run: RunDir, base: Base) -> list[Pair]:
    """The pairs among the held-out rows; a label alone has no margin to measure."""
    data = run.config.data
    path = run.path / data.test
    if not path.is_file() or path.stat().st_size == 0:
        return []
    rows = [row for row in run.rows(data.test) if "chosen" in row][: data.max_test_rows]
    return encode_pairs(base, rows, data, run.events, "test") if rows else []
