"""What a push is: a folder, where it goes, and where it ended up."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from uuid import uuid4

from annotate.errors import HubRefused

RepoType = Literal["dataset", "model"]
#: One half of `owner/name`, as the Hub allows it.
NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?")


@dataclass(frozen=True, kw_only=True)
class Push:
    """What to push where. The same `id` on a retry means: the same push, not another one."""

    folder: Path
    repo: str
    repo_type: RepoType
    title: str
    public: bool = False
    id: str = field(default_factory=lambda: uuid4().hex)

    def __post_init__(self) -> None:
        require_repo_name(self.repo)


@dataclass(frozen=True)
class Pushed:
    """Where a push ended up."""

    repo: str
    url: str
    commit: str

    def as_dict(self) -> dict[str, str]:
        return {"repo": self.repo, "url": self.url, "commit": self.commit}


def require_repo_name(repo: str) -> None:
    """Raise HubRefused unless `repo` is an `owner/name` the Hub can have."""
    owner, slash, name = repo.partition("/")
    fits = slash and all(
        NAME.fullmatch(part) and "--" not in part and ".." not in part for part in (owner, name)
    )
    if not fits or name.endswith(".git"):
        raise HubRefused(
            f"{repo!r} is not a repository name; write owner/name with letters, digits, '-', '_' "
            "and '.', for example my-lab/helpful-preferences"
        )
