"""Which workspace a request is about, what the person may do there, and how much they may send."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.functional import SimpleLazyObject

from rlhf_platform.accounts.models import Membership, Role

SESSION_KEY = "workspace"


def current_membership(request: HttpRequest) -> Membership | None:
    """The membership chosen in this session, or the person's first; None for strangers."""
    if not request.user.is_authenticated:
        return None
    memberships = Membership.objects.filter(user=request.user, user__is_active=True)
    memberships = memberships.select_related("workspace").order_by("created_at", "id")
    chosen = request.session.get(SESSION_KEY)
    found = memberships.filter(workspace_id=chosen).first() if chosen else None
    return found or memberships.first()


class WorkspaceMiddleware:
    """Puts a lazy `request.membership` on every request; no query unless it is read."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        request.membership = SimpleLazyObject(lambda: current_membership(request))  # type: ignore[attr-defined]
        return self.get_response(request)


#: The most bytes of a body that we read of somebody who has not signed in, and beside a file.
SMALL_BODY_BYTES = 1024 * 1024


class BodyLimitMiddleware:
    """Refuses a body by its announced length, before the CSRF check writes its files to disk.

    The API's endpoints have limits of their own, which they check as early.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        length = request.META.get("CONTENT_LENGTH") or "0"
        sent = int(length) if length.isdecimal() else 0
        if sent > SMALL_BODY_BYTES and not request.path.startswith("/api/"):
            largest = settings.MAX_UPLOAD_BYTES
            if not request.user.is_authenticated or sent > largest + SMALL_BODY_BYTES:
                context = {"limit_mb": largest // 2**20}
                return render(request, "413.html", context, status=413)
        return self.get_response(request)


def workspace_context(request: HttpRequest) -> dict[str, Any]:
    """Template context: the membership of the page's reader, and the places they may go to."""
    membership = getattr(request, "membership", None)
    if not membership:
        return {"membership": membership}
    return {
        "membership": membership,
        "can_research": membership.allows(Role.RESEARCHER),
        "can_admin": membership.allows(Role.ADMIN),
        "memberships": Membership.objects.filter(user=membership.user_id)
        .select_related("workspace")
        .order_by("workspace__name"),
    }
