"""What training costs: worker time by kind of run, and what a launch will roughly take."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median

from django.utils import timezone

from annotate.models import Snapshot
from rlhf_platform.accounts.models import Workspace
from training.engine.config import ONLINE_METHODS
from training.models import JobEvent, Run, RunEvent
from training.services.presets import STAGES

#: Stages whose steps a launch is told beforehand.
TRAINED = (
    Run.Method.REWARD, Run.Method.DPO, Run.Method.KTO, Run.Method.ORPO, Run.Method.PPO,
    Run.Method.GRPO, Run.Method.RLOO, Run.Method.SFT,
)  # fmt: skip
#: Earlier runs whose pace a launch's hint rests on.
REMEMBERED = 5


@dataclass(frozen=True)
class Cost:
    """The time workers held one kind of run on one kind of device, whatever came of it."""

    method: str
    device: str
    runs: int
    seconds: float


def run_costs(*, workspace: Workspace, days: int = 30) -> list[Cost]:
    """Worker time per method and device of the last days, from the jobs' own transitions.

    Attempts that failed or were lost cost as much as the others, so they count too.
    """
    since = timezone.now() - timedelta(days=days)
    events = (
        JobEvent.objects.filter(job__workspace=workspace, job__run__isnull=False, at__gte=since)
        .order_by("job", "pk")
        .values_list("job__run", "job__run__method", "from_state", "to_state", "at")
    )
    devices = dict(
        RunEvent.objects.filter(run__workspace=workspace, kind="start", at__gte=since)
        .order_by("attempt")
        .values_list("run", "body__device")
    )
    began: dict[int, datetime] = {}
    seconds: dict[tuple[str, str], float] = defaultdict(float)
    runs: dict[tuple[str, str], set[int]] = defaultdict(set)
    for run, method, before, after, at in events:
        if after == "running":
            began[run] = at
        elif before == "running" and run in began:
            key = (Run.Method(method).label, str(devices.get(run) or "unknown"))
            seconds[key] += (at - began.pop(run)).total_seconds()
            runs[key].add(run)
    return [
        Cost(method, device, len(runs[method, device]), spent)
        for (method, device), spent in sorted(seconds.items(), key=lambda item: -item[1])
    ]


@dataclass(frozen=True)
class Hint:
    """What one stage means for the newest snapshot: steps, and seconds where we know a pace."""

    stage: str
    steps: int
    seconds: float | None


def launch_hints(*, workspace: Workspace, snapshot: Snapshot | None) -> list[Hint]:
    """Steps of the trained stages under the defaults, and their time at the latest runs' pace."""
    if snapshot is None:
        return []
    hints = []
    for method in TRAINED:
        preset = STAGES[method]
        if method in ONLINE_METHODS:
            steps = int(preset[method]["updates"])
        else:
            optim = preset["optim"]
            # KTO learns from the two answers of a pair one by one
            rows = snapshot.n_train * (2 if method == Run.Method.KTO else 1)
            steps = math.ceil(rows / optim["batch_size"]) * int(optim["epochs"])
        results = Run.objects.filter(
            workspace=workspace, method=method, result__status="done"
        ).order_by("-pk")[:REMEMBERED]
        paces = [
            run.result["seconds"] / run.result["steps"]
            for run in results
            if run.result and run.result.get("steps") and run.result.get("seconds")
        ]
        each = median(paces) if paces else None
        hints.append(Hint(str(method.label), steps, each * steps if each is not None else None))
    return hints
