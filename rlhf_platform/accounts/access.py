"""The gate of every page: a signed-in member of the workspace with at least the named role."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponseBase
from django.utils.cache import add_never_cache_headers

from rlhf_platform.accounts.models import Membership, Role, User

View = Callable[..., HttpResponseBase]


class MemberRequest(HttpRequest):
    """A request that has passed `requires`: the user is known and a member."""

    user: User
    membership: Membership


def requires(role: Role) -> Callable[[View], View]:
    """Let only members with `role` or above through: strangers sign in, others get 403.

    What a member sees is kept by no browser and no proxy for whoever comes next.
    """

    def decorate(view: View) -> View:
        @functools.wraps(view)
        def gate(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            if not request.user.is_authenticated:
                return redirect_to_login(request.get_full_path())
            membership = request.membership  # type: ignore[attr-defined]
            if not membership or not membership.allows(role):
                raise PermissionDenied(f"This page needs the role {role.label.lower()} or above.")
            response = view(request, *args, **kwargs)
            add_never_cache_headers(response)
            return response

        gate.required_role = role  # type: ignore[attr-defined]
        return gate

    return decorate
