"""The people of a workspace: the list, adding one, changing a role, removing one."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST

from rlhf_platform.accounts.access import MemberRequest, requires
from rlhf_platform.accounts.errors import AccountsError
from rlhf_platform.accounts.members import (
    add_member,
    change_role,
    members_of,
    new_sign_in_link,
    remove_member,
)
from rlhf_platform.accounts.models import Membership, Role


class AddForm(forms.Form):
    email = forms.EmailField(label="E-mail")
    name = forms.CharField(max_length=120, required=False)
    role = forms.ChoiceField(choices=Role.choices, initial=Role.ANNOTATOR)


def show(request: MemberRequest, *, status: int = 200, **more: Any) -> HttpResponse:
    context = {
        "members": members_of(workspace=request.membership.workspace),
        "roles": Role.choices,
        "form": AddForm(),
        **more,
    }
    return render(request, "accounts/members.html", context, status=status)


def link_address(request: MemberRequest, secret: str) -> str:
    return request.build_absolute_uri(reverse("sign_in_by_link", args=[secret]))


@require_http_methods(["GET", "HEAD", "POST"])
@requires(Role.ADMIN)
def members(request: MemberRequest) -> HttpResponse:
    """The list; a POST adds a person and shows their one-time link in this answer only."""
    if request.method != "POST":
        return show(request)
    form = AddForm(request.POST)
    if form.is_valid():
        try:
            added = add_member(workspace=request.membership.workspace, **form.cleaned_data)
        except AccountsError as error:
            form.add_error(None, f"{error}.")
        else:
            link = link_address(request, added.link) if added.link else ""
            return show(request, added=added.membership, link=link)
    return show(request, form=form, status=422)


@require_POST
@requires(Role.ADMIN)
def member(request: MemberRequest, pk: int) -> HttpResponse:
    """Change a role, remove a person, or make a new sign-in link for one."""
    found = get_object_or_404(
        Membership.objects.select_related("user", "workspace"),
        pk=pk,
        workspace=request.membership.workspace,
    )
    verb = request.POST.get("do", "")
    try:
        if verb == "link":
            link = link_address(request, new_sign_in_link(membership=found))
            return show(request, added=found, link=link)
        if verb == "remove":
            remove_member(membership=found)
            messages.success(request, f"{found.user} is no longer a member.")
        else:
            change_role(membership=found, role=request.POST.get("role", ""))
            messages.success(request, f"{found.user} is {found.get_role_display().lower()} now.")
    except AccountsError as error:
        messages.error(request, f"{error}.")
    return redirect("members" if found.user_id != request.user.pk else "home")
