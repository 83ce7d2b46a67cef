"""Who may judge in a project, and how much: before anything is shown, and before more is served."""

from __future__ import annotations

from typing import Any

from django.utils import timezone

from annotate.errors import ConsentMissing, LimitReached, NotNamed
from annotate.models import Annotator, Assignment, Judgment, Project


def refuse_entry(*, project: Project, annotator: Annotator, part: Any) -> None:
    """Raise NotNamed or ConsentMissing for whoever may be shown nothing of the project yet.

    part: a row with the columns of the person's participation, or None for each.
    """
    if project.restricted and not part.named:
        raise NotNamed(f"{project} is judged by people who are named for it")
    avoided = sorted(set(project.topics) & set(annotator.avoids))
    if avoided:
        raise NotNamed(f"{project} is about {', '.join(avoided)}, which you asked not to see")
    asks = bool(project.consent_text or project.content_warning)
    if asks and part.consent_version != project.consent_version:
        raise ConsentMissing(f"{project} asks for your consent before it shows anything")


def refuse_more(*, project: Project, annotator: Annotator, part: Any) -> None:
    """Raise LimitReached for whoever has judged as much as they may, in all or today (UTC)."""
    quota = part.quota if part.quota is not None else project.quota
    if quota is not None:
        done = Assignment.objects.filter(
            annotator=annotator, comparison__project=project, state=Assignment.State.JUDGED
        )[:quota].count()
        if done >= quota:
            raise LimitReached(f"you have judged your {quota} here; thank you")
    if project.daily_limit is not None:
        limit = project.daily_limit
        today = judged_today(project=project, annotator=annotator)
        if today >= limit:
            raise LimitReached(f"you have judged {limit} here today, which is the limit of a day")


def judged_today(*, project: Project, annotator: Annotator) -> int:
    """Judgments of this person here since midnight UTC that stand."""
    midnight = timezone.now().replace(hour=0, minute=0, second=0, microsecond=0)
    return (
        Judgment.objects.standing()
        .filter(annotator=annotator, comparison__project=project, created_at__gte=midnight)
        .count()
    )
