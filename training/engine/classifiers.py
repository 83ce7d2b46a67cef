"""What turns a text into one logit per class: a decoder's last state through a linear head.

Encoders are in `encoders`; the training loop (`classify`) sees no difference.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from training.engine.batching import Packing, pack
from training.engine.data import Branch, Tree
from training.engine.distributed import add_up
from training.engine.logprobs import states_at
from training.engine.models import Base
from training.engine.reward import group_values
from training.engine.rundir import RunDir
from training.engine.scores import ScoreHead
from training.engine.sharding import own_groups
from training.engine.stopping import raise_if_stopped
from training.engine.tuning import Trained, begin

ADAPTER = "classify"
#: How far last states may be apart in packed and plain rows, relative to the largest of them.
PACKING_TOLERANCE = {"float32": 1e-3, "bfloat16": 0.1}

Text = tuple[int, ...]


class Classifier(ABC):
    """A base with a head for these labels, and what is trained of both."""

    base: Base
    labels: list[str]
    trained: Trained
    #: All that a step changes, by the names of the checkpoints.
    parameters: dict[str, nn.Parameter]

    @abstractmethod
    def prepare(self, run: RunDir, texts: Sequence[Text]) -> None:
        """Choose how texts become batches, before the first step and with the adapter active."""

    @abstractmethod
    def passes(self, texts: Sequence[Text]) -> Iterator[tuple[list[int], Tensor]]:
        """(indices of n texts, their logits (n, K)) for this process's share of the texts."""

    @abstractmethod
    def save(self, run: RunDir) -> dict[str, str]:
        """Write what was trained; returns the field of the result that names it."""

    @torch.no_grad()
    def logits_of(self, texts: Sequence[Text]) -> Tensor:
        """Logits of all texts, on the CPU, without dropout: (len(texts), K)"""
        table = torch.zeros(len(texts), len(self.labels))
        with at_rest(self.base.model):
            for indices, logits in self.passes(texts):
                raise_if_stopped()
                table[indices] = logits.cpu()
        add_up(table)
        return table


@contextlib.contextmanager
def at_rest(model: nn.Module) -> Iterator[None]:
    """Within the block an adapter's dropout is off; behind it every module is as it was."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


class DecoderClassifier(Classifier):
    """Texts packed side by side; each is read at its last token."""

    def __init__(self, run: RunDir, base: Base, labels: Sequence[str]) -> None:
        self.base, self.labels = base, list(labels)
        self.trained = begin(base, run.config, ADAPTER)
        self.head = ScoreHead(base.hidden_size, heads=len(labels)).to(base.device)
        self.parameters = self.trained.parameters | {"head": self.head.weight}
        self._packing = Packing(run.config.row_budget, shared=True)

    def prepare(self, run: RunDir, texts: Sequence[Text]) -> None:
        """Packed rows, where they leave the last states of the two longest texts as they are."""
        error = packing_error(self.base, sorted(texts, key=len)[-2:])
        bound = PACKING_TOLERANCE[run.config.base.dtype]
        if error > bound:
            run.events.warning(
                "plain_rows",
                f"packed rows change last states by {error:.3g} of the largest on this "
                f"architecture (bound {bound}), so plain rows are used: right, and slower",
            )
            self._packing = Packing(run.config.row_budget, shared=False)

    def passes(self, texts: Sequence[Text]) -> Iterator[tuple[list[int], Tensor]]:
        for group in own_groups(self.base, as_trees(texts), self._packing):
            indices, table = group_values(self.base, self.head.each, group)
            yield indices, table[:, 0]

    def save(self, run: RunDir) -> dict[str, str]:
        return self.trained.save(run, self.head, self.labels)


def as_trees(texts: Sequence[Text]) -> list[Tree]:
    """Each text as a prompt with nothing behind it, whose last token is read."""
    return [Tree(text, (Branch(()),)) for text in texts]


@torch.no_grad()
def packing_error(base: Base, texts: Sequence[Text]) -> float:
    """Largest difference between last states in packed and in plain rows, as a share of the
    largest: a sliding window breaks packing silently."""
    trees = as_trees(texts)
    found = []
    for shared in (True, False):
        states = torch.zeros(len(trees), base.hidden_size)
        for group in pack(trees, Packing(sum(map(len, texts)), shared=shared)):
            for row in group:
                placed = row.to(base.device)
                own = states_at(base, placed, placed.last).float().cpu()
                states[[tree for tree, _ in row.branches]] = own
        found.append(states)
    packed, plain = found
    return float((packed - plain).abs().max() / plain.abs().max())
