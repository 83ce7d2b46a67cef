"""The people of a workspace, and the walls around a sign-in link."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.test import Client

from rlhf_platform.accounts.errors import AccountsError
from rlhf_platform.accounts.members import add_member, change_role, remove_member
from rlhf_platform.accounts.models import ApiToken, Membership, Role, SignInLink, User
from rlhf_platform.accounts.secrets import make_api_token, make_sign_in_link, redeem_sign_in_link
from tests.people import People, make_member


def membership(people: People, user: User) -> Membership:
    return Membership.objects.get(workspace=people.workspace, user=user)


def test_a_person_is_added_and_signs_in_by_the_link_that_is_shown_once(
    people: People, client: Client
) -> None:
    client.force_login(people.alice)
    asked = {"email": "Nina@Example.org", "name": "Nina", "role": "researcher"}
    page = client.post("/members/", asked).content.decode()
    link = re.search(r"http://testserver(/sign-in/[^<]+/)", page)
    assert link
    assert link[1] not in client.get("/members/").content.decode()
    stranger = Client()
    assert stranger.post(link[1]).status_code == 302
    assert stranger.get("/projects/").status_code == 200
    assert stranger.get("/members/").status_code == 403


@pytest.mark.parametrize("email", ["", "nobody", "bob@example.org"])
def test_a_bad_address_or_a_member_is_refused(people: People, client: Client, email: str) -> None:
    client.force_login(people.alice)
    before = Membership.objects.count()
    reply = client.post("/members/", {"email": email, "role": "annotator"})
    assert reply.status_code == 422
    assert Membership.objects.count() == before


def test_somebody_of_another_workspace_joins_without_a_link_that_would_open_it(
    people: People, client: Client
) -> None:
    waiting = make_sign_in_link(user=people.charlie)
    client.force_login(people.alice)
    asked = {"email": "charlie@example.org", "role": "annotator"}
    page = client.post("/members/", asked).content.decode()
    assert "/sign-in/" not in page
    assert "sign in as they always do" in page
    # A link from before, which some other admin may hold, does not open this workspace.
    assert redeem_sign_in_link(secret=waiting) is None
    row = membership(people, people.charlie)
    page = client.post(f"/members/{row.pk}/", {"do": "link"}, follow=True).content.decode()
    assert "also belongs to another workspace" in page
    assert not SignInLink.objects.filter(user=people.charlie).exclude(used_at=None).exists()


def test_a_role_is_changed_and_a_member_gets_a_new_link(people: People, client: Client) -> None:
    client.force_login(people.alice)
    row = membership(people, people.bob)
    client.post(f"/members/{row.pk}/", {"do": "role", "role": "reviewer"})
    assert membership(people, people.bob).role == Role.REVIEWER
    client.post(f"/members/{row.pk}/", {"do": "role", "role": "owner"})
    assert membership(people, people.bob).role == Role.REVIEWER
    assert "/sign-in/" in client.post(f"/members/{row.pk}/", {"do": "link"}).content.decode()


def test_a_removed_member_is_out_at_once_and_so_are_their_tokens(
    people: People, client: Client
) -> None:
    make_api_token(user=people.bob, workspace=people.workspace, name="script")
    his = Client()
    his.force_login(people.bob)
    client.force_login(people.alice)
    client.post(f"/members/{membership(people, people.bob).pk}/", {"do": "remove"})
    assert his.get("/judge/").status_code == 403
    assert ApiToken.objects.filter(revoked_at=None).count() == 0


def test_the_last_admin_stays(people: People, client: Client) -> None:
    row = membership(people, people.alice)
    for act in (
        lambda: change_role(membership=row, role=Role.RESEARCHER),
        lambda: remove_member(membership=row),
    ):
        with pytest.raises(AccountsError, match="only admin"):
            act()
    client.force_login(people.alice)
    client.post(f"/members/{row.pk}/", {"do": "remove"})
    assert membership(people, people.alice).role == Role.ADMIN
    make_member(people.workspace, "second", Role.ADMIN)
    remove_member(membership=row)
    assert not Membership.objects.filter(user=people.alice).exists()


def test_staff_of_the_site_are_never_given_a_link(people: People) -> None:
    User.objects.create_user("root@example.org", is_superuser=True)
    added = add_member(workspace=people.workspace, email="root@example.org", role="annotator")
    assert added.link == ""


def test_the_list_costs_the_same_for_any_number(
    people: People, client: Client, django_assert_max_num_queries: Any
) -> None:
    for number in range(12):
        make_member(people.workspace, f"more{number}", Role.ANNOTATOR)
    client.force_login(people.alice)
    with django_assert_max_num_queries(5):
        client.get("/members/")
