"""A person's own API tokens: made once, shown once, revoked at any time."""

from __future__ import annotations

from django import forms
from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_http_methods, require_POST

from rlhf_platform.accounts.access import MemberRequest, requires
from rlhf_platform.accounts.models import ApiToken, Role
from rlhf_platform.accounts.secrets import make_api_token, revoke_api_token

#: Characters of a token's name.
LONGEST_NAME = 80


class TokenForm(forms.Form):
    name = forms.CharField(max_length=LONGEST_NAME)


@require_http_methods(["GET", "HEAD", "POST"])
@requires(Role.ANNOTATOR)
def tokens(request: MemberRequest) -> HttpResponse:
    """The list; a POST makes one and shows its text in this answer and never again."""
    workspace = request.membership.workspace
    fresh, error = "", ""
    if request.method == "POST":
        form = TokenForm(request.POST)
        if form.is_valid():
            fresh = make_api_token(user=request.user, workspace=workspace, **form.cleaned_data)
        else:
            error = f"Give the token a name of 1 to {LONGEST_NAME} characters."
    mine = ApiToken.objects.filter(user=request.user, workspace=workspace).order_by("-pk")
    context = {"tokens": mine, "fresh": fresh, "error": error, "longest": LONGEST_NAME}
    return render(request, "accounts/tokens.html", context, status=422 if error else 200)


@require_POST
@requires(Role.ANNOTATOR)
def revoke(request: MemberRequest, pk: int) -> HttpResponse:
    token = get_object_or_404(
        ApiToken, pk=pk, user=request.user, workspace=request.membership.workspace
    )
    revoke_api_token(token=token)
    messages.success(request, f"{token.name} no longer works.")
    return redirect("tokens")
