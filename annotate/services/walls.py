"""The wall between workspaces, where rows that were looked up apart come together."""

from __future__ import annotations

from typing import Protocol

from annotate.errors import AnnotateError


class Scoped(Protocol):
    workspace_id: int


def check_one_workspace(*rows: Scoped) -> None:
    """Raise AnnotateError unless all rows belong to one workspace."""
    if len({row.workspace_id for row in rows}) > 1:
        names = ", ".join(dict.fromkeys(type(row).__name__.lower() for row in rows))
        raise AnnotateError(f"these belong to different workspaces: {names}")
