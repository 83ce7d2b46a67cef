"""From a model back to the judgments that taught it, and forward to what people said of it."""

from __future__ import annotations

from dataclasses import dataclass

from annotate.models import Comparison, Judgment, Snapshot
from training.models import ModelVersion, Run, Sample


@dataclass(frozen=True)
class Lineage:
    """snapshot ▸ run ▸ version ▸ samples ▸ comparisons ▸ judgments."""

    run: Run | None
    snapshot: Snapshot | None
    judgments: int
    annotators: int
    samples: int
    comparisons: int
    answered: int


def version_lineage(version: ModelVersion) -> Lineage:
    snapshot = version.run.round.snapshot if version.run and version.run.round else None
    taught = Judgment.objects.none()
    if snapshot is not None:
        taught = Judgment.objects.filter(preferences__snapshot_rows__snapshot=snapshot)
    responses = Sample.objects.filter(version=version).values("response")
    compared = Comparison.objects.filter(response_a__in=responses) | Comparison.objects.filter(
        response_b__in=responses
    )
    return Lineage(
        run=version.run,
        snapshot=snapshot,
        judgments=taught.distinct().count(),
        annotators=taught.values("annotator").distinct().count(),
        samples=Sample.objects.filter(version=version).count(),
        comparisons=compared.count(),
        answered=Judgment.objects.current().filter(comparison__in=compared).count(),
    )


def versions_taught_by(judgment: Judgment) -> list[ModelVersion]:
    """The versions whose snapshots hold a row that rests on this judgment."""
    return list(
        ModelVersion.objects.filter(
            run__round__snapshot__rows__preference__judgments=judgment
        ).distinct()
    )
