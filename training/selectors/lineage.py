"""From a model back to the judgments that taught it, and forward to what people said of it."""

from __future__ import annotations

from dataclasses import dataclass

from django.db.models import Q

from annotate.models import Comparison, Judgment, Preference, Snapshot
from training.models import ModelVersion, Run, Sample

#: Runs that were given the ties their snapshot left out (training.services.engine_rows).
USED_TIES = Q(config__reward__ties__in=["half", "rao_kupper", "davidson"])
#: Judgments of a comparison that amounted to a tie.
TIE = Q(preferences__outcome=Preference.Outcome.TIE)


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
        rests = Q(preferences__snapshot_rows__snapshot=snapshot)
        if version.run and version.run.round and version.run.round.runs.filter(USED_TIES).exists():
            rests |= Q(preferences__aggregation=snapshot.aggregation_id) & TIE
        taught = Judgment.objects.filter(rests)
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
    """The versions of rounds that trained on a row, or a tie, that rests on this judgment."""
    of_rows = ModelVersion.objects.filter(
        run__round__snapshot__rows__preference__judgments=judgment
    )
    tied = judgment.preferences.filter(outcome=Preference.Outcome.TIE).values("aggregation")
    rounds = Run.objects.filter(USED_TIES, round__snapshot__aggregation__in=tied).values("round")
    of_ties = ModelVersion.objects.filter(run__round__in=rounds)
    return list(ModelVersion.objects.filter(Q(pk__in=of_rows) | Q(pk__in=of_ties)))
