"""From heads to a score: one head or several, centred, combined, normalised; kept beside weights.

A score is ((mean over heads of (h − centre)) − conservative · (their deviation) − mean) / std. For
one head that is an affine map of what stock PEFT gives: (logit − mean) / std.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from training.engine.errors import BaseModelError
from training.engine.files import CLASSIFIER, REWARD_SCALE
from training.engine.models import ScalarHead
from training.engine.saved_adapters import saved_tensors

VERSION = 1


@dataclass(frozen=True, kw_only=True)
class RewardScale:
    """How the numbers of the heads become one score."""

    centres: tuple[float, ...]
    """Taken from each head first: pairs tell a head's scores up to a constant only."""
    conservative: float = 0.0
    """Standard deviations over the heads that are taken from their mean."""
    mean: float = 0.0
    """Taken from the combined score."""
    std: float = 1.0
    """Divides the rest."""

    @classmethod
    def plain(cls, heads: int, *, conservative: float = 0.0) -> RewardScale:
        return cls(centres=(0.0,) * heads, conservative=conservative)

    @property
    def is_plain(self) -> bool:
        return self == RewardScale.plain(len(self.centres))


class ScoreHead(ScalarHead):
    """A reward's score read by K linear heads on one state; K is 1 without an ensemble."""

    def __init__(self, hidden_size: int, *, heads: int = 1) -> None:
        """Weights are zeros: the first loss is then known in closed form (decision 3)."""
        super().__init__(hidden_size, std=0.0)
        self.weight = nn.Parameter(torch.zeros(heads, hidden_size))
        self.scale = RewardScale.plain(heads)

    def each(self, states: Tensor) -> Tensor:
        """What every head says. states: (N, H). Returns: (N, K)"""
        return states.float() @ self.weight.t()

    def forward(self, states: Tensor) -> Tensor:
        """The score. states: (N, H). Returns: (N,)"""
        return self.combine(self.each(states))

    def combine(self, values: Tensor) -> Tensor:
        """The score from what every head says. values: (…, K). Returns: (…)"""
        scale = self.scale
        if scale.is_plain and values.shape[-1] == 1:
            return values.squeeze(-1)
        centred = values - torch.tensor(scale.centres, device=values.device)
        score = centred.mean(dim=-1)
        if scale.conservative:
            score = score - scale.conservative * centred.std(dim=-1, correction=0)
        return (score - scale.mean) / scale.std

    def disagreement(self, values: Tensor) -> Tensor:
        """Standard deviation over the heads in score units. values: (…, K). Returns: (…)"""
        centred = values - torch.tensor(self.scale.centres, device=values.device)
        return centred.std(dim=-1, correction=0) / self.scale.std

    def normalise(self, values: Tensor, *, deviation: bool) -> None:
        """Set the scale so that these samples' scores have mean 0 (and standard deviation 1).

        The deviation is left alone where all samples score the same. values: (N, K)
        """
        heads = values.shape[-1]
        centres = tuple(values.mean(dim=0).tolist()) if heads > 1 else (0.0,)
        self.scale = RewardScale(centres=centres, conservative=self.scale.conservative)
        scores = self.combine(values)
        std = scores.std(correction=0).item() if deviation else 1.0
        self.scale = RewardScale(
            centres=centres,
            conservative=self.scale.conservative,
            mean=scores.mean().item(),
            std=std or 1.0,
        )


def scale_text(head: ScoreHead) -> str | None:
    """reward_scale.json of a head; None where its score is the mean of what stock PEFT gives."""
    if head.scale.is_plain:
        return None
    return json.dumps({"version": VERSION, **asdict(head.scale)}, indent=2) + "\n"


def load_score_head(folder: Path, hidden_size: int) -> ScoreHead:
    """The frozen head of a saved reward adapter. Raises BaseModelError where there is none."""
    if (folder / CLASSIFIER).exists():
        raise BaseModelError(
            f"{folder} holds a classifier's adapter ({CLASSIFIER} names its classes), which is no "
            "reward model"
        )
    weight = saved_tensors(folder).get("base_model.model.score.weight")
    if weight is None or weight.dim() != 2 or weight.shape[1] != hidden_size:
        raise BaseModelError(f"{folder} is not a reward adapter of this base: it has no score head")
    head = ScoreHead(hidden_size, heads=len(weight))
    with torch.no_grad():
        head.weight.copy_(weight)
    head.weight.requires_grad_(False)
    path = folder / REWARD_SCALE
    if path.exists():
        head.scale = read_scale(path, heads=len(weight))
    return head


def read_scale(path: Path, *, heads: int) -> RewardScale:
    """A saved scale for so many heads. Raises BaseModelError for anything else."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version = found.pop("version")
        scale = RewardScale(**(found | {"centres": tuple(found["centres"])}))
        numbers = [*scale.centres, scale.conservative, scale.mean, scale.std]
        finite = all(math.isfinite(number) for number in numbers)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BaseModelError(f"{path} cannot be read: {error}") from None
    if version != VERSION or not finite or scale.std <= 0.0 or len(scale.centres) != heads:
        raise BaseModelError(
            f"{path} does not fit its adapter: version {VERSION}, finite numbers, a positive std "
            f"and {heads} centres are needed"
        )
    return scale
