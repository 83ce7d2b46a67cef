"""The verdict on a round's policy."""

from __future__ import annotations

from django.db import transaction

from annotate.formats.canonical import text_problem
from training.errors import FailedGate, IllegalTransition
from training.models import ModelVersion, Round
from training.selectors.evaluations import failed_gate
from training.services.rounds import advance_round

#: Characters of the reason for a promotion against a gate.
LONGEST_REASON = 1000


def promote_round(*, round: Round, override: str = "") -> ModelVersion:
    """Make the round's policy the promoted one; the project's earlier one becomes a candidate.

    override: why, where its evaluation failed the forgetting gate; the round keeps it. Raises
    FailedGate without one, IllegalTransition where the round awaits no verdict.
    """
    override = override.strip()
    failed = failed_gate(round)
    if failed and not override:
        raise FailedGate(f"{failed}. To promote it nevertheless, say why")
    problem = text_problem(override, "the reason")
    if problem or len(override) > LONGEST_REASON:
        raise FailedGate(problem or f"the reason has at most {LONGEST_REASON} characters")
    reason = f"Promoted although {failed}: {override}" if failed else ""
    with transaction.atomic():
        version = decided(round, Round.State.PROMOTED, reason)
        ModelVersion.objects.filter(
            project=round.project, state=ModelVersion.State.PROMOTED
        ).exclude(pk=version.pk).update(state=ModelVersion.State.CANDIDATE)
        version.state = ModelVersion.State.PROMOTED
        version.save(update_fields=["state"])
    return version


def reject_round(*, round: Round) -> ModelVersion:
    """Keep the policy in the registry, marked as rejected."""
    with transaction.atomic():
        version = decided(round, Round.State.REJECTED)
        version.state = ModelVersion.State.REJECTED
        version.save(update_fields=["state"])
    return version


def decided(round: Round, to: str, reason: str = "") -> ModelVersion:
    """Move the round to its verdict. Raises IllegalTransition where it does not await one."""
    advance_round(round=round, to=to, reason=reason)
    if round.policy_version is None:
        raise IllegalTransition(f"round {round.number} made no policy")
    return round.policy_version
