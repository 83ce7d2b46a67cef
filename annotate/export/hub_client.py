"""huggingface_hub behind the guarded client: one try of one push.

The library retries by itself, up to six times per request and without a ceiling on Retry-After.
Here every kind of trouble leaves the transport as HubUnreachable, which the library does not catch,
so that `push_folder` alone decides how often and how long.
"""

from __future__ import annotations

import functools
import logging
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2
from django.conf import settings
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    constants,
    set_client_factory,
)
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import disable_progress_bars

from annotate.errors import HubRefused, HubUnreachable
from annotate.export.pushes import Push, Pushed
from rlhf_platform.http import GuardedTransport, OutgoingRefused, guarded_client

log = logging.getLogger(__name__)

#: 412: somebody else's commit came first, so the next try starts from it.
LATER = frozenset({408, 412, 425, 429})
#: Data files of an earlier push that this one does not have would be read together with its own.
REPLACED = "data/"


class HubTransport(httpx2.BaseTransport):
    """The guarded transport, with trouble that may pass told apart from an answer."""

    def __init__(self) -> None:
        self._inner = GuardedTransport()

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        place = f"{request.url.scheme}://{request.url.netloc.decode()}"
        try:
            response = self._inner.handle_request(request)
            response.read()  # a reply cut off in the middle is trouble too
        except httpx2.TimeoutException as error:
            raise HubUnreachable(f"{place} did not answer in time") from error
        except (httpx2.NetworkError, httpx2.RemoteProtocolError) as error:
            raise HubUnreachable(f"{place} cannot be reached ({error})") from error
        status = response.status_code
        # The library itself repeats a creation without end while another one is in progress.
        busy = status == 409 and b"conflicting operation is in progress" in response.content
        if status >= 500 or status in LATER or busy:
            raise HubUnreachable(
                f"{place} answered {status} {response.reason_phrase}".rstrip(),
                retry_after_s=retry_after(response),
            )
        return response

    def close(self) -> None:
        self._inner.close()


def retry_after(response: httpx2.Response) -> float | None:
    """Seconds that the other side asks for, given as a number or as a date (RFC 9110)."""
    value = response.headers.get("retry-after", "").strip()
    if value.isdigit():
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    if moment.tzinfo is None:  # a date "-0000" says nothing of its zone; HTTP dates are UTC
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


def stay_offline(request: httpx2.Request) -> None:
    if constants.is_offline_mode():
        raise HubRefused("HF_HUB_OFFLINE is set, so nothing is sent; unset it to push")


def make_client() -> httpx2.Client:
    return guarded_client(HubTransport(), event_hooks={"request": [stay_offline]})


@functools.cache
def install() -> None:
    """Put the whole library on our transport, once per process."""
    # Xet moves files by a client of its own that knows no guard; telemetry asks other hosts; an
    # implicit token is whatever somebody once left on this machine.
    constants.HF_HUB_DISABLE_XET = True
    constants.HF_HUB_DISABLE_TELEMETRY = True
    constants.HF_HUB_DISABLE_IMPLICIT_TOKEN = True
    disable_progress_bars()
    set_client_factory(make_client)


def hub_api() -> HfApi:
    """The library's client; it talks to the configured Hub with our token."""
    install()
    return HfApi(
        endpoint=settings.HF_ENDPOINT, token=settings.HF_TOKEN, library_name="annotate-and-align"
    )


def push_once(push: Push, digest: str) -> Pushed:
    """Look, create where it is missing, commit. Raises HubRefused or HubUnreachable."""
    try:
        return look_and_commit(hub_api(), push, digest)
    except (HubRefused, HubUnreachable):
        raise
    except HfHubHTTPError as error:
        raise HubRefused(refusal(error, push)) from None
    except httpx2.HTTPError as error:
        raise HubRefused(f"{settings.HF_ENDPOINT}: {without_token(str(error))}") from None
    except Exception as error:
        known = cause_of(error)
        if isinstance(known, HubUnreachable):
            raise known from None
        if isinstance(known, OutgoingRefused):
            raise HubRefused(f"the push would leave for a private address: {known}") from None
        if isinstance(known, HfHubHTTPError):
            raise HubRefused(refusal(known, push)) from None
        if isinstance(error, ValueError | KeyError | TypeError | RuntimeError):
            reason = without_token(" ".join(str(error).split()))[:300]
            log.warning("push to %s: %s", push.repo, reason)
            raise HubRefused(
                f"what {settings.HF_ENDPOINT} answered does not fit a Hub: {reason}"
            ) from None
        raise


