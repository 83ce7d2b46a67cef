"""Signing in by a one-time link. Everything else about passwords is django-allauth's."""

from __future__ import annotations

from django.contrib.auth import login
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from rlhf_platform.accounts.secrets import redeem_sign_in_link


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
def sign_in_by_link(request: HttpRequest, secret: str) -> HttpResponse:
    """GET shows a button and POST uses the link up, so that mail scanners do not spend it."""
    if request.method != "POST":
        return render(request, "accounts/sign_in_by_link.html")
    user = redeem_sign_in_link(secret=secret)
    if user is None:
        return render(request, "accounts/sign_in_link_spent.html", status=410)
    login(request, user, backend="allauth.account.auth_backends.AuthenticationBackend")
    return redirect("home")
