"""What is checked before the first step: that the run trains what was asked."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Any

import torch

from training.engine.batching import Packing
from training.engine.config import RunConfig
from training.engine.data import Tree
from training.engine.distributed import everyone
from training.engine.errors import StepZeroError
from training.engine.hashes import recalled, remember, sha256_of_engine
from training.engine.inputs import machine, record_inputs, versions
from training.engine.logprobs import PACKING_TOLERANCE, own_log_prob_error, packing_error
from training.engine.models import Base
from training.engine.quantization import count_layers
from training.engine.rundir import RunDir
from training.engine.sources import cache_folder
from training.engine.token_inspection import report as report_rows

#: How far a step-0 figure may be from its closed form in fp32; bf16 rounds at 2⁻⁸.
TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2}
#: How far one token's log-prob may be from the model's own (nats); logits in bf16 round at 2⁻⁸.
OWN_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.25}


def announce(run: RunDir, base: Base, *, total_steps: int, rows: int, trainable: int) -> None:
    """Bind the folder to what was read, and tell what is about to be trained, on what.

    Raises DataError where nothing could be learnt from the rows.
    """
    if trainable:
        report_rows(run, base)
    start(
        run,
        device=str(base.device),
        total_steps=total_steps,
        rows=rows,
        trainable_parameters=trainable,
        layers_4bit=count_layers(base.model, "nf4"),
        layers_8bit=count_layers(base.model, "int8"),
    )


def start(run: RunDir, **figures: Any) -> None:
    """Bind the folder to what was read, and write the event that says what begins."""
    record_inputs(run)
    method = run.config.method
    run.events.write("start", method=method, **figures, versions=versions(method))


def choose_packing(run: RunDir, base: Base, trees: Sequence[Tree]) -> Packing:
    """Shared prompts where packed and plain agree on two trees; else plain rows, and say so.

    The longest trees are taken: a sliding window is invisible on trees that fit into it. Before
    that, one tree's log-probs must be the model's own. In bf16 the two orders of summation differ
    by rounding: 1e-3 nats for a whole response in fp32, 0.5 there.
    """
    bound = PACKING_TOLERANCE if run.config.base.dtype == "float32" else 0.5
    error = checked_packing_error(run, base, sorted(trees, key=lambda tree: tree.length)[-2:])
    if error <= bound:
        return Packing(run.config.row_budget, shared=True)
    run.events.warning(
        "plain_rows",
        f"packed rows change log-probs by {error:.3g} nats on this architecture (bound {bound}), "
        "so plain rows are used: right, and slower",
    )
    return Packing(run.config.row_budget, shared=False)


def checked_packing_error(run: RunDir, base: Base, trees: Sequence[Tree]) -> float:
    """`packing_error` of a base whose log-probs are its own, remembered by what it depends on.

    The key covers this code, the libraries, the machine, the base's and the adapters' files, their
    settings and the trees. Raises StepZeroError as `expect_own_log_probs` does.
    """
    read = [run.inputs["base"], run.inputs["adapters"], versions(run.config.method), machine()]
    used = [run.config.base, run.config.adapter, run.config.tuning, base.device.type]
    key = hashlib.sha256(repr([sha256_of_engine(), read, used, trees]).encode()).hexdigest()
    kept = cache_folder() / "packing" / f"{key}.json"
    known = recalled(kept, "nats")
    if everyone(isinstance(known, float)):
        return float(known)
    expect_own_log_probs(base, trees[0])
    error = packing_error(base, trees)
    remember(kept, nats=error)
    return error


def expect_own_log_probs(base: Base, tree: Tree) -> None:
    """Raise StepZeroError where the model's logits are not its last states times its head.

    We multiply by the head only where a token is scored (`TokenLogProbs`): a bias, a scale
    (Granite, Cohere) or a soft cap (Gemma) would be left out of every loss without a word. The cap
    is asked for by name too, since it bends small logits too little to be seen.
    """
    capped = getattr(base.causal.config, "final_logit_softcapping", None)
    error = own_log_prob_error(base, tree)
    if capped or error > OWN_TOLERANCE[base.config.dtype]:
        what = f"caps its logits at {capped}" if capped else f"gives log-probs {error:.3g} nats off"
        raise StepZeroError(
            f"the base {what}: its logits are more than its last states times its head (a bias, a "
            "scale or a cap), which this engine does not train through; choose another base"
        )


def expect_step_zero(
    config: RunConfig,
    *,
    loss: float,
    margin: float,
    what: str,
    expected: float = math.log(2.0),
) -> None:
    """Before the first step policy equals reference: margin 0, and the loss what that gives.

    Raises StepZeroError otherwise: a wrong reference or an adapter that is not where it should be.
    """
    tolerance = TOLERANCE[config.base.dtype]
    if abs(margin) > tolerance or abs(loss - expected) > tolerance * max(1.0, expected):
        raise StepZeroError(
            f"{what} starts at loss {loss:.6f} and margin {margin:.6f} instead of {expected:.6f} "
            "and 0: policy and reference differ before training"
        )


def seed_everything(config: RunConfig) -> None:
    torch.manual_seed(config.seed)
    torch.set_num_threads(config.threads)
