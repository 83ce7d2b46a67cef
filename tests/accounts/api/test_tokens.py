from __future__ import annotations

import io

import pytest
from django.core.management import CommandError, call_command

from rlhf_platform.accounts.models import ApiToken
from rlhf_platform.accounts.secrets import digest
from tests.api.world import Caller, caller
from tests.people import People


def test_a_token_is_made_shown_once_listed_and_revoked(people: People) -> None:
    bob = caller(people.bob, people.workspace)
    made = bob.post("/tokens", {"name": "laptop"})
    assert made.status_code == 201
    secret = made.json()["token"]
    assert Caller(secret).get("/projects").status_code == 200
    listed = bob.get("/tokens")
    assert [row["name"] for row in listed.json()["results"]] == ["laptop", "test"]
    assert secret not in listed.content.decode()
    assert not ApiToken.objects.filter(digest=secret).exists()
    pk = listed.json()["results"][0]["id"]
    assert bob.send("DELETE", f"/tokens/{pk}").status_code == 204
    assert Caller(secret).get("/projects").status_code == 401
    assert bob.send("DELETE", f"/tokens/{pk}").status_code == 404
    assert ApiToken.objects.get(pk=pk).revoked_at is not None


def test_nobody_lists_or_revokes_anothers_token(people: People) -> None:
    rita = caller(people.rita, people.workspace)
    alice = caller(people.alice, people.workspace)
    theirs = ApiToken.objects.get(user=people.rita)
    assert theirs.pk not in [row["id"] for row in alice.get("/tokens").json()["results"]]
    assert alice.send("DELETE", f"/tokens/{theirs.pk}").status_code == 404
    assert rita.get("/tokens").status_code == 200


def test_a_token_opens_its_own_workspace_alone(people: People) -> None:
    from rlhf_platform.accounts.models import Membership, Role
    from tests.factories import make_project

    make_project(people.workspace, slug="ours")
    Membership.objects.create(workspace=people.workspace, user=people.charlie, role=Role.RESEARCHER)
    elsewhere = caller(people.charlie, people.elsewhere)
    assert elsewhere.get("/projects/ours").status_code == 404
    assert caller(people.charlie, people.workspace).get("/projects/ours").status_code == 200


def test_an_inactive_persons_token_is_dead(people: People) -> None:
    bob = caller(people.bob, people.workspace)
    people.bob.is_active = False
    people.bob.save(update_fields=["is_active"])
    assert bob.get("/projects").status_code == 401


def test_the_command_prints_a_token_that_works(people: People) -> None:
    out = io.StringIO()
    call_command("create_token", "Rita@example.org", name="notebook", workspace="lab", stdout=out)
    secret = out.getvalue().strip()
    assert ApiToken.objects.get(name="notebook").digest == digest(secret)
    assert Caller(secret).get("/versions").status_code == 200


@pytest.mark.parametrize(
    ("email", "workspace", "name"),
    [
        ("nobody@example.org", "lab", "x"),
        ("rita@example.org", "elsewhere", "x"),
        ("rita@example.org", "lab", " "),
        ("rita@example.org", "lab", "x" * 81),
    ],
)
def test_the_command_says_what_is_missing(
    email: str, workspace: str, name: str, people: People
) -> None:
    with pytest.raises(CommandError, match=r"create_member|characters"):
        call_command("create_token", email, name=name, workspace=workspace)
    assert not ApiToken.objects.exists()
