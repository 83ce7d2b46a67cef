"""A folder becomes one commit on the Hub: private by default, exactly once, with bounded patience.

huggingface_hub takes a second to import, so it is imported by the push itself (hub_client.py) and
not by the web.
"""

from __future__ import annotations

import hashlib
import logging
import random
import re
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from uuid import uuid4

from django.conf import settings

from annotate.errors import HubRefused, HubUnreachable, PushStopped

log = logging.getLogger(__name__)

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


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How often to try, and how long to wait in between."""

    tries: int = 8
    #: Ceiling of the first random wait; it doubles with every try.
    base_s: float = 1.0
    #: Ceiling of every wait. A Hub that asks for more is taken at its word: we end there.
    cap_s: float = 300.0

    def wait_s(self, tried: int, trouble: HubUnreachable) -> float:
        """Full jitter, so that many clients of one outage do not return together."""
        ceiling = min(self.cap_s, self.base_s * 2 ** (tried - 1))
        jitter = random.uniform(0, ceiling)  # noqa: S311 - spreads load, guards nothing
        return max(jitter, trouble.retry_after_s or 0.0)


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


def require_token() -> None:
    """Raise HubRefused where a push cannot begin: there is no token."""
    if not settings.HF_TOKEN:
        raise HubRefused(
            f"there is no token for {settings.HF_ENDPOINT}; make one with write access at "
            f"{settings.HF_ENDPOINT}/settings/tokens and set HF_TOKEN (or HF_TOKEN_FILE)"
        )


def content_digest(folder: Path) -> str:
    """SHA-256 over the names and contents of a folder's files."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(folder).as_posix()}\n".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def push_folder(
    *, push: Push, patience: Patience | None = None, stop: threading.Event | None = None
) -> Pushed:
    """Make the folder one commit of its repository, and return that commit.

    Every try first looks whether the commit is already there, so a reply that got lost does not
    make a second one. Raises HubRefused (trying again is no use), HubUnreachable (all tries used)
    or PushStopped.
    """
    require_token()
    from annotate.export.hub_client import push_once

    patience, stop = patience or Patience(), stop or threading.Event()
    digest = content_digest(push.folder)
    for tried in range(1, patience.tries + 1):
        if stop.is_set():
            break
        try:
            return push_once(push, digest)
        except HubUnreachable as trouble:
            seconds = patience.wait_s(tried, trouble)
            if tried == patience.tries or seconds > patience.cap_s:
                asked = (
                    f"; the Hub asks to wait {trouble.retry_after_s:.0f} s"
                    if trouble.retry_after_s
                    else ""
                )
                raise HubUnreachable(
                    f"{trouble} (tried {tried} times{asked}); nothing was lost, push again later",
                    retry_after_s=trouble.retry_after_s,
                ) from trouble
            log.warning("push to %s: %s; trying again in %.1f s", push.repo, trouble, seconds)
            stop.wait(seconds)
    raise PushStopped(f"the push to {push.repo} was stopped; push again to see it through")
