"""Three people in every test: Alice runs the workspace, Bob is a member, Charlie is an outsider."""

from __future__ import annotations

from dataclasses import dataclass

from rlhf_platform.accounts.models import Membership, Role, User, Workspace


@dataclass(frozen=True)
class People:
    workspace: Workspace
    alice: User  # admin
    rita: User  # researcher
    bob: User  # annotator
    elsewhere: Workspace
    charlie: User  # admin of the other workspace


def make_member(workspace: Workspace, name: str, role: Role) -> User:
    user = User.objects.create_user(f"{name}@example.org", name=name.title())
    Membership.objects.create(workspace=workspace, user=user, role=role)
    return user


def make_people() -> People:
    workspace = Workspace.objects.create(slug="lab", name="Lab")
    elsewhere = Workspace.objects.create(slug="elsewhere", name="Elsewhere")
    return People(
        workspace=workspace,
        alice=make_member(workspace, "alice", Role.ADMIN),
        rita=make_member(workspace, "rita", Role.RESEARCHER),
        bob=make_member(workspace, "bob", Role.ANNOTATOR),
        elsewhere=elsewhere,
        charlie=make_member(elsewhere, "charlie", Role.ADMIN),
    )
