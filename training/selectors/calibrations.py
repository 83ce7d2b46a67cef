"""How far plans have been off here, for the plans to come."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from rlhf_platform.accounts.models import Workspace
from training.models import RunCalibration

#: How many of the newest runs count: engine and machine change.
NEWEST = 20


@dataclass(frozen=True)
class Factor:
    """What runs of a method took on a kind of device, of what was planned: the median."""

    factor: float
    runs: int
    method: str
    device: str

    def __str__(self) -> str:
        where = "a GPU" if self.device == "gpu" else "a processor"
        runs = f"{self.runs} run{'s' if self.runs > 1 else ''}"
        return (
            f"every part is multiplied by {self.factor:.2f}, the median of measured over planned "
            f"memory of {runs} of {self.method} on {where} in this workspace"
        )


def memory_factor(*, workspace: Workspace, method: str, device: str) -> Factor | None:
    """None where no run of the method has ended on such a device yet."""
    newest = RunCalibration.objects.filter(
        run__workspace=workspace, run__method=method, device=device
    ).order_by("-pk")[:NEWEST]
    ratios = [each.measured_mb / each.planned_mb for each in newest]
    if not ratios:
        return None
    return Factor(statistics.median(ratios), len(ratios), method, device)
