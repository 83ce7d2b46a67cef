"""The verdict on a round's policy."""

from __future__ import annotations

from django.db import transaction

from training.errors import IllegalTransition
from training.models import ModelVersion, Round
from training.services.rounds import advance_round


def promote_round(*, round: Round) -> ModelVersion:
    """Make the round's policy the promoted one; the project's earlier one becomes a candidate."""
    with transaction.atomic():
        version = decided(round, Round.State.PROMOTED)
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


def decided(round: Round, to: str) -> ModelVersion:
    """Move the round to its verdict. Raises IllegalTransition where it does not await one."""
    advance_round(round=round, to=to)
    if round.policy_version is None:
        raise IllegalTransition(f"round {round.number} made no policy")
    return round.policy_version
