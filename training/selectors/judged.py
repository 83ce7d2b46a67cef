"""What people said of an old model's answers beside a new one's."""

from __future__ import annotations

from typing import Any

from annotate.models import Annotator, Answer, Comparison, Judgment, Project
from training.models import ModelVersion, Run, Sample

#: An answer as the engine's evaluation reads it (`win_rate`): first is old, second new.
IF_B_IS_NEW = {"a": "first", "b": "second", "tie": "tie"}
IF_A_IS_NEW = {"a": "second", "b": "first", "tie": "tie"}


def judged_between(run: Run) -> list[dict[str, Any]]:
    """People's standing judgments of the policy that an evaluation measures beside what its round
    started from; none yet while the policy has answered nobody."""
    round = run.round
    if round is None or round.policy_version is None:
        return []
    return old_new_rows(project=round.project, old=round.reference, new=round.policy_version)


def old_new_rows(*, project: Project, old: ModelVersion, new: ModelVersion) -> list[dict[str, Any]]:
    """Rows of judged.jsonl, one a judgment; who said "both bad" compared nothing."""
    answered = {
        version.pk: set(
            Sample.objects.filter(workspace=project.workspace, version=version).values_list(
                "response_id", flat=True
            )
        )
        for version in (old, new)
    }
    said = (
        Judgment.objects.current()
        .filter(
            comparison__project=project,
            comparison__origin=Comparison.Origin.OLD_NEW,
            answer__in=(Answer.A, Answer.B, Answer.TIE),
        )
        .exclude(annotator__kind=Annotator.Kind.MODEL)
        .select_related("annotator", "comparison__prompt")
        .order_by("pk")
    )
    rows = []
    for judgment in said.iterator(chunk_size=2000):
        pair = judgment.comparison
        a_new = pair.response_a_id in answered[new.pk] and pair.response_b_id in answered[old.pk]
        b_new = pair.response_b_id in answered[new.pk] and pair.response_a_id in answered[old.pk]
        if a_new == b_new:  # of other models, or both texts were written by both
            continue
        rows.append(
            {
                "id": f"{pair.digest}-{judgment.annotator.pseudonym}",
                "prompt_id": pair.prompt.digest,
                "annotator": judgment.annotator.pseudonym,
                "choice": (IF_A_IS_NEW if a_new else IF_B_IS_NEW)[judgment.answer],
            }
        )
    return rows
