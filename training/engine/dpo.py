"""Direct preference optimization (Rafailov et al. 2023, arXiv 2305.18290).

Differs from the paper: a LoRA adapter is trained unless `tuning` is full; the reference is the same
base with the adapter off, or with a frozen copy of the adapter the run starts from; P(chosen
better) may be soft; the loss may be one of its successors, and the chosen responses' own likelihood
may be added (Pang et al. 2024, arXiv 2404.19733, equation 1); rows may carry weights and margins,
and rows that are ties are left out.
Chosen and rejected share their prompt in one packed row, and the reference's log-probs are
computed once per data and weights, then read from the cache.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import secrets
from collections.abc import Sequence
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from training.engine.batching import Packing
from training.engine.config import DPOConfig
from training.engine.data import Pair, encode_pairs, relative_weights
from training.engine.distributed import add_up, everyone, rank
from training.engine.held_out import HeldOut
from training.engine.intervals import clustered_interval, right, with_ends
from training.engine.logprobs import group_logps, response_logps
from training.engine.losses import accuracy, dpo_losses
from training.engine.models import Base
from training.engine.preflight import (
    announce,
    choose_packing,
    expect_step_zero,
    seed_everything,
)
from training.engine.reward import require_margins, test_pairs
from training.engine.rundir import EventWriter, RunDir
from training.engine.sharding import own_groups, whole
from training.engine.sources import cache_folder
from training.engine.steps import Steps, batches
from training.engine.tuning import begin, load_trainable

ADAPTER = "policy"
REFERENCE = "reference"


def reference_logps(
    base: Base, name: str | None, pairs: Sequence[Pair], packing: Packing, events: EventWriter
) -> Tensor:
    """The reference's log-probs of (chosen, rejected), cached by what they depend on.

    The key covers every weight and buffer of base and reference, how they are used (the model's
    config, LoRA scaling, compute type, device), the tokens (so tokeniser, template and truncation)
    and the packing. A cache that cannot be read or written costs time. Returns: (len(pairs), 2)
    """
    facts = [base.config.dtype, base.device.type, packing, torch.__version__]
    facts += [base.causal.config.to_json_string(), base.scaling(name)]
    digest = hashlib.sha256(repr(facts).encode())
    for key, tensor in sorted(base.model.state_dict().items()):
        if ".lora_" in key and (name is None or f".{name}." not in key):
            continue  # other adapters do not touch the reference
        digest.update(key.encode())
        data = whole(tensor).detach().cpu().contiguous().view(-1).view(torch.uint8)
        digest.update(data.numpy().tobytes())
    digest.update(repr([pair.tree for pair in pairs]).encode())
    path = cache_folder() / "logps" / f"{digest.hexdigest()}.safetensors"
    known: Tensor | None = None
    with contextlib.suppress(OSError, SafetensorError, KeyError):
        known = load_file(path)["logps"]
    if everyone(known is not None):
        assert known is not None  # noqa: S101 - narrows the type
        return known
    with base.use(name):
        logps = response_logps(base, [pair.tree for pair in pairs], packing)
    if rank():
        return logps  # the leader keeps them
    beside = path.with_suffix(f".{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({"logps": logps}, beside)
        beside.replace(path)
    except (OSError, SafetensorError) as error:
        events.warning("not_cached", f"the reference's log-probs were not cached: {error}")
        with contextlib.suppress(OSError):
            beside.unlink()
    return logps


def held_out_margins(
    base: Base, pairs: Sequence[Pair], references: Tensor, packing: Packing, *, beta: float
) -> list[float]:
    """Implicit reward margins of the active adapter on held-out pairs (nats)."""
    logps = response_logps(base, [pair.tree for pair in pairs], packing)
    ratios = logps - references
    margins: list[float] = (beta * (ratios[:, 0] - ratios[:, 1])).tolist()
    return margins


def scored_lengths(pairs: Sequence[Pair]) -> Tensor:
    """Scored tokens of (chosen, rejected). Returns: (len(pairs), 2)"""
    return torch.tensor([[branch.n_scored for branch in pair.tree.branches] for pair in pairs])


def loss_at_zero(dpo: DPOConfig, offsets: Tensor | None, probabilities: Tensor) -> float:
    """The mean loss where policy and reference agree, whatever the lengths."""
    if offsets is None:
        return (1.0 / (2.0 * dpo.beta)) ** 2 if dpo.loss == "ipo" else math.log(2.0)
    nothing, one = torch.zeros(len(offsets), 2), torch.ones(len(offsets), 2)
    losses, _ = preference_losses(dpo, nothing, nothing, one, probabilities, offsets)
    return losses.mean().item()


def preference_losses(
    dpo: DPOConfig,
    logps: Tensor,
    refs: Tensor,
    lengths: Tensor,
    probabilities: Tensor,
    offsets: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """`dpo_losses` as the config asks, on the device of `logps`."""
    device = logps.device
    return dpo_losses(
        logps,
        refs.to(device),
        lengths.to(device),
        probabilities.to(device),
        beta=dpo.beta,
        loss=dpo.loss,
        label_smoothing=dpo.label_smoothing,
        offsets=None if offsets is None else offsets.to(device),
    )


def accuracy_after(margins: Sequence[float], pairs: Sequence[Pair]) -> dict[str, float]:
    found = clustered_interval(right(margins), [pair.prompt_id for pair in pairs])
    return {
        "dpo/margin_after": sum(margins) / len(margins),
        **with_ends("dpo/accuracy_after", found),
    }


def add_policy(run: RunDir, base: Base) -> str | None:
    """The trained adapter; where it starts from another, a frozen copy is the reference's name."""
    adapter = run.config.adapter
    reference = None
    if adapter.init_from is not None:
        base.add_adapter(REFERENCE, adapter, init_from=adapter.init_from)
        reference = REFERENCE
    base.add_adapter(ADAPTER, adapter, init_from=adapter.init_from)
    return reference


