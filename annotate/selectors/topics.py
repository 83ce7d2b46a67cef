"""Which topics there are."""

from __future__ import annotations

from annotate.models import Project, PromptSet, PromptTopic
from rlhf_platform.accounts.models import Workspace


def topics_of_project(*, project: Project) -> list[str]:
    """The topics of what its queue holds."""
    named = PromptTopic.objects.filter(prompt__comparison__project=project)
    return sorted(named.order_by().values_list("name", flat=True).distinct())


def topics_of_set(*, prompt_set: PromptSet) -> list[str]:
    named = PromptTopic.objects.filter(prompt__promptset=prompt_set)
    return sorted(named.order_by().values_list("name", flat=True).distinct())


def topics_to_avoid(*, workspace: Workspace) -> list[str]:
    """All that people may opt out of: topics of whole projects, and those of prompts."""
    of_projects = Project.objects.filter(workspace=workspace).values_list("topics", flat=True)
    of_prompts = PromptTopic.objects.filter(prompt__workspace=workspace).order_by()
    names = set(of_prompts.values_list("name", flat=True).distinct())
    return sorted(names.union(*of_projects))
