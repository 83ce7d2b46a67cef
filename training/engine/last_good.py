"""Earlier weights of a run, to fall back to when an alarm stops it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn


class LastGood:
    """Copies of the trained parameters: of the two newest points whose number is a multiple of
    the alarms' window, and of the best held-out measurement.

    An alarm judges at most one window, so one of the two is older than all that it judged.
    Nothing is copied where no alarm may stop the run.
    """

    def __init__(self, named: Mapping[str, nn.Parameter], *, every: int, enabled: bool) -> None:
        self._named, self._every, self._enabled = named, every, enabled
        self._kept: dict[int, dict[str, Tensor]] = {}
        self._best: int | None = None
        self.reach(0)

    @property
    def copies(self) -> int:
        """How many copies of the parameters may be held at once."""
        return 3 if self._enabled else 0

    def reach(self, point: int) -> None:
        """Keep the weights after so many points, where they are to be kept."""
        if not self._enabled or point % self._every or point in self._kept:
            return
        self._keep(point)

    def reach_best(self, point: int) -> None:
        """Keep the weights of the best held-out measurement so far."""
        if self._enabled:
            self._best = point
            self._keep(point)

    def _keep(self, point: int) -> None:
        if point not in self._kept:
            self._kept[point] = {name: p.detach().clone() for name, p in self._named.items()}
        rolling = sorted(each for each in self._kept if each % self._every == 0)[-2:]
        self._kept = {k: v for k, v in self._kept.items() if k in (*rolling, self._best)}

    def fall_back(self, good_until: int) -> int:
        """Put the newest kept weights of at most so many points back; returns their point."""
        point = max(each for each in self._kept if each <= good_until)
        with torch.no_grad():
            for name, tensor in self._kept[point].items():
                self._named[name].copy_(tensor)
        return point

    def tensors(self) -> dict[str, Tensor]:
        """For a checkpoint."""
        return {
            f"good/{'best' if point == self._best else 'kept'}.{point}/{name}": tensor
            for point, kept in self._kept.items()
            for name, tensor in kept.items()
        }

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        found: dict[int, dict[str, Tensor]] = {}
        for key, tensor in tensors.items():
            if not key.startswith("good/"):
                continue
            _, place, name = key.split("/", 2)
            kind, _, number = place.partition(".")
            if kind == "best":
                self._best = int(number)
            found.setdefault(int(number), {})[name] = tensor.to(self._named[name].device)
        self._kept = found or self._kept
