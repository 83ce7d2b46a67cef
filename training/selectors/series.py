"""Every metric of a run by step, and its settings without the paths of this machine."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.conf import settings

from training.engine.metrics import METRICS
from training.models import Run


@dataclass(frozen=True)
class Series:
    """One metric; a value that is no finite number is None."""

    name: str
    meaning: str
    points: list[tuple[int, float | None]]


def run_series(run: Run, *, name: str = "") -> list[Series]:
    rows = run.metrics.order_by("name", "step")
    if name:
        rows = rows.filter(name=name)
    points: dict[str, list[tuple[int, float | None]]] = defaultdict(list)
    for metric, step, value in rows.values_list("name", "step", "value"):
        points[metric].append((step, value if math.isfinite(value) else None))
    return [Series(metric, METRICS.get(metric, ""), found) for metric, found in points.items()]


def without_our_paths(value: Any) -> Any:
    """A run's config or result with the paths of our own run folders made relative."""
    if isinstance(value, dict):
        return {key: without_our_paths(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [without_our_paths(inner) for inner in value]
    if isinstance(value, str):
        return value.replace(f"{Path(settings.RUNS_DIR)}/", "")
    return value
