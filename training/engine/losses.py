"""Preference losses as pure functions of log-probs and scores."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


def dpo_losses(
    logps: Tensor,
    ref_logps: Tensor,
    lengths: Tensor,
    probabilities: Tensor,
    *,
    beta: float,
    loss: str = "sigmoid",
    label_smoothing: float = 0.0,
    offsets: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Direct preference optimization with soft labels: p·L(Δ) + (1 − p)·L(−Δ).

    Δ is the difference of the log-ratios log π/π_ref of chosen and rejected, p is P(chosen better)
    from the judgments and ε the assumed share of flipped labels (`label_smoothing`):

    - sigmoid: L = −(1 − ε)·log σ(βΔ) − ε·log σ(−βΔ). Rafailov et al. 2023, arXiv 2305.18290,
      equation 7; with ε above 0 conservative DPO (Mitchell 2023, equation 3).
    - sigmoid_norm: the same with each log-ratio divided by its response's length in tokens
      (length-normalised DPO; Lambert et al. 2024, arXiv 2411.15124).
    - robust: L = (−(1 − ε)·log σ(βΔ) + ε·log σ(−βΔ)) / (1 − 2ε), unbiased where labels are flipped
      with probability ε. Chowdhury et al. 2024, arXiv 2403.00409, section 3.1.
    - ipo: L = (Δ/length − 1/(2β))², each log-ratio per token. Azar et al. 2023, arXiv 2310.12036,
      equation 17; the division by length as its authors confirmed it to TRL.

    offsets m ask βΔ to lead by so much (nats): Δ becomes Δ − m/β. DPO with an offset, Amini et al.
    2024, arXiv 2402.10571, whose own offset is α·log of a difference of rewards; for sigmoid only.

    logps, ref_logps: sums over (chosen, rejected), Shape (B, 2). lengths: scored tokens, (B, 2).
    probabilities, offsets: (B,). Returns: (losses, implicit reward margins βΔ in nats), both (B,)
    """
    log_ratios = logps - ref_logps
    margins = beta * (log_ratios[:, 0] - log_ratios[:, 1])
    if loss in ("sigmoid_norm", "ipo"):
        log_ratios = log_ratios / lengths
    delta = log_ratios[:, 0] - log_ratios[:, 1]
    if offsets is not None:
        delta = delta - offsets / beta
    right, wrong = (dpo_loss(sign * delta, beta, loss, label_smoothing) for sign in (1.0, -1.0))
    return probabilities * right + (1.0 - probabilities) * wrong, margins


def dpo_loss(delta: Tensor, beta: float, loss: str, label_smoothing: float) -> Tensor:
    """L(Δ) of one kind of `dpo_losses`, for a label taken at its word. Shapes: (B,)"""
    if loss == "ipo":
        return (delta - 1.0 / (2.0 * beta)).square()
    kept = -(1.0 - label_smoothing) * logsigmoid(beta * delta)
    flipped = -label_smoothing * logsigmoid(-beta * delta)
    if loss == "robust":
        return (kept - flipped) / (1.0 - 2.0 * label_smoothing)
    return kept + flipped


def reward_losses(
    chosen_scores: Tensor,
    rejected_scores: Tensor,
    probabilities: Tensor,
    *,
    centring: float = 0.0,
    offsets: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Bradley-Terry with soft labels: −p·log σ(d − m) − (1 − p)·log σ(m − d), d the difference.

    Bradley & Terry 1952; as a reward loss Ouyang et al. 2022, arXiv 2203.02155, equation 1; the
    margin m (`offsets`) Touvron et al. 2023, arXiv 2307.09288, section 3.2.2, equation 2. The
    optional centring·(r_chosen + r_rejected)² keeps scores around 0 (Eisenstein et al. 2023,
    arXiv 2312.09244, equation 2).

    chosen_scores, rejected_scores, probabilities, offsets: Shape (B,), or broadcastable.
    Returns: (losses, margins d). Shapes: (B,)
    """
    margins = chosen_scores - rejected_scores
    lead = margins if offsets is None else margins - offsets
    losses = -(probabilities * logsigmoid(lead) + (1.0 - probabilities) * logsigmoid(-lead))
    if centring:
        losses = losses + centring * (chosen_scores + rejected_scores).square()
    return losses, margins


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
