"""What finished runs took of memory, beside what their plans say."""

from __future__ import annotations

from training.engine.config import from_dict
from training.engine.errors import EngineError
from training.engine.planner import Lengths, plan
from training.models import Run, RunCalibration
from training.selectors.plans import version_shape

MIB = 2**20


def record_calibration(*, run: Run) -> RunCalibration | None:
    """Store a finished run's peak beside its plan, once.

    None where one of the two is not known: a base that is not on this machine, a result that does
    not say its rows' lengths or, on a processor, its memory after imports.
    """
    result = run.result or {}
    start = run.events.filter(kind="start").order_by("-attempt", "-seq").first()
    device = "gpu" if start and str(start.body.get("device")).startswith("cuda") else "cpu"
    imports = 0.0 if device == "gpu" else result.get("imports_mb")
    peak, lengths = result.get("peak_mb"), result.get("lengths")
    if imports is None or peak is None or peak <= imports or not isinstance(lengths, dict):
        return None
    try:
        known = Lengths(**lengths)
        found = plan(from_dict(run.config), version_shape(run.version), None,
                     lengths=known, device=device)  # fmt: skip
    except (EngineError, TypeError):
        return None
    made, _ = RunCalibration.objects.get_or_create(
        run=run,
        defaults={
            "device": device,
            "planned_mb": found.total_bytes / MIB,
            "measured_mb": peak - imports,
        },
    )
    return made
