"""A folder becomes one commit on the Hub: private by default, exactly once, with bounded patience.

huggingface_hub takes a second to import, so it is imported by the push itself (hub_client.py) and
not by the web.
"""

from __future__ import annotations

import hashlib
import logging
import random
import threading
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings

from annotate.errors import HubRefused, HubUnreachable, PushStopped
from annotate.export.pushes import Push, Pushed

log = logging.getLogger(__name__)


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
