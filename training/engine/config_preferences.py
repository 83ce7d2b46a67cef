"""The `reward` and `dpo` sections of config.json."""

from __future__ import annotations

from dataclasses import dataclass

from training.engine.config_trl import check

DPO_LOSSES = ("sigmoid", "sigmoid_norm", "robust", "ipo")
TIE_MODELS = ("rao_kupper", "davidson")
TIES = ("skip", "half", *TIE_MODELS)
NORMALIZE = ("none", "mean", "mean_std")


@dataclass(frozen=True, kw_only=True)
class RewardConfig:
    """Bradley-Terry reward model, and what it makes of ties, margins and doubt."""

    centring: float = 0.0
    """Weight of (r_chosen + r_rejected)², which keeps scores around 0 (arXiv 2312.09244)."""
    margin: bool = False
    """Ask chosen to lead by its row's `margin` (arXiv 2307.09288, section 3.2.2, equation 2)."""
    ties: str = "skip"
    """Rows whose judges saw no better answer: skip, half (P 0.5), rao_kupper, davidson."""
    tie_parameter: float | None = None
    """θ above 1 of rao_kupper, ν above 0 of davidson; learnt from the rows' ties where null."""
    normalize: str = "none"
    """none, mean, or mean_std: scores of chosen training responses get mean 0 (and deviation 1)."""
    ensemble: int = 1
    """Score heads on the one adapter, each with its own weighting of the rows."""
    conservative: float = 0.0
    """How many standard deviations of the heads are taken from their mean when scoring."""

    def __post_init__(self) -> None:
        check(self.centring >= 0.0, "reward.centring", self.centring, "0 or more")
        check(self.ties in TIES, "reward.ties", self.ties, ", ".join(TIES))
        modelled = self.ties in TIE_MODELS
        check(
            not (self.margin and modelled),
            "reward.margin",
            self.margin,
            f"false with reward.ties {self.ties}, whose threshold is fitted to the rows instead",
        )
        if not modelled:
            check(
                self.tie_parameter is None,
                "reward.tie_parameter",
                self.tie_parameter,
                f"null with reward.ties {self.ties}",
            )
        elif self.tie_parameter is not None:
            least = 1.0 if self.ties == "rao_kupper" else 0.0
            check(
                least < self.tie_parameter < 1e6,
                "reward.tie_parameter",
                self.tie_parameter,
                f"above {least:g} (and below a million) for {self.ties}, or null to learn it",
            )
        check(self.normalize in NORMALIZE, "reward.normalize", self.normalize, ", ".join(NORMALIZE))
        check(1 <= self.ensemble <= 64, "reward.ensemble", self.ensemble, "1 to 64")
        check(self.conservative >= 0.0, "reward.conservative", self.conservative, "0 or more")
        if self.conservative:
            check(
                self.ensemble > 1,
                "reward.conservative",
                self.conservative,
                "0 with one head; set reward.ensemble to 2 or more",
            )
            check(
                self.normalize != "none",
                "reward.conservative",
                self.conservative,
                "0 without reward.normalize: each head is known up to a constant only",
            )


@dataclass(frozen=True, kw_only=True)
class DPOConfig:
    """Direct preference optimization (arXiv 2305.18290)."""

    beta: float = 0.1
    """Strength of the pull to the reference."""
    loss: str = "sigmoid"
    """sigmoid, sigmoid_norm (per token), robust (to flipped labels), ipo (per token, bounded)."""
    label_smoothing: float = 0.0
    """Assumed share of flipped labels: conservative DPO under sigmoid, unbiased under robust."""
    nll_weight: float = 0.0
    """Weight of the chosen responses' mean negative log-probability per token (RPO's alpha)."""
    margin: bool = False
    """Ask the implicit reward to lead by its row's `margin` in nats (ODPO, arXiv 2402.10571)."""

    def __post_init__(self) -> None:
        check(self.beta > 0.0, "dpo.beta", self.beta, "above 0")
        check(self.loss in DPO_LOSSES, "dpo.loss", self.loss, ", ".join(DPO_LOSSES))
        check(
            not self.margin or self.loss == "sigmoid",
            "dpo.margin",
            self.margin,
            f"false with dpo.loss {self.loss}; the offset is defined for sigmoid",
        )
        check(
            0.0 <= self.label_smoothing < 0.5,
            "dpo.label_smoothing",
            self.label_smoothing,
            "0 up to below 0.5",
        )
        if self.loss == "ipo":
            check(
                self.label_smoothing == 0.0, "dpo.label_smoothing", self.label_smoothing, "0 here"
            )
        if self.loss == "robust":
            check(
                self.label_smoothing > 0.0, "dpo.label_smoothing", self.label_smoothing, "above 0"
            )
        check(self.nll_weight >= 0.0, "dpo.nll_weight", self.nll_weight, "0 or more")
