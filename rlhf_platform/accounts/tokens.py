"""`Authorization: Bearer aa_…` for the API; the token carries person and workspace."""

from __future__ import annotations

from typing import Any

from django.db.models import F, FilteredRelation, Q, QuerySet
from django.utils import timezone
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.authentication import BaseAuthentication, get_authorization_header
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from rlhf_platform.accounts.models import ApiToken, Membership, User
from rlhf_platform.accounts.secrets import digest
from rlhf_platform.prepared import Prepared


def live_token(*, digest: str) -> QuerySet[ApiToken]:
    """The token with its person, workspace, and the membership as two columns of their own."""
    held = FilteredRelation(
        "user__memberships", condition=Q(user__memberships__workspace=F("workspace"))
    )
    return (
        ApiToken.objects.select_related("user", "workspace")
        .annotate(held=held)
        .annotate(membership_pk=F("held__pk"), role=F("held__role"))
        .filter(digest=digest, revoked_at=None, user__is_active=True)
    )


LIVE_TOKEN = Prepared(live_token)


class TokenAuthentication(BaseAuthentication):
    """Finds the live token, sets `request.membership`; says 401 in one sentence otherwise."""

    def authenticate(self, request: Request) -> tuple[User, ApiToken] | None:
        words = get_authorization_header(request).split()
        if not words or words[0].lower() != b"bearer":
            return None
        if len(words) != 2:
            raise AuthenticationFailed("Send the header as: Authorization: Bearer TOKEN")
        try:
            secret = words[1].decode("ascii")
        except UnicodeDecodeError:
            raise AuthenticationFailed("The token holds characters that no token has") from None
        token: Any = LIVE_TOKEN.first(digest=digest(secret))
        if token is None:
            raise AuthenticationFailed("Unknown or revoked token")
        if token.role is None:
            raise AuthenticationFailed("The token's owner has left the workspace")
        request._request.membership = Membership(  # type: ignore[attr-defined]
            pk=token.membership_pk, workspace=token.workspace, user=token.user, role=token.role
        )
        now = timezone.now()
        if token.last_used_at is None or (now - token.last_used_at).total_seconds() > 60:
            ApiToken.objects.filter(pk=token.pk).update(last_used_at=now)
        return token.user, token

    def authenticate_header(self, request: Request) -> str:
        return "Bearer"


class TokenScheme(OpenApiAuthenticationExtension):
    """How the token appears in the OpenAPI document."""

    target_class = TokenAuthentication
    name = "token"

    def get_security_definition(self, auto_schema: object) -> dict[str, str]:
        return {"type": "http", "scheme": "bearer"}
