"""TRL's own trainers on our base: they make the batches and the losses, everything else is ours.

`Trainer.train` is not called. Its checkpoints hold pickles (optimizer.pt, rng_state.pth), it stops
only between steps, and it goes on by replaying batches. So a TRL trainer is built on the one base
and asked for its loss of a batch (`compute_loss`); optimizer, schedule, checkpoints, events and
stops are `Steps`, as in our own methods, and a resumed run ends with the same bytes.
"""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Callable, Iterator, Mapping
from tempfile import TemporaryDirectory
from typing import Any

import torch
import trl.trainer.utils
from datasets import disable_progress_bars
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from training.engine.models import Base
from training.engine.preflight import seed_everything
from training.engine.rundir import RunDir
from training.engine.steps import Steps
from training.engine.stopping import raise_if_stopped

#: Names that TRL's trainers look for on a PEFT model: what is trained, and its copy at the start.
ADAPTER = "default"
REFERENCE = "ref"
#: Words of the vocabulary for which TRL computes logits at a time on a processor.
WORDS = 2048


def without_telemetry(trainer: type) -> type:
    """The trainer class without the ping that TRL sends to the Hub whenever one is made."""
    return type(trainer.__name__, (trainer,), {"_send_telemetry": lambda self: None})


def arguments(run: RunDir, folder: str, *, batch_size: int) -> dict[str, Any]:
    """What every TRL config is told: compute as the base does, write nothing, report nowhere."""
    return {
        "output_dir": folder,
        "per_device_train_batch_size": batch_size,
        "gradient_accumulation_steps": 1,
        # where it was asked for, load_base has switched it on; TRL switches it off and on again
        "gradient_checkpointing": False,
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
        "bf16": False,  # no autocast: base.dtype decides
        "use_cpu": not torch.cuda.is_available(),
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "seed": run.config.seed % 2**32,  # numpy takes no more
    }


def narrow_logits() -> None:
    """On a processor TRL holds ten copies of its logits, of every token and 32,768 words at a time.

    Fewer words at a time saved 1.7 of 5.0 GB with 8 rows of 232 tokens; numbers differ by rounding.
    """
    if not torch.cuda.is_available():
        trl.trainer.utils._CHUNKED_LOGPROB_CHUNK_SIZE = WORDS


def hand_over(run: RunDir, base: Base, build: Callable[[str, Any, Any], Any]) -> Any:
    """Put the trained adapter on the base and let `build(folder, model, tokenizer)` make a trainer.

    The trainer adds a frozen copy of the adapter as the reference, where its method has one. Under
    a quantized base it would train in bf16; adapters keep fp32 here, as in our own methods.
    """
    adapter = run.config.adapter
    base.add_adapter(ADAPTER, adapter, init_from=adapter.init_from)
    start = [parameter.detach().clone() for parameter in base.parameters(ADAPTER)]
    narrow_logits()
    disable_progress_bars()  # of the one row that a constructor wants to see
    # TRL 1.16 speaks of gradient checkpointing as transformers did before 5.23, at every step
    warnings.filterwarnings("ignore", ".*gradient_checkpointing", FutureWarning)
    with TemporaryDirectory() as folder:  # made by every Trainer, and never written to
        # a copy: the trainer may give its tokenizer a pad token, and ours is saved with the adapter
        trainer = build(folder, base.model, copy.deepcopy(base.tokenizer))
    trainer.current_gradient_accumulation_steps = 1  # what `Trainer.train` would set
    names = [ADAPTER]
    if base.parameters(REFERENCE):
        base.adapters.append(REFERENCE)
        names.append(REFERENCE)
    for name in names:
        for parameter, value in zip(base.parameters(name), start, strict=True):
            parameter.data = value.clone()
            parameter.requires_grad_(False)
    with base.use(ADAPTER):
        pass  # leaves the bare base active, as `Base` believes it is
    base.model.train()  # TRL asks for this flag; there is no dropout that it would turn on
    seed_everything(run.config)  # a Trainer seeds every generator anew
    return trainer


def add_gradients(trainer: Any, inputs: Mapping[str, Any], steps: Steps) -> float:
    """TRL's loss of one batch; its gradients are added up. A stop drops the step that was begun.

    Raises NonFiniteLossError before a NaN reaches the weights.
    """
    with steps.weights_at_rest():
        loss: Tensor = trainer.compute_loss(trainer.model, inputs)
        steps.check_finite(loss)
        loss.backward()
    return float(loss.detach())


@contextlib.contextmanager
def stopping_between_layers(base: Base) -> Iterator[None]:
    """Within the block a signal is obeyed between two layers, there and back.

    TRL takes a whole batch through the model in one pass, which may last minutes on a processor.
    """

    def before(module: nn.Module, args: Any) -> None:
        raise_if_stopped()

    def after(module: nn.Module, args: Any, output: Any) -> None:
        states = output[0] if isinstance(output, tuple) else output
        if states.requires_grad:
            states.register_hook(lambda gradient: raise_if_stopped())

    layers = [m for m in base.causal.modules() if isinstance(m, GradientCheckpointingLayer)]
    handles = [layer.register_forward_pre_hook(before) for layer in layers]
    handles += [layer.register_forward_hook(after) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def drained(found: Mapping[str, list[float]], names: Mapping[str, str]) -> dict[str, float]:
    """The means of what a trainer noted down, under our names; what has none is left out."""
    values = {names[key]: sum(each) / len(each) for key, each in found.items() if key in names}
    found.clear()  # type: ignore[attr-defined]
    return values