def train(run: RunDir) -> dict[str, Any]:
    """Train the policy on data.train, measure on data.test, save. Returns the result."""
    config = run.config
    dpo = config.dpo
    assert dpo is not None  # noqa: S101 - the config guarantees it
    seed_everything(config)
    run.events.write("phase", name="load")
    base = load_trainable(run)
    pairs = encode_pairs(base, run.rows(config.data.train), config.data, run.events, "train")
    if dpo.margin:
        require_margins(pairs, "dpo.margin")
    held_out = test_pairs(run, base)

    reference = add_policy(run, base) if config.tuning == "lora" else None
    trained = begin(base, config, ADAPTER)
    plan = batches(len(pairs), config.optim.batch_size, config.optim.epochs, config.seed)
    plan = plan[: config.optim.max_steps]
    steps = Steps(run, trained.parameters, config.optim, total=len(plan))
    trainable = sum(parameter.numel() for parameter in trained.parameters.values())
    weights = torch.tensor(relative_weights(pairs))
    announce(run, base, total_steps=len(plan), rows=len(pairs), trainable=trainable)
    packing = choose_packing(run, base, [pair.tree for pair in pairs])

    run.events.write("phase", name="reference")
    used = sorted({index for batch in plan for index in batch})
    references = torch.zeros(len(pairs), 2)
    references[used] = reference_logps(
        base, reference, [pairs[i] for i in used], packing, run.events
    )
    metrics: dict[str, float] = {}
    if held_out:
        held_out_refs = reference_logps(base, reference, held_out, packing, run.events)

    with base.use(trained.adapter):
        checkpoint = steps.resume()
        if held_out and checkpoint is not None:
            metrics["dpo/margin_before"] = float(checkpoint.state["margin_before"])
        elif held_out:
            before = held_out_margins(base, held_out, held_out_refs, packing, beta=dpo.beta)
            metrics["dpo/margin_before"] = sum(before) / len(before)
        kept = {"margin_before": metrics.get("dpo/margin_before", 0.0)}
        watched = HeldOut(
            run,
            steps,
            held_out,
            lambda some: held_out_margins(
                base, some, held_out_refs[: len(some)], packing, beta=dpo.beta
            ),
            total=len(plan),
        )
        run.events.write("phase", name="train")
        for batch in plan[steps.step :]:
            on_held_out = watched.values()
            chosen = [pairs[index] for index in batch]
            losses, margins = torch.zeros(len(batch)), torch.zeros(len(batch))
            seen = torch.zeros(len(batch), 2)
            lengths = scored_lengths(chosen)
            shares = weights[batch]
            probabilities = torch.tensor([pair.label.probability for pair in chosen])
            offsets = None
            if dpo.margin:
                offsets = torch.tensor([pair.label.margin for pair in chosen])
            for group in own_groups(base, [pair.tree for pair in chosen], packing):
                steps.raise_if_stopped()
                # 1. the policy's log-probs of both responses, in one packed pass
                indices, logps = group_logps(base, group)
                rows = [batch[i] for i in indices]
                # 2. weighted DPO loss against the reference, normalised by the whole batch (weights
                # have mean 1 over all rows)
                group_losses, group_margins = preference_losses(
                    dpo,
                    logps,
                    references[rows],
                    lengths[indices],
                    probabilities[indices],
                    None if offsets is None else offsets[indices],
                )
                trust = shares[indices].to(logps.device)
                loss = (trust * group_losses).sum() / len(batch)
                if dpo.nll_weight:
                    nll = -(trust * logps[:, 0]).sum() / lengths[:, 0].sum()
                    loss = loss + dpo.nll_weight * nll
                steps.check_finite(loss)
                loss.backward()
                losses[indices] = group_losses.detach().cpu()
                margins[indices] = group_margins.detach().cpu()
                seen[indices] = logps.detach().cpu()
            add_up(losses, margins, seen)
            if steps.step == 0:
                expect_step_zero(
                    config,
                    loss=losses.mean().item(),
                    expected=loss_at_zero(dpo, offsets, probabilities),
                    margin=margins.abs().max().item(),
                    what="DPO",
                )
            # 3. update
            taken = steps.take()
            # 4. log, save
            values = {
                "loss/train": ((shares * losses).sum() / shares.sum()).item(),
                "dpo/margin": margins.mean().item(),
                "dpo/accuracy": accuracy(margins).item(),
                "logps/chosen": seen[:, 0].mean().item(),
                "logps/rejected": seen[:, 1].mean().item(),
                "logps/chosen_change": (
                    (seen - references[batch])[:, 0].sum() / lengths[:, 0].sum()
                ).item(),
                "loss/nll": -(seen[:, 0].sum() / lengths[:, 0].sum()).item(),
            }
            run.events.metrics(steps.step, values | taken | on_held_out)
            steps.progress()
            if steps.reached(kept):
                break

        if held_out:
            run.events.write("phase", name="evaluate")
            with steps.weights_at_rest():
                after = held_out_margins(base, held_out, held_out_refs, packing, beta=dpo.beta)
            metrics |= accuracy_after(after, held_out)
    run.events.write("phase", name="save")
    return {
        "steps": steps.step,
        "rows": len({index for batch in plan[: steps.step] for index in batch}),
        "metrics": metrics,
        **trained.save(run),
    }
