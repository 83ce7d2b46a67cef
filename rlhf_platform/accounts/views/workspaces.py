"""Choosing which workspace the rest of the session is about."""

from __future__ import annotations

from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.views.decorators.http import require_POST

from rlhf_platform.accounts.middleware import SESSION_KEY
from rlhf_platform.accounts.models import Membership


@require_POST
@login_required
def switch(request: HttpRequest) -> HttpResponse:
    """Only workspaces the person is a member of can be chosen; others do not exist for them."""
    slug = request.POST.get("workspace", "")
    mine = Membership.objects.filter(user=request.user.pk).select_related("workspace")
    # Compared here: a database cannot be asked about every text that may be posted.
    chosen = next((member for member in mine if member.workspace.slug == slug), None)
    if chosen is None:
        raise Http404
    request.session[SESSION_KEY] = chosen.workspace_id
    return redirect("home")
