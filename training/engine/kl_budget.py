"""PPO's KL budget: training ends when the policy has gone too far, with the policy from before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from training.engine.checkpoint import Checkpoint


class KLBudget:
    """Remembers the policy whose KL to the reference was last measured within the budget.

    The KL is measured on the rollouts that begin an update (k1, a mean over its answers), so it is
    that of the policy after the updates before. Where it passes the limit, the policy that began
    the update before is taken back: the last that was itself measured, and found good.
    """

    def __init__(self, limit: float | None, policy: Mapping[str, nn.Parameter]) -> None:
        """limit: nats per response; None for no budget, then nothing is remembered."""
        self.limit = limit
        self.kept_updates = 0
        self._policy = dict(policy)
        self._good: dict[str, Tensor] = {}

    def exceeded_by(self, kl: float) -> bool:
        return self.limit is not None and kl > self.limit

    def keep(self, updates: int) -> None:
        """The policy as it is now, after so many updates, is within the budget."""
        if self.limit is not None:
            self.kept_updates = updates
            self._good = {name: each.detach().clone() for name, each in self._policy.items()}

    def take_back(self, kl: float, updates: int) -> dict[str, Any]:
        """Make the kept policy the policy. Returns what result.json says of it."""
        with torch.no_grad():
            for name, weights in self._good.items():
                self._policy[name].copy_(weights)
        return {
            "by": "kl_budget",
            "after_updates": updates,
            "kept_updates": self.kept_updates,
            "why": f"after {updates} updates the KL to the reference was {kl:.4g} nats per "
            f"response, above ppo.kl_budget {self.limit:g}; the adapter is that of "
            f"{self.kept_updates} updates, the last whose measured KL was within it",
        }

    def tensors(self) -> dict[str, Tensor]:
        return {f"within_budget/{name}": weights for name, weights in self._good.items()}

    def restore(self, checkpoint: Checkpoint) -> None:
        self.kept_updates = int(checkpoint.state["kept_updates"])
        self._good = {
            name: checkpoint.tensors[f"within_budget/{name}"]
            for name in self._policy
            if f"within_budget/{name}" in checkpoint.tensors
        }
