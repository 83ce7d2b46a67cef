"""The registry as a list: versions by project, each with the one figure people know it by."""

from __future__ import annotations

from dataclasses import dataclass

from rlhf_platform.accounts.models import Workspace
from training.models import ModelVersion
from training.selectors.results import Measure, headline

#: Versions the list shows; older ones are reached through lineage.
NEWEST = 300


@dataclass(frozen=True)
class Entry:
    version: ModelVersion
    headline: Measure | None


@dataclass(frozen=True)
class Group:
    """The versions of one project, or the bases, which belong to none."""

    name: str
    entries: list[Entry]


def registry(*, workspace: Workspace) -> list[Group]:
    """Bases first, then project by project, the newest version of each first."""
    found = ModelVersion.objects.filter(workspace=workspace)
    found = found.select_related("parent", "project", "run__round").order_by("-pk")[:NEWEST]
    groups: dict[str, list[Entry]] = {}
    for version in found:
        name = version.project.name if version.project else "Bases"
        groups.setdefault(name, []).append(Entry(version, headline(version.metrics)))
    return [Group(n, groups[n]) for n in sorted(groups, key=lambda n: (n != "Bases", n))]
