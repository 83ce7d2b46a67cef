"""Preference losses as pure functions of log-probs and scores."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


def dpo_losses(
    chosen_logps: Tensor,
    rejected_logps: Tensor,
    ref_chosen_logps: Tensor,
    ref_rejected_logps: Tensor,
    probabilities: Tensor,
    *,
    beta: float,
    label_smoothing: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """DPO with soft labels: −q·log σ(m) − (1 − q)·log σ(−m), m the implicit reward margin.

    m = beta·[(log π/π_ref)(chosen) − (log π/π_ref)(rejected)], Rafailov et al. 2023,
    arXiv 2305.18290, equation 7. q = p·(1 − ε) + (1 − p)·ε: p is P(chosen better) from the
    judgments, ε the assumed share of flipped labels (conservative DPO, Mitchell 2023). p = 1 and
    ε = 0 give equation 7 itself.

    All log-probs and probabilities: Shape (B,). Returns: (losses, margins). Shapes: (B,)
    """
    log_ratios = (chosen_logps - ref_chosen_logps) - (rejected_logps - ref_rejected_logps)
    margins = beta * log_ratios
    return soft_label_losses(margins, probabilities, label_smoothing), margins


def reward_losses(
    chosen_scores: Tensor, rejected_scores: Tensor, probabilities: Tensor, *, centring: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Bradley-Terry with soft labels: −p·log σ(d) − (1 − p)·log σ(−d), d the score difference.

    Bradley & Terry 1952; as a reward loss Ouyang et al. 2022, arXiv 2203.02155, equation 1. The
    optional centring·(r_chosen + r_rejected)² keeps scores around 0 (Eisenstein et al. 2023,
    arXiv 2312.09244, section 2).

    chosen_scores, rejected_scores, probabilities: Shape (B,)
    Returns: (losses, margins). Shapes: (B,)
    """
    margins = chosen_scores - rejected_scores
    losses = soft_label_losses(margins, probabilities, 0.0)
    if centring:
        losses = losses + centring * (chosen_scores + rejected_scores).square()
    return losses, margins


def soft_label_losses(margins: Tensor, probabilities: Tensor, label_smoothing: float) -> Tensor:
    """Cross-entropy of σ(margin) against P(chosen better), smoothed. Shapes: (B,)"""
    q = probabilities * (1.0 - label_smoothing) + (1.0 - probabilities) * label_smoothing
    return -(q * logsigmoid(margins) + (1.0 - q) * logsigmoid(-margins))


def accuracy(margins: Tensor) -> Tensor:
    """Share of positive margins; an exact 0 counts half. margins: (B,). Returns: scalar"""
    return ((margins > 0).float() + 0.5 * (margins == 0).float()).mean()


def linear_schedule(step: int, total_steps: int, warmup_steps: int, kind: str) -> float:
    """Factor on the learning rate at optimizer step `step` (from 0): warm-up, then `kind`."""
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    if kind == "constant":
        return 1.0
    return max(0.0, (total_steps - step) / max(1, total_steps - warmup_steps))


def is_finite(loss: Tensor) -> bool:
    return bool(torch.isfinite(loss).all())
