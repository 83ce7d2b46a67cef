"""Projects in the browser: the list, making one, its page, its settings."""

from __future__ import annotations

from typing import Any

from django.test import Client

from annotate.models import Project
from tests.factories import make_annotator, make_comparison, make_judgment, make_project
from tests.people import People


def test_a_project_is_made_and_the_next_page_brings_data_in(people: People, client: Client) -> None:
    client.force_login(people.rita)
    asked = {"name": "Kindness", "slug": "kind", "overlap": 2, "guidelines": "Be kind."}
    reply = client.post("/projects/", asked)
    assert reply.headers["Location"] == "/projects/kind/import"
    made = Project.objects.get(slug="kind")
    assert (made.workspace, made.overlap, made.created_by) == (people.workspace, 2, people.rita)


def test_a_taken_short_name_is_said_beside_its_field(people: People, client: Client) -> None:
    make_project(people.workspace)
    client.force_login(people.rita)
    reply = client.post("/projects/", {"name": "Again", "slug": "helpful", "overlap": 1})
    assert reply.status_code == 422
    assert "already has a project" in reply.content.decode()


def test_the_list_costs_the_same_for_one_project_and_for_many(
    people: People, client: Client, django_assert_max_num_queries: Any
) -> None:
    client.force_login(people.rita)
    for number in range(4):
        make_project(people.workspace, slug=f"p{number}")
        # session, user, membership, workspaces, projects; comparisons, places, leases, judgments
        with django_assert_max_num_queries(9):
            client.get("/projects/")


def test_an_empty_project_teaches_the_next_step(people: People, client: Client) -> None:
    make_project(people.workspace)
    client.force_login(people.rita)
    page = client.get("/projects/helpful/").content.decode()
    assert "No comparisons yet" in page
    assert "/projects/helpful/import" in page
    assert "there are no judgments yet" in page


def test_the_page_answers_with_numbers_and_pictures(
    people: People, client: Client, django_assert_max_num_queries: Any
) -> None:
    project = make_project(people.workspace, overlap=2)
    names = [make_annotator(people.workspace, name=f"source:{n}") for n in range(2)]
    for number in range(6):
        pair = make_comparison(project, prompt=f"{number}?")
        make_judgment(pair, names[0], "a")
        make_judgment(pair, names[1], "a" if number else "b")
    client.force_login(people.rita)
    with django_assert_max_num_queries(35):
        page = client.get("/projects/helpful/").content.decode()
    assert "12 judgments of 2 people on 6 overlapping comparisons" in page
    assert 'class="picture interval"' in page
    assert 'class="picture heat"' in page
    assert "source:0 and source:1: same answer 83% of 6" in page
    assert "style=" not in page


def test_settings_are_saved_and_an_unchanged_text_makes_no_version(
    people: People, client: Client
) -> None:
    project = make_project(people.workspace)
    client.force_login(people.rita)
    asked = {
        "name": "Helpful",
        "state": "paused",
        "overlap": 3,
        "lease_s": 120,
        "allow_both_bad": "on",
        "guidelines": "Prefer the more helpful answer.",
    }
    assert client.post("/projects/helpful/settings", asked).status_code == 302
    project.refresh_from_db()
    assert (project.state, project.overlap, project.lease_s) == ("paused", 3, 120)
    assert (project.allow_tie, project.allow_both_bad) == (False, True)
    assert project.guidelines.count() == 1


def test_impossible_settings_are_refused_in_words(people: People, client: Client) -> None:
    make_project(people.workspace)
    client.force_login(people.rita)
    asked = {"name": "x", "state": "open", "overlap": 1, "lease_s": 9_999_999}
    reply = client.post("/projects/helpful/settings", asked)
    assert reply.status_code == 422
    assert "allowed: 10 to 604800" in reply.content.decode()
