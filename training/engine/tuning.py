"""What a run trains: an adapter on the base, or the base's own weights; loops see no difference.

Under `full` the reference of DPO is the base as it was loaded: its log-probs are computed before
the first step (and come from the cache after a resume), so no second copy is held.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from training.engine import sharding
from training.engine.config import TEXT_METHODS, RunConfig
from training.engine.files import CLASSIFIER, REWARD_SCALE
from training.engine.models import Base, load_base, pick_device
from training.engine.rundir import RunDir
from training.engine.scores import ScoreHead, scale_text
from training.engine.whole_models import classifier_text, empty_classifier, save_whole_model


@dataclass(frozen=True)
class Trained:
    """The trained weights of a base, by the names that a run's checkpoints use."""

    base: Base
    #: What `base.use` activates while training; None where the base itself is trained.
    adapter: str | None
    parameters: dict[str, nn.Parameter]

    def save(
        self, run: RunDir, head: ScoreHead | None = None, labels: Sequence[str] = ()
    ) -> dict[str, str]:
        """Write the attempt's adapter/ or model/, with a head as a reward model.

        labels: what the head's numbers are the logits of; it is a classifier's head then.
        Returns: the field of the result that names it; nothing where another process writes it.
        """
        scale = None if head is None else scale_text(head)
        beside = {} if scale is None else {REWARD_SCALE: scale}

        def write_model(folder: Path) -> None:
            save_whole_model(self.base, folder, head=head, labels=labels, beside=beside)

        def write_adapter(name: str, folder: Path) -> None:
            if head is None:
                self.base.save_adapter(name, folder)
                return
            named = {}
            if labels:
                model = empty_classifier(self.base, heads=len(labels), labels=labels)
                named[CLASSIFIER] = classifier_text(model.config)
            self.base.save_reward_adapter(name, head, folder, beside=beside | named)

        return self.write(run, write_model, write_adapter)

    def write(
        self,
        run: RunDir,
        write_model: Callable[[Path], None],
        write_adapter: Callable[[str, Path], None],
    ) -> dict[str, str]:
        """Have the leader write the attempt's model/, or adapter/ with the adapter's name.

        Returns: the field of the result that names it; nothing where another process writes it.
        """
        if not run.is_leader:
            return {}
        if self.adapter is None:
            folder = run.attempt_path / "model"
            shutil.rmtree(folder, ignore_errors=True)  # of this attempt, started a second time
            write_model(folder)
            return {"model": run.name_of(folder)}
        folder = run.attempt_path / "adapter"
        write_adapter(self.adapter, folder)
        return {"adapter": run.name_of(folder)}


def load_trainable(run: RunDir) -> Base:
    """The base of a run that trains by `begin`; in the processor's memory where that cuts it up."""
    config = run.config
    return load_base(
        run.base,
        gradient_checkpointing=config.gradient_checkpointing,
        tuning=config.tuning,
        device=torch.device("cpu") if sharding.asked() else None,
        turns=config.method not in TEXT_METHODS,
    )


def begin(base: Base, config: RunConfig, name: str) -> Trained:
    """Give what `config.tuning` says a gradient, and nothing else of the base.

    name: of the adapter, put on the base here unless it is there already.
    """
    if config.tuning == "full":
        scored = config.method in ("reward", "classify")
        if scored:
            empty_classifier(base)  # refused before training rather than when it is saved
        parameters = base.train_all(head=not scored)
        named = {f"base.{key}": parameter for key, parameter in parameters.items()}
        return Trained(base, None, named)
    if name not in base.adapters:
        base.add_adapter(name, config.adapter, init_from=config.adapter.init_from)
    if sharding.asked():
        sharding.shard(base, pick_device())
    named = {f"lora.{i}": each for i, each in enumerate(base.train_only(name))}
    return Trained(base, name, named)
