"""What every training loop does between batches: optimizer, schedule, checkpoints, interrupts."""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from training.engine import distributed
from training.engine.alarms import Alarm
from training.engine.checkpoint import (
    Checkpoint,
    newest_checkpoint,
    random_state,
    save_checkpoint,
)
from training.engine.config import OptimConfig
from training.engine.errors import AlarmError, Interrupted, NonFiniteLossError, StepZeroError
from training.engine.files import megabytes, require_space
from training.engine.last_good import LastGood
from training.engine.losses import linear_schedule
from training.engine.optimizers import make_optimizer, moments, restore_moments
from training.engine.rundir import RunDir
from training.engine.stopping import stop_requested

#: Room beside checkpoints and adapter: the tokenizer, events, the log.
SPARE_BYTES = 64_000_000
#: A checkpoint is not due before training has taken so many times as long as writing the last one.
SAVING_SHARE = 50


class Steps:
    """AdamW with warm-up and decay over named parameters, counted in optimizer steps."""

    def __init__(
        self,
        run: RunDir,
        parameters: Mapping[str, nn.Parameter],
        config: OptimConfig,
        *,
        total: int,
    ) -> None:
        self.run = run
        self.total = total
        self.step = 0
        #: Where a stop falls back to, and the step that a checkpoint on the disk holds.
        self._rest: Checkpoint | None = None
        self._saved: int | None = None
        #: When the clock asks for the next checkpoint; never where it is not to.
        self._due_at = time.monotonic() + (run.config.checkpoint_every_s or math.inf)
        self._named = dict(parameters)
        distributed.equalise(self._named.values())
        #: What is wrong with the loss that this one of several processes has seen.
        self._spoilt: str | None = None
        self._config = config
        #: Parameters that a gradient has reached in this process.
        self._reached: set[str] = set()
        alarms = run.config.alarms
        self.last_good = LastGood(self._named, every=alarms.window, enabled=alarms.may_stop)
        self._warmup = math.ceil(total * config.warmup_ratio)
        self._optimizer = make_optimizer(list(self._named.values()), config)
        self._require_room()

    @property
    def names(self) -> list[str]:
        """The trained parameters."""
        return list(self._named)

    def _require_room(self) -> None:
        """Raise OutOfSpaceError where the disk will not hold what this run is going to keep."""
        if not self.run.is_leader:
            return
        config = self.run.config
        size = sum(one.numel() * one.element_size() for one in self._named.values())
        kept = 1  # while it is written, or after a stop
        if config.checkpoint_every or config.checkpoint_every_s:
            kept += config.checkpoint_keep or 1
        if config.checkpoint_every and not config.checkpoint_keep:
            kept += self.total // config.checkpoint_every
        # parameters, Adam's two moments (in 8 bits less) and what an alarm falls back to in each
        # checkpoint, and once the result
        each = (3 + self.last_good.copies) * size
        require_space(
            self.run.path,
            kept * each + size + SPARE_BYTES,
            f"this run ({kept} checkpoints of {megabytes(each)}, what was trained, and "
            f"{megabytes(SPARE_BYTES)} to spare)",
        )

    def check_finite(self, loss: Tensor) -> None:
        """Raise NonFiniteLossError before a NaN reaches the weights, with a checkpoint of them.

        One of several processes only notes it: all of them raise together, in `take`.
        """
        if bool(torch.isfinite(loss).all()):
            return
        self._spoilt = f"the loss of step {self.step + 1} is {loss.item()}"
        if distributed.size() == 1:
            self._refuse_step(self._spoilt)

    def _refuse_step(self, what: str) -> NoReturn:
        self.drop()
        self._save()
        kept = "" if self._saved is None else f" (checkpoint step-{self._saved:08d} holds them)"
        raise NonFiniteLossError(
            f"{what}; the weights were left as they were{kept}. A lower optim.lr, or a look at the "
            "rows of that batch, helps most often"
        )

    def take(
        self, schedule_step: int | None = None, *, resting: Collection[str] = ()
    ) -> dict[str, float]:
        """Clip, step, zero; returns the rate and the gradient norm as metrics.

        resting: names that this step leaves as they are.
        Raises StepZeroError where a parameter's first step finds that no gradient reached it, and
        NonFiniteLossError where the step would spoil the weights.
        """
        if distributed.anyone(self._spoilt is not None):
            step = f"the loss of step {self.step + 1} is not finite in another process"
            self._refuse_step(self._spoilt or step)
        distributed.add_up_gradients(self._named.values())
        self._expect_gradients(resting)
        at = self.step if schedule_step is None else schedule_step
        rate = self._config.lr * linear_schedule(
            at, self.total, self._warmup, self._config.schedule
        )
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        norm = nn.utils.clip_grad_norm_(list(self._named.values()), self._config.max_grad_norm)
        if not math.isfinite(float(norm)):
            # a finite loss may still have such a gradient, and one step would spoil every weight
            self._refuse_step(f"the gradient norm of step {self.step + 1} is {float(norm)}")
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self.step += 1
        return {"optim/lr": rate, "optim/grad_norm": float(norm)}

    def drop(self) -> None:
        """Forget the gradients of a step that is not taken."""
        self._optimizer.zero_grad(set_to_none=True)

    def _expect_gradients(self, resting: Collection[str]) -> None:
        """A graph that is cut somewhere trains nothing, and its loss looks like any other."""
        known = self._reached | set(resting)
        first = [name for name in self._named if name not in known]
        cut = [name for name in first if self._named[name].grad is None]
        self._reached |= set(first)
        if cut:
            raise StepZeroError(
                f"{len(cut)} of {len(self._named)} trained parameters got no gradient in the first "
                f"step (first: {cut[0]}): some layer of this base has no backward pass here"
            )

    def progress(self) -> None:
        self.run.events.write("progress", step=self.step, total_steps=self.total)

    def tensors(self) -> dict[str, Tensor]:
        """Parameters and Adam's moments by name, for a checkpoint."""
        tensors: dict[str, Tensor] = {f"parameter/{n}": p for n, p in self._named.items()}
        for place, value in moments(self._optimizer, self._named):
            tensors[f"adam/{place}"] = value
        return tensors

    def restore(self, checkpoint: Checkpoint) -> None:
        """Put parameters and moments back as they were."""
        with torch.no_grad():
            for name, parameter in self._named.items():
                parameter.copy_(checkpoint.tensors[f"parameter/{name}"])
        saved = {
            name.removeprefix("adam/"): tensor
            for name, tensor in checkpoint.tensors.items()
            if name.startswith("adam/")
        }
        restore_moments(self._optimizer, self._named, saved)
        self.step = checkpoint.step
        if "alarms" in checkpoint.state:  # not in one of an earlier version
            self.run.alarms.restore(checkpoint.state["alarms"])
        self.last_good.restore(checkpoint.tensors)

    def resume(self) -> Checkpoint | None:
        """Go on from the newest good checkpoint of this run, if there is one."""
        checkpoint = newest_checkpoint(self.run)
        if checkpoint is not None:
            self.restore(checkpoint)
            self._rest = checkpoint
            self._saved = checkpoint.step
            self.run.events.write("resumed", step=checkpoint.step)
        return checkpoint

    def reached(self, state: Mapping[str, Any], extra: Mapping[str, Tensor] | None = None) -> bool:
        """A place to go on from: between two optimizer steps, with all that the loop needs.

        When its steps or its seconds are up a checkpoint is written here; after a signal too, and
        Interrupted is raised.
        Until the next such place a stop falls back to this one.
        state: plain JSON. extra: tensors beside parameters and moments.
        Returns: whether an alarm ends training here, with earlier weights put back. Raises
        AlarmError where there are none.
        """
        distributed.agree_to_stop()
        if self.run.alarms.stopping is not None:
            self._fall_back(self.run.alarms.stopping)
            return True
        self.last_good.reach(self.run.alarms.seen.points)
        whole = {**state, "alarms": self.run.alarms.state()}
        tensors = {**(extra or {}), **self.last_good.tensors()}
        self._rest = Checkpoint(self.step, tensors, whole, random_state())
        every = self.run.config.checkpoint_every
        on_count = bool(every) and self.step % every == 0
        if self.step and (on_count or time.monotonic() >= self._due_at):
            self._save()
        self.raise_if_stopped()
        return False

    def _fall_back(self, alarm: Alarm) -> None:
        """Put the last good weights back. Raises AlarmError where those are the start's.

        There is no place to go on from any more: an attempt that is stopped behind this one comes
        here again from its checkpoint, and to the same end.
        """
        self._rest = None
        kept = self.last_good.fall_back(alarm.good_until)
        self.run.kept_step = kept
        if kept == 0:
            raise AlarmError(alarm.ended(kept))

    def raise_if_stopped(self) -> None:
        """After a signal: drop the step that was begun, checkpoint the last place, Interrupted.

        Called between the groups of rows of one step as well, so that a signal is obeyed within one
        group's pass. Weights change only in `take`, so dropping a step means its gradients.
        """
        if stop_requested.is_set():
            self._optimizer.zero_grad(set_to_none=True)
            self._save()
            raise Interrupted(
                f"stopped after step {self.step}; the next start goes on from there"
                if self._saved is not None
                else "stopped before the first step; the next start begins anew"
            )

    @contextmanager
    def weights_at_rest(self) -> Iterator[None]:
        """Within the block nothing trains: if a signal ends it, what was trained is saved first."""
        try:
            yield
        except Interrupted:
            self.raise_if_stopped()
            raise

    def _save(self) -> None:
        """Write the last place that was reached, unless a checkpoint holds that step already."""
        if self._rest is None or self._saved == self._rest.step or not self.run.is_leader:
            return
        began = time.monotonic()
        tensors = {**self.tensors(), **self._rest.tensors}
        save_checkpoint(self.run, replace(self._rest, tensors=tensors))
        self._saved = self._rest.step
        now = time.monotonic()
        pause_s = max(self.run.config.checkpoint_every_s or math.inf, SAVING_SHARE * (now - began))
        self._due_at = now + pause_s


def batches(n_rows: int, batch_size: int, epochs: int, seed: int) -> list[list[int]]:
    """Row indices of every optimizer step: each epoch a permutation drawn from (seed, epoch)."""
    steps: list[list[int]] = []
    for epoch in range(epochs):
        # a generator takes 64 bits, and a seed may be as large as 2**63 - 1
        generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) % 2**63)
        order: Sequence[int] = torch.randperm(n_rows, generator=generator).tolist()
        steps += [list(order[i : i + batch_size]) for i in range(0, n_rows, batch_size)]
    return steps
