"""On what terms a person stands to a project."""

from __future__ import annotations

from annotate.models import Annotator, Participation, Project


def consent_is_asked(*, project: Project, annotator: Annotator) -> bool:
    """Whether the project asks for a consent that this person has not given to its newest text."""
    if not (project.consent_text or project.content_warning):
        return False
    return not Participation.objects.filter(
        project=project, annotator=annotator, consent_version=project.consent_version
    ).exists()