def cause_of(error: BaseException) -> BaseException | None:
    """The error of ours, or of the Hub, that the library wrapped into its own."""
    step: BaseException | None = error
    while step is not None:
        if isinstance(step, HubUnreachable | OutgoingRefused | HfHubHTTPError):
            return step
        step = step.__cause__ or step.__context__
    return None


def look_and_commit(api: HfApi, push: Push, digest: str) -> Pushed:
    info = look(api, push)
    if info is None:
        create(api, push)
        info = look(api, push)
    if info is None:
        raise HubRefused(
            f"the Hub has the name {push.repo} but shows no {push.repo_type} there: another kind "
            "of repository uses it, or the token may not read it; choose another name"
        )
    if not info.private and not push.public:
        raise HubRefused(
            f"{push.repo} is public and pushes are private unless you say otherwise; make it "
            "private on the Hub, choose another name, or push with --public"
        )
    commits = api.list_repo_commits(push.repo, repo_type=push.repo_type)
    for place, commit in enumerate(commits):
        same_push = f"push {push.id}" in commit.message
        if same_push or (place == 0 and f"content sha256 {digest}" in commit.message):
            return pushed(push, commit.commit_id)
    made = api.create_commit(
        push.repo,
        operations(push, [sibling.rfilename for sibling in info.siblings or []]),
        commit_message=push.title,
        commit_description=f"push {push.id}\ncontent sha256 {digest}",
        repo_type=push.repo_type,
        parent_commit=info.sha,
    )
    return pushed(push, made.oid)


def create(api: HfApi, push: Push) -> None:
    """Make the repository; where it is there already (a reply got lost), that is fine."""
    try:
        api.create_repo(push.repo, repo_type=push.repo_type, private=not push.public)
    except HfHubHTTPError as error:
        if error.response.status_code != 409:
            raise


def look(api: HfApi, push: Push) -> Any | None:
    """The repository as the Hub describes it, or None where there is none."""
    try:
        return api.repo_info(push.repo, repo_type=push.repo_type)
    except HfHubHTTPError as error:
        if error.response.status_code == 404:
            return None
        raise


def operations(push: Push, there: list[str]) -> list[CommitOperationAdd | CommitOperationDelete]:
    files = {
        path.relative_to(push.folder).as_posix(): path
        for path in sorted(push.folder.rglob("*"))
        if path.is_file()
    }
    stale = [name for name in there if name.startswith(REPLACED) and name not in files]
    return [
        *(CommitOperationAdd(name, str(path)) for name, path in files.items()),
        *(CommitOperationDelete(name) for name in stale),
    ]


def pushed(push: Push, commit: str) -> Pushed:
    if not re.fullmatch(r"[0-9a-f]{40}", commit):
        raise HubRefused(f"{settings.HF_ENDPOINT} named a commit that is none")
    prefix = "datasets/" if push.repo_type == "dataset" else ""
    return Pushed(push.repo, f"{settings.HF_ENDPOINT}/{prefix}{push.repo}", commit)


def refusal(error: HfHubHTTPError, push: Push) -> str:
    """A refusal of the Hub in our words, with the Hub's own where they say more."""
    status = error.response.status_code
    said = without_token(" ".join((error.server_message or "").split()))[:200]
    said = f" (it says: {said})" if said else ""
    tokens = f"{settings.HF_ENDPOINT}/settings/tokens"
    if status == 401:
        return f"the Hub does not accept the token in HF_TOKEN; make a new one at {tokens}"
    if status == 403:
        return (
            f"the token in HF_TOKEN may not write to {push.repo}{said}; give it write access to "
            f"{push.repo.partition('/')[0]} at {tokens}, or choose another owner"
        )
    return f"the Hub refused the push to {push.repo} with status {status}{said}"


def without_token(text: str) -> str:
    return text.replace(settings.HF_TOKEN, "***") if settings.HF_TOKEN else text
