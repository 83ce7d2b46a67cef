"""What a tie says of two scores: Rao & Kupper 1967 and Davidson 1970, and their one parameter.

With strengths π = e^score and d = r_chosen − r_rejected both models give P(better), P(worse) and
P(tie), which sum to 1; Bradley-Terry is their limit where ties never happen.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid, softplus


class TieModel(nn.Module):
    """P(better), P(worse), P(tie) of a score difference, with a parameter that may be learnt.

    - rao_kupper: P(better) = π_c / (π_c + θπ_r) = σ(d − ln θ), P(worse) = σ(−d − ln θ),
      P(tie) = (θ² − 1)·σ(d − ln θ)·σ(−d − ln θ), θ > 1: a difference below ln θ is not noticed.
      Rao & Kupper 1967, Journal of the American Statistical Association 62, section 2.
    - davidson: P(better) = π_c / D, P(worse) = π_r / D, P(tie) = ν√(π_c·π_r) / D with
      D = π_c + π_r + ν√(π_c·π_r), ν > 0. Davidson 1970, same journal 65, section 2.

    The parameter is held without bounds: ln(θ − 1), ln ν.
    """

    def __init__(self, kind: str, value: float, *, learnt: bool) -> None:
        """value: θ or ν."""
        super().__init__()
        self.kind = kind
        free = math.log(value - 1.0) if kind == "rao_kupper" else math.log(value)
        self.free = nn.Parameter(torch.tensor(free), requires_grad=learnt)

    @property
    def value(self) -> float:
        """θ or ν."""
        free = self.free.item()
        return 1.0 + math.exp(free) if self.kind == "rao_kupper" else math.exp(free)

    def log_probabilities(self, margins: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(ln P(better), ln P(worse), ln P(tie)) at score differences `margins`; same shapes."""
        if self.kind == "rao_kupper":
            threshold = softplus(self.free)  # ln θ
            better, worse = logsigmoid(margins - threshold), logsigmoid(-margins - threshold)
            # ln(θ² − 1) = ln(θ − 1) + ln(θ + 1)
            return better, worse, self.free + torch.log(2.0 + self.free.exp()) + better + worse
        half = margins / 2.0
        tie = self.free.expand_as(half)
        total = torch.stack([half, -half, tie]).logsumexp(dim=0)
        return half - total, -half - total, tie - total


def start_value(kind: str, share: float) -> float:
    """The θ or ν under which equal scores tie as often as the rows do: a share in (0, 1).

    At d = 0 P(tie) is (θ − 1)/(θ + 1), or ν/(2 + ν).
    """
    if kind == "rao_kupper":
        return (1.0 + share) / (1.0 - share)
    return 2.0 * share / (1.0 - share)


def tie_losses(
    model: TieModel,
    chosen_scores: Tensor,
    rejected_scores: Tensor,
    probabilities: Tensor,
    ties: Tensor,
    *,
    centring: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of the judges' shares of better, worse and tie under a tie model.

    probabilities: P(chosen better) with ties counted half, so that better = p − t/2 and
    worse = 1 − p − t/2. ties: share t of ties. All shapes (B,), or broadcastable.
    Returns: (losses, margins)
    """
    margins = chosen_scores - rejected_scores
    better, worse, tie = model.log_probabilities(margins)
    losses = -(
        (probabilities - ties / 2.0) * better
        + (1.0 - probabilities - ties / 2.0) * worse
        + ties * tie
    )
    if centring:
        losses = losses + centring * (chosen_scores + rejected_scores).square()
    return losses, margins
