"""Who is in a workspace: adding people, changing their role, letting them go.

A workspace always keeps an admin. A sign-in link stands for the whole person, so an admin gets one
only for people whom nobody else's workspace knows.
"""

from __future__ import annotations

from dataclasses import dataclass

from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from rlhf_platform.accounts.errors import AccountsError
from rlhf_platform.accounts.models import ApiToken, Membership, Role, SignInLink, User, Workspace
from rlhf_platform.accounts.secrets import make_sign_in_link


@dataclass(frozen=True)
class Added:
    """A new or changed membership, and the secret of a sign-in link where one may be given."""

    membership: Membership
    link: str


def members_of(*, workspace: Workspace) -> QuerySet[Membership]:
    return workspace.memberships.select_related("user").order_by("user__email")


def known_elsewhere(*, user: User, workspace: Workspace) -> bool:
    """Whether a sign-in link of this person would open more than this workspace."""
    return (
        user.is_staff or user.is_superuser or user.memberships.exclude(workspace=workspace).exists()
    )


@transaction.atomic
def add_member(*, workspace: Workspace, email: str, role: str, name: str = "") -> Added:
    """A person in a workspace. Raises AccountsError for a bad address and for one already there.

    The link is empty for a person of another workspace: they sign in as they always do. Links that
    were made for them before are spent, since they would open this workspace too.
    """
    email = email.strip().lower()
    try:
        validate_email(email)
    except ValidationError:
        raise AccountsError(f"{email!r} is not an e-mail address") from None
    if role not in Role.values:
        raise AccountsError(f"role {role!r} is none of {', '.join(Role.values)}")
    user = User.objects.filter(email=email).first()
    if user is None:
        user = User.objects.create_user(email, name=name)
    if Membership.objects.filter(workspace=workspace, user=user).exists():
        raise AccountsError(f"{email} is a member already; change the role in the list")
    membership = Membership.objects.create(workspace=workspace, user=user, role=role)
    if known_elsewhere(user=user, workspace=workspace):
        now = timezone.now()
        SignInLink.objects.filter(user=user, used_at=None).update(expires_at=now)
        return Added(membership, "")
    return Added(membership, make_sign_in_link(user=user))


def new_sign_in_link(*, membership: Membership) -> str:
    """The secret of a fresh link. Raises AccountsError for people of other workspaces too."""
    user = membership.user
    if known_elsewhere(user=user, workspace=membership.workspace):
        raise AccountsError(
            f"{user} also belongs to another workspace, which a link of yours would open; "
            "whoever runs this site can make one (manage.py sign_in_link)"
        )
    return make_sign_in_link(user=user)


@transaction.atomic
def change_role(*, membership: Membership, role: str) -> Membership:
    """Raises AccountsError for an unknown role and for the last admin's."""
    if role not in Role.values:
        raise AccountsError(f"role {role!r} is none of {', '.join(Role.values)}")
    if role != Role.ADMIN:
        keep_an_admin(membership)
    Membership.objects.filter(pk=membership.pk).update(role=role)
    membership.refresh_from_db(fields=["role"])
    return membership


@transaction.atomic
def remove_member(*, membership: Membership) -> None:
    """Take a person out: their tokens here stop working, what they judged stays.

    Raises AccountsError for the last admin.
    """
    keep_an_admin(membership)
    ApiToken.objects.filter(
        workspace=membership.workspace, user=membership.user, revoked_at=None
    ).update(revoked_at=timezone.now())
    membership.delete()


def keep_an_admin(membership: Membership) -> None:
    """Raise AccountsError where nobody but this member is an admin; call inside a transaction."""
    # Every admin row is locked, so that two admins cannot remove each other at the same time.
    admins = Membership.objects.select_for_update().filter(
        workspace=membership.workspace, role=Role.ADMIN
    )
    if {admin.pk for admin in admins} == {membership.pk}:
        raise AccountsError(
            f"{membership.user} is the only admin here; make somebody else an admin first"
        )
