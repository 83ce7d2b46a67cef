"""Making and checking the secrets that stand for a person: sign-in links and API tokens."""

from __future__ import annotations

import hashlib
import secrets
from datetime import timedelta

from django.utils import timezone

from rlhf_platform.accounts.models import ApiToken, SignInLink, User, Workspace

#: How long a printed sign-in link stays good.
LINK_LIFETIME = timedelta(hours=24)


def digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def make_sign_in_link(*, user: User, lifetime: timedelta = LINK_LIFETIME) -> str:
    """The secret part of a new one-time link; only its digest is stored."""
    secret = secrets.token_urlsafe(32)
    SignInLink.objects.create(
        user=user, digest=digest(secret), expires_at=timezone.now() + lifetime
    )
    return secret


def redeem_sign_in_link(*, secret: str) -> User | None:
    """The user of an unused, unexpired link, which is used up by this; otherwise None."""
    now = timezone.now()
    # One conditional UPDATE, so that of two simultaneous clicks only one gets in.
    taken = SignInLink.objects.filter(
        digest=digest(secret), used_at=None, expires_at__gt=now, user__is_active=True
    ).update(used_at=now)
    if not taken:
        return None
    return SignInLink.objects.select_related("user").get(digest=digest(secret)).user


def make_api_token(*, user: User, workspace: Workspace, name: str) -> str:
    """The text of a new API token, shown once; only its digest is stored."""
    secret = f"aa_{secrets.token_urlsafe(32)}"
    ApiToken.objects.create(
        workspace=workspace, user=user, name=name, prefix=secret[:8], digest=digest(secret)
    )
    return secret


def revoke_api_token(*, token: ApiToken) -> None:
    """End a token now. A second time changes nothing."""
    ApiToken.objects.filter(pk=token.pk, revoked_at=None).update(revoked_at=timezone.now())
