"""The return leg: what a model answered becomes responses, and pairs of them become comparisons."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from django.conf import settings

from annotate.models import Comparison, Project, Prompt, Response, ResponseOrigin
from annotate.services.ingest import open_comparison, store_response
from training.models import Round, Run, Sample
from training.services.forwarding import storable


def store_samples(*, run: Run) -> list[Sample]:
    """The samples that a run's result names as rows and responses, stored once however often."""
    result = run.result or {}
    path = Path(settings.RUNS_DIR) / run.folder / result["samples"]
    rows = [json.loads(line) for line in path.read_bytes().decode("utf-8").split("\n") if line]
    prompts = {
        prompt.digest: prompt
        for prompt in Prompt.objects.filter(
            workspace=run.workspace, digest__in={row["prompt_id"] for row in rows}
        )
    }
    samples = []
    for row in rows:
        prompt = prompts[row["prompt_id"]]
        response = store_response(
            prompt=prompt,
            text=storable(row["text"]),  # a model may write what no database holds as text
            kind=ResponseOrigin.Kind.MODEL,
            reference=f"version:{run.version.pk}",
            details={"run": run.pk, "seed": row["seed"], "finished": row["finished"]},
        )
        sample, _ = Sample.objects.get_or_create(
            run=run,
            prompt=prompt,
            index=row["index"],
            defaults={
                "workspace": run.workspace,
                "version": run.version,
                "response": response,
                "seed": row["seed"],
                "finished": row["finished"],
                "tokens": row["tokens"],
            },
        )
        samples.append(sample)
    return samples


def answers_by_prompt(run: Run | None) -> dict[int, list[Response]]:
    """Each prompt's responses from one sampling run, in order of index."""
    answers: dict[int, list[Response]] = defaultdict(list)
    if run is not None:
        for sample in run.samples.select_related("response__prompt").order_by("prompt", "index"):
            answers[sample.prompt_id].append(sample.response)
    return answers


def open_round_comparisons(*, round: Round) -> int:
    """Two answers of the new policy to each fresh prompt, and one of them against the old model's.

    Pairs of equal texts are not opened. Returns how many comparisons stand afterwards.
    """
    runs = round.runs.filter(result__isnull=False).order_by("pk")
    new = answers_by_prompt(runs.filter(stage="sample_policy").last())
    old = answers_by_prompt(runs.filter(stage="sample_reference").last())
    pairs = []
    for prompt, answers in new.items():
        pairs += [(answers[0], other, Comparison.Origin.ON_POLICY) for other in answers[1:]]
        pairs += [(answers[0], other, Comparison.Origin.OLD_NEW) for other in old[prompt]]
    return open_pairs(project=round.project, pairs=pairs, reference=f"round:{round.pk}")


def open_cold_start(*, run: Run) -> int:
    """All samples of a prompt paired with the first: comparisons before anything was trained."""
    project = Project.objects.get(pk=run.job.payload["project"], workspace=run.workspace_id)
    pairs = [
        (answers[0], other, Comparison.Origin.COLD_START)
        for answers in answers_by_prompt(run).values()
        for other in answers[1:]
    ]
    return open_pairs(project=project, pairs=pairs, reference=f"run:{run.pk}")


def open_pairs(
    *, project: Project, pairs: Sequence[tuple[Response, Response, str]], reference: str
) -> int:
    opened = [
        open_comparison(
            project=project,
            first=first,
            second=second,
            origin=origin,
            origin_reference=reference,
            propensity=1.0,
        )
        for first, second, origin in pairs
    ]
    return sum(comparison is not None for comparison in opened)
