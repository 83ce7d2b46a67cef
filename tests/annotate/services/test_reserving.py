"""Keeping a comparison for one person, on its page and over the API."""

from __future__ import annotations

import pytest
from django.test import Client

from annotate.errors import AnnotateError
from annotate.services.reserving import reserve_comparison
from annotate.services.serving import annotator_for, next_assignment
from tests.api.world import caller
from tests.factories import make_annotator, make_comparison, make_judgment, make_project
from tests.people import People

pytestmark = pytest.mark.django_db


def test_an_admin_reserves_and_releases_on_the_page(people: People, client: Client) -> None:
    project = make_project(people.workspace)
    comparison = make_comparison(project)
    bob = annotator_for(user=people.bob, workspace=people.workspace)
    page = f"/projects/helpful/comparisons/{comparison.pk}/"
    client.force_login(people.alice)
    shown = client.post(f"{page}reserve", {"person": people.rita.pk}, follow=True).content.decode()
    assert "reserved for Rita" in shown
    assert next_assignment(project=project, annotator=bob) is None
    listed = client.get("/projects/helpful/comparisons/?show=reserved").content.decode()
    assert "reserved for Rita" in listed
    assert (
        "no member"
        in client.post(
            f"{page}reserve", {"person": people.charlie.pk}, follow=True
        ).content.decode()
    )
    client.post(f"{page}reserve", {"person": ""})
    assert next_assignment(project=project, annotator=bob) is not None
    client.force_login(people.rita)
    assert "Everybody who judges here" in client.get(page).content.decode()


def test_the_api_reserves_and_releases(people: People) -> None:
    comparison = make_comparison(make_project(people.workspace))
    alice, rita = (caller(user, people.workspace) for user in (people.alice, people.rita))
    address = f"/projects/helpful/comparisons/{comparison.pk}"
    assert rita.send("PATCH", address, {"reserved_for": None}).status_code == 403
    told = alice.send("PATCH", address, {"reserved_for": people.bob.email}).json()
    assert told["reserved_for"] == people.bob.email
    listed = rita.get("/projects/helpful/comparisons", show="reserved").json()
    assert [row["id"] for row in listed["results"]] == [comparison.pk]
    assert alice.send("PATCH", address, {"reserved_for": "x@example.org"}).status_code == 422
    assert alice.send("PATCH", address, {"reserved_for": None}).json()["reserved_for"] is None


def test_what_somebody_answered_is_not_reserved_for_them(people: People) -> None:
    comparison = make_comparison(make_project(people.workspace))
    bob = annotator_for(user=people.bob, workspace=people.workspace)
    make_judgment(comparison, bob)
    with pytest.raises(AnnotateError, match="Bob has answered"):
        reserve_comparison(comparison=comparison, annotator=bob)
    stranger = make_annotator(people.elsewhere, people.charlie)
    with pytest.raises(AnnotateError, match="different workspaces"):
        reserve_comparison(comparison=comparison, annotator=stranger)
